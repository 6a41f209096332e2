//! Who listens where: in, all servers; out, for each socket what it does, and for each server the sockets on which
//! the edge serves it, and there which names.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::entry::{Content, Entry};
use super::nginx::At;
use super::note::Notes;
use super::place::Matches;
use super::site::{Listen, Site};
use super::values::list;
use crate::listen::compile::collide;

/// A server with its locations.
#[derive(Debug)]
pub(super) struct Server<'t> {
    pub(super) site: Site<'t>,
    pub(super) entries: Vec<Entry<'t>>,
    /// The sockets on which it has routes.
    pub(super) serves: BTreeSet<SocketAddr>,
    /// Of these, those on which it also serves names that no server has.
    pub(super) any: BTreeSet<SocketAddr>,
    /// Names that a server before has on some sockets: there nginx never comes to this one.
    pub(super) taken: Vec<(String, SocketAddr)>,
    /// Why all its routes refuse.
    pub(super) refusing: Vec<At>,
    /// Why its routes for names that no server has refuse.
    pub(super) refusing_any: Vec<At>,
}

/// What the sockets do.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) tls: BTreeSet<SocketAddr>,
    /// Plain ones that send everybody to https who does not ask for a route of theirs.
    pub(super) redirect: BTreeSet<SocketAddr>,
    /// Those that serve routes.
    pub(super) serve: BTreeSet<SocketAddr>,
    /// In the order in which they first stand in the file.
    pub(super) order: Vec<SocketAddr>,
}

impl<'t> Server<'t> {
    /// A server of which nobody has seen the sockets yet.
    pub(super) fn new(site: Site<'t>, entries: Vec<Entry<'t>>) -> Self {
        Self {
            site,
            entries,
            serves: BTreeSet::new(),
            any: BTreeSet::new(),
            taken: Vec::new(),
            refusing: Vec::new(),
            refusing_any: Vec::new(),
        }
    }

    fn proxies(&self) -> bool {
        self.entries.iter().any(Entry::is_proxy)
    }

    fn is_served_at(&self, listen: &Listen<'_>, tls: &BTreeSet<SocketAddr>) -> bool {
        let does = &self.site.does;
        self.proxies()
            && if tls.contains(&listen.socket) { does.serves_tls } else { does.serves_plain }
    }

    /// Where it listens without TLS.
    fn plain(&self, tls: &BTreeSet<SocketAddr>) -> impl Iterator<Item = SocketAddr> {
        let all = self.site.listens.iter().map(|listen| listen.socket);
        all.filter(|socket| !tls.contains(socket)).collect::<Vec<_>>().into_iter()
    }

    /// The sockets on which requests for this name come to this server.
    pub(super) fn sockets_of(&self, host: &str) -> BTreeSet<SocketAddr> {
        let taken =
            |socket: &SocketAddr| self.taken.iter().any(|(name, at)| name == host && at == socket);
        self.serves.iter().filter(|socket| !taken(socket)).copied().collect()
    }
}

impl Sockets {
    /// The value of a route's `listeners`; nothing where that is all that do not redirect.
    pub(super) fn list(&self, of: &BTreeSet<SocketAddr>) -> Option<String> {
        let usual: BTreeSet<SocketAddr> = self.serve.difference(&self.redirect).copied().collect();
        (*of != usual).then(|| {
            let here = self.order.iter().filter(|socket| of.contains(socket));
            list(here.map(ToString::to_string).collect::<Vec<_>>())
        })
    }
}

/// Looks at all servers; notes and marks those that the edge must not serve.
pub(super) fn sockets(servers: &mut [Server<'_>], notes: &mut Notes) -> Sockets {
    let mut sockets = Sockets::default();
    dual(servers, notes);
    apart(servers, notes);
    for listen in servers.iter().flat_map(|server| &server.site.listens) {
        if !sockets.order.contains(&listen.socket) {
            sockets.order.push(listen.socket);
        }
        if listen.tls {
            sockets.tls.insert(listen.socket);
        }
    }
    redirects(servers, &mut sockets, notes);
    for server in servers.iter_mut() {
        let listens = server.site.listens.iter();
        let own = listens.filter(|listen| server.is_served_at(listen, &sockets.tls));
        server.serves = own.map(|listen| listen.socket).collect();
        sockets.serve.extend(&server.serves);
    }
    if sockets.serve.is_subset(&sockets.redirect) {
        // a listener must be left that serves
        for (_, directive) in servers.iter().filter_map(|server| server.site.does.redirect.as_ref())
        {
            notes.dropped(directive, "nothing is served but here, so that nothing is redirected");
        }
        sockets.redirect = sockets.redirect.difference(&sockets.serve).copied().collect();
    }
    names(servers, notes);
    defaults(servers, &sockets, notes);
    sockets
}

/// An address beside its wildcard, such as `127.0.0.1:80` beside `*:80`: nginx tells them apart by where a
/// connection goes to, and the edge listens on one of them.
fn apart(servers: &mut [Server<'_>], notes: &mut Notes) {
    let all: BTreeSet<SocketAddr> =
        servers.iter().flat_map(|server| &server.site.listens).map(|l| l.socket).collect();
    for wide in all.iter().filter(|socket| socket.ip().is_unspecified()) {
        for narrow in all.iter().filter(|other| *other != wide && collide(**other, *wide)) {
            let same = on(servers, *narrow) == on(servers, *wide);
            for server in servers.iter_mut() {
                fold(server, *wide, *narrow, same, notes);
            }
        }
    }
}

/// The servers of a socket, and whether they are its default.
fn on(servers: &[Server<'_>], socket: SocketAddr) -> Vec<(usize, bool)> {
    let listens = servers.iter().enumerate().flat_map(|(n, server)| {
        let here = server.site.listens.iter().filter(|l| l.socket == socket);
        here.map(move |l| (n, l.default))
    });
    listens.collect()
}

/// Takes the narrow one of two sockets away. Who came in there must not come in by what the wide one serves.
fn fold(
    server: &mut Server<'_>,
    wide: SocketAddr,
    narrow: SocketAddr,
    same: bool,
    notes: &mut Notes,
) {
    let why = "the edge listens on all addresses of this port, and does not tell them apart";
    let listens = server.site.listens.iter();
    for listen in listens.filter(|l| !same && (l.socket == narrow || l.socket == wide)) {
        notes.refused(listen.directive, why);
        server.refusing.push(listen.directive.at.clone());
    }
    server.site.listens.retain(|listen| listen.socket != narrow);
}

/// nginx's `[::]` takes IPv6 only.
fn dual(servers: &[Server<'_>], notes: &mut Notes) {
    let listens = || servers.iter().flat_map(|server| &server.site.listens);
    for listen in listens().filter(|l| l.socket.is_ipv6() && l.socket.ip().is_unspecified()) {
        let port = listen.socket.port();
        if !listens().any(|other| other.socket.is_ipv4() && other.socket.port() == port) {
            notes.differs(listen.directive, "the edge takes IPv4 here, too: no listener has it");
        }
    }
}

/// The first server with a name has it; what another says of it on the same socket, nginx never reads.
fn names(servers: &mut [Server<'_>], notes: &mut Notes) {
    let mut owned: BTreeSet<(String, SocketAddr)> = BTreeSet::new();
    for server in servers.iter_mut() {
        let mut own = Vec::new();
        for listen in &server.site.listens {
            for host in &server.site.names.hosts {
                let pair = (host.clone(), listen.socket);
                if owned.contains(&pair) {
                    let why = format!("a server before has the name {host} here, as nginx warns");
                    notes.dropped(listen.directive, why);
                    server.taken.push(pair);
                } else {
                    own.push(pair);
                }
            }
        }
        owned.extend(own);
    }
}

/// Plain sockets on which some server redirects.
fn redirects(servers: &mut [Server<'_>], sockets: &mut Sockets, notes: &mut Notes) {
    for server in servers.iter_mut() {
        whole_redirect(server, &sockets.tls, notes);
        let plain = server.plain(&sockets.tls);
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
        let plain = server.plain(&sockets.tls);
        if acme && !server.proxies() && !sockets.tls.is_empty() {
            sockets.redirect.extend(plain);
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
    if to.host.as_ref().is_some_and(|host| !server.site.names.hosts.contains(host)) {
        notes.dropped(directive, "the edge redirects names to https at the same name only");
        return;
    }
    // locations that are served in plain stay so
    server.site.does.redirect = Some((to, directive));
}

/// Which servers serve names that no server has.
fn defaults(servers: &mut [Server<'_>], sockets: &Sockets, notes: &mut Notes) {
    for socket in &sockets.order {
        let listen = |server: &Server<'_>| {
            server.site.listens.iter().find(|l| l.socket == *socket).map(|l| l.default)
        };
        let explicit = servers.iter().position(|server| listen(server) == Some(true));
        let default =
            explicit.or_else(|| servers.iter().position(|server| listen(server).is_some()));
        let Some(server) = default.and_then(|n| servers.get_mut(n)) else { continue };
        let names = &server.site.names;
        let meant = explicit.is_some() || names.hosts.is_empty() || names.wild.is_some();
        if !server.serves.contains(socket) {
            continue;
        }
        if sockets.redirect.contains(socket) {
            let why = "names that no server has are redirected or answered 421 here, because another server redirects";
            notes.differs(server.site.block, why);
        } else if meant {
            server.any.insert(*socket);
        } else {
            let why = "nginx served unknown names with this server; the edge answers them 421. \
                       For these, too: a route without `host`";
            notes.differs(server.site.block, why);
        }
        if meant && socket.ip().to_canonical().is_loopback() {
            let why = "on a loopback address the edge serves names of this machine and those of routes only";
            notes.differs(server.site.block, why);
        }
    }
    for server in servers.iter_mut().filter(|server| !server.serves.is_empty()) {
        let everywhere = server.any == server.serves;
        let names = &mut server.site.names;
        match names.wild.filter(|_| !everywhere) {
            Some(directive) => {
                let why = "routes are told apart by whole names: write one for each name, or let this server \
                           be the default of its ports";
                notes.refused(directive, why);
                names.odd = true;
            }
            None if names.hosts.is_empty() && server.any.is_empty() => {
                notes.dropped(server.site.block, "no request can name this server");
            }
            None => {}
        }
    }
    // what was that server's would now be the default's
    let odd = servers.iter().filter(|server| server.site.names.odd);
    let odd: Vec<(At, Vec<SocketAddr>)> = odd
        .map(|server| {
            let sockets = server.site.listens.iter().map(|listen| listen.socket).collect();
            (server.site.block.at.clone(), sockets)
        })
        .collect();
    for (at, sockets) in odd {
        for server in servers.iter_mut().filter(|s| sockets.iter().any(|at| s.any.contains(at))) {
            server.refusing_any.push(at.clone());
        }
    }
}
