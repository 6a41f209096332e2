//! In: clients that take their time; out: a bound on the whole, not on each read, and nothing at the backend.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::client::{get, get_events};
use crate::support::edge::edge;
use crate::support::h2::{H2, request};
use crate::support::wait::DEADLINE;

const PAUSE: Duration = Duration::from_millis(40);

#[test]
fn a_head_that_drips_is_cut_as_a_whole() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge()
        .listener("header_timeout: 500ms")
        .listener(&format!("header_timeout: 500ms, {}", certs.listener()))
        .to(&backend)
        .start();
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: {}", "s".repeat(250));
    let mut tls =
        crate::support::client::Client::tls(edge.listener(1), certs.client(&[]), "localhost");
    assert_eq!(tls.ask(get("localhost", "/warm")).status, 200);
    for mut client in [edge.client(), tls] {
        // Each byte is early; all of them would take ten seconds.
        let sent = client.drip(head.as_bytes(), PAUSE).expect("the edge loses patience");
        assert!(sent < 100, "cut only after {sent} bytes");
        if let Some(answer) = client.try_response() {
            answer.assert_refused(408);
        }
        client.end();
    }
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_body_that_drips_is_cut_as_a_whole() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge()
        .listener("body_timeout: 500ms")
        .listener(&format!("body_timeout: 500ms, {}", certs.listener()))
        .to(&backend)
        .start();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let chunks = "1\r\nx\r\n".repeat(50);
    for (framing, body) in [
        ("Content-Length: 250\r\n\r\n", "x".repeat(250)),
        ("Transfer-Encoding: chunked\r\n\r\n", chunks),
    ] {
        let tls =
            crate::support::client::Client::tls(edge.listener(1), certs.client(&[]), "localhost");
        for mut client in [edge.client(), tls] {
            client.send(format!("{head}{framing}"));
            let sent = client.drip(body.as_bytes(), PAUSE).expect("the edge loses patience");
            assert!(sent < 100, "cut only after {sent} bytes");
            client.response().assert_refused(408);
            client.end();
        }
    }
    assert_eq!(backend.count(), 0);
    let mut h2 = H2::connect(edge.listener(1), certs.client(&["h2"]));
    let (response, mut stream) =
        h2.begin(request("POST", "/", &[("content-type", "application/json")]), false);
    stream.send_data(bytes::Bytes::from_static(b"{"), false).unwrap();
    if let Ok(open) = h2.head(response) {
        assert_eq!(open.head.status, 408);
    }
    assert_eq!(h2.ask(request("GET", "/probe", &[]), b"").unwrap().status, 200, "others go on");
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_body_that_streams_through_may_take_its_time_but_not_drip() {
    // It has a second for every 4 KiB, on top of the listener's time. A second connection's cut shows
    // that the latter has passed.
    let backend = plain();
    let edge = edge().listener("body_timeout: 300ms").to(&backend).start();
    let half = "x".repeat(80 * 1024);
    let start = |length: usize| {
        let mut client = edge.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"));
        client
    };
    let mut gathered = start(50_000);
    gathered.send(&half[..40_000]);
    let mut patient = start(163_840);
    patient.send(&half);
    backend.wait("half", |r| (r.requests.first()?.body.len() == half.len()).then_some(()));
    for kind in ["application/json", "text/plain"] {
        let mut cut = edge.client();
        cut.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 6\r\n\r\nabc"));
        cut.response().assert_refused(408);
    }
    patient.send(&half);
    assert_eq!(patient.response().status, 200);
    assert_eq!(backend.requests()[0].body.len(), 163_840);
    gathered.send(&half[..10_000]);
    assert_eq!(gathered.response().status, 200);
    assert_eq!(backend.last().body.len(), 50_000);
}

#[test]
fn silent_connections_are_closed() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge()
        .listener("header_timeout: 300ms, idle_timeout: 300ms")
        .listener(&format!("header_timeout: 300ms, idle_timeout: 300ms, {}", certs.listener()))
        .to(&backend)
        .start();
    // No byte at all, neither as HTTP nor as TLS; then half a ClientHello.
    for (listener, bytes) in [(0, &b""[..]), (1, b""), (1, b"\x16\x03\x01\x02\x00\x01\x00")] {
        let mut stream = TcpStream::connect(edge.listener(listener)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        std::io::Write::write_all(&mut stream, bytes).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}"),
        }
        assert!(listener == 1 || rest.is_empty(), "nobody asked: {rest:?}");
    }
    // A finished handshake and then nothing, for both protocols.
    for alpn in ["http/1.1", "h2"] {
        let config = certs.client(&[alpn]);
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(config, name).unwrap();
        let tcp = TcpStream::connect(edge.listener(1)).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut tls = rustls::StreamOwned::new(session, tcp);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        let mut rest = Vec::new();
        if let Err(e) = tls.read_to_end(&mut rest) {
            assert!(
                !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                "{alpn}: {e}"
            );
        }
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn an_idle_keep_alive_connection_is_closed_without_a_word() {
    let backend = plain();
    let edge = edge().listener("idle_timeout: 300ms").to(&backend).start();
    let mut client = edge.client();
    assert_eq!(client.ask(get("localhost", "/")).status, 200);
    // An unasked 408 would be taken for the answer to the next request.
    assert_eq!(client.end(), b"");
}

#[test]
fn an_idle_h2_connection_is_closed_but_not_under_a_stream() {
    let certs = Certs::new();
    let backend = crate::support::backend::backend(|x| {
        if x.header("accept").is_none() {
            return x.json("{}");
        }
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let edge = edge()
        .listener(&format!("idle_timeout: 400ms, {}", certs.listener()))
        .upstream("one", &[backend.url()], "")
        .route("upstream: one, keepalive: 150ms")
        .start();
    let mut busy = H2::connect(edge.address(), certs.client(&["h2"]));
    let mut open = busy.open(request("GET", "/", &[("accept", "text/event-stream")]));
    assert_eq!(busy.parts(&mut open, 9), b"data: 1\n\n");
    for _ in 0..2 {
        let mut idle = H2::connect(edge.address(), certs.client(&["h2"]));
        assert_eq!(idle.ask(request("GET", "/", &[]), b"").unwrap().status, 200);
        idle.wait_closed_by_peer();
    }
    busy.parts(&mut open, 1);
    assert_eq!(busy.ask(request("GET", "/", &[]), b"").unwrap().status, 200, "still there");
}

#[test]
fn a_silent_event_stream_outlives_every_timeout() {
    let backend = crate::support::backend::backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.wait_closed();
    });
    let edge = edge()
        .listener(
            "header_timeout: 200ms, body_timeout: 200ms, idle_timeout: 200ms, send_timeout: 200ms",
        )
        .upstream(
            "one",
            &[backend.url()],
            "first_byte_timeout: 200ms, idle_timeout: 200ms, connect_timeout: 200ms",
        )
        .route("path: /off, upstream: one, keepalive: off")
        .route("path: /on, upstream: one, keepalive: 150ms")
        .start();
    let mut quiet = edge.client();
    quiet.send(get_events("localhost", "/off", ""));
    quiet.start();
    assert_eq!(quiet.chunks(9), b"data: 1\n\n");
    let mut other = edge.client();
    other.send(get_events("localhost", "/on", ""));
    other.start();
    let mut text = String::new();
    while text.lines().filter(|l| l.starts_with(':')).count() < 6 {
        text += &String::from_utf8(other.chunks(1)).unwrap();
    }
    let closed = backend.wait("", |r| Some(r.connections.iter().filter(|c| c.closed).count()));
    assert_eq!(closed, 0, "900 ms of silence, and both streams live");
    drop(quiet);
    backend.wait_closed(0);
}

#[test]
fn connections_over_the_limit_are_closed_and_room_comes_back() {
    let backend = plain();
    let edge = edge().listener("max_connections: 4").to(&backend).start();
    let mut held: Vec<_> = (0..4).map(|_| edge.client()).collect();
    for client in &mut held {
        assert_eq!(client.ask(get("localhost", "/")).status, 200);
    }
    let mut fifth = edge.client();
    fifth.send(get("localhost", "/"));
    if let Some(answer) = fifth.try_response() {
        answer.assert_refused(503);
    }
    for client in &mut held {
        assert_eq!(client.ask(get("localhost", "/")).status, 200, "those inside are not disturbed");
    }
    drop(held);
    // The edge sees the closes in its own time.
    let served = (0..2000).any(|_| {
        let mut client = edge.client();
        client.send(get("localhost", "/"));
        client.try_response().is_some_and(|a| a.status == 200)
    });
    assert!(served);
}
