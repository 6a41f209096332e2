//! In: requests without a token that is good enough; out: where to get one, what is wrong with theirs, which
//! scopes they need.

use serde_json::json;

use super::{
    METADATA, bearer, challenges, claims, claims_with, good, guarded, head, issuer, oauth, outcome,
    shown, with,
};
use crate::support::backend::plain;
use crate::support::provider::provider;
use crate::support::signer::Signer;

#[test]
fn whoever_has_no_token_is_told_where_to_get_one() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let scopes = ", scopes: [ mcp:read, mcp:list ], tool_scopes: { \"delete_*\": [ mcp:admin ] }";
    let edge = guarded(&backend, &oauth(&issuer(&provider, ""), scopes), "").start();
    let tail = format!("scope=\"mcp:read mcp:list\", resource_metadata=\"{METADATA}\"");
    let answer = edge.ask(with(""));
    assert_eq!(outcome(&edge, &answer), "401 auth.none");
    assert_eq!(challenges(&answer), [format!("Bearer {tail}")]);

    let answer = shown(&edge, "opaque");
    let says =
        "error=\"invalid_token\", error_description=\"The token is not one that is accepted here\"";
    assert_eq!(challenges(&answer), [format!("Bearer {says}, {tail}")]);
    let answer = edge.ask(with(&bearer("a b")));
    assert_eq!(answer.status, 400);
    assert!(challenges(&answer)[0].starts_with("Bearer error=\"invalid_request\""));
    let expired = signer.token(head("EdDSA"), claims_with(&provider.issuer(), "exp", json!(1)));
    let answer = shown(&edge, &expired);
    let says = "error=\"invalid_token\", error_description=\"The token has expired\"";
    assert_eq!(challenges(&answer), [format!("Bearer {says}, {tail}")]);
    assert_eq!(backend.count(), 0);
}

#[test]
fn other_ways_in_are_named_behind_it_and_no_second_bearer() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "k_0123456789abcdef").unwrap();
    let key = |rest: &str| {
        format!(
            "{{ api_key: {{ {rest} keys: [ {{ name: ci, value: \"${{file:{}}}\" }} ] }} }}",
            file.display()
        )
    };
    let auth = format!(
        "{}, {}, {}",
        key("header: Authorization, prefix: k_,"),
        key(""),
        oauth(&issuer(&provider, ""), "")
    );
    let edge = guarded(&backend, &auth, "").start();
    let plain = format!("Bearer resource_metadata=\"{METADATA}\"");
    let other = "ApiKey realm=\"MCP\", header=\"x-api-key\"";
    assert_eq!(challenges(&edge.ask(with(""))), [plain.as_str(), other]);
    let answer = shown(&edge, "eyJ.x.y");
    assert!(challenges(&answer)[0].starts_with("Bearer error=\"invalid_token\""));
    assert_eq!(challenges(&answer)[1..], [other]);
    // a wrong key is no reason to begin OAuth anew, but the way is open
    let answer = shown(&edge, "k_wrong");
    assert_eq!(outcome(&edge, &answer), "401 auth.api_key.unknown");
    assert_eq!(challenges(&answer), [plain.as_str(), other]);
    assert_eq!(outcome(&edge, &shown(&edge, "k_0123456789abcdef")), "200 ok");
    assert_eq!(outcome(&edge, &shown(&edge, &good(&signer, &provider.issuer()))), "200 ok");
    assert_eq!(backend.count(), 2);
}

#[test]
fn the_caller_is_known_by_issuer_and_subject() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let rest = "identity: { X-User: subject, X-Issuer: issuer, X-Name: name, X-Client: metadata.client_id, \
                X-Groups: claims.groups, X-Roles: claims.realm_access.roles, X-None: claims.none }";
    let auth = oauth(&issuer(&provider, ""), ", principal: [ tid, sub ]");
    let edge = guarded(&backend, &auth, rest).start();
    let mut claims = claims(&provider.issuer());
    claims["tid"] = json!("a/b");
    claims["preferred_username"] = json!("Ann");
    claims["client_id"] = json!("cli");
    claims["groups"] = json!(["x,y", "z"]);
    claims["realm_access"] = json!({ "roles": ["admin"] });
    let token = signer.token(head("EdDSA"), &claims);
    let lies = "X-User: root\r\nX-Groups: root\r\nX_None: root\r\n";
    let answer = edge.ask(with(&format!("{}{lies}", bearer(&token))));
    assert_eq!(outcome(&edge, &answer), "200 ok");
    let seen = backend.last();
    for (name, value) in [
        ("x-user", "a%252Fb/ann"),
        ("x-issuer", provider.issuer().as_str()),
        ("x-name", "Ann"),
        ("x-client", "cli"),
        ("x-groups", "x%2Cy,z"),
        ("x-roles", "admin"),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    assert_eq!(seen.header("x-none"), None);
    assert_eq!(seen.header("authorization"), None);
    let log = edge.log_of(&answer);
    assert_eq!((&log["auth"], &log["principal"]), (&"oauth".into(), &"a%2Fb/ann".into()));
    assert!(!edge.stdout().concat().contains(&token), "no token in the log");
}
