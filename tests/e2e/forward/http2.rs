//! In: the same exchanges over HTTP/2; out: the same at the backend, which speaks HTTP/1.1.

use crate::support::backend::{backend, feed, plain};
use crate::support::certs::Certs;
use crate::support::client::get;
use crate::support::edge::edge;
use crate::support::h2::{H2, request};

#[test]
fn a_request_over_h2_is_an_ordinary_one_at_the_backend() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2", "http/1.1"]));
    let headers = [
        ("content-type", "application/json"),
        ("te", "trailers"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-a", "1"),
    ];
    let answer = client.ask(request("POST", "/x?y=z", &headers), b"{}").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for gone in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
        assert_eq!(answer.header(gone), None, "RFC 9113 §8.2.2: {gone}");
    }
    assert!(answer.header("x-request-id").is_some());
    let seen = backend.last();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.version.as_str()),
        ("POST", "/x?y=z", "HTTP/1.1")
    );
    assert_eq!(seen.all("host"), [backend.authority()]);
    assert_eq!(seen.all("x-forwarded-host"), ["localhost"]);
    assert_eq!(
        seen.all("cookie"),
        ["a=1; b=2"],
        "RFC 9113 §8.2.3: one field for an HTTP/1.1 server"
    );
    assert_eq!(seen.header("te"), None);
    assert_eq!(seen.header("x-a").as_deref(), Some("1"));
    assert_eq!(seen.body, b"{}");
    assert!(seen.headers.iter().all(|(n, _)| !n.starts_with(':')));
}

#[test]
fn bodies_of_a_mebibyte_pass_both_ways_over_h2() {
    let certs = Certs::new();
    let backend = backend(|x| {
        let Some(body) = x.body() else { return };
        match x.request.target.as_str() {
            "/length" => x.answer("200 OK", &[], &body),
            "/chunked" => {
                x.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for part in body.chunks(7000) {
                    x.chunk(part);
                }
                x.end_chunks();
            }
            _ => {
                x.raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                x.raw(body);
                x.close();
            }
        }
    });
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
    for kind in ["application/json", "text/plain"] {
        for target in ["/length", "/chunked", "/close"] {
            for size in [2, 1 << 20] {
                let body = format!("\"{}\"", "h".repeat(size - 2));
                let answer = client
                    .ask(request("POST", target, &[("content-type", kind)]), body.as_bytes())
                    .unwrap();
                assert_eq!(answer.status, 200);
                assert!(
                    answer.body == body.as_bytes(),
                    "{kind} {target} {size}: {}",
                    answer.body.len()
                );
            }
        }
    }
    let five = vec![b'j'; 5 << 20];
    // The edge may reset the rest of a body that it has refused (RFC 9113 §8.1).
    if let Ok(answer) =
        client.ask(request("POST", "/length", &[("content-type", "application/json")]), &five)
    {
        answer.assert_refused(413);
    }
    assert_eq!(
        client.ask(request("GET", "/length", &[]), b"").unwrap().status,
        200,
        "the connection goes on"
    );
}

#[test]
fn streams_of_one_h2_connection_do_not_wait_for_each_other() {
    let certs = Certs::new();
    let backend = backend(|x| {
        if x.request.target == "/slow" {
            return x.wait_closed();
        }
        x.json("{}");
    });
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
    let _slow = client.begin(request("GET", "/slow", &[]), true);
    backend.wait_request(0);
    for _ in 0..20 {
        assert_eq!(client.ask(request("GET", "/fast", &[]), b"").unwrap().status, 200);
    }
}

#[test]
fn head_and_empty_answers_over_h2() {
    let certs = Certs::new();
    let backend = backend(|x| match x.request.target.as_str() {
        "/204" => drop(x.raw("HTTP/1.1 204 No Content\r\n\r\n")),
        "/304" => drop(x.raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")),
        _ => drop(x.raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")),
    });
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
    for (method, path, status) in
        [("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/", 200)]
    {
        let answer = client.ask(request(method, path, &[]), b"").unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{method} {path}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_reset_on_h2() {
    let certs = Certs::new();
    let (feed, source) = feed();
    let backend = backend(move |x| {
        x.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        // It breaks only after the client has seen what came before.
        source.next();
        x.close();
    });
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
    for _ in 0..2 {
        let mut open = client.open(request("GET", "/", &[]));
        assert_eq!(client.parts(&mut open, 3), b"abc");
        feed.push("");
        let end = loop {
            match client.part(&mut open) {
                Ok(Some(part)) => assert!(part.is_empty()),
                other => break other,
            }
        };
        assert!(end.is_err(), "a broken stream must not end cleanly");
    }
}

#[test]
fn refusals_over_h2_have_the_same_shape() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
    client.ask(request("GET", "/a/../b", &[]), b"").unwrap().assert_refused(400);
    client
        .ask(
            request(
                "POST",
                "/",
                &[("content-type", "application/json"), ("content-encoding", "gzip")],
            ),
            b"{}",
        )
        .unwrap()
        .assert_refused(415);
    assert_eq!(
        client.ask(request("GET", "/", &[]), b"").unwrap().status,
        200,
        "the connection goes on"
    );
}

#[test]
fn a_json_body_that_is_reset_has_no_effect() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
    let (_response, mut stream) =
        client.begin(request("POST", "/", &[("content-type", "application/json")]), false);
    stream.send_data(bytes::Bytes::from_static(b"{\"jsonrpc\""), false).unwrap();
    stream.send_reset(h2::Reason::CANCEL);
    assert_eq!(client.ask(request("GET", "/probe", &[]), b"").unwrap().status, 200);
    assert_eq!(backend.count(), 1, "only the probe: {:?}", backend.requests());
}

#[test]
fn a_client_without_alpn_or_with_http_1_1_gets_http_1_1() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    for alpn in [&[][..], &["http/1.1"][..]] {
        let answer = edge.tls(certs.client(alpn)).ask(get("localhost", "/"));
        assert_eq!((answer.status, answer.version.as_str()), (200, "HTTP/1.1"));
    }
}

#[test]
fn plain_http_to_a_tls_port_is_not_served() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let mut client = edge.client();
    client.send(get("localhost", "/"));
    client.end();
    assert_eq!(edge.tls(certs.client(&[])).ask(get("localhost", "/probe")).status, 200);
    assert_eq!(backend.count(), 1);
}
