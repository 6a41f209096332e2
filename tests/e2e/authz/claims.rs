//! In: rules about tokens: claims by name and by path, scopes of tools; out: calls that pass or do not, and
//! lists that show what is left.

use serde_json::{Value, json};

use super::{Keys, call, guarded, tools, verdict};
use crate::support::backend::backend;
use crate::support::client::post;
use crate::support::signer::hs256;

const SECRET: &str = "an hs256 secret of thirty-two by";

/// A method that takes tokens by a shared secret; `rest` begins with a comma or is empty.
fn oauth(keys: &Keys, rest: &str) -> String {
    let secret = keys.0.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    format!(
        "{{ oauth: {{ resource: \"https://mcp.example.com/mcp\", issuers: [ {{ issuer: internal, \
         secret: \"${{file:{}}}\", waive: [ iss, aud, exp ] }} ]{rest} }} }}",
        secret.display()
    )
}

/// A header line with a token that claims this.
fn bearer(claims: &Value) -> String {
    let token = hs256(SECRET.as_bytes(), json!({ "alg": "HS256" }), claims);
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn claims_open_routes_and_tools() {
    let (keys, backend) = (Keys::new(), tools());
    let rules = "require: { groups: [ finops, \"ops-*\" ], email_verified: [ \"true\" ] }, \
                 tools: [ { deny: [ \"delete_*\" ], when: { subject: [ \"guest*\" ] } }, \
                          { allow: [ \"get_*\" ] }, \
                          { allow: [ \"*\" ], when: { realm_access.roles: [ admin ], claims.subject: [ \"7\" ] } } ]";
    let edge = guarded(&backend, &oauth(&keys, ""), rules).start();
    let claims = json!({ "sub": "ann", "groups": ["dev", "ops-1"], "email_verified": true,
                         "realm_access": { "roles": ["x", "admin"] }, "subject": 7 });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        bearer(&claims)
    };
    let (closed, tool) = ("authz.require", "authz.tool");
    for (who, name, expected) in [
        (bearer(&claims), "get_x", "ok"),
        (bearer(&claims), "delete_x", "ok"),
        (with("sub", json!("guest1")), "delete_x", tool),
        (with("sub", json!("guest1")), "get_x", "ok"),
        (with("groups", json!("finops")), "get_x", "ok"),
        (with("groups", json!(["dev"])), "get_x", closed),
        (with("groups", json!([["finops"]])), "get_x", closed),
        (with("groups", json!({ "finops": true })), "get_x", closed),
        (with("groups", Value::Null), "get_x", closed),
        (with("email_verified", json!("true")), "get_x", "ok"),
        (with("email_verified", json!(false)), "get_x", closed),
        (with("email_verified", json!("True")), "get_x", closed),
        (with("realm_access", json!({ "roles": "admin" })), "put", "ok"),
        (with("realm_access", json!({ "roles": ["Admin"] })), "put", tool),
        (with("realm_access.roles", json!([])), "put", tool),
        (with("subject", json!(7.5)), "put", tool),
    ] {
        let before = backend.count();
        let answer = edge.ask(call(name, &who));
        assert_eq!(verdict(&edge, &answer).1, expected, "{name} by {who}");
        assert_eq!(backend.count() - before, usize::from(expected == "ok"));
    }
}

#[test]
fn scopes_of_tools_and_rules_add_up() {
    let keys = Keys::new();
    let server = backend(|x| {
        if x.body().is_some() {
            x.json(r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[{"name":"get_a"},{"name":"delete_a"},{"name":"put_a"}]}}"#);
        }
    });
    let scopes = ", scopes: [ mcp:read ], tool_scopes: { \"delete_*\": [ mcp:admin ] }";
    let rules = "tools: [ { allow: [ \"get_*\", \"delete_*\" ] }, { allow: [ put_a ], when: { scope: [ mcp:write ] } } ]";
    let edge = guarded(&server, &oauth(&keys, scopes), rules).start();
    let list = post("localhost", "/mcp", "", r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#);
    // rules hide; what a scope would unlock is named, or nobody would come back with it
    for (scope, shown, may_call) in [
        ("mcp:read", &["get_a", "delete_a"][..], &["get_a"][..]),
        ("mcp:read mcp:admin", &["get_a", "delete_a"], &["get_a", "delete_a"]),
        ("mcp:read mcp:write", &["get_a", "delete_a", "put_a"], &["get_a", "put_a"]),
        (
            "mcp:read mcp:write mcp:admin",
            &["get_a", "delete_a", "put_a"],
            &["get_a", "delete_a", "put_a"],
        ),
    ] {
        let who = bearer(&json!({ "sub": "ann", "scope": scope }));
        let listed = edge.ask(list.replacen("Accept", &format!("{who}Accept"), 1)).json();
        let all = listed["result"]["tools"].as_array().unwrap();
        let names: Vec<&Value> = all.iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, shown, "{scope}");
        for tool in ["get_a", "delete_a", "put_a"] {
            let answer = edge.ask(call(tool, &who));
            let may = may_call.contains(&tool);
            assert_eq!(answer.status, if may { 200 } else { 403 }, "{scope}: {tool}");
            let step_up = answer.header("www-authenticate").is_some();
            assert_eq!(step_up, !may && tool == "delete_a", "{scope}: {tool}");
        }
    }
    let before = server.count();
    let none = edge.ask(call("get_a", &bearer(&json!({ "sub": "ann" }))));
    let refusal = none.assert_refused(403);
    assert_eq!(refusal["id"], 7);
    assert!(none.header("www-authenticate").unwrap().contains("insufficient_scope"));
    assert_eq!(server.count(), before);
}
