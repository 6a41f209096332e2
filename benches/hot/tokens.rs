//! Access tokens, each piece by itself: in, keys that are made here; out, a token verified for the first
//! time by each kind of key, and the same token found in the cache as a whole request finds it.

use std::future::Future;
use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mcp_edge::auth::authenticate;
use mcp_edge::auth::oauth::jwks::KeySet;
use mcp_edge::auth::oauth::token;
use mcp_edge::base::caller::Client;
use mcp_edge::config::{Mode, load_text};
use mcp_edge::listen::h1::head as request;
use serde_json::{Value, json};
use signer::{Signer, hs256};

use super::Piece;

#[path = "../../tests/e2e/support/signer.rs"]
mod signer;

const SECRET: &str = "a secret of at least thirty-two bytes";
const RESOURCE: &str = "https://mcp.example.com/mcp";

/// All of them.
pub(super) fn pieces() -> Vec<Piece> {
    vec![
        cold("token verified, RS256", &Signer::rsa(), "RS256"),
        cold("token verified, ES256", &Signer::p256(), "ES256"),
        cold("token verified, EdDSA", &Signer::ed25519(), "EdDSA"),
        authenticated("authenticate, anonymous", "anonymous"),
        authenticated("authenticate, token in the cache", &oauth()),
    ]
}

/// Claims as providers write them: about 700 bytes, the token 1 KiB.
fn claims() -> Value {
    json!({
        "iss": "internal", "aud": [RESOURCE], "sub": "6f1c9d1e-7b1a-4f3e-9d59-000000000001",
        "exp": 4_102_444_800u64, "iat": 1_795_233_600u64, "nbf": 1_795_233_600u64,
        "jti": "b9f6f0a1-7a52-4a46-9b7a-8d8c1d9d8f10", "client_id": "https://client.example.com/oauth/metadata.json",
        "scope": "openid profile email mcp:read mcp:write", "preferred_username": "ann",
        "email": "ann@example.com", "groups": ["engineering", "finops", "oncall", "reviewers"],
        "realm_access": { "roles": ["offline_access", "uma_authorization", "default-roles-example"] },
        "tenant": "x".repeat(200),
    })
}

/// Head, signature and claims of a token that nobody has seen before, by a key that is at hand.
fn cold(name: &'static str, signer: &Signer, algorithm: &str) -> Piece {
    let document = json!({ "keys": [signer.jwk("k")] }).to_string();
    let keys = KeySet::parse(document.as_bytes()).unwrap();
    let text = signer.token(json!({ "alg": algorithm, "kid": "k", "typ": "at+jwt" }), claims());
    let once = move || {
        let token = token::read(black_box(&text)).unwrap();
        assert_eq!(keys.verify(&token.head, token.message, token.signature), Some(Ok(())));
    };
    (name, Box::new(once))
}

fn oauth() -> String {
    let issuer = "{ issuer: internal, secret: \"${env:SECRET}\" }";
    format!("{{ oauth: {{ resource: \"{RESOURCE}\", issuers: [ {issuer} ] }} }}")
}

/// What a request with a token goes through, whether the route asks for one or not.
fn authenticated(name: &'static str, method: &str) -> Piece {
    let text = format!(
        "listeners: [ {{ address: \"127.0.0.1:8080\" }} ]\nsessions: {{ keys: [ \"{SECRET}\" ] }}\n\
         routes: [ {{ upstream: \"http://127.0.0.1:8000\", auth: [ {method} ] }} ]\n"
    );
    let settings = load_text(&text, Path::new("/"), &|_| Some(SECRET.to_owned()), Mode::Run)
        .unwrap_or_else(|all| panic!("{all:?}"));
    let chain = settings.routes[0].auth.clone();
    let shown = hs256(SECRET.as_bytes(), json!({ "alg": "HS256", "typ": "at+jwt" }), claims());
    let bytes =
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {shown}\r\n\r\n");
    let head = request::parse(&bytes.into()).unwrap().head;
    let client = Client {
        address: "127.0.0.1".parse().unwrap(),
        tls: false,
        certificate: None,
        hidden: false,
    };
    let once = move || {
        let asked = pin!(authenticate(&chain, black_box(&head), &client));
        match asked.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(principal)) => drop(black_box(principal)),
            other => panic!("{other:?}"),
        }
    };
    (name, Box::new(once))
}
