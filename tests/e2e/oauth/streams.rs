//! Streams and tunnels that were opened with a token end with it.

use serde_json::json;

use super::{bearer, claims_with, guarded, head, issuer, now, oauth};
use crate::support::backend::{backend, feed};
use crate::support::client::get_events;
use crate::support::provider::provider;
use crate::support::signer::Signer;

/// Seconds that the token of these tests lives: the edge must have seen the request by then.
const SOON: u64 = 3;

#[test]
fn a_stream_ends_between_two_events_when_its_token_has() {
    let (signer, (feed, source)) = (Signer::ed25519(), feed());
    let provider = provider(&[signer.jwk("k")]);
    let backend = backend(move |x| {
        x.sse(&[]);
        x.play(&source);
    });
    let auth = oauth(&issuer(&provider, ", leeway: 0s"), ", stream_grace: 0s");
    let edge = guarded(&backend, &auth, "").start();
    let soon = claims_with(&provider.issuer(), "exp", json!(now() + SOON));
    let token = signer.token(head("EdDSA"), soon);
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", &bearer(&token)));
    feed.push("data: one\n\n");
    assert_eq!(client.start().status, 200);
    assert_eq!(client.chunks(23), b"data: one\n\nretry: 500\n\n");
    assert_eq!(client.chunk(), Some(Vec::new()), "ended as it should");
    let ended = edge.log("the end of the stream", |line| line["event"] == "stream_end");
    assert_eq!(ended["end"], "auth.expired");
    backend.wait_closed(0);
}

#[test]
fn an_event_under_way_has_a_moment_and_no_more() {
    let (signer, (feed, source)) = (Signer::ed25519(), feed());
    let provider = provider(&[signer.jwk("k")]);
    let backend = backend(move |x| {
        x.sse(&[]);
        x.play(&source);
    });
    let auth = oauth(&issuer(&provider, ", leeway: 0s"), ", stream_grace: 0s");
    let edge = guarded(&backend, &auth, "").start();
    let soon = claims_with(&provider.issuer(), "exp", json!(now() + SOON));
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", &bearer(&signer.token(head("EdDSA"), soon))));
    feed.push("data: one\n\ndata: never ends\n");
    assert_eq!(client.start().status, 200);
    assert_eq!(client.chunks(28), b"data: one\n\ndata: never ends\n");
    let ended = edge.log("the end of the stream", |line| line["event"] == "stream_end");
    assert_eq!(ended["end"], "auth.expired");
    assert_eq!(client.end(), b"", "no end of a chunked body");
}

#[test]
fn a_stream_may_be_let_live() {
    let (signer, (feed, source)) = (Signer::ed25519(), feed());
    let provider = provider(&[signer.jwk("k")]);
    let backend = backend(move |x| match x.request.target.as_str() {
        "/other" => x.json("{}"),
        _ => {
            x.sse(&[]);
            x.play(&source);
        }
    });
    let auth = oauth(&issuer(&provider, ", leeway: 0s"), ", stream_grace: off");
    let edge = guarded(&backend, &auth, "").start();
    let soon = claims_with(&provider.issuer(), "exp", json!(now() + SOON));
    let token = signer.token(head("EdDSA"), soon);
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", &bearer(&token)));
    feed.push("data: one\n\n");
    assert_eq!(client.start().status, 200);
    assert_eq!(client.chunk().unwrap(), b"data: one\n\n");
    // others of the same token are refused by now
    let other = format!("GET /other HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer(&token));
    while edge.ask(&other).status == 200 {}
    feed.push("data: still here\n\n");
    assert_eq!(client.chunk().unwrap(), b"data: still here\n\n");
}
