//! In: requests; out: the access log's lines and the metrics about them, and no secret in either.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::support::backend::{backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::edge;
use crate::support::h2::{H2, request};
use crate::support::mcp;
use crate::support::wait::DEADLINE;

#[test]
fn each_request_has_one_line_with_its_fields() {
    let backend = plain();
    let edge =
        edge().upstream("tools", &[backend.url()], "").route("path: /mcp, upstream: tools").start();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1}}}"#;
    let answer = edge.ask(post(
        "localhost",
        "/mcp/x?secret=query",
        "MCP-Protocol-Version: 2025-11-25\r\n",
        body,
    ));
    let line = edge.log_of(&answer);
    let expected = [
        ("event", "request"),
        ("client", "127.0.0.1"),
        ("upstream", "tools"),
        ("replica", &backend.authority()),
        ("era", "legacy"),
        ("rpc_method", "tools/call"),
        ("tool", "add"),
        ("method", "POST"),
        ("path", "/mcp/x"),
        ("http", "1.1"),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes_in"], body.len());
    assert_eq!(line["bytes_out"], answer.body.len());
    assert!(line.get("code").is_none_or(Value::is_null), "{line}");
    assert!(line["route"].as_str().unwrap().contains("/mcp"), "{line}");
    let (whole, first) =
        (line["duration_ms"].as_f64().unwrap(), line["first_byte_ms"].as_f64().unwrap());
    assert!(first <= whole && whole < 60_000.0, "{line}");
    let time = line["time"].as_str().unwrap();
    assert!(
        time.len() == 24 && time.ends_with('Z') && &time[10..11] == "T" && &time[19..20] == ".",
        "{time}"
    );
}

#[test]
fn eras_protocols_and_refusals_are_told_apart() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut tls = Client::tls(edge.address(), certs.client(&[]), "localhost");
    let modern = tls.ask(mcp::modern("/", "", 1));
    let line = edge.log_of(&modern);
    assert_eq!(
        (&line["era"], &line["rpc_method"]),
        (&"modern".into(), &"tools/list".into()),
        "{line}"
    );
    let none = edge.log_of(&tls.ask(get("localhost", "/page")));
    assert_eq!(none["era"], "none", "{none}");
    let mut h2 = H2::connect(edge.address(), certs.client(&["h2"]));
    assert_eq!(edge.log_of(&h2.ask(request("GET", "/", &[]), b"").unwrap())["http"], "2");
    for (request, status) in [
        (get("evil.example.net", "/"), 421),
        (get("localhost", "/a/../b"), 400),
        (mcp::call("/", "forged", 1), 404),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(), 400),
    ] {
        let refused = Client::tls(edge.address(), certs.client(&[]), "localhost").ask(&request);
        let line = edge.log_of(&refused);
        assert_eq!(line["status"], status, "{line}");
        let code = line["code"].as_str().unwrap_or_default();
        assert!(code.contains('.'), "a stable name of the cause: {line}");
        assert!(line.get("replica").is_none_or(Value::is_null), "{line}");
    }
}

#[test]
fn a_stream_has_a_second_line_at_its_end() {
    let backend = backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", ""));
    let start = client.start();
    assert_eq!(client.chunks(9), b"data: 1\n\n");
    let id = start.header("x-request-id").unwrap().to_owned();
    let begun = edge.log("the stream's start", |v| v["request_id"] == id);
    assert_eq!((&begun["event"], &begun["bytes_out"]), (&"stream_start".into(), &0.into()));
    drop(client);
    let line =
        edge.log("the stream's end", |v| v["event"] == "stream_end" && v["request_id"] == id);
    assert_eq!(line["bytes_out"], 9, "{line}");
    assert!(line["duration_ms"].as_f64().is_some());
}

#[test]
fn nothing_secret_is_logged_or_counted() {
    let (a, b) = (mcp::replica("a"), mcp::replica("b"));
    let edge = edge()
        .top("admin: { address: \"127.0.0.1:0\" }")
        .upstream("two", &[a.url(), b.url()], "")
        .route("path: /mcp, upstream: two")
        .start();
    let started = edge.ask(mcp::initialize("/mcp?q=SECRET-QUERY"));
    let id = mcp::session(&started);
    let lines = format!(
        "Mcp-Session-Id: {id}\r\nAuthorization: Bearer SECRET-TOKEN\r\nCookie: a=SECRET-COOKIE\r\n\
         X-Api-Key: SECRET-KEY\r\nUser-Agent: SECRET-AGENT\r\n"
    );
    let body = r#"{"jsonrpc":"2.0","id":"SECRET-ID","method":"tools/call","params":{"name":"add","arguments":{"x":"SECRET-BODY"}}}"#;
    let called = edge.ask(post("localhost", "/mcp", &lines, body));
    assert_eq!(called.status, 200);
    let forged = edge.ask(mcp::call("/mcp", "SECRET-FORGED", 1));
    for answer in [&started, &called, &forged] {
        edge.log_of(answer);
    }
    let metrics = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    for line in edge.stdout().iter().chain(&edge.stderr()).chain([&metrics]) {
        assert!(!line.contains("SECRET"), "{line}");
        assert!(!line.contains(&id) && !line.contains("session-0"), "{line}");
    }
    assert_eq!(edge.stdout().len(), 3, "one line per request: {:?}", edge.stdout());
}

#[test]
fn hostile_names_cannot_break_a_line_or_a_label() {
    let backend = plain();
    let edge = edge().top("admin: { address: \"127.0.0.1:0\" }").to(&backend).start();
    let long = "t".repeat(100_000);
    for name in
        [r#"a\"} fake 1\n{"event":"request""#, "\\u0000\\u001b[2J", long.as_str(), "\u{202e}x"]
    {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#
        );
        let answer = edge.ask(post("localhost", "/x", "", &body));
        assert_eq!(answer.status, 200);
        let line = edge.log_of(&answer);
        assert!(line["tool"].as_str().unwrap_or_default().len() <= 1024, "bounded");
    }
    for line in edge.stdout() {
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    }
    let metrics = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    assert!(!metrics.contains("fake 1") && metrics.len() < 200_000, "labels come from closed sets");
}

/// All samples of the metrics page, summed by metric.
fn total(page: &str, part: &str) -> f64 {
    let samples = page.lines().filter(|l| !l.starts_with('#') && l.contains(part));
    samples.filter_map(|l| l.rsplit_once(' ')).filter_map(|(_, v)| v.parse::<f64>().ok()).sum()
}

#[test]
fn the_admin_listener_serves_metrics_and_health() {
    let backend = plain();
    let edge = edge().top("admin: { address: \"127.0.0.1:0\" }").to(&backend).start();
    let page = || {
        let answer = Client::plain(edge.admin()).ask(get("localhost", "/metrics"));
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
        answer.text()
    };
    for _ in 0..3 {
        edge.log_of(&edge.get("/x"));
    }
    edge.log_of(&edge.ask(get("evil.example.net", "/")));
    let text = page();
    assert!(
        text.lines().any(|l| l.starts_with("# TYPE mcp_edge_") && l.ends_with(" counter")),
        "{text}"
    );
    assert!(
        text.lines().any(|l| l.starts_with("# TYPE mcp_edge_") && l.ends_with(" histogram")),
        "{text}"
    );
    let requests = total(&text, "requests_total");
    for _ in 0..5 {
        edge.log_of(&edge.get("/x"));
    }
    assert!(total(&page(), "requests_total") >= requests + 5.0, "{text}");
    let mut admin = Client::plain(edge.admin());
    assert_eq!(admin.ask(get("localhost", "/healthz")).status, 200);
    assert_eq!(Client::plain(edge.admin()).ask(get("localhost", "/nothing")).status, 404);
    assert_eq!(backend.count(), 8, "the admin listener forwards nothing");
}

#[test]
fn what_is_under_way_at_a_replica_is_counted_until_it_ends() {
    let backend = backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let edge = edge().top("admin: { address: \"127.0.0.1:0\" }").to(&backend).start();
    // the second is part of the first: what is no work, for an autoscaler
    let gauges = || {
        let page = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
        ["mcp_edge_in_flight{", "mcp_edge_in_flight_listening{", "mcp_edge_streams{"]
            .map(|name| total(&page, name))
    };
    let open = |request: String| {
        let mut client = edge.client();
        client.send(request);
        client.start();
        assert_eq!(client.chunks(9), b"data: 1\n\n");
        client
    };
    let mut clients: Vec<Client> =
        (0..3).map(|_| open(get_events("localhost", "/x", ""))).collect();
    assert_eq!(gauges(), [3.0, 3.0, 3.0]);
    // somebody waits for the end of this one
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#;
    let called = open(post("localhost", "/x", "", call));
    assert_eq!(gauges(), [4.0, 3.0, 4.0]);
    drop(called);
    clients.pop();
    let end = Instant::now() + DEADLINE;
    while gauges() != [2.0, 2.0, 2.0] {
        assert!(Instant::now() < end, "{:?} after one of three left", gauges());
    }
    drop(clients);
    while gauges() != [0.0, 0.0, 0.0] {
        assert!(Instant::now() < end, "{:?} after all left", gauges());
    }
}

#[test]
fn the_access_log_may_be_a_file_or_off() {
    let backend = plain();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let to_file = edge().top(&format!("access_log: \"{}\"", file.display())).to(&backend).start();
    let answer = to_file.get("/x");
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert!(to_file.stdout().is_empty());
    to_file.stop();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() == 1 && text.contains(&id), "{text}");
    let off = edge().top("access_log: off").to(&backend).start();
    assert_eq!(off.get("/x").status, 200);
    off.stop();
}
