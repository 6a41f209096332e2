//! Reading and writing without buffers that idle connections would have to keep: in, a socket; out, what came of it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Most bytes taken from a socket at once.
pub const SCRATCH: usize = 16 * 1024;

thread_local! {
    // One per thread: bytes are copied out before anything else runs on it, so that a connection
    // that waits owns no read buffer at all.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
    // What goes out is put together in it and nearly always leaves at once.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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
        if into.is_empty() {
            // one allocation of the right size, whatever was there before
            *into = BytesMut::from(read.filled());
        } else {
            into.extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// An empty buffer of the thread to put bytes together in; hand it back with [`give_out`].
pub fn take_out() -> Vec<u8> {
    OUT.take()
}

/// Keeps a buffer for the next [`take_out`], unless it has grown beyond [`SCRATCH`].
pub fn give_out(mut buffer: Vec<u8>) {
    if buffer.capacity() <= SCRATCH {
        buffer.clear();
        OUT.set(buffer);
    }
}

/// Lets all that is ready on this thread go first. Whoever is about to send calls it: what several
/// connections have to say then leaves in a row, and who reads it is woken once and not for each.
pub async fn step_aside() {
    let mut stepped = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// [`step_aside`] at each awakening of something that sends what others left with it.
#[derive(Debug, Default)]
pub struct Aside {
    stepped: bool,
}

impl Aside {
    /// Polls `inner`, at each awakening once all that is ready has had its turn.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        inner: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !std::mem::replace(&mut self.stepped, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = inner(cx);
        self.stepped = polled.is_ready();
        polled
    }
}

/// Nobody was ready in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

/// Waits for `future`, for `limit` at most. Unlike `tokio::time::timeout` it looks at the clock and
/// sets a timer only once it has to wait.
///
/// # Errors
/// [`Late`].
pub async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Late> {
    let mut future = pin!(future);
    let mut timer = pin!(None::<Sleep>);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if timer.is_none() {
            timer.set(Some(sleep(limit)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| Err(Late)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Waits for that moment; for ever where there is none.
pub async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
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
        let n = within(stall, write).await.map_err(|Late| stalled())??;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(n..).unwrap_or_default();
    }
    let flush = poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx));
    within(stall, flush).await.map_err(|Late| stalled())?
}

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other side takes nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_no_longer_than_it_may() {
        let limit = Duration::from_secs(5);
        assert_eq!(within(limit, async { 7 }).await, Ok(7));
        assert_eq!(within(limit, sleep(Duration::from_secs(4))).await, Ok(()));
        assert_eq!(within(limit, sleep(Duration::from_secs(6))).await, Err(Late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stalls_is_told_from_one_that_is_slow() {
        let (mut near, mut far) = tokio::io::duplex(4);
        let stall = Duration::from_secs(5);
        let slow = tokio::spawn(async move {
            use tokio::io::AsyncReadExt;
            let mut four = [0; 4];
            for _ in 0..2 {
                sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut four).await.unwrap();
            }
            far
        });
        write_all(&mut near, b"0123456789", stall).await.unwrap();
        let _far = slow.await.unwrap();
        let stalled = write_all(&mut near, b"0123456789", stall).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_steps_aside_goes_last() {
        let order = std::rc::Rc::new(RefCell::new(Vec::new()));
        let task = |name: &'static str, polite: bool| {
            let order = order.clone();
            async move {
                if polite {
                    step_aside().await;
                }
                order.borrow_mut().push(name);
            }
        };
        tokio::join!(task("a", true), task("b", false), task("c", false));
        assert_eq!(*order.borrow(), ["b", "c", "a"]);
    }

    #[tokio::test]
    async fn a_sender_is_polled_at_the_second_turn_of_each_awakening() {
        let (mut aside, mut turns, mut polled) = (Aside::default(), 0, 0);
        poll_fn(|cx| {
            turns += 1;
            aside.poll(cx, |cx| {
                polled += 1;
                cx.waker().wake_by_ref();
                if polled < 3 { Poll::Pending } else { Poll::Ready(()) }
            })
        })
        .await;
        assert_eq!((turns, polled), (6, 3));
        // ready again at once: more may be waiting
        assert_eq!(poll_fn(|cx| aside.poll(cx, |_| Poll::Ready(7))).await, 7);
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        give_out(Vec::with_capacity(100));
        assert!(take_out().capacity() >= 100);
        give_out(Vec::with_capacity(SCRATCH + 1));
        assert_eq!(take_out().capacity(), 0);
    }
}
