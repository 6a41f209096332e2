//! Limits on a request's way: in, a route's limits and what is known of who asks; out, what is held.

use std::time::Duration;

use http::Method;

use super::admit::Admitted;
use super::body::json;
use super::exchange::Failure;
use super::noted;
use crate::base::denial::Denial;
use crate::base::head::Head;
use crate::base::io::within;
use crate::base::limits::{Asker, Permits};
use crate::forward::headers::accepts_events;
use crate::inspect::{self, Call};
use crate::limit::buffer::Budget;
use crate::listen::ConnCx;
use crate::listen::wire::{BodySize, Wire};
use crate::observe::record::Record;
use crate::route::Routed;
use crate::route::settings::RouteSettings;

/// Bodies up to this size are read for their id when a request is refused before its body was read.
const MOST_FOR_ID: u64 = 16 * 1024;

/// And no longer than this.
const FOR_ID: Duration = Duration::from_secs(1);

/// Asks the limits that act before authentication.
///
/// # Errors
/// 429.
pub(super) fn before_auth(
    route: &RouteSettings,
    asker: &Asker<'_>,
    permits: &mut Permits,
    record: &mut Record,
) -> Result<(), Denial> {
    let Some(limits) = &route.limits else { return Ok(()) };
    told(limits.before_auth(asker, permits), permits, record)
}

/// Asks all others but those of streams: before the body is read, so that who is over a limit takes up no
/// room for it.
///
/// # Errors
/// 429.
pub(super) fn after_auth(
    route: &RouteSettings,
    asker: &Asker<'_>,
    permits: &mut Permits,
    record: &mut Record,
) -> Result<(), Denial> {
    let Some(limits) = &route.limits else { return Ok(()) };
    told(limits.after_auth(asker, permits), permits, record)
}

/// Asks the limits of streams where the request is for one. They are the last.
///
/// # Errors
/// 429.
pub(super) fn stream(
    route: &RouteSettings,
    asker: &Asker<'_>,
    call: &Call,
    permits: &mut Permits,
    record: &mut Record,
) -> Result<(), Denial> {
    let Some(limits) = &route.limits else { return Ok(()) };
    let asked = match is_stream(asker.head, call) {
        true => told(limits.stream(asker, permits), permits, record),
        false => Ok(()),
    };
    permits.settle();
    asked
}

/// What limits have answered, with those that had no room noted.
fn told(
    asked: Result<(), Denial>,
    permits: &mut Permits,
    record: &mut Record,
) -> Result<(), Denial> {
    record.limited.append(&mut permits.limited);
    asked
}

/// The refusal of a request before its body was read, with its id where that can be had: without it, clients
/// cannot tell which of their calls has to wait.
pub(super) async fn refusal<W: Wire>(
    denial: Denial,
    wire: &mut W,
    head: &Head,
    routed: &Routed,
    cx: &ConnCx,
    budget: &Budget,
    record: &mut Record,
) -> Failure {
    let small = matches!(wire.body_size(), BodySize::Known(n) if n <= MOST_FOR_ID);
    let read = match small {
        true => within(FOR_ID, json(wire, head, routed, cx, budget)).await,
        false => Ok(Ok(None)),
    };
    let Ok(Ok(Some(body))) = read else { return Failure::Denied(Box::new(denial), None) };
    let scan = inspect::scan(&body.bytes);
    noted::body(record, &routed.route, head, Some(&scan), &body.bytes);
    Failure::Denied(Box::new(denial), scan.id().map(str::to_owned))
}

/// Counts an answer that goes on as a stream although nothing in the request said so. A GET is refused
/// where there is no room: leaving `text/event-stream` out of `Accept` must not be a way around. Any other
/// call was made by now, and its answer is let through.
///
/// # Errors
/// 429.
pub(super) fn stays(
    admitted: &mut Admitted,
    head: &Head,
    record: &mut Record,
) -> Result<(), Denial> {
    let Admitted { routed, client, granted, permits, .. } = admitted;
    let Some(limits) = &routed.route.limits else { return Ok(()) };
    if is_stream(head, &granted.call) {
        return Ok(());
    }
    let asker = Asker { head, client, principal: Some(&*granted.principal) };
    if head.method == Method::GET {
        let asked = told(limits.stream(&asker, permits), permits, record);
        record.stream = asked.is_ok();
        return asked;
    }
    limits.count_stream(&asker, permits);
    Ok(())
}

/// Whether a request asks for something that stays open by its nature: a WebSocket, a GET for events, a
/// subscription. An answer to any other call may be a stream, too, but that ends with the call.
fn is_stream(head: &Head, call: &Call) -> bool {
    head.websocket
        || (head.method == Method::GET && accepts_events(&head.headers))
        || call.rpc_method.as_deref() == Some("subscriptions/listen")
}
