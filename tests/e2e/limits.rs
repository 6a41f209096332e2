//! In: more requests than a route's limits allow; out: 429 with the time to wait, and nothing at the backend.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::backend::{Backend, backend, plain};
use crate::support::client::{Client, Response, get, get_events, post};
use crate::support::edge::{Edge, edge};
use crate::support::wait::{DEADLINE, Watched};

const CALL: &str = r#"{"jsonrpc":"2.0","id":"a-7","method":"tools/list"}"#;

fn world(backend: &Backend, limits: &str) -> Edge {
    edge()
        .top("admin: { address: \"127.0.0.1:0\" }")
        .upstream("one", &[backend.url()], "")
        .route(&format!("path: /mcp, upstream: one, limits: {limits}"))
        .start()
}

fn call(edge: &Edge, extra: &str) -> Response {
    edge.ask(post("localhost", "/mcp", extra, CALL))
}

/// A refusal with all that a limited client is told.
fn limited(response: &Response, policy: &str) -> u32 {
    let body = response.assert_refused(429);
    let wait: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!(
        body["error"]["message"].as_str().unwrap().contains(&format!("wait {wait} second")),
        "{body}"
    );
    let name = policy.split(';').next().unwrap();
    assert_eq!(response.header("ratelimit").unwrap(), format!("{name};r=0;t={wait}"));
    assert!(response.header("ratelimit-policy").unwrap().contains(policy), "{response:?}");
    assert_eq!(body["id"], "a-7");
    wait
}

#[test]
fn an_address_has_its_rate_and_no_more() {
    let backend = plain();
    let edge = world(&backend, "[ { key: address, rate: 60/h burst 2 } ]");
    for _ in 0..2 {
        assert_eq!(call(&edge, "").status, 200);
    }
    let refused = call(&edge, "");
    let wait = limited(&refused, "\"address\";q=60;w=3600");
    assert!((50..=60).contains(&wait), "{wait}");
    assert_eq!(edge.log_of(&refused)["code"], "limit.rate");
    let mut other = Client::from("127.0.0.2".parse::<IpAddr>().unwrap(), edge.address());
    assert_eq!(other.ask(post("localhost", "/mcp", "", CALL)).status, 200);
    assert_eq!(backend.count(), 3);
}

#[test]
fn a_limit_answers_before_a_body_that_is_not_json_is_there() {
    let backend = plain();
    let edge = world(&backend, "[ { key: address, rate: 60/h burst 1 } ]");
    assert_eq!(call(&edge, "").status, 200);
    let mut slow = edge.client();
    slow.send("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n");
    slow.response().assert_refused(429);
    assert_eq!(backend.count(), 1);
}

#[test]
fn preflights_count_for_limits_by_address_and_no_others() {
    let backend = plain();
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .route(
            "path: /mcp, upstream: one, origins: [ \"https://app.example\" ], limits: [ \
             { key: address, rate: 60/h burst 3 }, { key: route, rate: 60/h burst 1 } ]",
        )
        .start();
    let origin = "Origin: https://app.example\r\n";
    let preflight = || {
        edge.ask(format!(
            "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\n{origin}Access-Control-Request-Method: POST\r\n\r\n"
        ))
    };
    assert_eq!((preflight().status, preflight().status), (204, 204));
    assert_eq!(call(&edge, origin).status, 200, "the route's own limit has its one left");
    for refused in [preflight(), call(&edge, origin)] {
        refused.assert_refused(429);
        assert_eq!(edge.log_of(&refused)["code"], "limit.rate");
        assert!(refused.header("retry-after").is_some());
        // what a page has to have to read it
        let allowed = refused.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://app.example"));
        let exposed = refused.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("retry-after"), "{exposed}");
    }
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_refused_request_leaves_its_connection_alive() {
    let backend = plain();
    let edge = world(&backend, "[ { key: address, rate: 1/h } ]");
    let mut client = edge.client();
    assert_eq!(client.ask(post("localhost", "/mcp", "", CALL)).status, 200);
    for _ in 0..3 {
        limited(&client.ask(post("localhost", "/mcp", "", CALL)), "\"address\";q=1;w=3600");
    }
}

#[test]
fn each_key_divides_as_it_says() {
    let backend = plain();
    for (key, policy) in [("principal", "\"principal\""), ("route", "\"route\"")] {
        let edge = world(&backend, &format!("[ {{ key: {key}, rate: 1/h }} ]"));
        assert_eq!(call(&edge, "").status, 200);
        limited(&call(&edge, ""), policy);
        // all anonymous callers are one principal
        let mut other = Client::from("127.0.0.2".parse::<IpAddr>().unwrap(), edge.address());
        limited(&other.ask(post("localhost", "/mcp", "", CALL)), policy);
    }
    let edge = world(&backend, "[ { key: { header: X-Tenant-ID }, rate: 1/h } ]");
    for extra in [
        "X-Tenant-ID: a\r\n",
        "x-tenant-id: b\r\n",
        "",
        "X-Tenant-ID: \r\n",
        "X-Tenant-ID: a\r\nX-Tenant-ID: b\r\n",
    ] {
        assert_eq!(call(&edge, extra).status, 200, "{extra}");
        limited(&call(&edge, extra), "\"header-x-tenant-id\";q=1;w=3600");
    }
}

/// Two callers with keys of their own.
const KEYS: &str = "auth: [ { api_key: { keys: [ \
     { name: ann, sha256: \"292bf566a7eb9187d92d51254d49c7c891fe1a5e15244a7abe29ee963d75ccca\" }, \
     { name: bob, sha256: \"e696ba82745ea66f90a8012307370045fd5f10c977248770e82ceba5a6cfeaab\" } ] } } ]";
const ANN: &str = "X-API-Key: annsannsannsannsannsannsannsanns\r\n";
const BOB: &str = "X-API-Key: bobsbobsbobsbobsbobsbobsbobsbobs\r\n";

fn guarded(backend: &Backend, limits: &str) -> Edge {
    let route = format!("{KEYS}, path: /mcp, upstream: one, limits: {limits}");
    edge().upstream("one", &[backend.url()], "").raw_route(&route).start()
}

#[test]
fn each_caller_has_a_rate_of_its_own() {
    let backend = plain();
    let edge = guarded(&backend, "[ { key: principal, rate: 1/h } ]");
    call(&edge, "").assert_refused(401);
    for caller in [ANN, BOB] {
        assert_eq!(call(&edge, caller).status, 200);
        limited(&call(&edge, caller), "\"principal\";q=1;w=3600");
    }
    call(&edge, "").assert_refused(401);
}

#[test]
fn addresses_are_limited_before_anybody_is_authenticated_and_all_others_after_it() {
    let backend = plain();
    let edge = guarded(&backend, "[ { key: address, rate: 2/h } ]");
    call(&edge, "").assert_refused(401);
    call(&edge, "X-API-Key: wrong\r\n").assert_refused(401);
    limited(&call(&edge, "X-API-Key: wrong\r\n"), "\"address\";q=2;w=3600");
    limited(&call(&edge, ANN), "\"address\";q=2;w=3600");
    for key in ["route", "{ header: T }"] {
        let edge = guarded(&backend, &format!("[ {{ key: {key}, rate: 1/h }} ]"));
        for _ in 0..3 {
            call(&edge, "").assert_refused(401);
        }
        assert_eq!(call(&edge, ANN).status, 200);
        assert_eq!(call(&edge, BOB).status, 429);
    }
}

#[test]
fn a_refusal_by_one_burns_nothing_in_another() {
    let backend = plain();
    for first in ["address", "route"] {
        let edge = world(
            &backend,
            &format!("[ {{ key: {first}, rate: 3/h }}, {{ key: {{ header: T }}, rate: 1/h }} ]"),
        );
        assert_eq!(call(&edge, "T: a\r\n").status, 200);
        for _ in 0..5 {
            limited(&call(&edge, "T: a\r\n"), "\"header-t\";q=1;w=3600");
        }
        assert_eq!(call(&edge, "T: b\r\n").status, 200);
        assert_eq!(call(&edge, "T: c\r\n").status, 200);
        limited(&call(&edge, "T: d\r\n"), &format!("\"{first}\";q=3;w=3600"));
    }
}

#[test]
fn so_many_requests_at_once() {
    let gate = std::sync::Arc::new(Watched::new(false));
    let opened = gate.clone();
    let backend = backend(move |x| {
        x.body();
        opened.wait("the test opens the gate", |open| open.then_some(()));
        x.json("{}");
    });
    let edge = world(&backend, "[ { key: route, in_flight: 2 } ]");
    let mut waiting: Vec<Client> = (0..2).map(|_| edge.client()).collect();
    for client in &mut waiting {
        client.send(post("localhost", "/mcp", "", CALL));
    }
    backend.wait_request(1);
    limited(&call(&edge, ""), "\"route-in-flight\";q=2;qu=\"concurrent-requests\"");
    gate.update(|open| *open = true);
    for client in &mut waiting {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(call(&edge, "").status, 200);
    assert_eq!(backend.count(), 3);
}

#[test]
fn so_many_streams_at_once() {
    let backend = backend(|x| {
        x.body();
        if x.request.method == "POST" {
            return x.json("{}");
        }
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let edge = world(&backend, "[ { key: address, streams: 1 } ]");
    let mut stream = edge.client();
    stream.send(get_events("localhost", "/mcp", ""));
    assert_eq!(stream.start().status, 200);
    stream.chunks(1);
    let refused = edge.ask(get_events("localhost", "/mcp", ""));
    refused.assert_refused(429);
    assert!(
        refused.header("ratelimit").unwrap().starts_with("\"address-streams\";r=0"),
        "{refused:?}"
    );
    assert_eq!(call(&edge, "").status, 200, "calls are no streams");
    let mut upgrade = edge.client();
    upgrade.send("GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    assert_eq!(upgrade.response().status, 429, "a WebSocket is one");
    drop(stream);
    let late = Instant::now() + DEADLINE;
    loop {
        let mut again = edge.client();
        again.send(get_events("localhost", "/mcp", ""));
        if again.start().status == 200 {
            break;
        }
        assert!(Instant::now() < late, "its place is never free again");
    }
}

#[test]
fn an_answer_that_turns_out_to_be_a_stream_counts_and_is_let_through() {
    let backend = backend(|x| {
        x.body();
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let edge = world(&backend, "[ { key: route, streams: 1 } ]");
    let mut calls: Vec<Client> = (0..2).map(|_| edge.client()).collect();
    for client in &mut calls {
        client.send(post("localhost", "/mcp", "Accept: text/event-stream\r\n", CALL));
        assert_eq!(client.start().status, 200);
        client.chunks(1);
    }
    edge.ask(get_events("localhost", "/mcp", "")).assert_refused(429);
    // a GET is not let through by saying nothing of events
    let refused = edge.ask("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    refused.assert_refused(429);
    assert_eq!(edge.log_of(&refused)["code"], "limit.streams");
}

#[test]
fn who_is_over_a_limit_takes_up_no_room_for_bodies() {
    let backend = plain();
    let edge = guarded(&backend, "[ { key: principal, rate: 1/h } ]");
    assert_eq!(call(&edge, ANN).status, 200);
    let mut slow = edge.client();
    slow.send(format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\n{ANN}Content-Type: application/json\r\n\
         Content-Length: 1000000\r\n\r\n{{"
    ));
    // without a look at the body that does not come
    assert_eq!(slow.response().status, 429);
}

#[test]
fn a_dry_run_counts_and_refuses_nobody() {
    let backend = plain();
    let edge = world(
        &backend,
        "[ { key: route, rate: 1/h, in_flight: 5, dry_run: true }, { key: address, rate: 3/h } ]",
    );
    for _ in 0..3 {
        assert_eq!(call(&edge, "").status, 200);
    }
    limited(&call(&edge, ""), "\"address\";q=3;w=3600");
    let wanted = [
        "mcp_edge_limited_total{dry_run=\"true\",key=\"route\",limit=\"rate\",route=\"*/mcp\"} 2",
        "mcp_edge_limited_total{dry_run=\"false\",key=\"address\",limit=\"rate\",route=\"*/mcp\"} 1",
    ];
    let late = Instant::now() + DEADLINE;
    loop {
        // counted once the answer is out
        let metrics = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
        if wanted.iter().all(|line| metrics.contains(line)) {
            break;
        }
        assert!(Instant::now() < late, "no {wanted:?} in {metrics}");
    }
}

#[test]
fn sixteen_clients_together_get_the_rate() {
    const PER_SECOND: f64 = 20.0;
    const BURST: f64 = 10.0;
    let backend = plain();
    let edge = world(&backend, "[ { key: address, rate: 20/s burst 10 } ]");
    let passed = AtomicU32::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = edge.client();
                while start.elapsed() < Duration::from_secs(2) {
                    let answer = client.ask(post("localhost", "/mcp", "", CALL));
                    passed.fetch_add(u32::from(answer.status == 200), Ordering::SeqCst);
                }
            });
        }
    });
    let passed = f64::from(passed.into_inner());
    let most = BURST + PER_SECOND * start.elapsed().as_secs_f64();
    let least = 0.95 * (BURST + PER_SECOND * 2.0) - 1.0;
    assert!(passed <= most && passed >= least, "{passed}, not {least} to {most}");
    assert_eq!(backend.count(), passed as usize);
}
