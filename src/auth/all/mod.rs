//! `all: [ … ]`: several credentials at once. In, a request; out, the caller that the first method of the list
//! names, where every method admits it.
//!
//! A certificate is there on every request of a connection, asked for or not. So `all` decides when
//! a credential that was sent with the request is one of its own, or when every one of them is there;
//! a certificate alone leaves the request to the methods behind it.

use std::sync::Arc;

use http::HeaderValue;

use super::{Method, anonymous, compile as list};
use crate::base::caller::{Authenticate, Client, Resource, Shape, Verdict};
use crate::base::compile::{Cx, Node};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::principal::Principal;
use crate::base::rules::Rule;

/// Its name in configs.
const NAME: &str = "all";
/// The table line.
pub(super) const METHOD: Method = Method { name: NAME, compile };

#[derive(Debug)]
struct All {
    methods: Vec<Arc<dyn Authenticate>>,
}

fn compile(node: Option<&Node>, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    let node = node?;
    let methods = list::methods(node, cx)?;
    if let Some(wrong) = methods.iter().find(|m| [NAME, anonymous::NAME].contains(&m.name())) {
        cx.error(node, format!("`{}` cannot be one of `all`", wrong.name()));
    }
    if methods.len() < 2 {
        cx.error(node, "`all` is for several methods: here is only one");
    }
    let shapes: Vec<Shape> = methods.iter().flat_map(|m| m.shapes()).collect();
    for (i, shape) in shapes.iter().enumerate() {
        if shapes.iter().skip(i + 1).any(|other| other.header == shape.header) {
            let name = &shape.header;
            cx.error(node, format!("two of these need `{name}`, which can stand only once"));
        }
    }
    Some(Arc::new(All { methods }))
}

impl Authenticate for All {
    fn name(&self) -> &'static str {
        NAME
    }

    fn described(&self) -> String {
        let methods: Vec<String> = self.methods.iter().map(|m| m.described()).collect();
        format!("all of {}", methods.join(", "))
    }

    fn shapes(&self) -> Vec<Shape> {
        self.methods.iter().flat_map(|m| m.shapes()).collect()
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        self.methods.iter().flat_map(|m| m.challenges()).collect()
    }

    fn needs_certificate(&self) -> bool {
        self.methods.iter().any(|m| m.needs_certificate())
    }

    /// There is one at most: two methods that take tokens would need the same header.
    fn rule(&self) -> Option<Arc<dyn Rule>> {
        self.methods.iter().find_map(|m| m.rule())
    }

    fn protects(&self) -> Option<Arc<Resource>> {
        self.methods.iter().find_map(|m| m.protects())
    }

    fn authenticate<'a>(&'a self, head: &'a Head, client: &'a Client) -> Verdict<'a> {
        self.ask(|method| method.authenticate(head, client))
    }

    fn again<'a>(
        &'a self,
        head: &'a Head,
        client: &'a Client,
        before: &'a Principal,
    ) -> Verdict<'a> {
        self.ask(|method| method.again(head, client, before))
    }
}

impl All {
    fn ask<'a>(
        &'a self,
        mut each: impl FnMut(&'a Arc<dyn Authenticate>) -> Verdict<'a>,
    ) -> Verdict<'a> {
        let mut verdicts = Vec::with_capacity(self.methods.len());
        let (mut sent, mut missing) = (false, false);
        for method in &self.methods {
            let verdict = each(method);
            let absent = matches!(verdict, Verdict::Absent);
            missing |= absent;
            sent |= !absent && !method.shapes().is_empty();
            verdicts.push(verdict);
        }
        match (sent, missing) {
            (false, true) => Verdict::Absent,
            (true, true) => {
                let several = "Several credentials are required";
                Verdict::Refused(Denial::new(Reason::Unauthenticated, "auth.all.missing", several))
            }
            (_, false) => settle(verdicts),
        }
    }
}

/// Cheap verdicts first: nothing slow is begun for a caller who is refused anyway.
fn settle(mut verdicts: Vec<Verdict<'_>>) -> Verdict<'_> {
    if let Some(at) = verdicts.iter().position(|v| matches!(v, Verdict::Refused(_))) {
        return verdicts.swap_remove(at);
    }
    let known = |verdict: &Verdict<'_>| match verdict {
        Verdict::Known(principal) => Some(principal.clone()),
        _ => None,
    };
    match verdicts.iter().map(known).collect::<Option<Vec<_>>>() {
        Some(principals) => joined(principals).map_or_else(Verdict::Refused, Verdict::Known),
        None => Verdict::Later(Box::pin(wait(verdicts))),
    }
}

async fn wait(verdicts: Vec<Verdict<'_>>) -> Result<Arc<Principal>, Denial> {
    let mut principals = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        principals.push(match verdict {
            Verdict::Known(principal) => principal,
            Verdict::Later(verdict) => verdict.await?,
            Verdict::Refused(denial) => return Err(denial),
            Verdict::Absent => return Err(nobody()),
        });
    }
    joined(principals)
}

/// The first of them, with whatever token and proof one of them has: scopes and claims are asked of the one,
/// and streams by the other whether they may go on. It ends with the first of all.
fn joined(principals: Vec<Arc<Principal>>) -> Result<Arc<Principal>, Denial> {
    let token = principals.iter().find_map(|principal| principal.token.clone());
    let proof = principals.iter().find_map(|principal| principal.proof);
    let until = principals.iter().filter_map(|principal| principal.until).min();
    let first = principals.into_iter().next().ok_or_else(nobody)?;
    let token_too = first.token.is_some() || token.is_none();
    if token_too && first.proof == proof && first.until == until {
        return Ok(first);
    }
    Ok(Arc::new(Principal { token, proof, until, ..(*first).clone() }))
}

fn nobody() -> Denial {
    Denial::new(Reason::Unauthenticated, "auth.all.missing", "Several credentials are required")
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;
    use crate::base::principal::Token;
    use crate::base::rules::Rule;

    /// Lets everybody in, with a token or without, at once or later.
    #[derive(Debug)]
    struct Open {
        token: bool,
        later: bool,
    }

    impl Rule for Open {
        fn tool(&self, _: &Principal, _: &str) -> Result<(), Denial> {
            Err(nobody())
        }

        fn says(&self) -> String {
            String::new()
        }
    }

    impl Authenticate for Open {
        fn name(&self) -> &'static str {
            if self.token { "with" } else { "without" }
        }

        fn shapes(&self) -> Vec<Shape> {
            let header = http::header::AUTHORIZATION;
            vec![Shape { header, scheme: None, prefix: String::new() }]
        }

        fn rule(&self) -> Option<Arc<dyn Rule>> {
            self.token.then(|| Arc::new(Self { ..*self }) as _)
        }

        fn authenticate<'a>(&'a self, _: &'a Head, _: &'a Client) -> Verdict<'a> {
            let mut principal = Principal::new(self.name(), "", self.name());
            principal.token = self.token.then(|| {
                let (resource, scopes) = (String::new(), vec!["read".to_owned()]);
                let claims = serde_json::Map::new();
                Arc::new(Token { resource, scopes, claims, streams_until: None })
            });
            let principal = Arc::new(principal);
            if self.later {
                return Verdict::Later(Box::pin(async { Ok(principal) }));
            }
            Verdict::Known(principal)
        }
    }

    fn all(tokens: [bool; 2], later: bool) -> All {
        let method = |token| Arc::new(Open { token, later }) as Arc<dyn Authenticate>;
        All { methods: tokens.map(method).to_vec() }
    }

    #[test]
    fn it_ends_with_the_first_of_its_credentials() {
        use std::time::{Duration, SystemTime};
        let at = |n: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(n));
        let who = |until| Arc::new(Principal { until, ..Principal::new(NAME, "", "ann") });
        for (first, second, until) in
            [(None, None, None), (at(2), at(1), at(1)), (None, at(1), at(1)), (at(1), None, at(1))]
        {
            let joined = joined(vec![who(first), who(second)]).unwrap();
            assert_eq!(joined.until, until);
        }
    }

    #[test]
    fn the_rules_of_its_methods_are_not_lost() {
        assert!(all([false, true], false).rule().is_some());
        assert!(all([false, false], false).rule().is_none());
    }

    #[test]
    fn the_first_says_who_it_is_and_the_token_is_not_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client = Client {
            address: "127.0.0.1".parse().unwrap(),
            tls: true,
            certificate: None,
            hidden: false,
        };
        for later in [false, true] {
            for (tokens, name, token) in [
                ([false, true], "without", true),
                ([true, false], "with", true),
                ([false, false], "without", false),
            ] {
                let (all, head) = (all(tokens, later), head(&[]));
                let principal = match all.authenticate(&head, &client) {
                    Verdict::Known(principal) => principal,
                    Verdict::Later(verdict) => runtime.block_on(verdict).unwrap(),
                    _ => panic!("it lets everybody in"),
                };
                assert_eq!((principal.method, principal.token.is_some()), (name, token));
            }
        }
    }
}
