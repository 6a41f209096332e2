//! Answers of routes with rules about tools: in, an answer that has begun; out, one whose lists of tools
//! name what the caller may call, or a refusal.
//!
//! What may be such a list is read whole: event by event in a stream, and otherwise each JSON body and
//! whatever answers a POST. So servers are asked for answers that are not coded, nor in parts.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED};

use super::admit::Admitted;
use super::answer::{broke, is_json, payload};
use super::exchange::{Failure, late};
use super::runtime::Runtime;
use crate::authz;
use crate::base::body::Pieces;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::io::{Late, within};
use crate::forward::conn::BackendConn;
use crate::forward::head::ResponseHead;
use crate::limit::buffer::{Budget, Share};
use crate::listen::wire::{Payload, Wire};
use crate::stream::pump::Kind;
use crate::stream::tool_events::ListFilter;
use crate::stream::tools::{Refused, Shows, cut};

/// Bodies up to this size are not counted into the buffer budget, in bytes.
const FREE: u64 = 64 * 1024;
/// What says of a body that it is this one and no other: true no more once a list is cut.
const OF_THE_BODY: [HeaderName; 6] = [
    ETAG,
    LAST_MODIFIED,
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];

/// What is done to the lists in one answer.
pub(super) struct Lists {
    shows: Shows,
    /// Largest body, and largest event of a stream, in bytes.
    limit: u64,
    budget: Budget,
}

/// JSON by any of its names, or what has no name.
fn may_be_json(response: &ResponseHead) -> bool {
    let named = |kind: &str| kind.to_ascii_lowercase().contains("json");
    is_json(response) || response.get(&CONTENT_TYPE).is_none_or(named)
}

impl Lists {
    /// `None` where no rule of the route is about tools.
    pub(super) fn of(rt: &Runtime, admitted: &Admitted) -> Option<Self> {
        let route = &admitted.routed.route;
        if !route.guards_tools() {
            return None;
        }
        let (route, principal) = (route.clone(), admitted.granted.principal.clone());
        let limit = route.body_limit;
        let shows = Box::new(move |tool: &str| authz::shows(&route.rules, &principal, tool));
        Some(Self { shows, limit, budget: rt.budget.clone() })
    }

    /// What the wire is told of the body, and what of it has come already when a stream is left.
    ///
    /// # Errors
    /// 502 where it cannot be read whole and in one way.
    pub(super) async fn payload<W: Wire>(
        self,
        conn: &mut BackendConn,
        response: &mut ResponseHead,
        kind: &mut Kind,
        head: &Head,
        wire: &mut W,
        patience: Duration,
    ) -> Result<(Payload, Option<Bytes>), Failure> {
        let lists = may_be_json(response) || head.method == Method::POST;
        check(response, lists)?;
        match kind {
            Kind::Events(events) => {
                let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
                events.cut_lists(ListFilter::new(self.shows, limit, self.budget));
            }
            Kind::Opaque if head.method == Method::HEAD || matches!(response.status, 204 | 304) => {
                if lists || response.is_event_stream() {
                    forget(response);
                }
            }
            Kind::Opaque if lists => {
                let whole = within(patience, self.whole(conn, response, wire)).await;
                return Ok((Payload::Whole(whole.map_err(|Late| late())??), None));
            }
            Kind::Opaque => {}
        }
        payload(conn, response, kind, &head.method, wire, patience).await
    }

    /// All of a body, cut.
    async fn whole<W: Wire>(
        &self,
        conn: &mut BackendConn,
        response: &mut ResponseHead,
        wire: &mut W,
    ) -> Result<Bytes, Failure> {
        if response.length.is_some_and(|length| length > self.limit) {
            return Err(refusal(Refused::TooLarge).into());
        }
        let (mut body, mut share) = (Pieces::default(), Share::default());
        loop {
            let piece = tokio::select! {
                biased;
                piece = conn.body() => piece.map_err(broke)?,
                () = wire.gone() => return Err(Failure::ClientGone),
            };
            let Some(piece) = piece else { break };
            let total = body.len() as u64 + piece.len() as u64;
            if total > self.limit {
                return Err(refusal(Refused::TooLarge).into());
            }
            if total > FREE {
                self.budget.grow(&mut share, total)?;
            }
            body.push(piece);
        }
        let body = body.joined();
        match cut(&body, &*self.shows).map_err(refusal)? {
            None => Ok(body),
            Some(cut) => {
                forget(response);
                Ok(cut.into())
            }
        }
    }
}

/// Refuses answers that cannot be read: coded, in part, or of a type that is read in several ways.
fn check(response: &ResponseHead, lists: bool) -> Result<(), Denial> {
    let mut types = response.fields.iter().filter(|(name, _)| *name == CONTENT_TYPE);
    let kind = types.next().map(|(_, value)| value.as_bytes().to_ascii_lowercase());
    let kind = kind.unwrap_or_default();
    let events = memchr::memmem::find(&kind, b"event-stream").is_some();
    let unclear = types.next().is_some()
        || events && !response.is_event_stream()
        || (events || lists) && memchr::memmem::find(&kind, b"utf-16").is_some()
        || (events || lists) && memchr::memmem::find(&kind, b"utf-32").is_some();
    if unclear || response.status == 206 {
        return Err(refusal(Refused::Unreadable));
    }
    if (events || lists) && response.is_coded() {
        let coded = denial("authz.list_coded");
        return Err(coded.detail("the server codes its answer though it was asked not to"));
    }
    Ok(())
}

/// What was said of the body is true no more, nor is its length.
fn forget(response: &mut ResponseHead) {
    response.length = None;
    response.fields.retain(|(name, _)| !OF_THE_BODY.contains(name));
}

/// 502, or 503 where it is the edge that is full.
pub(super) fn refusal(refused: Refused) -> Denial {
    let denial = denial(refused.code());
    match refused {
        Refused::Full => Denial { reason: Reason::Busy, ..denial }.retry_after(1),
        Refused::TooLarge => denial.detail("the answer is larger than the route's `body_limit`"),
        Refused::Unreadable => denial.detail("it may hold a list of tools and cannot be read"),
    }
}

fn denial(code: &'static str) -> Denial {
    Denial::new(Reason::UpstreamFailed, code, "The server's answer cannot be passed on")
}
