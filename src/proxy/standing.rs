//! May it stay? In: a connection or a stream that was let in, and what is in force now; out: nothing, or why
//! it has to go.
//!
//! Asked when the config was reloaded, a file has changed that it names, or a credential has expired: of a connection
//! before its next request, of a stream at once. A stream takes the way of its request once more, from the listener to the
//! rules about its caller, with what was kept of the head. Nothing is counted on the way, and an answer that
//! nobody can give at present (a provider is down) ends nothing.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::runtime::Runtime;
use crate::auth;
use crate::authz;
use crate::base::caller::{Chain, Client};
use crate::base::denial::{Denial, Reason};
use crate::base::head::{Head, Version};
use crate::base::principal::Principal;
use crate::listen::ConnCx;
use crate::listen::settings::ListenerSettings;
use crate::observe::record::Record;
use crate::route::access;
use crate::route::settings::RouteSettings;

/// Until a stream is looked at again of which nobody could tell, and up to twice that.
const AGAIN: Duration = Duration::from_secs(30);
/// The longest time that is waited at once for the end of a credential: clocks are set.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is kept of a stream's request besides its record: some 100 bytes, and the credential.
#[derive(Debug)]
pub struct Entry {
    /// When it was let in.
    pub(super) epoch: u64,
    authority: Box<str>,
    /// The fields by which it was let in.
    fields: Box<[(HeaderName, HeaderValue)]>,
    hidden: bool,
    tls: bool,
}

/// Why something may not stay: the end for the log, and what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Such as `auth.revoked`.
    pub(super) end: &'static str,
    /// The code of the refusal that the same request would meet now.
    pub(super) code: &'static str,
}

impl Entry {
    /// Of a request that was let in.
    pub(super) fn new(epoch: u64, head: &Head, client: &Client, chain: &Chain) -> Box<Self> {
        let names = chain.headers.iter().chain([&http::header::ORIGIN]);
        let field = |name: &HeaderName| {
            let value = head.headers.get(name)?;
            // a copy: the value as it came keeps all of the head
            Some((name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?))
        };
        Box::new(Self {
            epoch,
            authority: head.authority.as_str().into(),
            fields: names.filter_map(field).collect(),
            hidden: client.hidden,
            tls: client.tls,
        })
    }

    fn head(&self, record: &Record) -> Head {
        let headers: HeaderMap = self.fields.iter().cloned().collect();
        Head {
            method: record.method.clone(),
            path: record.path.clone(),
            query: None,
            authority: self.authority.as_ref().to_owned(),
            headers,
            version: Version::H11,
            websocket: false,
        }
    }
}

/// Whether a connection would be let in now, as far as is known before its requests. What is answered on one
/// that was let in by a listener that is no more is its end anyway.
///
/// # Errors
/// 403.
pub fn connection(cx: &ConnCx) -> Result<(), Denial> {
    let Some(now) = cx.place.now() else { return Ok(()) };
    comes_in(cx, &now).map_err(|gone| {
        Denial::new(Reason::Forbidden, gone.code, "This connection is not let in any more")
            .closing()
    })
}

/// Whether what a connection has shown may be good no more since it was last looked at.
pub fn may_have_expired(cx: &ConnCx) -> bool {
    if cx.shown.is_empty() {
        return false;
    }
    let now = unix(SystemTime::now());
    match cx.good_until.load(Ordering::Relaxed) {
        // it was good when it was shown
        0 => {
            cx.good_until.store(certificate_ends(cx, 0).unwrap_or(i64::MAX), Ordering::Relaxed);
            may_have_expired(cx)
        }
        until => until <= now,
    }
}

/// A connection was found good: what it has shown is to be looked at again when it may have expired.
pub fn looked_at(cx: &ConnCx) {
    if !cx.shown.is_empty() {
        let end = certificate_ends(cx, unix(SystemTime::now()));
        cx.good_until.store(end.unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

/// The next time after `after` at which what a stream was let in by may be over, though nothing has changed.
pub fn next_end(record: &Record, cx: &ConnCx, after: SystemTime) -> Option<SystemTime> {
    let caller = record.principal.as_ref().and_then(|principal| principal.until);
    let shown = certificate_ends(cx, unix(after)).and_then(|end| u64::try_from(end).ok());
    let shown = shown.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_secs(end)));
    caller.filter(|end| *end > after).into_iter().chain(shown).min()
}

/// Ends when that time has come; boxed, as [`again`].
pub fn until(end: Option<SystemTime>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let left = move || end?.duration_since(SystemTime::now()).ok().filter(|left| !left.is_zero());
    Box::pin(async move {
        while let Some(left) = left() {
            tokio::time::sleep(left.min(LONGEST)).await;
        }
    })
}

fn certificate_ends(cx: &ConnCx, after: i64) -> Option<i64> {
    if cx.shown.is_empty() {
        return None;
    }
    let now = cx.place.now()?;
    let clients = now.tls.as_ref()?.clients.as_ref()?;
    clients.trust.current().next_end(&cx.shown, after)
}

fn unix(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn comes_in(cx: &ConnCx, now: &ListenerSettings) -> Result<(), Gone> {
    let peer = cx.peer.ip();
    if !now.door.access.admits(peer) {
        return Err(Gone { end: "address.revoked", code: "listen.denied" });
    }
    // it would go on naming those for whom it speaks
    let (was, is) = (&cx.listener.door.proxies.trusted, &now.door.proxies.trusted);
    if cx.may_forward && was.contains(peer) && !is.contains(peer) {
        return Err(Gone { end: "address.revoked", code: "client.untrusted" });
    }
    let clients = now.tls.as_ref().and_then(|tls| tls.clients.as_ref());
    let stays = match (clients, cx.certificate.is_some()) {
        (Some(clients), true) => clients.trust.current().believes(&cx.shown),
        (Some(clients), false) => !clients.required,
        // nobody vouches for it any more
        (None, shown) => !shown,
    };
    match stays {
        true => Ok(()),
        false => Err(Gone { end: "certificate.revoked", code: "listen.certificate" }),
    }
}

/// Looks whether a stream would begin now, and notes in its record by which route and as whom: the generation of
/// the config in which it began is not kept for it. `false`: nobody could tell just now, and it is to be looked at
/// again.
///
/// # Errors
/// Why it has to end.
pub async fn stream(
    rt: &Runtime,
    entry: &Entry,
    record: &mut Record,
    cx: &ConnCx,
) -> Result<bool, Gone> {
    // a listener that is no more ends what has no end of its own; a call is answered first, by what was asked there
    comes_in(cx, &cx.place.now().unwrap_or_else(|| cx.listener.clone()))?;
    let (Some(before), Some(principal)) = (&record.route, &record.principal) else {
        return Ok(true);
    };
    let (head, client) = (entry.head(record), client(entry, record, cx));
    let (route, found) = request(rt, &head, &client, cx, before, principal).await?;
    if !goes_on_by(before, &route, record.status == 101) {
        return Err(Gone { end: "route.revoked", code: "route.rules" });
    }
    let told = found.is_some();
    let principal = found.unwrap_or_else(|| principal.clone());
    (record.route, record.principal) = (Some(route), Some(principal));
    Ok(told)
}

/// Whether what passes in a stream may go on by a route as it is now: nobody reads what is called in a WebSocket,
/// and lists of tools are cut by the rules with which a stream began.
fn goes_on_by(before: &RouteSettings, now: &RouteSettings, websocket: bool) -> bool {
    if websocket {
        return !now.reads_strictly();
    }
    let guards = before.guards_tools() || now.guards_tools();
    let said = |route: &RouteSettings| -> Vec<String> {
        route.rules.iter().map(|rule| rule.says()).collect()
    };
    !guards || said(before) == said(now)
}

/// The time after which a stream is looked at again of which nobody could tell; boxed, since hardly one needs it.
pub fn again() -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let spread = RandomState::new().hash_one(0) % AGAIN.as_secs();
    Box::pin(tokio::time::sleep(AGAIN + Duration::from_secs(spread)))
}

fn client(entry: &Entry, record: &Record, cx: &ConnCx) -> Client {
    let certificate = cx.certificate.clone();
    Client { address: record.client, hidden: entry.hidden, tls: entry.tls, certificate }
}

/// The way of the request, from its route to the rules about its caller; nobody where nobody can tell just now.
async fn request(
    rt: &Runtime,
    head: &Head,
    client: &Client,
    cx: &ConnCx,
    before: &Arc<RouteSettings>,
    principal: &Arc<Principal>,
) -> Result<(Arc<RouteSettings>, Option<Arc<Principal>>), Gone> {
    let gone = |end| move |denial: Denial| Gone { end, code: denial.code };
    let routed = rt.routes.find(head, cx.listener.address).map_err(gone("route.revoked"))?;
    let route = routed.route;
    if route.label != before.label {
        return Err(Gone { end: "route.revoked", code: "route.other" });
    }
    access::check(&route, client).map_err(gone("address.revoked"))?;
    let found = match auth::again(&route.auth, head, client, principal).await {
        Ok(found) => Some(found),
        Err(denial) if auth::decides(&denial) => return Err(gone("auth.revoked")(denial)),
        Err(_) => None,
    };
    let caller = found.as_ref().unwrap_or(principal).clone();
    authz::enter(&route.rules, caller).map_err(gone("auth.revoked"))?;
    Ok((route, found))
}
