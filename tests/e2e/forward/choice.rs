//! In: several replicas; out: which of them gets a request without a session, and what happens when one cannot be reached.

use crate::support::backend::{Backend, Refusing, plain};
use crate::support::client::post;
use crate::support::edge::edge;

fn counts(backends: &[&Backend]) -> Vec<usize> {
    backends.iter().map(|b| b.count()).collect()
}

const LEGACY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;

#[test]
fn a_failed_connect_tries_the_other_replica() {
    let (dead, live) = (Refusing::new(), plain());
    let edge = edge().upstream("two", &[dead.url(), live.url()], "").route("upstream: two").start();
    for n in 1..=6 {
        assert_eq!(edge.ask(post("localhost", "/x", "", LEGACY)).status, 200);
        assert_eq!(live.count(), n);
    }
}

#[test]
fn no_replica_at_all_is_503() {
    let (one, two) = (Refusing::new(), Refusing::new());
    let edge = edge().upstream("two", &[one.url(), two.url()], "").route("upstream: two").start();
    let answer =
        edge.ask(post("localhost", "/x", "", r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#));
    let body = answer.assert_refused(503);
    assert_eq!(body["id"], 9);
    assert!(!answer.text().contains("127.0.0.1"), "no internal detail: {}", answer.text());
}

#[test]
fn round_robin_takes_turns() {
    let (a, b) = (plain(), plain());
    let edge = edge().upstream("two", &[a.url(), b.url()], "").route("upstream: two").start();
    for _ in 0..10 {
        assert_eq!(edge.ask(post("localhost", "/x", "", LEGACY)).status, 200);
    }
    assert_eq!(counts(&[&a, &b]), [5, 5]);
}

#[test]
fn weights_are_shares() {
    let (a, b) = (plain(), plain());
    let mut config = edge().route("upstream: two");
    config = config.raw_upstream(&format!(
        "name: two, balance: round_robin, servers: [ \"{}\", {{ url: \"{}\", weight: 3 }} ]",
        a.url(),
        b.url()
    ));
    let edge = config.start();
    for _ in 0..20 {
        assert_eq!(edge.ask(post("localhost", "/x", "", LEGACY)).status, 200);
    }
    assert_eq!(counts(&[&a, &b]), [5, 15]);
}

#[test]
fn first_available_stays_with_the_first() {
    let (a, b) = (plain(), plain());
    let edge = edge()
        .upstream("two", &[a.url(), b.url()], "balance: first_available")
        .route("upstream: two")
        .start();
    for _ in 0..6 {
        assert_eq!(edge.ask(post("localhost", "/x", "", LEGACY)).status, 200);
    }
    assert_eq!(counts(&[&a, &b]), [6, 0]);
}

#[test]
fn least_requests_avoids_the_busy_one() {
    use crate::support::backend::backend;
    let busy = backend(|x| {
        x.sse(&[]);
        x.wait_closed();
    });
    let free = plain();
    let edge = edge()
        .upstream("two", &[busy.url(), free.url()], "balance: least_requests")
        .route("upstream: two")
        .start();
    // Until a request is stuck at the busy one, both may be chosen.
    let mut stuck = Vec::new();
    while busy.count() == 0 {
        let mut client = edge.client();
        client.send(post("localhost", "/x", "", LEGACY));
        client.start();
        stuck.push(client);
    }
    let before = free.count();
    for _ in 0..6 {
        assert_eq!(edge.ask(post("localhost", "/x", "", LEGACY)).status, 200);
    }
    assert_eq!((busy.count(), free.count()), (1, before + 6));
}
