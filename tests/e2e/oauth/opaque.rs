//! In: tokens that only their issuer can read (RFC 7662), and its answers; out: what it is asked, and what
//! callers see, also when it does not answer.

use std::thread;

use serde_json::{Value, json};

use super::{RESOURCE, bearer, guarded, now, oauth, outcome, shown, with};
use crate::support::backend::{Backend, plain};
use crate::support::edge::Edge;
use crate::support::provider::{CLIENT, Mood, Provider, provider};
use crate::support::signer::{Signer, encoded};

const OK: &str = "200 ok";
const DOWN: &str = "503 auth.oauth.provider";
const INACTIVE: &str = "401 auth.oauth.inactive";

/// A provider that knows the token `good`, and an edge that asks it.
struct Stage {
    provider: Provider,
    backend: Backend,
    edge: Edge,
    #[allow(dead_code, reason = "removed with the stage")]
    folder: tempfile::TempDir,
}

/// `settings` and `rest` begin with a comma or are empty.
fn stage(settings: &str, rest: &str) -> Stage {
    let (provider, backend) = (provider(&[]), plain());
    provider.set_token("good", answer());
    let folder = tempfile::tempdir().unwrap();
    let (issuer, secret) = introspecting(&provider, &folder, settings, rest);
    std::fs::write(&secret, CLIENT.1).unwrap();
    let edge = guarded(&backend, &oauth(&issuer, ""), "identity: { X-User: subject }").start();
    Stage { provider, backend, edge, folder }
}

/// The issuer's settings, and the file of the edge's secret.
fn introspecting(
    provider: &Provider,
    folder: &tempfile::TempDir,
    settings: &str,
    rest: &str,
) -> (String, std::path::PathBuf) {
    let (iss, secret) = (provider.issuer(), folder.path().join("secret"));
    let (id, file) = (CLIENT.0, secret.display());
    let settings = format!(
        "{{ url: \"{iss}/introspect\", client_id: \"{id}\", client_secret: \"${{file:{file}}}\"{settings} }}"
    );
    let issuer =
        format!("{{ issuer: \"{iss}\", allow_http: true, introspection: {settings}{rest} }}");
    (issuer, secret)
}

/// What a provider says of a good token.
fn answer() -> Value {
    json!({ "active": true, "aud": RESOURCE, "sub": "ann", "exp": now() + 600, "scope": "mcp:read" })
}

fn answer_with(name: &str, value: Value) -> Value {
    let mut answer = answer();
    answer[name] = value;
    answer
}

impl Stage {
    fn see(&self, token: &str) -> String {
        outcome(&self.edge, &shown(&self.edge, token))
    }

    fn calls(&self) -> usize {
        self.provider.calls("/introspect")
    }
}

#[test]
fn the_issuer_is_asked_once_and_by_a_client_that_it_knows() {
    let s = stage("", "");
    for _ in 0..5 {
        assert_eq!(s.see("good"), OK);
        assert_eq!(s.backend.last().all("x-user"), ["ann"]);
        assert_eq!(s.backend.last().header("authorization"), None);
    }
    let asked = s.provider.requests("/introspect");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, "POST");
    assert_eq!(asked[0].body, b"token=good&token_type_hint=access_token");
    assert_eq!(asked[0].all("content-type"), ["application/x-www-form-urlencoded"]);
    assert_eq!(asked[0].all("accept"), ["application/json"]);
    // whatever may stand in a token stands in the form, too
    assert_eq!(s.see("a-._~+/=="), INACTIVE);
    let asked = s.provider.requests("/introspect");
    assert_eq!(asked[1].body, b"token=a-._%7E%2B%2F%3D%3D&token_type_hint=access_token");
    assert_eq!(s.calls(), 2);
    for _ in 0..5 {
        assert_eq!(s.see("a-._~+/=="), INACTIVE);
    }
    assert_eq!(s.calls(), 2, "that it is none is remembered, too");
    assert!(!s.edge.stdout().concat().contains("good"), "no token in the log");
}

#[test]
fn an_answer_is_held_to_what_a_token_would_be() {
    let s = stage("", "");
    let iss = s.provider.issuer();
    let mut without_aud = answer();
    without_aud.as_object_mut().unwrap().remove("aud");
    let mut without_exp = answer();
    without_exp.as_object_mut().unwrap().remove("exp");
    let mut without_sub = answer();
    without_sub.as_object_mut().unwrap().remove("sub");
    for (n, (answer, expected)) in [
        (json!({ "active": false }), INACTIVE),
        (answer_with("active", json!(false)), INACTIVE),
        (json!({}), DOWN),
        (answer_with("active", json!("true")), DOWN),
        (answer_with("active", json!(1)), DOWN),
        (answer_with("active", json!(null)), DOWN),
        (json!([answer()]), DOWN),
        (json!("active"), DOWN),
        (without_aud, "401 auth.oauth.audience"),
        (answer_with("aud", json!("edge app")), "401 auth.oauth.audience"),
        (answer_with("aud", json!(["x", RESOURCE])), OK),
        (without_exp, OK),
        (answer_with("exp", json!(now() as f64 + 60.5)), OK),
        (answer_with("exp", json!(now() - 31)), "401 auth.oauth.expired"),
        (answer_with("exp", json!((now() + 60).to_string())), "401 auth.oauth.claims"),
        (answer_with("exp", json!(null)), "401 auth.oauth.claims"),
        (answer_with("nbf", json!(now() + 90)), "401 auth.oauth.early"),
        (answer_with("iss", json!(iss)), OK),
        (answer_with("iss", json!("https://evil.example.com")), "401 auth.oauth.issuer"),
        (answer_with("cnf", json!({ "jkt": "x" })), "401 auth.oauth.bound"),
        (answer_with("token_type", json!("bearer")), OK),
        (answer_with("token_type", json!("DPoP")), "401 auth.oauth.type"),
        (answer_with("token_type", json!(7)), "401 auth.oauth.type"),
        (answer_with("token_use", json!("refresh_token")), "401 auth.oauth.purpose"),
        (without_sub, "401 auth.oauth.subject"),
        (answer_with("scope", json!(7)), "401 auth.oauth.claims"),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("token-{n}");
        s.provider.set_token(&token, answer.clone());
        assert_eq!(s.see(&token), expected, "{answer}");
    }
}

#[test]
fn a_token_of_a_kind_that_the_issuer_cannot_look_up_is_bad() {
    let s = stage("", "");
    for error in ["unsupported_token_type", "invalid_token"] {
        let says = format!("{{\"error\":\"{error}\"}}");
        s.provider.set_mood(Mood::Says("400 Bad Request", says));
        assert_eq!(outcome(&s.edge, &shown(&s.edge, error)), INACTIVE);
        assert_eq!(outcome(&s.edge, &shown(&s.edge, error)), INACTIVE, "remembered");
    }
    assert_eq!((s.provider.calls("/introspect"), s.backend.count()), (2, 0));
}

#[test]
fn while_the_issuer_is_down_nobody_is_told_that_a_token_is_bad() {
    let s = stage("", "");
    for (n, mood) in [
        Mood::Says("500 Internal Server Error", "{}".into()),
        Mood::Says("401 Unauthorized", "{}".into()),
        Mood::Says("302 Found", String::new()),
        Mood::Says("400 Bad Request", r#"{"error":"invalid_client"}"#.into()),
        Mood::Says("200 OK", "<html>".into()),
        Mood::Says("200 OK", r#"{"active":true,"active":false}"#.into()),
        Mood::HangsUp,
    ]
    .into_iter()
    .enumerate()
    {
        s.provider.set_mood(mood);
        let answer = shown(&s.edge, &format!("new-{n}"));
        assert_eq!(outcome(&s.edge, &answer), DOWN, "{n}");
        assert_eq!(answer.header("www-authenticate"), None);
        assert!(answer.header("retry-after").is_some());
    }
    s.provider.set_mood(Mood::Well);
    assert_eq!(s.see("new-0"), INACTIVE, "an outage is not remembered");
    assert_eq!(s.see("good"), OK);
    s.provider.set_mood(Mood::HangsUp);
    assert_eq!(s.see("good"), OK, "what is known goes on");
    let told: Vec<_> =
        s.edge.stderr().into_iter().filter(|l| l.contains("introspection")).collect();
    assert_eq!(told.len(), 2, "once for the beginning and once for the end: {told:?}");
}

#[test]
fn nothing_is_remembered_where_the_config_says_so() {
    let s = stage(", cache: off, negative_cache: off", "");
    assert_eq!((s.see("good"), s.see("good"), s.calls()), (OK.into(), OK.into(), 2));
    s.provider.set_token("good", json!({ "active": false }));
    assert_eq!(s.see("good"), INACTIVE, "revoked");
    s.provider.set_token("good", answer());
    assert_eq!(s.see("good"), OK);
    assert_eq!(s.calls(), 4);
}

#[test]
fn a_flood_of_made_up_tokens_is_bounded_and_pushes_nobody_out() {
    let begun = std::time::Instant::now();
    let s = stage(", rate: 20/m burst 20", "");
    assert_eq!(s.see("good"), OK);
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for n in 0..400 {
        *seen.entry(s.see(&format!("made-up-{n}"))).or_default() += 1;
        if n % 40 == 0 {
            assert_eq!(s.see("good"), OK);
        }
    }
    // 20 at once, and one more in three seconds
    let refilled = begun.elapsed().as_secs() as usize / 3 + 1;
    assert!(s.calls() <= 1 + 20 + refilled, "{} calls", s.calls());
    assert_eq!(seen.keys().collect::<Vec<_>>(), [INACTIVE, DOWN]);
    assert_eq!(seen.get(INACTIVE), Some(&(s.calls() - 1)), "{seen:?}");
    // one may just have become free
    let answer = (0..40)
        .map(|n| shown(&s.edge, &format!("late-{n}")))
        .find(|a| outcome(&s.edge, a) == DOWN)
        .unwrap();
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    assert_eq!(s.backend.count(), 11);
}

#[test]
fn questions_at_once_are_bounded_and_who_asks_the_same_waits_for_the_same() {
    let s = stage(", concurrency: 1", "");
    s.provider.set_mood(Mood::Waits);
    let mut clients: Vec<_> = (0..10).map(|_| s.edge.client()).collect();
    for client in &mut clients {
        client.send(with(&bearer("good")));
    }
    s.provider.wait_calls("/introspect", 1);
    assert_eq!(s.see("other"), DOWN);
    s.provider.set_mood(Mood::Well);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(s.calls(), 1);
    assert_eq!(s.see("other"), INACTIVE);
}

#[test]
fn a_slow_issuer_is_waited_for_no_longer_than_the_config_says() {
    let s = stage(", timeout: 200ms", "");
    s.provider.set_mood(Mood::Waits);
    let begun = std::time::Instant::now();
    assert_eq!(s.see("good"), DOWN);
    assert!(begun.elapsed() < std::time::Duration::from_secs(4), "{:?}", begun.elapsed());
    s.provider.set_mood(Mood::Well);
    assert_eq!(s.see("good"), OK);
}

#[test]
fn an_audience_may_be_waived_in_words_or_stand_elsewhere() {
    let mut without = answer_with("client_id", json!("cli"));
    without.as_object_mut().unwrap().remove("aud");
    let s = stage("", ", waive: [ aud ]");
    s.provider.set_token("without", without.clone());
    s.provider.set_token("other", answer_with("aud", json!("other")));
    assert_eq!(s.see("without"), OK);
    assert_eq!(s.see("other"), "401 auth.oauth.audience", "what is there is checked");
    let s = stage("", ", audience_claim: client_id, audiences: [ cli ]");
    s.provider.set_token("without", without);
    assert_eq!(s.see("without"), OK);
    assert_eq!(s.see("good"), "401 auth.oauth.audience");
}

#[test]
fn signed_tokens_of_others_are_no_question_for_it() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let (keys, asked) = (provider(&[signer.jwk("k")]), provider(&[]));
    let folder = tempfile::tempdir().unwrap();
    let (issuer, secret) = introspecting(&asked, &folder, "", "");
    std::fs::write(secret, CLIENT.1).unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "k_0123456789abcdef").unwrap();
    let auth = format!(
        "{{ api_key: {{ header: Authorization, prefix: k_, keys: [ {{ name: ci, value: \"${{file:{}}}\" }} ] }} }}, {}",
        key.display(),
        oauth(&format!("{}, {issuer}", super::issuer(&keys, "")), "")
    );
    let edge = guarded(&backend, &auth, "").start();
    let see = |token: &str| outcome(&edge, &shown(&edge, token));
    assert_eq!(see(&super::good(&signer, &keys.issuer())), OK);
    assert_eq!(see(&super::good(&signer, "https://evil.example.com")), "401 auth.oauth.issuer");
    assert_eq!(see("k_0123456789abcdef"), OK);
    assert_eq!(see("k_other"), "401 auth.api_key.unknown");
    assert_eq!(asked.calls("/introspect"), 0, "they can be told apart without a question");
    // a signed token of the issuer that is asked itself
    let own = super::good(&signer, &asked.issuer());
    asked.set_token(&own, answer());
    assert_eq!(see(&own), OK);
    assert_eq!(see("opaque"), INACTIVE);
    assert_eq!(asked.calls("/introspect"), 2);
}

/// An issuer that is asked may give tokens that look signed and that only it can read.
#[test]
fn what_looks_like_a_signed_token_is_shown_to_the_one_who_may_have_made_it() {
    let s = stage("", "");
    let iss = s.provider.issuer();
    let with = |head: Value, claims: Value| {
        format!("{}.{}.c2ln", encoded(head.to_string()), encoded(claims.to_string()))
    };
    let own = json!({ "iss": iss, "aud": RESOURCE });
    let encrypted = format!("{}.AAAA.AAAA.AAAA.AAAA", encoded(r#"{"alg":"dir","enc":"A128GCM"}"#));
    let shown_to_it = [
        encrypted.clone(),
        with(json!({ "alg": "ES512" }), own.clone()),
        with(json!({ "alg": "none" }), own.clone()),
        with(json!({ "alg": "RS256", "crit": [ "x" ] }), own.clone()),
        with(json!({ "alg": "RS256" }), json!({ "aud": RESOURCE })),
        with(json!({ "alg": "ES512" }), json!({ "aud": RESOURCE })),
        with(json!({ "alg": "RS256" }), own.clone()),
        "eyJ-is-no-token-with-parts".to_owned(),
    ];
    for (n, token) in shown_to_it.iter().enumerate() {
        // what is believed is what it says, and not what stands in the token
        assert_eq!(s.see(token), INACTIVE, "{token}");
        assert_eq!(s.calls(), n + 1, "{token}");
        let form = String::from_utf8(s.provider.requests("/introspect")[n].body.clone()).unwrap();
        assert!(form.starts_with(&format!("token={token}&")), "{form}");
    }
    let asked = s.calls();
    let evil = "https://evil.example.com";
    for (token, refusal) in [
        (with(json!({ "alg": "ES512" }), json!({ "iss": evil })), "algorithm"),
        (with(json!({ "alg": "RS256", "crit": [] }), json!({ "iss": evil })), "critical"),
        (with(json!({ "alg": "ES512" }), json!({ "iss": [ iss ] })), "algorithm"),
        (with(json!({ "alg": "RS256" }), json!({ "iss": evil })), "issuer"),
        (with(json!({ "alg": "RS256" }), json!({ "iss": null })), "issuer"),
        (format!("{}.AAAA.AAAA.AAAA", encoded(r#"{"alg":"dir"}"#)), "format"),
        (format!("{}.AAAA", encoded(r#"{"alg":"RS256"}"#)), "format"),
    ] {
        assert_eq!(s.see(&token), format!("401 auth.oauth.{refusal}"), "{token}");
    }
    assert_eq!(s.calls(), asked, "nobody is shown what is no token of theirs");
    for (n, token) in shown_to_it.iter().enumerate() {
        // as another token: what was heard of this one is remembered
        let token = match n {
            0 => token.replacen("AAAA", "BBBB", 1),
            7 => format!("{token}-2"),
            _ => token.replacen("c2ln", "c2lo", 1),
        };
        s.provider.set_token(&token, answer());
        assert_eq!(s.see(&token), OK, "{token}");
        assert_eq!(s.backend.last().all("x-user"), ["ann"]);
    }
}

/// Who could have made a token that cannot be read is not known where there are several: nobody is shown it.
#[test]
fn what_cannot_be_read_is_shown_to_nobody_where_there_are_several() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let (keys, asked) = (provider(&[signer.jwk("k")]), provider(&[]));
    let folder = tempfile::tempdir().unwrap();
    let (issuer, secret) = introspecting(&asked, &folder, "", "");
    std::fs::write(secret, CLIENT.1).unwrap();
    let auth = oauth(&format!("{}, {issuer}", super::issuer(&keys, "")), "");
    let edge = guarded(&backend, &auth, "").start();
    let claims = encoded(json!({ "iss": asked.issuer(), "aud": RESOURCE }).to_string());
    for (token, refusal) in [
        (format!("{}.A.A.A.A", encoded(r#"{"alg":"dir","enc":"A128GCM"}"#)), "encrypted"),
        (format!("{}.{claims}.c2ln", encoded(r#"{"alg":"ES512"}"#)), "algorithm"),
        (format!("{}.{claims}.c2ln", encoded(r#"{"alg":"RS256","crit":[]}"#)), "critical"),
        (format!("{}.{}.c2ln", encoded(r#"{"alg":"RS256"}"#), encoded("{}")), "issuer"),
    ] {
        let outcome = outcome(&edge, &shown(&edge, &token));
        assert_eq!(outcome, format!("401 auth.oauth.{refusal}"), "{token}");
    }
    assert_eq!((asked.calls("/introspect"), backend.count()), (0, 0));
}

#[test]
fn routes_ask_together() {
    let (provider, backend) = (provider(&[]), plain());
    provider.set_token("good", answer());
    let folder = tempfile::tempdir().unwrap();
    let (issuer, secret) = introspecting(&provider, &folder, "", "");
    std::fs::write(secret, CLIENT.1).unwrap();
    let auth = oauth(&issuer, "");
    let edge = crate::support::edge::edge()
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!("path: /a, upstream: one, auth: [ {auth} ]"))
        .raw_route(&format!("path: /b, upstream: one, auth: [ {auth} ]"))
        .start();
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer("good"));
        edge.ask(request).status
    };
    thread::scope(|scope| {
        for path in ["/a", "/b", "/a", "/b"] {
            scope.spawn(move || assert_eq!(ask(path), 200));
        }
    });
    assert_eq!(provider.calls("/introspect"), 1);
}
