//! A route's `auth` list: in, its node; out, the methods in order and what follows from them.

use std::sync::Arc;

use http::HeaderValue;

use super::{METHODS, anonymous, oauth};
use crate::base::caller::{Authenticate, Chain, Shape};
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::fields;

/// What a challenge has that begins OAuth (RFC 9728 §5.1).
const MARK: &[u8] = b"resource_metadata=";
/// Longer names are cut in messages.
const SHOWN: usize = 80;

/// Compiles a route's `auth` list; what is wrong is noted in `cx`.
pub fn chain(node: &Node, cx: &mut Cx) -> Option<Chain> {
    let methods = methods(node, cx)?;
    let mut challenges: Vec<HeaderValue> = Vec::new();
    let mut headers = Vec::new();
    for method in &methods {
        for challenge in method.challenges() {
            if !challenges.contains(&challenge) {
                challenges.push(challenge);
            }
        }
        for shape in method.shapes() {
            if !headers.contains(&shape.header) {
                headers.push(shape.header);
            }
        }
    }
    let rules = methods.iter().filter_map(|method| method.rule()).collect();
    let resource = methods.iter().find_map(|method| method.protects());
    let bearer = |challenge: &HeaderValue| challenge.as_bytes().starts_with(b"Bearer");
    let starts_oauth =
        |challenge: &HeaderValue| challenge.as_bytes().windows(MARK.len()).any(|w| w == MARK);
    if resource.is_some() {
        // of several for `Bearer`, clients would take the first, which must be the one that leads on
        challenges.retain(|challenge| !bearer(challenge) || starts_oauth(challenge));
    }
    challenges.sort_by_key(|challenge| !bearer(challenge));
    Some(Chain { methods, challenges, headers, rules, resource })
}

/// The methods of a list, each of which finds credentials that no other one does.
pub(super) fn methods(node: &Node, cx: &mut Cx) -> Option<Vec<Arc<dyn Authenticate>>> {
    let mut before: Vec<(Arc<dyn Authenticate>, usize)> = Vec::new();
    cx.filled_list(node, |node, cx| {
        let method = method(node, cx)?;
        if let Some(problem) = before.iter().find_map(|(m, line)| conflict(m, *line, &method)) {
            cx.error(node, problem);
        }
        before.push((method.clone(), node.line));
        Some(method)
    })
}

fn method(node: &Node, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    let (name, settings) = fields::named(node, "method", cx)?;
    let Some(method) = METHODS.iter().find(|method| method.name == name) else {
        cx.error(node, unknown_method(name, &shown(node)));
        return None;
    };
    if settings.is_none() && name != anonymous::NAME {
        cx.error(node, format!("`{name}` needs its settings below it"));
        return None;
    }
    cx.in_key(method.name, |cx| (method.compile)(settings, cx))
}

/// Why a method cannot stand behind another one.
fn conflict(
    before: &Arc<dyn Authenticate>,
    line: usize,
    method: &Arc<dyn Authenticate>,
) -> Option<String> {
    let name = method.name();
    if before.name() == anonymous::NAME {
        return Some(format!(
            "`anonymous` in line {line} lets everybody in: `{name}` is never asked"
        ));
    }
    if before.protects().is_some() && method.protects().is_some() {
        return Some(format!(
            "there is an `oauth` in line {line} already: a route is one resource; put all issuers there"
        ));
    }
    let (theirs, ours) = (before.shapes(), method.shapes());
    if ours.is_empty() && theirs.is_empty() && before.name() == name {
        return Some(format!("`{name}` stands already in line {line}"));
    }
    let shape = ours.iter().find(|shape| {
        theirs.iter().any(|other| other.overlaps(shape) && !leaves_the_rest(other, shape, name))
    })?;
    if name == oauth::NAME || before.name() == oauth::NAME {
        return Some(format!(
            "a Bearer token could be meant for this or for `{}` in line {line}: put keys with a \
             `prefix` before `oauth`, or take another header for them",
            before.name()
        ));
    }
    Some(format!(
        "a credential in `{}` could be meant for this or for `{}` in line {line}: \
         take another header, or a `prefix` that tells them apart",
        shape.header,
        before.name()
    ))
}

/// Whether a method of opaque tokens takes what the one before it leaves: every other prefix. JWTs are among
/// its tokens, too.
fn leaves_the_rest(before: &Shape, shape: &Shape, name: &str) -> bool {
    const JWT: &str = "eyJ";
    let jwts = before.prefix.starts_with(JWT) || JWT.starts_with(&before.prefix);
    name == oauth::NAME && shape.prefix.is_empty() && !jwts
}

/// How a message names a method: by its key where it has settings.
fn shown(node: &Node) -> String {
    match &node.kind {
        NodeKind::Map(entries) => entries.first().map_or_else(String::new, |(name, _, _)| {
            let cut: String = name.chars().take(SHOWN).collect();
            format!("`{cut}`")
        }),
        _ => node.shown(),
    }
}

fn unknown_method(name: &str, shown: &str) -> String {
    let known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    let known = known.join(", ");
    if name == "mtls" {
        return format!("{shown} is called `client_certificate` here; the methods are: {known}");
    }
    format!("unknown method {shown}; the methods are: {known}")
}
