//! The request goes out and an answer's head comes back: in, `Admitted`; out, `Exchanged`.
//!
//! Nothing is sent twice once a byte of it went out, but for GET, HEAD and OPTIONS without a body on
//! a pooled connection that turned out to be closed.

use std::io;
use std::sync::Arc;

use http::Method;
use tokio::time::timeout;

use super::admit::Admitted;
use crate::balance::{InFlight, Replica};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::forward::carrier::{Carrier, Opened};
use crate::forward::conn::{BackendConn, NoAnswer};
use crate::forward::head::ResponseHead;
use crate::forward::headers::{self, Outgoing};
use crate::listen::wire::{BodyError, BodySize, Wire};
use crate::observe::record::Record;

/// Bodies up to this size leave in one write with the head.
const MAX_JOINED: usize = 64 * 1024;

/// Why a request has no answer from a backend.
#[derive(Debug)]
pub enum Failure {
    /// Nobody is there to answer.
    ClientGone,
    /// It is refused; with the JSON-RPC id to echo.
    Denied(Box<Denial>, Option<String>),
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial), None)
    }
}

impl Failure {
    /// Adds the id to echo.
    #[must_use]
    pub fn with_id(self, id: Option<&str>) -> Self {
        match self {
            Self::Denied(denial, None) => Self::Denied(denial, id.map(str::to_owned)),
            other => other,
        }
    }
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Exchanged {
    /// Its head.
    pub head: ResponseHead,
    /// Where its body comes from.
    pub conn: BackendConn,
    /// Who gives it.
    pub replica: Arc<Replica>,
    /// Counted until it is complete.
    pub held: InFlight,
    /// What carried it.
    pub carrier: Arc<Carrier>,
    /// Whether all of the request's body went out; else the client's connection cannot go on.
    pub sent_all: bool,
}

/// Sends the request and waits for the answer's head.
///
/// # Errors
/// 503 when no replica can be reached, 502 when it answers rubbish or not at all, 504 when not in
/// time; or the client left.
pub async fn exchange<W: Wire>(
    admitted: &mut Admitted,
    wire: &mut W,
    head: &Head,
    record: &mut Record,
) -> Result<Exchanged, Failure> {
    let size = match &admitted.body {
        Some(body) => BodySize::Known(body.bytes.len() as u64),
        None => wire.body_size(),
    };
    let repeatable = size == BodySize::None
        && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let mut fresh = false;
    loop {
        let mut opened = admitted.carrier.open(&admitted.plan, fresh).await?;
        record.replica = Some(opened.replica.clone());
        let bytes = request_bytes(admitted, head, size, &opened.replica, record);
        let answer = send(&mut opened.conn, bytes, admitted, wire, &head.method).await;
        match answer {
            Ok((answer, _)) if answer.status == 101 && !head.websocket => {
                return Err(Broken::Rubbish("the backend switched protocols unasked").into());
            }
            Ok((answer, sent_all)) => {
                let Opened { conn, replica, held } = opened;
                let carrier = admitted.carrier.clone();
                return Ok(Exchanged { head: answer, conn, replica, held, carrier, sent_all });
            }
            Err(Broken::Closed) if opened.conn.reused && repeatable && !fresh => fresh = true,
            Err(broken) => return Err(broken.into()),
        }
    }
}

enum Broken {
    ClientGone,
    BadBody(Denial),
    Closed,
    Failed(String),
    Rubbish(&'static str),
    Late,
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        let failed = |code, detail: String| {
            Denial::new(Reason::UpstreamFailed, code, "The server failed to answer").detail(detail)
        };
        match broken {
            Broken::ClientGone => Self::ClientGone,
            Broken::BadBody(denial) => denial.into(),
            Broken::Closed => failed("forward.closed", "closed without an answer".into()).into(),
            Broken::Failed(detail) => failed("forward.failed", detail).into(),
            Broken::Rubbish(why) => failed("forward.rubbish", why.into()).into(),
            Broken::Late => {
                let late = "The server did not answer in time";
                Denial::new(Reason::UpstreamTimeout, "forward.timeout", late).into()
            }
        }
    }
}

impl From<NoAnswer> for Broken {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::Closed => Self::Closed,
            NoAnswer::Broken(e) => Self::Failed(e.to_string()),
            NoAnswer::Rubbish(why) => Self::Rubbish(why),
        }
    }
}

/// Head and, where it is here and small, body: one write.
fn request_bytes(
    admitted: &Admitted,
    head: &Head,
    body: BodySize,
    replica: &Replica,
    record: &Record,
) -> Vec<u8> {
    let settings = &admitted.carrier.upstream.settings;
    let host = settings.host.of(replica, head);
    let session = admitted.plan.ticket.as_ref();
    let session = session.filter(|t| t.kind == crate::balance::session::Kind::Session);
    let outgoing = Outgoing {
        head,
        target: &admitted.target,
        host,
        session: session.map(|t| t.inner.as_str()),
        client: admitted.client.address,
        tls: admitted.client.tls,
        request_id: &record.request_id,
        body,
    };
    let joined = admitted.body.as_ref().map(|b| &b.bytes).filter(|b| b.len() <= MAX_JOINED);
    let mut bytes = Vec::with_capacity(1024 + joined.map_or(0, |b| b.len()));
    headers::write_request(&outgoing, &mut bytes);
    if let Some(body) = joined {
        bytes.extend_from_slice(body);
    }
    bytes
}

async fn send<W: Wire>(
    conn: &mut BackendConn,
    bytes: Vec<u8>,
    admitted: &mut Admitted,
    wire: &mut W,
    method: &Method,
) -> Result<(ResponseHead, bool), Broken> {
    if let Err(e) = send_head(conn, &bytes, admitted).await {
        // a backend may answer and close before it has read everything: the answer counts
        return early(conn, method, &e).await;
    }
    // it will not be sent again: the answer may be hours away
    drop(bytes);
    let whole = admitted.body.take().is_some();
    if !whole
        && wire.body_size() != BodySize::None
        && let Some(answer) = stream_body(conn, wire, method, admitted).await?
    {
        return Ok((answer, false));
    }
    let limit = admitted.carrier.upstream.settings.first_byte_timeout;
    tokio::select! {
        biased;
        answer = timeout(limit, conn.head(method)) => match answer {
            Ok(answer) => Ok((answer?, true)),
            Err(_) => Err(Broken::Late),
        },
        () = wire.gone() => Err(Broken::ClientGone),
    }
}

async fn send_head(conn: &mut BackendConn, bytes: &[u8], admitted: &Admitted) -> io::Result<()> {
    conn.send(bytes).await?;
    match &admitted.body {
        Some(body) if body.bytes.len() > MAX_JOINED => conn.send(&body.bytes).await,
        _ => Ok(()),
    }
}

/// Streams a body that is not ours to read; `Some` when the backend answers before its end.
async fn stream_body<W: Wire>(
    conn: &mut BackendConn,
    wire: &mut W,
    method: &Method,
    admitted: &Admitted,
) -> Result<Option<ResponseHead>, Broken> {
    let chunked = wire.body_size() == BodySize::Unknown;
    let stall = admitted.carrier.upstream.settings.first_byte_timeout;
    loop {
        let piece = tokio::select! {
            biased;
            answer = conn.head(method) => return Ok(Some(answer?)),
            piece = timeout(stall, wire.body()) => piece,
        };
        let bytes = match piece {
            Ok(Ok(Some(piece))) if chunked => chunk(&piece),
            Ok(Ok(Some(piece))) => piece.to_vec(),
            Ok(Ok(None)) if chunked => b"0\r\n\r\n".to_vec(),
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(BodyError::Gone)) => return Err(Broken::ClientGone),
            Ok(Err(BodyError::Malformed | BodyError::TooLarge)) => {
                let broken = "The chunked body is malformed";
                return Err(Broken::BadBody(
                    Denial::new(Reason::Malformed, "h1.chunked", broken).closing(),
                ));
            }
            Err(_) => {
                let slow = "The request body took too long";
                return Err(Broken::BadBody(
                    Denial::new(Reason::TooSlow, "h1.slow_body", slow).closing(),
                ));
            }
        };
        if let Err(e) = conn.send(&bytes).await {
            return early(conn, method, &e).await.map(|(answer, _)| Some(answer));
        }
        if chunked && bytes == b"0\r\n\r\n" {
            return Ok(None);
        }
    }
}

async fn early(
    conn: &mut BackendConn,
    method: &Method,
    cause: &io::Error,
) -> Result<(ResponseHead, bool), Broken> {
    let wait = std::time::Duration::from_secs(1);
    match timeout(wait, conn.head(method)).await {
        Ok(Ok(answer)) => Ok((answer, false)),
        Ok(Err(NoAnswer::Closed)) => Err(Broken::Closed),
        _ => Err(Broken::Failed(cause.to_string())),
    }
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.len() + 20);
    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
    out
}
