//! In: rules about users with passwords, keys with metadata, and everybody; out: who may call what.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Keys, body, call, guarded, tools, verdict};
use crate::support::certs::Certs;
use crate::support::client::post;

/// A line of an htpasswd file with the password `w` (`htpasswd -nbs`).
const SHA: &str = "{SHA}r/Ak/kqw/s5Akd4ETFjJrkIzODo=";

#[test]
fn rules_tell_callers_apart() {
    let (keys, backend) = (Keys::new(), tools());
    let users = keys.0.path().join("htpasswd");
    std::fs::write(&users, format!("ann:{SHA}\nguest7:{SHA}\n")).unwrap();
    let (a, of_a) = keys.key("ci-a", "tenant: a");
    let (c, of_c) = keys.key("ci-c", "tenant: c");
    let auth = format!(
        "{{ basic: {{ file: \"{}\" }} }}, {{ api_key: {{ keys: [ {a}, {c} ] }} }}, anonymous",
        users.display()
    );
    let edge = guarded(
        &backend,
        &auth,
        "tools: [ { deny: [ \"delete_*\" ], when: { subject: [ \"guest*\" ] } }, \
                  { allow: [ \"get_*\" ] }, \
                  { allow: [ \"*\" ], when: { method: [ basic ] } }, \
                  { allow: [ \"put_?\" ], when: { metadata.tenant: [ a, b ] } } ]",
    )
    .start();
    let basic = |user: &str| {
        format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:w")))
    };
    let (ann, guest) = (basic("ann"), basic("guest7"));
    let mut through = 0;
    for (who, tool, allowed) in [
        (ann.as_str(), "get_x", true),
        (&ann, "delete_x", true),
        (&guest, "delete_x", false),
        (&guest, "get_x", true),
        (&guest, "put_long", true),
        (&of_a, "get_x", true),
        (&of_a, "put_x", true),
        (&of_a, "put_xy", false),
        (&of_a, "Get_x", false),
        (&of_c, "put_x", false),
        (&of_c, "get_x", true),
        ("", "get_x", true),
        ("", "put_x", false),
        ("", "delete_x", false),
    ] {
        let answer = edge.ask(call(tool, who));
        let expected = if allowed { (200, "ok") } else { (403, "authz.tool") };
        let (status, code) = verdict(&edge, &answer);
        assert_eq!((status, code.as_str()), expected, "{who}{tool}");
        through += usize::from(allowed);
        assert_eq!(backend.count(), through, "{who}{tool}");
    }
}

#[test]
fn a_refusal_says_which_rule_to_the_log_alone() {
    let backend = tools();
    let edge =
        guarded(&backend, "anonymous", "tools: [ { deny: [ drop ] }, { allow: [ \"get_*\" ] } ]")
            .start();
    for (tool, why) in [("drop", "denies it"), ("other", "allows it")] {
        let answer = edge.ask(call(tool, ""));
        let refusal = answer.assert_refused(403);
        assert_eq!(refusal["id"], 7);
        assert_eq!(refusal["error"]["message"], "This tool is not allowed");
        let line = edge.log_of(&answer);
        assert_eq!((&line["code"], &line["tool"]), (&"authz.tool".into(), &tool.into()));
        let detail = line["detail"].as_str().unwrap();
        assert!(detail.contains("in line ") && detail.ends_with(why), "{detail}");
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn what_a_route_requires_it_requires_of_every_request() {
    let (keys, backend) = (Keys::new(), tools());
    let (a, of_a) = keys.key("a", "tenant: a, team: x");
    let (b, of_b) = keys.key("b", "tenant: b, team: x");
    let (c, of_c) = keys.key("c", "tenant: a");
    let auth = format!("{{ api_key: {{ keys: [ {a}, {b}, {c} ] }} }}");
    let require = "require: { metadata.tenant: [ a, \"z*\" ], metadata.team: [ \"*\" ] }";
    let edge = guarded(&backend, &auth, require).start();
    let get = |who: &str| format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{who}\r\n");
    let ping = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;
    for who in [&of_b, &of_c] {
        for request in [call("x", who), get(who), post("localhost", "/mcp", who, ping)] {
            let answer = edge.ask(request);
            assert_eq!(verdict(&edge, &answer), (403, "authz.require".to_owned()));
        }
    }
    let refusal = edge.ask(post("localhost", "/mcp", &of_b, ping)).assert_refused(403);
    assert_eq!(refusal["id"], "p");
    // nobody waits for a body that will not be read
    let mut waiting = edge.client();
    waiting.send(format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{of_b}Content-Length: 1000000\r\n\r\n"
    ));
    waiting.response().assert_refused(403);
    assert_eq!(backend.count(), 0);
    assert_eq!(edge.ask(call("x", &of_a)).status, 200);
    // it is not about tools: bodies are as free as without it
    let lines = format!("Content-Type: text/plain\r\nContent-Length: 2\r\n{of_a}");
    let plain = format!("PUT /mcp HTTP/1.1\r\nHost: localhost\r\n{lines}\r\nhi");
    assert_eq!(edge.ask(plain).status, 405, "the route's own methods");
    let batch = post("localhost", "/mcp", &of_a, &format!("[{}]", body("x")));
    assert_eq!(edge.ask(batch).status, 202);
    assert_eq!(backend.count(), 2);
}

#[test]
fn other_methods_are_not_judged() {
    let backend = tools();
    let edge = guarded(&backend, "anonymous", "tools: [ { deny: [ \"*\" ] } ]").start();
    for method in ["initialize", "ping", "tools/list", "prompts/get", "tasks/result", "vendor/x"] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"x","taskId":"t"}}}}"#
        );
        assert_eq!(edge.ask(post("localhost", "/mcp", "", &body)).status, 200, "{method}");
    }
    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":"s-1","result":{"roots":[]}}"#,
        r#"{"jsonrpc":"2.0","id":"s-1","error":{"code":-1,"message":"no"}}"#,
    ] {
        assert!(edge.ask(post("localhost", "/mcp", "", body)).status < 300, "{body}");
    }
    assert_eq!(backend.count(), 9);
}

#[test]
fn certificates_and_several_credentials_at_once() {
    let (keys, backend, certs) = (Keys::new(), tools(), Certs::new());
    certs.leaf(&["ann.example"]).client("ann", 1).write("ann");
    certs.leaf(&[]).client("bob", 2).write("bob");
    let (key, of_key) = keys.key("ci", "");
    let files = ["server.pem", "server.key", "ca.pem"].map(|name| certs.path(name));
    let [cert, private, ca] = files.map(|path| path.display().to_string());
    let listener = format!(
        "tls: {{ certificates: [ {{ cert: {cert}, key: {private} }} ], client_certificates: {{ ca: {ca}, required: false }} }}"
    );
    let auth = format!(
        "{{ all: [ {{ client_certificate: {{ principal: common_name }} }}, {{ api_key: {{ keys: [ {key} ] }} }} ] }}, \
         {{ client_certificate: {{ principal: common_name }} }}"
    );
    let rules = "require: { method: [ client_certificate ], metadata.serial: [ \"*\" ] }, \
                 tools: [ { allow: [ \"*\" ], when: { name: [ ann ], issuer: [ \"*CN=*\" ] } }, { allow: [ get ] } ]";
    let edge = guarded(&backend, &auth, rules).listener(&listener).start();
    for (who, lines, tool, expected) in [
        ("ann", "", "put", 200),
        ("ann", of_key.as_str(), "put", 200),
        ("bob", "", "put", 403),
        ("bob", &of_key, "put", 403),
        ("bob", &of_key, "get", 200),
    ] {
        let answer = edge.tls(certs.client_as(who)).ask(call(tool, lines));
        assert_eq!(answer.status, expected, "{who} {tool}: {}", answer.text());
    }
}
