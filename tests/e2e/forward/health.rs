//! In: replicas that fail, hang, come and go; out: who gets new requests, and what is said of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::backend::{Backend, Silent, backend, plain};
use crate::support::client::{Client, get, post};
use crate::support::edge::{Edge, edge};
use crate::support::mcp::{by, call, initialize, replica, session};

const LEGACY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
pub(super) const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";

fn two(one: &str, other: &str, rest: &str) -> Edge {
    let servers = [one.to_owned(), other.to_owned()];
    edge().top(ADMIN).upstream("two", &servers, rest).route("upstream: two").start()
}

fn ask(edge: &Edge, times: usize) -> Vec<u16> {
    (0..times).map(|_| edge.ask(post("localhost", "/x", "", LEGACY)).status).collect()
}

/// A sample of the metrics page.
pub(super) fn metric(edge: &Edge, name: &str, labels: &[&str]) -> String {
    let page = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    let fits = |l: &&str| l.starts_with(name) && labels.iter().all(|label| l.contains(label));
    let line = page.lines().find(fits).unwrap_or_else(|| panic!("no {name} {labels:?} in {page}"));
    line.rsplit(' ').next().unwrap().to_owned()
}

/// A backend that answers 503 wherever it is asked, unless it is well.
fn moody() -> (Backend, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let now = well.clone();
    let backend = backend(move |x| {
        if x.body().is_some() {
            let status = if now.load(Ordering::SeqCst) { "200 OK" } else { "503 Busy" };
            x.answer(status, &[], b"it is well");
        }
    });
    (backend, well)
}

#[test]
fn a_replica_whose_requests_fail_gets_no_more_of_them() {
    let ((bad, _), good) = (moody(), plain());
    let edge = two(&bad.url(), &good.url(), "eject: { failures: 3, for: 1h }");
    let mut statuses = ask(&edge, 20);
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 17], vec![503; 3]].concat());
    assert_eq!((bad.count(), good.count()), (3, 17));
    edge.wait_line(&format!("{} rests for 3600 s: requests failed: status", bad.authority()));
    let label = format!("replica=\"{}\"", bad.authority());
    assert_eq!(metric(&edge, "mcp_edge_replica_up", &[&label]), "0");
    let cause = "cause=\"status\"";
    assert_eq!(metric(&edge, "mcp_edge_ejections_total", &[&label, cause]), "1");
}

#[test]
fn the_only_replica_fails_and_everybody_can_see_it() {
    let (bad, well) = moody();
    let config = edge().top(ADMIN).upstream("one", &[bad.url()], "").route("upstream: one");
    let edge = config.start();
    let page = |path: &str| Client::plain(edge.admin()).ask(get("localhost", path));
    let replica = || {
        let status: Value = serde_json::from_str(&page("/status").text()).unwrap();
        let upstream = &status["upstreams"][0];
        assert_eq!(upstream["available"] == 1, upstream["replicas"][0]["state"] == "up");
        upstream["replicas"][0].clone()
    };
    assert_eq!(ask(&edge, 4), [503; 4]);
    assert_eq!((page("/readyz").status, replica()["state"].as_str()), (200, Some("up")));
    ask(&edge, 1);
    let name = bad.authority();
    edge.wait_line(&format!("{name} fails: 5 requests in a row, the last one by `status`"));
    let seen = replica();
    assert_eq!(seen["state"], "failing");
    assert_eq!(seen["problem"], "requests failed: status");
    assert!(seen["problem_at"].as_f64().unwrap() >= seen["since"].as_f64().unwrap());
    assert_eq!(page("/readyz").status, 200, "callers take no edge out of its balancer");
    let gauge = |what: &str| metric(&edge, &format!("mcp_edge_replica_{what}"), &[]);
    assert_eq!((gauge("up"), gauge("failing")), ("0".to_owned(), "1".to_owned()));
    assert_eq!(ask(&edge, 1), [503], "it is tried all the same");

    well.store(true, Ordering::SeqCst);
    assert_eq!(ask(&edge, 1), [200]);
    edge.wait_line(&format!("{name} is up"));
    let seen = replica();
    assert_eq!((&seen["state"], &seen["problem"]), (&"up".into(), &Value::Null));
    assert_eq!(page("/readyz").status, 200);
    assert_eq!((gauge("up"), gauge("failing")), ("1".to_owned(), "0".to_owned()));
}

#[test]
fn who_has_rested_is_up_when_he_has_answered() {
    let ((bad, well), good) = (moody(), plain());
    let edge = two(&bad.url(), &good.url(), "eject: { failures: 2, for: 50ms }");
    ask(&edge, 4);
    edge.wait_line(&format!("{} rests for 0.05 s", bad.authority()));
    edge.wait_line(&format!("{} is tried again", bad.authority()));
    let up = format!("{} is up", bad.authority());
    assert!(!edge.stderr().iter().any(|line| line.contains(&up)), "nothing has shown that");
    well.store(true, Ordering::SeqCst);
    assert_eq!(ask(&edge, 2), [200; 2]);
    edge.wait_line(&up);
}

#[test]
fn ejection_can_be_off() {
    let ((bad, _), good) = (moody(), plain());
    let edge = two(&bad.url(), &good.url(), "eject: off");
    ask(&edge, 20);
    assert_eq!((bad.count(), good.count()), (10, 10));
}

#[test]
fn sessions_go_on_where_nothing_new_comes() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = edge()
        .upstream("two", &[a.url(), b.url()], "eject: { failures: 2, for: 1h }")
        .route("path: /mcp, upstream: two")
        .start();
    let mut pinned = edge.ask(initialize("/mcp"));
    while by(&pinned) != "a" {
        pinned = edge.ask(initialize("/mcp"));
    }
    let id = session(&pinned);
    for _ in 0..2 {
        let broken = call("/mcp", &id, 2).replacen("\r\n\r\n", "\r\nX-Break: yes\r\n\r\n", 1);
        assert_eq!(edge.ask(broken).status, 503);
    }
    edge.wait_line(&format!("{} rests", a.authority()));
    let new: Vec<_> = (0..6).map(|_| by(&edge.ask(initialize("/mcp")))).collect();
    assert_eq!(new, ["b"; 6]);
    assert_eq!(by(&edge.ask(call("/mcp", &id, 2))), "a");
}

#[test]
fn who_could_not_be_reached_comes_back_with_the_first_connection() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let good = plain();
    let edge = two(&format!("http://{address}"), &good.url(), "eject: { failures: 2, for: 1h }");
    assert_eq!(ask(&edge, 6), [200; 6]);
    edge.wait_line(&format!("{address} rests for 3600 s: requests failed: connect"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _listening = runtime.block_on(async { socket.listen(64).unwrap() });
    edge.wait_line(&format!("{address} is up"));
}

#[test]
fn the_only_one_who_could_not_be_reached_is_up_with_the_first_connection() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let config = edge().upstream("one", &[format!("http://{address}")], "retry: off");
    let edge = config.route("upstream: one").start();
    assert_eq!(ask(&edge, 5), [503; 5]);
    edge.wait_line(&format!("{address} fails: 5 requests in a row, the last one by `connect`"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _listening = runtime.block_on(async { socket.listen(64).unwrap() });
    edge.wait_line(&format!("{address} is up"));
}

#[test]
fn a_check_by_http_takes_a_replica_out_and_back() {
    let ((bad, well), good) = (moody(), plain());
    let health = "health: { http: { path: /well, body: \"is well\" }, every: 20ms, up_after: 1 }";
    let edge = edge()
        .top(ADMIN)
        .upstream("two", &[bad.url(), good.url()], &format!("{health}, eject: off"))
        .route("upstream: two")
        .start();
    edge.wait_line(&format!("{} is down: answered 503", bad.authority()));
    // the other one answers 200, but not with that text
    edge.wait_line(&format!("{} is down: the body does not have the text", good.authority()));
    edge.wait_line("upstream `two`: no replica is up: all are tried");
    let mut statuses = ask(&edge, 2);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    well.store(true, Ordering::SeqCst);
    edge.wait_line(&format!("{} is up", bad.authority()));
    let before = good.requests().iter().filter(|r| r.target == "/x").count();
    assert_eq!(ask(&edge, 6), [200; 6]);
    assert_eq!(good.requests().iter().filter(|r| r.target == "/x").count(), before);
    let checked = bad.requests().into_iter().find(|r| r.target == "/well").unwrap();
    assert_eq!((checked.method.as_str(), checked.header("host")), ("GET", Some(bad.authority())));
}

#[test]
fn a_check_by_tcp_sees_only_that_nobody_listens() {
    let (a, b) = (plain(), plain());
    let gone = b.authority();
    let edge = two(&a.url(), &b.url(), "health: { tcp: {}, every: 20ms, down_after: 1 }");
    let good = ["result=\"good\"", &format!("replica=\"{gone}\"")];
    while metric(&edge, "mcp_edge_probes_total", &good) == "0" {
        std::thread::yield_now();
    }
    b.shut();
    edge.wait_line(&format!("{gone} is down: cannot connect"));
    assert_eq!(ask(&edge, 6), [200; 6]);
    assert_eq!(a.requests().len(), 6);
}

#[test]
fn a_replica_that_hangs_gets_nothing_new() {
    let (hung, good) = (backend(|x| x.wait_closed()), plain());
    let health = "health: { http: { path: / }, every: 20ms, timeout: 50ms }";
    let edge = two(&hung.url(), &good.url(), health);
    edge.wait_line(&format!("{} is down: the check took longer than 50 ms", hung.authority()));
    assert_eq!(ask(&edge, 6), [200; 6]);
}

/// A replica that has begun a session and cannot be reached any more; the session, by edges with this state folder.
fn out_of_reach(state: &std::path::Path) -> (Silent, std::net::SocketAddr, String) {
    let replica = backend(|x| {
        x.body();
        let json = ("content-type", "application/json");
        x.answer("200 OK", &[json, ("mcp-session-id", "its-own")], b"{}");
        // nothing of it is left in a pool
        x.close();
    });
    let address = replica.address();
    let edge = before(address, "").state(state).start();
    let id = session(&edge.ask(initialize("/mcp")));
    edge.stop();
    replica.shut();
    (Silent::at(address), address, id)
}

fn before(replica: std::net::SocketAddr, rest: &str) -> crate::support::edge::Builder {
    let rest = format!("connect_timeout: 100ms, retry: off, {rest}");
    edge().upstream("one", &[format!("http://{replica}")], &rest).route("path: /mcp, upstream: one")
}

#[test]
fn a_session_waits_for_a_replica_that_only_does_not_answer() {
    let state = tempfile::tempdir().unwrap();
    let (_silent, address, id) = out_of_reach(state.path());
    // also where its requests have failed so often that it shows
    let edge = before(address, "").state(state.path()).start();
    for n in 0..6 {
        let answer = edge.ask(call("/mcp", &id, n));
        answer.assert_refused(503);
        assert_eq!(edge.log_of(&answer)["code"], "forward.no_backend");
    }
    edge.wait_line(&format!("{address} fails: 5 requests in a row"));
    edge.stop();
}

#[test]
fn a_session_is_given_up_where_checks_have_found_its_replica_down() {
    let state = tempfile::tempdir().unwrap();
    let (silent, address, id) = out_of_reach(state.path());
    let checks = "health: { tcp: {}, every: 20ms, timeout: 50ms, up_after: 1 }";
    let edge = before(address, checks).state(state.path()).start();
    edge.wait_line(&format!("{address} is down: "));
    let answer = edge.ask(call("/mcp", &id, 1));
    answer.assert_refused(404);
    assert_eq!(edge.log_of(&answer)["code"], "session.replica_gone");
    // it was the network: whoever has not begun anew goes on
    drop(silent);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async { socket.listen(64).unwrap().into_std().unwrap() });
    listener.set_nonblocking(false).unwrap();
    let back = crate::support::backend::backend_on(listener, |x| {
        if x.body().is_some() {
            x.json("{}");
        }
    });
    edge.wait_line(&format!("{address} is up"));
    assert_eq!(edge.ask(call("/mcp", &id, 2)).status, 200);
    assert_eq!(back.last().all("mcp-session-id"), ["its-own"]);
    edge.stop();
}

#[test]
fn a_session_is_given_up_after_three_refusals_in_a_row() {
    let state = tempfile::tempdir().unwrap();
    let (silent, address, id) = out_of_reach(state.path());
    drop(silent);
    let edge = before(address, "").state(state.path()).start();
    // bound, and not listening: whoever connects is refused
    let bound = || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket
    };
    let ask = |status: u16| {
        let answer = edge.ask(call("/mcp", &id, 1));
        assert_eq!(answer.status, status, "{}", answer.text());
    };
    let socket = bound();
    ask(503);
    ask(503);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async { socket.listen(64).unwrap().into_std().unwrap() });
    listener.set_nonblocking(false).unwrap();
    let back = crate::support::backend::backend_on(listener, |x| {
        x.body();
        x.answer("200 OK", &[("content-type", "application/json")], b"{}");
        x.close();
    });
    ask(200);
    back.wait("it has closed", |r| r.connections.iter().all(|c| c.ended).then_some(()));
    back.shut();
    // it was there in between
    ask(503);
    ask(503);
    ask(404);
    edge.stop();
}

#[test]
fn a_session_goes_on_where_checks_fail_and_its_replica_can_be_reached() {
    let a = replica("a");
    let checks = "health: { http: { path: /, body: \"what it never says\" }, every: 20ms }";
    let edge = before(a.address(), checks).start();
    edge.wait_line(&format!("{} is down: ", a.authority()));
    let begun = edge.ask(initialize("/mcp"));
    let id = session(&begun);
    for n in 0..4 {
        assert_eq!(by(&edge.ask(call("/mcp", &id, n))), "a");
    }
    edge.stop();
}
