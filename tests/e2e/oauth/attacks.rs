//! The attack table. In: tokens that are not what they should be; out: each is refused with its code, and
//! nothing of them reaches a server.

use serde_json::{Value, json};

use super::{
    RESOURCE, SECRET, bearer, challenges, claims, claims_with, guarded, head, issuer, now, oauth,
    outcome, with,
};
use crate::support::backend::plain;
use crate::support::provider::{Provider, provider};
use crate::support::signer::{Signer, encoded, hs256};

/// The keys of a provider, and one that it does not publish.
struct Keys {
    rsa: Signer,
    p256: Signer,
    ed: Signer,
    stranger: Signer,
}

impl Keys {
    fn new() -> Self {
        let (rsa, p256) = (Signer::rsa(), Signer::p256());
        Self { rsa, p256, ed: Signer::ed25519(), stranger: Signer::ed25519() }
    }

    fn published(&self) -> Vec<Value> {
        let mut encryption = self.p256.jwk("encryption");
        encryption["use"] = "enc".into();
        let mut only_rs256 = self.rsa.jwk("only-rs256");
        only_rs256["alg"] = "RS256".into();
        vec![self.rsa.jwk("rsa"), self.p256.jwk("p256"), self.ed.jwk("k"), encryption, only_rs256]
    }
}

/// Header lines and what must come of them.
type Case = (&'static str, String, &'static str);

fn kid(algorithm: &str, kid: &str) -> Value {
    json!({ "alg": algorithm, "kid": kid, "typ": "at+jwt" })
}

fn head_with(name: &str, value: Value) -> Value {
    let mut head = head("EdDSA");
    head[name] = value;
    head
}

/// Heads that lie.
fn heads(keys: &Keys, iss: &str) -> Vec<Case> {
    let unsigned = |head: &Value| {
        format!("{}.{}.", encoded(head.to_string()), encoded(claims(iss).to_string()))
    };
    let ed = |head: Value| keys.ed.token(head, claims(iss));
    let public = keys.rsa.jwk("rsa")["n"].as_str().unwrap().to_owned();
    let thief = keys.stranger.jwk("k");
    let key = "401 auth.oauth.key";
    let signature = "401 auth.oauth.signature";
    let algorithm = "401 auth.oauth.algorithm";
    vec![
        ("alg none", unsigned(&json!({ "alg": "none" })), algorithm),
        ("alg none with a kid", unsigned(&kid("none", "k")), algorithm),
        ("alg None", unsigned(&kid("None", "k")), algorithm),
        ("alg NONE", unsigned(&kid("NONE", "k")), algorithm),
        ("no alg", ed(json!({ "kid": "k" })), "401 auth.oauth.format"),
        (
            "alg null",
            ed(kid("x", "k")).replacen(
                &encoded(kid("x", "k").to_string()),
                &encoded(r#"{"alg":null}"#),
                1,
            ),
            "401 auth.oauth.format",
        ),
        (
            "HS256 by the RSA modulus",
            hs256(public.as_bytes(), kid("HS256", "rsa"), claims(iss)),
            algorithm,
        ),
        ("HS256 by nothing", hs256(b"", kid("HS256", "k"), claims(iss)), algorithm),
        (
            "HS256 by the other issuer's secret",
            hs256(SECRET.as_bytes(), kid("HS256", "k"), claims(iss)),
            algorithm,
        ),
        ("EdDSA by the RSA key's name", keys.ed.token(kid("EdDSA", "rsa"), claims(iss)), algorithm),
        (
            "RS256 by the Ed25519 key's name",
            keys.rsa.token(kid("RS256", "k"), claims(iss)),
            algorithm,
        ),
        (
            "PS256 with a key for RS256",
            keys.rsa.token(kid("PS256", "only-rs256"), claims(iss)),
            algorithm,
        ),
        (
            "RS512 that says RS256",
            keys.rsa.token(kid("RS512", "rsa"), claims(iss)).replacen(
                &encoded(kid("RS512", "rsa").to_string()),
                &encoded(kid("RS256", "rsa").to_string()),
                1,
            ),
            signature,
        ),
        ("ES512", ed(kid("ES512", "k")), algorithm),
        ("ES256K", ed(kid("ES256K", "k")), algorithm),
        ("alg in lower case", ed(kid("eddsa", "k")), algorithm),
        ("another key", keys.stranger.token(head("EdDSA"), claims(iss)), signature),
        (
            "another key that is named",
            keys.stranger.token(kid("EdDSA", "stranger"), claims(iss)),
            key,
        ),
        ("a key for encryption", keys.p256.token(kid("ES256", "encryption"), claims(iss)), key),
        ("no kid, another key", keys.stranger.token(json!({ "alg": "EdDSA" }), claims(iss)), key),
        (
            "kid as a path",
            keys.stranger.token(kid("EdDSA", "../../../../dev/null"), claims(iss)),
            key,
        ),
        (
            "kid as SQL",
            keys.stranger.token(kid("EdDSA", "' UNION SELECT 'k' --"), claims(iss)),
            key,
        ),
        (
            "kid as a URL",
            keys.stranger.token(kid("EdDSA", &format!("{iss}/evil")), claims(iss)),
            key,
        ),
        ("kid with a NUL", keys.stranger.token(kid("EdDSA", "k\0"), claims(iss)), key),
        ("kid empty", keys.stranger.token(kid("EdDSA", ""), claims(iss)), key),
        ("kid as a number", ed(head_with("kid", json!(1))), "401 auth.oauth.format"),
        ("kid as a list", ed(head_with("kid", json!(["k"]))), "401 auth.oauth.format"),
        ("kid of 600 bytes", ed(head_with("kid", json!("k".repeat(600)))), "401 auth.oauth.format"),
        (
            "jku",
            keys.stranger.token(head_with("jku", json!(format!("{iss}/evil"))), claims(iss)),
            signature,
        ),
        (
            "x5u",
            keys.stranger.token(head_with("x5u", json!(format!("{iss}/evil"))), claims(iss)),
            signature,
        ),
        ("x5c", keys.stranger.token(head_with("x5c", json!(["MIIB"])), claims(iss)), signature),
        ("jwk", keys.stranger.token(head_with("jwk", thief), claims(iss)), signature),
        ("crit", ed(head_with("crit", json!(["exp"]))), "401 auth.oauth.critical"),
        ("crit empty", ed(head_with("crit", json!([]))), "401 auth.oauth.critical"),
        ("b64 false", ed(head_with("b64", json!(false))), "401 auth.oauth.critical"),
        ("enc", ed(head_with("enc", json!("A128GCM"))), "401 auth.oauth.encrypted"),
        ("typ of an ID token", ed(head_with("typ", json!("ID"))), "401 auth.oauth.type"),
        ("typ of a logout token", ed(head_with("typ", json!("logout+jwt"))), "401 auth.oauth.type"),
        ("typ of a DPoP proof", ed(head_with("typ", json!("dpop+jwt"))), "401 auth.oauth.type"),
        ("typ empty", ed(head_with("typ", json!(""))), "401 auth.oauth.type"),
        ("typ as a number", ed(head_with("typ", json!(7))), "401 auth.oauth.format"),
        (
            "doubled alg",
            keys.ed.token(r#"{"alg":"EdDSA","kid":"k","alg":"none"}"#, claims(iss)),
            "401 auth.oauth.format",
        ),
        (
            "doubled kid",
            keys.stranger.token(r#"{"alg":"EdDSA","kid":"x","k\u0069d":"k"}"#, claims(iss)),
            "401 auth.oauth.format",
        ),
    ]
}

/// Forms that are none.
fn forms(keys: &Keys, iss: &str) -> Vec<Case> {
    let good = keys.ed.token(head("EdDSA"), claims(iss));
    let parts: Vec<&str> = good.split('.').collect();
    let [first, second, third] = parts[..] else { panic!("three parts") };
    let huge = keys.ed.token(head("EdDSA"), claims_with(iss, "x", json!("x".repeat(16 << 10))));
    let deep = format!(r#"{{"iss":"{iss}","x":{}1{}}}"#, "[".repeat(3000), "]".repeat(3000));
    let last = third.len() - 1;
    let other = if third.ends_with('A') { "Q" } else { "A" };
    let format = "401 auth.oauth.format";
    vec![
        ("no signature", format!("{first}.{second}."), "401 auth.oauth.signature"),
        (
            "half a signature",
            format!("{first}.{second}.{}", &third[..last / 2]),
            "401 auth.oauth.signature",
        ),
        (
            "another signature",
            format!("{first}.{second}.{}{other}", &third[..last]),
            "401 auth.oauth.signature",
        ),
        (
            "another payload",
            format!(
                "{first}.{}.{third}",
                encoded(claims_with(iss, "sub", json!("root")).to_string())
            ),
            "401 auth.oauth.signature",
        ),
        ("two parts", format!("{first}.{second}"), format),
        ("one part", first.to_owned(), format),
        ("four parts", format!("{good}.{third}"), format),
        ("five parts", format!("{good}.{third}.{third}"), "401 auth.oauth.encrypted"),
        ("an empty payload", format!("{first}..{third}"), format),
        ("padding", format!("{first}=.{second}.{third}"), "400 auth.oauth.malformed"),
        ("padding at the end", format!("{good}="), format),
        ("the other alphabet", format!("{first}.{second}.+/{}", &third[2..]), format),
        ("a payload that is a list", keys.ed.token(head("EdDSA"), "[]"), format),
        ("a payload that is no JSON", keys.ed.token(head("EdDSA"), "x"), format),
        (
            "a payload with a BOM",
            keys.ed.token(head("EdDSA"), format!("\u{feff}{}", claims(iss))),
            format,
        ),
        ("two payloads", keys.ed.token(head("EdDSA"), format!("{0}{0}", claims(iss))), format),
        ("a token in a token", keys.ed.token(head("EdDSA"), format!("\"{good}\"")), format),
        ("huge", huge, "431 h1.field_size"),
        ("deep", keys.ed.token(head("EdDSA"), deep), format),
        (
            "doubled iss",
            keys.ed.token(head("EdDSA"), format!(r#"{{"iss":"{iss}","iss":"{iss}"}}"#)),
            format,
        ),
        (
            "doubled exp",
            keys.ed.token(
                head("EdDSA"),
                format!(
                    r#"{{"iss":"{iss}","aud":"{RESOURCE}","sub":"a","exp":1,"e\u0078p":{}}}"#,
                    now() + 60
                ),
            ),
            format,
        ),
        (
            "doubled names deep inside",
            keys.ed.token(head("EdDSA"), format!(r#"{{"iss":"{iss}","x":[{{"a":1,"a":2}}]}}"#)),
            format,
        ),
        ("a letter that cannot stand", good.replacen('.', "!", 1), "400 auth.oauth.malformed"),
        ("a comma", format!("{good},{good}"), "400 auth.oauth.malformed"),
        ("two tokens", format!("{good} {good}"), "400 auth.oauth.malformed"),
        ("a quoted token", format!("\"{good}\""), "400 auth.oauth.malformed"),
        ("an opaque token", "an-opaque-token".to_owned(), format),
        ("nothing behind the scheme", String::new(), "400 auth.oauth.malformed"),
    ]
}

/// Claims that are not those of a token for us.
fn payloads(keys: &Keys, iss: &str) -> Vec<Case> {
    let ed = |name: &str, value: Value| keys.ed.token(head("EdDSA"), claims_with(iss, name, value));
    let without = |name: &str| {
        let mut claims = claims(iss);
        claims.as_object_mut().unwrap().remove(name);
        keys.ed.token(head("EdDSA"), claims)
    };
    let audience = "401 auth.oauth.audience";
    let wrong = "401 auth.oauth.claims";
    let issuer = "401 auth.oauth.issuer";
    vec![
        ("expired", ed("exp", json!(now() - 31)), "401 auth.oauth.expired"),
        ("expired in 1970", ed("exp", json!(0)), "401 auth.oauth.expired"),
        ("exp as text", ed("exp", json!("9999999999")), wrong),
        ("exp null", ed("exp", json!(null)), wrong),
        ("exp in milliseconds", ed("exp", json!((now() + 60) * 1000)), wrong),
        ("no exp", without("exp"), "401 auth.oauth.no_expiry"),
        ("early", ed("nbf", json!(now() + 90)), "401 auth.oauth.early"),
        ("nbf as text", ed("nbf", json!("0")), wrong),
        ("iat as a list", ed("iat", json!([1])), wrong),
        ("no aud", without("aud"), audience),
        ("aud of another", ed("aud", json!("https://other.example.com/x")), audience),
        ("aud of the origin", ed("aud", json!("https://mcp.example.com")), audience),
        ("aud that begins alike", ed("aud", json!(format!("{RESOURCE}y"))), audience),
        ("aud below", ed("aud", json!(format!("{RESOURCE}/y"))), audience),
        ("aud with two slashes", ed("aud", json!(format!("{RESOURCE}//"))), audience),
        ("aud with http", ed("aud", json!(RESOURCE.replace("https", "http"))), audience),
        ("aud in upper case", ed("aud", json!(RESOURCE.to_uppercase())), audience),
        ("aud empty", ed("aud", json!([])), audience),
        ("aud of others", ed("aud", json!(["a", "https://mcp.example.com/"])), audience),
        ("aud as an object", ed("aud", json!({ RESOURCE: true })), wrong),
        ("aud with a number", ed("aud", json!([RESOURCE, 7])), wrong),
        ("aud nested", ed("aud", json!([[RESOURCE]])), wrong),
        ("no iss", without("iss"), "401 auth.oauth.algorithm"),
        ("iss with a slash", ed("iss", json!(format!("{iss}/"))), issuer),
        ("iss with a path", ed("iss", json!(format!("{iss}/x"))), issuer),
        ("iss with a blank", ed("iss", json!(format!("{iss} "))), issuer),
        ("iss in upper case", ed("iss", json!(iss.to_uppercase())), issuer),
        ("iss as a list", ed("iss", json!([iss])), issuer),
        ("iss null", ed("iss", json!(null)), issuer),
        ("iss of a stranger", ed("iss", json!("https://evil.example.com")), issuer),
        ("iss of the secret", ed("iss", json!("internal")), "401 auth.oauth.algorithm"),
        ("no sub", without("sub"), "401 auth.oauth.subject"),
        ("sub empty", ed("sub", json!("")), "401 auth.oauth.subject"),
        ("sub as a number", ed("sub", json!(7)), "401 auth.oauth.subject"),
        ("cnf by jkt", ed("cnf", json!({ "jkt": "x" })), "401 auth.oauth.bound"),
        ("cnf by certificate", ed("cnf", json!({ "x5t#S256": "x" })), "401 auth.oauth.bound"),
        ("an ID token by at_hash", ed("at_hash", json!("x")), "401 auth.oauth.purpose"),
        ("an ID token by c_hash", ed("c_hash", json!("x")), "401 auth.oauth.purpose"),
        ("an ID token of Cognito", ed("token_use", json!("id")), "401 auth.oauth.purpose"),
        ("an ID token of Keycloak", ed("typ", json!("ID")), "401 auth.oauth.purpose"),
        ("a refresh token of Keycloak", ed("typ", json!("Refresh")), "401 auth.oauth.purpose"),
        ("a logout token", ed("events", json!({})), "401 auth.oauth.purpose"),
        ("scope as a number", ed("scope", json!(7)), wrong),
        (
            "a shared secret, too short for it",
            hs256(b"x", json!({ "alg": "HS256" }), json!({})),
            "401 auth.oauth.signature",
        ),
        (
            "a shared secret, audience of another",
            hs256(SECRET.as_bytes(), json!({ "alg": "HS256" }), json!({ "sub": "a", "aud": "x" })),
            audience,
        ),
        (
            "a shared secret, expired",
            hs256(SECRET.as_bytes(), json!({ "alg": "HS256" }), json!({ "sub": "a", "exp": 1 })),
            "401 auth.oauth.expired",
        ),
        (
            "a shared secret, in another's name",
            hs256(SECRET.as_bytes(), json!({ "alg": "HS256" }), json!({ "sub": "a", "iss": iss })),
            "401 auth.oauth.algorithm",
        ),
    ]
}

/// Requests that carry a good token in a bad way.
fn carried(keys: &Keys, iss: &str) -> Vec<Case> {
    let good = keys.ed.token(head("EdDSA"), claims(iss));
    let line = bearer(&good);
    vec![
        ("no token", String::new(), "401 auth.none"),
        ("another scheme", format!("Authorization: Token {good}\r\n"), "401 auth.none"),
        ("DPoP", format!("Authorization: DPoP {good}\r\n"), "401 auth.none"),
        ("no scheme", format!("Authorization: {good}\r\n"), "401 auth.none"),
        ("no blank", format!("Authorization: Bearer{good}\r\n"), "401 auth.none"),
        ("two headers", format!("{line}{line}"), "400 auth.doubled"),
        ("two headers, one bad", format!("{line}Authorization: Bearer x\r\n"), "400 auth.doubled"),
        ("Basic and Bearer", format!("Authorization: Basic YTpi\r\n{line}"), "400 auth.doubled"),
        (
            "Basic and Bearer in one",
            format!("Authorization: Basic YTpi, Bearer {good}\r\n"),
            "401 auth.none",
        ),
        (
            "Bearer and Basic in one",
            format!("Authorization: Bearer {good}, Basic YTpi\r\n"),
            "400 auth.oauth.malformed",
        ),
        (
            "another header",
            format!("X-Authorization: Bearer {good}\r\nProxy-Authorization: Bearer {good}\r\n"),
            "401 auth.none",
        ),
        ("a cookie", format!("Cookie: access_token={good}\r\n"), "401 auth.none"),
    ]
}

fn published() -> (Keys, Provider) {
    let keys = Keys::new();
    let provider = provider(&keys.published());
    (keys, provider)
}

#[test]
fn every_token_of_the_table_is_refused_and_nothing_of_it_goes_on() {
    let ((keys, provider), backend) = (published(), plain());
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let secret = format!(
        "{{ issuer: internal, secret: \"${{file:{}}}\", waive: [ iss, aud, exp ] }}",
        secret.display()
    );
    let issuers = format!("{}, {secret}", issuer(&provider, ""));
    let edge = guarded(&backend, &oauth(&issuers, ""), "").start();
    let iss = provider.issuer();
    let tokens = [heads(&keys, &iss), forms(&keys, &iss), payloads(&keys, &iss)].concat();
    let mut cases: Vec<Case> = tokens
        .into_iter()
        .map(|(name, token, expected)| (name, bearer(&token), expected))
        .collect();
    cases.extend(carried(&keys, &iss));
    assert!(cases.len() >= 60, "only {}", cases.len());
    let mut wrong = Vec::new();
    for (name, lines, expected) in &cases {
        let answer = edge.ask(with(lines));
        let found = outcome(&edge, &answer);
        if found != *expected {
            wrong.push(format!("{name}: {found}, not {expected}"));
            continue;
        }
        let said = challenges(&answer);
        let error = match (answer.status, *expected) {
            (_, "401 auth.none") => "Bearer resource_metadata=",
            (401, _) => "Bearer error=\"invalid_token\", error_description=\"",
            (_, "400 auth.doubled" | "431 h1.field_size") => "",
            _ => "Bearer error=\"invalid_request\", error_description=\"",
        };
        let fits = if error.is_empty() {
            said.is_empty()
        } else {
            said.len() == 1 && said[0].starts_with(error)
        };
        if !fits {
            wrong.push(format!("{name}: challenged by {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(backend.count(), 0, "something went on");
    assert_eq!(provider.calls("/evil"), 0, "a token has sent us somewhere");
    // and the same by what they should have been
    for (signer, algorithm, kid) in [
        (&keys.ed, "EdDSA", "k"),
        (&keys.p256, "ES256", "p256"),
        (&keys.rsa, "RS256", "rsa"),
        (&keys.rsa, "PS384", "rsa"),
        (&keys.rsa, "RS256", "only-rs256"),
    ] {
        let token = signer.token(self::kid(algorithm, kid), claims(&iss));
        assert_eq!(outcome(&edge, &edge.ask(with(&bearer(&token)))), "200 ok", "{algorithm}");
    }
    let token = hs256(SECRET.as_bytes(), json!({ "alg": "HS256" }), json!({ "sub": "a" }));
    assert_eq!(outcome(&edge, &edge.ask(with(&bearer(&token)))), "200 ok");
    assert_eq!(backend.count(), 6);
    assert_eq!(backend.last().header("authorization"), None, "the token ends here");
}

#[test]
fn a_token_in_the_query_is_none_and_beside_another_one_too_many() {
    let ((keys, provider), backend) = (published(), plain());
    let edge = guarded(&backend, &oauth(&issuer(&provider, ""), ""), "").start();
    let good = keys.ed.token(head("EdDSA"), claims(&provider.issuer()));
    let ask = |query: &str, lines: &str| {
        let answer = edge.ask(format!("GET /x?{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        outcome(&edge, &answer)
    };
    assert_eq!(ask(&format!("access_token={good}"), ""), "401 auth.none");
    assert_eq!(
        ask(&format!("a=b&access_token={good}"), &bearer(&good)),
        "400 auth.oauth.malformed"
    );
    assert_eq!(ask("access_token", &bearer(&good)), "400 auth.oauth.malformed");
    assert_eq!(ask("my_access_token=1&x=access_token", &bearer(&good)), "200 ok");
    assert_eq!(backend.count(), 1);
}
