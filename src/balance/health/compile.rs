//! Health and ejection in a config: in, the `health` and `eject` nodes of an upstream; out, checked settings.

use std::time::Duration;

use super::settings::{Check, EjectSettings, HealthSettings, HttpCheck, McpCheck};
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::defaults;
use crate::base::fields::{self, Fields};
use crate::base::value::percent;

/// What a check may be, as configs write it.
const CHECKS: [&str; 3] = ["mcp", "http", "tcp"];
/// Most checks in a row that are asked for.
const MOST_IN_A_ROW: u64 = 100;
/// Most failures in a row that are waited for.
const MOST_FAILURES: u64 = 10_000;
/// Longest text that is looked for in a body, in bytes.
const LONGEST_TEXT: usize = 1024;

/// `health`: a map with one kind of check, or the kind alone.
pub(in crate::balance) fn health(node: &Node, cx: &mut Cx) -> Option<HealthSettings> {
    if !matches!(node.kind, NodeKind::Map(_)) {
        let check = cx.parse(node, "`mcp`, `tcp` or a map", alone)?;
        return Some(HealthSettings { check, ..standard() });
    }
    let mut fields = cx.map(node)?;
    let check = check(node, &mut fields, cx);
    let HealthSettings { every, timeout, up_after, down_after, slow_start, .. } = standard();
    let every = fields.or(cx, "every", every, |n, cx| cx.period(n));
    let timeout = fields.or(cx, "timeout", timeout, |n, cx| cx.period(n));
    let up_after = fields.or(cx, "up_after", up_after, in_a_row);
    let down_after = fields.or(cx, "down_after", down_after, in_a_row);
    let slow_start = fields.or(cx, "slow_start", slow_start, |n, cx| cx.period_or_none(n));
    fields.finish(cx);
    Some(HealthSettings { check: check?, every, timeout, up_after, down_after, slow_start })
}

/// `eject`: a map, or `off`.
pub(in crate::balance) fn eject(node: &Node, cx: &mut Cx) -> Option<Option<EjectSettings>> {
    if !matches!(node.kind, NodeKind::Map(_)) {
        return cx.parse(node, "`off` or a map", |text| match text {
            "off" => Ok(None),
            _ => Err(format!("`{text}` is neither `off` nor a map such as `{{ failures: 5 }}`")),
        });
    }
    let mut fields = cx.map(node)?;
    let EjectSettings { failures, period, at_most } = EjectSettings::default();
    let failures = fields.or(cx, "failures", failures, |n, cx| {
        cx.integer(n, 1..=MOST_FAILURES).and_then(|n| u32::try_from(n).ok())
    });
    let period = fields.or(cx, "for", period, |n, cx| cx.period(n));
    let at_most = fields.or(cx, "at_most", at_most, |n, cx| {
        cx.parse(n, "a share such as `50%`", |text| percent(text, 1))
    });
    fields.finish(cx);
    Some(Some(EjectSettings { failures, period, at_most }))
}

/// All defaults; the check is a stand-in.
fn standard() -> HealthSettings {
    HealthSettings {
        check: Check::Tcp,
        every: defaults::HEALTH_EVERY,
        timeout: defaults::HEALTH_TIMEOUT,
        up_after: defaults::HEALTH_UP_AFTER,
        down_after: defaults::HEALTH_DOWN_AFTER,
        slow_start: Duration::ZERO,
    }
}

fn alone(text: &str) -> Result<Check, String> {
    match text {
        "mcp" => Ok(Check::Mcp(McpCheck { path: defaults::HEALTH_PATH.to_owned(), tools: vec![] })),
        "tcp" => Ok(Check::Tcp),
        "http" => Err("an http check needs a path: `health: { http: { path: /healthz } }`".into()),
        _ => Err(format!("unknown check `{text}`{}", fields::hint(text, &CHECKS))),
    }
}

/// The one kind of check that the map names.
fn check(node: &Node, fields: &mut Fields<'_>, cx: &mut Cx) -> Option<Check> {
    let given = CHECKS.map(|name| fields.take(name).map(|node| (name, node)));
    let mut given = given.into_iter().flatten();
    let Some((name, first)) = given.next() else {
        cx.error(node, format!("what is checked is missing: one of {}", CHECKS.join(", ")));
        return None;
    };
    if let Some((other, second)) = given.next() {
        cx.error(second, format!("`{name}` and `{other}`: a replica is checked in one way"));
    }
    cx.in_key(name, |cx| match name {
        "mcp" => mcp(first, cx).map(Check::Mcp),
        "http" => http(first, cx).map(Check::Http),
        _ => tcp(first, cx),
    })
}

fn mcp(node: &Node, cx: &mut Cx) -> Option<McpCheck> {
    let mut fields = cx.map(node)?;
    let path = fields.or(cx, "path", defaults::HEALTH_PATH.to_owned(), path);
    let tools = fields.or(cx, "tools", Vec::new(), |n, cx| cx.filled_list(n, |n, cx| cx.string(n)));
    fields.finish(cx);
    Some(McpCheck { path, tools })
}

fn http(node: &Node, cx: &mut Cx) -> Option<HttpCheck> {
    let mut fields = cx.map(node)?;
    let path = fields.required(cx, "path", path);
    let status = fields.or(cx, "status", Vec::new(), statuses);
    let body = fields.optional(cx, "body", |n, cx| {
        cx.parse(n, "a text", |text| match text.len() {
            0 => Err("an empty text is in every body: leave the key out".to_owned()),
            n if n > LONGEST_TEXT => Err(format!("the text is longer than {LONGEST_TEXT} bytes")),
            _ => Ok(text.to_owned()),
        })
    });
    fields.finish(cx);
    Some(HttpCheck { path: path?, status, body })
}

fn tcp(node: &Node, cx: &mut Cx) -> Option<Check> {
    let fields = cx.map(node)?;
    fields.finish(cx);
    Some(Check::Tcp)
}

/// One status, or a list of them.
fn statuses(node: &Node, cx: &mut Cx) -> Option<Vec<u16>> {
    let one = |n: &Node, cx: &mut Cx| cx.integer(n, 200..=599).and_then(|n| u16::try_from(n).ok());
    if matches!(node.kind, NodeKind::Seq(_)) {
        return cx.filled_list(node, one);
    }
    one(node, cx).map(|status| vec![status])
}

fn path(node: &Node, cx: &mut Cx) -> Option<String> {
    cx.parse(node, "a path such as `/mcp`", |text| {
        let good = text.starts_with('/') && text.bytes().all(|b| (0x21..0x7f).contains(&b));
        if good && !text.contains('#') {
            return Ok(text.to_owned());
        }
        Err(format!("`{text}` is not a path: it begins with `/` and has no spaces and no `#`"))
    })
}

fn in_a_row(node: &Node, cx: &mut Cx) -> Option<u32> {
    cx.integer(node, 1..=MOST_IN_A_ROW).and_then(|n| u32::try_from(n).ok())
}
