//! Who may say where a client is: in, `set_real_ip_from` and `real_ip_header`; out, the edge's `trusted_proxies` and
//! `forwarded_header`, which hold for all routes.

use std::net::SocketAddr;

use super::access::{self, Nets};
use super::nginx::Directive;
use super::note::Notes;
use super::plan::Item;
use super::sockets::{Server, Sockets};
use super::values::{list, scalar};

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
struct Trust {
    from: Vec<String>,
    header: Option<String>,
}

/// Writes the keys; servers that trust others than the first refuse.
pub(super) fn trust(servers: &mut [Server<'_>], top: &mut Item, notes: &mut Notes) {
    let mut first: Option<Trust> = None;
    for server in servers.iter_mut().filter(|server| !server.serves.is_empty()) {
        let (own, sources) = read(server, notes);
        within(server, notes);
        if let Some(first) = &first {
            if *first != own {
                let why = "the edge trusts the same proxies on all routes, and a server before trusts others";
                notes.refused(server.site.block, why);
                server.refusing.push(server.site.block.at.clone());
            }
            continue;
        }
        if let Some(directive) = sources.first() {
            top.from("trusted_proxies", list(&own.from), &directive.at);
            let header = own.header.as_deref().unwrap_or("X-Real-IP");
            let value = if header == "proxy_protocol" { "off".to_owned() } else { scalar(header) };
            let at = server.site.scope.last("real_ip_header").unwrap_or(directive);
            top.from("forwarded_header", value, &at.at);
            if !server.site.scope.is_on("real_ip_recursive")
                && header.eq_ignore_ascii_case("x-forwarded-for")
            {
                notes.differs(directive, "several trusted proxies in a row are all passed over");
            }
        }
        first = Some(own);
    }
    for listen in servers.iter().flat_map(|server| &server.site.listens) {
        let known = first.as_ref().is_some_and(|trust| !trust.from.is_empty());
        if listen.proxy_protocol && !known {
            let why = "the edge believes the PROXY protocol from `trusted_proxies` only: name the balancers there";
            notes.refused(listen.directive, why);
        }
    }
}

/// The edge's listener asks for certificates of one set of CAs: who came in by another's must not come in
/// by this one's.
pub(super) fn authorities(servers: &mut [Server<'_>], sockets: &Sockets, notes: &mut Notes) {
    for socket in &sockets.order {
        let mut first = None;
        for n in here(*socket, servers) {
            let Some(server) = servers.get_mut(n) else { continue };
            let Some(own) = asked(server) else { continue };
            if *first.get_or_insert_with(|| own.clone()) == own || !server.serves.contains(socket) {
                continue;
            }
            let why = "a listener asks for certificates of the same CAs, with the same list of revoked ones, \
                       for all its servers, and a server before has others";
            notes.refused(server.site.block, why);
            server.refusing.push(server.site.block.at.clone());
        }
    }
}

/// The servers of a socket, the default first: its CAs are the listener's.
pub(super) fn here(socket: SocketAddr, servers: &[Server<'_>]) -> Vec<usize> {
    let mut here: Vec<(bool, usize)> = Vec::new();
    for (n, server) in servers.iter().enumerate() {
        let listens = server.site.listens.iter().filter(|listen| listen.socket == socket);
        here.extend(listens.map(|listen| (!listen.default, n)));
    }
    here.sort_by_key(|(later, _)| *later);
    here.into_iter().map(|(_, n)| n).collect()
}

/// The CAs, and the list of revoked certificates, where a server asks for such.
fn asked(server: &Server<'_>) -> Option<(Option<String>, Option<String>)> {
    let scope = &server.site.scope;
    scope.last("ssl_verify_client").filter(|d| matches!(d.arg(0), "on" | "optional"))?;
    let path = |name: &str| scope.last(name).map(|d| scope.path(d.arg(0)));
    Some((path("ssl_client_certificate"), path("ssl_crl")))
}

fn read<'t>(server: &mut Server<'t>, notes: &mut Notes) -> (Trust, Vec<&'t Directive>) {
    let scope = server.site.scope.clone();
    let sources = scope.all("set_real_ip_from");
    let mut from = Vec::new();
    for directive in &sources {
        match access::nets(directive.arg(0)) {
            Ok(Nets::One { text, .. }) => from.push(text),
            Ok(Nets::Unix) => notes.dropped(directive, "the edge listens on addresses only"),
            Ok(Nets::All) | Err(_) => {
                // taken for the client itself, that proxy could pass lists of addresses
                notes.refused(directive, "trusted proxies are addresses and networks");
                server.refusing.push(directive.at.clone());
            }
        }
    }
    let header =
        scope.last("real_ip_header").map(|d| d.arg(0).to_owned()).filter(|_| !sources.is_empty());
    (Trust { from, header }, sources)
}

/// The edge knows no such thing for one location.
fn within(server: &mut Server<'_>, notes: &mut Notes) {
    for entry in &mut server.entries {
        let own = entry.place.scope.own();
        let is_location = entry.place.directive.name == "location";
        for directive in own.iter().filter(|_| is_location) {
            if matches!(directive.name.as_str(), "set_real_ip_from" | "real_ip_header") {
                notes.refused(directive, "the edge trusts the same proxies on all routes");
                entry.refusing.push(directive.at.clone());
            }
        }
    }
}
