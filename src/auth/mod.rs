//! Who is it? In: a head and a client; out: a `Principal` or a `Denial`.
//!
//! A method is one folder and one line in [`METHODS`]. A route's methods run in the order of its
//! config; the first that finds a credential of its own shape decides, refusal included. Methods
//! tell their credentials apart by shape (a scheme, a prefix), so that which of them decides never
//! depends on what another would have said; a config in which two could take the same one is refused.

mod all;
mod anonymous;
pub mod api_key;
pub mod basic;
mod client_certificate;
pub mod compile;
pub mod oauth;

use std::sync::Arc;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};

use crate::base::caller::{Authenticate, Chain, Client, Verdict};
use crate::base::compile::{Cx, Node};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::principal::Principal;

/// Every method that a route's `auth` list may name.
pub const METHODS: &[Method] = &[
    anonymous::METHOD,
    basic::METHOD,
    api_key::METHOD,
    client_certificate::METHOD,
    oauth::METHOD,
    all::METHOD,
];

/// A method's entry in the table.
pub struct Method {
    /// As configs write it.
    pub name: &'static str,
    /// Makes the method from what stands below its name (`None` when written as a bare word).
    pub compile: Compile,
}

/// Makes a method from its settings; what is wrong is noted in the context.
pub type Compile = fn(Option<&Node>, &mut Cx) -> Option<Arc<dyn Authenticate>>;

/// Runs a route's methods in order.
///
/// # Errors
/// 400 for a credential that stands twice, 401 with every method's challenge when no method found a
/// credential, or the refusal of the one that did.
pub async fn authenticate(
    chain: &Chain,
    head: &Head,
    client: &Client,
) -> Result<Arc<Principal>, Denial> {
    check_single(chain, head)?;
    for method in &chain.methods {
        let verdict = match method.authenticate(head, client) {
            Verdict::Absent => continue,
            Verdict::Known(principal) => return Ok(principal),
            Verdict::Refused(denial) => Err(denial),
            Verdict::Later(verdict) => verdict.await,
        };
        return verdict.map_err(|denial| challenged(denial, chain));
    }
    let none = || Denial::new(Reason::Unauthenticated, "auth.none", "Authentication is required");
    let denial = oauth::nobodys(chain, head).unwrap_or_else(none);
    Err(challenged(denial, chain))
}

/// Runs them for who was let in before and has a stream open.
///
/// # Errors
/// Those of [`authenticate`]; 401, too, where the credential stands for somebody else now. Only what [`decides`] ends
/// the stream.
pub async fn again(
    chain: &Chain,
    head: &Head,
    client: &Client,
    before: &Principal,
) -> Result<Arc<Principal>, Denial> {
    check_single(chain, head)?;
    for method in &chain.methods {
        let principal = match method.again(head, client, before) {
            Verdict::Absent => continue,
            Verdict::Known(principal) => principal,
            Verdict::Refused(denial) => return Err(denial),
            Verdict::Later(verdict) => verdict.await?,
        };
        if principal.to_bytes() != before.to_bytes() {
            return Err(other());
        }
        return Ok(principal);
    }
    Err(Denial::new(Reason::Unauthenticated, "auth.none", "Authentication is required"))
}

/// Whether a refusal by [`again`] says that the caller is not who it was, and not that nobody knows. A token's own
/// end is not the edge's word: its streams have a time of their own (`stream_grace`).
pub fn decides(denial: &Denial) -> bool {
    use Reason::{Forbidden, Malformed, Unauthenticated};
    let of_caller = matches!(denial.reason, Unauthenticated | Forbidden | Malformed);
    of_caller && denial.code != oauth::EXPIRED
}

/// A credential that has changed hands.
fn other() -> Denial {
    Denial::new(Reason::Unauthenticated, "auth.other", "The credential is somebody else's now")
}

/// Which of two credentials counts must not depend on who reads them (RFC 9110 §5.3: neither
/// `Authorization` nor a key is a list).
fn check_single(chain: &Chain, head: &Head) -> Result<(), Denial> {
    for name in &chain.headers {
        if head.headers.get_all(name).iter().nth(1).is_some() {
            let doubled = "A credential must stand once";
            return Err(Denial::new(Reason::Malformed, "auth.doubled", doubled));
        }
    }
    Ok(())
}

/// A 401 names every way in (RFC 9110 §15.5.2). Of `Bearer`, clients read the first challenge alone: one
/// that says what is wrong stands in for the one that does not.
fn challenged(mut denial: Denial, chain: &Chain) -> Denial {
    if denial.reason == Reason::Unauthenticated {
        let said = denial.fields.iter().any(|(name, value)| is_bearer(name, value));
        let others = chain.challenges.iter().filter(|c| !(said && is_bearer(&WWW_AUTHENTICATE, c)));
        let others: Vec<_> = others.map(|c| (WWW_AUTHENTICATE, c.clone())).collect();
        denial.fields.extend(others);
    }
    denial
}

fn is_bearer(name: &HeaderName, value: &HeaderValue) -> bool {
    *name == WWW_AUTHENTICATE && value.as_bytes().starts_with(b"Bearer")
}

/// What stands behind a scheme (in lower case) in `Authorization` (RFC 9110 §11.4); `None` where
/// the scheme is another or there is no such field.
fn authorization<'h>(head: &'h Head, scheme: &str) -> Option<&'h [u8]> {
    let value = head.headers.get(AUTHORIZATION)?.as_bytes();
    let (found, rest) = value.split_at_checked(scheme.len())?;
    if !found.eq_ignore_ascii_case(scheme.as_bytes()) {
        return None;
    }
    match rest.first() {
        None | Some(b' ' | b'\t') => Some(rest.trim_ascii()),
        Some(_) => None,
    }
}

/// A quoted-string (RFC 9110 §5.6.4) of visible ASCII and spaces.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The text of a realm: visible ASCII and spaces, 1 to 128 of them.
fn realm(node: &Node, cx: &mut Cx) -> Option<String> {
    cx.parse(node, "a text of visible ASCII", |text| {
        let visible = text.bytes().all(|b| matches!(b, b' '..=b'~'));
        match text.len() {
            1..=128 if visible => Ok(text.to_owned()),
            _ => Err("a realm has 1 to 128 characters of visible ASCII".to_owned()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::head::Version;

    pub(super) fn head(fields: &[(&str, &str)]) -> Head {
        let mut headers = http::HeaderMap::new();
        for (name, value) in fields {
            let name = http::HeaderName::try_from(*name).unwrap();
            headers.append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Head {
            method: http::Method::POST,
            path: "/mcp".into(),
            query: None,
            authority: "localhost".into(),
            headers,
            version: Version::H11,
            websocket: false,
        }
    }

    #[test]
    fn schemes_are_told_apart() {
        let found = |value: &str| {
            let head = head(&[("authorization", value)]);
            authorization(&head, "basic").map(|v| String::from_utf8_lossy(v).into_owned())
        };
        assert_eq!(found("Basic abc").as_deref(), Some("abc"));
        assert_eq!(found("bAsIc   abc").as_deref(), Some("abc"));
        assert_eq!(found("Basic").as_deref(), Some(""));
        assert_eq!(found("Basic ").as_deref(), Some(""));
        assert_eq!(found("Basicabc"), None);
        assert_eq!(found("Bearer abc"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn realms_are_quoted() {
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }
}
