//! What only some routes note of a request, for audit logs and traces: in, its route, head and body; out, a
//! fuller record. Routes without either pay nothing.

use std::num::NonZeroU128;

use crate::base::head::Head;
use crate::base::principal::Principal;
use crate::base::trace::{self, Parent, Trace, Tracing, Trust};
use crate::inspect::look::{Look, look};
use crate::inspect::{CALLS, Scan, arguments};
use crate::listen::ConnCx;
use crate::observe::audit::Audited;
use crate::observe::record::{Record, shown_uri};
use crate::route::settings::RouteSettings;

/// At a route without traces: the caller's goes on untouched, and logs can be joined by it.
pub(super) fn claimed(head: &Head, record: &mut Record) {
    let trace = Parent::of(&head.headers).map(|parent| parent.trace);
    record.claimed_trace = trace.and_then(NonZeroU128::new);
}

/// At the route, before anybody is known: a new trace, or a trusted proxy's that goes on.
pub(super) fn begin(tracing: &Tracing, head: &Head, cx: &ConnCx, record: &mut Record) {
    let parent = Parent::of(&head.headers);
    let peer = || cx.may_forward && cx.listener.door.proxies.trusted.contains(cx.peer.ip());
    let trusted = match tracing.trust {
        Trust::Nobody => false,
        Trust::Proxies | Trust::Callers => parent.is_some() && peer(),
        Trust::Anybody => true,
    };
    record.trace = Some(Box::new(match parent {
        Some(parent) if trusted => Trace::go_on(parent, trace::state_of(&head.headers)),
        stranger => Trace::begin(tracing.share, stranger),
    }));
}

/// Once the caller is known and the body is read, or as much of it as there is.
pub(super) fn body(
    record: &mut Record,
    route: &RouteSettings,
    head: &Head,
    scan: Option<&Scan>,
    bytes: &[u8],
) {
    let audits = route.audit.is_some() && calls(scan).is_some();
    let traces = route.traces.as_ref().is_some_and(|tracing| tracing.trust >= Trust::Callers);
    if !audits && !traces {
        return;
    }
    let found = look(bytes);
    if let Some(tracing) = &route.traces {
        adopt(tracing, head, &found, record);
    }
    if let (Some(rules), Some((method, name))) = (&route.audit, calls(scan)) {
        let target = name.map(|name| match method {
            "resources/read" => shown_uri(name),
            _ => name.into(),
        });
        let arguments = found.arguments.map(|text| arguments::told(text, rules));
        record.audit =
            Some(Box::new(Audited { method, target, arguments, rule: None, begun: false }));
    }
}

/// One of the methods that an audit log tells of, and what it calls.
fn calls(scan: Option<&Scan>) -> Option<(&'static str, Option<&str>)> {
    let Some(Scan::Single(message)) = scan else { return None };
    let method = message.method.as_deref()?;
    let known = CALLS.iter().find(|call| **call == method)?;
    Some((known, message.name.as_deref()))
}

/// The trace of a caller that may say in which it is: by its headers, or in the body (MCP SEP-414). What a
/// trusted proxy has said stands.
fn adopt(tracing: &Tracing, head: &Head, found: &Look<'_>, record: &mut Record) {
    let known = |who: &Principal| !who.is_anonymous();
    let trusted = match tracing.trust {
        Trust::Nobody | Trust::Proxies => false,
        Trust::Callers => record.principal.as_deref().is_some_and(known),
        Trust::Anybody => true,
    };
    if !trusted || record.trace.as_ref().is_none_or(|trace| trace.parent.is_some()) {
        return;
    }
    let by_header = || Some((Parent::of(&head.headers)?, trace::state_of(&head.headers)));
    let by_body = || {
        let parent = Parent::parse(found.traceparent.as_deref()?)?;
        Some((parent, trace::state(found.tracestate.as_deref().into_iter())))
    };
    if let Some((parent, state)) = by_header().or_else(by_body) {
        record.trace = Some(Box::new(Trace::go_on(parent, state)));
    }
}
