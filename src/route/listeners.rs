//! The listeners of a route: in, its `listeners` list and what listeners there are; out, their addresses.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::settings::{PathMatch, RouteSettings};
use crate::base::compile::{Cx, Node};
use crate::base::fields;

/// What routes must know of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub https: bool,
    /// Whether it sends everybody to https who does not ask for a route that names it.
    pub redirects: bool,
    /// Whether it may serve without TLS.
    pub plaintext: bool,
    /// Whether it asks clients for certificates.
    pub certificates: bool,
}

/// Compiles the list: addresses of listeners, each once. What is wrong is noted in `cx`.
pub(super) fn listeners(node: &Node, known: &[Listener], cx: &mut Cx) -> Option<Vec<SocketAddr>> {
    let mut seen: Vec<SocketAddr> = Vec::new();
    cx.filled_list(node, |node, cx| {
        let address = cx.address(node)?;
        if seen.contains(&address) {
            cx.error(node, format!("`{address}` stands twice"));
        }
        seen.push(address);
        match known.iter().find(|listener| listener.address == address) {
            Some(listener) if listener.redirects && !listener.plaintext => {
                let problem = format!(
                    "the listener `{address}` redirects: it serves routes that name it only with `plaintext: true`"
                );
                cx.error(node, problem);
            }
            // where listeners are wrong, that is said already
            None if !known.is_empty() => {
                let all: Vec<String> = known.iter().map(|l| l.address.to_string()).collect();
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                let hint = fields::hint(&address.to_string(), &all);
                cx.error(node, format!("there is no listener `{address}`{hint}"));
            }
            _ => {}
        }
        Some(address)
    })
}

/// Whether two routes are served by one listener; absent = by all.
pub(super) fn meet(a: Option<&[SocketAddr]>, b: Option<&[SocketAddr]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|address| b.contains(address)),
        _ => true,
    }
}

/// Session ids are bound to labels: no two routes may have the same one. The others keep theirs, so that
/// edges with other addresses take their sessions over.
pub(super) fn tell_apart(routes: &mut [RouteSettings]) {
    let is_exact = |route: &RouteSettings| matches!(route.path, PathMatch::Exact(_));
    let mut count: HashMap<(String, bool), usize> = HashMap::new();
    for route in routes.iter() {
        *count.entry((route.label.clone(), is_exact(route))).or_default() += 1;
    }
    for route in routes {
        let exact = is_exact(route);
        let count = |exact| count.get(&(route.label.clone(), exact)).copied().unwrap_or_default();
        let (same, other) = (count(exact) > 1, exact && count(false) > 0);
        let first = route.listeners.iter().flatten().min().filter(|_| same).copied();
        // no path has a space
        route.label += if other { " exact" } else { "" };
        if let Some(first) = first {
            route.label = format!("{}@{first}", route.label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::route;
    use super::*;

    #[test]
    fn no_two_routes_have_one_label() {
        let routes = |all: &[(PathMatch, Option<&str>)]| {
            let mut routes: Vec<_> = all
                .iter()
                .map(|(path, listener)| {
                    let listeners = listener.map(|l| vec![l.parse().unwrap()]);
                    let label = format!("*{}", path.text());
                    RouteSettings { label, listeners, ..route(None, path.clone(), "u") }
                })
                .collect();
            tell_apart(&mut routes);
            routes.into_iter().map(|route| route.label).collect::<Vec<_>>()
        };
        let prefix = || PathMatch::Prefix("/a".into());
        let exact = || PathMatch::Exact("/a".into());
        let (one, two) = (Some("127.0.0.1:1"), Some("127.0.0.1:2"));
        assert_eq!(routes(&[(prefix(), one)]), ["*/a"]);
        assert_eq!(routes(&[(exact(), None)]), ["*/a"]);
        assert_eq!(routes(&[(prefix(), None), (exact(), None)]), ["*/a", "*/a exact"]);
        assert_eq!(
            routes(&[(prefix(), one), (prefix(), two), (exact(), one), (exact(), two)]),
            [
                "*/a@127.0.0.1:1",
                "*/a@127.0.0.1:2",
                "*/a exact@127.0.0.1:1",
                "*/a exact@127.0.0.1:2"
            ]
        );
    }
}
