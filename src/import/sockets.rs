//! Who listens where: in, all servers; out, for each socket what it does, and for each server whether the edge,
//! whose routes are served by all its listeners alike, may serve it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::entry::{Content, Entry};
use super::nginx::At;
use super::note::Notes;
use super::place::Matches;
use super::site::{Listen, Site};

/// A server with its locations.
#[derive(Debug)]
pub(super) struct Server<'t> {
    pub(super) site: Site<'t>,
    pub(super) entries: Vec<Entry<'t>>,
    /// Whether it also serves names that no server has.
    pub(super) any: bool,
    /// Why all its routes refuse.
    pub(super) refusing: Vec<At>,
}

/// What the sockets do.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) tls: BTreeSet<SocketAddr>,
    /// Plain ones that send everybody to https.
    pub(super) redirect: BTreeSet<SocketAddr>,
    /// Those that serve routes.
    pub(super) serve: BTreeSet<SocketAddr>,
    /// In the order in which they first stand in the file.
    pub(super) order: Vec<SocketAddr>,
}

impl Server<'_> {
    fn proxies(&self) -> bool {
        self.entries.iter().any(Entry::is_proxy)
    }

    fn is_served_at(&self, listen: &Listen<'_>, tls: &BTreeSet<SocketAddr>) -> bool {
        let does = &self.site.does;
        self.proxies()
            && if tls.contains(&listen.socket) { does.serves_tls } else { does.serves_plain }
    }

    fn sockets(&self, sockets: &Sockets) -> BTreeSet<SocketAddr> {
        let listens =
            self.site.listens.iter().filter(|listen| self.is_served_at(listen, &sockets.tls));
        listens
            .map(|listen| listen.socket)
            .filter(|socket| !sockets.redirect.contains(socket))
            .collect()
    }

    /// Whether it has routes.
    pub(super) fn serves(&self, sockets: &Sockets) -> bool {
        self.site.listens.iter().any(|listen| self.is_served_at(listen, &sockets.tls))
    }
}

/// Looks at all servers; notes and marks those that the edge must not serve.
pub(super) fn sockets(servers: &mut [Server<'_>], notes: &mut Notes) -> Sockets {
    let mut sockets = Sockets::default();
    for listen in servers.iter().flat_map(|server| &server.site.listens) {
        if !sockets.order.contains(&listen.socket) {
            sockets.order.push(listen.socket);
        }
        if listen.tls {
            sockets.tls.insert(listen.socket);
        }
    }
    redirects(servers, &mut sockets, notes);
    for server in servers.iter() {
        sockets.serve.extend(server.sockets(&sockets));
    }
    for server in servers.iter_mut().filter(|server| server.serves(&sockets)) {
        let own = server.sockets(&sockets);
        if own == sockets.serve {
            continue;
        }
        let why = "the edge serves all routes on all its listeners, and other servers listen elsewhere than \
                   this one: run a second edge for it";
        notes.refused(server.site.block, why);
        server.refusing.push(server.site.block.at.clone());
    }
    defaults(servers, &sockets, notes);
    sockets
}

/// Plain sockets on which some server redirects.
fn redirects(servers: &mut [Server<'_>], sockets: &mut Sockets, notes: &mut Notes) {
    for server in servers.iter_mut() {
        whole_redirect(server, &sockets.tls, notes);
        let plain = server
            .site
            .listens
            .iter()
            .map(|listen| listen.socket)
            .filter(|s| !sockets.tls.contains(s));
        if let Some((_, directive)) = &server.site.does.redirect {
            let over_tls = server.site.listens.iter().any(|l| sockets.tls.contains(&l.socket));
            if over_tls && !server.site.does.serves_tls {
                notes.differs(
                    directive,
                    "over TLS nothing is redirected: these names are answered 421",
                );
            }
            sockets.redirect.extend(plain);
        }
    }
    // a plain listener with nothing but ACME's answers serves no routes: then it redirects
    for server in servers.iter() {
        let acme = server.entries.iter().any(|entry| matches!(entry.content, Content::Acme(_)));
        let plain = server
            .site
            .listens
            .iter()
            .map(|listen| listen.socket)
            .filter(|s| !sockets.tls.contains(s));
        if acme && !server.proxies() && !sockets.tls.is_empty() {
            sockets.redirect.extend(plain);
        }
    }
    for server in servers.iter().filter(|server| server.proxies()) {
        for listen in &server.site.listens {
            if sockets.redirect.contains(&listen.socket) && server.site.does.serves_plain {
                notes.differs(listen.directive, "a server redirects here to https, so that all do");
            }
        }
    }
}

/// `location / { return 301 https://…; }` on a plain server, with ACME's location beside it.
fn whole_redirect(server: &mut Server<'_>, tls: &BTreeSet<SocketAddr>, notes: &mut Notes) {
    if server.site.does.redirect.is_some()
        || server.site.listens.iter().any(|l| tls.contains(&l.socket))
    {
        return;
    }
    let of_all = |entry: &&Entry<'_>| match &entry.place.matches {
        Matches::Prefix { path, .. } => path == "/",
        _ => false,
    };
    let Some(entry) = server.entries.iter().find(of_all) else { return };
    let Content::ToHttps(directive) = entry.content else { return };
    let to = match directive.name.as_str() {
        "return" => match super::condition::returns(directive) {
            Some(super::condition::Return::ToHttps(to)) => Some(to),
            _ => None,
        },
        _ => super::condition::rewrites(directive),
    };
    let Some(to) = to else { return };
    for entry in server.entries.iter().filter(|entry| entry.is_proxy()) {
        notes.differs(entry.place.directive, "this listener redirects everything to https");
    }
    server.site.does.redirect = Some((to, directive));
    server.site.does.serves_plain = false;
}

/// Which servers serve names that no server has.
fn defaults(servers: &mut [Server<'_>], sockets: &Sockets, notes: &mut Notes) {
    let default_of = |servers: &[Server<'_>], socket: &SocketAddr| {
        let of = |server: &Server<'_>, explicit: bool| {
            server.site.listens.iter().any(|l| l.socket == *socket && (l.default || !explicit))
        };
        let explicit = servers.iter().position(|server| of(server, true));
        explicit.or_else(|| servers.iter().position(|server| of(server, false)))
    };
    let defaults: Vec<Option<usize>> =
        sockets.serve.iter().map(|s| default_of(servers, s)).collect();
    for (n, server) in servers.iter_mut().enumerate().filter(|(_, server)| server.serves(sockets)) {
        let everywhere = !defaults.is_empty() && defaults.iter().all(|default| *default == Some(n));
        let somewhere = defaults.contains(&Some(n));
        let said = server.site.listens.iter().any(|listen| listen.default);
        let nameless = server.site.names.hosts.is_empty();
        let wild = server.site.names.wild;
        server.any = everywhere && (said || nameless || wild.is_some());
        if let Some(directive) = wild.filter(|_| !server.any) {
            let why = "routes are told apart by whole names: write one for each name, or let this server \
                       be the default of its ports";
            notes.refused(directive, why);
            server.site.names.odd = true;
        }
        if somewhere && !server.any && !nameless {
            let why = "nginx served unknown names with this server; the edge answers them 421. \
                       For these, too: a route without `host`";
            notes.differs(server.site.block, why);
        }
        if nameless && wild.is_none() && !server.any {
            notes.dropped(server.site.block, "no request can name this server");
        }
    }
    let odd = servers.iter().find(|server| server.site.names.odd && server.serves(sockets));
    if let Some(at) = odd.map(|server| server.site.block.at.clone()) {
        // what was that server's would now be the default's
        servers
            .iter_mut()
            .filter(|server| server.any)
            .for_each(|server| server.refusing.push(at.clone()));
    }
}
