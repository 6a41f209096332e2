//! How much of a call's arguments an audit log tells: in, nodes of the config; out, whether a value is shown.

use super::compile::{Cx, Node};
use super::fields::Fields;
use super::globs::Globs;

/// Names of arguments whose values are not shown where nothing else is said.
pub const REDACTED: &[&str] = &[
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*secret*",
    "*token*",
    "*credential*",
    "*api*key*",
    "*private*key*",
    "*access*key*",
    "*authorization*",
    "*cookie*",
    "*session*",
    "*otp*",
    "pin",
    "pwd",
];

/// What is told of arguments: always their names, and their values where that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Disclosure {
    /// Whether values are told.
    pub values: bool,
    /// Whose are not. In lower case: `Password` hides nothing from `password`.
    redact: Globs,
}

impl Default for Disclosure {
    fn default() -> Self {
        Self { values: false, redact: Globs::new(REDACTED.iter().copied()) }
    }
}

impl Disclosure {
    /// Takes `arguments` and `redact`.
    pub fn take(fields: &mut Fields<'_>, cx: &mut Cx) -> Self {
        let values = fields.or(cx, "arguments", false, arguments);
        let node = fields.take("redact");
        let listed = node.and_then(|n| cx.in_key("redact", |cx| Globs::compile(n, cx)));
        if let (Some(node), false) = (node, values) {
            cx.error(node, "without `arguments: all` no values are written: leave `redact` out");
        }
        match listed {
            Some(globs) => {
                // what is always hidden stays hidden: a list of one's own must not open the rest
                let always = REDACTED.iter().map(|text| (*text).to_owned());
                Self::new(values, always.chain(globs.patterns()).collect())
            }
            None => Self { values, ..Self::default() },
        }
    }

    /// With these patterns.
    pub fn new(values: bool, patterns: Vec<String>) -> Self {
        let lower: Vec<String> = patterns.iter().map(|text| text.to_lowercase()).collect();
        Self { values, redact: Globs::new(lower.iter().map(String::as_str)) }
    }

    /// Whether the value of this key is hidden, by its own name or by its path, such as `user.name`.
    pub fn hides(&self, key: &str, path: &str) -> bool {
        let key = key.to_lowercase();
        self.redact.matches(&key)
            || path.len() > key.len() && self.redact.matches(&path.to_lowercase())
    }
}

fn arguments(node: &Node, cx: &mut Cx) -> Option<bool> {
    cx.parse(node, "`names` or `all`", |text| match text {
        "names" => Ok(false),
        "all" => Ok(true),
        _ => Err(format!("expected `names` or `all`, found `{text}`")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_hidden_in_any_case() {
        let rules = Disclosure::new(true, vec!["*TOKEN*".into(), "user.name".into()]);
        for (key, path) in
            [("AccessToken", "AccessToken"), ("x_token", "a.x_token"), ("Name", "user.Name")]
        {
            assert!(rules.hides(key, path), "{path}");
        }
        for (key, path) in [("name", "name"), ("name", "a.user.name"), ("tok", "a.tok")] {
            assert!(!rules.hides(key, path), "{path}");
        }
        assert!(Disclosure::default().hides("client_secret", "client_secret"));
        assert!(!Disclosure::default().hides("city", "city") && !Disclosure::default().values);
    }
}
