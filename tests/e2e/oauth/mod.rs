//! In: tokens of every kind and providers in every mood; out: who comes in, what callers are told, what
//! providers are asked, and what servers hear of it.

mod attacks;
mod challenges;
mod fields;
mod keys;
mod metadata;
mod opaque;
mod streams;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::client::Response;
use crate::support::edge::{Builder, Edge, edge};
use crate::support::provider::Provider;
use crate::support::signer::Signer;

/// What tokens are for.
const RESOURCE: &str = "https://mcp.example.com/x";
/// Where its metadata are.
const METADATA: &str = "https://mcp.example.com/.well-known/oauth-protected-resource/x";
/// A secret of 32 bytes, and where the edge has it from.
const SECRET: &str = "an hs256 secret of thirty-two by";

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a good token of this issuer claims.
fn claims(issuer: &str) -> Value {
    json!({ "iss": issuer, "aud": RESOURCE, "sub": "ann", "exp": now() + 600, "scope": "mcp:read" })
}

/// The same with another claim.
fn claims_with(issuer: &str, name: &str, value: Value) -> Value {
    let mut claims = claims(issuer);
    claims[name] = value;
    claims
}

/// The head of a good token.
fn head(algorithm: &str) -> Value {
    json!({ "alg": algorithm, "kid": "k", "typ": "at+jwt" })
}

/// A good token by Ed25519.
fn good(signer: &Signer, issuer: &str) -> String {
    signer.token(head("EdDSA"), claims(issuer))
}

/// The method with these issuers; `rest` begins with a comma or is empty.
fn oauth(issuers: &str, rest: &str) -> String {
    format!("{{ oauth: {{ resource: \"{RESOURCE}\", issuers: [ {issuers} ]{rest} }} }}")
}

/// An issuer with published keys; `rest` begins with a comma or is empty.
fn issuer(provider: &Provider, rest: &str) -> String {
    format!("{{ issuer: \"{}\", allow_http: true{rest} }}", provider.issuer())
}

/// An edge with one route to this backend; `auth` is the inside of the list.
fn guarded(backend: &Backend, auth: &str, rest: &str) -> Builder {
    edge()
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!("upstream: one, auth: [ {auth} ], {rest}"))
}

/// A request with these header lines.
fn with(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The answer to a request with this token.
fn shown(edge: &Edge, token: &str) -> Response {
    edge.ask(with(&bearer(token)))
}

/// Status and code of a refusal, or `200 ok`.
fn outcome(edge: &Edge, answer: &Response) -> String {
    if answer.status == 200 {
        return "200 ok".to_owned();
    }
    assert_eq!(answer.not_a_refusal(), None);
    format!("{} {}", answer.status, edge.log_of(answer)["code"].as_str().unwrap())
}

/// All challenges of an answer.
fn challenges(answer: &Response) -> Vec<&str> {
    let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("www-authenticate");
    answer.headers.iter().filter(named).map(|(_, value)| value.as_str()).collect()
}
