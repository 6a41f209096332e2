//! How an upstream's requests are spread, and how many at once: in, nodes of the config; out, settings.

use http::HeaderName;

use super::policy::{Kind, POLICIES};
use super::settings::{Circuit, HashBy, Retry};
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::value::percent;
use crate::base::{defaults, edits};

/// The largest number of requests that `circuit` may name.
const MOST: u64 = 1_000_000;
/// The largest `retry.most`.
const MOST_RETRIES: u64 = 10;

/// What `balance` says.
#[derive(Debug)]
pub(super) struct Balance {
    /// The policy's name.
    pub(super) policy: &'static str,
    /// What goes before it.
    pub(super) hash: Option<HashBy>,
}

impl Default for Balance {
    fn default() -> Self {
        Self { policy: defaults::BALANCE, hash: None }
    }
}

/// A policy's name, or `{ hash: … }`.
pub(super) fn balance(node: &Node, cx: &mut Cx) -> Option<Balance> {
    if !matches!(node.kind, NodeKind::Map(_)) {
        return Some(Balance { policy: policy_name(node, cx)?, hash: None });
    }
    let mut fields = cx.map(node)?;
    let hash = fields.required(cx, "hash", hash);
    fields.finish(cx);
    Some(Balance { hash: Some(hash?), ..Balance::default() })
}

fn policy_name(node: &Node, cx: &mut Cx) -> Option<&'static str> {
    let names: Vec<&'static str> = POLICIES.iter().map(|kind| kind.name).collect();
    cx.parse(node, &format!("one of {}", names.join(", ")), |text| {
        names
            .iter()
            .copied()
            .find(|name| *name == text)
            .ok_or_else(|| format!("unknown policy `{text}`; known are: {}", names.join(", ")))
    })
}

/// The policy of that name.
pub(super) fn kind(name: &str) -> Option<&'static Kind> {
    POLICIES.iter().find(|kind| kind.name == name)
}

fn hash(node: &Node, cx: &mut Cx) -> Option<HashBy> {
    if !matches!(node.kind, NodeKind::Map(_)) {
        return cx.parse(node, "`principal` or `{ header: name }`", |text| match text {
            "principal" => Ok(HashBy::Principal),
            _ => Err(format!(
                "`{text}` is not `principal`; for a field of requests write `{{ header: {text} }}`"
            )),
        });
    }
    let mut fields = cx.map(node)?;
    let name: Option<HeaderName> = fields.required(cx, "header", edits::name);
    fields.finish(cx);
    name.map(HashBy::Header)
}

/// `off`, or what differs from the defaults.
pub(super) fn retry(node: &Node, cx: &mut Cx) -> Option<Retry> {
    let default = Retry::default();
    if !matches!(node.kind, NodeKind::Map(_)) {
        return cx.parse(node, "`off`, or a map of keys", |text| match text {
            "off" => Ok(Retry { most: 0, ..default }),
            _ => Err(format!("`{text}` is not `off`; keys are: budget, backoff, most")),
        });
    }
    let mut fields = cx.map(node)?;
    let budget = fields.or(cx, "budget", default.budget, |n, cx| {
        cx.parse(n, "a share", |text| percent(text, 0)).map(u32::from)
    });
    let backoff = fields.or(cx, "backoff", default.backoff, |n, cx| cx.period(n));
    let most = fields.or(cx, "most", default.most, |n, cx| {
        cx.integer(n, 1..=MOST_RETRIES).and_then(|n| u32::try_from(n).ok())
    });
    fields.finish(cx);
    Some(Retry { budget, backoff, most })
}

/// How much at once.
pub(super) fn circuit(node: &Node, cx: &mut Cx) -> Option<Circuit> {
    let count = |least: u64| {
        move |n: &Node, cx: &mut Cx| {
            cx.integer(n, least..=MOST).and_then(|n| usize::try_from(n).ok())
        }
    };
    let mut fields = cx.map(node)?;
    let in_flight = fields.required(cx, "in_flight", count(1));
    let pending = fields.optional(cx, "pending", count(0));
    let wait = fields.or(cx, "wait", defaults::CIRCUIT_WAIT, |n, cx| cx.period(n));
    fields.finish(cx);
    let pending = pending.or_else(|| usize::try_from(defaults::CIRCUIT_PENDING).ok())?;
    Some(Circuit { in_flight: in_flight?, pending, wait })
}
