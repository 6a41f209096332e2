//! In: event streams released piece by piece; out: each piece at once, comments between events only, endpoints rewritten.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::support::backend::{Backend, Feed, Source, backend, feed};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Edge, edge};
use crate::support::h2::{H2, Open, request};
use crate::support::mcp;

/// One open stream, on whatever wire.
enum Stream {
    H1(Client),
    H2(H2, Open),
}

impl Stream {
    /// The next `n` bytes or a few more.
    fn next(&mut self, n: usize) -> String {
        let bytes = match self {
            Self::H1(client) => client.chunks(n),
            Self::H2(client, open) => client.parts(open, n),
        };
        String::from_utf8(bytes).unwrap()
    }

    /// Reads until `n` comments of the edge are in.
    fn comments(&mut self, n: usize) -> String {
        let mut text = String::new();
        while text.lines().filter(|l| l.starts_with(':')).count() < n {
            text += &self.next(1);
        }
        text
    }

    fn ends_well(&mut self) -> bool {
        match self {
            Self::H1(client) => client.chunk() == Some(Vec::new()),
            Self::H2(client, open) => loop {
                match client.part(open) {
                    // An empty DATA frame may carry END_STREAM.
                    Ok(Some(part)) if part.is_empty() => {}
                    end => return matches!(end, Ok(None)),
                }
            },
        }
    }
}

fn open_h1(mut client: Client, path: &str) -> Stream {
    client.send(get_events("localhost", path, ""));
    let start = client.start();
    assert_eq!(start.status, 200);
    assert_eq!(start.header("content-type"), Some("text/event-stream"));
    assert_eq!(start.header("content-length"), None);
    Stream::H1(client)
}

fn open_h2(edge: &Edge, listener: usize, config: Arc<ClientConfig>, path: &str) -> Stream {
    let mut client = H2::connect(edge.listener(listener), config);
    let open = client.open(request("GET", path, &[("accept", "text/event-stream")]));
    assert_eq!(open.head.status, 200);
    Stream::H2(client, open)
}

/// A backend that plays one feed for each path, and the feeds.
fn stage<const N: usize>(head: &'static [(&'static str, &'static str)]) -> (Backend, [Feed; N]) {
    let (feeds, sources): (Vec<_>, Vec<_>) = (0..N).map(|_| feed()).unzip();
    let sources: Vec<Arc<Source>> = sources.into_iter().map(Arc::new).collect();
    let backend = backend(move |x| {
        let n: usize = x.request.target.trim_start_matches('/').parse().unwrap();
        x.sse(head);
        x.play(&sources[n]);
    });
    (backend, feeds.try_into().ok().unwrap())
}

#[test]
fn every_event_leaves_before_the_next_is_made() {
    let certs = Certs::new();
    let (backend, feeds) = stage::<3>(&[]);
    let edge = edge().listener("").listener(&certs.listener()).to(&backend).start();
    let tls = Client::tls(edge.listener(1), certs.client(&[]), "localhost");
    let mut streams = [
        open_h1(edge.client(), "/0"),
        open_h1(tls, "/1"),
        open_h2(&edge, 1, certs.client(&["h2"]), "/2"),
    ];
    let events = [
        "event: message\ndata: {\"n\":1}\n\n",
        "data: x\r\n\r\n",
        "id: 7\ndata\n\n",
        ": comment of the server\n\n",
        "data: a\ndata: b\n\n",
        "retry: 100\n\n",
        "data: x\r\r",
    ];
    for (stream, feed) in streams.iter_mut().zip(&feeds) {
        for event in events.iter().cycle().take(30) {
            feed.push(event);
            assert_eq!(stream.next(event.len()), *event);
        }
    }
    drop(feeds);
    assert!(streams.iter_mut().all(Stream::ends_well));
}

#[test]
fn the_answer_to_a_post_streams_too() {
    let (feed, source) = feed();
    let backend = backend(move |x| {
        x.body();
        x.sse(&[]);
        x.play(&source);
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    client.send(post(
        "localhost",
        "/",
        "",
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#,
    ));
    assert_eq!(client.start().status, 200);
    for n in 0..5 {
        let event = format!("event: message\ndata: {{\"progress\":{n}}}\n\n");
        feed.push(&event);
        assert_eq!(client.chunks(event.len()), event.as_bytes());
    }
    drop(feed);
    assert_eq!(client.chunk(), Some(Vec::new()));
    assert_eq!(client.ask(get("localhost", "/next")).status, 200, "the connection goes on");
}

#[test]
fn half_an_event_and_a_large_one_arrive_unchanged() {
    let (backend, [feed]) = stage::<1>(&[]);
    let edge = edge().to(&backend).start();
    let mut stream = open_h1(edge.client(), "/0");
    let large = format!("data: {}\n\n", "l".repeat(2 << 20));
    for part in large.as_bytes().chunks(100_001) {
        feed.push(part);
    }
    assert!(stream.next(large.len()) == large);
    for part in ["da", "ta: ha", "lf\n", "\n"] {
        feed.push(part);
    }
    assert_eq!(stream.next(12), "data: half\n\n");
}

#[test]
fn a_silent_stream_gets_comments_also_before_its_first_event() {
    let certs = Certs::new();
    let (backend, feeds) = stage::<3>(&[]);
    let edge = edge()
        .listener("")
        .listener(&certs.listener())
        .upstream("one", &[backend.url()], "")
        .route("upstream: one, keepalive: 100ms")
        .start();
    let tls = Client::tls(edge.listener(1), certs.client(&[]), "localhost");
    let mut streams = [
        open_h1(edge.client(), "/0"),
        open_h1(tls, "/1"),
        open_h2(&edge, 1, certs.client(&["h2"]), "/2"),
    ];
    for (stream, feed) in streams.iter_mut().zip(&feeds) {
        for n in 0..3 {
            let comments = stream.comments(2);
            for line in comments.lines() {
                assert!(line.is_empty() || line.starts_with(':'), "only comments: {comments:?}");
            }
            feed.push(format!("data: {n}\n\n"));
            let mut text = String::new();
            while !text.contains(&format!("data: {n}\n\n")) {
                text += &stream.next(1);
            }
            let rest: String = text.split_inclusive('\n').filter(|l| !l.starts_with(':')).collect();
            assert_eq!(rest.trim_start_matches('\n'), format!("data: {n}\n\n"));
        }
    }
}

#[test]
fn no_comment_splits_an_event() {
    // Two streams with the same silence; when the second has its third comment, the first would have had two.
    for half in [
        "data: ha",
        "data: half\n",
        "d",
        "event: message\ndata: 1\n",
        ": a comment of the server",
        "data: x\r",
    ] {
        let (backend, [one, two]) = stage::<2>(&[]);
        let edge = edge()
            .upstream("one", &[backend.url()], "")
            .route("upstream: one, keepalive: 100ms")
            .start();
        let mut first = open_h1(edge.client(), "/0");
        // What came before shows that the edge has read the half that came with it.
        one.push(format!("data: before\n\n{half}"));
        let mut text = first.next("data: before\n\n".len());
        let mut second = open_h1(edge.client(), "/1");
        second.comments(3);
        one.push("END\n\n");
        while !text.ends_with("END\n\n") {
            text += &first.next(1);
        }
        assert_eq!(text, format!("data: before\n\n{half}END\n\n"));
        drop((one, two));
    }
}

#[test]
fn comments_can_be_off() {
    let (backend, [quiet, loud]) = stage::<2>(&[]);
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .route("path: /0, upstream: one, keepalive: off")
        .route("path: /1, upstream: one, keepalive: 100ms")
        .start();
    let mut first = open_h1(edge.client(), "/0");
    open_h1(edge.client(), "/1").comments(3);
    quiet.push("data: 1\n\n");
    assert_eq!(first.next(9), "data: 1\n\n");
    drop(loud);
}

#[test]
fn nothing_is_injected_where_it_would_do_harm() {
    // An encoded stream, and a body that is no event stream at all.
    for head in [
        "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n",
        "Content-Type: application/json\r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: text/event-stream-not\r\n",
    ] {
        let (play, source) = feed();
        let odd = backend(move |x| {
            x.raw(format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n"));
            x.play(&source);
        });
        let (events, [other]) = stage::<1>(&[]);
        let edge = edge()
            .upstream("odd", &[odd.url()], "")
            .upstream("events", &[events.url()], "")
            .route("path: /odd, upstream: odd, keepalive: 100ms")
            .route("path: /0, upstream: events, keepalive: 100ms")
            .start();
        let mut client = edge.client();
        client.send(get_events("localhost", "/odd", ""));
        assert_eq!(client.start().status, 200);
        open_h1(edge.client(), "/0").comments(3);
        play.push("\x1f\x08data");
        assert_eq!(client.chunks(6), b"\x1f\x08data", "{head}");
        drop((play, other));
    }
}

#[test]
fn a_stream_has_no_content_length_even_if_the_backend_says_one() {
    // Node sends one for short streams; the edge may add bytes.
    let backend = backend(|x| {
        let body = b"data: 1\n\n";
        x.answer("200 OK", &[("Content-Type", "text/event-stream; charset=utf-8")], body);
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    for _ in 0..2 {
        let answer = client.ask(get_events("localhost", "/", ""));
        assert_eq!(answer.header("content-length"), None);
        assert_eq!((answer.text().as_str(), answer.complete), ("data: 1\n\n", true));
    }
}

#[test]
fn a_stream_that_the_backend_delimits_by_closing_ends_well() {
    let backend = backend(|x| {
        x.raw("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        x.close();
    });
    let edge = edge().to(&backend).start();
    let answer = edge.ask(get_events("localhost", "/", ""));
    assert_eq!(answer.text(), "data: 1\n\n");
}

#[test]
fn accept_encoding_is_not_passed_where_events_are_accepted() {
    let backend = crate::support::backend::plain();
    let edge = edge().to(&backend).start();
    let ask = |accept: &str| {
        let lines = format!("Accept: {accept}\r\nAccept-Encoding: gzip, deflate\r\n");
        edge.ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        backend.last().header("accept-encoding")
    };
    for events in [
        "text/event-stream",
        "application/json, text/event-stream",
        "application/json,Text/Event-Stream;q=0.5",
    ] {
        let sent = ask(events);
        assert!(matches!(sent.as_deref(), None | Some("identity")), "{events}: {sent:?}");
        assert_eq!(backend.last().header("accept").as_deref(), Some(events));
    }
    assert_eq!(ask("application/json").as_deref(), Some("gzip, deflate"));
}

#[test]
fn a_dead_backend_ends_the_stream_distinguishably() {
    let certs = Certs::new();
    let (feed, source) = feed();
    let backend = backend(move |x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        source.next();
        x.close();
    });
    let edge = edge().listener("").listener(&certs.listener()).to(&backend).start();
    let tls = Client::tls(edge.listener(1), certs.client(&[]), "localhost");
    let mut streams = [
        open_h1(edge.client(), "/"),
        open_h1(tls, "/"),
        open_h2(&edge, 1, certs.client(&["h2"]), "/"),
    ];
    for stream in &mut streams {
        assert_eq!(stream.next(9), "data: 1\n\n");
        feed.push("");
    }
    for stream in &mut streams {
        assert!(!stream.ends_well(), "no last chunk on h1, RST_STREAM on h2");
    }
}

#[test]
fn an_event_that_came_before_the_end_of_its_backend_is_not_lost() {
    let certs = Certs::new();
    let backend = backend(|x| {
        x.sse(&[]);
        x.chunk("data: 1\n\n");
        x.close();
    });
    let edge = edge().listener("").listener(&certs.listener()).to(&backend).start();
    for _ in 0..5 {
        let mut h1 = open_h1(edge.client(), "/");
        assert_eq!(h1.next(9), "data: 1\n\n");
        assert!(!h1.ends_well());
        let mut h2 = open_h2(&edge, 1, certs.client(&["h2"]), "/");
        assert_eq!(h2.next(9), "data: 1\n\n");
        assert!(!h2.ends_well());
    }
}

/// A server of the 2024-11-05 transport: an endpoint event, then whatever is posted there.
fn old_server(endpoint: &'static str) -> (Backend, Feed) {
    let (feed, source) = feed();
    let backend = backend(move |x| {
        if x.request.method == "GET" {
            x.sse(&[]);
            return x.play(&source);
        }
        if x.body().is_none() {
            return;
        }
        let known = x.request.target == endpoint;
        let status = if known { "202 Accepted" } else { "404 Not Found" };
        x.answer(status, &[], b"");
    });
    (backend, feed)
}

/// TypeScript's and Python's: path, event as it stands on the wire.
const OLD: [(&str, &str); 2] = [
    ("/messages?sessionId=5b2c8c0e-8f4e-4d0f-9d0a-3a7e2f1c9b11", "event: endpoint\ndata: @\n\n"),
    (
        "/messages/?session_id=5b2c8c0e8f4e4d0f9d0a3a7e2f1c9b11",
        "event: endpoint\r\ndata: @\r\n\r\n",
    ),
];

/// Reads the endpoint event; what its data says.
fn endpoint(stream: &mut Stream) -> String {
    let mut text = String::new();
    loop {
        text += &stream.next(1);
        let line =
            text.split_inclusive('\n').find(|l| l.starts_with("data: ") && l.ends_with('\n'));
        if let (Some(line), true) = (line, text.ends_with("\n\n") || text.ends_with("\n\r\n")) {
            return line["data: ".len()..].trim_end().to_owned();
        }
    }
}

#[test]
fn the_endpoint_of_the_old_transport_leads_back_to_its_replica() {
    for (path, event) in OLD {
        let (a, feed_a) = old_server(path);
        let (b, feed_b) = old_server(path);
        let edge = edge()
            .upstream("two", &[a.url(), b.url()], "")
            .route("path: /tools, upstream: two, rewrite: /")
            .start();
        let event = event.replace('@', path);
        feed_a.push(&event);
        feed_b.push(&event);
        let mut streams = Vec::new();
        let mut reached = [0, 0];
        for _ in 0..2 {
            let before = [a.count(), b.count()];
            let mut stream = open_h1(edge.client(), "/tools/sse");
            let place = endpoint(&mut stream);
            let mine = usize::from(b.count() > before[1]);
            assert!(
                place.starts_with(&format!("/tools{}", path.split('?').next().unwrap())),
                "{place}"
            );
            assert!(place.bytes().all(|c| (0x21..0x7f).contains(&c)), "{place}");
            for _ in 0..4 {
                let counts = [a.count(), b.count()];
                let answer = edge.ask(post(
                    "localhost",
                    &place,
                    "",
                    r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
                ));
                assert_eq!(answer.status, 202, "{place}");
                let replica = [&a, &b][mine];
                assert_eq!(replica.count(), counts[mine] + 1, "the replica of the stream");
                assert_eq!(replica.last().target, path, "the backend gets its own target back");
            }
            reached[mine] += 1;
            streams.push(stream);
        }
        assert_eq!(reached, [1, 1], "two streams, two replicas");
        drop((feed_a, feed_b));
    }
}

#[test]
fn a_forged_routing_token_is_404_and_reaches_nobody() {
    let (path, event) = OLD[0];
    let (a, feed_a) = old_server(path);
    let edge = edge()
        .upstream("two", &[a.url()], "")
        .route("path: /tools, upstream: two, rewrite: /")
        .start();
    feed_a.push(event.replace('@', path));
    let mut stream = open_h1(edge.client(), "/tools/sse");
    let place = endpoint(&mut stream);
    let served = a.count();
    let (head, query) = place.split_once('?').unwrap();
    let token = query
        .split('&')
        .map(|p| p.split_once('=').unwrap())
        .find(|(_, v)| *v != path.split_once('=').unwrap().1);
    let (name, value) = token.unwrap_or_else(|| panic!("no routing token in {place}"));
    let flipped = if value.ends_with('A') { "B" } else { "A" };
    let forged = [
        format!(
            "{head}?{}",
            query.replace(value, &format!("{}{flipped}", &value[..value.len() - 1]))
        ),
        format!("{head}?{}", query.replace(value, &value[..value.len() / 2])),
        format!("{head}?{}", query.replace(value, "x")),
        format!("{head}?{}", query.replace(value, "")),
        format!("{place}&{name}={value}"),
    ];
    for forged in forged {
        let answer =
            edge.ask(post("localhost", &forged, "", r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#));
        assert!([400, 404].contains(&answer.status), "{forged}: {}", answer.status);
        assert_eq!(answer.not_a_refusal(), None);
        assert_eq!(a.count(), served, "{forged}");
    }
    assert_eq!(
        edge.ask(post("localhost", &place, "", r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#))
            .status,
        202
    );
}

#[test]
fn an_endpoint_event_is_rewritten_wherever_it_is_split() {
    for (path, event) in OLD {
        let event = event.replace('@', path);
        let events: Vec<_> =
            (1..event.len()).map(|at| (event[..at].to_owned(), event[at..].to_owned())).collect();
        let (feeds, sources): (Vec<_>, Vec<_>) = events.iter().map(|_| feed()).unzip();
        let backend = backend(move |x| {
            let n: usize = x.header("x-split").unwrap().parse().unwrap();
            x.sse(&[]);
            x.play(&sources[n]);
        });
        let edge = edge()
            .upstream("one", &[backend.url()], "")
            .route("path: /tools, upstream: one, rewrite: /")
            .start();
        for (n, ((first, second), feed)) in events.iter().zip(feeds).enumerate() {
            let mut client = edge.client();
            client.send(get_events("localhost", "/tools/sse", &format!("X-Split: {n}\r\n")));
            assert_eq!(client.start().status, 200);
            let mut stream = Stream::H1(client);
            // The comment shows that the edge has read the first part before the second is there.
            feed.push(format!(": before\n\n{first}"));
            let before = stream.next(10);
            feed.push(second);
            feed.push("event: message\ndata: /messages?sessionId=untouched\n\n");
            drop(feed);
            let mut text = before;
            while !text.ends_with("untouched\n\n") {
                text += &stream.next(1);
            }
            assert!(text.starts_with(": before\n\nevent: endpoint"), "{text:?}");
            let data: Vec<_> = text.lines().filter(|l| l.starts_with("data: ")).collect();
            assert_eq!(data.len(), 2, "{text:?}");
            assert!(data[0].starts_with("data: /tools/messages"), "split at {}: {text:?}", n + 1);
            assert_eq!(
                data[1], "data: /messages?sessionId=untouched",
                "only the endpoint is rewritten"
            );
            assert!(stream.ends_well());
        }
    }
}

#[test]
fn a_get_stream_of_a_session_lives_beside_its_calls() {
    let (a, b) = (mcp::replica("a"), mcp::replica("b"));
    let edge = edge().upstream("two", &[a.url(), b.url()], "").route("upstream: two").start();
    for _ in 0..4 {
        let started = edge.ask(mcp::initialize("/mcp"));
        let (id, name) = (mcp::session(&started), mcp::by(&started));
        let mut client = edge.client();
        client.send(get_events(
            "localhost",
            "/mcp",
            &format!("Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: 2025-11-25\r\n"),
        ));
        let start = client.start();
        assert_eq!(start.status, 200);
        assert_eq!(start.header("mcp-session-id"), Some(id.as_str()), "sealed in streams too");
        let event = format!("event: message\ndata: {{\"replica\":\"{name}\"}}\n\n");
        assert_eq!(client.chunks(event.len()), event.as_bytes());
        assert_eq!(mcp::by(&edge.ask(mcp::call("/mcp", &id, 2))), name);
    }
}
