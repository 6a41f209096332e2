//! The request goes out and an answer's head comes back: in, `Admitted`; out, `Exchanged`.
//!
//! Nothing is sent twice once a byte of it went out, but for GET, HEAD and OPTIONS without a body on
//! a pooled connection that turned out to be closed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::admit::{Admitted, asks_only};
use super::body::{self, Body, Rest};
use super::left;
use crate::balance::Replica;
use crate::balance::health::Cause;
use crate::balance::session::Kind;
use crate::base::chunked::chunk;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::io::{give_out, step_aside, take_out};
use crate::forward::carrier::{Carrier, Held, Opened};
use crate::forward::conn::{BackendConn, NoAnswer};
use crate::forward::counts::Retry;
use crate::forward::head::ResponseHead;
use crate::forward::headers::{self, Outgoing};
use crate::listen::ConnCx;
use crate::listen::wire::{Answer, BodySize, Wire};
use crate::observe::record::Record;

/// Bodies up to this size leave in one write with the head.
const MAX_JOINED: usize = 64 * 1024;

/// Between tries of a session's GET that meets 409.
const CONFLICT_PAUSES: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(250)];

/// Why a request has no answer from a backend.
#[derive(Debug)]
pub enum Failure {
    /// Nobody is there to answer.
    ClientGone,
    /// The edge answers it by itself, without a body.
    Settled(Box<Answer>),
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
    pub held: Held,
    /// What carried it.
    pub carrier: Arc<Carrier>,
    /// When a connection was looked for.
    pub began: std::time::Instant,
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
    cx: &ConnCx,
    record: &mut Record,
) -> Result<Exchanged, Failure> {
    let size = admitted.body.as_ref().map_or(BodySize::None, Body::size);
    let repeatable = size == BodySize::None && asks_only(&head.method);
    let mut fresh = false;
    let mut pauses = CONFLICT_PAUSES.iter();
    loop {
        let all_here = is_all_here(admitted);
        let began = std::time::Instant::now();
        let mut opened = tokio::select! {
            biased;
            opened = admitted.carrier.open(&admitted.plan, fresh, began) => opened?,
            () = wire.gone(), if all_here => return Err(Failure::ClientGone),
        };
        record.replica = Some(opened.replica.clone());
        let bytes = request_bytes(admitted, head, size, &opened.replica, record);
        step_aside().await;
        let answers = opened.replica.health.answers();
        let answer =
            send(&mut opened.conn, bytes, admitted, wire, &head.method, cx.listener.body_timeout)
                .await;
        match answer {
            Ok((answer, _)) if answer.status == 101 && !head.websocket => {
                return Err(Broken::Rubbish("the backend switched protocols unasked").into());
            }
            Ok((answer, _))
                if repeatable
                    && let Some(pause) = conflict(admitted, head, &answer, &mut pauses) =>
            {
                drop(opened);
                tokio::select! {
                    () = sleep(pause) => {}
                    () = wire.gone() => return Err(Failure::ClientGone),
                }
                admitted.carrier.counts.retried(Retry::Conflict);
            }
            Ok((answer, sent_all)) => {
                return Ok(exchanged(&admitted.carrier, opened, began, answer, sent_all));
            }
            Err(Broken::Closed) if opened.conn.reused && repeatable && !fresh => {
                fresh = true;
                admitted.carrier.counts.retried(Retry::Closed);
            }
            Err(Broken::Left(waited)) => {
                left::blame(waited, answers, &opened, admitted, head);
                return Err(Failure::ClientGone);
            }
            Err(broken) => {
                blame(&admitted.carrier, &opened, &broken);
                return Err(broken.into());
            }
        }
    }
}

/// The answer counts; also for its replica's health.
fn exchanged(
    carrier: &Arc<Carrier>,
    opened: Opened,
    began: std::time::Instant,
    head: ResponseHead,
    sent_all: bool,
) -> Exchanged {
    let Opened { conn, replica, held } = opened;
    match head.status {
        500 | 502..=504 => carrier.upstream.failed(&replica, Cause::Status),
        _ => carrier.upstream.answered(&replica),
    }
    Exchanged { head, conn, replica, held, carrier: carrier.clone(), began, sent_all }
}

/// There is no answer: what that says of the replica's health.
fn blame(carrier: &Carrier, opened: &Opened, broken: &Broken) {
    if let Some(cause) = broken.fault(opened.conn.reused) {
        carrier.upstream.failed(&opened.replica, cause);
    }
}

/// How long to wait before a session's GET that met 409 is sent again. SDK servers take one stream
/// per session, and a client that comes back at once may overtake the end of its last one: we close
/// it within milliseconds, but the server needs a moment to notice.
fn conflict(
    admitted: &Admitted,
    head: &Head,
    answer: &ResponseHead,
    pauses: &mut std::slice::Iter<'_, Duration>,
) -> Option<Duration> {
    let session = admitted.plan.ticket.as_ref().is_some_and(|t| t.kind == Kind::Session);
    let again = session && head.method == Method::GET && answer.status == 409;
    if again { pauses.next().copied() } else { None }
}

enum Broken {
    /// What came, or did not come, from the client.
    Client(Failure),
    /// The client waited for so long, and left.
    Left(Duration),
    Closed,
    Failed(String),
    Rubbish(&'static str),
    Late,
}

impl Broken {
    /// What the replica is to blame for. A connection that was used before may just have been too old.
    fn fault(&self, reused: bool) -> Option<Cause> {
        match self {
            Self::Client(_) | Self::Left(_) => None,
            Self::Closed if reused => None,
            Self::Closed | Self::Failed(_) | Self::Rubbish(_) => Some(Cause::Broken),
            Self::Late => Some(Cause::Timeout),
        }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        let failed = |code, detail: String| {
            Denial::new(Reason::UpstreamFailed, code, "The server failed to answer").detail(detail)
        };
        match broken {
            Broken::Client(failure) => failure,
            Broken::Left(_) => Failure::ClientGone,
            Broken::Closed => failed("forward.closed", "closed without an answer".into()).into(),
            Broken::Failed(detail) => failed("forward.failed", detail).into(),
            Broken::Rubbish(why) => failed("forward.rubbish", why.into()).into(),
            Broken::Late => late().into(),
        }
    }
}

/// Of a backend that takes too long.
pub(super) fn late() -> Denial {
    let late = "The server did not answer in time";
    Denial::new(Reason::UpstreamTimeout, "forward.timeout", late)
}

impl From<NoAnswer> for Broken {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::Closed => Self::Closed,
            NoAnswer::Broken(e) => Self::Failed(e.to_string()),
            NoAnswer::Rubbish(why) => Self::Rubbish(why),
            NoAnswer::Late => Self::Late,
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
    let session = session.filter(|t| t.kind == Kind::Session);
    let outgoing = Outgoing {
        head,
        target: admitted.target(),
        host,
        session: session.map(|t| t.inner.as_str()),
        client: admitted.client.address,
        tls: admitted.client.tls,
        request_id: &record.request_id,
        trace: record.trace.as_deref(),
        principal: &admitted.granted.principal,
        route: admitted.routed.route.outgoing.as_ref(),
        credential: settings.credential.as_ref(),
        readable: admitted.routed.route.guards_tools(),
        body,
    };
    let mut bytes = take_out();
    headers::write_request(&outgoing, &mut bytes);
    if let Some(body) = &admitted.body
        && is_joined(body)
    {
        bytes.extend_from_slice(&body.bytes);
    }
    bytes
}

async fn send<W: Wire>(
    conn: &mut BackendConn,
    bytes: Vec<u8>,
    admitted: &mut Admitted,
    wire: &mut W,
    method: &Method,
    body_timeout: Duration,
) -> Result<(ResponseHead, bool), Broken> {
    let all_here = is_all_here(admitted);
    let sent = tokio::select! {
        biased;
        sent = send_head(conn, &bytes, admitted) => sent,
        () = wire.gone(), if all_here => return Err(Broken::Client(Failure::ClientGone)),
    };
    if let Err(e) = sent {
        // a backend may answer and close before it has read everything: the answer counts
        return early(conn, method, &e).await;
    }
    // it will not be sent again: the answer may be hours away
    give_out(bytes);
    if let Some(held) = admitted.body.take()
        && let Some(rest) = held.rest
        && let Some(answer) = stream_body(conn, held, rest, wire, method, body_timeout).await?
    {
        return Ok(answer);
    }
    let limit = admitted.carrier.upstream.settings.first_byte_timeout;
    tokio::select! {
        biased;
        answer = conn.head_within(method, limit) => Ok((answer?, true)),
        waited = left::gone(wire) => Err(Broken::Left(waited)),
    }
}

async fn send_head(conn: &mut BackendConn, bytes: &[u8], admitted: &Admitted) -> io::Result<()> {
    conn.send(bytes).await?;
    match &admitted.body {
        Some(body) if body.rest.is_none() && !is_joined(body) => conn.send(&body.bytes).await,
        _ => Ok(()),
    }
}

/// Whether all of the body has left the wire: only then can the client's going be seen there.
fn is_all_here(admitted: &Admitted) -> bool {
    admitted.body.as_ref().is_none_or(|body| body.rest.is_none())
}

/// Whether the body leaves in one write with the head.
fn is_joined(body: &Body) -> bool {
    body.rest.is_none() && body.bytes.len() <= MAX_JOINED
}

/// Sends what is held of a body that is not ours to read, and streams the rest; `Some` when the backend
/// answers before its end, with whether the body went out all the same. A refusal (300 and above) ends it; whatever else has
/// begun to come is held until the body is through.
async fn stream_body<W: Wire>(
    conn: &mut BackendConn,
    held: Body,
    rest: Rest,
    wire: &mut W,
    method: &Method,
    body_timeout: Duration,
) -> Result<Option<(ResponseHead, bool)>, Broken> {
    let chunked = rest.size == BodySize::Unknown;
    if let Err(e) = conn.send(&framed(held.bytes.clone(), chunked, false)).await {
        return early(conn, method, &e).await.map(Some);
    }
    drop(held);
    let start = Instant::now();
    let mut begun: Option<ResponseHead> = None;
    loop {
        // the time that its beginning took counts; that of the connect is not the client's
        let left = body::patience(body_timeout, wire).saturating_sub(rest.spent);
        let piece = tokio::select! {
            biased;
            answer = conn.head(method), if begun.is_none() => {
                let answer = answer?;
                if answer.status >= 300 {
                    return Ok(Some((answer, false)));
                }
                begun = Some(answer);
                continue;
            }
            piece = timeout_at(start + left, wire.body()) => piece,
        };
        let piece = piece.map_err(|_| Broken::Client(body::too_slow().into()))?;
        let piece = piece.map_err(|e| Broken::Client(body::unread(e)))?;
        let last = piece.is_none();
        let bytes = framed(piece.unwrap_or_default(), chunked, last);
        if let Err(e) = conn.send(&bytes).await {
            return match begun {
                Some(answer) => Ok(Some((answer, false))),
                None => early(conn, method, &e).await.map(Some),
            };
        }
        if last {
            return Ok(begun.map(|answer| (answer, true)));
        }
    }
}

/// A piece of a body as it goes on the wire.
fn framed(piece: Bytes, chunked: bool, last: bool) -> Bytes {
    if chunked { chunk(&piece, last).into() } else { piece }
}

async fn early(
    conn: &mut BackendConn,
    method: &Method,
    cause: &io::Error,
) -> Result<(ResponseHead, bool), Broken> {
    let wait = Duration::from_secs(1);
    match timeout(wait, conn.head(method)).await {
        Ok(Ok(answer)) => Ok((answer, false)),
        Ok(Err(NoAnswer::Closed)) => Err(Broken::Closed),
        _ => Err(Broken::Failed(cause.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::body::tests::{Slow, begun};
    use super::*;
    use crate::forward::connect::BackendStream;
    use crate::forward::pool::Unused;
    use tokio::net::{TcpListener, TcpStream};

    /// A connection to a backend that takes all and says nothing.
    async fn silent() -> (BackendConn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (BackendConn::new(Unused::from(BackendStream::Left(near)), false), far)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_beginning_took_counts_for_the_whole_body() {
        let (mut conn, _far) = silent().await;
        let mut wire = Slow::new(&[(15_000, 65_536)], false);
        let start = Instant::now();
        let held = begun(&mut wire, 20).await.unwrap();
        let (rest, limit) = (held.rest.unwrap(), Duration::from_secs(20));
        let sent = stream_body(&mut conn, held, rest, &mut wire, &Method::POST, limit).await;
        let Err(Broken::Client(Failure::Denied(denial, _))) = sent else { panic!("it went on") };
        assert_eq!(denial.code, "h1.slow_body");
        // 20 s, and one for each of 16 times 4 KiB
        assert_eq!(start.elapsed().as_secs(), 36);
    }
}
