//! The whole of it: in, the tree of an nginx.conf; out, the edge's config and what was not carried.

use std::collections::BTreeSet;

use super::certbot::Renewal;
use super::entry;
use super::guard;
use super::headers::Answers;
use super::listener::{Common, listener};
use super::nginx::{Directive, Tree};
use super::note::{Note, Notes};
use super::place::places;
use super::plan::{Item, Plan};
use super::route::{self, Path, Route};
use super::scope::{Scope, audit};
use super::site::site;
use super::sockets::{Server, Sockets, sockets};
use super::trust::{authorities, trust};
use super::upstream::Upstreams;
use super::values::scalar;

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
        servers.push(Server { site, entries, any: false, refusing: Vec::new() });
    }
    let sockets = sockets(&mut servers, &mut notes);
    let mut plan = Plan { head: head(), ..Plan::default() };
    main_level(tree, &mut plan.top, &mut notes);
    trust(&mut servers, &sockets, &mut plan.top, &mut notes);
    authorities(&mut servers, &sockets, &mut notes);
    let routes: Vec<(&Server<'_>, Vec<Route<'_, '_>>)> = servers
        .iter()
        .filter(|server| server.serves(&sockets))
        .map(|server| (server, route::routes(&server.entries, &mut notes)))
        .collect();
    if !routes.iter().any(|(_, routes)| !routes.is_empty()) {
        return Err("nothing in it passes requests on to a server (`proxy_pass`)".to_owned());
    }
    let common = Common {
        connections: connections(tree),
        answers: common_answers(&routes),
        webroot: (!renewals.is_empty())
            .then(|| (webroot.to_owned(), "for certbot's renewals".to_owned())),
    };
    plan.routes = items(&routes, &sockets, &common, &mut notes);
    close(&servers, &sockets, &mut plan.routes);
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

/// The fields that the answers of all routes have, where they are the same everywhere: then refusals get
/// them, too, as with nginx's `always`.
fn common_answers(routes: &[(&Server<'_>, Vec<Route<'_, '_>>)]) -> Option<Answers> {
    let mut proxied =
        routes.iter().flat_map(|(_, routes)| routes).filter(|route| route.entry.is_proxy());
    let first = &proxied.next()?.entry.answers;
    let same = |route: &Route<'_, '_>| {
        route.entry.answers.hsts == first.hsts && route.entry.answers.set == first.set
    };
    proxied.all(same).then(|| first.clone())
}

fn items(
    routes: &[(&Server<'_>, Vec<Route<'_, '_>>)],
    sockets: &Sockets,
    common: &Common,
    notes: &mut Notes,
) -> Vec<Item> {
    let mut out = Vec::new();
    let mut seen: Vec<(Option<&str>, Path)> = Vec::new();
    for (server, routes) in routes {
        let names = &server.site.names.hosts;
        let hosts: Vec<Option<&str>> = if server.any {
            vec![None]
        } else {
            names.iter().map(|host| Some(host.as_str())).collect()
        };
        for host in hosts {
            for route in routes {
                if seen.contains(&(host, route.path.clone())) {
                    notes.dropped(
                        route.entry.place.directive,
                        "a server before has this name and path already",
                    );
                    continue;
                }
                seen.push((host, route.path.clone()));
                let url = match (host, names.first()) {
                    (None, Some(name)) => public(server, name, sockets),
                    _ => None,
                };
                let answers = common.answers.is_none().then_some(&route.entry.answers);
                out.push(route.item(host, url.as_deref(), answers, &server.refusing));
            }
        }
    }
    out
}

/// `https://name[:port]` of a server's first socket.
fn public(server: &Server<'_>, name: &str, sockets: &Sockets) -> Option<String> {
    let listen =
        server.site.listens.iter().find(|listen| sockets.serve.contains(&listen.socket))?;
    let https = sockets.tls.contains(&listen.socket);
    let scheme = if https { "https" } else { "http" };
    Some(format!("{scheme}://{}", crate::base::url::authority(https, name, listen.socket.port())))
}

/// Where routes serve any host, what a named one does not serve must not fall to them.
fn close(servers: &[Server<'_>], sockets: &Sockets, routes: &mut Vec<Item>) {
    if !servers.iter().any(|server| server.serves(sockets) && server.any) {
        return;
    }
    let value = |item: &Item, key: &str| {
        item.lines.iter().find(|line| line.key == key).map(|line| line.value.clone())
    };
    let root = super::plan::Value::Flow("/".to_owned());
    let mut done = BTreeSet::new();
    for server in servers.iter().filter(|server| !server.any) {
        let here = server.site.listens.iter().any(|listen| sockets.serve.contains(&listen.socket));
        for host in server.site.names.hosts.iter().filter(|_| here) {
            let named = super::plan::Value::Flow(scalar(host));
            let whole = |item: &Item| {
                value(item, "host").as_ref() == Some(&named)
                    && value(item, "path").as_ref() == Some(&root)
            };
            if done.insert(host) && !routes.iter().any(whole) {
                routes.push(route::nothing_else(host));
            }
        }
    }
}
