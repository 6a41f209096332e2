//! In: field lines; out: which of them the other side gets (RFC 9110 §7.6), and what the edge adds.

use crate::support::backend::{backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{get, post};
use crate::support::edge::edge;

fn with(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

#[test]
fn hop_by_hop_fields_of_a_request_end_here() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let lines = "Connection: keep-alive, X-Nominated\r\nConnection: x-second\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: keep-alive\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nX-Nominated: 1\r\n\
                 X-Second: 2\r\nX-End-To-End: 3\r\nX-Twice: a\r\nx-twice: b\r\nX-Empty:\r\n";
    assert_eq!(edge.ask(with(lines)).status, 200);
    let seen = backend.last();
    for gone in [
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "x-nominated",
        "x-second",
        "http2-settings",
    ] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    let connection = seen.header("connection").unwrap_or_default().to_lowercase();
    assert!(!connection.contains("nominated") && !connection.contains("upgrade"), "{connection}");
    assert_eq!(seen.header("x-end-to-end").as_deref(), Some("3"));
    assert_eq!(seen.all("x-twice"), ["a", "b"], "order and number are kept");
    assert_eq!(seen.header("x-empty").as_deref(), Some(""));
    assert_eq!(seen.version, "HTTP/1.1");
}

#[test]
fn connection_cannot_strip_what_the_edge_itself_says() {
    // A client that nominates these would hide itself from the backend, or lose the framing.
    let backend = plain();
    let edge = edge().to(&backend).start();
    let nominated = "Connection: close, Host, X-Forwarded-For, Forwarded, X-Request-Id, Content-Length, Content-Type\r\n";
    let answer = edge.ask(post("localhost", "/x", nominated, "{}"));
    // Refusing such a request is fine too (RFC 9110 §7.6.1: a sender MUST NOT do this).
    if answer.status == 400 {
        assert_eq!(backend.count(), 0);
        return;
    }
    assert_eq!(answer.status, 200);
    let seen = backend.last();
    assert_eq!(seen.body, b"{}");
    for kept in ["host", "x-forwarded-for", "forwarded", "x-request-id", "content-length"] {
        assert!(seen.header(kept).is_some(), "{kept}");
    }
}

#[test]
fn hop_by_hop_fields_of_an_answer_end_here() {
    let backend = backend(|x| {
        let headers = [
            ("Connection", "keep-alive, X-Nominated"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("X-Nominated", "1"),
            ("X-End-To-End", "2"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Cache-Control", "no-cache"),
            ("content-type", "text/plain"),
        ];
        x.answer("200 OK", &headers, b"hello");
    });
    let edge = edge().to(&backend).start();
    let answer = edge.get("/x");
    for gone in ["keep-alive", "proxy-connection", "x-nominated"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert!(!answer.header("connection").unwrap_or_default().to_lowercase().contains("nominated"));
    assert_eq!(answer.header("x-end-to-end"), Some("2"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.count("set-cookie"), 2, "RFC 6265 §3: never folded into one");
    assert_eq!(answer.body, b"hello");
}

#[test]
fn the_backend_learns_the_client_from_the_edge_alone() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let host = format!("localhost:{}", edge.address().port());
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nx-forwarded-proto: https\r\n\
                X-Forwarded-Host: evil.example.net\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Server: evil\r\n\
                X-Forwarded-Prefix: /evil\r\nForwarded: for=6.6.6.6;proto=https\r\nForwarded: for=7.7.7.7\r\n";
    let answer = edge.ask(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{lies}\r\n"));
    assert_eq!(answer.status, 200);
    let seen = backend.last();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), [host.as_str()]);
    let forwarded = seen.all("forwarded");
    assert_eq!(forwarded.len(), 1);
    // RFC 7239 §4; a host with a port needs quotes.
    let parts: Vec<_> = forwarded[0].split(';').map(str::trim).collect();
    assert!(parts.contains(&"for=127.0.0.1"), "{parts:?}");
    assert!(parts.contains(&"proto=http"), "{parts:?}");
    assert!(parts.contains(&format!("host=\"{host}\"").as_str()), "{parts:?}");
    for (name, value) in &seen.headers {
        assert!(
            !value.contains("evil") && !value.contains("6.6.6.6") && value != "1",
            "{name}: {value}"
        );
    }
}

#[test]
fn underscores_do_not_smuggle_a_forwarded_field() {
    // WSGI and CGI read `X_Forwarded_For` as `X-Forwarded-For`.
    let backend = plain();
    let edge = edge().to(&backend).start();
    let answer = edge.ask(with("X_Forwarded_For: 6.6.6.6\r\nMcp_Session_Id: x\r\n"));
    if answer.status == 200 {
        assert_eq!(backend.last().header("x_forwarded_for"), None);
    } else {
        answer.assert_refused(400);
    }
}

#[test]
fn over_tls_the_backend_hears_https() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    assert_eq!(edge.tls(certs.client(&[])).ask(get("localhost", "/x")).status, 200);
    let seen = backend.last();
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-host"), ["localhost"]);
    assert!(seen.header("forwarded").unwrap().contains("proto=https"));
}

#[test]
fn the_host_header_is_the_servers_the_clients_or_a_fixed_one() {
    let backend = plain();
    for (rest, expected) in [
        ("", backend.authority()),
        ("host: server", backend.authority()),
        ("host: client", "localhost:1234".to_owned()),
        ("host: { fixed: inner.example.com }", "inner.example.com".to_owned()),
    ] {
        let edge = edge().upstream("one", &[backend.url()], rest).route("upstream: one").start();
        assert_eq!(edge.ask(get("localhost:1234", "/x")).status, 200);
        assert_eq!(backend.last().all("host"), [expected.as_str()], "{rest}");
        edge.stop();
    }
}

#[test]
fn a_request_id_joins_client_backend_and_log() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let mut ids = Vec::new();
    let mut client = edge.client();
    for _ in 0..3 {
        let answer = client.ask(get("localhost", "/x"));
        assert_eq!(answer.count("x-request-id"), 1);
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(backend.last().all("x-request-id"), [id.as_str()]);
        assert_eq!(edge.log_of(&answer)["request_id"], id.as_str());
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each request has its own");
    assert!(
        edge.ask(get("evil.example.net", "/")).header("x-request-id").is_some(),
        "refusals too"
    );
}

#[test]
fn a_hostile_request_id_does_not_reach_log_or_backend_as_it_is() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let long = "i".repeat(2000);
    for id in ["a b\" c", long.as_str()] {
        assert_eq!(edge.ask(with(&format!("X-Request-Id: {id}\r\n"))).status, 200);
        let seen = backend.last();
        assert_eq!(seen.all("x-request-id").len(), 1);
        assert_ne!(seen.all("x-request-id"), [id]);
    }
}

#[test]
fn all_ordinary_methods_pass_where_a_route_takes_them() {
    let backend = plain();
    let edge =
        edge().upstream("one", &[backend.url()], "").route("upstream: one, methods: any").start();
    let mut client = edge.client();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = client
            .ask(format!("{method} /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(backend.last().method, method);
    }
}

#[test]
fn redirects_point_to_the_public_url() {
    let public = "https://mcp.example.com/aws";
    // what the backend says (H stands for its authority), what the client reads
    let table = [
        ("http://H/mcp", "https://mcp.example.com/aws"),
        ("http://H/mcp/", "https://mcp.example.com/aws/"),
        ("http://H/mcp/x?y=z#f", "https://mcp.example.com/aws/x?y=z#f"),
        ("http://H/mcp?y", "https://mcp.example.com/aws?y"),
        // Starlette builds it from the Host it sees; other servers answer with a path.
        ("/mcp/", "/aws/"),
        ("/mcp/x?y", "/aws/x?y"),
        // Not ours to map.
        (
            "https://login.example.org/authorize?x=/mcp",
            "https://login.example.org/authorize?x=/mcp",
        ),
        ("http://H.evil.net/mcp", "http://H.evil.net/mcp"),
    ];
    let backend = backend(|x| {
        let host = x.header("host").unwrap();
        let to = x.header("x-to").unwrap().replace('H', &host);
        x.answer("307 Temporary Redirect", &[("Location", &to)], b"");
    });
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .route(&format!("host: mcp.example.com, path: /aws, public_url: \"{public}\", upstream: one, rewrite: /mcp"))
        .start();
    for (sent, read) in table {
        let answer = edge
            .ask(format!("GET /aws/ HTTP/1.1\r\nHost: mcp.example.com\r\nX-To: {sent}\r\n\r\n"));
        assert_eq!(answer.status, 307, "the client follows it, the edge does not");
        // A path and its absolute form name the same place (RFC 9110 §10.2.2).
        let origin = "https://mcp.example.com";
        let absolute =
            |l: &str| if l.starts_with('/') { format!("{origin}{l}") } else { l.to_owned() };
        let read = absolute(&read.replace('H', &backend.authority()));
        let got = answer.header("location").unwrap_or_default();
        assert_eq!(absolute(got), read, "{sent}");
        assert_eq!(answer.count("location"), 1);
    }
}
