//! What every wire can do for the proxy: in, an answer; out, the request's body, and word that the client has left.

use std::future::Future;
use std::io;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};

/// Size of a request body, as its framing announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodySize {
    /// There is none.
    None,
    /// `Content-Length`.
    Known(u64),
    /// Chunked, or an HTTP/2 stream without a length.
    Unknown,
}

/// Why a request body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The client went away in the middle of it.
    Gone,
    /// Its framing is broken.
    Malformed,
    /// It is, or says that it will be, larger than its bound.
    TooLarge,
}

/// The head of an answer; framing fields are the wire's own business and must not be among `fields`.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Three digits.
    pub status: u16,
    /// In the order in which they are sent.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

/// How the body of an answer comes.
#[derive(Debug, Clone)]
pub enum Payload {
    /// There is none and cannot be (204, 304, answers to HEAD). A length may be announced all the same.
    Nothing(Option<u64>),
    /// All of it, here.
    Whole(Bytes),
    /// This many bytes will follow.
    Length(u64),
    /// Unknown: pieces until the last one.
    Stream,
}

/// One request on one connection or stream.
pub trait Wire: Send {
    /// Size of the request's body.
    fn body_size(&self) -> BodySize;

    /// Bounds the request's body, in bytes, so that what announces more is refused before it comes.
    fn limit_body(&mut self, bytes: u64);

    /// The next piece of the request's body; `None` at its end. Cancel safe.
    ///
    /// # Errors
    /// [`BodyError`]; afterwards only an answer can be sent.
    fn body(&mut self) -> impl Future<Output = Result<Option<Bytes>, BodyError>> + Send;

    /// Ends when the client has gone, or sends more than any client has reason to. Cancel safe. Call it only once the body is read or given up.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// Sends the head, and the body where it is [`Payload::Whole`].
    ///
    /// # Errors
    /// The client is gone, or took nothing for the listener's `send_timeout`.
    fn answer(
        &mut self,
        answer: Answer,
        payload: Payload,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// A piece of the body will follow the head at once, if only an empty one: where it saves a write,
    /// [`Wire::answer`] may leave the head to it.
    fn expect_piece(&mut self) {}

    /// Sends a piece of the body, which may be empty; `last` completes the body. Returns once the
    /// wire has taken it (this is the backpressure).
    ///
    /// # Errors
    /// As [`Wire::answer`]; also when the body is not as long as was announced.
    fn data(&mut self, piece: Bytes, last: bool) -> impl Future<Output = io::Result<()>> + Send;

    /// Breaks the answer off so that the client can tell it from a complete one.
    fn abort(&mut self) -> impl Future<Output = ()> + Send;

    /// Joins the connection, on which WebSocket is spoken from here on, with another stream, both ways, until both
    /// have ended, or `leave` has: with the code of a close frame (RFC 6455 §7.4.1) for the client.
    ///
    /// # Errors
    /// Those of either side; `Unsupported` where a wire cannot do this.
    fn splice<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &mut self,
        other: &mut S,
        leave: impl Future<Output = u16> + Send,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// No further request on this connection after this answer.
    fn close_after(&mut self);

    /// Bytes of request body read so far, and of answer body sent.
    fn counts(&self) -> (u64, u64);
}
