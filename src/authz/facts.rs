//! What is known of a caller, by name: in, a name of the config and a principal; out, whether what it
//! stands for fits.
//!
//! What is not known fits nothing, `*` included. Neither does an empty text, a null or an object.

use serde_json::Value;

use crate::base::globs::Globs;
use crate::base::principal::Principal;

/// Something that may be known of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Subject,
    Method,
    Issuer,
    Name,
    Metadata(String),
    /// Each scope of the token.
    Scope,
    /// A claim of the token: its own name, or the path to it.
    Claim(String),
}

/// What may be known of callers of all methods, as it is written.
pub(super) const OF_ALL: [&str; 5] = ["subject", "method", "issuer", "name", "metadata.KEY"];

impl Fact {
    /// Reads a name; whatever is not one of ours is a claim.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rest = |prefix| text.strip_prefix(prefix);
        Ok(match text {
            "" => return Err("a name must not be empty".to_owned()),
            "metadata." | "claims." => return Err(format!("`{text}` says not which one")),
            "subject" => Self::Subject,
            "method" => Self::Method,
            "issuer" => Self::Issuer,
            "name" => Self::Name,
            "scope" => Self::Scope,
            _ => match (rest("metadata."), rest("claims.")) {
                (Some(key), _) => Self::Metadata(key.to_owned()),
                (_, Some(claim)) => Self::Claim(claim.to_owned()),
                _ => Self::Claim(text.to_owned()),
            },
        })
    }

    /// Whether only a token can say it.
    pub(super) fn needs_token(&self) -> bool {
        matches!(self, Self::Scope | Self::Claim(_))
    }

    /// Whether it is known of the caller, and is one of these.
    pub(super) fn is(&self, principal: &Principal, globs: &Globs) -> bool {
        let text = |text: &str| !text.is_empty() && globs.matches(text);
        let token = principal.token.as_deref();
        match self {
            Self::Subject => text(&principal.subject),
            Self::Method => text(principal.method),
            Self::Issuer => text(&principal.issuer),
            Self::Name => text(&principal.name),
            Self::Metadata(key) => {
                principal.metadata.iter().any(|(name, value)| name == key && text(value))
            }
            Self::Scope => token.is_some_and(|token| token.scopes.iter().any(|s| text(s))),
            Self::Claim(path) => {
                let claim = token.and_then(|token| token.claim(path));
                claim.is_some_and(|value| holds(value, true, &text))
            }
        }
    }
}

/// A list holds what any of its elements is, but lists in it hold nothing.
fn holds(value: &Value, lists: bool, text: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(value) => text(value),
        Value::Bool(_) | Value::Number(_) => text(&value.to_string()),
        Value::Array(values) => lists && values.iter().any(|value| holds(value, false, text)),
        Value::Null | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::base::principal::Token;

    fn with_claims(claims: &Value) -> Principal {
        let token = Token {
            resource: "https://mcp.example.com".into(),
            scopes: vec!["mcp:read".into(), String::new()],
            claims: claims.as_object().unwrap().clone(),
            streams_until: None,
        };
        let known = Principal::new("oauth", "https://login.example.com", "ann");
        Principal { token: Some(Arc::new(token)), ..known }
    }

    fn is(principal: &Principal, name: &str, globs: &[&str]) -> bool {
        Fact::parse(name).unwrap().is(principal, &Globs::new(globs.iter().copied()))
    }

    #[test]
    fn every_method_has_its_facts() {
        let mut key = Principal::new("api_key", "", "ci");
        key.metadata = vec![("tenant".into(), "a".into()), ("empty".into(), String::new())];
        assert!(is(&key, "subject", &["c?"]) && is(&key, "method", &["api_key"]));
        assert!(is(&key, "name", &["ci"]) && is(&key, "metadata.tenant", &["b", "a"]));
        for unknown in [
            "issuer",
            "metadata.empty",
            "metadata.Tenant",
            "tenant",
            "scope",
            "groups",
            "claims.sub",
        ] {
            assert!(!is(&key, unknown, &["*"]), "{unknown}");
        }
        let nobody = Principal::anonymous();
        assert!(is(&nobody, "method", &["anonymous"]));
        assert!(!is(&nobody, "subject", &["*"]) && !is(&nobody, "name", &["*"]));
    }

    #[test]
    fn claims_by_name_and_by_path() {
        let ann = with_claims(&json!({
            "groups": ["dev", "finops", 7, ["nested"], {"deep": "x"}, null],
            "email_verified": true, "level": 3, "share": 0.5, "nothing": null, "object": {"a": {"b": "c"}},
            "realm_access": {"roles": ["r"]}, "realm_access.roles": ["exact"],
            "resource_access": {"my.client": {"roles": ["of my client"]}},
            "https://example.com/team": "blue", "subject": "claimed", "metadata": {"tenant": "claimed"},
            "claims": {"x": "inner"}, "text": {"length": 3}, "word": "w",
        }));
        for (name, value) in [
            ("groups", "finops"),
            ("groups", "7"),
            ("email_verified", "true"),
            ("level", "3"),
            ("share", "0.5"),
            ("object.a.b", "c"),
            ("realm_access.roles", "exact"),
            ("resource_access.my.client.roles", "of my client"),
            ("https://example.com/team", "blue"),
            ("subject", "ann"),
            ("claims.subject", "claimed"),
            ("claims.metadata.tenant", "claimed"),
            ("claims.claims.x", "inner"),
            ("issuer", "https://login.example.com"),
            ("scope", "mcp:read"),
        ] {
            assert!(is(&ann, name, &[value]), "{name}");
            assert!(!is(&ann, name, &["other"]), "{name}");
        }
        for (name, value) in [
            ("realm_access.roles", "r"),
            ("groups", "nested"),
            ("groups", "null"),
            ("groups.0", "dev"),
            ("nothing", "*"),
            ("object", "*"),
            ("object.a", "*"),
            ("object.a.b.c", "*"),
            ("word.length", "*"),
            ("Groups", "*"),
            ("missing", "*"),
            ("metadata.tenant", "*"),
            ("claims.x", "*"),
            ("scope", "mcp:read "),
        ] {
            assert!(!is(&ann, name, &[value]), "{name}");
        }
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for bad in ["", "metadata.", "claims."] {
            assert!(Fact::parse(bad).is_err(), "{bad}");
        }
    }
}
