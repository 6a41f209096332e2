//! In: backends that fail in every way; out: the refusal or the broken end that tells the client so, and no second try of a POST.

use std::time::Duration;

use crate::support::backend::{Backend, Exchange, backend, feed, plain};
use crate::support::client::{get, post};
use crate::support::edge::{Edge, edge};
use crate::support::wait::Watched;

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay"}}"#;

#[test]
fn rubbish_from_a_backend_is_502() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(200_000));
    let table: Vec<(&str, String)> = vec![
        ("no HTTP", "nonsense\r\n\r\n".into()),
        ("TLS", "\x15\x03\x01\x00\x02\x02\x50".into()),
        ("SSH", "SSH-2.0-OpenSSH_9.2\r\n".into()),
        ("status of letters", "HTTP/1.1 abc OK\r\n\r\n".into()),
        ("status of two digits", "HTTP/1.1 20 OK\r\n\r\n".into()),
        ("status 099", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n".into()),
        ("HTTP/3", "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
        ("no colon", "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n".into()),
        ("NUL in a value", "HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n".into()),
        (
            "bare CR in a value",
            "HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: c\r\nContent-Length: 0\r\n\r\n".into(),
        ),
        ("space in a name", "HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 0\r\n\r\n".into()),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".into(),
        ),
        ("negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".into()),
        ("unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n".into()),
        ("an endless head", long),
        (
            "an upgrade that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".into(),
        ),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-".into()),
        ("nothing", String::new()),
    ];
    let answers: Vec<String> = table.iter().map(|(_, a)| a.clone()).collect();
    let backend = backend(move |x| {
        x.body();
        let n: usize = x.header("x-case").unwrap().parse().unwrap();
        x.raw(&answers[n]);
        x.close();
    });
    let edge = edge().to(&backend).start();
    let mut client = edge.client();
    let mut wrong = Vec::new();
    for (n, (name, _)) in table.iter().enumerate() {
        let answer = client.ask(post("localhost", "/x", &format!("X-Case: {n}\r\n"), CALL));
        let refusal = answer.not_a_refusal();
        if answer.status != 502 || refusal.is_some() || answer.json()["id"] != 7 {
            wrong.push(format!("{name}: {} {} {refusal:?}", answer.status, answer.text()));
        }
        assert_eq!(backend.count(), n + 1, "{name}: sent once");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn interim_answers_without_end_are_502() {
    let backend = backend(|x| while x.raw("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)) {});
    let edge = edge().to(&backend).start();
    edge.get("/x").assert_refused(502);
}

/// Reads the whole request and hangs up.
fn hang_up(x: &mut Exchange) {
    x.body();
    x.close();
}

#[test]
fn a_post_is_never_sent_twice() {
    let (a, b) = (backend(hang_up), backend(hang_up));
    let edge = edge().upstream("two", &[a.url(), b.url()], "").route("upstream: two").start();
    for n in 1..=4 {
        let body = edge.ask(post("localhost", "/x", "", CALL)).assert_refused(502);
        assert_eq!(body["id"], 7);
        assert_eq!(a.count() + b.count(), n);
    }
}

#[test]
fn a_post_on_a_pooled_connection_is_never_sent_twice_either() {
    let backend = backend(|x| match x.request.target.as_str() {
        "/fail" => hang_up(x),
        _ => x.json("{}"),
    });
    let edge = edge().to(&backend).start();
    assert_eq!(edge.get("/warm").status, 200);
    edge.ask(post("localhost", "/fail", "", CALL)).assert_refused(502);
    let seen: Vec<_> = backend.requests().into_iter().map(|r| (r.connection, r.target)).collect();
    assert_eq!(
        seen,
        [(0, "/warm".to_owned()), (0, "/fail".to_owned())],
        "the warm connection carried it, once"
    );
}

#[test]
fn a_pooled_connection_that_the_backend_closed_is_not_used() {
    let backend = backend(|x| {
        x.body();
        x.json("{}");
        x.close();
    });
    let edge = edge().to(&backend).start();
    for n in 0..5 {
        assert_eq!(edge.ask(post("localhost", "/x", "", CALL)).status, 200);
        // From here on the FIN lies in the edge's socket.
        backend.wait("the backend has closed", |r| r.connections.get(n)?.ended.then_some(()));
    }
}

#[test]
fn a_backend_that_never_answers_is_504() {
    let backend = backend(Exchange::wait_closed);
    let edge = edge()
        .upstream("one", &[backend.url()], "first_byte_timeout: 300ms")
        .route("upstream: one")
        .start();
    let mut client = edge.client();
    let body = client.ask(post("localhost", "/x", "", CALL)).assert_refused(504);
    assert_eq!(body["id"], 7);
    backend.wait_closed(0);
    assert_eq!(backend.count(), 1, "sent once");
    client.ask(get("evil.example.net", "/")).assert_refused(421);
}

#[test]
fn half_a_head_is_504_too() {
    let backend = backend(|x| {
        x.raw("HTTP/1.1 200 OK\r\nConte");
        x.wait_closed();
    });
    let edge = edge()
        .upstream("one", &[backend.url()], "first_byte_timeout: 300ms")
        .route("upstream: one")
        .start();
    edge.get("/x").assert_refused(504);
}

#[test]
fn the_first_byte_timeout_does_not_cut_a_slow_body() {
    let (done, wait) =
        (std::sync::Arc::new(Watched::new(false)), std::sync::Arc::new(Watched::new(false)));
    let gate = wait.clone();
    let slow = backend(move |x| {
        x.raw("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        gate.wait("the test opens the gate", |open| open.then_some(()));
        x.raw("def");
        done.update(|d| *d = true);
    });
    let silent = backend(Exchange::wait_closed);
    let edge = edge()
        .upstream("slow", &[slow.url()], "first_byte_timeout: 200ms")
        .upstream("silent", &[silent.url()], "first_byte_timeout: 400ms")
        .route("path: /slow, upstream: slow")
        .route("path: /silent, upstream: silent")
        .start();
    let mut client = edge.client();
    client.send(get("localhost", "/slow"));
    let start = client.start();
    // Twice the timeout of the slow one has passed when the silent one is given up.
    edge.get("/silent").assert_refused(504);
    wait.update(|open| *open = true);
    assert_eq!(client.body(&start), (b"abcdef".to_vec(), true));
}

#[test]
fn an_answer_that_breaks_off_ends_distinguishably() {
    let (feed, source) = feed();
    let backend = backend(move |x| {
        let length = x.request.target == "/length";
        let framing = if length { "Content-Length: 10" } else { "Transfer-Encoding: chunked" };
        let kind = if x.request.target == "/sse" { "text/event-stream" } else { "text/plain" };
        let body = if length { "a\n\n" } else { "3\r\na\n\n\r\n" };
        x.raw(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n{body}"));
        // A whole event, if it is read as one. It breaks only after the client has seen what came before.
        x.raw(source.next().unwrap());
        x.close();
    });
    let edge = edge().to(&backend).start();
    for (target, last) in [
        ("/chunked", ""),
        ("/chunked", "5\r\nde"),
        ("/chunked", "zz\r\nde"),
        ("/chunked", "2\r\ndeXX0\r\n\r\n"),
        ("/chunked", "0\r\n"),
        ("/sse", ""),
        ("/sse", "5\r\nde"),
        ("/length", "d"),
    ] {
        let mut client = edge.client();
        client.send(get("localhost", target));
        let start = client.start();
        assert_eq!(start.status, 200);
        let chunked = start.header("transfer-encoding").is_some();
        let first = if chunked { client.chunks(3) } else { client.exact(3) };
        assert_eq!(first, b"a\n\n", "{target}: what came is passed on at once");
        feed.push(last);
        if chunked {
            while let Some(part) = client.chunk() {
                assert!(!part.is_empty(), "{target} {last:?} must not look whole");
            }
        } else {
            assert!(client.end().len() < 7, "{target} must not look whole");
        }
    }
}

#[test]
fn an_answer_that_breaks_off_at_once_does_not_look_whole() {
    let backend = backend(|x| {
        match x.request.target.as_str() {
            "/length" => x.raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
            _ => x.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        };
        x.close();
    });
    let edge = edge().to(&backend).start();
    for target in ["/length", "/chunked"] {
        let answer = edge.get(target);
        // As long as nothing went out, a refusal says it best.
        assert!(answer.status == 502 || !answer.complete, "{target} looks whole: {answer:?}");
    }
}

#[test]
fn a_refusal_tells_nothing_of_the_inside() {
    let backend = backend(hang_up);
    let edge =
        edge().upstream("secret-name", &[backend.url()], "").route("upstream: secret-name").start();
    let answer = edge.ask(post("localhost", "/x", "", CALL));
    answer.assert_refused(502);
    let shown = format!("{:?} {}", answer.headers, answer.text());
    for inside in ["secret-name", &backend.authority(), "os error", "pingora", "Pingora", "rust"] {
        assert!(!shown.contains(inside), "{inside} in {shown}");
    }
}

/// 128 KiB for all bodies at once.
fn small_budget(backend: &Backend) -> Edge {
    edge()
        .top("buffer_budget: 128KiB")
        .upstream("one", &[backend.url()], "")
        .route("upstream: one, body_limit: 128KiB")
        .start()
}

#[test]
fn a_full_buffer_budget_is_503_and_comes_back() {
    let backend = plain();
    let edge = small_budget(&backend);
    let body = format!("\"{}\"", "b".repeat(80_000));
    let (first, last) = body.split_at(79_000);
    let head = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    // Bodies are charged as they come, so that one of the others may come first and the holder be
    // refused: then there is another holder.
    let (mut holder, refused) = (0..40)
        .find_map(|_| {
            let mut holder = edge.client();
            let length = body.len();
            holder.send(format!("{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"));
            assert_eq!(holder.head().unwrap().status, 100, "the edge has begun with the holder");
            holder.send(first);
            let mut others =
                std::iter::repeat_with(|| edge.ask(post("localhost", "/x", "", &body)));
            others.by_ref().take(50).find(|a| a.status != 200).map(|refused| (holder, refused))
        })
        .expect("two bodies of 80 kB do not fit into 128 KiB");
    refused.assert_refused(503);
    assert!(refused.header("retry-after").is_some(), "it helps to try again");
    holder.send(last);
    assert_eq!(holder.response().status, 200);
    assert_eq!(edge.ask(post("localhost", "/x", "", &body)).status, 200, "given back");
}

#[test]
fn a_refused_budget_is_given_back_when_the_client_breaks_off() {
    let backend = plain();
    let edge = small_budget(&backend);
    let body = format!("\"{}\"", "b".repeat(80_000));
    for _ in 0..5 {
        let mut client = edge.client();
        let head = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 80002\r\n\r\n";
        client.send(format!("{head}{}", &body[..79_000]));
        client.half_close();
        if let Some(answer) = client.try_response() {
            assert!([400, 503].contains(&answer.status));
        }
        client.end();
    }
    assert_eq!(edge.ask(post("localhost", "/x", "", &body)).status, 200);
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    // A listener whose backlog is full answers no SYN; what fills it is ours.
    let Some(full) = Full::new() else { return };
    let live = plain();
    let edge = edge()
        .upstream(
            "two",
            &[full.url(), live.url()],
            "connect_timeout: 300ms, balance: first_available",
        )
        .route("upstream: two")
        .start();
    assert_eq!(edge.ask(post("localhost", "/x", "", CALL)).status, 200);
    assert_eq!(live.count(), 1);
}

/// A socket that takes no more connections.
struct Full {
    listener: std::net::TcpListener,
    #[allow(dead_code, reason = "they fill the backlog")]
    waiting: Vec<std::net::TcpStream>,
}

impl Full {
    fn new() -> Option<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // The backlog of std is 128 or 4096, by version and system.
        for _ in 0..5000 {
            match std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
                Ok(stream) => waiting.push(stream),
                Err(_) => return Some(Self { listener, waiting }),
            }
        }
        None
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}
