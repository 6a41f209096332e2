//! In: bodies of every framing and size; out: the same bytes at the other side, framed well.

use crate::support::backend::{Record, backend, feed, plain};
use crate::support::certs::Certs;
use crate::support::client::{get, post};
use crate::support::edge::edge;
use crate::support::h2::{H2, request};

/// Of a body that is not JSON, this much is gathered before the backend hears of it.
const BEGINNING: usize = 64 * 1024;

/// Bytes in which a shift or a lost block shows.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| b'a' + u8::try_from((i / 7 + i) % 26).unwrap()).collect()
}

fn chunked(head: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut out = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for part in body.chunks(size) {
        out.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn head(kind: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n")
}

#[test]
fn request_bodies_arrive_whole_in_every_framing() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    for kind in ["application/json", "text/plain", "application/octet-stream"] {
        for size in [0, 1, 1000, BEGINNING - 1, BEGINNING, BEGINNING + 1, 70_000, 1 << 20] {
            let mut body = pattern(size);
            if kind == "application/json" && size > 2 {
                (body[0], body[size - 1]) = (b'"', b'"');
            }
            let mut by_length =
                format!("{}Content-Length: {size}\r\n\r\n", head(kind)).into_bytes();
            by_length.extend_from_slice(&body);
            for request in
                [by_length, chunked(&head(kind), &body, 4096), chunked(&head(kind), &body, 100_000)]
            {
                let answer = client.ask(request);
                assert_eq!(answer.status, 200, "{kind} {size}");
                let seen = backend.last();
                assert!(seen.body == body, "{kind} of {size} bytes arrived as {}", seen.body.len());
                let framings =
                    seen.all("content-length").len() + seen.all("transfer-encoding").len();
                assert_eq!(framings, 1, "exactly one framing: {:?}", seen.headers);
            }
        }
    }
}

#[test]
fn a_get_without_a_body_gets_none_at_the_backend() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    assert_eq!(edge.get("/x").status, 200);
    let seen = backend.last();
    assert_eq!(seen.header("transfer-encoding"), None);
    assert!(matches!(seen.header("content-length").as_deref(), None | Some("0")));
}

#[test]
fn a_json_body_is_taken_up_to_four_mebibytes_and_no_further() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let body = |n: usize| format!("\"{}\"", "j".repeat(n - 2));
    let limit = 4 << 20;
    assert_eq!(edge.ask(post("localhost", "/x", "", &body(limit))).status, 200);
    assert_eq!(backend.last().body.len(), limit);
    edge.ask(post("localhost", "/x", "", &body(limit + 1))).assert_refused(413);
    edge.ask(post("localhost", "/x", "", &body(5 << 20))).assert_refused(413);
    let five = chunked(&head("application/json"), body(5 << 20).as_bytes(), 60_000);
    edge.ask(five).assert_refused(413);
    assert_eq!(backend.count(), 1, "nothing of a refused body reaches the backend");
}

#[test]
fn a_body_that_is_not_json_streams_without_that_limit() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let body = pattern(5 << 20);
    assert_eq!(edge.ask(chunked(&head("text/plain"), &body, 60_000)).status, 200);
    assert!(backend.last().body == body);
}

#[test]
fn a_body_that_is_not_json_rpc_passes_untouched() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    for body in [
        "",
        "{",
        "not json",
        "[]",
        "\"text\"",
        "{\"a\":1,\"a\":2}",
        " { \"method\" : 1 } ",
        "\u{feff}{}",
    ] {
        assert_eq!(edge.ask(post("localhost", "/x", "", body)).status, 200, "{body}");
        assert_eq!(backend.last().body, body.as_bytes());
    }
}

#[test]
fn a_large_body_streams_on_from_its_beginning() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let (body, more) = (pattern(BEGINNING), b"the second part");
    let whole = [&body[..], more].concat();
    let kind = head("text/plain");
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let by_length = format!("{kind}Content-Length: {}\r\n\r\n", whole.len());
    let by_chunks = format!("{kind}Transfer-Encoding: chunked\r\n\r\n");
    for (nth, (head, first, second, framing)) in [
        (by_length, body.clone(), more.to_vec(), ("content-length", whole.len().to_string())),
        (
            by_chunks,
            chunk(&body),
            [&chunk(more)[..], b"0\r\n\r\n"].concat(),
            ("transfer-encoding", "chunked".to_owned()),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = edge.client();
        client.send([head.as_bytes(), &first].concat());
        let begun = |r: &Record| (r.requests.get(2 * nth)?.body == body).then_some(());
        backend.wait("its beginning", begun);
        // what stands right behind it is the next request
        client.send([&second[..], get("localhost", "/next").as_bytes()].concat());
        assert_eq!((client.response().status, client.response().status), (200, 200));
        let seen = &backend.requests()[2 * nth];
        assert!(seen.body == whole && seen.complete);
        assert_eq!(seen.header(framing.0), Some(framing.1));
    }
}

#[test]
fn a_slow_body_that_is_not_json_costs_the_backend_nothing() {
    let backend = plain();
    let certs = Certs::new();
    let edge = edge().listener("body_timeout: 1s").listener(&certs.listener()).to(&backend).start();
    let almost = pattern(BEGINNING - 1);
    let chunk = [format!("{:x}\r\n", almost.len()).as_bytes(), &almost].concat();
    let slow = |framing: &str, part: &[u8]| {
        let mut client = edge.client();
        client.send(format!("{}Expect: 100-continue\r\n{framing}\r\n\r\n", head("text/plain")));
        assert_eq!(client.head().unwrap().status, 100, "the edge has begun to gather");
        client.send(part);
        client
    };
    let _held =
        [slow("Content-Length: 100000", &almost), slow("Transfer-Encoding: chunked", &chunk)];
    let late = [slow("Content-Length: 2", b"x"), slow("Transfer-Encoding: chunked", b"1\r\nx\r\n")];
    let mut h2 = H2::connect(edge.listener(1), certs.client(&["h2"]));
    let (_slow, mut stream) =
        h2.begin(request("POST", "/x", &[("content-type", "text/plain")]), false);
    stream.send_data(bytes::Bytes::from_static(b"x"), false).unwrap();
    assert_eq!(h2.ask(request("GET", "/probe", &[]), b"").unwrap().status, 200, "others go on");
    for mut client in late {
        client.response().assert_refused(408);
    }
    let met = backend.wait("", |r| Some((r.connections.len(), r.requests.len())));
    assert_eq!(met, (1, 1), "only the probe's");
}

#[test]
fn a_client_that_leaves_before_its_body_is_there_never_reaches_the_backend() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    for framing in
        ["Content-Length: 20\r\n\r\nfirst", "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"]
    {
        let mut client = edge.client();
        client.send(format!("{}{framing}", head("text/plain")).replace("/x", "/left"));
        client.half_close();
        assert_eq!(client.end(), b"");
    }
    edge.log("both are over", |v| v["end"] == "client.gone");
    assert_eq!(edge.get("/probe").status, 200);
    let met = backend.wait("", |r| Some((r.connections.len(), r.requests.len())));
    assert_eq!(met, (1, 1));
}

#[test]
fn the_beginnings_of_bodies_are_charged_and_given_back() {
    let backend = plain();
    let edge = edge()
        .top("buffer_budget: 128KiB")
        .upstream("one", &[backend.url()], "")
        .route("upstream: one, body_limit: 128KiB")
        .start();
    let body = String::from_utf8(pattern(BEGINNING)).unwrap();
    let (first, last) = body.split_at(BEGINNING - 1);
    let head = format!("{}Content-Length: {BEGINNING}\r\n", head("text/plain"));
    // Charged as they come: one of the others may come first and a holder be refused.
    let hold = |_| {
        let mut holder = edge.client();
        holder.send(format!("{head}Expect: 100-continue\r\n\r\n"));
        assert_eq!(holder.head().unwrap().status, 100);
        holder.send(first);
        holder
    };
    let (holders, refused) = (0..40)
        .find_map(|_| {
            let holders = [1, 2].map(hold);
            let mut others = std::iter::repeat_with(|| edge.ask(format!("{head}\r\n{body}")));
            others.by_ref().take(50).find(|a| a.status != 200).map(|refused| (holders, refused))
        })
        .expect("three of 64 KiB do not fit into 128 KiB");
    refused.assert_refused(503);
    for mut holder in holders {
        holder.send(last);
        assert_eq!(holder.response().status, 200);
    }
    assert_eq!(edge.ask(format!("{head}\r\n{body}")).status, 200, "given back");
}

#[test]
fn a_streamed_body_that_breaks_off_is_aborted_upstream() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let first = String::from_utf8(pattern(BEGINNING)).unwrap();
    for framing in [
        format!("Content-Length: 100000\r\n\r\n{first}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{BEGINNING:x}\r\n{first}\r\n"),
    ] {
        let nth = backend.count();
        let mut client = edge.client();
        client.send(format!("{}{framing}", head("text/plain")));
        let part = |r: &Record| (r.requests.get(nth)?.body == first.as_bytes()).then_some(());
        backend.wait("its beginning", part);
        drop(client);
        backend.wait_closed(nth);
        assert!(
            !backend.requests()[nth].complete,
            "the backend must not take the part for the whole"
        );
    }
}

#[test]
fn answers_arrive_whole_in_every_framing() {
    let body = pattern(1 << 20);
    let sent = body.clone();
    let backend = backend(move |x| {
        let size: usize = x.header("x-size").unwrap().parse().unwrap();
        let body = &sent[..size];
        match x.request.target.as_str() {
            "/length" => x.answer("200 OK", &[], body),
            "/chunked" => {
                x.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for part in body.chunks(5000) {
                    x.chunk(part);
                }
                x.end_chunks();
            }
            "/trailers" => {
                x.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n");
                for part in body.chunks(50_000) {
                    x.chunk(part);
                }
                x.raw("0\r\nX-T: 1\r\n\r\n");
            }
            version => {
                x.raw(format!("HTTP/1.{} 200 OK\r\nConnection: close\r\n\r\n", &version[1..]));
                x.raw(body);
                x.close();
            }
        }
    });
    let edge = edge().to(&backend).start();
    for target in ["/length", "/chunked", "/trailers", "/0", "/1"] {
        // Each on one connection: all of them leave it usable.
        let mut client = edge.client();
        for size in [0, 1, 1000, 70_000, 1 << 20] {
            let answer = client
                .ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Size: {size}\r\n\r\n"));
            assert_eq!(answer.status, 200);
            assert!(
                answer.complete && answer.body == body[..size],
                "{target} of {size}: {}",
                answer.body.len()
            );
            let framings = answer.count("content-length") + answer.count("transfer-encoding");
            assert_eq!(framings, 1, "{target}: {:?}", answer.headers);
        }
    }
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let backend = backend(|x| match (x.request.method.as_str(), x.request.target.as_str()) {
        ("HEAD", "/chunked") => {
            x.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        }
        ("HEAD", _) => {
            x.raw(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
            );
        }
        (_, "/204") => {
            x.raw("HTTP/1.1 204 No Content\r\n\r\n");
        }
        (_, "/304") => {
            x.raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n");
        }
        _ => x.json("{}"),
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    let head = client.ask("HEAD /length HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("1000")),
        "RFC 9110 §9.3.2"
    );
    assert_eq!(client.ask("HEAD /chunked HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    let none = client.ask(get("localhost", "/204"));
    assert_eq!(none.status, 204);
    assert_eq!(
        (none.header("content-length"), none.header("transfer-encoding")),
        (None, None),
        "RFC 9110 §8.6"
    );
    let same = client.ask(get("localhost", "/304"));
    assert_eq!((same.status, same.header("etag")), (304, Some("\"a\"")));
    assert_eq!(same.header("transfer-encoding"), None);
    assert_eq!(
        client.ask(get("localhost", "/after")).body,
        b"{}",
        "nothing was left on either connection"
    );
    assert_eq!(client.ask("HEAD /x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n").status, 421);
    assert_eq!(
        client.ask(get("localhost", "/after")).body,
        b"{}",
        "a refused HEAD has no body either"
    );
}

#[test]
fn interim_answers_do_not_hide_the_final_one() {
    let backend = backend(|x| {
        x.raw("HTTP/1.1 100 Continue\r\n\r\n");
        x.raw("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n");
        x.json("{\"final\":true}");
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    for _ in 0..2 {
        let answer = client.ask(get("localhost", "/x"));
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{\"final\":true}"[..]));
        // RFC 9110 §15.2: 103 MAY be passed on; nobody asked for a 100.
        assert!(answer.interim.iter().all(|s| *s == 103), "{:?}", answer.interim);
    }
    let mut old = edge.client();
    old.send("GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(old.head().unwrap().status, 200, "RFC 9110 §15.2: no 1xx to an HTTP/1.0 client");
}

#[test]
fn an_http_1_0_client_gets_no_chunks_and_a_close() {
    let backend = backend(|x| {
        x.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        x.chunk("one");
        x.chunk("two");
        x.end_chunks();
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    let answer = client.ask("GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer.header("transfer-encoding"), None, "RFC 9112 §6.1");
    assert_eq!(answer.body, b"onetwo");
    assert_eq!(client.end(), b"");
    assert_eq!(
        backend.last().version,
        "HTTP/1.1",
        "the edge speaks its own version (RFC 9110 §2.5)"
    );
}

#[test]
fn an_http_1_0_client_may_keep_the_connection_if_it_asks() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    let answer = client.ask("GET /x HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(answer.status, 200);
    let kept = answer.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("keep-alive"));
    if kept {
        assert_eq!(client.ask(get("localhost", "/x")).status, 200);
    } else {
        assert_eq!(client.end(), b"");
    }
}

#[test]
fn a_connection_carries_many_requests_and_closes_when_told() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    for _ in 0..5 {
        assert_eq!(client.ask(get("localhost", "/x")).status, 200);
    }
    let last = client.ask("GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(last.status, 200);
    assert_eq!(
        last.header("connection").map(str::to_lowercase).as_deref(),
        Some("close"),
        "RFC 9112 §9.6"
    );
    assert_eq!(client.end(), b"");
    let connections = backend.wait("", |r| Some(r.connections.len()));
    assert_eq!(connections, 1, "and the backend's connection was reused");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = backend(|x| {
        if x.body().is_some() {
            let target = x.request.target.clone();
            x.answer("200 OK", &[], target.as_bytes());
        }
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(
        [get("localhost", "/1"), post("localhost", "/2", "", "{}"), get("localhost", "/3")]
            .concat(),
    );
    for expected in ["/1", "/2", "/3"] {
        assert_eq!(client.response().text(), expected);
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let backend = plain();
    let edge = edge().to(&backend).start();
    for kind in ["application/json", "text/plain"] {
        let mut client = edge.client();
        client.send(format!("{}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", head(kind)));
        assert_eq!(client.head().unwrap().status, 100, "{kind}");
        client.send("{}");
        assert_eq!(client.response().status, 200);
        let seen = backend.last();
        assert_eq!(seen.body, b"{}");
        // A client that does not wait is served too (RFC 9110 §10.1.1).
        let eager = edge
            .ask(format!("{}Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n{{}}", head(kind)));
        assert_eq!(eager.status, 200);
    }
}

#[test]
fn json_answers_leave_before_they_are_whole() {
    let (feed, source) = feed();
    let backend = backend(move |x| {
        x.raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
        x.play(&source);
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(get("localhost", "/x"));
    assert_eq!(client.start().status, 200, "the head does not wait for the body");
    for part in ["{\"a\":", "1", "}"] {
        feed.push(part);
        assert_eq!(client.chunks(part.len()), part.as_bytes());
    }
    drop(feed);
    assert_eq!(client.chunk(), Some(Vec::new()));
}

#[test]
fn a_connection_that_still_waits_for_a_body_carries_nothing_else() {
    // The backend answers at the head and keeps its connection: whatever comes next on it would be
    // taken for the rest of the first request's body (RFC 9112 §9.3).
    let backend = backend(|x| match x.request.method.as_str() {
        "POST" => x.answer("413 Content Too Large", &[], b"{}"),
        _ => x.json("{}"),
    });
    let edge = edge().to(&backend).start();
    let mut early = edge.client();
    let beginning = String::from_utf8(pattern(BEGINNING)).unwrap();
    early.send(format!("{}Content-Length: 70000\r\n\r\n{beginning}", head("text/plain")));
    assert_eq!(early.start().status, 413);
    assert_eq!(early.end(), b"{}", "the client's connection ends with the answer, too");
    assert_eq!(edge.get("/next").status, 200);
    let connections: Vec<_> = backend.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [0, 1]);
}

#[test]
fn an_answer_that_begins_before_the_end_of_the_body_does_not_stop_the_body() {
    // What an echo or a transform does: head first, then body by body.
    let backend = backend(|x| {
        x.raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
        let body = x.body().unwrap();
        x.raw(format!("{:x}\r\n", body.len()));
        x.raw(body);
        x.raw("\r\n0\r\n\r\n");
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    let body = pattern(BEGINNING + 3);
    let (first, last) = body.split_at(BEGINNING);
    client.send(format!("{}Content-Length: {}\r\n\r\n", head("text/plain"), body.len()));
    client.send(first);
    backend.wait("its beginning", |r| (r.requests.first()?.body == first).then_some(()));
    client.send(last);
    let answer = client.response();
    assert!(answer.status == 200 && answer.body == body, "{}", answer.body.len());
}
