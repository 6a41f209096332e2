//! `all: [ … ]`: several credentials at once. In, a request; out, the caller that the first method of the list
//! names, where every method admits it.
//!
//! A certificate is there on every request of a connection, asked for or not. So `all` decides when
//! a credential that was sent with the request is one of its own, or when every one of them is there;
//! a certificate alone leaves the request to the methods behind it.

use std::sync::Arc;

use http::HeaderValue;

use super::{Method, anonymous, compile as list, decides, other};
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
        self.ask(|method| method.authenticate(head, client)).map_or_else(|verdict| verdict, settle)
    }

    fn again<'a>(
        &'a self,
        head: &'a Head,
        client: &'a Client,
        before: &'a Principal,
    ) -> Verdict<'a> {
        let verdicts = self.ask(|method| method.again(head, client, before));
        verdicts.map_or_else(|verdict| verdict, |verdicts| settle_again(verdicts, before))
    }
}

impl All {
    /// What each method says; or the verdict, where one has nothing to look at.
    fn ask<'a>(
        &'a self,
        mut each: impl FnMut(&'a Arc<dyn Authenticate>) -> Verdict<'a>,
    ) -> Result<Vec<Verdict<'a>>, Verdict<'a>> {
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
            (false, true) => Err(Verdict::Absent),
            (true, true) => Err(Verdict::Refused(nobody())),
            (_, false) => Ok(verdicts),
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

/// The same for who has a stream open: a refusal that ends it goes before those that do not, whichever comes first.
/// Or the end of a token, whose streams go on for a while, would hide that another credential was taken away.
fn settle_again<'a>(mut verdicts: Vec<Verdict<'a>>, before: &'a Principal) -> Verdict<'a> {
    let ends =
        |verdict: &Verdict<'_>| matches!(verdict, Verdict::Refused(denial) if decides(denial));
    if let Some(at) = verdicts.iter().position(ends) {
        return verdicts.swap_remove(at);
    }
    if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Later(_))) {
        return Verdict::Later(Box::pin(wait_again(verdicts, before)));
    }
    weigh(verdicts.into_iter().map(at_once), before).map_or_else(Verdict::Refused, Verdict::Known)
}

/// What is there already; of what is still to come, that nobody knows.
fn at_once(verdict: Verdict<'_>) -> Result<Arc<Principal>, Denial> {
    match verdict {
        Verdict::Known(principal) => Ok(principal),
        Verdict::Refused(denial) => Err(denial),
        Verdict::Absent | Verdict::Later(_) => Err(nobody()),
    }
}

async fn wait_again(
    verdicts: Vec<Verdict<'_>>,
    before: &Principal,
) -> Result<Arc<Principal>, Denial> {
    let mut found = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        let result = match verdict {
            Verdict::Later(verdict) => verdict.await,
            there => at_once(there),
        };
        match result {
            Err(denial) if decides(&denial) => return Err(denial),
            result => found.push(result),
        }
    }
    weigh(found.into_iter(), before)
}

/// Of refusals none of which ends a stream, the first; but somebody else's credential ends it.
fn weigh(
    mut found: impl Iterator<Item = Result<Arc<Principal>, Denial>>,
    before: &Principal,
) -> Result<Arc<Principal>, Denial> {
    let first = found.next();
    if let Some(Ok(principal)) = &first
        && principal.to_bytes() != before.to_bytes()
    {
        return Err(other());
    }
    first.into_iter().chain(found).collect::<Result<Vec<_>, _>>().and_then(joined)
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
    use crate::base::ruling::Ruling;

    /// Lets everybody in, with a token or without, at once or later.
    #[derive(Debug)]
    struct Open {
        token: bool,
        later: bool,
    }

    impl Rule for Open {
        fn tool(&self, _: &Principal, _: &str) -> Result<Option<Ruling>, Denial> {
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

    /// What became of a credential that a stream began with.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Now {
        Ann,
        Bob,
        Expired,
        /// Its provider does not answer.
        Unknown,
        Removed,
    }

    impl Now {
        fn result(self) -> Result<Arc<Principal>, Denial> {
            let refused = |reason, code| Err(Denial::new(reason, code, ""));
            match self {
                Self::Ann => Ok(Arc::new(Principal::new("oauth", "", "ann"))),
                Self::Bob => Ok(Arc::new(Principal::new("oauth", "", "bob"))),
                Self::Expired => refused(Reason::Unauthenticated, super::super::oauth::EXPIRED),
                Self::Unknown => refused(Reason::Busy, "auth.oauth.unavailable"),
                Self::Removed => refused(Reason::Unauthenticated, "auth.api_key.unknown"),
            }
        }

        fn verdict<'a>(self, later: bool) -> Verdict<'a> {
            match self.result() {
                result if later => Verdict::Later(Box::pin(async { result })),
                Ok(principal) => Verdict::Known(principal),
                Err(denial) => Verdict::Refused(denial),
            }
        }
    }

    #[test]
    fn for_who_has_a_stream_the_end_of_one_credential_hides_not_that_of_another() {
        use Now::{Ann, Bob, Expired, Removed, Unknown};
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let before = Principal::new("oauth", "", "ann");
        for (both, found) in [
            ([Expired, Removed], "auth.api_key.unknown"),
            ([Unknown, Removed], "auth.api_key.unknown"),
            ([Removed, Expired], "auth.api_key.unknown"),
            ([Bob, Expired], "auth.other"),
            ([Bob, Ann], "auth.other"),
            ([Expired, Ann], super::super::oauth::EXPIRED),
            ([Ann, Unknown], "auth.oauth.unavailable"),
            ([Ann, Ann], "ann"),
        ] {
            for later in [[false, false], [true, false], [false, true], [true, true]] {
                let [one, other] = [0, 1].map(|n| both[n].verdict(later[n]));
                let result = match settle_again(vec![one, other], &before) {
                    Verdict::Known(principal) => Ok(principal),
                    Verdict::Refused(denial) => Err(denial),
                    Verdict::Later(verdict) => runtime.block_on(verdict),
                    Verdict::Absent => panic!("{both:?}: they are there"),
                };
                let result =
                    result.map_or_else(|denial| denial.code.to_owned(), |p| p.subject.clone());
                assert_eq!(result, found, "{both:?}, later: {later:?}");
            }
        }
    }

    #[test]
    fn a_removal_that_is_known_is_told_before_a_provider_is_waited_for() {
        let before = Principal::new("oauth", "", "ann");
        let never = Verdict::Later(Box::pin(std::future::pending()));
        let verdict = settle_again(vec![never, Now::Removed.verdict(false)], &before);
        assert!(
            matches!(verdict, Verdict::Refused(denial) if denial.code == "auth.api_key.unknown")
        );
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
