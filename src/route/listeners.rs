//! The listeners of a route: in, its `listeners` list and what listeners there are; out, their addresses.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::settings::RouteSettings;
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

/// Session ids are bound to labels: routes with the same host and path on other listeners must not have the
/// same one. The others keep theirs, so that edges with other addresses take their sessions over.
pub(super) fn tell_apart(routes: &mut [RouteSettings]) {
    let mut count: HashMap<String, usize> = HashMap::new();
    for route in routes.iter() {
        *count.entry(route.label.clone()).or_default() += 1;
    }
    for route in routes {
        let same = count.get(&route.label).is_some_and(|count| *count > 1);
        if let Some(first) = route.listeners.iter().flatten().min().filter(|_| same) {
            route.label = format!("{}@{first}", route.label);
        }
    }
}
