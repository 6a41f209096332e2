//! In: providers that are down, slow, or have other keys than before; out: what they are asked, and what
//! callers see.

use serde_json::{Value, json};

use super::{
    bearer, claims, claims_with, good, guarded, head, issuer, oauth, outcome, shown, with,
};
use crate::support::backend::plain;
use crate::support::edge::Edge;
use crate::support::provider::{Mood, Provider, provider};
use crate::support::signer::Signer;

const METADATA: &str = "/.well-known/oauth-authorization-server";
const OK: &str = "200 ok";
const DOWN: &str = "503 auth.oauth.provider";

fn see(edge: &Edge, token: &str) -> String {
    outcome(edge, &shown(edge, token))
}

/// Questions so far: for metadata and for keys.
fn calls(provider: &Provider) -> (usize, usize) {
    (provider.calls(METADATA), provider.calls("/keys"))
}

fn named(kid: &str) -> Value {
    json!({ "alg": "EdDSA", "kid": kid })
}

#[test]
fn keys_are_there_before_the_first_caller_and_one_question_is_enough() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let edge = guarded(&backend, &oauth(&issuer(&provider, ""), ""), "").start();
    provider.wait_calls("/keys", 1);
    for n in 0..20 {
        let mut claims = claims(&provider.issuer());
        claims["jti"] = json!(n);
        assert_eq!(see(&edge, &signer.token(head("EdDSA"), &claims)), OK);
        assert_eq!(see(&edge, &signer.token(head("EdDSA"), &claims)), OK);
    }
    assert_eq!(calls(&provider), (1, 1));
    assert_eq!(provider.requests("/keys")[0].header("authorization"), None);
}

#[test]
fn made_up_keys_do_not_hammer_the_provider() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let edge = guarded(&backend, &oauth(&issuer(&provider, ""), ""), "").start();
    provider.wait_calls("/keys", 1);
    let started = std::time::Instant::now();
    let iss = provider.issuer();
    for n in 0..300 {
        let token = signer.token(named(&format!("made-up-{n}")), claims(&iss));
        assert_eq!(see(&edge, &token), "401 auth.oauth.key");
        if n % 50 == 0 {
            assert_eq!(see(&edge, &good(&signer, &iss)), OK, "others go on");
        }
    }
    // one at the start, and one in ten seconds for whoever asks
    let allowed = 2 + usize::try_from(started.elapsed().as_secs() / 10).unwrap();
    assert!(provider.calls("/keys") <= allowed, "{:?} of {allowed}", calls(&provider));
    // what would be refused anyway is no reason to ask
    let before = calls(&provider);
    let expired = claims_with(&iss, "exp", json!(1));
    assert_eq!(see(&edge, &signer.token(named("made-up"), &expired)), "401 auth.oauth.expired");
    assert_eq!(calls(&provider), before);
}

#[test]
fn while_a_provider_is_down_nobody_is_told_that_a_token_is_bad() {
    let (signer, backend) = (Signer::ed25519(), plain());
    for mood in [
        Mood::Says("500 Internal Server Error", "{}".into()),
        Mood::Says("200 OK", "<html>".into()),
        Mood::Says(
            "200 OK",
            r#"{"issuer":"https://evil.example.com","jwks_uri":"https://evil.example.com"}"#.into(),
        ),
        Mood::Says("302 Found", String::new()),
        Mood::Says("200 OK", format!("{{\"x\":\"{}\"}}", "x".repeat(300_000))),
        Mood::HangsUp,
    ] {
        let provider = provider(&[signer.jwk("k")]);
        provider.set_mood(mood);
        let edge = guarded(&backend, &oauth(&issuer(&provider, ""), ""), "").start();
        for _ in 0..5 {
            let answer = shown(&edge, &good(&signer, &provider.issuer()));
            assert_eq!(outcome(&edge, &answer), DOWN);
            assert_eq!(answer.header("retry-after"), Some("10"));
            assert_eq!(answer.header("www-authenticate"), None);
        }
        assert!(provider.calls(METADATA) <= 2, "{:?}", calls(&provider));
        let told = edge.stderr().iter().filter(|line| line.contains("keys of")).count();
        assert_eq!(told, 1, "{:?}", edge.stderr());
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn callers_wait_for_a_slow_provider_and_for_one_question() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    provider.set_mood(Mood::Waits);
    let edge = guarded(&backend, &oauth(&issuer(&provider, ""), ""), "").start();
    provider.wait_calls(METADATA, 1);
    let mut clients: Vec<_> = (0..20).map(|_| edge.client()).collect();
    let request = with(&bearer(&good(&signer, &provider.issuer())));
    for client in &mut clients {
        client.send(&request);
    }
    provider.set_mood(Mood::Well);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(calls(&provider), (1, 1));
}

#[test]
fn keys_come_from_where_the_config_says() {
    let (signer, stranger, backend) = (Signer::ed25519(), Signer::ed25519(), plain());
    let (ours, other) = (provider(&[signer.jwk("k")]), provider(&[stranger.jwk("k")]));
    // no metadata are asked for where the keys' place is known
    let jwks = format!(", jwks: \"{}/keys\"", other.issuer());
    let edge = guarded(&backend, &oauth(&issuer(&ours, &jwks), ""), "").start();
    assert_eq!(see(&edge, &good(&stranger, &ours.issuer())), OK);
    assert_eq!(see(&edge, &good(&signer, &ours.issuer())), "401 auth.oauth.signature");
    assert_eq!((calls(&ours), calls(&other)), ((0, 0), (0, 1)));
    // and metadata of another place are still those of the issuer
    let metadata = format!(", metadata: \"{}{METADATA}\"", other.issuer());
    let edge = guarded(&backend, &oauth(&issuer(&ours, &metadata), ""), "").start();
    assert_eq!(see(&edge, &good(&signer, &ours.issuer())), DOWN);
    other.set_metadata("issuer", json!(ours.issuer()));
    let edge = guarded(&backend, &oauth(&issuer(&ours, &metadata), ""), "").start();
    assert_eq!(see(&edge, &good(&stranger, &ours.issuer())), OK);
}

#[test]
fn old_keys_are_fetched_anew_and_what_is_gone_verifies_nothing() {
    let (first, second, backend) = (Signer::ed25519(), Signer::p256(), plain());
    let provider = provider(&[first.jwk("k")]);
    let auth = oauth(&issuer(&provider, ", refresh: 1s"), "");
    let edge = guarded(&backend, &auth, "").start();
    let iss = provider.issuer();
    let (old, new) =
        (good(&first, &iss), second.token(json!({ "alg": "ES256", "kid": "2" }), claims(&iss)));
    assert_eq!(see(&edge, &old), OK);
    // rollover: both, then the new one alone
    provider.set_keys(&[first.jwk("k"), second.jwk("2")]);
    let seen = provider.calls("/keys");
    provider.wait_calls("/keys", seen + 1);
    crate::support::wait::eventually("the new key is known", || see(&edge, &new) == OK);
    assert_eq!(see(&edge, &old), OK);
    provider.set_keys(&[second.jwk("2")]);
    crate::support::wait::eventually("the old key is gone, and what it had proven", || {
        see(&edge, &old) == "401 auth.oauth.key"
    });
    assert_eq!(see(&edge, &new), OK);
    // an outage changes nothing for known keys
    provider.set_mood(Mood::HangsUp);
    edge.wait_line("those that were good last stay");
    assert_eq!(see(&edge, &new), OK);
    let stranger = first.token(named("3"), claims(&iss));
    assert_eq!(see(&edge, &stranger), DOWN, "it may be a new key");
    provider.set_mood(Mood::Well);
    edge.wait_line("answers again");
}
