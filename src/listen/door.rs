//! A listener's door: in, an accepted socket; out, who is on the other end, or nobody.
//!
//! All of this happens before TLS. A peer is who the socket says, unless that one is trusted and announces
//! another by the PROXY protocol; whoever it is then, is looked for in the lists and counted.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::time::timeout;

use super::proxy_protocol::{self, Announced};
use super::stream::Socket;
use crate::base::cidr::{Access, Networks, networks, subscriber};
use crate::base::compile::{Cx, Node};
use crate::base::fields::Fields;
use crate::base::names::X_FORWARDED_FOR;
use crate::base::rate::{Counts, Permit};

/// More than this no listener serves.
const MOST: u64 = 1_000_000;

/// Headers that are something else: the one that is believed does not reach the rest of the edge.
const NO_ADDRESS: &[&str] = &[
    "authorization",
    "content-type",
    "cookie",
    "host",
    "mcp-session-id",
    "origin",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// Who may come in by a listener, and how.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// Peers that may come in.
    pub access: Access,
    /// Whether a peer is announced by the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// Who may announce others.
    pub proxies: Arc<Proxies>,
    /// Open connections of one address (an IPv6 /64 is one); no limit where absent. Trusted proxies have
    /// none: they carry many clients.
    pub most_per_address: Option<NonZeroU32>,
    /// Requests on one connection; no limit where absent.
    pub most_requests: Option<NonZeroU32>,
}

/// Whether the PROXY protocol is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A header is not looked for.
    #[default]
    Off,
    /// Trusted proxies may send one; all others may not.
    Optional,
    /// Trusted proxies must send one; nobody else may connect.
    Required,
}

/// Who may announce others.
#[derive(Debug, Default)]
pub struct Proxies {
    /// `trusted_proxies`; nobody where absent.
    pub trusted: Networks,
    /// The header in which they do; none is believed where absent.
    pub header: Option<HeaderName>,
}

/// Compiles `trusted_proxies` and `forwarded_header`.
pub fn proxies(fields: &mut Fields<'_>, cx: &mut Cx) -> Arc<Proxies> {
    let trusted_node = fields.take("trusted_proxies");
    let trusted = trusted_node.and_then(|n| cx.in_key("trusted_proxies", |cx| networks(n, cx)));
    let header_node = fields.take("forwarded_header");
    let header = header_node.and_then(|n| cx.in_key("forwarded_header", |cx| header(n, cx)));
    if let (Some(node), None) = (header_node, trusted_node) {
        let problem = "nobody is believed: add `trusted_proxies`";
        cx.in_key("forwarded_header", |cx| cx.error(node, problem));
    }
    let header = match trusted_node {
        Some(_) => header.unwrap_or(Some(X_FORWARDED_FOR)),
        None => None,
    };
    Arc::new(Proxies { trusted: trusted.unwrap_or_default(), header })
}

fn header(node: &Node, cx: &mut Cx) -> Option<Option<HeaderName>> {
    let what = "the name of a header such as `X-Forwarded-For`, or `off`";
    cx.parse(node, what, |text| match text {
        "off" => Ok(None),
        _ => match HeaderName::try_from(text) {
            Ok(name) if NO_ADDRESS.contains(&name.as_str()) => {
                Err(format!("no addresses stand in `{text}`: write {what}"))
            }
            Ok(name) => Ok(Some(name)),
            Err(_) => Err(format!("`{text}` is not {what}")),
        },
    })
}

impl Door {
    /// Compiles the keys of a listener that are about its door.
    pub fn take(fields: &mut Fields<'_>, proxies: &Arc<Proxies>, cx: &mut Cx) -> Self {
        let access = Access::take(fields, cx);
        let node = fields.take("proxy_protocol");
        let proxy_protocol = node.and_then(|n| cx.in_key("proxy_protocol", |cx| spoken(n, cx)));
        let proxy_protocol = proxy_protocol.unwrap_or_default();
        if let Some(node) = node
            && proxy_protocol != ProxyProtocol::Off
            && proxies.trusted.is_empty()
        {
            let problem = "nobody is trusted to send it: add `trusted_proxies`";
            cx.in_key("proxy_protocol", |cx| cx.error(node, problem));
        }
        let mut most = |key, cx: &mut Cx| {
            let n = fields.optional(cx, key, |n, cx| cx.integer(n, 1..=MOST))?;
            NonZeroU32::new(u32::try_from(n).ok()?)
        };
        let most_per_address = most("max_connections_per_address", cx);
        let most_requests = most("requests_per_connection", cx);
        let proxies = proxies.clone();
        Self { access, proxy_protocol, proxies, most_per_address, most_requests }
    }
}

fn spoken(node: &Node, cx: &mut Cx) -> Option<ProxyProtocol> {
    let what = "`off`, `optional` or `required`";
    cx.parse(node, what, |text| match text {
        "off" => Ok(ProxyProtocol::Off),
        "optional" => Ok(ProxyProtocol::Optional),
        "required" => Ok(ProxyProtocol::Required),
        _ => Err(format!("expected {what}, found `{text}`")),
    })
}

/// Who came in.
#[derive(Debug)]
pub(super) struct Guest {
    /// Who it is.
    pub(super) peer: SocketAddr,
    /// Whether it could be a proxy that says by a header for whom it speaks.
    pub(super) may_forward: bool,
    /// Its place among those of its address.
    pub(super) place: Option<Permit>,
}

/// Why nobody came in, for metrics and the debug log.
pub(super) type TurnedAway = &'static str;

impl Door {
    /// Whether nothing of a connection has to be read to know who it is: then [`Door::enter_at_once`].
    pub(super) fn knows_at_once(&self) -> bool {
        self.proxy_protocol == ProxyProtocol::Off
    }

    /// Lets a peer in that is who the socket says.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn enter_at_once(
        &self,
        peer: SocketAddr,
        places: Option<&Arc<Counts>>,
    ) -> Result<Guest, TurnedAway> {
        let place = self.admit(peer, true, places)?;
        Ok(Guest { peer, may_forward: true, place })
    }

    /// Who is on the other end, and may come in.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn enter(
        &self,
        socket: &mut Socket,
        peer: SocketAddr,
        limit: Duration,
        places: Option<&Arc<Counts>>,
    ) -> Result<Guest, TurnedAway> {
        if self.knows_at_once() {
            return self.enter_at_once(peer, places);
        }
        // a stranger speaks for itself whatever it sends: it has to be let in before it is waited for
        let stranger = !self.proxies.trusted.contains(peer.ip());
        let place = if stranger { self.admit(peer, true, places)? } else { None };
        // boxed: it has a buffer, and most listeners have no proxy before them
        let (peer, may_forward) = Box::pin(self.announced(socket, peer, limit)).await?;
        let place = if stranger { place } else { self.admit(peer, may_forward, places)? };
        Ok(Guest { peer, may_forward, place })
    }

    /// Whether an address may come in, and its place among the connections of that address.
    fn admit(
        &self,
        peer: SocketAddr,
        may_forward: bool,
        places: Option<&Arc<Counts>>,
    ) -> Result<Option<Permit>, TurnedAway> {
        if !self.access.admits(peer.ip()) {
            return Err("denied");
        }
        let Some(places) = places else { return Ok(None) };
        if may_forward && self.proxies.trusted.contains(peer.ip()) {
            return Ok(None);
        }
        let held = places.hold(subscriber(peer.ip()));
        // by the settings of now: the counters outlive a reload
        let most = self.most_per_address.map_or(0, NonZeroU32::get);
        if held.is_below(most) { Ok(Some(held.take())) } else { Err("per_address") }
    }

    /// Whom the PROXY protocol announces. A header that names nobody leaves the peer, who is then taken
    /// for a client: it may be one that the proxy could not name, and must not forge a forwarding header.
    async fn announced(
        &self,
        socket: &mut Socket,
        peer: SocketAddr,
        limit: Duration,
    ) -> Result<(SocketAddr, bool), TurnedAway> {
        let trusted = self.proxies.trusted.contains(peer.ip());
        let required = self.proxy_protocol == ProxyProtocol::Required;
        if required && !trusted {
            return Err("proxy_untrusted");
        }
        match timeout(limit, proxy_protocol::read(socket)).await {
            Err(_) => Err("proxy_slow"),
            Ok(Err(())) => Err("proxy_broken"),
            Ok(Ok(Some(_))) if !trusted => Err("proxy_untrusted"),
            Ok(Ok(Some(Announced::Peer(client)))) => Ok((client, true)),
            Ok(Ok(Some(Announced::Nobody))) => Ok((peer, false)),
            Ok(Ok(None)) if required => Err("proxy_missing"),
            Ok(Ok(None)) => Ok((peer, true)),
        }
    }
}
