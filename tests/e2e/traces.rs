//! In: callers with and without traces of their own; out: what servers, logs and a collector hear of them.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::backend::{Backend, backend, plain};
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Builder, edge};
use crate::support::mcp;
use crate::support::wait::eventually;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str =
    "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=1\r\n";
const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";

/// Takes every batch.
fn collector() -> Backend {
    backend(|x| {
        if x.body().is_some() {
            x.answer("200 OK", &[("content-type", "application/x-protobuf")], b"");
        }
    })
}

fn traced(collector: &Backend, rest: &str) -> Builder {
    edge().top(&format!("traces: {{ endpoint: \"{}\", {rest} }}", collector.url()))
}

fn spans(collector: &Backend) -> Vec<Span> {
    let requests = collector.requests().into_iter().filter(|seen| seen.complete);
    let batches = requests.map(|seen| ExportTraceServiceRequest::decode(&*seen.body).unwrap());
    let resources = batches.flat_map(|batch| batch.resource_spans);
    resources.flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
}

/// The spans, once there are so many.
fn wait(collector: &Backend, count: usize) -> Vec<Span> {
    eventually(&format!("{count} spans"), || spans(collector).len() >= count);
    let all = spans(collector);
    assert_eq!(all.len(), count);
    all
}

fn attributes(span: &Span) -> HashMap<String, String> {
    let text = |value: Any| match value {
        Any::StringValue(text) => text,
        Any::IntValue(n) => n.to_string(),
        Any::DoubleValue(n) => n.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter().cloned();
    pairs.map(|kv| (kv.key, text(kv.value.unwrap().value.unwrap()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Trace, span and flags of the one `traceparent` that the last request had.
fn forwarded(server: &Backend) -> (String, String, String) {
    let seen = server.last();
    let all = seen.all("traceparent");
    assert_eq!(all.len(), 1, "{:?}", seen.headers);
    let parts: Vec<&str> = all[0].split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{}", all[0]);
    (parts[1].into(), parts[2].into(), parts[3].into())
}

fn tool(meta: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"add","arguments":{{}},"_meta":{{{meta}}}}}}}"#
    )
}

#[test]
fn a_span_has_what_the_conventions_ask_for() {
    let (collector, server) = (collector(), plain());
    let edge = traced(&collector, "headers: { X-Key: k }, service: our-edge").to(&server).start();
    let answer = edge.ask(post("localhost", "/x?q=1", "", &tool("")));
    let line = edge.log_of(&answer);
    let span = wait(&collector, 1).remove(0);
    let (trace, id, flags) = forwarded(&server);
    assert_eq!((hex(&span.trace_id), hex(&span.span_id)), (trace.clone(), id));
    assert_eq!((line["trace_id"].as_str(), flags.as_str()), (Some(trace.as_str()), "03"));
    assert_eq!(
        (span.name.as_str(), span.kind, span.parent_span_id.len()),
        ("tools/call add", 2, 0)
    );
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    let told = attributes(&span);
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "add"),
        ("gen_ai.operation.name", "execute_tool"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("url.path", "/x"),
        ("mcp_edge.upstream", "one"),
        ("mcp_edge.replica", &server.authority()),
        ("mcp_edge.request_id", answer.header("x-request-id").unwrap()),
    ] {
        assert_eq!(told.get(key).map(String::as_str), Some(value), "{key} in {told:?}");
    }
    let asked = collector.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/v1/traces"));
    assert_eq!(asked.header("content-type").as_deref(), Some("application/x-protobuf"));
    assert_eq!(asked.header("x-key").as_deref(), Some("k"));
    let batch = ExportTraceServiceRequest::decode(&*asked.body).unwrap();
    let resource = format!("{:?}", batch.resource_spans[0].resource);
    assert!(resource.contains("service.name") && resource.contains("our-edge"), "{resource}");
    edge.stop();
}

#[test]
fn a_stop_waits_for_the_last_spans_and_warns_of_none_that_arrived() {
    let (collector, server) = (collector(), plain());
    let mut edge = traced(&collector, "").to(&server).start();
    edge.ask(post("localhost", "/x", "", &tool("")));
    edge.signal("TERM");
    assert!(edge.exit().success());
    assert_eq!(spans(&collector).len(), 1);
    let said = edge.stderr();
    assert!(!said.iter().any(|line| line.contains("spans")), "{said:?}");
}

#[test]
fn strangers_begin_no_trace_of_ours() {
    let (collector, server) = (collector(), plain());
    let edge = traced(&collector, "").to(&server).start();
    edge.ask(post("localhost", "/x", PARENT, &tool("")));
    let (trace, ..) = forwarded(&server);
    assert_ne!(trace, TRACE);
    assert_eq!(server.last().header("tracestate"), None);
    let span = wait(&collector, 1).remove(0);
    assert_eq!(hex(&span.links[0].trace_id), TRACE, "theirs is linked");
    edge.stop();
}

#[test]
fn the_trace_of_a_trusted_proxy_goes_on() {
    let (collector, server) = (collector(), plain());
    let edge =
        traced(&collector, "sample: 0%").top("trusted_proxies: [ 127.0.0.1 ]").to(&server).start();
    edge.ask(post("localhost", "/x", PARENT, &tool("")));
    let (trace, span, flags) = forwarded(&server);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"), "it decides what is recorded");
    assert_ne!(span, "00f067aa0ba902b7");
    assert_eq!(server.last().header("tracestate").as_deref(), Some("a=1"));
    let told = wait(&collector, 1).remove(0);
    assert_eq!(
        (hex(&told.trace_id).as_str(), hex(&told.parent_span_id).as_str()),
        (TRACE, "00f067aa0ba902b7")
    );
    // what begins here is not recorded, and says so
    edge.ask(post("localhost", "/x", "", &tool("")));
    assert_eq!(forwarded(&server).2, "02");
    edge.ask(post("localhost", "/x", &PARENT.replace("-01\r", "-00\r"), &tool("")));
    assert_eq!(forwarded(&server).2, "00");
    edge.stop();
    assert_eq!(spans(&collector).len(), 1);
}

#[test]
fn callers_may_say_it_in_the_body_where_they_are_trusted() {
    let (collector, server) = (collector(), plain());
    let meta = r#""traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"b=2""#;
    for (trust, goes_on) in
        [("nobody", false), ("proxies", false), ("callers", false), ("anybody", true)]
    {
        let edge = traced(&collector, &format!("trust: {trust}")).to(&server).start();
        edge.ask(post("localhost", "/x", "", &tool(meta)));
        assert_eq!(forwarded(&server).0 == TRACE, goes_on, "{trust}, anonymous");
        let state = server.last().header("tracestate");
        assert_eq!(state.as_deref(), goes_on.then_some("b=2"));
        edge.stop();
    }
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, "ann:{SHA}NMfTLf4kql4x98PMVl16orqGin0=\n").unwrap();
    let ann = "Authorization: Basic YW5uOnBhc3M6d8O2cmQ=\r\n";
    for (trust, goes_on) in [("proxies", false), ("callers", true)] {
        let auth = format!("upstream: one, auth: [ basic: {{ file: \"{}\" }} ]", users.display());
        let edge = traced(&collector, &format!("trust: {trust}"))
            .upstream("one", &[server.url()], "")
            .raw_route(&auth)
            .start();
        assert_eq!(edge.ask(post("localhost", "/x", ann, &tool(meta))).status, 200);
        assert_eq!(forwarded(&server).0 == TRACE, goes_on, "{trust}, known");
        edge.stop();
    }
}

#[test]
fn a_stream_is_one_span_to_its_end_and_refusals_have_theirs() {
    let collector = collector();
    let server = backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let edge = traced(&collector, "").to(&server).start();
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", ""));
    client.start();
    assert_eq!(client.chunks(9), b"data: 1\n\n");
    let refused = edge.ask(mcp::call("/x", "forged", 1));
    assert_eq!(refused.status, 404);
    let first = wait(&collector, 1).remove(0);
    let told = attributes(&first);
    assert_eq!(told.get("error.type").map(String::as_str), Some("session.unknown"), "{told:?}");
    assert_eq!(first.name, "tools/call", "no name that nobody vouches for");
    drop(client);
    let span = wait(&collector, 2).remove(1);
    assert_eq!(attributes(&span).get("mcp_edge.events").map(String::as_str), Some("1"));
    edge.stop();
}

#[test]
fn without_traces_what_clients_say_goes_on_as_it_is() {
    let (collector, server) = (collector(), plain());
    let edge = traced(&collector, "")
        .upstream("one", &[server.url()], "")
        .route("upstream: one, traces: off")
        .start();
    let without = edge.ask(post("localhost", "/x", "", &tool("")));
    assert!(edge.log_of(&without).get("trace_id").is_none());
    let broken = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
    let broken = edge.ask(post("localhost", "/x", &broken, &tool("")));
    assert!(edge.log_of(&broken).get("trace_id").is_none());
    let answer = edge.ask(post("localhost", "/x", PARENT, &tool("")));
    assert_eq!(forwarded(&server), (TRACE.into(), "00f067aa0ba902b7".into(), "01".into()));
    assert_eq!(server.last().header("tracestate").as_deref(), Some("a=1"));
    // logs can be joined by it all the same
    assert_eq!(edge.log_of(&answer)["trace_id"], TRACE);
    edge.stop();
    assert_eq!(collector.count(), 0);
}

#[test]
fn a_collector_is_asked_again_where_it_says_so_and_costs_no_request() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let collector = backend(move |x| {
        if x.body().is_none() {
            return;
        }
        match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => x.answer("503 Service Unavailable", &[("retry-after", "0")], b""),
            1 => x.answer("200 OK", &[], b""),
            _ => x.answer("400 Bad Request", &[], b""),
        }
    });
    let server = plain();
    let edge = traced(&collector, "").top(ADMIN).to(&server).start();
    let count = |result: &str| {
        let page = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
        let name = format!("mcp_edge_spans_total{{result=\"{result}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    };
    assert_eq!(edge.get("/x").status, 200);
    eventually("it has come at the second try", || count("exported") == 1);
    let bodies: Vec<_> = collector.requests().into_iter().map(|seen| seen.body).collect();
    assert!(bodies.len() == 2 && bodies[0] == bodies[1], "the same again");
    assert_eq!(edge.get("/x").status, 200);
    edge.wait_line("spans are lost");
    assert_eq!(count("lost"), 1, "400 is not tried again");
    edge.stop();
}

#[test]
fn the_last_spans_are_sent_before_the_end() {
    let (collector, server) = (collector(), plain());
    let edge = traced(&collector, "").to(&server).start();
    for _ in 0..10 {
        assert_eq!(edge.get("/x").status, 200);
    }
    edge.stop();
    assert_eq!(spans(&collector).len(), 10);
}
