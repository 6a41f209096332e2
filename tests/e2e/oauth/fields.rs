//! In: every field of the config, and the same without it; out: what it refuses.

use serde_json::{Value, json};

use super::{
    METADATA, RESOURCE, SECRET, bearer, challenges, claims, claims_with, good, guarded, head,
    issuer, now, oauth, outcome, shown, with,
};
use crate::support::backend::{Backend, backend, feed, plain};
use crate::support::certs::Certs;
use crate::support::client::{get_events, post};
use crate::support::edge::Edge;
use crate::support::provider::{Mood, Provider, provider};
use crate::support::signer::{Signer, hs256};
use crate::support::wait::eventually;

const OK: &str = "200 ok";

struct Stage {
    signer: Signer,
    provider: Provider,
    backend: Backend,
}

impl Stage {
    fn new() -> Self {
        let signer = Signer::ed25519();
        let provider = provider(&[signer.jwk("k")]);
        Self { signer, provider, backend: plain() }
    }

    fn edge(&self, issuer_rest: &str, rest: &str) -> Edge {
        let auth = oauth(&issuer(&self.provider, issuer_rest), rest);
        guarded(&self.backend, &auth, "").start()
    }

    fn claims(&self, name: &str, value: Value) -> Value {
        claims_with(&self.provider.issuer(), name, value)
    }

    fn token(&self, name: &str, value: Value) -> String {
        self.signer.token(head("EdDSA"), self.claims(name, value))
    }
}

#[test]
fn every_field_of_an_issuer_refuses() {
    let s = Stage::new();
    let typed = |kind: &str| {
        let head = json!({ "alg": "EdDSA", "kid": "k", "typ": kind });
        s.signer.token(head, claims(&s.provider.issuer()))
    };
    let untyped = s.signer.token(json!({ "alg": "EdDSA", "kid": "k" }), s.claims("x", json!(1)));
    let good = good(&s.signer, &s.provider.issuer());
    let late = s.token("exp", json!(now() - 10));
    let early = s.token("nbf", json!(now() + 10));
    let client = s.token("client_id", json!("other"));
    let plain = s.edge("", "");
    let late_by_more = s.token("exp", json!(now() - 100));
    for (field, token, expected) in [
        (", audiences: [ other ]", &good, "401 auth.oauth.audience"),
        (", audience_claim: client_id, audiences: [ cli ]", &client, "401 auth.oauth.audience"),
        (", algorithms: [ RS256, ES256 ]", &good, "401 auth.oauth.algorithm"),
        (", token_types: [ at+jwt, none ]", &typed("JWT"), "401 auth.oauth.type"),
        (", token_types: [ at+jwt ]", &untyped, "401 auth.oauth.type"),
        (", leeway: 1s", &late, "401 auth.oauth.expired"),
        (", leeway: 1s", &early, "401 auth.oauth.early"),
    ] {
        assert_eq!(outcome(&plain, &shown(&plain, token)), OK, "without {field}");
        let edge = s.edge(field, "");
        assert_eq!(outcome(&edge, &shown(&edge, token)), expected, "{field}");
    }
    for (field, token, expected) in [
        (", audiences: [ other, \"https://mcp.example.com/x/\" ]", &good, OK),
        (", audience_claim: client_id, audiences: [ other ]", &client, OK),
        (", token_types: [ Application/AT+JWT ]", &typed("at+JWT"), OK),
        (", token_types: [ vendor ]", &typed("vendor"), OK),
        (", algorithms: [ Ed25519 ]", &good, OK),
        (", leeway: 5m", &late_by_more, OK),
    ] {
        let edge = s.edge(field, "");
        assert_eq!(outcome(&edge, &shown(&edge, token)), expected, "{field}");
    }
    assert_eq!(outcome(&plain, &shown(&plain, &late_by_more)), "401 auth.oauth.expired");
    assert_eq!(outcome(&plain, &shown(&plain, &typed("vendor"))), "401 auth.oauth.type");
}

#[test]
fn the_resource_is_the_audience_where_no_other_is_named() {
    let s = Stage::new();
    let good = good(&s.signer, &s.provider.issuer());
    for (resource, expected) in [
        (RESOURCE, OK),
        ("https://mcp.example.com/x/", OK),
        ("https://MCP.example.com:443/x", OK),
        ("https://mcp.example.com/y", "401 auth.oauth.audience"),
        ("https://mcp.example.com", "401 auth.oauth.audience"),
    ] {
        let issuers = issuer(&s.provider, "");
        let auth = format!("{{ oauth: {{ resource: \"{resource}\", issuers: [ {issuers} ] }} }}");
        let edge = guarded(&s.backend, &auth, "").start();
        assert_eq!(outcome(&edge, &shown(&edge, &good)), expected, "{resource}");
    }
    // or the route's public URL
    let auth = format!("{{ oauth: {{ issuers: [ {} ] }} }}", issuer(&s.provider, ""));
    let edge = guarded(&s.backend, &auth, &format!("path: /x, public_url: \"{RESOURCE}\"")).start();
    assert_eq!(outcome(&edge, &shown(&edge, &good)), OK);
    assert_eq!(
        outcome(&edge, &shown(&edge, &s.token("aud", json!("z")))),
        "401 auth.oauth.audience"
    );
}

#[test]
fn keys_that_could_not_be_fetched_for_too_long_verify_nothing() {
    let s = Stage::new();
    let good = good(&s.signer, &s.provider.issuer());
    let (short, long) = (s.edge(", refresh: 1s, keep_keys: 1s", ""), s.edge(", refresh: 1s", ""));
    assert_eq!(outcome(&short, &shown(&short, &good)), OK);
    assert_eq!(outcome(&long, &shown(&long, &good)), OK);
    s.provider.set_mood(Mood::HangsUp);
    eventually("the keys are too old", || {
        outcome(&short, &shown(&short, &good)) == "503 auth.oauth.provider"
    });
    long.wait_line("those that were good last stay");
    assert_eq!(outcome(&long, &shown(&long, &good)), OK);
    s.provider.set_mood(Mood::Well);
    eventually("they are back", || outcome(&short, &shown(&short, &good)) == OK);
}

#[test]
fn a_provider_is_trusted_by_its_ca() {
    let (s, certs) = (Stage::new(), Certs::new());
    let front = certs.front(s.provider.address(), false);
    s.provider.set_metadata("issuer", json!(front.url()));
    s.provider.set_metadata("jwks_uri", json!(format!("{}/keys", front.url())));
    let good = good(&s.signer, &front.url());
    let edge = |rest: &str| {
        let issuer = format!("{{ issuer: \"{}\"{rest} }}", front.url());
        guarded(&s.backend, &oauth(&issuer, ""), "").start()
    };
    let with = edge(&format!(", ca: \"{}\"", certs.path("ca.pem").display()));
    assert_eq!(outcome(&with, &shown(&with, &good)), OK);
    let calls = s.provider.calls("/keys");
    let without = edge("");
    assert_eq!(outcome(&without, &shown(&without, &good)), "503 auth.oauth.provider");
    without.wait_line("invalid peer certificate");
    // metadata that lead from https to http lead nowhere
    s.provider.set_metadata("jwks_uri", json!(format!("{}/keys", s.provider.issuer())));
    let edge = edge(&format!(", ca: \"{}\"", certs.path("ca.pem").display()));
    assert_eq!(outcome(&edge, &shown(&edge, &good)), "503 auth.oauth.provider");
    edge.wait_line("is not https");
    assert_eq!(s.provider.calls("/keys"), calls);
}

fn tool_call(tool: &str, token: &str) -> String {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                       "params": { "name": tool, "arguments": {} } });
    post("localhost", "/x", &bearer(token), &body.to_string())
}

#[test]
fn scopes_refuse_and_all_that_are_needed_are_named() {
    let s = Stage::new();
    let rest = ", scopes: [ mcp:read ], tool_scopes: { \"delete_*\": [ mcp:admin ], \"*_user\": [ users ] }, \
                 scope_includes: { root: [ mcp:admin, users ], mcp:admin: [ mcp:read ] }";
    let edge = s.edge("", rest);
    let scoped = |scope: &str| s.token("scope", json!(scope));
    for (scope, tool, needed) in [
        ("mcp:read", None, None),
        ("mcp:admin", None, None),
        ("root", None, None),
        ("", None, Some("mcp:read")),
        ("mcp:write mcp:rea mcp:read2", None, Some("mcp:read")),
        ("mcp:read", Some("list"), None),
        ("mcp:read", Some("delete_all"), Some("mcp:read mcp:admin")),
        ("mcp:read mcp:admin", Some("delete_all"), None),
        ("mcp:admin", Some("delete_user"), Some("mcp:read mcp:admin users")),
        ("root", Some("delete_user"), None),
    ] {
        let sent = s.backend.count();
        let answer = match tool {
            None => shown(&edge, &scoped(scope)),
            Some(tool) => edge.ask(tool_call(tool, &scoped(scope))),
        };
        let Some(needed) = needed else {
            assert_eq!(outcome(&edge, &answer), OK, "{scope} {tool:?}");
            continue;
        };
        assert_eq!(outcome(&edge, &answer), "403 auth.oauth.scope", "{scope} {tool:?}");
        let challenge = format!(
            "Bearer error=\"insufficient_scope\", error_description=\"The token lacks a scope\", \
             scope=\"{needed}\", resource_metadata=\"{METADATA}\""
        );
        assert_eq!(challenges(&answer), [challenge]);
        assert_eq!(s.backend.count(), sent, "nothing goes on");
    }
    let plain = s.edge("", "");
    assert_eq!(outcome(&plain, &plain.ask(tool_call("delete_all", &scoped("")))), OK);
}

#[test]
fn who_has_shown_more_than_a_token_is_asked_for_its_scopes_too() {
    let (s, certs) = (Stage::new(), Certs::new());
    let issuers = issuer(&s.provider, "");
    let auth = format!(
        "{{ all: [ {{ client_certificate: {{ principal: common_name }} }}, {} ] }}",
        oauth(&issuers, ", scopes: [ mcp:read ], tool_scopes: { \"delete_*\": [ mcp:admin ] }")
    );
    certs.leaf(&["a.example"]).client("device", 7).write("device");
    let tls = format!(
        "tls: {{ certificates: [ {{ cert: \"{}\", key: \"{}\" }} ], client_certificates: {{ ca: \"{}\", required: false }} }}",
        certs.path("server.pem").display(),
        certs.path("server.key").display(),
        certs.path("ca.pem").display()
    );
    let edge = guarded(&s.backend, &auth, "identity: { X-User: subject, X-Scope: claims.scope }")
        .listener(&tls)
        .start();
    let ask = |request: String| edge.tls(certs.client_as("device")).ask(request);
    let see = |request: String| outcome(&edge, &ask(request));
    let (read, none) = (good(&s.signer, &s.provider.issuer()), s.token("scope", json!("")));
    assert_eq!(see(with(&bearer(&read))), OK);
    assert_eq!(s.backend.last().all("x-user"), ["device"]);
    assert_eq!(s.backend.last().all("x-scope"), ["mcp:read"]);
    assert_eq!(see(with(&bearer(&none))), "403 auth.oauth.scope");
    assert_eq!(see(tool_call("delete_all", &read)), "403 auth.oauth.scope");
    assert_eq!(see(with("")), "401 auth.none");
    assert_eq!(see(with(&bearer("eyJ.x.y"))), "401 auth.oauth.format");
    let bare = edge.tls(certs.client(&["http/1.1"])).ask(with(&bearer(&read)));
    assert_eq!(outcome(&edge, &bare), "401 auth.all.missing");
}

#[test]
fn the_principal_is_made_of_the_claims_that_are_named() {
    let s = Stage::new();
    let edge = s.edge("", ", principal: [ tid, sub ]");
    assert_eq!(outcome(&edge, &shown(&edge, &s.token("tid", json!("t")))), OK);
    for bad in [s.token("x", json!(1)), s.token("tid", json!("")), s.token("tid", json!(1))] {
        assert_eq!(outcome(&edge, &shown(&edge, &bad)), "401 auth.oauth.subject");
    }
    let edge = s.edge("", ", principal: email");
    assert_eq!(outcome(&edge, &shown(&edge, &s.token("email", json!("a@b")))), OK);
    assert_eq!(outcome(&edge, &shown(&edge, &s.token("x", json!(1)))), "401 auth.oauth.subject");
}

#[test]
fn a_shared_secret_waives_what_the_config_says_and_no_more() {
    let backend = plain();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (ours, other) = (file("ours", SECRET), file("other", &SECRET.replace("an", "no")));
    let edge = |file: &str, rest: &str| {
        let issuer = format!("{{ issuer: internal, secret: \"${{file:{file}}}\"{rest} }}");
        guarded(&backend, &oauth(&issuer, ""), "").start()
    };
    let token =
        |claims: Value| hs256(SECRET.as_bytes(), json!({ "alg": "HS256", "typ": "JWT" }), claims);
    let whole = claims("internal");
    let without = |name: &str| {
        let mut claims = whole.clone();
        claims.as_object_mut().unwrap().remove(name);
        token(claims)
    };
    let strict = edge(&ours, "");
    assert_eq!(outcome(&strict, &shown(&strict, &token(whole.clone()))), OK);
    for (claim, expected) in [
        ("iss", "401 auth.oauth.issuer"),
        ("aud", "401 auth.oauth.audience"),
        ("exp", "401 auth.oauth.no_expiry"),
    ] {
        assert_eq!(outcome(&strict, &shown(&strict, &without(claim))), expected);
        let waived = edge(&ours, &format!(", waive: [ {claim} ]"));
        assert_eq!(outcome(&waived, &shown(&waived, &without(claim))), OK, "{claim}");
        let others = ["iss", "aud", "exp"].into_iter().filter(|other| *other != claim);
        for other in others {
            let answer = shown(&waived, &without(other));
            assert_eq!(answer.status, 401, "{other} with `waive: [ {claim} ]`");
        }
    }
    let edge_of_other = edge(&other, "");
    let wrong = shown(&edge_of_other, &token(whole.clone()));
    assert_eq!(outcome(&edge_of_other, &wrong), "401 auth.oauth.signature");
    let long = file("long", &SECRET.repeat(2));
    let sha512 = edge(&long, ", algorithms: [ HS512 ]");
    let sent =
        shown(&sha512, &hs256(SECRET.repeat(2).as_bytes(), json!({ "alg": "HS256" }), whole));
    assert_eq!(outcome(&sha512, &sent), "401 auth.oauth.algorithm");
}

#[test]
fn a_stream_ends_with_its_token_or_lives_on() {
    let s = Stage::new();
    let token = s.token("exp", json!(now() + 1));
    let open = |grace: &str| {
        let (feed, source) = feed();
        let backend = backend(move |x| {
            x.sse(&[]);
            x.play(&source);
        });
        let auth = oauth(&issuer(&s.provider, ", leeway: 1s"), &format!(", stream_grace: {grace}"));
        let edge = guarded(&backend, &auth, "").start();
        let mut client = edge.client();
        client.send(get_events("localhost", "/x", &bearer(&token)));
        assert_eq!(client.start().status, 200);
        feed.push("data: 1\n\n");
        assert_eq!(client.chunks(9), b"data: 1\n\n");
        (edge, client, feed)
    };
    let (edge, mut ends, _feed) = open("1s");
    let (_edge, mut lives, feed) = open("off");
    while ends.chunk().is_some_and(|chunk| !chunk.is_empty()) {}
    let rest = outcome(&edge, &shown(&edge, &token));
    assert_eq!(rest, "401 auth.oauth.expired", "and no new one begins");
    feed.push("data: 2\n\n");
    assert_eq!(lives.chunks(9), b"data: 2\n\n");
}

#[test]
fn the_providers_metadata_are_served_where_old_clients_look() {
    let s = Stage::new();
    let ask = |edge: &Edge| edge.get("/.well-known/oauth-authorization-server");
    let with = s.edge(", serve_metadata: true", "");
    let answer = ask(&with);
    assert_eq!(answer.status, 200);
    assert_eq!(
        (&answer.json()["issuer"], &answer.json()["extra"]),
        (&s.provider.issuer().into(), &1.into())
    );
    let without = s.edge("", "");
    assert_eq!(ask(&without).status, 404);
    assert_eq!(s.backend.count(), 0);
}

#[test]
fn an_issuer_that_is_gone_from_the_config_is_gone() {
    let (s, other) = (Stage::new(), Stage::new());
    let good = good(&s.signer, &s.provider.issuer());
    let both = format!("{}, {}", issuer(&s.provider, ""), issuer(&other.provider, ""));
    let edge = guarded(&s.backend, &oauth(&both, ""), "").start();
    assert_eq!(outcome(&edge, &shown(&edge, &good)), OK);
    edge.stop();
    let edge = guarded(&s.backend, &oauth(&issuer(&other.provider, ""), ""), "").start();
    assert_eq!(outcome(&edge, &shown(&edge, &good)), "401 auth.oauth.issuer");
}
