//! In: what the edge remembers, and a reload; out: what of it is still there.

use serde_json::json;

use super::{ADMIN, SHA, metric};
use crate::support::backend::{backend, feed, plain};
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::mcp::{by, call, initialize, replica, session};
use crate::support::provider::{Mood, provider};
use crate::support::signer::Signer;

/// `ann:pass:wörd`, and `ann:wrong`.
const ANN: &str = "Authorization: Basic YW5uOnBhc3M6d8O2cmQ=\r\n";
const WRONG: &str = "Authorization: Basic YW5uOndyb25n\r\n";

fn with(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

/// Another route, so that the config is another one.
fn more(config: Builder) -> Builder {
    config.route("path: /more, upstream: one")
}

#[test]
fn counters_of_limits() {
    let backend = plain();
    let config = |rates: &str| {
        edge()
            .upstream("one", &[backend.url()], "")
            .route(&format!("upstream: one, limits: [ {rates} ]"))
    };
    let two = "{ key: address, rate: 2/h }, { key: address, rate: 1000/h }";
    let edge = config(two).start();
    assert_eq!((edge.get("/").status, edge.get("/").status), (200, 200));
    assert_eq!(edge.get("/").status, 429);
    edge.take(&more(config(two)));
    assert_eq!(edge.get("/").status, 429, "what was counted counts");
    edge.take(&config(&format!("{two}, {{ key: principal, rate: 9/h }}")));
    assert_eq!(edge.get("/").status, 429, "whatever else there is");
    edge.take(&config("{ key: address, rate: 3/h }"));
    assert_eq!(edge.get("/").status, 200, "a new limit begins anew");
}

#[test]
fn failures_of_passwords_and_those_that_were_right() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let users = dir.path().join("users");
    std::fs::write(&users, format!("ann:{SHA}\n")).unwrap();
    let auth = format!("{{ basic: {{ file: \"{}\", failures: 2/h }} }}", users.display());
    let config = || {
        edge()
            .upstream("one", &[backend.url()], "")
            .raw_route(&format!("path: /x, upstream: one, auth: [ {auth} ]"))
    };
    let edge = config().start();
    assert_eq!(edge.ask(with(WRONG)).status, 401);
    edge.take(&more(config()));
    assert_eq!(edge.ask(with(WRONG)).status, 401);
    edge.take(&config());
    assert_eq!(edge.ask(with(ANN)).status, 429, "two failures, a reload apart");
}

#[test]
fn keys_of_a_provider_that_is_down() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let oauth = format!(
        "{{ oauth: {{ resource: \"https://a.example/x\", issuers: [ {{ issuer: \"{}\", allow_http: true }} ] }} }}",
        provider.issuer()
    );
    let config = |rest: &str| {
        edge()
            .upstream("one", &[backend.url()], "")
            .raw_route(&format!("path: /x, upstream: one, auth: [ {oauth} ]{rest}"))
    };
    let edge = config("").start();
    let token = |subject: &str| {
        let head = json!({ "alg": "EdDSA", "kid": "k", "typ": "at+jwt" });
        let exp =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
                + 600;
        let claims = json!({ "iss": provider.issuer(), "aud": "https://a.example/x", "sub": subject, "exp": exp });
        format!("Authorization: Bearer {}\r\n", signer.token(head, claims))
    };
    assert_eq!(edge.ask(with(&token("ann"))).status, 200);
    provider.set_mood(Mood::HangsUp);
    edge.take(&more(config(", body_limit: 1MiB")));
    assert_eq!(edge.ask(with(&token("bob"))).status, 200, "its keys are known still");
    assert_eq!(edge.ask(with(&token("ann"))).status, 200);
}

#[test]
fn connections_to_servers_also_of_changed_upstreams() {
    let (backend, other) = (plain(), plain());
    let config = |servers: &[String], rest: &str| {
        edge().upstream("one", servers, rest).route("upstream: one")
    };
    let first = &[backend.url()];
    let edge = config(first, "").start();
    let connection = |edge: &Edge| {
        assert_eq!(edge.get("/").status, 200);
        backend.last().connection
    };
    assert_eq!(connection(&edge), 0);
    edge.take(&more(config(first, "")));
    assert_eq!(connection(&edge), 0, "the pool is the same");
    edge.take(&config(&[backend.url(), other.url()], "balance: first_available"));
    assert_eq!(connection(&edge), 0, "also beside another replica");
    edge.take(&config(first, "connect_timeout: 3s"));
    assert_eq!(connection(&edge), 1, "made by other settings");
}

#[test]
fn what_is_in_flight_and_what_streams_carry() {
    let (feed, source) = feed();
    let backend = backend(move |x| {
        x.sse(&[]);
        x.play(&source);
    });
    let other = plain();
    let config = |servers: &[String]| {
        edge()
            .top(ADMIN)
            .upstream("one", servers, "balance: first_available")
            .route("path: /x, upstream: one, limits: [ { key: address, in_flight: 1 } ]")
    };
    let edge = config(&[backend.url()]).start();
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", ""));
    feed.push("data: one\n\n");
    assert_eq!((client.start().status, client.chunks(11)), (200, b"data: one\n\n".to_vec()));
    for servers in [vec![backend.url()], vec![backend.url(), other.url()]] {
        edge.take(&more(config(&servers)));
        assert_eq!(edge.get("/x").status, 429, "its place is taken");
        let name =
            format!("mcp_edge_in_flight{{replica=\"{}\",upstream=\"one\"}}", backend.authority());
        assert_eq!(metric(&edge, &name), Some(1.0));
    }
    feed.push("data: two\n\n");
    assert_eq!(client.chunks(11), b"data: two\n\n");
    drop(feed);
    assert_eq!(client.chunk(), Some(Vec::new()));
    assert_eq!(client.ask(get("localhost", "/more")).status, 200, "its connection goes on");
}

#[test]
fn what_is_under_way_counts_for_another_circuit() {
    let (answer, source) = feed();
    let source = std::sync::Mutex::new(source);
    let backend = backend(move |x| {
        if x.body().is_some() {
            source.lock().unwrap().next();
            x.json("{}");
        }
    });
    let config = |circuit: &str| {
        let upstream = format!("circuit: {{ {circuit}, wait: 50ms }}");
        edge().upstream("one", &[backend.url()], &upstream).route("upstream: one")
    };
    let edge = config("in_flight: 2").start();
    let ask = || post("localhost", "/x", "", r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#);
    let mut under_way: Vec<_> = (0..2).map(|_| edge.client()).collect();
    under_way.iter_mut().for_each(|client| assert!(client.send(ask())));
    backend.wait_request(1);
    edge.take(&config("in_flight: 1"));
    edge.ask(ask()).assert_refused(503);
    // one of three is free
    edge.take(&config("in_flight: 3"));
    let mut third = edge.client();
    third.send(ask());
    backend.wait_request(2);
    edge.ask(ask()).assert_refused(503);
    answer.push("123");
    answer.push("2");
    answer.push("3");
    for client in under_way.iter_mut().chain([&mut third]) {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn sessions() {
    let replicas = [replica("a"), replica("b")];
    let servers: Vec<String> = replicas.iter().map(|r| r.url()).collect();
    let config =
        |servers: &[String]| edge().upstream("one", servers, "").route("upstream: one, path: /mcp");
    let edge = config(&servers).start();
    let sessions: Vec<(String, String)> = (0..4)
        .map(|_| {
            let begun = edge.ask(initialize("/mcp"));
            (session(&begun), by(&begun))
        })
        .collect();
    edge.take(&more(config(&servers)));
    for (id, name) in &sessions {
        assert_eq!(by(&edge.ask(call("/mcp", id, 2))), *name);
    }
    edge.take(&config(&servers[..1]));
    for (id, name) in &sessions {
        let status = edge.ask(call("/mcp", id, 3)).status;
        assert_eq!(status, if name == "a" { 200 } else { 404 }, "{name}");
    }
}

#[test]
fn an_open_connection_meets_the_new_routes() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let mut client = Client::plain(edge.address());
    assert_eq!(client.ask(get("localhost", "/x")).status, 200);
    let guarded = crate::support::edge::edge()
        .upstream("one", &[backend.url()], "")
        .route("upstream: one, deny: [ 127.0.0.1 ]");
    edge.take(&guarded);
    assert_eq!(client.ask(get("localhost", "/x")).status, 403);
}
