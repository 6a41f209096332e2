//! In: a stop signal, and connections in every state; out: what clients and health checks still get, and an exit.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::backend::{backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, get_events};
use crate::support::edge::edge;

#[test]
fn a_request_that_was_on_its_way_to_an_idle_connection_is_answered() {
    let backend = plain();
    let mut edge = edge().to(&backend).start();
    let (mut used, mut fresh) = (edge.client(), edge.client());
    assert_eq!(used.ask(get("localhost", "/x")).header("connection"), None);
    edge.signal("TERM");
    edge.wait_line("stopping");
    edge.wait_refusing();
    for client in [&mut used, &mut fresh] {
        let answer = client.ask(get("localhost", "/x"));
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        client.end();
    }
    assert_eq!(edge.exit().code(), Some(0));
}

/// The wait for a stop is over on such a connection before the answer begins that waits for it, too.
#[test]
fn a_long_answer_that_begins_in_that_moment_is_ended_as_any_other() {
    let backend = backend(|x| {
        if x.header("upgrade").is_some() {
            x.raw(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\n\r\n",
            );
            return x.echo();
        }
        if x.request.target.contains("plain") {
            return x.json("{}");
        }
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let mut edge = edge().to(&backend).start();
    let (mut stream, mut socket) = (edge.client(), edge.client());
    for client in [&mut stream, &mut socket] {
        assert_eq!(client.ask(get("localhost", "/plain")).status, 200);
    }
    edge.signal("TERM");
    edge.wait_line("stopping");
    edge.wait_refusing();
    stream.send(get_events("localhost", "/x", ""));
    socket.send(
        "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(stream.start().status, 200);
    assert_eq!(socket.start().status, 101);
    let mut read = Vec::new();
    while let Some(piece) = stream.chunk().filter(|piece| !piece.is_empty()) {
        read.extend(piece);
    }
    assert!(read.ends_with(b"retry: 500\n\n"), "{:?}", String::from_utf8_lossy(&read));
    socket.end();
    assert_eq!(edge.exit().code(), Some(0));
    let lines = edge.stdout();
    let ends = lines.iter().filter(|line| line.contains("\"stream_end\""));
    let stopped = ends.filter(|line| line.contains("\"end\":\"edge.stopping\"")).count();
    assert_eq!(stopped, 2, "{lines:#?}");
}

#[test]
fn health_paths_say_503_while_connections_are_still_accepted() {
    let backend = plain();
    let mut edge = edge()
        .top("shutdown: { delay: 1h }")
        .listener("health_path: /healthz")
        .to(&backend)
        .start();
    assert_eq!(edge.get("/healthz").status, 200);
    let mut kept = edge.client();
    assert_eq!(kept.ask(get("localhost", "/x")).header("connection"), None);
    edge.signal("TERM");
    edge.wait_line("stopping");
    let health = edge.get("/healthz");
    assert_eq!((health.status, health.text().as_str()), (503, "draining\n"));
    for mut client in [kept, edge.client()] {
        let answer = client.ask(get("localhost", "/x"));
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(client.end().is_empty());
    }
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(1), "a second signal ends it at once");
}

#[test]
fn a_refusal_closes_its_connection_too() {
    let backend = plain();
    let edge = edge()
        .top("shutdown: { delay: 1h }\ntrusted_proxies: [ 127.0.0.0/8 ]")
        .listener("redirect: https")
        .listener("")
        .upstream("one", &[backend.url()], "")
        .route("upstream: one, path: /x")
        .start();
    edge.signal("TERM");
    edge.wait_line("stopping");
    let malformed = "GET /x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: who\r\n\r\n";
    for (listener, request, status) in [
        (1, malformed.to_owned(), 400),
        (1, get("localhost", "/none"), 404),
        (0, get("evil.example", "/"), 421),
    ] {
        let mut client = Client::plain(edge.listener(listener));
        let answer = client.ask(request);
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        client.end();
    }
}

#[test]
fn what_does_not_end_is_cut_after_the_grace_time() {
    let backend = backend(|x| x.wait_closed());
    let mut edge = edge().top("shutdown: { grace: 300ms }").to(&backend).start();
    let mut client = edge.client();
    client.send(get("localhost", "/x"));
    backend.wait_request(0);
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0));
    edge.wait_line("1 connection is cut: the grace time is over");
}

#[test]
fn a_client_that_says_nothing_does_not_keep_a_stopping_edge_up() {
    let (certs, backend) = (Certs::new(), plain());
    let mut edge = edge()
        .top("shutdown: { grace: 1h }\ntrusted_proxies: [ 127.0.0.0/8 ]")
        .listener(&format!("{}, header_timeout: 1h", certs.listener()))
        .listener("proxy_protocol: required, header_timeout: 1h")
        .listener("idle_timeout: 1h")
        .to(&backend)
        .start();
    let mut silent: Vec<_> =
        (0..3).map(|n| TcpStream::connect(edge.listener(n)).unwrap()).collect();
    // speaks HTTP/2 and never acknowledges a farewell
    let tcp = TcpStream::connect(edge.listener(0)).unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(certs.client(&["h2"]), name).unwrap();
    let mut deaf = rustls::StreamOwned::new(session, tcp);
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    deaf.read_exact(&mut [0; 9]).unwrap();
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0));
    for tcp in &mut silent {
        assert_eq!(tcp.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}

/// The client does not close its own side.
#[test]
fn a_stream_ends_between_two_events_and_its_client_is_told_to_come_back() {
    let backend = backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let mut edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(get_events("localhost", "/", ""));
    client.start();
    assert_eq!(client.chunks(9), b"data: 1\n\n");
    edge.signal("TERM");
    assert_eq!(client.chunks(12), b"retry: 500\n\n");
    assert_eq!(edge.exit().code(), Some(0));
    assert!(client.chunk().is_none_or(|piece| piece.is_empty()), "a whole answer");
    client.end();
    backend.wait_closed(0);
}
