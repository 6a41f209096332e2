//! In: connections from here and there, and what proxies say of them; out: who gets in, and who the edge says it was.

use std::fs;
use std::net::IpAddr;
use std::time::Instant;

use crate::support::backend::{Backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, Response, get};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::h2::{H2, request};
use crate::support::wait::DEADLINE;

const TRUSTED: &str = "trusted_proxies: [ 127.0.0.1, 10.0.0.0/8 ]";

fn from(source: &str, edge: &Edge) -> Client {
    Client::from(source.parse::<IpAddr>().unwrap(), edge.address())
}

/// `GET /` with further header lines, from this address.
fn ask(source: &str, edge: &Edge, extra: &str) -> Response {
    from(source, edge).ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n"))
}

/// Whether a connection is closed without a byte from the edge.
fn turned_away(mut client: Client) -> bool {
    client.end().is_empty()
}

fn refused_connections(edge: &Edge, reason: &str) -> Option<String> {
    let metrics = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    let line = format!("mcp_edge_connections_refused_total{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|l| l.strip_prefix(&line).map(str::to_owned))
}

#[test]
fn a_listeners_lists_are_asked_before_any_byte() {
    let (backend, certs) = (plain(), Certs::new());
    for tls in ["", &certs.listener()] {
        for lists in [
            "deny: [ 127.0.0.2 ]",
            "allow: [ 127.0.0.1 ]",
            "allow: [ 127.0.0.0/8 ], deny: [ 127.0.0.2 ]",
        ] {
            let edge = edge()
                .top("admin: { address: \"127.0.0.1:0\" }")
                .listener(&format!("{lists}, {tls}"))
                .to(&backend)
                .start();
            assert!(turned_away(from("127.0.0.2", &edge)), "{lists}");
            assert_eq!(refused_connections(&edge, "denied").as_deref(), Some("1"));
            let mut good = if tls.is_empty() { edge.client() } else { edge.tls(certs.client(&[])) };
            assert_eq!(good.ask(get("localhost", "/")).status, 200, "{lists}");
        }
    }
}

#[test]
fn a_routes_lists_refuse_with_403_whom_the_proxy_names() {
    let backend = plain();
    let edge = edge()
        .top(TRUSTED)
        .upstream("one", &[backend.url()], "")
        .route("path: /deny, upstream: one, deny: [ 192.0.2.66, 127.0.0.2 ]")
        .route("path: /allow, upstream: one, allow: [ 192.0.2.0/24 ]")
        .start();
    let status = |source: &str, path: &str, header: &str| {
        let answer = from(source, &edge).ask(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {header}\r\n\r\n"
        ));
        if answer.status != 200 {
            answer.assert_refused(403);
            assert_eq!(edge.log_of(&answer)["code"], "route.address");
        }
        answer.status
    };
    assert_eq!(status("127.0.0.1", "/deny", "192.0.2.66"), 403);
    assert_eq!(status("127.0.0.1", "/deny", "::ffff:192.0.2.66"), 403);
    assert_eq!(status("127.0.0.1", "/deny", "192.0.2.65"), 200);
    assert_eq!(status("127.0.0.2", "/deny", "192.0.2.65"), 403, "who is not trusted is who he is");
    assert_eq!(status("127.0.0.1", "/allow", "192.0.2.66"), 200);
    assert_eq!(status("127.0.0.1", "/allow", "192.0.3.66"), 403);
    assert_eq!(status("127.0.0.2", "/allow", "192.0.2.66"), 403);
    assert_eq!(backend.count(), 2);
}

#[test]
fn a_list_in_a_file_is_read_again_and_a_broken_one_is_not_taken() {
    let backend = plain();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deny.txt");
    fs::write(&file, "# nobody yet\n").unwrap();
    let edge = edge()
        .top("admin: { address: \"127.0.0.1:0\" }")
        .upstream("one", &[backend.url()], "")
        .route(&format!("upstream: one, deny: [ {{ file: \"{}\" }} ]", file.display()))
        .start();
    let wait = |what: &str, good: &dyn Fn() -> bool| {
        let late = Instant::now() + DEADLINE;
        while !good() {
            assert!(Instant::now() < late, "{what}");
        }
    };
    assert_eq!(ask("127.0.0.2", &edge, "").status, 200);
    fs::write(&file, "127.0.0.2\n").unwrap();
    wait("the change is taken", &|| ask("127.0.0.2", &edge, "").status == 403);
    fs::write(&file, "127.0.0.300\n").unwrap();
    let failed = || {
        let metrics = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
        metrics.lines().any(|l| l.starts_with("mcp_edge_file_reload_failed") && l.ends_with(" 1"))
    };
    wait("the broken file is noticed", &failed);
    assert_eq!(ask("127.0.0.2", &edge, "").status, 403);
    fs::write(&file, "127.0.0.3\n").unwrap();
    wait("the good file is taken", &|| ask("127.0.0.2", &edge, "").status == 200);
}

/// What the backend and the log were told of the client.
fn seen(edge: &Edge, backend: &Backend, source: &str, extra: &str) -> (String, String) {
    let answer = ask(source, edge, extra);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = backend.last();
    let client = seen.header("x-forwarded-for").unwrap();
    assert_eq!(edge.log_of(&answer)["client"], client);
    let proto = seen.header("x-forwarded-proto").unwrap();
    let bracketed = if client.contains(':') { format!("\"[{client}]\"") } else { client.clone() };
    assert!(seen.header("forwarded").unwrap().starts_with(&format!("for={bracketed};host=")));
    assert!(seen.header("forwarded").unwrap().ends_with(&format!(";proto={proto}")));
    for name in ["x-real-ip", "cf-connecting-ip", "x-my-client", "x_my_client", "x_real_ip"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-forwarded-host").unwrap(), "localhost");
    (client, proto)
}

#[test]
fn the_forwarding_header_is_believed_from_trusted_peers_only() {
    let backend = plain();
    let edge = edge().top(TRUSTED).to(&backend).start();
    let who = |source: &str, extra: &str| seen(&edge, &backend, source, extra).0;
    let list = "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.1.1\r\n";
    assert_eq!(who("127.0.0.1", list), "192.0.2.1");
    assert_eq!(who("127.0.0.2", list), "127.0.0.2");
    assert_eq!(who("127.0.0.1", ""), "127.0.0.1");
    assert_eq!(who("127.0.0.1", "X-Forwarded-For: 2001:db8::1\r\n"), "2001:db8::1");
    // the one that is configured, and no other
    assert_eq!(
        who(
            "127.0.0.1",
            "X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil\r\n"
        ),
        "127.0.0.1"
    );
}

#[test]
fn the_protocol_is_the_clients_where_a_trusted_peer_says_so() {
    let (backend, certs) = (plain(), Certs::new());
    let plain = edge().top(TRUSTED).to(&backend).start();
    let proto = |source: &str, extra: &str| seen(&plain, &backend, source, extra).1;
    assert_eq!(proto("127.0.0.1", "X-Forwarded-Proto: https\r\n"), "https");
    assert_eq!(proto("127.0.0.2", "X-Forwarded-Proto: https\r\n"), "http");
    assert_eq!(proto("127.0.0.1", ""), "http");
    let tls = edge().top(TRUSTED).listener(&certs.listener()).to(&backend).start();
    let ask = |extra: &str| {
        let mut client = tls.tls(certs.client(&[]));
        assert_eq!(
            client.ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n")).status,
            200
        );
        backend.last().header("x-forwarded-proto").unwrap()
    };
    assert_eq!(ask(""), "https");
    assert_eq!(ask("X-Forwarded-Proto: http\r\n"), "http");
}

#[test]
fn other_forwarding_headers_may_be_configured() {
    let backend = plain();
    for (name, value) in [
        ("Forwarded", "for=6.6.6.6, for=\"192.0.2.1:99\";proto=https"),
        ("X-Real-IP", "192.0.2.1"),
        ("CF-Connecting-IP", "192.0.2.1"),
        ("X-My-Client", "192.0.2.1"),
    ] {
        let edge =
            edge().top(TRUSTED).top(&format!("forwarded_header: {name}")).to(&backend).start();
        let mut line = format!("{name}: {value}\r\nX-Forwarded-For: 6.6.6.6\r\n");
        if name.contains('-') {
            line += &format!("{}: 6.6.6.6\r\n", name.replace('-', "_"));
        }
        let (client, proto) = seen(&edge, &backend, "127.0.0.1", &line);
        assert_eq!(client, "192.0.2.1", "{name}");
        assert_eq!(proto, if name == "Forwarded" { "https" } else { "http" });
        assert_eq!(seen(&edge, &backend, "127.0.0.2", &line).0, "127.0.0.2");
    }
    let edge = edge().top(TRUSTED).top("forwarded_header: off").to(&backend).start();
    assert_eq!(seen(&edge, &backend, "127.0.0.1", "X-Forwarded-For: 6.6.6.6\r\n").0, "127.0.0.1");
}

#[test]
fn what_a_trusted_proxy_says_unreadably_is_refused() {
    let (backend, certs) = (plain(), Certs::new());
    let edge = edge().top(TRUSTED).listener("").listener(&certs.listener()).to(&backend).start();
    for value in ["192.0.2.1, nonsense", "unix:", "192.0.2.1, 192.0.2.300, 10.0.0.1", "192.0.2.1,"]
    {
        let answer = ask("127.0.0.1", &edge, &format!("X-Forwarded-For: {value}\r\n"));
        answer.assert_refused(400);
        let line = edge.log_of(&answer);
        assert_eq!(
            (&line["code"], &line["client"]),
            (&"client.forwarded".into(), &"127.0.0.1".into())
        );
        assert!(line["detail"].as_str().unwrap().contains("x-forwarded-for"), "{line}");
        assert!(!answer.text().contains("x-forwarded-for"));
        // who is not trusted may write what he likes
        let foreign = ask("127.0.0.2", &edge, &format!("X-Forwarded-For: {value}\r\n"));
        assert_eq!(foreign.status, 200);
    }
    let mut h2 = H2::connect(edge.listener(1), certs.client(&["h2"]));
    let bad = request("GET", "/", &[("x-forwarded-for", "nonsense")]);
    h2.ask(bad, b"").unwrap().assert_refused(400);
    assert_eq!(backend.count(), 4);
}

#[test]
fn whom_a_trusted_proxy_hides_is_refused_where_addresses_count() {
    let backend = plain();
    let edge = edge()
        .top(TRUSTED)
        .top("forwarded_header: Forwarded")
        .upstream("one", &[backend.url()], "")
        .route("path: /open, upstream: one")
        .route("path: /allow, upstream: one, allow: [ 127.0.0.0/8, 10.0.0.0/8 ]")
        .route("path: /deny, upstream: one, deny: [ 192.0.2.66 ]")
        .start();
    for value in ["for=unknown", "for=_hidden", "for=_x, for=10.0.0.3", "proto=https"] {
        let ask = |path: &str| {
            edge.ask(format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nForwarded: {value}\r\n\r\n"
            ))
        };
        assert_eq!(ask("/open").status, 200, "{value}");
        for path in ["/allow", "/deny"] {
            let refused = ask(path);
            refused.assert_refused(403);
            assert_eq!(edge.log_of(&refused)["code"], "route.address");
        }
    }
    assert_eq!(backend.count(), 4);
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";

/// Version 2 with a TLV.
fn v2(command: u8) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([
        0x20 | command,
        0x11,
        0,
        16,
        192,
        0,
        2,
        7,
        10,
        0,
        0,
        1,
        0x12,
        0x67,
        1,
        0xbb,
        4,
        0,
        1,
        0,
    ]);
    bytes
}

fn announcing(mode: &str, rest: &str) -> Builder {
    edge()
        .top(TRUSTED)
        .top("admin: { address: \"127.0.0.1:0\" }")
        .listener(&format!("header_timeout: 1s, proxy_protocol: {mode}, {rest}"))
}

/// A request behind a header; what the backend was told of the client.
fn announced(edge: &Edge, backend: &Backend, header: &[u8], extra: &str) -> String {
    let mut client = edge.client();
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n");
    let answer = client.ask([header, request.as_bytes()].concat());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = backend.last().header("x-forwarded-for").unwrap();
    assert_eq!(edge.log_of(&answer)["client"], told);
    // the connection goes on without another header
    assert_eq!(client.ask(get("localhost", "/")).status, 200);
    told
}

#[test]
fn who_is_announced_is_the_peer() {
    let backend = plain();
    for mode in ["optional", "required"] {
        let edge = announcing(mode, "").to(&backend).start();
        for header in [V1, &v2(1)] {
            assert_eq!(announced(&edge, &backend, header, ""), "192.0.2.7", "{mode}");
            // who is announced is no trusted proxy, so its word counts for nothing
            assert_eq!(
                announced(&edge, &backend, header, "X-Forwarded-For: 6.6.6.6\r\n"),
                "192.0.2.7"
            );
        }
        // the proxy speaks for itself, or for somebody without an address: no word of theirs counts, either
        for header in [&b"PROXY UNKNOWN\r\n"[..], &v2(0)] {
            assert_eq!(
                announced(&edge, &backend, header, "X-Forwarded-For: 6.6.6.6\r\n"),
                "127.0.0.1"
            );
        }
        let chained = b"PROXY TCP4 10.9.9.9 10.0.0.1 4711 443\r\n";
        assert_eq!(
            announced(&edge, &backend, chained, "X-Forwarded-For: 192.0.2.9\r\n"),
            "192.0.2.9"
        );
    }
}

#[test]
fn the_header_stands_before_tls_and_nothing_more_is_taken() {
    let (backend, certs) = (plain(), Certs::new());
    let edge = announcing("required", &certs.listener()).to(&backend).start();
    for header in [V1, &v2(1)] {
        let config = certs.client(&["http/1.1"]);
        let mut client = Client::tls_behind(header, edge.address(), config, "localhost");
        assert_eq!(client.ask(get("localhost", "/")).status, 200);
        assert_eq!(backend.last().header("x-forwarded-for").unwrap(), "192.0.2.7");
    }
    assert!(turned_away_after(&edge, b"\x16\x03\x01\x00\x05hello"));
    assert_eq!(refused_connections(&edge, "proxy_missing").as_deref(), Some("1"));
}

/// Whether these bytes end a connection without an answer.
fn turned_away_after(edge: &Edge, bytes: &[u8]) -> bool {
    let mut client = edge.client();
    client.send(bytes);
    turned_away(client)
}

#[test]
fn a_header_may_come_in_pieces_but_not_for_ever() {
    let backend = plain();
    let edge = announcing("required", "").to(&backend).start();
    for header in [V1, &v2(1)] {
        let mut client = edge.client();
        for byte in header {
            client.send([*byte]);
        }
        assert_eq!(client.ask(get("localhost", "/")).status, 200);
    }
    assert!(turned_away_after(&edge, b"PROXY TCP4 192.0.2.7"));
    assert_eq!(refused_connections(&edge, "proxy_slow").as_deref(), Some("1"));
    assert!(turned_away_after(&edge, b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 99999\r\n"));
    assert!(turned_away_after(&edge, &[b'P', b'R'].repeat(200)), "no header");
    assert_eq!(refused_connections(&edge, "proxy_broken").as_deref(), Some("1"));
}

#[test]
fn a_listener_that_requires_a_header_takes_nothing_else() {
    let backend = plain();
    let edge = announcing("required", "").to(&backend).start();
    assert!(turned_away_after(&edge, get("localhost", "/").as_bytes()));
    assert!(turned_away(from("127.0.0.2", &edge)), "who is not trusted is not even read");
    assert_eq!(refused_connections(&edge, "proxy_untrusted").as_deref(), Some("1"));
    assert_eq!(backend.count(), 0);
}

#[test]
fn an_optional_header_is_taken_from_trusted_peers_only() {
    let backend = plain();
    let edge = announcing("optional", "").to(&backend).start();
    assert_eq!(announced(&edge, &backend, b"", ""), "127.0.0.1");
    assert_eq!(announced(&edge, &backend, b"", "X-Forwarded-For: 192.0.2.9\r\n"), "192.0.2.9");
    assert_eq!(ask("127.0.0.2", &edge, "").status, 200);
    let count = backend.count();
    let mut stranger = from("127.0.0.2", &edge);
    stranger.send([V1, get("localhost", "/").as_bytes()].concat());
    assert!(turned_away(stranger));
    assert_eq!(backend.count(), count);
}

#[test]
fn a_stranger_is_looked_at_before_it_is_waited_for() {
    let backend = plain();
    let rest = "deny: [ 127.0.0.9 ], max_connections_per_address: 1";
    let edge = edge()
        .top(TRUSTED)
        .top("admin: { address: \"127.0.0.1:0\" }")
        .listener(&format!("header_timeout: 1h, proxy_protocol: optional, {rest}"))
        .to(&backend)
        .start();
    // neither sends anything, and neither is waited for
    assert!(turned_away(from("127.0.0.9", &edge)));
    assert_eq!(refused_connections(&edge, "denied").as_deref(), Some("1"));
    // whichever of them comes second
    let _both = [from("127.0.0.2", &edge), from("127.0.0.2", &edge)];
    let late = Instant::now() + DEADLINE;
    while refused_connections(&edge, "per_address").as_deref() != Some("1") {
        assert!(Instant::now() < late, "both wait");
    }
}

#[test]
fn a_client_cannot_pass_for_its_proxy_by_nominating_what_that_says_of_it() {
    let backend = plain();
    let edge = edge().top(TRUSTED).to(&backend).start();
    let hidden = "X-Forwarded-For: 192.0.2.66\r\nConnection: X-Forwarded-For\r\n";
    assert_eq!(ask("127.0.0.1", &edge, hidden).status, 200);
    assert_eq!(backend.last().header("x-forwarded-for").as_deref(), Some("192.0.2.66"));
}

#[test]
fn a_header_where_none_is_spoken_is_no_request() {
    let backend = plain();
    let edge = edge().top(TRUSTED).to(&backend).start();
    edge.ask([V1, get("localhost", "/").as_bytes()].concat()).assert_refused(400);
    assert_eq!(backend.count(), 0);
}

#[test]
fn lists_and_limits_are_about_who_is_announced() {
    let backend = plain();
    let edge = announcing("required", "deny: [ 192.0.2.7 ], max_connections_per_address: 1")
        .to(&backend)
        .start();
    assert!(turned_away_after(&edge, V1));
    let header = |n: u8| format!("PROXY TCP6 2001:db8:0:{n}::7 ::1 4711 443\r\n");
    let mut first = edge.client();
    first.send(header(1));
    assert_eq!(first.ask(get("localhost", "/")).status, 200);
    assert!(
        turned_away_after(&edge, b"PROXY TCP6 2001:db8:0:1:ffff::8 ::1 4711 443\r\n"),
        "of the same /64"
    );
    assert_eq!(refused_connections(&edge, "per_address").as_deref(), Some("1"));
    assert_eq!(announced(&edge, &backend, header(2).as_bytes(), ""), "2001:db8:0:2::7");
}

#[test]
fn an_address_has_so_many_connections() {
    let backend = plain();
    let edge = edge()
        .top("trusted_proxies: 127.0.0.3")
        .listener("max_connections_per_address: 2")
        .to(&backend)
        .start();
    let mut held: Vec<Client> = (0..2).map(|_| edge.client()).collect();
    for client in &mut held {
        assert_eq!(client.ask(get("localhost", "/")).status, 200);
    }
    assert!(turned_away(edge.client()));
    assert_eq!(ask("127.0.0.2", &edge, "").status, 200);
    let proxied: Vec<u16> = (0..4)
        .map(|_| from("127.0.0.3", &edge))
        .collect::<Vec<_>>()
        .iter_mut()
        .map(|c| c.ask(get("localhost", "/")).status)
        .collect();
    assert_eq!(proxied, [200; 4], "a trusted proxy carries many");
    drop(held.pop());
    let late = Instant::now() + DEADLINE;
    loop {
        let mut again = edge.client();
        again.send(get("localhost", "/"));
        if again.try_response().is_some_and(|answer| answer.status == 200) {
            break;
        }
        assert!(Instant::now() < late, "the place is never free again");
    }
}

#[test]
fn a_connection_carries_so_many_requests() {
    let (backend, certs) = (plain(), Certs::new());
    let edge = edge().listener("requests_per_connection: 2").to(&backend).start();
    let mut client = edge.client();
    let first = client.ask(get("localhost", "/"));
    assert_eq!((first.status, first.header("connection")), (200, None));
    let last = client.ask(get("localhost", "/"));
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(turned_away(client));

    let edge = crate::support::edge::edge()
        .listener(&format!("requests_per_connection: 3, {}", certs.listener()))
        .to(&backend)
        .start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
    for _ in 0..3 {
        assert_eq!(client.ask(request("GET", "/", &[]), b"").unwrap().status, 200);
    }
    client.wait_closed_by_peer();
}
