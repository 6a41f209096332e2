//! In: what browsers send; out: who may call and read, and the headers that protect a page.

use crate::support::backend::{Backend, backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Response, get};
use crate::support::edge::{Edge, edge};

const PAGE: &str = "https://app.example.com";

fn world(rest: &str) -> (Edge, Backend) {
    let backend = backend(|x| {
        x.answer(
            "200 OK",
            &[
                ("Content-Type", "application/json"),
                ("Server", "uvicorn"),
                ("X-Frame-Options", "DENY"),
                ("Access-Control-Allow-Origin", "*"),
            ],
            b"{}",
        );
    });
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .route(&format!("host: mcp.example.com, path: /mcp, upstream: one, {rest}"))
        .start();
    (edge, backend)
}

fn preflight(edge: &Edge, origin: &str, headers: &str) -> Response {
    edge.ask(format!(
        "OPTIONS /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nOrigin: {origin}\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: {headers}\r\n\r\n"
    ))
}

fn call(edge: &Edge, origin: &str) -> Response {
    edge.ask(format!("GET /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nOrigin: {origin}\r\n\r\n"))
}

#[test]
fn preflights_of_listed_pages_are_answered_by_the_edge() {
    let (edge, backend) = world(&format!("origins: [ \"{PAGE}\" ]"));
    let answer = preflight(&edge, PAGE, "authorization,mcp-session-id,content-type,x-evil");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("authorization, mcp-session-id, content-type")
    );
    assert_eq!(
        answer.header("access-control-allow-methods"),
        Some("GET, HEAD, POST, DELETE, OPTIONS")
    );
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(answer.header("content-length"), None, "RFC 9110 §8.6");
    preflight(&edge, "https://evil.example", "authorization").assert_refused(403);
    assert_eq!(backend.count(), 0);
}

#[test]
fn answers_may_be_read_by_the_page_that_asked_and_by_no_other() {
    let (edge, _backend) = world(&format!("origins: [ \"{PAGE}\" ]"));
    let answer = call(&edge, PAGE);
    assert_eq!((answer.status, answer.count("access-control-allow-origin")), (200, 1));
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    for name in ["mcp-session-id", "www-authenticate", "mcp-protocol-version"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    assert_eq!(answer.header("vary"), Some("Origin"));
    let refused = call(&edge, "https://evil.example");
    refused.assert_refused(403);
    assert_eq!(refused.header("access-control-allow-origin"), None);
}

#[test]
fn refusals_of_a_route_can_be_read_too() {
    let (edge, _backend) = world(&format!("origins: [ \"{PAGE}\" ], methods: [ POST ]"));
    let refused = call(&edge, PAGE);
    refused.assert_refused(405);
    assert_eq!(refused.header("allow"), Some("POST"));
    assert_eq!(refused.header("access-control-allow-origin"), Some(PAGE));
    // a preflight is no use of the method OPTIONS, and tells which methods there are
    let answer = preflight(&edge, PAGE, "accept");
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some("POST")));
}

#[test]
fn every_field_of_cors_does_something() {
    let (edge, _backend) = world(&format!(
        "origins: [ \"{PAGE}\" ], \
         cors: {{ headers: [ X-Mine ], expose: [ X-Cost ], max_age: 1m, credentials: true }}"
    ));
    let answer = preflight(&edge, PAGE, "x-mine, x-other");
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-mine"));
    assert_eq!(answer.header("access-control-max-age"), Some("60"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    let answer = call(&edge, PAGE);
    assert!(answer.header("access-control-expose-headers").unwrap().ends_with(", x-cost"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
}

#[test]
fn any_page_where_that_is_said_and_the_backends_own_word_where_cors_is_off() {
    let (edge, _backend) = world("origins: any");
    assert_eq!(
        call(&edge, "https://x.example").header("access-control-allow-origin"),
        Some("https://x.example")
    );
    let (edge, backend) = world("origins: any, cors: off");
    assert_eq!(call(&edge, "https://x.example").header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight(&edge, PAGE, "accept").status, 200);
    assert_eq!(backend.last().method, "OPTIONS");
}

#[test]
fn methods_are_those_of_mcp_unless_the_route_says_otherwise() {
    let ask = |edge: &Edge, method: &str| {
        let request = format!("{method} /mcp HTTP/1.1\r\nHost: mcp.example.com\r\n\r\n");
        edge.ask(request).status
    };
    let (usual, backend) = world("");
    for method in ["PUT", "PATCH", "TRACE", "PROPFIND"] {
        assert_eq!(ask(&usual, method), 405, "{method}");
    }
    assert_eq!(backend.count(), 0);
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        assert_eq!(ask(&usual, method), 200, "{method}");
    }
    let (any, _backend) = world("methods: any");
    assert_eq!((ask(&any, "PUT"), ask(&any, "TRACE")), (200, 405));
    let (one, _backend) = world("methods: [ PUT ]");
    assert_eq!((ask(&one, "PUT"), ask(&one, "POST")), (200, 405));
}

#[test]
fn answers_are_changed_as_the_route_says() {
    let (edge, _backend) = world(
        "response_headers: { set: { X-Frame-Options: SAMEORIGIN, X-A: b }, remove: [ Server ] }",
    );
    let answer = edge.ask(get("mcp.example.com", "/mcp"));
    assert_eq!(answer.header("server"), None);
    assert_eq!((answer.count("x-frame-options"), answer.header("x-a")), (1, Some("b")));
    assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"));
    // a plain listener adds nothing by itself
    assert_eq!(answer.header("strict-transport-security"), None);
    assert_eq!(answer.header("x-content-type-options"), None);
}

#[test]
fn tls_answers_carry_security_headers_unless_told_otherwise() {
    let certs = Certs::new();
    let theirs = backend(|x| x.answer("200 OK", &[("Referrer-Policy", "origin")], b"{}"));
    let tls = |rest: &str| {
        let listener = format!("{}, {rest}", certs.listener());
        edge().listener(&listener).to(&theirs).start()
    };
    let usual = tls("");
    let ask = |edge: &Edge, path: &str| {
        let mut client = edge.tls(certs.client(&["http/1.1"]));
        client.ask(get("localhost", path))
    };
    for answer in [ask(&usual, "/"), ask(&usual, "/%00")] {
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"));
    }
    assert_eq!(ask(&usual, "/").header("referrer-policy"), Some("origin"), "the backend knows");
    assert_eq!(ask(&usual, "/").count("referrer-policy"), 1);
    assert_eq!(ask(&usual, "/%00").header("referrer-policy"), Some("no-referrer"));

    let route = "upstream: one, response_headers: { remove: [ X-Frame-Options ] }";
    let without = edge()
        .listener(&certs.listener())
        .upstream("one", &[theirs.url()], "")
        .route(route)
        .start();
    assert_eq!(ask(&without, "/").header("x-frame-options"), None, "the route has the last word");

    let told = tls("hsts: \"max-age=5; includeSubDomains\", security_headers: { X-Mine: a }");
    let answer = ask(&told, "/");
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=5; includeSubDomains"));
    assert_eq!((answer.header("x-mine"), answer.header("x-frame-options")), (Some("a"), None));

    let off = tls("hsts: off, security_headers: off");
    let answer = ask(&off, "/");
    assert_eq!(answer.header("strict-transport-security"), None);
    assert_eq!(answer.header("x-content-type-options"), None);
}

#[test]
fn an_edge_behind_a_tls_balancer_may_send_hsts() {
    let backend = plain();
    let edge = edge().listener("hsts: max-age=60").to(&backend).start();
    assert_eq!(edge.get("/").header("strict-transport-security"), Some("max-age=60"));
}
