//! A route's `auth` list: in, its node; out, the methods in order.

use std::sync::Arc;

use super::METHODS;
use crate::base::caller::Authenticate;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::fields;

/// Compiles a route's `auth` list; what is wrong is noted in `cx`.
pub fn chain(node: &Node, cx: &mut Cx) -> Option<Vec<Arc<dyn Authenticate>>> {
    let mut seen: Vec<&'static str> = Vec::new();
    cx.filled_list(node, |node, cx| {
        let (name, settings) = match &node.kind {
            NodeKind::Scalar { text, .. } => (text.as_str(), None),
            NodeKind::Map(entries) => match entries.as_slice() {
                [(name, _, settings)] => (name.as_str(), Some(settings)),
                _ => {
                    cx.error(node, "a method is one word, or one word with its settings below");
                    return None;
                }
            },
            _ => {
                cx.expected(node, "the name of a method");
                return None;
            }
        };
        let Some(method) = METHODS.iter().find(|method| method.name == name) else {
            cx.error(node, unknown_method(name, &node.shown()));
            return None;
        };
        if seen.contains(&method.name) {
            cx.error(node, format!("`{name}` stands twice in the list"));
        }
        seen.push(method.name);
        cx.in_key(method.name, |cx| (method.compile)(settings, cx))
    })
}

fn unknown_method(name: &str, shown: &str) -> String {
    let known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    let known = known.join(", ");
    if fields::is_later(name) {
        return format!("`{name}` is not built yet; the methods are: {known}");
    }
    format!("unknown method {shown}; the methods are: {known}")
}
