//! In: sides that stop reading or go away; out: bounded memory, and the other side told at once.

use std::sync::Arc;
use std::time::Duration;

use crate::support::backend::{Exchange, backend};
use crate::support::certs::Certs;
use crate::support::client::{get, get_events, post};
use crate::support::edge::edge;
use crate::support::h2::{H2, request};
use crate::support::wait::Watched;

/// What sockets of both connections and the edge may hold between them.
const BOUND: usize = 24 << 20;

#[test]
fn a_client_that_does_not_read_stops_the_backend() {
    let certs = Certs::new();
    // 256 MiB would be pushed if nobody stopped it.
    let flood = || {
        backend(|x| {
            x.raw(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            let block = vec![b'x'; 64 << 10];
            for _ in 0..4096 {
                if !x.chunk(&block) {
                    return;
                }
            }
            x.end_chunks();
        })
    };
    let (h1, h2) = (flood(), flood());
    let edge = edge()
        .listener(&certs.listener())
        .upstream("h1", &[h1.url()], "")
        .upstream("h2", &[h2.url()], "")
        .route("path: /h1, upstream: h1")
        .route("path: /h2, upstream: h2")
        .start();
    let mut client = edge.tls(certs.client(&[]));
    client.send(get("localhost", "/h1"));
    client.start();
    let mut other = H2::connect(edge.address(), certs.client(&["h2"]));
    let _open = other.open(request("GET", "/h2", &[]));
    for backend in [&h1, &h2] {
        let written = stalled(backend);
        assert!(written < BOUND, "the backend pushed {written} bytes to a client that read none");
    }
}

/// How much the backend had written when its socket took no more for a while.
///
/// A stall is the absence of an event; the only way to see one is to give the event time. The test can
/// fail for want of a bound, never for slowness.
fn stalled(backend: &crate::support::backend::Backend) -> usize {
    let written = |r: &crate::support::backend::Record| {
        r.connections.iter().map(|c| c.written).sum::<usize>()
    };
    let record = backend.record();
    let mut last = record.wait("bytes are pushed", |r| Some(written(r)).filter(|n| *n > 0));
    while last < BOUND {
        match record
            .wait_for(Duration::from_millis(500), |r| Some(written(r)).filter(|n| *n > last))
        {
            Some(more) => last = more,
            None => return last,
        }
    }
    last
}

#[test]
fn a_client_that_stalls_gets_the_rest_when_it_reads_again() {
    let backend = backend(|x| {
        x.raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 16777216\r\n\r\n");
        x.raw(vec![b'y'; 16 << 20]);
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(get("localhost", "/x"));
    let start = client.start();
    stalled(&backend);
    let (body, complete) = client.body(&start);
    assert!(complete && body.len() == 16 << 20 && body.iter().all(|b| *b == b'y'));
}

#[test]
fn a_client_that_never_reads_is_let_go() {
    let backend = backend(|x| {
        x.raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
        while x.chunk([b'x'; 65_536]) {}
    });
    let edge = edge().listener("send_timeout: 500ms").to(&backend).start();
    let mut client = edge.client();
    client.send(get("localhost", "/x"));
    client.start();
    backend.wait_closed(0);
}

#[test]
fn a_client_that_goes_away_ends_the_upstream_request() {
    let certs = Certs::new();
    let backend = backend(|x| {
        x.body();
        match x.request.target.as_str() {
            "/stream" => x.sse(&[]),
            "/body" => drop(x.raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")),
            _ => {}
        }
        x.wait_closed();
    });
    let edge = edge().listener("").listener(&certs.listener()).to(&backend).start();
    let cases = [
        (get_events("localhost", "/stream", ""), true),
        (get("localhost", "/body"), true),
        (get("localhost", "/silent"), false),
        (
            post("localhost", "/silent", "", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#),
            false,
        ),
    ];
    let mut nth = 0;
    for (bytes, answered) in &cases {
        for tls in [false, true] {
            let to = edge.listener(usize::from(tls));
            let mut client = match tls {
                true => crate::support::client::Client::tls(to, certs.client(&[]), "localhost"),
                false => crate::support::client::Client::plain(to),
            };
            client.send(bytes);
            backend.wait_request(nth);
            if *answered {
                client.start();
            }
            drop(client);
            backend.wait_closed(nth);
            nth += 1;
        }
    }
    for path in ["/stream", "/silent"] {
        let mut client = H2::connect(edge.listener(1), certs.client(&["h2"]));
        let (response, mut stream) =
            client.begin(request("GET", path, &[("accept", "text/event-stream")]), true);
        backend.wait_request(nth);
        let open = (path == "/stream").then(|| client.head(response).unwrap());
        stream.send_reset(h2::Reason::CANCEL);
        drop(open);
        backend.wait_closed(nth);
        nth += 1;
    }
}

#[test]
fn after_an_abort_a_new_get_is_not_in_conflict() {
    // As SDK servers do: one GET stream per session, 409 while there is one.
    let open = Arc::new(Watched::new(0));
    let held = open.clone();
    let backend = backend(move |x: &mut Exchange| {
        if held.update(|n| {
            *n += 1;
            *n
        }) > 1
        {
            held.update(|n| *n -= 1);
            return x.answer("409 Conflict", &[], b"");
        }
        x.sse(&[]);
        x.wait_closed();
        held.update(|n| *n -= 1);
    });
    let edge = edge().to(&backend).start();
    for _ in 0..5 {
        let mut client = edge.client();
        client.send(get_events("localhost", "/x", ""));
        assert_eq!(client.start().status, 200);
        drop(client);
        open.wait("the backend's stream ends", |n| (*n == 0).then_some(()));
    }
}
