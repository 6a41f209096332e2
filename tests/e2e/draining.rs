//! In: a stop signal, and connections in every state; out: what clients and health checks still get, and an exit.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::backend::{SWITCHING, backend, feed, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, get_events, post, websocket};
use crate::support::edge::{Edge, edge};
use crate::support::h2::{H2, request};

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{}}}"#;

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
        if x.upgraded() {
            return;
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
    socket.send(websocket("/x"));
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

/// Speaks HTTP/2 and never acknowledges a farewell: it is waited for, but not for long.
fn deaf(edge: &Edge, certs: &Certs) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let tcp = TcpStream::connect(edge.listener(0)).unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(certs.client(&["h2"]), name).unwrap();
    let mut deaf = rustls::StreamOwned::new(session, tcp);
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    deaf.read_exact(&mut [0; 9]).unwrap();
    deaf
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
    let _deaf = deaf(&edge, &certs);
    edge.signal("TERM");
    assert_eq!(edge.exit().code(), Some(0));
    for tcp in &mut silent {
        assert_eq!(tcp.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}

/// What was begun is told of, whatever ends it; once on one thread and once on several, which Pingora stops in
/// different ways.
#[test]
fn what_is_cut_leaves_its_lines() {
    cut("threads: 1\nshutdown: { grace: 1h }", true, "a second signal came");
    cut("threads: 2\nshutdown: { grace: 300ms }", false, "the grace time is over");
}

fn cut(top: &str, twice: bool, why: &str) {
    let (dir, certs) = (tempfile::tempdir().unwrap(), Certs::new());
    let audit = dir.path().join("audit.log");
    let backend = backend(|x| {
        x.body();
        if x.request.target == "/stream" {
            x.sse(&[]);
            x.chunk("data: 1\n\n");
        }
        if x.request.target == "/ws" {
            // a frame without an end: it is not closed at the drain
            x.raw(format!("{SWITCHING}\u{1}\u{5}he"));
        }
        x.wait_closed();
    });
    let mut edge = edge()
        .top(top)
        .top(&format!("audit: {{ to: \"{}\" }}", audit.display()))
        .listener(&certs.listener())
        .listener("")
        .upstream("one", &[backend.url()], "")
        .route("upstream: one")
        .route("upstream: one, path: /ws, audit: off")
        .start();
    let plain = || crate::support::client::Client::plain(edge.listener(1));
    let (mut call, mut stream, mut ws) = (plain(), plain(), plain());
    call.send(post("localhost", "/call", "", CALL));
    stream.send(post("localhost", "/stream", "", CALL));
    stream.start();
    assert_eq!(stream.chunks(9), b"data: 1\n\n");
    ws.send(websocket("/ws"));
    assert_eq!(ws.start().status, 101);
    assert_eq!(ws.exact(4), b"\x01\x05he");
    let mut h2 = H2::connect(edge.listener(0), certs.client(&["h2"]));
    let _waiting = h2.begin(request("GET", "/h2", &[]), true);
    backend.wait_request(3);
    edge.signal("TERM");
    if twice {
        edge.wait_line("stopping");
        edge.signal("TERM");
    }
    assert_eq!(edge.exit().code(), Some(twice.into()));
    edge.wait_line(&format!("4 connections are cut: {why}"));
    for (path, event, status, sent) in [
        ("/call", "request", 0, 0),
        ("/h2", "request", 0, 0),
        ("/stream", "stream_end", 200, 9),
        ("/ws", "stream_end", 101, 4),
    ] {
        let line = edge.log(path, |line| line["path"] == path && line["event"] == event);
        assert_eq!((&line["end"], &line["status"]), (&json!("edge.cut"), &json!(status)), "{path}");
        assert_eq!(line["bytes_out"], json!(sent), "{path}");
    }
    let lines = fs::read_to_string(&audit).unwrap();
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let answers: Vec<_> = lines.iter().filter(|line| line["event"] == "answer").collect();
    assert_eq!((lines.len(), answers.len()), (4, 2), "{lines:?}");
    for line in answers {
        assert_eq!((&line["outcome"], &line["end"]), (&json!("unknown"), &json!("edge.cut")));
    }
}

#[test]
fn a_websocket_is_closed_between_two_frames() {
    let (feed, source) = feed();
    let backend = backend(move |x| {
        x.raw(SWITCHING);
        while let Some(part) = source.next() {
            x.raw(part);
        }
        x.wait_closed();
    });
    let mut edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(websocket("/ws"));
    assert_eq!(client.start().status, 101);
    feed.push(b"\x81\x05he");
    assert_eq!(client.exact(4), b"\x81\x05he");
    edge.signal("TERM");
    edge.wait_refusing();
    feed.push("llo");
    drop(feed);
    assert_eq!(client.end(), b"llo\x88\x02\x03\xe9", "going away");
    assert_eq!(edge.exit().code(), Some(0));
    let line = edge.log("its end", |line| line["event"] == "stream_end");
    assert_eq!((&line["end"], &line["bytes_out"]), (&json!("edge.stopping"), &json!(7)));
    backend.wait_closed(0);
}

/// Whether the other side has not closed, so far.
fn is_open(tcp: &mut TcpStream) -> bool {
    tcp.set_nonblocking(true).unwrap();
    loop {
        match tcp.read(&mut [0; 512]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(e) => return e.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Three edges are stopped one after the other, and end in another order.
#[test]
fn nothing_is_waited_for_where_nothing_is_left() {
    let certs = Certs::new();
    let backend = backend(|x| {
        if x.header("accept").is_some_and(|accept| accept.contains("event-stream")) {
            x.sse(&[]);
            x.chunk("data: 1\n\n");
            return x.wait_closed();
        }
        x.json("{}");
    });
    let mut waiting = edge().listener(&certs.listener()).to(&backend).start();
    let (mut empty, mut streaming) = (edge().to(&backend).start(), edge().to(&backend).start());
    let mut deaf = deaf(&waiting, &certs);
    assert_eq!(empty.get("/x").status, 200);
    let mut stream = streaming.client();
    stream.send(get_events("localhost", "/", ""));
    stream.start();
    assert_eq!(stream.chunks(9), b"data: 1\n\n");
    for edge in [&waiting, &empty, &streaming] {
        edge.signal("TERM");
        edge.wait_line("stopping");
    }
    assert_eq!(stream.chunks(12), b"retry: 500\n\n");
    drop(stream);
    assert_eq!((empty.exit().code(), streaming.exit().code()), (Some(0), Some(0)));
    assert!(is_open(&mut deaf.sock), "nothing of the others took as long as this one's farewell");
    assert_eq!(waiting.exit().code(), Some(0));
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
