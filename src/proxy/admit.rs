//! A request's way in, in one screen: in, a wire and a head; out, `Admitted`, or why not.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method};

use super::exchange::Failure;
use super::limited;
use super::runtime::{Runtime, unix};
use crate::auth;
use crate::authz::{self, Granted};
use crate::balance::session::Owner;
use crate::balance::{Claim, Plan};
use crate::base::body::Pieces;
use crate::base::caller::Client;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::io::{Late, within};
use crate::base::limits::Permits;
use crate::forward::carrier::Carrier;
use crate::forward::headers::SESSION;
use crate::inspect::strict::{self, Seen};
use crate::inspect::{self, Call, Era};
use crate::limit::buffer::{Budget, Share};
use crate::listen::ConnCx;
use crate::listen::wire::{Answer, BodyError, BodySize, Wire};
use crate::observe::record::Record;
use crate::route::{Routed, access, cors};
use crate::stream::endpoint_url;

/// A request that may be forwarded. Only [`admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    /// Its route and the path its backend gets.
    pub routed: Routed,
    /// Who sent it, as far as addresses tell.
    pub client: Client,
    /// Who sent it and what for.
    pub granted: Granted,
    /// Where it may go.
    pub plan: Plan,
    /// What brings it there.
    pub carrier: Arc<Carrier>,
    /// Path and query for the backend, where they are not the route's path alone.
    target: Option<String>,
    /// The body, where it was read whole; gone once it has been sent.
    pub body: Option<Body>,
    /// What it holds of its route's limits.
    pub permits: Permits,
}

impl Admitted {
    /// Path and query for the backend.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.routed.backend_path)
    }
}

/// A body that is held, and its share of the buffer budget.
#[derive(Debug)]
pub struct Body {
    /// All of it.
    pub bytes: Bytes,
    _share: Share,
}

/// Takes a request through all stages up to the choice of a replica. `rpc_id` is filled as soon as
/// it is known, so that a refusal can echo it.
///
/// # Errors
/// The refusal of the first stage that refuses, or that the client left while its body was read.
pub async fn admit<W: Wire>(
    rt: &Runtime,
    wire: &mut W,
    head: &Head,
    client: Client,
    cx: &ConnCx,
    record: &mut Record,
    rpc_id: &mut Option<String>,
) -> Result<Admitted, Failure> {
    let routed = rt.routes.find(head, cx.is_local())?;
    record.route = Some(routed.route.clone());
    access::check(&routed.route, client.address)?;
    if let Some(fields) = cors::preflight(&routed.route, head) {
        return Err(Failure::Settled(Box::new(Answer { status: 204, fields })));
    }
    routed.route.methods.check(&head.method)?;
    let mut permits = Permits::default();
    if let Some(limits) = &routed.route.limits
        && let Err(denial) = limited::before_auth(&**limits, head, &client, &mut permits, record)
    {
        *rpc_id = limited::id(wire, head, &routed, cx, &rt.budget).await;
        return Err(denial.into());
    }
    let principal = auth::authenticate(&routed.route.auth, head, &client).await?;
    record.principal = Some(principal.clone());
    if let Some(limits) = &routed.route.limits
        && let Err(denial) =
            limited::after_auth(&**limits, head, &client, &principal, &mut permits, record)
    {
        *rpc_id = limited::id(wire, head, &routed, cx, &rt.budget).await;
        return Err(denial.into());
    }
    let readable = match routed.route.guards_tools() {
        true => Some(strict::head(head, has_body(wire))?),
        false => None,
    };
    let body = read_body(wire, head, &routed, cx, &rt.budget).await?;
    let scan = if readable.is_some() { inspect::scan_strictly } else { inspect::scan };
    let scan = body.as_ref().map(|body| scan(&body.bytes));
    *rpc_id = scan.as_ref().and_then(|scan| scan.id().map(str::to_owned));
    let call = inspect::classify(head, scan.as_ref())?;
    note_call(record, &call);
    let seen = match readable {
        Some(readable) => readable.body(scan.as_ref())?,
        None => Seen::in_part(),
    };
    let granted = authz::authorize(&routed.route.rules, principal, call, seen)?;
    if let Some(limits) = &routed.route.limits {
        limited::stream(&**limits, head, &client, &granted, &mut permits, record)?;
    }
    let mut admitted = place(rt, head, routed, client, granted, body, unix(record.at))?;
    admitted.permits = permits;
    Ok(admitted)
}

/// An announced body of no bytes is none.
fn has_body<W: Wire>(wire: &W) -> bool {
    !matches!(wire.body_size(), BodySize::None | BodySize::Known(0))
}

/// balance: the replica, and what its backend will see as path and query.
fn place(
    rt: &Runtime,
    head: &Head,
    routed: Routed,
    client: Client,
    granted: Granted,
    body: Option<Body>,
    now: u64,
) -> Result<Admitted, Denial> {
    let unknown = || Denial::new(Reason::Internal, "route.upstream", "Internal error");
    let carrier = rt.carriers.get(&routed.route.upstream).cloned().ok_or_else(unknown)?;
    let (token, query) = match &head.query {
        None => (None, None),
        Some(query) => match endpoint_url::take_token(query) {
            Some((_, Some(rest))) if endpoint_url::take_token(&rest).is_some() => {
                let doubled = "The routing token must stand once";
                return Err(Denial::new(Reason::Malformed, "session.doubled", doubled));
            }
            Some((token, rest)) => (Some(token), rest),
            None => (None, Some(Cow::Borrowed(query.as_str()))),
        },
    };
    let claim = claim(head, &granted.call, token)?;
    let owner = Owner { principal: &granted.principal, route: &routed.route.label };
    let plan = carrier.upstream.plan(claim, &rt.keys, owner, &client, now)?;
    let target = target(&routed, &plan, query.as_deref());
    let permits = Permits::default();
    Ok(Admitted { routed, client, granted, plan, carrier, target, body, permits })
}

/// What the request belongs to. Requests of the 2026-07-28 era ignore `Mcp-Session-Id`.
fn claim<'a>(head: &'a Head, call: &Call, token: Option<&'a str>) -> Result<Claim<'a>, Denial> {
    if let Some(token) = token {
        return Ok(Claim::Endpoint(token));
    }
    if call.era == Era::Modern {
        return Ok(Claim::Caller);
    }
    let mut values = head.headers.get_all(SESSION).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(Claim::None),
        (Some(Ok(id)), None) => Ok(Claim::Session(id)),
        _ => {
            let doubled = "Mcp-Session-Id must stand once";
            Err(Denial::new(Reason::Malformed, "session.doubled", doubled))
        }
    }
}

/// The path that was matched, or the one that the backend itself announced and we sealed.
fn target(routed: &Routed, plan: &Plan, query: Option<&str>) -> Option<String> {
    let sealed = plan.ticket.as_ref().filter(|t| t.kind == crate::balance::session::Kind::Endpoint);
    if let Some(ticket) = sealed.filter(|t| t.inner.starts_with('/')) {
        return Some(ticket.inner.clone());
    }
    query.map(|query| format!("{}?{query}", routed.backend_path))
}

/// Reads a JSON body whole, so that a truncated one has no effect; leaves all others on the wire.
pub(super) async fn read_body<W: Wire>(
    wire: &mut W,
    head: &Head,
    routed: &Routed,
    cx: &ConnCx,
    budget: &Budget,
) -> Result<Option<Body>, Failure> {
    let size = wire.body_size();
    if size == BodySize::None || !is_readable(head)? {
        return Ok(None);
    }
    let limit = routed.route.body_limit;
    wire.limit_body(limit);
    let too_large = || {
        Denial::new(Reason::BodyTooLarge, "inspect.body_too_large", "The body is too large")
            .closing()
    };
    if matches!(size, BodySize::Known(n) if n > limit) {
        return Err(too_large().into());
    }
    // charged as it comes: a length that is only announced costs nothing
    let mut share = Share::default();
    let mut body = Pieces::default();
    let all = async {
        while let Some(piece) = wire.body().await.map_err(Unread::Body)? {
            let total = body.len() as u64 + piece.len() as u64;
            budget.grow(&mut share, total).map_err(Unread::Budget)?;
            body.push(piece);
        }
        Ok(())
    };
    match within(cx.listener.body_timeout, all).await {
        Ok(Ok(())) => Ok(Some(Body { bytes: body.joined(), _share: share })),
        Ok(Err(Unread::Body(BodyError::Gone))) => Err(Failure::ClientGone),
        Ok(Err(Unread::Body(BodyError::TooLarge))) => Err(too_large().into()),
        Ok(Err(Unread::Body(BodyError::Malformed))) => {
            let broken =
                Denial::new(Reason::Malformed, "h1.chunked", "The chunked body is malformed");
            Err(broken.closing().into())
        }
        Ok(Err(Unread::Budget(denial))) => Err(denial.closing().into()),
        Err(Late) => Err(too_slow().into()),
    }
}

/// Why a body could not be read whole.
enum Unread {
    Body(BodyError),
    Budget(Denial),
}

/// Whether the body is JSON that we can read; JSON that we cannot is refused, because a backend may.
fn is_readable(head: &Head) -> Result<bool, Denial> {
    let json = |v: &HeaderValue| v.to_str().is_ok_and(inspect::is_json);
    let types = head.headers.get_all(CONTENT_TYPE);
    // nearly every call, told in a few steps
    let mut plain = types.iter();
    if head.method == Method::POST
        && plain.next().is_some_and(|kind| kind == "application/json")
        && plain.next().is_none()
        && !head.headers.contains_key(CONTENT_ENCODING)
    {
        return Ok(true);
    }
    if head.method == Method::GET || !types.iter().any(json) {
        return Ok(false);
    }
    let unsupported = |code, message| Denial::new(Reason::Unsupported, code, message).closing();
    let coded = |v: &HeaderValue| !v.as_bytes().eq_ignore_ascii_case(b"identity");
    if head.headers.get_all(CONTENT_ENCODING).iter().any(coded) {
        return Err(unsupported("inspect.coded", "A JSON body must not be coded"));
    }
    let mut types = types.iter();
    let first = types.next().and_then(|v| v.to_str().ok()).unwrap_or_default();
    if types.next().is_some() || !is_utf8(first) {
        return Err(unsupported("inspect.charset", "A JSON body must be UTF-8"));
    }
    Ok(true)
}

fn is_utf8(content_type: &str) -> bool {
    content_type.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            ["utf-8", "utf8", "us-ascii"].iter().any(|c| value.eq_ignore_ascii_case(c))
        }
        _ => true,
    })
}

fn too_slow() -> Denial {
    Denial::new(Reason::TooSlow, "h1.slow_body", "The request body took too long").closing()
}

fn note_call(record: &mut Record, call: &Call) {
    record.era = match call.era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
        Era::None => "none",
    };
    record.rpc_method = call.rpc_method.clone();
    record.tool = call.name.clone();
}
