//! The `audit` of a config: in, its node; out, where its lines go, and what they tell.

use std::sync::Arc;

use super::rotation::Rotation;
use super::{AuditSettings, Full, To};
use crate::base::compile::{Cx, Node};
use crate::base::disclose::Disclosure;
use crate::base::files;

/// An audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Where its lines go.
    pub settings: AuditSettings,
    /// What they tell of arguments.
    pub disclosure: Arc<Disclosure>,
}

/// Compiles it; `None` also where it is `off`.
pub fn audit(node: &Node, cx: &mut Cx) -> Option<Audit> {
    if node.text() == Some("off") {
        return None;
    }
    let mut fields = cx.map(node)?;
    let to = fields.required(cx, "to", to);
    let disclosure = Disclosure::take(&mut fields, cx);
    let full = fields.or(cx, "full", Full::Refuse, full);
    let rotate = fields.take("rotate");
    let rotation = rotate.and_then(|n| cx.in_key("rotate", |cx| rotation(n, cx)));
    fields.finish(cx);
    if let (Some(node), Some(To::Stdout)) = (rotate, &to) {
        cx.error(node, "standard output is no file that could be turned");
    }
    let settings = AuditSettings { to: to?, full, rotation };
    Some(Audit { settings, disclosure: Arc::new(disclosure) })
}

fn to(node: &Node, cx: &mut Cx) -> Option<To> {
    if node.text() == Some("stdout") {
        return Some(To::Stdout);
    }
    let path = cx.file(node)?;
    if let Err(problem) = files::place_for(&path) {
        cx.error(node, problem);
    }
    Some(To::File(path))
}

fn full(node: &Node, cx: &mut Cx) -> Option<Full> {
    cx.parse(node, "`refuse` or `go_on`", |text| match text {
        "refuse" => Ok(Full::Refuse),
        "go_on" => Ok(Full::GoOn),
        _ => Err(format!("expected `refuse` or `go_on`, found `{text}`")),
    })
}

fn rotation(node: &Node, cx: &mut Cx) -> Option<Rotation> {
    let mut fields = cx.map(node)?;
    let size = fields.optional(cx, "size", |n, cx| cx.byte_size(n));
    let age = fields.optional(cx, "age", |n, cx| cx.period(n));
    let keep = fields.optional(cx, "keep", |n, cx| cx.integer(n, 1..=100_000));
    if fields.take("size").is_none() && fields.take("age").is_none() {
        cx.error(node, "a `size` or an `age` is missing");
    }
    fields.finish(cx);
    Some(Rotation { size, age, keep: keep.and_then(|n| usize::try_from(n).ok()) })
}
