//! In: upstreams whose replicas drain, stand back, refuse, or have no room; out: who gets what, and when.

use crate::support::backend::{Backend, Refusing, backend, feed, plain};
use crate::support::client::{get_events, post, websocket};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::mcp::{by, call, initialize, modern, replica, session};

use super::health::{ADMIN, metric};

/// One upstream on `/mcp`, written in full.
fn with(upstream: &str) -> Builder {
    edge().raw_upstream(&format!("name: some, {upstream}")).route("path: /mcp, upstream: some")
}

fn ping(extra: &str) -> String {
    post("localhost", "/mcp", extra, r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#)
}

/// Who gets each of several new sessions.
fn begun(edge: &Edge, n: usize) -> Vec<String> {
    (0..n).map(|_| by(&edge.ask(initialize("/mcp")))).collect()
}

#[test]
fn who_drains_keeps_its_sessions_and_gets_no_new_ones() {
    let (a, b) = (replica("a"), replica("b"));
    let state = tempfile::tempdir().unwrap();
    let before = with(&format!("servers: [ \"{}\", \"{}\" ]", a.url(), b.url()));
    let before = before.state(state.path()).start();
    let ids: Vec<_> = (0..4).map(|_| session(&before.ask(initialize("/mcp")))).collect();
    let names: Vec<_> = ids.iter().map(|id| by(&before.ask(call("/mcp", id, 1)))).collect();
    assert!(names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()), "{names:?}");
    before.stop();
    let draining = format!("servers: [ {{ url: \"{}\", drain: true }}, \"{}\" ]", a.url(), b.url());
    let after = with(&draining).state(state.path()).start();
    for (id, name) in ids.iter().zip(&names) {
        assert_eq!(by(&after.ask(call("/mcp", id, 2))), *name, "sessions go on");
    }
    assert_eq!(begun(&after, 6), ["b"; 6], "new ones go elsewhere");
    for n in 0..6 {
        assert_eq!(by(&after.ask(modern("/mcp", "", n))), "b");
    }
}

#[test]
fn when_all_drain_nothing_new_is_taken() {
    let a = replica("a");
    let edge = with(&format!("servers: [ {{ url: \"{}\", drain: true }} ]", a.url())).start();
    edge.ask(initialize("/mcp")).assert_refused(503);
    assert_eq!(a.count(), 0);
}

#[test]
fn secondaries_serve_when_no_primary_can() {
    let (a, b, second) = (replica("a"), replica("b"), replica("second"));
    let servers = |first: &str| {
        format!(
            "servers: [ {{ url: \"{}\", priority: secondary, weight: 100 }}, \"{first}\", \"{}\" ]",
            second.url(),
            b.url()
        )
    };
    let edge = with(&servers(&a.url())).start();
    let mut names = begun(&edge, 6);
    names.sort();
    assert_eq!(names, ["a", "a", "a", "b", "b", "b"]);
    drop(edge);
    b.shut();
    let edge = with(&format!(
        "servers: [ {{ url: \"{}\", priority: secondary }}, \"{}\" ]",
        second.url(),
        Refusing::new().url()
    ))
    .start();
    assert_eq!(begun(&edge, 3), ["second"; 3]);
}

#[test]
fn a_header_decides_on_the_replica() {
    let (a, b) = (replica("a"), replica("b"));
    let servers = format!("servers: [ \"{}\", \"{}\" ]", a.url(), b.url());
    let edge = with(&format!("{servers}, balance: {{ hash: {{ header: X-Tenant }} }}")).start();
    let mut names = Vec::new();
    for n in 0..24 {
        let tenant = format!("X-Tenant: t{n}\r\n");
        let name = by(&edge.ask(ping(&tenant)));
        assert_eq!(by(&edge.ask(ping(&tenant))), name, "the same tenant, the same replica");
        assert_eq!(by(&edge.ask(modern("/mcp", &tenant, 1))), name, "in every era");
        names.push(name);
    }
    for name in ["a", "b"] {
        assert!(names.iter().filter(|n| *n == name).count() >= 3, "{names:?}");
    }
}

#[test]
fn the_principal_decides_on_the_replica() {
    let (a, b) = (replica("a"), replica("b"));
    let servers = format!("servers: [ \"{}\", \"{}\" ]", a.url(), b.url());
    let edge = with(&format!("{servers}, balance: {{ hash: principal }}")).start();
    let names = begun(&edge, 6);
    assert!(names.iter().all(|name| *name == names[0]), "one caller: {names:?}");
}

#[test]
fn retries_that_the_budget_refuses_are_counted() {
    let dead = Refusing::new();
    let retry = "eject: off, retry: { budget: 1%, most: 3, backoff: 1ms }";
    let edge = with(&format!("servers: [ \"{}\" ], {retry}", dead.url())).top(ADMIN).start();
    let count = |name: &str| -> u32 { metric(&edge, name, &["some"]).parse().unwrap() };
    assert_eq!(count("mcp_edge_retries_refused_total"), 0);
    // a hundred are saved up, and a few come with time
    let mut asked = 0;
    while count("mcp_edge_retries_refused_total") == 0 && asked < 1000 {
        edge.ask(ping("")).assert_refused(503);
        asked += 1;
    }
    let refused = count("mcp_edge_retries_refused_total");
    assert!(asked > 30 && refused == 1, "{asked} requests, {refused} refused");
}

#[test]
fn without_retries_the_first_refusal_is_the_answer() {
    let (dead, live) = (Refusing::new(), plain());
    let servers = format!("servers: [ \"{}\", \"{}\" ]", dead.url(), live.url());
    let edge = with(&format!("{servers}, balance: first_available, retry: off")).start();
    for _ in 0..3 {
        edge.ask(ping("")).assert_refused(503);
    }
    assert_eq!(live.count(), 0);
}

#[test]
fn a_request_is_tried_again_so_often_and_no_more() {
    let dead: Vec<_> = (0..3).map(|_| Refusing::new()).collect();
    let live = plain();
    let urls: Vec<_> = dead.iter().map(|d| d.url()).chain([live.url()]).collect();
    let servers = format!("servers: [ \"{}\" ], balance: first_available", urls.join("\", \""));
    let two = with(&format!("{servers}, retry: {{ most: 2, backoff: 1ms }}")).top(ADMIN).start();
    two.ask(ping("")).assert_refused(503);
    assert_eq!(live.count(), 0);
    assert_eq!(metric(&two, "mcp_edge_retries_total", &["connect"]), "2");
    assert_eq!(metric(&two, "mcp_edge_retries_total", &["conflict"]), "0");
    let three = with(&format!("{servers}, retry: {{ most: 3, backoff: 1ms }}")).start();
    assert_eq!(three.ask(ping("")).status, 200);
    assert_eq!(live.count(), 1);
}

#[test]
fn what_is_sent_again_behind_a_connection_that_had_closed_is_counted() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let backend = backend(move |x| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        // as if it had closed just before
        1 => x.close(),
        _ => x.json("{}"),
    });
    let edge = with(&format!("servers: [ \"{}\" ]", backend.url())).top(ADMIN).start();
    assert_eq!(edge.get("/mcp").status, 200);
    assert_eq!(metric(&edge, "mcp_edge_retries_total", &["closed"]), "0");
    assert_eq!(edge.get("/mcp").status, 200);
    assert_eq!((backend.count(), backend.last().connection), (3, 1));
    assert_eq!(metric(&edge, "mcp_edge_retries_total", &["closed"]), "1");
    assert_eq!(metric(&edge, "mcp_edge_retries_total", &["connect"]), "0");
}

/// A backend that answers when it is told to, but for events.
fn slow() -> (Backend, crate::support::backend::Feed) {
    let (push, source) = feed();
    let source = std::sync::Mutex::new(source);
    let backend = backend(move |x| {
        if x.request.method == "GET" {
            x.sse(&[]);
            return x.wait_closed();
        }
        if x.body().is_some() {
            source.lock().unwrap().next();
            x.json("{}");
        }
    });
    (backend, push)
}

#[test]
fn what_is_too_much_waits_and_what_cannot_wait_is_refused() {
    let (slow, answer) = slow();
    let circuit = "circuit: { in_flight: 1, pending: 1, wait: 60s }";
    let edge = with(&format!("servers: [ \"{}\" ], {circuit}", slow.url())).top(ADMIN).start();
    // a stream that a GET has begun takes no room
    let mut stream = edge.client();
    stream.send(get_events("localhost", "/mcp", ""));
    assert_eq!(stream.start().status, 200);
    let mut first = edge.client();
    first.send(ping(""));
    slow.wait_request(1);
    let mut others: Vec<_> = (0..2).map(|_| edge.client()).collect();
    others.iter_mut().for_each(|other| assert!(other.send(ping(""))));
    // one of the two waits, the other is told at once
    let refused = edge.log("a refusal", |line| line["code"] == "forward.queue_full");
    assert_eq!(refused["status"], 503);
    assert_eq!(slow.count(), 2, "who waits is not sent on");
    assert_eq!(metric(&edge, "mcp_edge_circuit_waiting", &[]), "1");
    assert_eq!(metric(&edge, "mcp_edge_circuit_waits_total", &[]), "0");
    let refused = |reason: &str| metric(&edge, "mcp_edge_circuit_refused_total", &[reason]);
    assert_eq!((refused("full"), refused("late")), ("1".to_owned(), "0".to_owned()));
    answer.push("1");
    assert_eq!(first.response().status, 200);
    answer.push("2");
    let mut told: Vec<_> = others.iter_mut().map(|other| other.response()).collect();
    told.sort_by_key(|answer| answer.status);
    assert_eq!(told[0].status, 200);
    assert_eq!(told[1].assert_refused(503)["id"], 3);
    assert_eq!(told[1].header("retry-after"), Some("1"));
    assert_eq!(slow.count(), 3, "nothing is sent twice");
    assert_eq!(metric(&edge, "mcp_edge_circuit_waiting", &[]), "0");
    assert_eq!(metric(&edge, "mcp_edge_circuit_waits_total", &[]), "1");
    let waited = metric(&edge, "mcp_edge_circuit_wait_seconds_total", &[]);
    assert!(waited.parse::<f64>().unwrap() > 0.0, "{waited}");
}

#[test]
fn what_is_open_for_ever_takes_no_room() {
    let backend = backend(|x| {
        if x.upgraded() {
            return;
        }
        let body = x.body().unwrap_or_default();
        if String::from_utf8_lossy(&body).contains("subscriptions/listen") {
            x.sse(&[]);
            return x.wait_closed();
        }
        x.json("{}");
    });
    let circuit = "circuit: { in_flight: 1, pending: 1, wait: 50ms }";
    let edge = with(&format!("servers: [ \"{}\" ], {circuit}", backend.url())).start();
    let mut socket = edge.client();
    socket.send(websocket("/mcp"));
    assert_eq!(socket.start().status, 101);
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}"#;
    let mut listeners: Vec<_> = (0..2).map(|_| edge.client()).collect();
    for client in &mut listeners {
        client.send(post("localhost", "/mcp", "", listen));
        assert_eq!(client.start().status, 200);
    }
    assert_eq!(edge.ask(ping("")).status, 200);
}

#[test]
fn who_waits_too_long_is_refused() {
    let (slow, answer) = slow();
    let circuit = "circuit: { in_flight: 1, wait: 50ms }";
    let edge = with(&format!("servers: [ \"{}\" ], {circuit}", slow.url())).top(ADMIN).start();
    let mut first = edge.client();
    first.send(ping(""));
    slow.wait_request(0);
    let late = edge.ask(ping(""));
    late.assert_refused(503);
    assert_eq!(edge.log_of(&late)["code"], "forward.queue_late");
    let refused = |reason: &str| metric(&edge, "mcp_edge_circuit_refused_total", &[reason]);
    assert_eq!((refused("full"), refused("late")), ("0".to_owned(), "1".to_owned()));
    // it has waited in vain, and that counts, too
    assert_eq!(metric(&edge, "mcp_edge_circuit_waits_total", &[]), "1");
    let waited = metric(&edge, "mcp_edge_circuit_wait_seconds_total", &[]);
    assert!(waited.parse::<f64>().unwrap() >= 0.05, "{waited}");
    answer.push("1");
    assert_eq!(first.response().status, 200);
    assert_eq!(slow.count(), 1);
}

#[test]
fn who_asks_without_a_session_makes_a_leaking_server_leak_once() {
    // as Python's servers did: each request without a session registers one, refused or not
    let leaking = backend(|x| {
        let post = x.request.method == "POST";
        if x.body().is_none() {
            return;
        }
        let known = x.header("mcp-session-id").is_some() || x.request.target == "/mcp/other";
        let status = if post || known { "200 OK" } else { "400 Bad Request" };
        let json = ("content-type", "application/json");
        match known {
            true => x.answer(status, &[json], b"{}"),
            false => x.answer(status, &[json, ("mcp-session-id", "minted")], b"{}"),
        }
    });
    let edge = with(&format!("servers: [ \"{}\" ]", leaking.url())).start();
    let bare = |method: &str, path: &str| {
        edge.ask(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    };
    assert_eq!(bare("GET", "/mcp").status, 400, "the first shows what the server does");
    for method in ["GET", "OPTIONS"] {
        let answer = bare(method, "/mcp?x=1");
        answer.assert_refused(405);
        assert_eq!(answer.header("allow"), Some("POST"));
        assert_eq!(edge.log_of(&answer)["code"], "session.none");
    }
    assert_eq!(leaking.count(), 1, "nobody asked the server");
    assert_eq!(bare("GET", "/mcp/other").status, 200, "another path is another matter");
    let id = session(&edge.ask(initialize("/mcp")));
    let mine = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nMcp-Session-Id: {id}\r\n\r\n");
    assert_eq!(edge.ask(mine).status, 200, "a session's GET goes on");
    assert_eq!(leaking.count(), 4);
}
