//! In: requests, streams and sessions of all kinds; out: what the metrics page says of them, label by label.

use serde_json::Value;

use crate::support::backend::{Backend, backend, plain};
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::mcp;
use crate::support::wait::eventually;

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}"#;

/// An edge with an admin listener before a backend, for the path `/mcp`.
fn before(backend: &Backend) -> Builder {
    counted().upstream("tools", &[backend.url()], "").route("path: /mcp, upstream: tools")
}

fn counted() -> Builder {
    edge().top("admin: { address: \"127.0.0.1:0\" }")
}

/// The sum of a metric's samples that have all these labels; `None` where there is no such sample.
fn sample(edge: &Edge, name: &str, labels: &[&str]) -> Option<f64> {
    let page = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    let of_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let values = page.lines().filter(of_it).map(|line| line.rsplit_once(' ').unwrap().1);
    let values: Vec<f64> = values.map(|value| value.parse().unwrap()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Asks, and waits until it is counted: a line in the log comes behind.
fn ask(edge: &Edge, request: impl AsRef<[u8]>) -> Value {
    edge.log_of(&edge.ask(request))
}

#[test]
fn requests_are_timed_by_route_upstream_status_and_method() {
    let backend = backend(|x| {
        let body = String::from_utf8(x.body().unwrap_or_default()).unwrap();
        match body.contains("\"missing\"") {
            true => x.answer("404 Not Found", &[], b"no"),
            false => x.json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        }
    });
    let edge = before(&backend).start();
    for method in ["tools/call", "tools/call", "tools/list", "made/up", "made/up/too", "missing"] {
        let body = CALL.replace("tools/call", method);
        ask(&edge, post("localhost", "/mcp", "MCP-Protocol-Version: 2025-11-25\r\n", &body));
    }
    ask(&edge, get("localhost", "/mcp"));
    ask(&edge, get("localhost", "/nowhere"));
    let route = ["route=\"*/mcp\"", "upstream=\"tools\""];
    for (labels, expected) in [
        (&["rpc_method=\"tools/call\"", "status=\"2xx\""][..], 2.0),
        (&["rpc_method=\"tools/list\"", "status=\"2xx\""], 1.0),
        (&["rpc_method=\"other\"", "status=\"2xx\""], 2.0),
        (&["rpc_method=\"other\"", "status=\"4xx\""], 1.0),
        (&["rpc_method=\"\"", "status=\"2xx\""], 1.0),
    ] {
        let labels = [&route[..], labels].concat();
        for name in [
            "mcp_edge_requests_total",
            "mcp_edge_first_byte_seconds_count",
            "mcp_edge_request_duration_seconds_count",
        ] {
            assert_eq!(sample(&edge, name, &labels), Some(expected), "{name} {labels:?}");
        }
        let bucket = [&labels[..], &["le=\"+Inf\""]].concat();
        let all = sample(&edge, "mcp_edge_request_duration_seconds_bucket", &bucket);
        assert_eq!(all, Some(expected));
        let sum = sample(&edge, "mcp_edge_request_duration_seconds_sum", &labels).unwrap();
        assert!(sum > 0.0 && sum < 60.0, "{sum}");
    }
    let nowhere = ["route=\"\"", "status=\"4xx\""];
    assert_eq!(sample(&edge, "mcp_edge_requests_total", &nowhere), Some(1.0));
    let era = ["era=\"legacy\"", "rpc_method=\"tools/call\""];
    assert_eq!(sample(&edge, "mcp_edge_requests_total", &era), Some(2.0));
    assert_eq!(sample(&edge, "mcp_edge_refusals_total", &["code=\"route.no_path\""]), Some(1.0));
}

#[test]
fn bytes_connections_and_the_build_are_there() {
    let backend = backend(|x| {
        x.body();
        x.json("{}");
    });
    let edge = before(&backend).start();
    for _ in 0..3 {
        ask(&edge, post("localhost", "/mcp", "", CALL));
    }
    let route = ["route=\"*/mcp\""];
    let sent = CALL.len() as f64 * 3.0;
    assert_eq!(sample(&edge, "mcp_edge_received_bytes_total", &route), Some(sent));
    assert_eq!(sample(&edge, "mcp_edge_sent_bytes_total", &route), Some(6.0));
    assert_eq!(sample(&edge, "mcp_edge_connections_total", &[]), Some(3.0));
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(sample(&edge, "mcp_edge_build_info", &[&version]), Some(1.0));
    assert!(sample(&edge, "process_resident_memory_bytes", &[]).unwrap() > 1e6);
    assert!(sample(&edge, "process_open_fds", &[]).unwrap() > 3.0);
}

#[test]
fn streams_are_counted_while_they_are_open() {
    let backend = backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\ndata: 2\n\n");
        x.wait_closed();
    });
    let edge = before(&backend).start();
    let route = ["route=\"*/mcp\""];
    let mut client = edge.client();
    client.send(get_events("localhost", "/mcp", ""));
    let start = client.start();
    client.chunks(18);
    let id = start.header("x-request-id").unwrap().to_owned();
    let begun = edge.log("the stream begins", |v| v["request_id"] == id);
    assert_eq!((&begun["event"], &begun["status"]), (&"stream_start".into(), &200.into()));
    let open = |n| sample(&edge, "mcp_edge_streams", &route) == Some(n);
    eventually("it is open", || open(1.0));
    eventually("its events are counted", || {
        sample(&edge, "mcp_edge_stream_events_total", &route) == Some(2.0)
    });
    let first = sample(&edge, "mcp_edge_first_byte_seconds_count", &route);
    assert_eq!(first, Some(1.0));
    assert_eq!(sample(&edge, "mcp_edge_streams_ended_total", &route), None);
    drop(client);
    eventually("it is no more", || open(0.0));
    let gone = ["route=\"*/mcp\"", "end=\"client.gone\""];
    eventually("it has ended", || {
        sample(&edge, "mcp_edge_streams_ended_total", &gone) == Some(1.0)
    });
    assert_eq!(sample(&edge, "mcp_edge_stream_duration_seconds_count", &route), Some(1.0));
    let timed = sample(&edge, "mcp_edge_request_duration_seconds_count", &route);
    assert_eq!(timed, Some(0.0), "nobody waits for the end of a GET's stream");
    assert_eq!(sample(&edge, "mcp_edge_requests_total", &route), Some(1.0), "once");
    assert_eq!(sample(&edge, "mcp_edge_sent_bytes_total", &route), Some(18.0));
}

#[test]
fn a_call_that_a_stream_answers_is_timed_to_its_end() {
    let backend = backend(|x| {
        x.body();
        x.sse(&[]);
        x.chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n");
        // the second one is not here yet when the first is passed on
        x.chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32602,\"message\":\"x\"}}\n\n");
        x.end_chunks();
    });
    let edge = before(&backend).start();
    let answer = edge.ask(post("localhost", "/mcp", "", CALL));
    let id = answer.header("x-request-id").unwrap();
    let end = edge.log("its end", |v| {
        v["request_id"] == id && matches!(v["event"].as_str(), Some("stream_end" | "request"))
    });
    assert_eq!(end["rpc_error"], -32602, "{end}");
    let call = ["route=\"*/mcp\"", "rpc_method=\"tools/call\""];
    let timed = || sample(&edge, "mcp_edge_request_duration_seconds_count", &call) == Some(1.0);
    eventually("it is timed", timed);
    let error = ["route=\"*/mcp\"", "code=\"-32602\""];
    assert_eq!(sample(&edge, "mcp_edge_rpc_errors_total", &error), Some(1.0));
}

#[test]
fn json_rpc_errors_are_told_from_refusals() {
    let backend = backend(|x| {
        let body = String::from_utf8(x.body().unwrap_or_default()).unwrap();
        let code = if body.contains("tools/list") { -32601 } else { 17 };
        x.json(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"SECRET"}}}}"#
        ));
    });
    let edge = before(&backend).start();
    let listed =
        ask(&edge, post("localhost", "/mcp", "", &CALL.replace("tools/call", "tools/list")));
    assert_eq!((&listed["rpc_error"], listed.get("code")), (&(-32601).into(), None), "{listed}");
    let other = ask(&edge, post("localhost", "/mcp", "", CALL));
    assert_eq!(other["rpc_error"], 17, "{other}");
    let refused = ask(&edge, mcp::call("/mcp", "forged", 1));
    assert_eq!(
        (&refused["code"], &refused["rpc_error"]),
        (&"session.unknown".into(), &(-32001).into()),
        "{refused}"
    );
    let errors = |labels: &[&str]| sample(&edge, "mcp_edge_rpc_errors_total", labels);
    assert_eq!(errors(&["code=\"-32601\"", "route=\"*/mcp\""]), Some(1.0));
    assert_eq!(errors(&["code=\"other\""]), Some(1.0));
    assert_eq!(errors(&[]), Some(2.0), "the refusal is none of the server's");
    assert!(!edge.stdout().join("").contains("SECRET"));
}

#[test]
fn sessions_are_counted_by_what_becomes_of_them() {
    let (a, b) = (mcp::replica("a"), mcp::replica("b"));
    let edge = counted()
        .upstream("two", &[a.url(), b.url()], "")
        .route("path: /mcp, upstream: two")
        .route("path: /other, upstream: two")
        .start();
    let begun = edge.ask(mcp::initialize("/mcp"));
    let id = mcp::session(&begun);
    edge.log_of(&begun);
    for n in 0..3 {
        assert_eq!(ask(&edge, mcp::call("/mcp", &id, n))["status"], 200);
    }
    assert_eq!(ask(&edge, mcp::call("/mcp", "forged", 1))["status"], 404);
    assert_eq!(ask(&edge, mcp::call("/other", &id, 1))["status"], 404);
    let of = |name: &str, labels: &[&str]| sample(&edge, name, labels);
    let route = "route=\"*/mcp\"";
    assert_eq!(of("mcp_edge_sessions_sealed_total", &[route]), Some(1.0));
    assert_eq!(of("mcp_edge_sessions_opened_total", &[route]), Some(3.0));
    let refused = |labels: &[&str]| of("mcp_edge_sessions_refused_total", labels);
    assert_eq!(refused(&[route, "code=\"session.unknown\""]), Some(1.0));
    assert_eq!(refused(&["route=\"*/other\""]), Some(1.0));
}

#[test]
fn callers_are_counted_by_method_and_outcome() {
    let backend = plain();
    let edge = counted()
        .upstream("tools", &[backend.url()], "")
        .raw_route(
            "path: /key, upstream: tools, auth: [ api_key: { keys: [ { name: ci, sha256: 99f760ce3239d1a861e392a79e8b196997746a5f080915de6a67a9e2c33c11d0 } ] } ]",
        )
        .route("path: /open, upstream: tools")
        .start();
    let with = |key: &str| post("localhost", "/key", &format!("X-API-Key: {key}\r\n"), CALL);
    for (request, status) in [
        (with("good-key-of-some-length-0123456789"), 200),
        (with("good-key-of-some-length-0123456789"), 200),
        (with("another-key-of-some-length-012345678"), 401),
        (post("localhost", "/key", "", CALL), 401),
        (post("localhost", "/open", "", CALL), 200),
    ] {
        assert_eq!(ask(&edge, request)["status"], status);
    }
    let of = |labels: &[&str]| sample(&edge, "mcp_edge_auth_total", labels);
    assert_eq!(of(&["method=\"api_key\"", "outcome=\"accepted\""]), Some(2.0));
    assert_eq!(of(&["method=\"api_key\"", "outcome=\"refused\""]), Some(1.0));
    assert_eq!(of(&["method=\"\"", "outcome=\"absent\""]), Some(1.0));
    assert_eq!(of(&[]), Some(4.0), "who is asked for nothing is not counted");
}
