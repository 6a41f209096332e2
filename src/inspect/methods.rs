//! The methods of MCP. In: a name; out: the same name, ours, so that nobody has to copy it.

use std::borrow::Cow;

/// The methods of MCP: kept without a copy, and with a label of their own in metrics.
pub const METHODS: &[&str] = &[
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "subscriptions/listen",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
];

/// A method of MCP by its name; `None` for all others.
pub fn known_method(method: &str) -> Option<&'static str> {
    METHODS.get(number(method)?).copied()
}

/// Where a method stands in [`METHODS`]; `None` for one that does not.
pub fn number(method: &str) -> Option<usize> {
    METHODS.iter().position(|known| *known == method)
}

/// A method's name to keep.
pub fn kept(method: Cow<'_, str>) -> Cow<'static, str> {
    match known_method(&method) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(method.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!(number("tools/call"), Some(4));
        assert!(METHODS.iter().all(|name| known_method(name) == Some(name)));
        assert_eq!(known_method("tools/call"), Some("tools/call"));
        assert_eq!(known_method("x\"y"), None);
        assert_eq!(known_method("Tools/call"), None);
        assert_eq!(kept("tools/call".into()), "tools/call");
        assert_eq!(kept("x".into()), "x");
    }
}
