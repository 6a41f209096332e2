//! In: sessions of both eras; out: each at its own replica, ids that only the edge can read, and 404 for all others.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde_json::json;

use crate::support::backend::{Backend, backend};
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Edge, edge};
use crate::support::mcp::{by, call, initialize, modern, modern_body, replica, session};

fn two(a: &Backend, b: &Backend, top: &str, state: Option<&Path>) -> Edge {
    let mut config =
        edge().top(top).upstream("two", &[a.url(), b.url()], "").route("path: /mcp, upstream: two");
    if let Some(state) = state {
        config = config.state(state);
    }
    config.start()
}

/// A session: its sealed id and the name of its replica.
fn begin(edge: &Edge) -> (String, String) {
    let answer = edge.ask(initialize("/mcp"));
    (session(&answer), by(&answer))
}

/// Refused as the spec says, with nothing upstream.
fn assert_gone(edge: &Edge, backends: &[&Backend], id: &str, why: &str) {
    let before: Vec<_> = backends.iter().map(|b| b.count()).collect();
    let answer = edge.ask(call("/mcp", id, 42));
    let body = answer.assert_refused(404);
    assert_eq!(body["id"], 42, "{why}");
    let stream = edge.ask(get_events("localhost", "/mcp", &format!("Mcp-Session-Id: {id}\r\n")));
    assert!(stream.assert_refused(404)["id"].is_null(), "{why}");
    let after: Vec<_> = backends.iter().map(|b| b.count()).collect();
    assert_eq!(before, after, "{why}: nothing upstream");
}

#[test]
fn a_session_stays_with_the_replica_that_made_it() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "", None);
    let sessions: Vec<_> = (0..6).map(|_| begin(&edge)).collect();
    for name in ["a", "b"] {
        assert!(sessions.iter().filter(|s| s.1 == name).count() >= 2, "both serve: {sessions:?}");
    }
    for (id, name) in sessions.iter().chain(sessions.iter().rev()) {
        let answer = edge.ask(call("/mcp", id, 2));
        assert_eq!(by(&answer), *name);
        let own = answer.json()["result"]["session"].as_str().unwrap().to_owned();
        assert!(
            own.starts_with(&format!("{name}-session-")),
            "the backend sees its own id, not {own}"
        );
        let backend = if name == "a" { &a } else { &b };
        assert_eq!(backend.last().all("mcp-session-id"), [own.as_str()]);
        assert_eq!(session(&answer), *id, "an echoed id is the sealed one again, the same");
    }
}

#[test]
fn sealed_ids_are_visible_ascii_and_show_nothing() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "", None);
    let ids: Vec<_> = (0..6).map(|_| begin(&edge).0).collect();
    for id in &ids {
        assert!(id.bytes().all(|c| (0x21..=0x7e).contains(&c)), "MCP 2025-11-25: visible ASCII");
        assert!(id.len() < 1024);
        for inside in ["session", "127.0.0.1", &a.authority(), &b.authority()] {
            assert!(!id.contains(inside), "{id} shows {inside}");
        }
    }
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
}

#[test]
fn notifications_and_delete_follow_the_session() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "", None);
    for _ in 0..4 {
        let (id, name) = begin(&edge);
        let backend = if name == "a" { &a } else { &b };
        let lines = format!("Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: 2025-11-25\r\n");
        let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let answer = edge.ask(post("localhost", "/mcp", &lines, note));
        assert_eq!((answer.status, answer.body.len()), (202, 0));
        assert_eq!(backend.last().body, note.as_bytes());
        let ended = edge.ask(format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        assert_eq!(ended.status, 200);
        assert_eq!(backend.last().method, "DELETE");
        assert!(
            backend
                .last()
                .header("mcp-session-id")
                .unwrap()
                .starts_with(&format!("{name}-session-"))
        );
    }
}

#[test]
fn sessions_survive_a_restart_and_work_at_another_edge() {
    let (a, b) = (replica("a"), replica("b"));
    let state = tempfile::tempdir().unwrap();
    let edge = two(&a, &b, "", Some(state.path()));
    let sessions: Vec<_> = (0..4).map(|_| begin(&edge)).collect();
    edge.stop();
    let again = two(&a, &b, "", Some(state.path()));
    let beside = two(&b, &a, "", Some(state.path()));
    for (id, name) in &sessions {
        assert_eq!(by(&again.ask(call("/mcp", id, 2))), *name, "after a restart");
        let answer = beside.ask(call("/mcp", id, 3));
        assert_eq!(
            by(&answer),
            *name,
            "at another edge, which lists the replicas in another order"
        );
        assert_eq!(session(&answer), *id);
    }
}

#[cfg(unix)]
#[test]
fn generated_keys_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (a, b) = (replica("a"), replica("b"));
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("new");
    let _edge = two(&a, &b, "", Some(&dir));
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap()).collect();
    assert!(!files.is_empty(), "the generated key is kept");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is {mode:o}", file.path());
    }
}

#[test]
fn forged_ids_are_404_and_reach_nobody() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "", None);
    let (id, name) = begin(&edge);
    let mut forged = vec![
        "x".to_owned(),
        "a-session-0".to_owned(),
        "6d1096e9-4f7e-4f57-8f8e-0a4b0f3f1c2d".to_owned(),
        format!("{id}A"),
        format!("{id}{id}"),
        format!("A{id}"),
        id.to_uppercase(),
        id.to_lowercase(),
        format!("{id}="),
        id.replace('.', ":"),
        "z".repeat(5000),
        "!~".repeat(50),
        format!("{id}, {id}"),
    ];
    // Every character changed, every length cut.
    for at in 0..id.len() {
        let other = if id.as_bytes()[at] == b'A' { "B" } else { "A" };
        forged.push(format!("{}{other}{}", &id[..at], &id[at + 1..]));
        if at > 0 {
            forged.push(id[..at].to_owned());
        }
    }
    let mut client = edge.client();
    let before = (a.count(), b.count());
    for fake in &forged {
        let answer = client.ask(call("/mcp", fake, 42));
        assert_eq!(answer.assert_refused(404)["id"], 42, "{fake}");
    }
    assert_eq!((a.count(), b.count()), before);
    assert_gone(&edge, &[&a, &b], "forged", "GET too");
    assert_eq!(by(&edge.ask(call("/mcp", &id, 2))), name, "the true one still works");
}

#[test]
fn two_session_ids_in_one_request_are_refused() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "", None);
    let ids = [begin(&edge).0, begin(&edge).0];
    let before = (a.count(), b.count());
    let lines = format!("Mcp-Session-Id: {}\r\nMcp-Session-Id: {}\r\n", ids[0], ids[1]);
    let answer =
        edge.ask(post("localhost", "/mcp", &lines, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
    assert!([400, 404].contains(&answer.status), "{}", answer.status);
    assert_eq!(answer.not_a_refusal(), None);
    assert_eq!((a.count(), b.count()), before);
}

#[test]
fn an_id_of_other_keys_or_of_another_upstream_is_foreign() {
    let (a, b) = (replica("a"), replica("b"));
    let one = two(&a, &b, "", None);
    let other = two(&a, &b, "", None);
    let (id, _) = begin(&one);
    assert_gone(&other, &[&a, &b], &id, "other keys");
    let state = tempfile::tempdir().unwrap();
    let both = edge()
        .state(state.path())
        .upstream("first", &[a.url()], "")
        .upstream("second", &[a.url()], "")
        .route("path: /first, upstream: first")
        .route("path: /second, upstream: second")
        .start();
    let id = session(&both.ask(initialize("/first")));
    assert_eq!(both.ask(call("/first", &id, 1)).status, 200);
    let before = a.count();
    both.ask(call("/second", &id, 1)).assert_refused(404);
    assert_eq!(a.count(), before, "an id holds for its own upstream only");
}

#[test]
fn an_id_of_a_replica_that_left_is_404_and_never_dialled() {
    let (a, b) = (replica("a"), replica("b"));
    let state = tempfile::tempdir().unwrap();
    let edge_both = two(&a, &b, "", Some(state.path()));
    let sessions: Vec<_> = (0..4).map(|_| begin(&edge_both)).collect();
    edge_both.stop();
    let fewer = edge()
        .state(state.path())
        .upstream("two", &[b.url()], "")
        .route("path: /mcp, upstream: two")
        .start();
    let connections = |backend: &Backend| backend.wait("", |r| Some(r.connections.len()));
    let dialled = connections(&a);
    for (id, name) in &sessions {
        match name.as_str() {
            "a" => assert_gone(&fewer, &[&a, &b], id, "its replica left"),
            _ => assert_eq!(by(&fewer.ask(call("/mcp", id, 2))), "b"),
        }
    }
    assert_eq!(
        connections(&a),
        dialled,
        "never a connection to an address that is not in the configuration"
    );
}

#[test]
fn an_id_past_its_age_is_404() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "sessions: { max_age: 2s }", None);
    let (id, name) = begin(&edge);
    assert_eq!(by(&edge.ask(call("/mcp", &id, 2))), name);
    // Its end can only be waited for; the connection's own requests are the clock.
    let start = std::time::Instant::now();
    let mut client = edge.client();
    while client.ask(call("/mcp", &id, 2)).status == 200 {
        assert!(start.elapsed().as_secs() < 10, "still good after ten seconds");
    }
    assert!(start.elapsed().as_millis() > 500, "not before its time");
    assert_gone(&edge, &[&a, &b], &id, "too old");
    assert_eq!(edge.ask(initialize("/mcp")).status, 200);
}

const K1: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const K2: &str = "2222222222222222222222222222222222222222222222222222222222222222";

#[test]
fn keys_rotate_by_adding_everywhere_and_then_promoting() {
    let (a, b) = (replica("a"), replica("b"));
    let keys = |keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|k| format!("\"{k}\"")).collect();
        two(&a, &b, &format!("sessions: {{ keys: [ {} ] }}", keys.join(", ")), None)
    };
    let (old, added, promoted, done) = (keys(&[K1]), keys(&[K1, K2]), keys(&[K2, K1]), keys(&[K2]));
    let (first, name) = begin(&added);
    assert_eq!(by(&old.ask(call("/mcp", &first, 1))), name, "the first key seals");
    assert_eq!(by(&promoted.ask(call("/mcp", &first, 1))), name, "all keys open");
    assert_gone(&done, &[&a, &b], &first, "its key is gone");
    let (second, name) = begin(&promoted);
    assert_eq!(by(&added.ask(call("/mcp", &second, 1))), name);
    assert_eq!(by(&done.ask(call("/mcp", &second, 1))), name);
    assert_gone(&old, &[&a, &b], &second, "a key it never had");
    // "The same for the life of a session": an id that came in under the old key goes out unchanged.
    let (third, _) = begin(&added);
    assert_eq!(session(&promoted.ask(call("/mcp", &third, 1))), third);
    for edge in [&old, &added, &promoted, &done] {
        for line in edge.stderr().iter().chain(&edge.stdout()) {
            assert!(!line.contains(K1) && !line.contains(K2), "a key in a log: {line}");
        }
    }
}

#[test]
fn an_id_is_learnt_from_a_good_initialize_alone() {
    // Python's server mints an id even for a request that it refuses, and forgets it.
    let backend = backend(|x| {
        let Some(body) = x.body() else { return };
        let status = match x.request.target.as_str() {
            "/mcp/refused" => "400 Bad Request",
            "/mcp/failed" => "500 Internal Server Error",
            _ => "200 OK",
        };
        let headers =
            [("content-type", "application/json"), ("mcp-session-id", "minted-by-mistake")];
        let _ = body;
        x.answer(status, &headers, br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    });
    let edge =
        edge().upstream("one", &[backend.url()], "").route("path: /mcp, upstream: one").start();
    let init =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }).to_string();
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
    for (path, body) in
        [("/mcp/refused", &init), ("/mcp/failed", &init), ("/mcp", &list), ("/mcp/refused", &list)]
    {
        let answer = edge.ask(post("localhost", path, "", body));
        assert!(answer.status >= 400 || answer.status == 200);
        if let Some(id) = answer.header("mcp-session-id") {
            let before = backend.count();
            edge.ask(call("/mcp", id, 1)).assert_refused(404);
            assert_eq!(backend.count(), before, "{path} {body}: {id} leads somewhere");
        }
    }
    let good = edge.ask(post("localhost", "/mcp", "", &init));
    let id = session(&good);
    assert_ne!(id, "minted-by-mistake");
    assert_eq!(edge.ask(call("/mcp", &id, 1)).status, 200);
    assert_eq!(backend.last().all("mcp-session-id"), ["minted-by-mistake"]);
}

#[test]
fn a_backend_id_of_any_visible_ascii_is_carried() {
    let own = "!\"#$%&'()*+-./:;<=>?@[\\]^_`{|}~ok".to_owned() + &"i".repeat(200);
    let minted = own.clone();
    let backend = backend(move |x| {
        x.body();
        x.answer(
            "200 OK",
            &[("content-type", "application/json"), ("mcp-session-id", &minted)],
            b"{}",
        );
    });
    let edge =
        edge().upstream("one", &[backend.url()], "").route("path: /mcp, upstream: one").start();
    let id = session(&edge.ask(initialize("/mcp")));
    assert!(id.bytes().all(|c| (0x21..=0x7e).contains(&c)));
    assert_eq!(edge.ask(call("/mcp", &id, 1)).status, 200);
    assert_eq!(backend.last().all("mcp-session-id"), [own.as_str()]);
}

#[test]
fn a_session_whose_replica_is_down_is_not_moved() {
    // It closes after each answer, so that nothing of it is left in a pool.
    let a = backend(|x| {
        x.body();
        x.answer(
            "200 OK",
            &[("content-type", "application/json"), ("mcp-session-id", "of-a")],
            b"{}",
        );
        x.close();
    });
    let b = replica("b");
    let edge = edge()
        .upstream("two", &[a.url(), b.url()], "balance: first_available")
        .route("path: /mcp, upstream: two")
        .start();
    let id = session(&edge.ask(initialize("/mcp")));
    a.wait("the replica has closed", |r| r.connections.iter().all(|c| c.ended).then_some(()));
    a.shut();
    let answer = edge.ask(call("/mcp", &id, 9));
    // Nobody listens there: what the replica kept is lost, and its client is to begin anew.
    assert_eq!(answer.assert_refused(404)["id"], 9);
    assert_eq!(edge.log_of(&answer)["code"], "session.replica_gone");
    assert_eq!(b.count(), 0, "another replica does not know this session");
    assert_eq!(by(&edge.ask(initialize("/mcp"))), "b", "new ones go elsewhere");
}

/// Clients at other loopback addresses; the edge tells anonymous ones apart by them.
fn from(n: u8, edge: &Edge) -> Client {
    Client::from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, n)), edge.address())
}

#[test]
fn modern_requests_of_one_client_go_to_one_replica() {
    let (a, b) = (replica("a"), replica("b"));
    let one = two(&a, &b, "", None);
    let reordered = two(&b, &a, "", None);
    let mut names = Vec::new();
    for n in 2..26 {
        let name = by(&from(n, &one).ask(modern("/mcp", "", 1)));
        for _ in 0..3 {
            assert_eq!(by(&from(n, &one).ask(modern("/mcp", "", 2))), name, "127.0.0.{n}");
        }
        assert_eq!(
            by(&from(n, &reordered).ask(modern("/mcp", "", 3))),
            name,
            "any edge routes it alike"
        );
        names.push(name);
    }
    for name in ["a", "b"] {
        // Each of 24 addresses is a coin flip: fewer than 3 of one side happen once in 50,000 hash functions.
        assert!(names.iter().filter(|n| *n == name).count() >= 3, "{names:?}");
    }
}

#[test]
fn modern_requests_ignore_a_session_id() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "", None);
    let home = by(&edge.ask(modern("/mcp", "", 1)));
    let sessions: Vec<_> = (0..4).map(|_| begin(&edge).0).collect();
    for id in sessions.iter().map(String::as_str).chain(["forged", "a-session-0"]) {
        let answer = edge.ask(modern("/mcp", &format!("Mcp-Session-Id: {id}\r\n"), 2));
        assert_eq!(by(&answer), home, "{id}");
    }
}

#[test]
fn affinity_none_spreads_modern_requests() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = edge()
        .upstream("two", &[a.url(), b.url()], "affinity: none")
        .route("path: /mcp, upstream: two")
        .start();
    for _ in 0..10 {
        assert_eq!(edge.ask(modern("/mcp", "", 1)).status, 200);
    }
    assert_eq!((a.count(), b.count()), (5, 5));
}

#[test]
fn an_overloaded_replica_passes_new_modern_requests_on() {
    let held = || {
        backend(|x| {
            x.body();
            x.sse(&[]);
            x.wait_closed();
        })
    };
    let (a, b) = (held(), held());
    let edge = two(&a, &b, "", None);
    let mut open = Vec::new();
    for n in 0..20 {
        let mut client = edge.client();
        client.send(modern("/mcp", "", n));
        assert_eq!(client.start().status, 200);
        open.push(client);
    }
    // 1.25 times the mean of 10 is 12.5.
    let most = a.count().max(b.count());
    assert!(most <= 13, "{} and {}", a.count(), b.count());
    assert!(most > 10, "it is stickiness with a bound, not round robin");
}

#[test]
fn header_and_body_of_a_modern_request_must_agree() {
    let (a, b) = (replica("a"), replica("b"));
    let edge = two(&a, &b, "", None);
    let good = modern_body("tools/call", 5);
    let version = "MCP-Protocol-Version: 2026-07-28\r\n";
    let method = "Mcp-Method: tools/call\r\n";
    let name = "Mcp-Name: add\r\n";
    let legacy = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"add"}}"#;
    let refused: &[(&str, String, &str)] = &[
        ("body modern, no version header", format!("{method}{name}"), &good),
        (
            "body modern, header legacy",
            format!("MCP-Protocol-Version: 2025-11-25\r\n{method}{name}"),
            &good,
        ),
        ("Mcp-Method differs", format!("{version}Mcp-Method: tools/list\r\n{name}"), &good),
        ("Mcp-Method differs in case", format!("{version}Mcp-Method: Tools/Call\r\n{name}"), &good),
        ("no Mcp-Method", format!("{version}{name}"), &good),
        ("Mcp-Name differs", format!("{version}{method}Mcp-Name: sub\r\n"), &good),
        ("no Mcp-Name", format!("{version}{method}"), &good),
        ("two Mcp-Names", format!("{version}{method}{name}{name}"), &good),
        ("two Mcp-Methods", format!("{version}{method}{method}{name}"), &good),
        ("Mcp-Name is bad base64", format!("{version}{method}Mcp-Name: =?base64?%%%?=\r\n"), &good),
    ];
    let mut wrong = Vec::new();
    for (why, lines, body) in refused {
        let answer = edge.ask(post("localhost", "/mcp", lines, body));
        if answer.status != 400 || answer.not_a_refusal().is_some() {
            wrong.push(format!("{why}: {} {}", answer.status, answer.text()));
        } else if answer.json()["error"]["code"] != -32020 || answer.json()["id"] != 5 {
            wrong.push(format!("{why}: {}", answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No `_meta` under a modern header: the SDKs say -32602.
    let answer = edge.ask(post("localhost", "/mcp", &format!("{version}{method}{name}"), legacy));
    let code = answer.assert_refused(400)["error"]["code"].as_i64();
    assert!(matches!(code, Some(-32602 | -32020 | -32600)), "{code:?}");
    assert_eq!((a.count(), b.count()), (0, 0), "nothing upstream");
    for (why, lines, body) in [
        ("all agree", format!("{version}{method}{name}"), good.as_str()),
        (
            "Mcp-Name in base64",
            format!("{version}{method}Mcp-Name: =?base64?YWRk?=\r\n"),
            good.as_str(),
        ),
        (
            "an unknown Mcp-Param",
            format!("{version}{method}{name}Mcp-Param-Region: us\r\n"),
            good.as_str(),
        ),
        (
            "legacy with idle Mcp fields",
            "MCP-Protocol-Version: 2025-11-25\r\nMcp-Method: x\r\nMcp-Name: y\r\n".to_owned(),
            legacy,
        ),
        ("legacy without any", String::new(), legacy),
    ] {
        let answer = edge.ask(post("localhost", "/mcp", &lines, body));
        assert_eq!(answer.status, 200, "{why}: {}", answer.text());
    }
    // Notifications carry no Mcp-Method (mcp.md §1.3, seen with TypeScript).
    let note = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let answer = edge.ask(post("localhost", "/mcp", version, note));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_get_that_overtakes_the_end_of_the_last_one_is_tried_again() {
    // SDK servers take one GET stream per session and need a moment to notice that the last has ended.
    let conflicts = std::sync::atomic::AtomicUsize::new(0);
    let backend = backend(move |x| match x.request.method.as_str() {
        "GET" if x.header("mcp-session-id").is_none() || x.header("x-conflict").is_some() => {
            x.body();
            x.answer("409 Conflict", &[], b"");
        }
        "GET" if conflicts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2 => {
            x.answer("409 Conflict", &[], b"");
        }
        "GET" => {
            x.sse(&[]);
            x.chunk("data: 1\n\n");
            x.wait_closed();
        }
        _ => {
            x.body();
            x.answer(
                "200 OK",
                &[("Mcp-Session-Id", "inner"), ("Content-Type", "application/json")],
                b"{}",
            );
        }
    });
    let edge = edge().top("admin: { address: \"127.0.0.1:0\" }").to(&backend).start();
    let session = session(&edge.ask(initialize("/x")));
    let before = backend.count();
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", &format!("Mcp-Session-Id: {session}\r\n")));
    assert_eq!(client.start().status, 200);
    assert_eq!(client.chunks(9), b"data: 1\n\n");
    assert_eq!(backend.count() - before, 3);
    let page = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    let again =
        page.lines().find(|l| l.starts_with("mcp_edge_retries_total") && l.contains("conflict"));
    assert!(again.is_some_and(|line| line.ends_with(" 2")), "{again:?}");
    drop(client);
    // A body is sent once.
    let extra = format!("Mcp-Session-Id: {session}\r\nX-Conflict: always\r\nContent-Length: 1\r\n");
    assert_eq!(edge.ask(get_events("localhost", "/x", &extra) + "x").status, 409);
    let before = before + 1;
    // Without a session it is nobody's last stream: the answer stands.
    assert_eq!(edge.ask(get_events("localhost", "/x", "")).status, 409);
    assert_eq!(backend.count() - before, 4);
}
