//! Servers of an upstream's config: in, the `servers` node; out, checked settings.

use super::settings::ServerSettings;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::url::{self, Origin};
use crate::base::{defaults, fields};

/// The largest `weight`.
const MOST_WEIGHT: u64 = 1000;
/// What `priority` may be, the first first.
const PRIORITIES: &[&str] = &["primary", "secondary"];

/// Compiles the list; what is wrong is noted in `cx`.
pub(super) fn servers(node: &Node, cx: &mut Cx) -> Option<Vec<ServerSettings>> {
    let mut seen: Vec<(String, usize)> = Vec::new();
    cx.filled_list(node, |node, cx| {
        let server = server(node, cx)?;
        let authority = &server.authority;
        if let Some((_, line)) = seen.iter().find(|(other, _)| other == authority) {
            // not its name, which may be a part of what was substituted
            cx.error(node, format!("this server stands already in line {line}"));
        }
        seen.push((authority.clone(), node.line));
        Some(server)
    })
}

/// A server of which nothing but the URL is said.
pub(super) fn of(origin: &Origin) -> ServerSettings {
    ServerSettings {
        https: origin.https,
        host: origin.host.clone(),
        port: origin.port,
        authority: origin.authority(),
        weight: defaults::WEIGHT,
        priority: 0,
        drain: false,
    }
}

fn server(node: &Node, cx: &mut Cx) -> Option<ServerSettings> {
    let origin =
        |n: &Node, cx: &mut Cx| cx.parse(n, "a URL like http://10.0.1.10:8000", url::origin);
    if !matches!(node.kind, NodeKind::Map(_)) {
        return Some(of(&origin(node, cx)?));
    }
    let mut fields = cx.map(node)?;
    let origin = fields.required(cx, "url", origin);
    let weight = fields.optional(cx, "weight", |n, cx| {
        cx.integer(n, 1..=MOST_WEIGHT).and_then(|n| u32::try_from(n).ok())
    });
    let priority = fields.or(cx, "priority", 0, priority);
    let drain = fields.or(cx, "drain", false, |n, cx| cx.boolean(n));
    fields.finish(cx);
    let weight = weight.unwrap_or(defaults::WEIGHT);
    Some(ServerSettings { weight, priority, drain, ..of(&origin?) })
}

fn priority(node: &Node, cx: &mut Cx) -> Option<u32> {
    cx.parse(node, "`primary` or `secondary`", |text| {
        let place = PRIORITIES.iter().position(|name| *name == text);
        place
            .and_then(|place| u32::try_from(place).ok())
            .ok_or_else(|| format!("unknown priority `{text}`{}", fields::hint(text, PRIORITIES)))
    })
}
