//! A request's way in, in one screen: in, a wire and a head; out, `Admitted`, or why not.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::body::{self, Body, json};
use super::exchange::Failure;
use super::limited;
use super::noted;
use super::runtime::{Runtime, unix};
use crate::auth;
use crate::authz::{self, Entered, Granted};
use crate::balance::session::Owner;
use crate::balance::{Claim, Plan};
use crate::base::caller::Client;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::limits::{Asker, Permits};
use crate::base::principal::Principal;
use crate::forward::carrier::Carrier;
use crate::forward::headers::SESSION;
use crate::inspect::strict::{self, Readable, Seen};
use crate::inspect::{self, Call, Era};
use crate::listen::ConnCx;
use crate::listen::wire::{Answer, BodySize, Wire};
use crate::observe::record::{Record, shown_uri};
use crate::route::settings::RouteSettings;
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
    /// The body, or its beginning; gone once it has been sent.
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
    let (routed, preflight) = find(rt, head, &client, cx, record)?;
    let mut permits = Permits::default();
    // what would have a name here would be held until the replica is chosen
    if let Err(denial) = limited::before_auth(
        &routed.route,
        &Asker { head, client: &client, principal: None },
        &mut permits,
        record,
    ) {
        let refusal = limited::refusal(denial, wire, head, &routed, cx, &rt.budget, record);
        return Err(Box::pin(refusal).await);
    }
    if let Some(fields) = preflight {
        return Err(Failure::Settled(Box::new(Answer { status: 204, fields })));
    }
    let principal = auth::authenticate(&routed.route.auth, head, &client).await?;
    let entered = match enter(&routed.route, head, &client, principal, &mut permits, record) {
        Ok(entered) => entered,
        Err(denial) => {
            let refusal = limited::refusal(denial, wire, head, &routed, cx, &rt.budget, record);
            return Err(Box::pin(refusal).await);
        }
    };
    let readable = match routed.route.reads_strictly() {
        true => Some(strict::head(head, has_body(wire))?),
        false => None,
    };
    let body = json(wire, head, &routed, cx, &rt.budget).await?;
    let granted = judge(&routed.route, head, readable, body.as_ref(), entered, rpc_id, record)?;
    limited::stream(
        &routed.route,
        &Asker { head, client: &client, principal: Some(&granted.principal) },
        &granted.call,
        &mut permits,
        record,
    )?;
    let mut admitted = place(rt, head, routed, client, granted, body, unix(record.at))?;
    admitted.permits = permits;
    record.in_session = admitted.plan.ticket.is_some();
    if admitted.body.is_none() && wire.body_size() != BodySize::None {
        let timeout = cx.listener.body_timeout;
        admitted.body = Some(Box::pin(body::beginning(wire, timeout, &rt.budget)).await?);
    }
    Ok(admitted)
}

/// The fields of the answer to a preflight.
type Preflight = Vec<(HeaderName, HeaderValue)>;

/// route: the route, and where it is a preflight that it answers, with what.
fn find(
    rt: &Runtime,
    head: &Head,
    client: &Client,
    cx: &ConnCx,
    record: &mut Record,
) -> Result<(Routed, Option<Preflight>), Denial> {
    let routed = rt.routes.find(head, cx.listener.address)?;
    record.route = Some(routed.route.clone());
    match &routed.route.traces {
        Some(tracing) => noted::begin(tracing, head, cx, record),
        None => noted::claimed(head, record),
    }
    access::check(&routed.route, client)?;
    let preflight = cors::preflight(&routed.route, head);
    if preflight.is_none() {
        routed.route.methods.check(&head.method)?;
    }
    Ok((routed, preflight))
}

/// limit and authz, once it is known who asks: as far as they need no body.
fn enter(
    route: &RouteSettings,
    head: &Head,
    client: &Client,
    principal: Arc<Principal>,
    permits: &mut Permits,
    record: &mut Record,
) -> Result<Entered, Denial> {
    record.principal = Some(principal.clone());
    let asker = Asker { head, client, principal: Some(&principal) };
    limited::after_auth(route, &asker, permits, record)?;
    authz::enter(&route.rules, principal)
}

/// inspect and authz: what the request is for, and whether its caller may do that.
fn judge(
    route: &RouteSettings,
    head: &Head,
    readable: Option<Readable>,
    body: Option<&Body>,
    entered: Entered,
    rpc_id: &mut Option<String>,
    record: &mut Record,
) -> Result<Granted, Denial> {
    let scan = if readable.is_some() { inspect::scan_strictly } else { inspect::scan };
    let scan = body.map(|body| scan(&body.bytes));
    *rpc_id = scan.as_ref().and_then(|scan| scan.id().map(str::to_owned));
    if let Some(body) = body {
        noted::body(record, route, head, scan.as_ref(), &body.bytes);
    }
    let call = inspect::classify(head, scan.as_ref())?;
    note_call(record, &call);
    let seen = match readable {
        Some(readable) => readable.body(scan.as_ref())?,
        None => Seen::in_part(),
    };
    authz::authorize(&route.rules, entered, call, seen)
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
    if matches!(claim, Claim::None) && !head.websocket && asks_only(&head.method) {
        carrier.upstream.shield(&routed.backend_path)?;
    }
    let owner = Owner { principal: &granted.principal, route: &routed.route.label };
    let plan = carrier.upstream.plan(claim, &rt.keys, owner, &client, &head.headers, now)?;
    let target = target(&routed, &plan, query.as_deref());
    let permits = Permits::default();
    Ok(Admitted { routed, client, granted, plan, carrier, target, body, permits })
}

/// Methods that begin no session.
pub(super) fn asks_only(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
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

fn note_call(record: &mut Record, call: &Call) {
    record.era = match call.era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
        Era::None => "none",
    };
    record.rpc_method = call.rpc_method.clone();
    record.tool = match call.rpc_method.as_deref() {
        Some("resources/read") => call.name.as_deref().map(shown_uri),
        // whoever knows a task's id may be able to have its result
        Some(method) if method.starts_with("tasks/") => None,
        _ => call.name.clone(),
    };
}
