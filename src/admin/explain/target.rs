//! The two ends of the way: in, a request; out, the listener that it comes in on, and the replica that it goes to.

use std::sync::Arc;

use super::{Asked, Explained};
use crate::balance::lookup::Lookup;
use crate::balance::session::{Kind, OpenError, Owner};
use crate::balance::settings::{Affinity, Circuit, HashBy, ServerSettings, UpstreamSettings};
use crate::base::principal::Principal;
use crate::config::{KeysFrom, Settings};
use crate::forward::headers::SESSION;
use crate::listen::settings::ListenerSettings;
use crate::route::{Routed, Routes};

/// The listener that was named; else of those that the URL leads to, the first whose routes take the request.
pub(super) fn listener<'s>(
    settings: &'s Settings,
    routes: &Routes,
    asked: &Asked,
    out: &mut Explained,
) -> Option<&'s ListenerSettings> {
    let all = &settings.listeners;
    let (found, why) = match asked.listener {
        Some(address) => (all.iter().find(|l| l.address == address), "as asked".to_owned()),
        None => guess(all, routes, asked),
    };
    let Some(found) = found else {
        let all: Vec<String> = all.iter().map(|l| l.address.to_string()).collect();
        out.say("listener", format!("there is none such; there are {}", all.join(", ")));
        out.refused = true;
        return None;
    };
    let scheme = if found.tls.is_some() { "https" } else { "http" };
    out.say("listener", format!("{scheme}://{}: {why}", found.address));
    Some(found)
}

fn guess<'s>(
    all: &'s [ListenerSettings],
    routes: &Routes,
    asked: &Asked,
) -> (Option<&'s ListenerSettings>, String) {
    let origin = &asked.origin;
    let same = |l: &&ListenerSettings| l.tls.is_some() == origin.https;
    let at_port = |l: &&ListenerSettings| l.address.port() == origin.port && same(l);
    let takes = |l: &&ListenerSettings| routes.find(&asked.head, l.address).is_ok();
    let port = format!("port {} of {}", origin.port, origin.scheme());
    let fitting: Vec<&ListenerSettings> = all.iter().filter(at_port).collect();
    if let Some(first) = fitting.iter().copied().find(takes).or(fitting.first().copied()) {
        return (Some(first), port);
    }
    let others: Vec<&ListenerSettings> =
        all.iter().filter(same).chain(all.iter().filter(|l| !same(l))).collect();
    let first = others.iter().copied().find(takes).or(others.first().copied());
    (first, format!("none listens on {port}; this one, if something before it leads there"))
}

/// `None` where no server gets it.
pub(super) fn upstream(
    settings: &Settings,
    routed: &Routed,
    principal: Option<&Arc<Principal>>,
    asked: &Asked,
    now: u64,
    out: &mut Explained,
) -> Option<()> {
    let route = &routed.route;
    let Some(upstream) = settings.upstreams.iter().find(|u| u.name == route.upstream) else {
        out.say("upstream", format!("there is no upstream {}", route.upstream));
        out.refused = true;
        return None;
    };
    let query = asked.head.query.as_ref().map(|q| format!("?{q}")).unwrap_or_default();
    let target = format!("{} {}{query}", asked.head.method, routed.backend_path);
    out.say("upstream", format!("{}: gets {target}", upstream.name));
    if let Some(circuit) = &upstream.circuit {
        let Circuit { in_flight, pending, wait } = circuit;
        let most = format!("{in_flight} at once, {pending} wait {} s at most", wait.as_secs_f64());
        out.say("limit", format!("upstream {}: {most}", upstream.name));
    }
    match asked.head.single(SESSION) {
        Some(id) => {
            let Some(principal) = principal else {
                out.say("replica", "the session's, if its id is this caller's");
                return Some(());
            };
            pinned(settings, upstream, id, Owner { principal, route: &route.label }, now, out)
        }
        None => {
            out.say("replica", spread(upstream));
            Some(())
        }
    }
}

/// Who gets what is new. Which of them are up, only a running edge knows.
fn spread(upstream: &UpstreamSettings) -> String {
    let servers = upstream.servers.iter().map(Choice::of_server);
    let all: Vec<Choice> = servers.chain(upstream.lookups.iter().map(Choice::of_lookup)).collect();
    let (draining, open): (Vec<_>, Vec<_>) = all.iter().partition(|choice| choice.drain);
    let first = open.iter().map(|choice| choice.priority).min();
    let (first, behind): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|choice| Some(choice.priority) == first);
    let mut text = match first.as_slice() {
        [] => "none takes anything new".to_owned(),
        [one] if !one.many => format!("{}, the only one", one.words),
        many => format!("{} of {}; then its session's", chosen(upstream), listed(many)),
    };
    if !behind.is_empty() {
        text.push_str(&format!("; where none of these is up: {}", listed(&behind)));
    }
    if !draining.is_empty() {
        text.push_str(&format!("; nothing new goes to {}, which drains", listed(&draining)));
    }
    text
}

fn chosen(upstream: &UpstreamSettings) -> String {
    let policy = upstream.policy.name;
    match (&upstream.hash, upstream.affinity) {
        (Some(HashBy::Header(name)), _) => format!("by the hash of `{name}`"),
        (Some(HashBy::Principal), _) => "by the hash of its caller".to_owned(),
        (None, Affinity::Principal) => {
            format!("by {policy} (2026-07-28: by the hash of its caller)")
        }
        (None, Affinity::None) => format!("by {policy}"),
    }
}

/// A server, or those that a name stands for.
struct Choice {
    words: String,
    priority: u32,
    drain: bool,
    many: bool,
}

impl Choice {
    fn of_server(server: &ServerSettings) -> Self {
        let ServerSettings { priority, drain, .. } = *server;
        Self { words: weighted(&server.authority, server.weight), priority, drain, many: false }
    }

    /// Explaining asks nobody: who they are, only a running edge knows.
    fn of_lookup(lookup: &Lookup) -> Self {
        let Lookup { priority, drain, .. } = *lookup;
        let words = weighted(&format!("all of {lookup}"), lookup.weight);
        Self { words, priority, drain, many: true }
    }
}

fn weighted(name: &str, weight: u32) -> String {
    if weight == 1 { name.to_owned() } else { format!("{name} (weight {weight})") }
}

fn listed(choices: &[&Choice]) -> String {
    choices.iter().map(|choice| choice.words.as_str()).collect::<Vec<_>>().join(", ")
}

/// The session's replica, if the edge's keys open its id.
fn pinned(
    settings: &Settings,
    upstream: &UpstreamSettings,
    id: &str,
    owner: Owner<'_>,
    now: u64,
    out: &mut Explained,
) -> Option<()> {
    let opened =
        settings.session_keys.open(Kind::Session, id, owner, now, settings.session_max_age);
    let gone = match opened {
        Ok(ticket) if ticket.upstream != upstream.name => "session.foreign",
        Ok(ticket) if !upstream.servers.iter().any(|s| s.authority == ticket.authority) => {
            if !upstream.lookups.is_empty() {
                let words = format!("{}, the session's, if DNS names it still", ticket.authority);
                out.say("replica", words);
                return Some(());
            }
            "session.replica_gone"
        }
        Ok(ticket) => {
            out.say("replica", format!("{}, the session's", ticket.authority));
            return Some(());
        }
        Err(OpenError::Expired) => "session.expired",
        Err(OpenError::Forged) if matches!(settings.session_keys_from, KeysFrom::NotYet(_)) => {
            out.say("replica", "the session's; the keys that open its id are not here");
            return Some(());
        }
        Err(OpenError::Forged) => "session.unknown",
    };
    out.say("replica", "none: the session's id is not one of this caller, route and edge");
    out.say("answer", format!("refused: 404 `{gone}`"));
    out.refused = true;
    None
}
