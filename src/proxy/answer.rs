//! A backend's answer becomes the client's: in, `Exchanged`; out, a sent answer, or its head sent and
//! the `Rest`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, LOCATION, UPGRADE};
use http::{HeaderValue, Method};

use super::admit::{Admitted, asks_only};
use super::endpoint;
use super::exchange::{Exchanged, Failure, late};
use super::limited;
use super::listed::{self, Lists};
use super::respond::request_id_field;
use super::runtime::{Runtime, unix};
use crate::balance::Replica;
use crate::balance::session::{Kind as TicketKind, Owner, Ticket};
use crate::base::body::Pieces;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::io::{Late, within};
use crate::base::principal::Principal;
use crate::base::rate::Permit;
use crate::forward::carrier::{Carrier, Held};
use crate::forward::conn::BackendConn;
use crate::forward::head::ResponseHead;
use crate::forward::headers::{self, SESSION};
use crate::inspect::Era;
use crate::inspect::error::{code, code_in_events};
use crate::listen::ConnCx;
use crate::listen::wire::{Answer, Payload, Wire};
use crate::observe::Observer;
use crate::observe::record::Record;
use crate::route::dress::dress;
use crate::stream::pump::{Events, Flow, Kind};

/// JSON bodies up to this size are collected before they are sent: head and body leave in one write.
const MAX_COLLECTED: u64 = 64 * 1024;
/// How long a backend may be silent in a body that is no event stream: those have comments.
const BODY_SILENCE: Duration = Duration::from_secs(600);
/// Tells an outer nginx not to buffer.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A long answer whose head has been sent.
pub struct Rest {
    /// What is left of it.
    pub body: Body,
    /// What carries it.
    pub carrier: Arc<Carrier>,
    /// Who gives it.
    pub replica: Arc<Replica>,
    /// What it holds of its route's limits.
    pub permits: Vec<Permit>,
    /// When it ends at the latest.
    pub until: Option<tokio::time::Instant>,
    _held: Held,
}

/// What is left of a long answer.
pub enum Body {
    /// A body to relay.
    Flow(Flow),
    /// Another protocol: bytes both ways.
    Tunnel(Box<BackendConn>),
    /// Nothing.
    Over,
}

/// Where a request is answered.
pub struct At<'a> {
    /// The config at work.
    pub rt: &'a Arc<Runtime>,
    /// What counts.
    pub observer: &'a Observer,
    /// Its connection.
    pub cx: &'a ConnCx,
}

/// Sends what can be sent at once; `Some` when a long answer is left.
///
/// # Errors
/// The client left, or the backend failed before anything was sent.
pub async fn answer<W: Wire>(
    at: &At<'_>,
    admitted: &mut Admitted,
    mut exchanged: Exchanged,
    wire: &mut W,
    head: &Head,
    record: &mut Record,
) -> Result<Option<Rest>, Failure> {
    if !exchanged.sent_all {
        wire.close_after();
        exchanged.conn.spoil();
    }
    let until = expiry(&admitted.granted.principal);
    if exchanged.head.status == 101 {
        let fields = fields(at, admitted, &mut exchanged, head, record);
        exchanged.held.make_room();
        exchanged.replica.health.took(exchanged.began.elapsed());
        let tunnel = rest(exchanged, |conn| Body::Tunnel(Box::new(conn)), until);
        return Box::pin(switch(tunnel, fields, wire, record)).await;
    }
    let events = exchanged.head.is_event_stream();
    let mut kind = kind(at, admitted, &exchanged, head, events);
    let (conn, response, patience) = (&mut exchanged.conn, &mut exchanged.head, BODY_SILENCE);
    let (payload, pending) = match Lists::of(at.rt, admitted) {
        None => payload(conn, response, &mut kind, &head.method, wire, patience).await?,
        Some(lists) => {
            let cut = lists.payload(conn, response, &mut kind, head, wire, patience);
            Box::pin(cut).await?
        }
    };
    note_error(&payload, events, record);
    let fields = fields(at, admitted, &mut exchanged, head, record);
    let status = exchanged.head.status;
    record.stream = events && pending.is_some();
    let now = begins(admitted, &mut exchanged, head, record)?;
    let rest = match pending {
        Some(pending) => {
            if !pending.is_empty() {
                wire.expect_piece();
            }
            let flow = |conn| Flow { conn, kind, pending, patience, until, comments: 0 };
            Some(rest(exchanged, |conn| Body::Flow(flow(conn)), until))
        }
        None => {
            give_back(exchanged, now);
            None
        }
    };
    let sent = wire.answer(Answer { status, fields }, payload).await;
    sent.map_err(|_| Failure::ClientGone)?;
    Ok(rest)
}

/// The head is ready: whether a stream may stay, and what is noted of an answer when it begins.
fn begins(
    admitted: &mut Admitted,
    exchanged: &mut Exchanged,
    head: &Head,
    record: &mut Record,
) -> Result<Instant, Denial> {
    record.status = exchanged.head.status;
    if record.stream {
        limited::stays(admitted, head, record)?;
        if is_open_ended(admitted, head) {
            exchanged.held.make_room();
        }
    }
    let now = Instant::now();
    record.first_byte = Some(now);
    exchanged.replica.health.took(now.saturating_duration_since(exchanged.began));
    Ok(now)
}

/// What is left, once its head is on the way.
fn rest(
    exchanged: Exchanged,
    body: impl FnOnce(BackendConn) -> Body,
    until: Option<tokio::time::Instant>,
) -> Rest {
    let Exchanged { mut conn, replica, held, carrier, .. } = exchanged;
    conn.rest();
    Rest { body: body(conn), carrier, replica, permits: Vec::new(), until, _held: held }
}

/// The answer is complete. Before the client has it: its next request finds the connection, and the place.
fn give_back(exchanged: Exchanged, now: Instant) {
    let Exchanged { conn, replica, carrier, held, .. } = exchanged;
    carrier.give_back(conn, &replica, now);
    drop(held);
}

/// Whether a call was answered with a JSON-RPC error. Large answers are not looked at.
fn note_error(payload: &Payload, events: bool, record: &mut Record) {
    if let Payload::Whole(body) = payload
        && record.rpc_method.is_some()
        && body.len() as u64 <= MAX_COLLECTED
    {
        record.rpc_error = if events { code_in_events(body) } else { code(body) };
    }
}

/// When what is open must end, because the token that it was opened with has.
fn expiry(principal: &Principal) -> Option<tokio::time::Instant> {
    let end = principal.token.as_ref()?.streams_until?;
    // in the past: at once
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::Instant::now().checked_add(left)
}

/// Tells the client that the protocol changes (RFC 9110 §15.2.2).
async fn switch<W: Wire>(
    tunnel: Rest,
    mut fields: Vec<(HeaderName, HeaderValue)>,
    wire: &mut W,
    record: &mut Record,
) -> Result<Option<Rest>, Failure> {
    fields.push((CONNECTION, HeaderValue::from_static("Upgrade")));
    fields.push((UPGRADE, HeaderValue::from_static("websocket")));
    record.status = 101;
    record.first_byte = Some(Instant::now());
    record.stream = true;
    let sent = wire.answer(Answer { status: 101, fields }, Payload::Nothing(None)).await;
    sent.map_err(|_| Failure::ClientGone)?;
    Ok(Some(tunnel))
}

/// Nobody waits for the end of these streams; every other one carries an answer.
pub(super) fn is_open_ended(admitted: &Admitted, head: &Head) -> bool {
    let method = admitted.granted.call.rpc_method.as_deref();
    head.method == Method::GET || method == Some("subscriptions/listen")
}

/// How the bytes of the body are treated.
fn kind(
    at: &At<'_>,
    admitted: &Admitted,
    exchanged: &Exchanged,
    head: &Head,
    events: bool,
) -> Kind {
    if !events || exchanged.head.is_coded() || head.method == Method::HEAD {
        return Kind::Opaque;
    }
    // the old transport's stream is a GET without a session; others cannot carry an `endpoint`
    let call = &admitted.granted.call;
    let old =
        head.method == Method::GET && call.era != Era::Modern && admitted.plan.ticket.is_none();
    let listener = at.cx.listener.address;
    let endpoint = old.then(|| endpoint::map(at.rt, admitted, &exchanged.replica, head, listener));
    let cut = is_open_ended(admitted, head);
    Kind::Events(Box::new(Events::new(admitted.routed.route.keepalive, endpoint, cut)))
}

/// What the wire is told of the body, and what of it has come already when a long one is left.
pub(super) async fn payload<W: Wire>(
    conn: &mut BackendConn,
    response: &ResponseHead,
    kind: &mut Kind,
    method: &Method,
    wire: &mut W,
    patience: Duration,
) -> Result<(Payload, Option<Bytes>), Failure> {
    if *method == Method::HEAD || matches!(response.status, 204 | 304) {
        let length = if response.status == 204 { None } else { response.length };
        return Ok((Payload::Nothing(length), None));
    }
    let mut here = Pieces::default();
    let mut complete = gather(conn, &mut here).map_err(broke)?;
    if !complete && response.length.is_some_and(|n| n <= MAX_COLLECTED) && is_json(response) {
        let collected = within(patience, collect(conn, &mut here, wire)).await;
        complete = collected.map_err(|Late| late())??;
    }
    let here = here.joined();
    match kind {
        Kind::Events(events) if complete && !events.rewrites() => {
            let all = events.whole(here).map_err(listed::refusal)?;
            Ok((Payload::Whole(all), None))
        }
        Kind::Events(_) => Ok((Payload::Stream, Some(here))),
        Kind::Opaque if complete => Ok((Payload::Whole(here), None)),
        Kind::Opaque => match response.length {
            Some(n) => Ok((Payload::Length(n), Some(here))),
            None => Ok((Payload::Stream, Some(here))),
        },
    }
}

/// Takes what is here; `true` when that is all.
fn gather(conn: &mut BackendConn, here: &mut Pieces) -> io::Result<bool> {
    loop {
        match conn.buffered()? {
            None => return Ok(false),
            Some(None) => return Ok(true),
            Some(Some(piece)) => here.push(piece),
        }
    }
}

/// Waits for all of a short body. Nothing has been sent yet, so a backend that breaks off is a 502.
async fn collect<W: Wire>(
    conn: &mut BackendConn,
    here: &mut Pieces,
    wire: &mut W,
) -> Result<bool, Failure> {
    loop {
        tokio::select! {
            biased;
            piece = conn.body() => match piece.map_err(broke)? {
                None => return Ok(true),
                Some(piece) => here.push(piece),
            },
            () = wire.gone() => return Err(Failure::ClientGone),
        }
    }
}

pub(super) fn broke(e: io::Error) -> Denial {
    let failed = "The server failed to answer";
    Denial::new(Reason::UpstreamFailed, "forward.broke_off", failed).detail(e.to_string())
}

pub(super) fn is_json(response: &ResponseHead) -> bool {
    response.get(&CONTENT_TYPE).is_some_and(crate::inspect::is_json)
}

/// The answer's fields as the client gets them.
fn fields(
    at: &At<'_>,
    admitted: &Admitted,
    exchanged: &mut Exchanged,
    head: &Head,
    record: &Record,
) -> Vec<(HeaderName, HeaderValue)> {
    let Exchanged { head: response, replica, .. } = exchanged;
    let session = session(at, admitted, response, replica, head, record);
    let events = response.is_event_stream();
    let location = location(admitted, response, replica, head);
    let mut fields = std::mem::take(&mut response.fields);
    headers::response(&mut fields);
    fields.retain(|(name, _)| *name != SESSION);
    if let Some(location) = location {
        fields.retain(|(name, _)| *name != LOCATION);
        fields.push((LOCATION, location));
    }
    fields.extend(session.map(|value| (SESSION, value)));
    if events && !fields.iter().any(|(name, _)| *name == X_ACCEL_BUFFERING) {
        fields.push((X_ACCEL_BUFFERING, HeaderValue::from_static("no")));
    }
    dress(&mut fields, &at.cx.listener, Some(&admitted.routed.route), head);
    fields.extend(request_id_field(&record.request_id));
    fields
}

/// The session id that the client gets: sealed where a session begins, its own where one goes on.
fn session(
    at: &At<'_>,
    admitted: &Admitted,
    response: &ResponseHead,
    replica: &Replica,
    head: &Head,
    record: &Record,
) -> Option<HeaderValue> {
    let inner = response.get(&SESSION)?;
    let known = admitted.plan.ticket.as_ref().filter(|t| t.kind == TicketKind::Session);
    if known.is_some_and(|ticket| ticket.inner == inner) {
        return head.headers.get(SESSION).cloned();
    }
    if admitted.plan.ticket.is_none() && response.status >= 400 && asks_only(&head.method) {
        admitted.carrier.upstream.minted(&admitted.routed.backend_path);
    }
    // learnt from nothing but a 2xx answer to `initialize`
    if !admitted.granted.call.initialize || !(200..300).contains(&response.status) {
        return None;
    }
    let ticket = Ticket {
        kind: TicketKind::Session,
        upstream: admitted.carrier.upstream.settings.name.clone(),
        authority: replica.server.authority.clone(),
        inner: inner.to_owned(),
        issued: unix(SystemTime::now()),
    };
    let route = admitted.routed.route.label.as_str();
    let owner = Owner { principal: &admitted.granted.principal, route };
    let sealed = at.rt.keys.keys.seal(&ticket, owner);
    if sealed.is_none() {
        log::error!("{}: a session id is too long to be sealed", replica.server.authority);
    }
    let sealed = HeaderValue::from_str(&sealed?).ok()?;
    at.observer.metrics.requests.sealed(record);
    Some(sealed)
}

/// A redirect that points at the backend itself points at the public URL again.
fn location(
    admitted: &Admitted,
    response: &ResponseHead,
    replica: &Replica,
    head: &Head,
) -> Option<HeaderValue> {
    let location = response.get(&LOCATION)?;
    HeaderValue::from_str(&endpoint::location(location, admitted, replica, head)?).ok()
}
