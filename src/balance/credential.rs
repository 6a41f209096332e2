//! What the edge shows to an upstream's servers of itself: in, the `credentials` node; out, a field.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::edits;

/// Reads `header`, `basic` or `bearer`. The secret itself must come from a file or the environment.
pub(super) fn credential(node: &Node, cx: &mut Cx) -> Option<(HeaderName, HeaderValue)> {
    let mut fields = cx.map(node)?;
    let kinds = [
        fields.optional(cx, "header", header),
        fields.optional(cx, "basic", basic),
        fields.optional(cx, "bearer", bearer),
    ];
    fields.finish(cx);
    let given = match &node.kind {
        NodeKind::Map(entries) => entries.len(),
        _ => 0,
    };
    if given != 1 {
        cx.error(node, "exactly one of `header`, `basic` and `bearer` is needed");
    }
    let (name, mut value) = kinds.into_iter().flatten().next()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn header(node: &Node, cx: &mut Cx) -> Option<(HeaderName, HeaderValue)> {
    let mut fields = cx.map(node)?;
    let name = fields.required(cx, "name", |n, cx| {
        let name = edits::name(n, cx)?;
        if name == "host" {
            cx.error(n, "the `Host` of an upstream is its `host`");
        }
        Some(name)
    });
    let value =
        fields.required(cx, "value", |n, cx| secret(n, cx).and_then(|n| edits::value(n, cx)));
    fields.finish(cx);
    Some((name?, value?))
}

fn basic(node: &Node, cx: &mut Cx) -> Option<(HeaderName, HeaderValue)> {
    let mut fields = cx.map(node)?;
    let user = fields.required(cx, "user", |n, cx| {
        cx.parse(n, "a user's name", |text| {
            let bad = text.is_empty() || text.contains(':') || text.chars().any(char::is_control);
            let problem = "a user's name is not empty and has no colon (RFC 7617)".to_owned();
            if bad { Err(problem) } else { Ok(text.to_owned()) }
        })
    });
    let password =
        fields.required(cx, "password", |n, cx| secret(n, cx)?.text().map(str::to_owned));
    fields.finish(cx);
    let encoded = STANDARD.encode(format!("{}:{}", user?, password?));
    Some((AUTHORIZATION, HeaderValue::try_from(format!("Basic {encoded}")).ok()?))
}

fn bearer(node: &Node, cx: &mut Cx) -> Option<(HeaderName, HeaderValue)> {
    let token = secret(node, cx)?.text().unwrap_or_default();
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.is_empty() || !token.bytes().all(good) {
        cx.error(node, "a token has letters, digits and `-._~+/=` (RFC 6750)");
        return None;
    }
    Some((AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).ok()?))
}

/// A value that does not stand in the config itself, and is not empty.
fn secret<'n>(node: &'n Node, cx: &mut Cx) -> Option<&'n Node> {
    match &node.kind {
        NodeKind::Scalar { text, written: Some(_), .. } if !text.is_empty() => return Some(node),
        NodeKind::Scalar { written: Some(_), .. } => cx.error(node, "the secret is empty"),
        _ => cx.error(
            node,
            "a secret does not belong into the config: write `${file:PATH}` or `${env:NAME}`",
        ),
    }
    None
}
