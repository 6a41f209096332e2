//! One HTTP/1.x connection: in, a stream; out, requests, their bodies, and a place to answer.
//!
//! While it waits, a connection owns no buffer: bytes are read through a scratch buffer of the
//! thread and kept only where they are needed.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::head::{self, Request};
use super::line::Line;
use super::tunnel;
use super::write::{self, Framing};
use crate::base::body::{BodyReader, Buffered};
use crate::base::chunked::{ChunkDecoder, chunk};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Version;
use crate::base::io::{fill, give_out, step_aside, take_out, write_all};
use crate::listen::settings::ListenerSettings;
use crate::listen::stream::ClientStream;
use crate::listen::wire::{Answer, BodyError, BodySize, Payload, Wire};

/// Pipelined bytes that are kept while an answer is under way.
const MAX_AHEAD: usize = 64 * 1024;
/// Unwanted bytes that are read while an answer is under way, before the connection is cut.
const MAX_THROWN: usize = 16 << 20;
/// Unread body that is worth reading to keep the connection.
const MAX_DRAIN: u64 = 64 * 1024;
/// Time for that.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// RFC 9110 §15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection and the request that it is at.
pub struct H1 {
    line: Line,
    ahead: BytesMut,
    body: BodyReader,
    framing: Framing,
    /// Whether a head may wait in `held` for the piece behind it.
    holds: bool,
    held: Vec<u8>,
    http10: bool,
    keep: bool,
    expects_continue: bool,
    /// What is still to be written of a `100 Continue`.
    continue_left: &'static [u8],
    broken: bool,
    answered: bool,
    send_timeout: Duration,
    limit: u64,
    received: u64,
    sent: u64,
}

/// What the connection brought next.
pub enum Next {
    /// A request.
    Request(Box<Request>),
    /// Nothing: it closed, stayed idle, or we are draining.
    Closed,
    /// Something that cannot be a request; answer and close.
    Refused(Box<Denial>),
}

impl H1 {
    /// Takes over a stream at the start of a request.
    pub fn new(io: ClientStream, send_timeout: Duration) -> Self {
        Self {
            line: Line::new(io),
            ahead: BytesMut::new(),
            body: BodyReader::Done,
            framing: Framing::Done,
            holds: false,
            held: Vec::new(),
            http10: false,
            keep: true,
            expects_continue: false,
            continue_left: b"",
            broken: false,
            answered: false,
            send_timeout,
            limit: u64::MAX,
            received: 0,
            sent: 0,
        }
    }

    /// Waits for the next request; after the end of `draining` not for long, unless it has begun.
    pub async fn next(
        &mut self,
        settings: &ListenerSettings,
        draining: Pin<&mut impl Future<Output = ()>>,
    ) -> Next {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
            if !self.line.request(&mut self.ahead, settings.idle_timeout, draining).await {
                return Next::Closed;
            }
        }
        // RFC 9112 §2.2: one empty line before a request is forgiven
        if self.ahead.starts_with(b"\r\n") {
            self.ahead.advance(2);
        }
        match self.read_head(settings.header_timeout).await {
            Ok(Some(raw)) => self.accept(raw),
            Ok(None) => Next::Closed,
            Err(denial) => self.refuse(denial),
        }
    }

    async fn read_head(&mut self, limit: Duration) -> Result<Option<Bytes>, Denial> {
        let (mut seen, mut deadline) = (0, None);
        loop {
            if let Some(end) = head::find_end(&self.ahead, &mut seen)? {
                return Ok(Some(self.ahead.split_to(end).freeze()));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            match self.line.more(&mut self.ahead, deadline).await {
                Some(0) => return Ok(None),
                Some(_) => {}
                None => {
                    let slow = "The request head took too long";
                    return Err(Denial::new(Reason::TooSlow, "h1.slow_head", slow).closing());
                }
            }
        }
    }

    /// A long answer has begun: nothing is kept for what comes after it.
    pub fn settle(&mut self) {
        self.line.rest();
        if self.ahead.is_empty() {
            // it holds the request's head
            self.ahead = BytesMut::new();
        }
    }

    fn accept(&mut self, raw: Bytes) -> Next {
        match head::parse(&raw) {
            Ok(request) => {
                self.begin(&request);
                Next::Request(Box::new(request))
            }
            Err(denial) => self.refuse(denial),
        }
    }

    fn begin(&mut self, request: &Request) {
        self.body = match request.size {
            BodySize::None => BodyReader::Done,
            BodySize::Known(n) => BodyReader::length(n),
            BodySize::Unknown => BodyReader::Chunked(ChunkDecoder::default()),
        };
        self.framing = Framing::Done;
        self.http10 = request.head.version == Version::H10;
        self.keep = request.keep_alive;
        self.expects_continue = request.expects_continue;
        self.continue_left = if request.expects_continue { CONTINUE } else { b"" };
        (self.broken, self.answered, self.holds) = (false, false, false);
        (self.limit, self.received, self.sent) = (u64::MAX, 0, 0);
    }

    fn refuse(&mut self, denial: Denial) -> Next {
        self.body = BodyReader::Done;
        self.keep = false;
        (self.broken, self.answered) = (false, false);
        (self.received, self.sent) = (0, 0);
        Next::Refused(Box::new(denial))
    }

    /// After an answer: whether another request may follow at once.
    pub fn may_go_on(&self) -> bool {
        self.is_complete() && self.body.is_done()
    }

    /// Reads a small rest of the body; whether another request may follow then.
    pub async fn drained(&mut self) -> bool {
        self.is_complete()
            && !self.expects_continue
            && matches!(timeout(DRAIN_TIME, self.drain()).await, Ok(true))
    }

    fn is_complete(&self) -> bool {
        self.keep && !self.broken && self.answered && self.framing == Framing::Done
    }

    fn check_size(&mut self) -> Result<(), BodyError> {
        if self.received.saturating_add(self.body.announced()) > self.limit {
            self.keep = false;
            return Err(BodyError::TooLarge);
        }
        Ok(())
    }

    /// Asks for the body if the client waits to be asked. Cancel safe: it knows how far it came.
    async fn send_continue(&mut self) -> Result<(), BodyError> {
        self.expects_continue = false;
        while !self.continue_left.is_empty() {
            let written = timeout(self.send_timeout, self.line.io.write(self.continue_left)).await;
            let Ok(Ok(n @ 1..)) = written else {
                self.broken = true;
                return Err(BodyError::Gone);
            };
            self.continue_left = self.continue_left.get(n..).unwrap_or_default();
            if self.continue_left.is_empty() && self.line.io.flush().await.is_err() {
                self.broken = true;
                return Err(BodyError::Gone);
            }
        }
        Ok(())
    }

    async fn drain(&mut self) -> bool {
        let limit = self.received + MAX_DRAIN;
        loop {
            match self.body().await {
                Ok(None) => return true,
                Ok(Some(_)) if self.received <= limit => {}
                _ => return false,
            }
        }
    }

    /// Ends the connection so that a client that is still sending can read the answer (RFC 9112 §9.6), but
    /// never waits long for it.
    pub async fn close(&mut self, stopping: bool) {
        if !self.broken {
            self.line.leave(&mut self.ahead, stopping).await;
        }
    }

    /// A piece as it goes on the wire, behind a head that waited for it.
    fn framed(&mut self, piece: Bytes, last: bool) -> io::Result<Bytes> {
        let size = piece.len() as u64;
        let rest = match self.framing {
            Framing::Done if piece.is_empty() => Framing::Done,
            Framing::Done => return Err(io::Error::other("no body can follow")),
            Framing::Length(left) => match left.checked_sub(size) {
                Some(0) => Framing::Done,
                Some(rest) if !last => Framing::Length(rest),
                _ => {
                    self.broken = true;
                    return Err(io::Error::other("the body is not as long as was announced"));
                }
            },
            Framing::Chunked | Framing::Close if last => Framing::Done,
            open => open,
        };
        self.sent += size;
        let was = std::mem::replace(&mut self.framing, rest);
        let piece = if was == Framing::Chunked { chunk(&piece, last).into() } else { piece };
        if self.held.is_empty() {
            return Ok(piece);
        }
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(&piece);
        Ok(joined.into())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.line.write(bytes, self.send_timeout).await;
        self.broken |= written.is_err();
        written
    }
}

impl Wire for H1 {
    fn body_size(&self) -> BodySize {
        match &self.body {
            BodyReader::Done => BodySize::None,
            BodyReader::Length(n) => BodySize::Known(*n),
            BodyReader::Chunked(_) | BodyReader::UntilClose => BodySize::Unknown,
        }
    }

    fn limit_body(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    async fn body(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            match self.body.next(&mut self.ahead) {
                Ok(Buffered::Piece(piece)) => {
                    self.received += piece.len() as u64;
                    self.check_size()?;
                    return Ok(Some(piece));
                }
                Ok(Buffered::End) => return Ok(None),
                Ok(Buffered::More) => self.check_size()?,
                Err(_) => {
                    self.keep = false;
                    return Err(BodyError::Malformed);
                }
            }
            self.send_continue().await?;
            match fill(&mut self.line.io, &mut self.ahead).await {
                Ok(n) if n > 0 => {}
                _ => {
                    self.broken = true;
                    return Err(BodyError::Gone);
                }
            }
        }
    }

    async fn gone(&mut self) {
        let mut thrown = 0;
        loop {
            match fill(&mut self.line.io, &mut self.ahead).await {
                Ok(n) if n > 0 && self.keep && self.ahead.len() <= MAX_AHEAD => {}
                // the rest of a body that nobody wants: only its end is of interest
                Ok(n) if n > 0 && !self.keep && thrown <= MAX_THROWN => {
                    thrown += n;
                    self.ahead.clear();
                }
                // it left, or sends without end: both end the exchange
                _ => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    async fn answer(&mut self, answer: Answer, payload: Payload) -> io::Result<()> {
        let mut out = take_out();
        // a body that was never asked for will not come (RFC 9110 §10.1.1)
        self.keep &= !self.expects_continue;
        self.answered = true;
        self.framing = write::head(&answer, &payload, self.http10, self.keep, &mut out);
        self.keep &= self.framing != Framing::Close;
        let Payload::Whole(body) = payload else {
            if std::mem::take(&mut self.holds) {
                self.held = out;
                return Ok(());
            }
            return self.write(&out).await;
        };
        self.framing = Framing::Done;
        self.sent = body.len() as u64;
        if body.len() <= MAX_AHEAD {
            out.extend_from_slice(&body);
            step_aside().await;
            let written = self.write(&out).await;
            give_out(out);
            return written;
        }
        self.write(&out).await?;
        self.write(&body).await
    }

    fn expect_piece(&mut self) {
        self.holds = true;
    }

    async fn data(&mut self, piece: Bytes, last: bool) -> io::Result<()> {
        let piece = self.framed(piece, last)?;
        self.write(&piece).await
    }

    async fn abort(&mut self) {
        let held = std::mem::take(&mut self.held);
        if !self.broken {
            self.write(&held).await.unwrap_or_default();
        }
        self.broken = true;
    }

    async fn splice<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &mut self,
        other: &mut S,
        leave: impl Future<Output = u16> + Send,
    ) -> io::Result<()> {
        // whatever comes after is not HTTP
        self.broken = true;
        let ahead = std::mem::take(&mut self.ahead);
        self.received = ahead.len() as u64;
        write_all(other, &ahead, self.send_timeout).await?;
        let counts = (&mut self.received, &mut self.sent);
        tunnel::join(&mut self.line.io, other, leave, counts).await
    }

    fn close_after(&mut self) {
        self.keep = false;
    }

    fn counts(&self) -> (u64, u64) {
        (self.received, self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn connection() -> (H1, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let io = ClientStream::Left(server.into());
        (H1::new(io, Duration::from_secs(5)), client)
    }

    /// The head is written with an expected piece, or when there will be none.
    async fn head_waits(ends: bool) -> String {
        let (mut wire, mut client) = connection().await;
        wire.expect_piece();
        let answer = Answer { status: 200, fields: Vec::new() };
        wire.answer(answer, Payload::Stream).await.unwrap();
        assert!(wire.held.starts_with(b"HTTP/1.1 200 OK\r\n"), "it was not kept back");
        if ends {
            wire.abort().await;
        } else {
            wire.data(Bytes::from_static(b"first"), false).await.unwrap();
        }
        let mut bytes = [0; 512];
        let n = client.read(&mut bytes).await.unwrap();
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    }

    #[test]
    fn a_head_leaves_with_the_piece_that_is_here() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text = runtime.block_on(head_waits(false));
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.ends_with("\r\n\r\n5\r\nfirst\r\n"));
        assert!(runtime.block_on(head_waits(true)).ends_with("chunked\r\n\r\n"));
    }
}
