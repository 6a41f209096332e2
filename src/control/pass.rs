//! Sockets that go to another process (`unix(7)`, `SCM_RIGHTS`): in, names and listening sockets; out, the same
//! on the other side.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// As many as Linux lets go at once (`SCM_MAX_FD`).
pub const MOST: usize = 253;
/// Longest line of names, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// A listening socket under the name that the config has for it.
pub type Named = (String, TcpListener);

/// Sends the names as a line of JSON, and the sockets with its first bytes.
///
/// # Errors
/// There are too many, or the other side has gone.
pub async fn give(peer: &UnixStream, sockets: &[Named]) -> io::Result<()> {
    if sockets.len() > MOST {
        return Err(io::Error::other(format!("{} sockets are more than {MOST}", sockets.len())));
    }
    let names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
    let line = format!("{}\n", json!({ "sockets": names }));
    let all: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut left = line.as_bytes();
    while !left.is_empty() {
        let first = left.len() == line.len();
        peer.writable().await?;
        let sent = peer.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            if first && !all.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(&all)) {
                return Err(io::Error::other("the sockets do not fit into a message"));
            }
            Ok(sendmsg(peer, &[IoSlice::new(left)], &mut beside, SendFlags::NOSIGNAL)?)
        });
        match sent {
            Ok(sent) => left = left.get(sent..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Takes what [`give`] sent. Blocks its thread.
///
/// # Errors
/// A sentence: what came instead.
pub fn take(peer: &net::UnixStream) -> Result<VecDeque<Named>, String> {
    let (line, sockets) = message(peer).map_err(|e| format!("no sockets came: {e}"))?;
    let told: Value = serde_json::from_slice(&line)
        .map_err(|_| "the running edge went away without an answer".to_owned())?;
    let Some(names) = told.get("sockets").and_then(Value::as_array) else {
        let why = told.get("error").and_then(Value::as_str).unwrap_or("it cannot do so");
        return Err(format!("the running edge does not pass its sockets on: {why}"));
    };
    if names.len() != sockets.len() {
        return Err(format!("{} sockets came for {} names", sockets.len(), names.len()));
    }
    let names = names.iter().map(|name| name.as_str().unwrap_or_default().to_owned());
    Ok(names.zip(sockets.into_iter().map(TcpListener::from)).collect())
}

/// A line, and all descriptors that came with it.
fn message(peer: &net::UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut sockets) = (Vec::new(), Vec::new());
    let mut bytes = [0; 4096];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(peer, into, &mut beside, RecvFlags::CMSG_CLOEXEC)?.bytes;
        for part in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(these) = part {
                sockets.extend(these);
            }
        }
        line.extend_from_slice(bytes.get(..got).unwrap_or_default());
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok((line, sockets));
        }
        if got == 0 || line.len() > MAX_LINE {
            return Ok((line, sockets));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_passed_on_is_the_same_socket() {
        let named = |name: &str| (name.to_owned(), TcpListener::bind("127.0.0.1:0").unwrap());
        let sockets = [named("one"), named("two"), named("one")];
        let addresses: Vec<_> = sockets.iter().map(|(_, s)| s.local_addr().unwrap()).collect();
        let (here, there) = UnixStream::pair().unwrap();
        give(&here, &sockets).await.unwrap();
        let there = there.into_std().unwrap();
        there.set_nonblocking(false).unwrap();
        let taken = tokio::task::spawn_blocking(move || take(&there).unwrap()).await.unwrap();
        let names: Vec<&str> = taken.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["one", "two", "one"]);
        drop(sockets);
        for ((_, socket), address) in taken.iter().zip(addresses) {
            assert_eq!(socket.local_addr().unwrap(), address);
            // still listened on, though the first owner has closed it
            std::net::TcpStream::connect(address).unwrap();
        }
    }

    #[tokio::test]
    async fn what_comes_instead_of_sockets_is_told() {
        for (sent, told) in [
            (&b"{\"ok\":false,\"error\":\"unknown `do`\"}\n"[..], "unknown `do`"),
            (b"{\"sockets\":[\"a\"]}\n", "0 sockets came for 1 names"),
            (b"", "went away"),
        ] {
            let (here, there) = net::UnixStream::pair().unwrap();
            io::Write::write_all(&mut &here, sent).unwrap();
            drop(here);
            let problem = take(&there).unwrap_err();
            assert!(problem.contains(told), "{problem}");
        }
    }
}
