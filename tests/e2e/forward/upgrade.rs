//! In: WebSocket handshakes; out: bytes both ways, and no other upgrade.

use crate::support::backend::backend;
use crate::support::certs::Certs;
use crate::support::client::get;
use crate::support::edge::edge;

fn handshake(lines: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

const WEBSOCKET: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";

/// Upgrades whoever asks; others get a 200.
fn server() -> crate::support::backend::Backend {
    backend(|x| {
        if !x.upgraded() {
            x.json("{}");
        }
    })
}

#[test]
fn a_websocket_passes_through_plain_and_tls() {
    let certs = Certs::new();
    let backend = server();
    let edge = edge().listener("").listener(&certs.listener()).to(&backend).start();
    let secure = crate::support::client::Client::tls(
        edge.listener(1),
        certs.client(&["http/1.1"]),
        "localhost",
    );
    for (n, mut client) in [edge.client(), secure].into_iter().enumerate() {
        client.send(handshake(WEBSOCKET));
        let start = client.start();
        assert_eq!(start.status, 101);
        assert_eq!(start.header("upgrade"), Some("websocket"));
        assert!(start.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("upgrade")));
        assert_eq!(start.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(
            backend.last().header("sec-websocket-key").as_deref(),
            Some("dGhlIHNhbXBsZSBub25jZQ==")
        );
        for size in [1, 100, 100_000] {
            let data = vec![b'0' + u8::try_from(n).unwrap(); size];
            client.send(&data);
            assert_eq!(client.exact(size), data);
        }
        drop(client);
        backend.wait_closed(n);
    }
}

#[test]
fn bytes_sent_with_the_handshake_are_not_lost() {
    let backend = server();
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(handshake(WEBSOCKET) + "early");
    assert_eq!(client.start().status, 101);
    assert_eq!(client.exact(5), b"early");
}

#[test]
fn a_refused_websocket_is_an_ordinary_answer() {
    let backend = backend(|x| x.answer("426 Upgrade Required", &[], b"no"));
    let edge = edge().to(&backend).start();
    let answer = edge.ask(handshake(WEBSOCKET));
    assert_eq!((answer.status, answer.body.as_slice()), (426, &b"no"[..]));
}

#[test]
fn a_backend_that_ends_a_websocket_ends_it_for_the_client() {
    let backend = backend(|x| {
        x.raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nbye");
        x.close();
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(handshake(WEBSOCKET));
    assert_eq!(client.start().status, 101);
    assert_eq!(client.end(), b"bye");
}

#[test]
fn nothing_but_a_proper_websocket_upgrade_is_passed_on() {
    // RFC 9110 §7.8: Upgrade counts only with Connection; h2c would tunnel past every rule of the edge.
    let backend = server();
    let edge = edge().to(&backend).start();
    for lines in [
        "Upgrade: websocket\r\n",
        "Connection: keep-alive\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\n",
    ] {
        let mut client = edge.client();
        let answer = client.ask(handshake(lines));
        assert!([200, 400].contains(&answer.status), "{lines}: {}", answer.status);
        for seen in backend.requests() {
            assert_eq!(seen.header("upgrade"), None, "{lines}");
            assert_eq!(seen.header("http2-settings"), None, "{lines}");
        }
    }
    assert_eq!(edge.ask(get("localhost", "/")).status, 200);
}
