//! What a token's scopes allow (RFC 6749 §3.3): in, a principal and a tool; out, a challenge that names
//! every scope that the call needs, where one is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::challenge::Challenge;
use crate::base::denial::{Denial, Reason};
use crate::base::globs::Globs;
use crate::base::principal::{Principal, Token};
use crate::base::rules::Rule;
use crate::base::ruling::{Key, Ruling};
use http::header::WWW_AUTHENTICATE;

/// The scopes of one protected resource.
#[derive(Debug)]
pub(super) struct Scopes {
    /// Tokens that were shown to another resource are not judged here.
    pub(super) resource: String,
    /// What the whole route needs, in the challenge's `scopes`.
    pub(super) challenge: Challenge,
    /// What tools need besides; all that fit add up.
    pub(super) tools: Vec<(Globs, Vec<String>)>,
    /// Who has the left one has the right ones: all of them, see [`closed`]. Sorted, so that it reads the same
    /// after a reload.
    pub(super) includes: BTreeMap<String, BTreeSet<String>>,
    /// The method's line in the config.
    pub(super) line: usize,
}

/// What each scope includes, by however many steps; circles are no harm. Once, when the config is read.
pub(super) fn closed(includes: &[(String, Vec<String>)]) -> BTreeMap<String, BTreeSet<String>> {
    let next: HashMap<&str, &[String]> =
        includes.iter().map(|(left, right)| (left.as_str(), right.as_slice())).collect();
    let reach = |from: &str| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(scope) = left.pop() {
            for more in next.get(scope).copied().unwrap_or_default() {
                if seen.insert(more.clone()) {
                    left.push(more);
                }
            }
        }
        seen
    };
    includes.iter().map(|(from, _)| (from.clone(), reach(from))).collect()
}

impl Rule for Scopes {
    fn caller(&self, principal: &Principal) -> Result<Option<Ruling>, Denial> {
        match self.token(principal) {
            Some(token) => self.need(token, &self.challenge.scopes),
            None => Ok(None),
        }
    }

    fn tool(&self, principal: &Principal, tool: &str) -> Result<Option<Ruling>, Denial> {
        let Some(token) = self.token(principal) else { return Ok(None) };
        let mut needed = self.challenge.scopes.clone();
        for (_, scopes) in self.tools.iter().filter(|(glob, _)| glob.matches(tool)) {
            for scope in scopes {
                if !needed.contains(scope) {
                    needed.push(scope.clone());
                }
            }
        }
        self.need(token, &needed)
    }

    /// Who lacks a scope may come back with it, and must know what for.
    fn shows(&self, _: &Principal, _: &str) -> bool {
        true
    }

    fn says(&self) -> String {
        let Self { resource, challenge, tools, includes, .. } = self;
        format!("scopes {resource:?} {:?} {tools:?} {includes:?}", challenge.scopes)
    }

    fn has_tools(&self) -> bool {
        !self.tools.is_empty()
    }
}

impl Scopes {
    /// The token, where it was shown to this resource.
    fn token<'p>(&self, principal: &'p Principal) -> Option<&'p Token> {
        principal.token.as_deref().filter(|token| token.resource == self.resource)
    }

    fn need(&self, token: &Token, needed: &[String]) -> Result<Option<Ruling>, Denial> {
        let rule = Ruling::new(Key::OAuth, self.line);
        let Some(missing) = needed.iter().find(|scope| !self.has(token, scope)) else {
            return Ok(if needed.is_empty() { None } else { Some(rule) });
        };
        let message = "The token lacks a scope";
        let denial = Denial::new(Reason::Forbidden, "auth.oauth.scope", message);
        let denial = denial.detail(format!("`{missing}` is missing")).by(rule);
        Err(denial.field(WWW_AUTHENTICATE, self.challenge.scopes(needed)))
    }

    fn has(&self, token: &Token, scope: &str) -> bool {
        let gives = |had: &String| {
            had == scope || self.includes.get(had).is_some_and(|all| all.contains(scope))
        };
        token.scopes.iter().any(gives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn rule() -> Scopes {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let challenge = Challenge { scopes: words("read"), metadata_url: "https://m".into() };
        let tool = |glob: &str, scopes: &str| (Globs::new([glob]), words(scopes));
        Scopes {
            resource: "https://r".into(),
            challenge,
            tools: vec![tool("delete_*", "admin"), tool("*_user", "users read"), tool("x?", "x")],
            includes: closed(&[
                ("root".into(), words("admin users")),
                ("admin".into(), words("read")),
                ("a".into(), words("b")),
                ("b".into(), words("a")),
            ]),
            line: 7,
        }
    }

    fn who(scopes: &str, resource: &str) -> Principal {
        let token = Token {
            resource: resource.into(),
            scopes: scopes.split(' ').map(str::to_owned).collect(),
            claims: serde_json::Map::new(),
            streams_until: None,
        };
        Principal { token: Some(Arc::new(token)), ..Principal::new("oauth", "https://a", "ann") }
    }

    fn named(denial: &Denial) -> String {
        let (_, value) = denial.fields.first().unwrap();
        let text = value.to_str().unwrap();
        text.split("scope=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    #[test]
    fn all_that_fit_add_up() {
        let rule = rule();
        assert!(rule.caller(&who("read", "https://r")).is_ok());
        for scopes in ["", "Read", "reader", "write", "a", "users"] {
            let denial = rule.caller(&who(scopes, "https://r")).unwrap_err();
            assert_eq!((denial.reason, named(&denial)), (Reason::Forbidden, "read".to_owned()));
        }
        for (scopes, tool, expected) in [
            ("read", "get", None),
            ("read", "delete_it", Some("read admin")),
            ("read admin", "delete_it", None),
            ("admin", "delete_it", None),
            ("read admin", "delete_user", Some("read admin users")),
            ("read users", "delete_user", Some("read admin users")),
            ("root", "delete_user", None),
            ("users", "get_user", Some("read users")),
            ("read", "x1", Some("read x")),
            ("read", "x12", None),
            ("read", "Delete_it", None),
            ("a b", "get", Some("read")),
        ] {
            let asked = rule.tool(&who(scopes, "https://r"), tool);
            let by = asked.as_ref().map_or_else(|denial| denial.rule, |by| *by);
            assert_eq!(by, Some(Ruling::new(Key::OAuth, 7)), "{scopes} {tool}");
            assert_eq!(asked.err().as_ref().map(named).as_deref(), expected, "{scopes} {tool}");
        }
    }

    #[test]
    fn only_tokens_of_this_resource_are_judged() {
        let rule = rule();
        assert!(matches!(rule.tool(&who("", "https://other"), "delete_it"), Ok(None)));
        assert!(rule.caller(&Principal::new("basic", "", "ann")).is_ok());
        assert!(rule.has_tools() && !Scopes { tools: vec![], ..rule }.has_tools());
    }

    #[test]
    fn two_that_were_read_from_the_same_config_say_the_same() {
        let names: Vec<String> = (0..16).map(|n| format!("s{n}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.clone(), names.clone())).collect();
        let read = || Scopes { includes: closed(&all), ..rule() };
        assert_eq!(read().says(), read().says());
        assert_ne!(read().says(), rule().says());
    }

    #[test]
    fn many_circles_cost_nothing() {
        let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.clone(), names.clone())).collect();
        let rule = Scopes { includes: closed(&all), ..rule() };
        assert!(rule.caller(&who("s7", "https://r")).is_err());
    }
}
