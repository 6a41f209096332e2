//! Two streams joined, on which WebSocket is spoken: in, a client's and a backend's; out, how it ended and how much
//! went each way.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;

use super::frames::{Frames, close};
use crate::base::io::fill;

/// How long one direction of a tunnel may outlive the other.
const GOODBYE: Duration = Duration::from_secs(10);
/// How long a frame may take to end where the tunnel should have ended already; with the time until that is noticed,
/// no more than 5 s in all.
const UNTIL_BORDER: Duration = Duration::from_secs(3);
/// For a client to read the close frame before the connection is cut: the edge may be about to exit.
const LEAVE_TIME: Duration = Duration::from_millis(500);
/// Bytes of a client that are read in that time.
const MAX_THROWN: usize = 1 << 20;

/// Copies both ways until both have ended; when one has, the other gets a little time to say goodbye. Or until
/// `leave` has ended: its code is told to the client by a close frame between two others, where that is soon.
/// Counts what went up and down, also where it is dropped on the way.
pub(super) async fn join<A, B>(
    client: &mut A,
    other: &mut B,
    leave: impl Future<Output = u16>,
    (up, down): (&mut u64, &mut u64),
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = split(client);
    let (mut other_read, mut other_write) = split(other);
    let (mut to_client, mut to_other) = (Pipe::new(down), Pipe::new(up));
    let mut leave = pin!(leave);
    let code = {
        let mut upward = pin!(to_other.run(&mut client_read, &mut other_write));
        let mut downward = pin!(to_client.run(&mut other_read, &mut client_write));
        let last = async {
            tokio::select! {
                ended = &mut upward => goodbye(ended, downward).await,
                ended = &mut downward => goodbye(ended, upward).await,
            }
        };
        tokio::select! {
            ended = last => return ended,
            code = &mut leave => code,
        }
    };
    let told = to_client.leave(code, &mut other_read, &mut client_write);
    match timeout(UNTIL_BORDER, told).await {
        Ok(Ok(())) => {
            if timeout(LEAVE_TIME, throw_away(&mut client_read)).await.is_err() {
                log::debug!("a client did not close its side");
            }
        }
        Ok(Err(e)) => log::debug!("a client has gone before it was told to: {e}"),
        Err(_) => log::debug!("a WebSocket was cut within a frame"),
    }
    Ok(())
}

/// One direction.
struct Pipe<'a> {
    /// What was read and is still to be written.
    waiting: BytesMut,
    /// How far the other side has come.
    frames: Frames,
    count: &'a mut u64,
}

impl<'a> Pipe<'a> {
    fn new(count: &'a mut u64) -> Self {
        Self { waiting: BytesMut::new(), frames: Frames::default(), count }
    }

    /// Copies until the end, and passes that on. Cancel safe.
    async fn run<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        from: &mut R,
        to: &mut W,
    ) -> io::Result<()> {
        while fill(from, &mut self.waiting).await? > 0 {
            self.write(to).await?;
        }
        to.shutdown().await
    }

    async fn write<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let n = to.write(&self.waiting).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.frames.pass(self.waiting.get(..n).unwrap_or_default());
            *self.count += n as u64;
            self.waiting.advance(n);
        }
        self.waiting = BytesMut::new();
        to.flush().await
    }

    /// Goes on to the end of the frame that is under way, and closes behind it (RFC 6455 §7.1.2).
    async fn leave<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        code: u16,
        from: &mut R,
        to: &mut W,
    ) -> io::Result<()> {
        self.write(to).await?;
        while !self.frames.at_border() {
            if fill(from, &mut self.waiting).await? == 0 {
                return to.shutdown().await;
            }
            self.write(to).await?;
        }
        if !self.frames.is_closing() {
            to.write_all(&close(code)).await?;
            to.flush().await?;
        }
        to.shutdown().await
    }
}

/// Reads what nobody wants until the end: unread bytes would take our last words along.
async fn throw_away<R: AsyncRead + Unpin>(from: &mut R) {
    let (mut scratch, mut total) = (BytesMut::new(), 0);
    while total < MAX_THROWN {
        scratch.clear();
        match fill(from, &mut scratch).await {
            Ok(n) if n > 0 => total += n,
            _ => return,
        }
    }
}

/// After a proper end, waits for the other direction; a broken one takes it along.
async fn goodbye(
    ended: io::Result<()>,
    rest: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    ended?;
    timeout(GOODBYE, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    /// A tunnel's far ends: the client's and the server's.
    fn ends() -> (DuplexStream, DuplexStream, DuplexStream, DuplexStream) {
        let ((client, near), (far, server)) = (duplex(1 << 16), duplex(1 << 16));
        (client, near, far, server)
    }

    async fn all(client: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_frame_stands_behind_the_frame_that_is_under_way() {
        for (begun, rest, told) in [
            (&b""[..], &b""[..], &b"\x88\x02\x03\xe9"[..]),
            (b"\x81\x02ok", b"", b"\x81\x02ok\x88\x02\x03\xe9"),
            (b"\x81\x05he", b"llo", b"\x81\x05hello\x88\x02\x03\xe9"),
            (b"\x88\x02\x03\xe8", b"", b"\x88\x02\x03\xe8"),
            // its end does not come: nothing may be put into it
            (b"\x81\x05he", b"", b"\x81\x05he"),
        ] {
            let (mut client, mut near, mut far, mut server) = ends();
            let (mut up, mut down) = (0, 0);
            server.write_all(begun).await.unwrap();
            let leave = async {
                // all that is here has passed
                tokio::time::sleep(Duration::from_millis(1)).await;
                server.write_all(rest).await.unwrap();
                1001
            };
            let joined = join(&mut near, &mut far, leave, (&mut up, &mut down));
            joined.await.unwrap();
            drop(near);
            assert_eq!(all(&mut client).await, told, "{begun:?}");
            assert_eq!(down, (begun.len() + rest.len()) as u64);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_not_waited_for() {
        let ((_client, mut near), (mut far, mut server)) = (duplex(4), duplex(1 << 16));
        let (mut up, mut down) = (0, 0);
        server.write_all(&[0; 1000]).await.unwrap();
        let began = tokio::time::Instant::now();
        join(&mut near, &mut far, ready(1008), (&mut up, &mut down)).await.unwrap();
        assert!(began.elapsed() <= UNTIL_BORDER + LEAVE_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn what_passed_is_counted_also_when_it_is_dropped() {
        let (mut client, mut near, mut far, mut server) = ends();
        let (mut up, mut down) = (0, 0);
        client.write_all(b"12345").await.unwrap();
        server.write_all(b"123").await.unwrap();
        let joined = join(&mut near, &mut far, pending(), (&mut up, &mut down));
        assert!(timeout(Duration::from_secs(60), joined).await.is_err());
        assert_eq!((up, down), (5, 3));
        let mut three = [0; 3];
        client.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"123");
    }
}
