//! The whole of it: in, the tree of an nginx.conf; out, the edge's config and what was not carried.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::certbot::Renewal;
use super::entry;
use super::guard;
use super::headers::Answers;
use super::listener::{Common, listener};
use super::nginx::{Directive, Tree};
use super::note::{Note, Notes};
use super::place::places;
use super::plan::{Item, Plan};
use super::prefer;
use super::route::{self, Path, Place, Route};
use super::scope::{Scope, audit};
use super::site::site;
use super::sockets::{Server, Sockets, sockets};
use super::trust::{authorities, trust};
use super::upstream::Upstreams;

/// Converts a tree.
///
/// # Errors
/// A sentence, where there is nothing that the edge could serve.
pub(super) fn convert(
    tree: &Tree,
    renewals: &[Renewal],
    webroot: &str,
) -> Result<(Plan, Vec<Note>), String> {
    let mut notes = Notes::default();
    audit(&tree.directives, &mut notes);
    let (http, around) = http(tree, &mut notes)?;
    let mut upstreams = Upstreams::new(http);
    let zones = guard::zones(http);
    let mut servers: Vec<Server<'_>> = Vec::new();
    for block in http.iter().filter(|d| d.name == "server") {
        let site = site(block, &around, &mut notes);
        let places = places(block, &site.scope).into_iter();
        let entries = places
            .map(|place| entry::entry(place, &site.does, &zones, &mut upstreams, &mut notes))
            .collect();
        servers.push(Server::new(site, entries));
    }
    let sockets = sockets(&mut servers, &mut notes);
    let mut plan = Plan { head: head(), ..Plan::default() };
    main_level(tree, &mut plan.top, &mut notes);
    trust(&mut servers, &mut plan.top, &mut notes);
    authorities(&mut servers, &sockets, &mut notes);
    let routes: Vec<(&Server<'_>, Vec<Route<'_, '_>>)> = servers
        .iter()
        .filter(|server| !server.serves.is_empty())
        .map(|server| (server, prefer::routes(&server.entries, &mut notes)))
        .collect();
    if !routes.iter().any(|(_, routes)| !routes.is_empty()) {
        return Err("nothing in it passes requests on to a server (`proxy_pass`)".to_owned());
    }
    let common = Common {
        connections: connections(tree),
        answers: common_answers(&routes, &sockets),
        webroot: (!renewals.is_empty())
            .then(|| (webroot.to_owned(), "for certbot's renewals".to_owned())),
    };
    plan.routes = items(&servers, &routes, &sockets, &common);
    if plan.routes.is_empty() {
        plan.routes.push(route::nothing_left());
    }
    for socket in &sockets.order {
        if sockets.serve.contains(socket) || sockets.redirect.contains(socket) {
            plan.listeners.push(listener(*socket, &servers, &sockets, &common, &mut notes));
        }
    }
    drop(routes);
    plan.upstreams = upstreams.items();
    Ok((plan, notes.sorted()))
}

fn head() -> Vec<String> {
    vec![
        "Written by `mcp-edge import nginx`. Behind each part stands where it comes from.".to_owned(),
        "Look at the end for what was not carried to the letter, and try it: mcp-edge check --config FILE".to_owned(),
    ]
}

/// The level of servers: `http`, or a file of servers alone, such as those in conf.d.
fn http<'t>(tree: &'t Tree, notes: &mut Notes) -> Result<(&'t [Directive], Scope<'t>), String> {
    let scope = Scope::in_folder(&tree.folder);
    let blocks: Vec<&Directive> = tree.directives.iter().filter(|d| d.name == "http").collect();
    match blocks.as_slice() {
        [http] => Ok((http.inner(), scope.inside(http.inner()))),
        [] => {
            let server = tree.directives.iter().find(|d| d.name == "server");
            let server = server.ok_or("there is neither `http` nor `server` in it")?;
            notes.differs(
                server,
                "a file of servers alone: what nginx.conf says around them is not known here",
            );
            Ok((&tree.directives, scope.inside(&tree.directives)))
        }
        [_, second, ..] => Err(format!("{}: a second `http`", second.at)),
    }
}

fn main_level(tree: &Tree, top: &mut Item, notes: &mut Notes) {
    if let Some(workers) = tree.directives.iter().find(|d| d.name == "worker_processes") {
        match workers.arg(0).parse::<u32>() {
            Ok(n) if (1..=1024).contains(&n) => top.from("threads", n.to_string(), &workers.at),
            _ => notes.dropped(workers, "as many threads as there are cores"),
        }
    }
    let mut logs = Vec::new();
    access_logs(&tree.directives, &mut logs);
    match logs.as_slice() {
        [] => {}
        all if all.iter().all(|log| log.arg(0) == "off") => {
            if let Some(log) = all.first() {
                top.from("access_log", "off", &log.at);
            }
        }
        all => {
            for log in all {
                let why = "the edge writes JSON lines to stdout; for a file: `access_log: /path`";
                notes.dropped(log, why);
            }
        }
    }
}

fn access_logs<'t>(directives: &'t [Directive], out: &mut Vec<&'t Directive>) {
    for directive in directives {
        match directive.name.as_str() {
            "access_log" => out.push(directive),
            "http" | "server" | "location" => access_logs(directive.inner(), out),
            _ => {}
        }
    }
}

fn connections(tree: &Tree) -> Option<(String, String)> {
    let events = tree.directives.iter().find(|d| d.name == "events")?;
    let each = events.inner().iter().rfind(|d| d.name == "worker_connections")?;
    let workers = tree.directives.iter().find(|d| d.name == "worker_processes");
    let workers: u64 = workers.and_then(|d| d.arg(0).parse().ok()).unwrap_or(1);
    let all = each.arg(0).parse::<u64>().ok()?.saturating_mul(workers.max(1)).clamp(1, 1_000_000);
    Some((all.to_string(), each.at.to_string()))
}

/// For each listener the fields that the answers of all its routes have, where they are the same everywhere: then
/// refusals get them, too, as with nginx's `always`.
fn common_answers(
    routes: &[(&Server<'_>, Vec<Route<'_, '_>>)],
    sockets: &Sockets,
) -> BTreeMap<SocketAddr, Answers> {
    let mut out = BTreeMap::new();
    for socket in &sockets.serve {
        let here = routes.iter().filter(|(server, _)| server.serves.contains(socket));
        let mut proxied =
            here.flat_map(|(_, routes)| routes).filter(|route| route.entry.is_proxy());
        let Some(first) = proxied.next().map(|route| &route.entry.answers) else { continue };
        let same = |route: &Route<'_, '_>| {
            route.entry.answers.hsts == first.hsts && route.entry.answers.set == first.set
        };
        if proxied.all(same) {
            out.insert(*socket, first.clone());
        }
    }
    out
}

/// Routes that are written already: what `close` has to know of them.
type Written = (Option<String>, Path, BTreeSet<SocketAddr>);

fn items(
    servers: &[Server<'_>],
    routes: &[(&Server<'_>, Vec<Route<'_, '_>>)],
    sockets: &Sockets,
    common: &Common,
) -> Vec<Item> {
    let mut out = Vec::new();
    let mut written: Vec<Written> = Vec::new();
    for (server, routes) in routes {
        for (host, here) in hosts(server) {
            for route in routes {
                written.push((host.map(str::to_owned), route.path.clone(), here.clone()));
                let url = match (host, server.site.names.hosts.first()) {
                    (None, Some(name)) => public(server, name, &here, sockets),
                    _ => None,
                };
                let place =
                    Place { host, listeners: sockets.list(&here), public_url: url.as_deref() };
                let common = here.iter().all(|socket| common.answers.contains_key(socket));
                let answers = (!common).then_some(&route.entry.answers);
                let mut why = server.refusing.clone();
                if host.is_none() {
                    why.extend(server.refusing_any.iter().cloned());
                }
                out.push(route.item(&place, answers, &why));
            }
        }
    }
    close(servers, &written, sockets, &mut out);
    out
}

/// The hosts of a server's routes, each with its sockets. A default's names need no routes of their own but on
/// loopback listeners, which serve no unknown names.
fn hosts<'s>(server: &'s Server<'_>) -> Vec<(Option<&'s str>, BTreeSet<SocketAddr>)> {
    let mut out = Vec::new();
    if !server.any.is_empty() {
        out.push((None, server.any.clone()));
    }
    let inside = |socket: &SocketAddr| socket.ip().to_canonical().is_loopback();
    for host in &server.site.names.hosts {
        let mut own = server.sockets_of(host);
        own.retain(|socket| !server.any.contains(socket) || inside(socket));
        if !own.is_empty() {
            out.push((Some(host.as_str()), own));
        }
    }
    out
}

/// `https://name[:port]` of a server's first socket.
fn public(
    server: &Server<'_>,
    name: &str,
    here: &BTreeSet<SocketAddr>,
    sockets: &Sockets,
) -> Option<String> {
    let listen = server.site.listens.iter().find(|listen| here.contains(&listen.socket))?;
    let https = sockets.tls.contains(&listen.socket);
    let scheme = if https { "https" } else { "http" };
    Some(format!("{scheme}://{}", crate::base::url::authority(https, name, listen.socket.port())))
}

/// Where routes serve any host, what a named one does not serve must not fall to them.
fn close(servers: &[Server<'_>], written: &[Written], sockets: &Sockets, out: &mut Vec<Item>) {
    let open: BTreeSet<SocketAddr> =
        servers.iter().flat_map(|server| &server.any).copied().collect();
    let mut hosts: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for server in servers {
        for host in &server.site.names.hosts {
            let listens = server.site.listens.iter().map(|listen| listen.socket);
            let taken = |socket: &SocketAddr| server.taken.contains(&(host.clone(), *socket));
            let here = listens.filter(|s| open.contains(s) && !server.any.contains(s) && !taken(s));
            hosts.entry(host).or_default().extend(here);
            order.push(host);
        }
    }
    let root = Path::Prefix("/".to_owned());
    for host in order {
        let Some(mut left) = hosts.remove(host) else { continue };
        let whole =
            written.iter().filter(|(of, path, _)| of.as_deref() == Some(host) && *path == root);
        whole.for_each(|(.., here)| left.retain(|socket| !here.contains(socket)));
        if !left.is_empty() {
            out.push(route::nothing_else(host, sockets.list(&left)));
        }
    }
}
