//! Reading and writing without buffers that idle connections would have to keep.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes taken from a socket at once.
pub const SCRATCH: usize = 16 * 1024;

thread_local! {
    // One per thread: bytes are copied out before anything else runs on it, so that a connection
    // that waits owns no read buffer at all.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Reads what is there, at most [`SCRATCH`] bytes, to the end of `into`; 0 at the end of the stream.
/// Cancel safe.
///
/// # Errors
/// Those of the stream.
pub async fn fill<S: AsyncRead + Unpin>(io: &mut S, into: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| poll_fill(io, into, cx)).await
}

/// [`fill`], as a poll.
///
/// # Errors
/// Those of the stream.
pub fn poll_fill<S: AsyncRead + Unpin>(
    io: &mut S,
    into: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    BUFFER.with(|buffer| {
        let mut buffer = buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        into.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// Writes all of `bytes` and flushes.
///
/// # Errors
/// Those of the stream; `TimedOut` when it took nothing for `stall`.
pub async fn write_all<S: AsyncWrite + Unpin>(
    io: &mut S,
    mut bytes: &[u8],
    stall: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let write = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, bytes));
        let n = tokio::time::timeout(stall, write).await.map_err(|_| stalled())??;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(n..).unwrap_or_default();
    }
    let flush = poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx));
    tokio::time::timeout(stall, flush).await.map_err(|_| stalled())?
}

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other side takes nothing")
}
