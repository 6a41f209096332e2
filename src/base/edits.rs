//! Header fields that a config sets or removes: in, its nodes; out, checked names and values, and
//! how they are applied.

use http::{HeaderName, HeaderValue};

use super::compile::{Cx, Node, NodeKind};

/// What is done to the fields of a message: first what is removed, then what is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Taken out, however often they stand there.
    pub remove: Vec<HeaderName>,
    /// Put in, in place of what has the same name.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

/// Fields that belong to the connection, to the framing, or to the edge itself: nobody may name them.
const OWN: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "mcp-session-id",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

impl Edits {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }

    /// Applies them to a list of fields.
    pub fn apply(&self, fields: &mut Vec<(HeaderName, HeaderValue)>) {
        if self.is_empty() {
            return;
        }
        fields.retain(|(name, _)| !self.touches(name));
        fields.extend(self.set.iter().cloned());
    }

    /// Whether a field of this name is removed or replaced.
    pub fn touches(&self, name: &HeaderName) -> bool {
        self.remove.contains(name) || self.set.iter().any(|(set, _)| set == name)
    }
}

/// Reads `{ set: { Name: value }, remove: [ Name ] }`.
pub fn edits(node: &Node, cx: &mut Cx) -> Option<Edits> {
    let mut fields = cx.map(node)?;
    let set_node = fields.take("set");
    let set = set_node.map_or(Some(Vec::new()), |n| cx.in_key("set", |cx| values(n, cx)));
    let remove = fields.or(cx, "remove", Vec::new(), |n, cx| cx.list(n, name));
    fields.finish(cx);
    let set = set?;
    if let Some((both, _)) = set.iter().find(|(name, _)| remove.contains(name)) {
        cx.error(node, format!("`{both}` is set and removed: setting it replaces what is there"));
    }
    Some(Edits { remove, set })
}

/// Reads a map of names and values.
pub fn values(node: &Node, cx: &mut Cx) -> Option<Vec<(HeaderName, HeaderValue)>> {
    named(node, cx, value)
}

/// Reads a map of names and whatever `read` makes of what stands behind them.
pub fn named<T>(
    node: &Node,
    cx: &mut Cx,
    read: impl Fn(&Node, &mut Cx) -> Option<T>,
) -> Option<Vec<(HeaderName, T)>> {
    let NodeKind::Map(entries) = &node.kind else {
        cx.expected(node, "a map of header names and values");
        return None;
    };
    let mut out: Vec<(HeaderName, T)> = Vec::new();
    for (key, line, node) in entries {
        let Some(name) = checked_name(key, *line, cx) else { continue };
        if out.iter().any(|(other, _)| *other == name) {
            cx.error_at(*line, format!("the header `{name}` stands twice"));
        }
        out.extend(cx.in_key(key, |cx| read(node, cx)).map(|value| (name, value)));
    }
    Some(out)
}

/// Reads the name of a field that a config may name.
pub fn name(node: &Node, cx: &mut Cx) -> Option<HeaderName> {
    let text = cx.string(node)?;
    checked_name(&text, node.line, cx)
}

fn checked_name(text: &str, line: usize, cx: &mut Cx) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        cx.error_at(line, format!("`{}` is not the name of a header field", text.escape_debug()));
        return None;
    };
    if OWN.contains(&name.as_str()) {
        cx.error_at(line, format!("`{name}` is the edge's own business and cannot be changed"));
        return None;
    }
    if name.as_str().contains('_') {
        let dashed = name.as_str().replace('_', "-");
        let problem = format!("`{name}`: servers read `_` as `-`; write `{dashed}`");
        cx.error_at(line, problem);
        return None;
    }
    Some(name)
}

/// Reads the value of a field: visible ASCII and inner blanks (RFC 9110 §5.5). It may be a secret, so
/// it is never shown.
pub fn value(node: &Node, cx: &mut Cx) -> Option<HeaderValue> {
    let text = cx.string(node)?;
    let plain = text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
    let trimmed = text.trim_matches([' ', '\t']).len() == text.len();
    if let (true, true, Ok(value)) = (plain, trimmed, HeaderValue::from_str(&text)) {
        return Some(value);
    }
    cx.error(node, "a header's value is visible ASCII, without blanks at its ends");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn what_is_set_replaces_and_what_is_removed_goes() {
        let edits = Edits {
            remove: vec![HeaderName::from_static("server")],
            set: vec![field("x-a", "new"), field("x-b", "b")],
        };
        let mut fields =
            vec![field("server", "x"), field("x-a", "1"), field("x-c", "c"), field("x-a", "2")];
        edits.apply(&mut fields);
        assert_eq!(fields, [field("x-c", "c"), field("x-a", "new"), field("x-b", "b")]);
    }
}
