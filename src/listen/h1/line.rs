//! A client's stream and the one timer for all that waits on it: in, bounds; out, bytes read or written in time.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::base::alarm::Alarm;
use crate::base::io::{fill, poll_fill};
use crate::listen::LINGER;
use crate::listen::stream::ClientStream;

/// For a client to read a refusal before the connection is cut.
const LEAVE_TIME: Duration = Duration::from_secs(2);
/// The same when the edge stops: it exits once its last connection is closed.
const STOP_TIME: Duration = Duration::from_millis(500);

/// A stream with a timer.
pub(super) struct Line {
    /// For what needs no bound here.
    pub(super) io: ClientStream,
    alarm: Alarm,
}

/// What a wait for a request brought.
enum First {
    /// Its beginning.
    Bytes,
    /// Nothing, and nothing will come: the client has left, or was silent for too long.
    Nothing,
    /// Nothing before the stop.
    Stopped,
}

impl Line {
    pub(super) fn new(io: ClientStream) -> Self {
        Self { io, alarm: Alarm::new() }
    }

    /// Lets go of the timer: nothing will wait on it for long.
    pub(super) fn rest(&mut self) {
        self.alarm.rest();
    }

    /// Waits for the first bytes of a request, for `idle`, and after `stop` for [`LINGER`] at most; whether any came.
    pub(super) async fn request(
        &mut self,
        into: &mut BytesMut,
        idle: Duration,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        let mut first = self.first(into, idle, stop).await;
        if let First::Stopped = first {
            first = self.first(into, LINGER, pin!(pending())).await;
        }
        matches!(first, First::Bytes)
    }

    async fn first(
        &mut self,
        into: &mut BytesMut,
        idle: Duration,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> First {
        let mut waiting = false;
        let first = poll_fn(|cx| {
            // a request that is here already is answered
            if let Poll::Ready(read) = poll_fill(&mut self.io, into, cx) {
                let read = read.unwrap_or(0);
                return Poll::Ready(if read > 0 { First::Bytes } else { First::Nothing });
            }
            if !std::mem::replace(&mut waiting, true) {
                self.alarm.set(Instant::now() + idle);
            }
            if self.alarm.poll(cx).is_ready() {
                return Poll::Ready(First::Nothing);
            }
            stop.as_mut().poll(cx).map(|()| First::Stopped)
        });
        first.await
    }

    /// Reads more until `deadline`: 0 at the end of the stream, `None` when it is too late.
    pub(super) async fn more(&mut self, into: &mut BytesMut, deadline: Instant) -> Option<usize> {
        self.alarm.set(deadline);
        let more = poll_fn(|cx| match poll_fill(&mut self.io, into, cx) {
            Poll::Ready(read) => Poll::Ready(Some(read.unwrap_or(0))),
            Poll::Pending => self.alarm.poll(cx).map(|()| None),
        });
        more.await
    }

    /// Writes and flushes all of it.
    ///
    /// # Errors
    /// Those of the stream; `TimedOut` when it took nothing for `stall`.
    pub(super) async fn write(&mut self, mut bytes: &[u8], stall: Duration) -> io::Result<()> {
        let mut waiting = false;
        let written = poll_fn(|cx| {
            loop {
                let step = match bytes {
                    [] => Pin::new(&mut self.io).poll_flush(cx).map_ok(|()| 0),
                    _ => Pin::new(&mut self.io).poll_write(cx, bytes),
                };
                match step {
                    Poll::Ready(Ok(_)) if bytes.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => bytes = bytes.get(n..).unwrap_or_default(),
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => break,
                }
                waiting = false;
            }
            // the bound is on a client that takes nothing, however long all of it takes
            if !std::mem::replace(&mut waiting, true) {
                self.alarm.set(Instant::now() + stall);
            }
            self.alarm.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        });
        written.await
    }

    /// Ends our side, and waits a moment for the client to read what was sent; less where the edge stops.
    pub(super) async fn leave(&mut self, scratch: &mut BytesMut, stopping: bool) {
        let limit = if stopping { STOP_TIME } else { LEAVE_TIME };
        if timeout(limit, self.linger(scratch)).await.is_err() {
            log::debug!("a client did not close its side");
        }
    }

    /// Ends our side, and reads until the client has ended its own or too much came.
    async fn linger(&mut self, scratch: &mut BytesMut) {
        if self.io.shutdown().await.is_err() {
            return;
        }
        let mut total = 0;
        while total < 1 << 20 {
            scratch.clear();
            match fill(&mut self.io, scratch).await {
                Ok(n) if n > 0 => total += n,
                _ => return,
            }
        }
    }
}
