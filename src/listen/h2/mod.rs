//! HTTP/2 towards clients: in, a TLS stream that chose `h2`; out, one [`Wire`] per stream.
//!
//! Frames, flow control and flood limits are the `h2` crate's; which connections may idle, and what
//! counts as a request, is decided here.

mod head;
mod queue;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use ::h2::server::{Builder, SendResponse};
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::accept::Open;
use super::h1::head::MAX_HEAD;
use super::stream::ClientStream;
use super::wire::{Answer, BodyError, BodySize, Payload, Wire};
use super::{ConnCx, Serve};
use crate::base::denial::Denial;
use crate::base::head::Head;
use crate::base::io::Aside;
use head::head;
use queue::Queue;

/// Streams open at once on a connection: above the 100 that clients assume at least.
const MAX_STREAMS: u32 = 128;
/// Bytes a client may send on a stream before we took any.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes a client may send on all streams of a connection before we took any.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Answer bytes of one stream that wait in the connection.
const SEND_BUFFER: usize = 32 * 1024;
/// Largest whole answer that is handed to the connection before the client has room for it: times the
/// streams, what a client that takes nothing makes a connection hold.
const MAX_LEFT: usize = 4 * 1024;
/// How long what was sent before a broken answer ends may take to leave.
const FLUSH_TIME: Duration = Duration::from_millis(500);
/// How long a client may take to acknowledge that the edge stops (RFC 9113 §6.8). What it sent before is answered;
/// one that does acknowledge it is not waited for.
const FAREWELL: Duration = Duration::from_secs(3);

/// Speaks HTTP/2 until the connection ends, stays idle, or we are to stop.
pub(super) async fn serve<S: Serve>(io: ClientStream, cx: ConnCx, open: Open<S>) {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(32)
        .max_pending_accept_reset_streams(32);
    let Ok(Ok(mut connection)) = timeout(cx.listener.header_timeout, builder.handshake(io)).await
    else {
        return;
    };
    let (mut stopping, mut aside) = (false, Aside::default());
    let most = cx.listener.door.most_requests.map_or(u64::MAX, |most| most.get().into());
    let mut served = 0;
    let (active, queue) = (Active::default(), Arc::new(Queue::default()));
    let shared = Arc::new(Shared { cx, open, active, queue });
    let active = &shared.active;
    let mut draining = std::pin::pin!(shared.cx.draining());
    loop {
        tokio::select! {
            // requests first: nearly every turn ends here
            biased;
            next = poll_fn(|cx| aside.poll(cx, |cx| {
                let next = connection.poll_accept(cx);
                shared.queue.was_sent();
                next
            })) => match next {
                // A reset frees a stream's slot at once, but not what we have begun for it
                // (CVE-2023-44487): who resets faster than we can stop is let go.
                Some(Ok(_)) if active.count() >= 2 * MAX_STREAMS as usize => {
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                Some(Ok((request, respond))) => {
                    served += 1;
                    if !stopping && (served >= most || shared.cx.is_draining()) {
                        stopping = true;
                        connection.graceful_shutdown();
                    }
                    tokio::spawn(stream(request, respond, Running::new(shared.clone())));
                }
                Some(Err(_)) | None => return,
            },
            () = &mut draining, if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            () = active.idle_for(idle_timeout(&shared.cx)) => {
                // no GOAWAY exchange that a dead peer could hold up
                connection.abrupt_shutdown(Reason::NO_ERROR);
                stopping = true;
                if timeout(Duration::from_secs(1), poll_fn(|cx| connection.poll_closed(cx))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A client that does not answer our farewell does not keep a stopping edge up for long.
fn idle_timeout(cx: &ConnCx) -> Duration {
    let timeout = cx.listener.idle_timeout;
    if cx.is_draining() { timeout.min(FAREWELL) } else { timeout }
}

/// One request. Its beginning is boxed, so that a silent stream is a small task; no `async fn`,
/// which would hold its arguments twice.
fn stream<S: Serve>(
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    running: Running<S>,
) -> impl Future<Output = ()> + Send {
    let (parts, body) = request.into_parts();
    let stall = running.0.cx.listener.send_timeout;
    let queue = running.0.queue.clone();
    let wire = H2::new(&parts.headers, body, respond, stall, queue);
    let begun = begin(wire, head(parts), running);
    async move {
        let Some(mut long) = begun.await else { return };
        let Shared { cx, open, .. } = &*long.running.0;
        let draining = std::pin::pin!(cx.draining());
        open.handler.tail(&mut long.tail, &mut long.wire, cx, draining).await;
    }
}

/// A long answer that has begun.
struct Long<S: Serve> {
    tail: S::Tail,
    wire: H2,
    running: Running<S>,
}

fn begin<S: Serve>(
    mut wire: H2,
    head: Result<Head, Denial>,
    running: Running<S>,
) -> Pin<Box<impl Future<Output = Option<Long<S>>> + Send>> {
    Box::pin(async move {
        let Shared { cx, open, .. } = &*running.0;
        let tail = match head {
            Err(denial) => {
                Box::pin(open.handler.refuse(&mut wire, denial, cx)).await;
                return None;
            }
            Ok(head) => open.handler.handle(&mut wire, head, cx).await?,
        };
        Some(Long { tail, wire, running })
    })
}

/// One stream.
pub struct H2 {
    body: RecvStream,
    size: BodySize,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    queue: Arc<Queue>,
    send_timeout: Duration,
    limit: u64,
    received: u64,
    sent: u64,
}

impl H2 {
    fn new(
        headers: &HeaderMap,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        send_timeout: Duration,
        queue: Arc<Queue>,
    ) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let size = match length {
            _ if body.is_end_stream() => BodySize::None,
            Some(n) => BodySize::Known(n),
            None => BodySize::Unknown,
        };
        Self {
            body,
            size,
            respond,
            send: None,
            queue,
            send_timeout,
            limit: u64::MAX,
            received: 0,
            sent: 0,
        }
    }

    fn begin(&mut self, answer: Answer, length: Option<u64>, end: bool) -> io::Result<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(answer.status).map_err(io::Error::other)?;
        let headers = response.headers_mut();
        headers.reserve(answer.fields.len() + 1);
        for (name, value) in answer.fields {
            headers.append(name, value);
        }
        if let Some(n) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(n));
        }
        self.send = Some(self.respond.send_response(response, end).map_err(io::Error::other)?);
        Ok(())
    }

    async fn push(&mut self, mut piece: Bytes, end: bool) -> io::Result<()> {
        self.queue.place().await;
        self.sent += piece.len() as u64;
        let Some(send) = self.send.as_mut() else {
            return Err(io::Error::other("no head was sent"));
        };
        while !piece.is_empty() {
            send.reserve_capacity(piece.len());
            let capacity = timeout(self.send_timeout, poll_fn(|cx| send.poll_capacity(cx)));
            let n = match capacity.await {
                Ok(Some(Ok(n))) => n.min(piece.len()),
                Ok(_) => return Err(io::ErrorKind::ConnectionReset.into()),
                Err(_) => {
                    send.send_reset(Reason::CANCEL);
                    return Err(io::ErrorKind::TimedOut.into());
                }
            };
            let part = piece.split_to(n);
            send.send_data(part, end && piece.is_empty()).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Wire for H2 {
    fn body_size(&self) -> BodySize {
        self.size
    }

    fn limit_body(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    async fn body(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.body.data().await {
            None => Ok(None),
            Some(Err(_)) => Err(BodyError::Gone),
            Some(Ok(piece)) => {
                self.received += piece.len() as u64;
                if self.received > self.limit {
                    return Err(BodyError::TooLarge);
                }
                let released = self.body.flow_control().release_capacity(piece.len());
                released.map_err(|_| BodyError::Gone)?;
                Ok(Some(piece))
            }
        }
    }

    async fn gone(&mut self) {
        let reset = poll_fn(|cx| match self.send.as_mut() {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        if let Err(e) = reset.await {
            log::debug!("an HTTP/2 connection ended: {e}");
        }
    }

    async fn answer(&mut self, answer: Answer, payload: Payload) -> io::Result<()> {
        self.queue.place().await;
        match payload {
            Payload::Nothing(length) => self.begin(answer, length, true),
            Payload::Length(n) => self.begin(answer, Some(n), false),
            Payload::Stream => self.begin(answer, None, false),
            Payload::Whole(body) => {
                let size = body.len();
                self.begin(answer, Some(size as u64), size == 0)?;
                match &mut self.send {
                    // left to the connection, which sends it as soon as the client takes it
                    Some(send) if (1..=MAX_LEFT).contains(&size) => {
                        self.sent += size as u64;
                        send.send_data(body, true).map_err(io::Error::other)
                    }
                    _ => self.push(body, true).await,
                }
            }
        }
    }

    async fn data(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        if !piece.is_empty() {
            return self.push(piece, last).await;
        }
        match self.send.as_mut() {
            Some(send) if last => send.send_data(Bytes::new(), true).map_err(io::Error::other),
            _ => Ok(()),
        }
    }

    async fn abort(&mut self) {
        let Some(send) = self.send.as_mut() else {
            return self.respond.send_reset(Reason::INTERNAL_ERROR);
        };
        // A reset throws away what is queued; all of the buffer is free once that is on its way.
        send.reserve_capacity(SEND_BUFFER);
        let flushed = poll_fn(|cx| {
            loop {
                match ready!(send.poll_capacity(cx)) {
                    Some(Ok(free)) if free < SEND_BUFFER => {}
                    _ => return Poll::Ready(()),
                }
            }
        });
        if timeout(FLUSH_TIME, flushed).await.is_err() {
            log::debug!("an answer was broken off before all of it was sent");
        }
        send.send_reset(Reason::INTERNAL_ERROR);
    }

    async fn splice<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &mut self,
        _: &mut S,
        _: impl Future<Output = u16> + Send,
    ) -> io::Result<()> {
        // RFC 8441 is not spoken
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_after(&mut self) {}

    fn counts(&self) -> (u64, u64) {
        (self.received, self.sent)
    }
}

/// What the streams of a connection share.
struct Shared<S: Serve> {
    cx: ConnCx,
    open: Open<S>,
    active: Active,
    queue: Arc<Queue>,
}

/// Streams under way on a connection.
#[derive(Default)]
struct Active {
    count: AtomicUsize,
    changed: Notify,
}

/// Counts a stream for as long as it lives.
struct Running<S: Serve>(Arc<Shared<S>>);

impl<S: Serve> Running<S> {
    fn new(shared: Arc<Shared<S>>) -> Self {
        shared.active.count.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Active {
    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    async fn idle_for(&self, period: Duration) {
        while self.count.load(Ordering::Acquire) != 0 {
            self.changed.notified().await;
        }
        tokio::time::sleep(period).await;
    }
}

impl<S: Serve> Drop for Running<S> {
    fn drop(&mut self) {
        let active = &self.0.active;
        if active.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            active.changed.notify_one();
        }
    }
}
