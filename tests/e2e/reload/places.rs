//! In: listeners that come, go and change; out: who is served where.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::told;
use crate::support::backend::{backend, feed, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, get_events};
use crate::support::edge::edge;
use crate::support::wait::eventually;

#[test]
fn they_are_added_removed_and_added_again() {
    let (feed, source) = feed();
    let (streaming, backend) = (
        backend(move |x| {
            x.sse(&[]);
            x.play(&source);
        }),
        plain(),
    );
    let base = || {
        edge()
            .listener("")
            .upstream("one", &[backend.url()], "")
            .upstream("two", &[streaming.url()], "")
            .route("upstream: one")
            .route("upstream: two, path: /events")
    };
    let edge = base().start();
    let other = "address: \"127.0.0.2:0\", plaintext: true";
    edge.take(&base().raw_listener(other));
    edge.wait_line("listening on http://127.0.0.2:");
    let second = edge.listening()[1];
    let mut stays = edge.client();
    assert_eq!(stays.ask(get("localhost", "/x")).status, 200);
    let (mut idle, mut stream) = (Client::plain(second), Client::plain(second));
    assert_eq!(idle.ask(get("localhost", "/x")).status, 200);
    stream.send(get_events("localhost", "/events", ""));
    feed.push("data: one\n\n");
    assert_eq!((stream.start().status, stream.chunks(11)), (200, b"data: one\n\n".to_vec()));

    let start = Instant::now();
    edge.take(&base());
    edge.wait_line(&format!("no longer listening on {second}"));
    idle.end();
    assert_eq!(stream.chunks(12), b"retry: 500\n\n");
    assert_eq!(stream.chunk(), Some(Vec::new()));
    stream.end();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    eventually("nobody listens there", || TcpStream::connect(second).is_err());
    assert_eq!(stays.ask(get("localhost", "/x")).status, 200, "others notice nothing");

    edge.take(&base().raw_listener(&format!("address: \"{second}\"")));
    assert_eq!(Client::plain(second).ask(get("localhost", "/x")).status, 200);
}

#[test]
fn those_who_are_there_count_by_the_bounds_of_a_reload() {
    let backend = plain();
    for key in ["max_connections", "max_connections_per_address"] {
        let config = |most: u32| edge().listener(&format!("{key}: {most}")).to(&backend);
        let edge = config(3).start();
        let serves = |client: &mut Client| {
            client.send(get("localhost", "/x"));
            client.try_response().is_some_and(|answer| answer.status == 200)
        };
        let mut there: Vec<Client> = (0..3).map(|_| edge.client()).collect();
        assert!(there.iter_mut().all(serves), "{key}");
        assert!(!serves(&mut edge.client()), "{key}: 3 are there");
        edge.take(&config(2));
        assert!(there.iter_mut().all(serves), "{key}: who is there stays");
        assert!(!serves(&mut edge.client()), "{key}: 3 are there, of 2");
        there.truncate(1);
        let mut more = None;
        eventually("there is room for one", || {
            let mut client = edge.client();
            let serves = serves(&mut client);
            more = Some(client);
            serves
        });
        assert!(!serves(&mut edge.client()), "{key}: and not for two");
        drop(more);
    }
}

#[test]
fn a_port_that_is_taken_changes_nothing() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let held = std::net::TcpListener::bind(taken).unwrap();
    let config = crate::support::edge::edge()
        .listener("")
        .raw_listener(&format!("address: \"{taken}\""))
        .upstream("one", &[backend.url()], "")
        .route("upstream: one, deny: [ 127.0.0.1 ]");
    let done = edge.reload(&config);
    assert_eq!(done.status.code(), Some(2));
    assert!(told(&done).contains(&format!("cannot listen on {taken}")), "{}", told(&done));
    assert_eq!(edge.get("/x").status, 200);
    drop(held);
    edge.take(&config);
    assert_eq!(edge.get("/x").status, 403);
}

#[test]
fn settings_of_one_that_stays_are_those_of_new_connections() {
    let (certs, backend) = (Certs::new(), plain());
    let config =
        |rest: &str| edge().listener(&format!("{}, {rest}", certs.listener())).to(&backend);
    let edge = config("").start();
    let tls = certs.client(&["http/1.1"]);
    let mut old = edge.tls(tls.clone());
    assert!(old.ask(get("localhost", "/x")).header("strict-transport-security").is_some());
    edge.take(&config("hsts: off, requests_per_connection: 2"));
    assert_eq!(edge.listening().len(), 1, "it is the same socket");
    let mut new = edge.tls(tls);
    let first = new.ask(get("localhost", "/x"));
    assert_eq!((first.status, first.header("strict-transport-security")), (200, None));
    assert_eq!(new.ask(get("localhost", "/x")).header("connection"), Some("close"));
    for _ in 0..3 {
        assert_eq!(old.ask(get("localhost", "/x")).status, 200);
    }
}
