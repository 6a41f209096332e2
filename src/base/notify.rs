//! The service manager: in, what it should know, such as `READY=1`; out, one datagram, as in sd_notify(3).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the manager listens, if it wants to hear anything.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells the service manager, if one waits for word; `state` is one assignment a line. What cannot be said is logged
/// and no more: the edge works all the same.
pub fn tell(state: &str) {
    let Some(name) = env::var_os(SOCKET) else { return };
    if let Err(e) = send(name.as_bytes(), state) {
        log::warn!("cannot tell the service manager ({SOCKET}): {e}");
    }
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    // a manager that reads nothing must not hold up a start or a stop
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn both_kinds_of_addresses_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_bytes(), "READY=1\nSTATUS=x").unwrap();
        assert_eq!(received(&file), "READY=1\nSTATUS=x");

        let name = format!("mcp-edge-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let hidden = UnixDatagram::bind_addr(&address).unwrap();
        send(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        assert_eq!(received(&hidden), "STOPPING=1");
    }

    #[test]
    fn nobody_there_is_an_error_and_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nobody");
        assert!(send(path.as_os_str().as_bytes(), "READY=1").is_err());
    }
}
