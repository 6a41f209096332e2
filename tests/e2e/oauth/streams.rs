//! In: streams that were opened with a token; out: they end with it.

use serde_json::json;

use super::{bearer, claims_with, guarded, head, issuer, now, oauth};
use crate::support::backend::{Backend, Feed, Source, backend, feed};
use crate::support::client::{Client, get_events};
use crate::support::edge::Edge;
use crate::support::provider::{Provider, provider};
use crate::support::signer::Signer;

/// Seconds that the token of these tests lives: the edge must have seen the request by then.
const SOON: u64 = 3;
const FIRST: &str = "data: one\n\n";
/// SHA-256 of `key-one-0123456789`.
const KEY_SUM: &str = "0b20e07813282290c90adcf617955399bb5822b6d8589be3f6a488227e45e30e";

/// A stream that has begun.
struct Stage {
    edge: Edge,
    backend: Backend,
    feed: Feed,
    client: Client,
    token: String,
    #[allow(dead_code, reason = "removed with the stage")]
    provider: Provider,
}

/// A server with one page, and a stream of what the test has to tell.
fn telling(source: Source) -> Backend {
    backend(move |x| match x.request.target.as_str() {
        "/other" => x.json("{}"),
        _ => {
            x.sse(&[]);
            x.play(&source);
        }
    })
}

fn stage(grace: &str) -> Stage {
    let (signer, (feed, source)) = (Signer::ed25519(), feed());
    let provider = provider(&[signer.jwk("k")]);
    let backend = telling(source);
    let auth = oauth(&issuer(&provider, ", leeway: 0s"), &format!(", stream_grace: {grace}"));
    let edge = guarded(&backend, &auth, "").start();
    let soon = claims_with(&provider.issuer(), "exp", json!(now() + SOON));
    let token = signer.token(head("EdDSA"), soon);
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", &bearer(&token)));
    feed.push(FIRST);
    assert_eq!(client.start().status, 200);
    assert_eq!(client.chunks(FIRST.len()), FIRST.as_bytes());
    Stage { edge, backend, feed, client, token, provider }
}

fn end_of(edge: &Edge) -> serde_json::Value {
    edge.log("the end of the stream", |line| line["event"] == "stream_end")["end"].clone()
}

#[test]
fn a_stream_ends_between_two_events_when_its_token_has() {
    let mut s = stage("0s");
    assert_eq!(s.client.chunks(12), b"retry: 500\n\n");
    assert_eq!(s.client.chunk(), Some(Vec::new()), "ended as it should");
    assert_eq!(end_of(&s.edge), "auth.expired");
    s.backend.wait_closed(0);
}

#[test]
fn an_event_under_way_has_a_moment_and_no_more() {
    let mut s = stage("0s");
    s.feed.push("data: never ends\n");
    assert_eq!(s.client.chunks(17), b"data: never ends\n");
    assert_eq!(end_of(&s.edge), "auth.expired");
    assert_eq!(s.client.end(), b"", "no end of a chunked body");
}

#[test]
fn a_stream_may_be_let_live() {
    let mut s = stage("off");
    // others of the same token are refused by now
    let other = format!("GET /other HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer(&s.token));
    while s.edge.ask(&other).status == 200 {}
    s.feed.push("data: still here\n\n");
    assert_eq!(s.client.chunk().unwrap(), b"data: still here\n\n");
}

/// With both credentials needed, the token's own end does not hide that the key was taken away.
#[test]
fn a_stream_whose_token_has_expired_ends_when_its_key_is_removed() {
    let (signer, (feed, source)) = (Signer::ed25519(), feed());
    let provider = provider(&[signer.jwk("k")]);
    let backend = telling(source);
    let token = oauth(&issuer(&provider, ", leeway: 0s"), ", stream_grace: off");
    let config = |sum: &str| {
        let key = format!("{{ api_key: {{ keys: [ {{ name: ci, sha256: {sum} }} ] }} }}");
        guarded(&backend, &format!("{{ all: [ {token}, {key} ] }}"), "")
    };
    let edge = config(KEY_SUM).start();
    let shown =
        signer.token(head("EdDSA"), claims_with(&provider.issuer(), "exp", json!(now() + SOON)));
    let both = format!("{}X-API-Key: key-one-0123456789\r\n", bearer(&shown));
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", &both));
    feed.push(FIRST);
    assert_eq!(client.start().status, 200);
    assert_eq!(client.chunks(FIRST.len()), FIRST.as_bytes());
    let other = format!("GET /other HTTP/1.1\r\nHost: localhost\r\n{both}\r\n");
    while edge.ask(&other).status == 200 {}
    // the same words: the token's end alone ends nothing
    edge.take(&config(KEY_SUM));
    feed.push("data: still here\n\n");
    assert_eq!(client.chunk().unwrap(), b"data: still here\n\n");
    edge.take(&config(&"0".repeat(64)));
    let end = edge.log("the end of the stream", |line| line["event"] == "stream_end");
    assert_eq!(
        (end["end"].as_str(), end["detail"].as_str()),
        (Some("auth.revoked"), Some("auth.api_key.unknown"))
    );
}
