//! In: credentials that end at the edge, callers that are named, fields that are set; out: what the backend
//! hears.

use super::{Files, WORD, basic, guarded, outcome, with};
use crate::support::backend::{Seen, plain};
use crate::support::client::post;
use crate::support::edge::edge;

const KEY: &str = "X-API-Key: a-key-0123456789abcdef\r\n";

fn both(files: &Files) -> String {
    let value = files.write("key", "a-key-0123456789abcdef");
    let key = format!(
        "{{ api_key: {{ keys: [ {{ name: ci, value: \"${{file:{value}}}\", metadata: {{ tenant: \"a b\", empty: e }} }} ] }} }}"
    );
    format!("{}, {key}", files.basic("htpasswd", ""))
}

fn assert_absent(seen: &Seen, names: &[&str]) {
    for name in names {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn credentials_end_at_the_edge() {
    let (files, backend) = (Files::new(), plain());
    let edge = guarded(&backend, &both(&files), "").start();
    let right = basic("sha", WORD);
    let names = ["authorization", "x-api-key", "x_api_key", "x.api.key"];
    for lines in [
        right.clone(),
        KEY.to_owned(),
        // whichever decides, the other goes no further either
        right.clone() + KEY,
        format!("{right}X_API_KEY: smuggled\r\nX.Api.Key: smuggled\r\n"),
    ] {
        assert_eq!(outcome(&edge, &lines), "ok");
        assert_absent(&backend.last(), &names);
    }
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(edge.ask(post("localhost", "/x", &right, body)).status, 200);
    assert_absent(&backend.last(), &names);
}

#[test]
fn a_route_may_pass_them_on() {
    let (files, backend) = (Files::new(), plain());
    let edge = guarded(&backend, &both(&files), "forward_credentials: true").start();
    let right = basic("sha", WORD);
    assert_eq!(outcome(&edge, &(right.clone() + KEY)), "ok");
    let sent = right.trim().strip_prefix("Authorization: ").unwrap();
    assert_eq!(backend.last().all("authorization"), [sent]);
    assert_eq!(backend.last().all("x-api-key"), ["a-key-0123456789abcdef"]);
}

#[test]
fn what_is_no_credential_of_the_route_passes() {
    let (files, backend) = (Files::new(), plain());
    let value = files.write("key", "a-key-0123456789abcdef");
    let key =
        format!("{{ api_key: {{ keys: [ {{ name: ci, value: \"${{file:{value}}}\" }} ] }} }}");
    let edge = guarded(&backend, &format!("{key}, anonymous"), "").start();
    assert_eq!(outcome(&edge, "Authorization: Bearer of-the-server\r\n"), "ok");
    assert_eq!(backend.last().all("authorization"), ["Bearer of-the-server"]);
}

#[test]
fn the_caller_is_named_and_nobody_else_can_be() {
    let (files, backend) = (Files::new(), plain());
    let identity = "identity: { X-Forwarded-User: subject, X-Auth-Method: method, X-Issuer: issuer, \
                    X-Name: name, X-Tenant: metadata.tenant, X-None: metadata.none }";
    let edge = guarded(&backend, &both(&files), identity).start();
    let lies = "X-Forwarded-User: root\r\nx-auth-method: root\r\nX-Issuer: root\r\nX-NAME: root\r\n\
                X-Tenant: root\r\nX-None: root\r\nX_Forwarded_User: root\r\nX_Auth_Method: root\r\n\
                X-Auth_Method: root\r\nX_TENANT: root\r\nx_none: root\r\nX.Tenant: root\r\n\
                Connection: X-Forwarded-User, X-Tenant, X-Auth-Method\r\n";
    for (lines, expected) in [
        (
            basic("jörg müller", WORD),
            vec![
                ("x-forwarded-user", "j%C3%B6rg%20m%C3%BCller"),
                ("x-auth-method", "basic"),
                ("x-issuer", "MCP"),
                ("x-name", "j%C3%B6rg%20m%C3%BCller"),
            ],
        ),
        (
            KEY.to_owned(),
            vec![
                ("x-forwarded-user", "ci"),
                ("x-auth-method", "api_key"),
                ("x-name", "ci"),
                ("x-tenant", "a%20b"),
            ],
        ),
    ] {
        assert_eq!(outcome(&edge, &(lines + lies)), "ok");
        let seen = backend.last();
        for (name, value) in &expected {
            assert_eq!(seen.all(name), [*value], "{name}");
        }
        for (name, value) in &seen.headers {
            assert!(!value.contains("root"), "{name}: {value}");
        }
        for name in ["x-issuer", "x-tenant", "x-none"] {
            let said = expected.iter().any(|(expected, _)| *expected == name);
            assert_eq!(seen.header(name).is_some(), said, "{name}");
        }
    }
}

#[test]
fn nobody_is_named_when_nobody_is_known() {
    let backend = plain();
    let edge =
        guarded(&backend, "anonymous", "identity: { X-User: subject, X-Method: method }").start();
    assert_eq!(outcome(&edge, "X-User: root\r\nX_User: root\r\nX-Method: root\r\n"), "ok");
    assert_absent(&backend.last(), &["x-user", "x_user"]);
    assert_eq!(backend.last().all("x-method"), ["anonymous"]);
}

#[test]
fn fields_are_set_and_removed() {
    let backend = plain();
    let rest =
        "request_headers: { set: { X-Env: prod, Accept: a/b }, remove: [ X-Debug, Cookie ] }";
    let edge = guarded(&backend, "anonymous", rest).start();
    let lines = "X-Env: test\r\nx-env: test\r\nX_Env: test\r\nX-Debug: 1\r\nX_Debug: 1\r\nCookie: a=b\r\n\
                 Accept: text/html\r\nX-Other: kept\r\n";
    assert_eq!(edge.ask(with(lines)).status, 200);
    let seen = backend.last();
    assert_eq!(seen.all("x-env"), ["prod"]);
    assert_eq!(seen.all("accept"), ["a/b"]);
    assert_eq!(seen.all("x-other"), ["kept"]);
    assert_absent(&seen, &["x_env", "x-debug", "x_debug", "cookie"]);
}

#[test]
fn the_edge_shows_its_own_credential_to_a_vendor() {
    let (files, backend) = (Files::new(), plain());
    let secret = files.write("secret", "s3cret\n");
    for (credentials, name, value) in [
        (format!("{{ bearer: \"${{file:{secret}}}\" }}"), "authorization", "Bearer s3cret"),
        (
            format!("{{ basic: {{ user: edge, password: \"${{file:{secret}}}\" }} }}"),
            "authorization",
            "Basic ZWRnZTpzM2NyZXQ=",
        ),
        (
            format!("{{ header: {{ name: X-Vendor-Key, value: \"${{file:{secret}}}\" }} }}"),
            "x-vendor-key",
            "s3cret",
        ),
    ] {
        let edge = edge()
            .upstream("vendor", &[backend.url()], &format!("credentials: {credentials}"))
            .raw_route(
                "upstream: vendor, auth: [ anonymous ], \
                 request_headers: { set: { Authorization: of-the-route, X-Vendor-Key: of-the-route } }",
            )
            .start();
        let lines = "Authorization: mine\r\nX-Vendor-Key: mine\r\nX_Vendor_Key: mine\r\n";
        assert_eq!(edge.ask(with(lines)).status, 200);
        let seen = backend.last();
        assert_eq!(seen.all(name), [value]);
        assert!(seen.headers.iter().all(|(_, value)| value != "mine"), "{:?}", seen.headers);
        assert!(!edge.stdout().concat().contains("s3cret"));
    }
}
