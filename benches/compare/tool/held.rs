//! Many silent streams that are held. In: how many, over what; out: how many are open, how many comments
//! each has had, and the longest silence, while the caller looks at the proxy. Lines on standard input:
//! `open`, `close`, `count`.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Target, read_head};
use crate::options::{Options, monotonic, next_line};

/// Connections that are opened at the same time.
const OPENING: usize = 16;
/// What an edge says on a silent stream.
const COMMENT: &[u8] = b": keepalive";

struct Held {
    gate: Semaphore,
    opened: Semaphore,
    streams: RefCell<Vec<Stream>>,
}

/// What has come on one stream.
struct Stream {
    open: bool,
    comments: u64,
    /// Nanoseconds, of the last byte.
    last: u64,
    longest: u64,
    /// The last bytes, in which a comment may have begun.
    tail: Vec<u8>,
}

/// `--n` streams; `--h2 100`: so many on each HTTP/2 connection.
pub(crate) async fn idle(options: &Options) {
    let (n, per_connection) = (options.number("n", 1000), options.number("h2", 0));
    let target = Target::new(options);
    let held = Rc::new(Held {
        gate: Semaphore::new(OPENING),
        opened: Semaphore::new(0),
        streams: RefCell::default(),
    });
    let work = async {
        let mut tasks = JoinSet::new();
        while let Some(line) = next_line().await {
            match line.as_str() {
                "open" => {
                    let each = per_connection.max(1);
                    for _ in 0..n / each {
                        let (target, held) = (target.clone(), held.clone());
                        if per_connection > 0 {
                            tasks.spawn_local(hold_h2(target, each, held));
                        } else {
                            tasks.spawn_local(hold_h1(target, held));
                        }
                    }
                    held.opened.acquire_many(n as u32).await.unwrap().forget();
                }
                "close" => {
                    tasks.shutdown().await;
                    held.streams.borrow_mut().clear();
                }
                _ => {}
            }
            held.print();
        }
    };
    LocalSet::new().run_until(work).await;
}

async fn hold_h1(target: Target, held: Rc<Held>) {
    let permit = held.gate.acquire().await.unwrap();
    let (mut io, _) = target.connect().await.expect("a connection");
    io.write_all(&target.get()).await.unwrap();
    io.flush().await.unwrap();
    let mut buf = Vec::with_capacity(1024);
    read_head(&mut *io, &mut buf).await.expect("a stream");
    while memchr::memmem::find(&buf, b"data: ").is_none() {
        assert!(io.read_buf(&mut buf).await.unwrap() > 0, "the stream ended");
    }
    drop(permit);
    let number = held.add();
    buf.clear();
    while matches!(io.read_buf(&mut buf).await, Ok(n) if n > 0) {
        held.note(number, &buf);
        buf.clear();
    }
    held.lose(number);
}

async fn hold_h2(target: Target, streams: u64, held: Rc<Held>) {
    let permit = held.gate.acquire().await.unwrap();
    let (io, _) = target.connect().await.expect("a connection");
    let (mut client, connection) = h2::client::handshake(io).await.expect("HTTP/2");
    let driver = tokio::task::spawn_local(async move { drop(connection.await) });
    drop(permit);
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        client = client.ready().await.expect("room for a stream");
        let mut request =
            http::Request::get(format!("https://{}{}", target.authority, target.path))
                .header("accept", "text/event-stream");
        if let Some(id) = &target.session {
            request =
                request.header("mcp-session-id", id).header("mcp-protocol-version", "2025-06-18");
        }
        let (answer, _) = client.send_request(request.body(()).unwrap(), true).expect("a stream");
        tasks.spawn_local(hold_answer(answer, held.clone()));
    }
    while tasks.join_next().await.is_some() {}
    driver.abort();
}

async fn hold_answer(answer: h2::client::ResponseFuture, held: Rc<Held>) {
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut number = None;
    while let Some(Ok(data)) = body.data().await {
        drop(body.flow_control().release_capacity(data.len()));
        match number {
            None => number = Some(held.add()),
            Some(number) => held.note(number, &data),
        }
    }
    held.lose(number.expect("a first event"));
}

impl Held {
    fn add(&self) -> usize {
        let mut streams = self.streams.borrow_mut();
        let last = monotonic();
        streams.push(Stream { open: true, comments: 0, last, longest: 0, tail: Vec::new() });
        self.opened.add_permits(1);
        streams.len() - 1
    }

    fn note(&self, number: usize, bytes: &[u8]) {
        let (stream, now) = (&mut self.streams.borrow_mut()[number], monotonic());
        stream.longest = stream.longest.max(now - stream.last);
        stream.last = now;
        stream.tail.extend_from_slice(bytes);
        stream.comments += memchr::memmem::find_iter(&stream.tail, COMMENT).count() as u64;
        let old = stream.tail.len().saturating_sub(COMMENT.len() - 1);
        stream.tail.drain(..old);
    }

    fn lose(&self, number: usize) {
        self.streams.borrow_mut()[number].open = false;
    }

    fn print(&self) {
        let (streams, now) = (self.streams.borrow(), monotonic());
        let comments = || streams.iter().map(|s| s.comments);
        let silence = |s: &Stream| s.longest.max(if s.open { now - s.last } else { 0 });
        println!(
            "{{\"open\":{},\"comments\":{},\"least\":{},\"most\":{},\"longest_silence_ms\":{}}}",
            streams.iter().filter(|s| s.open).count(),
            comments().sum::<u64>(),
            comments().min().unwrap_or(0),
            comments().max().unwrap_or(0),
            streams.iter().map(silence).max().unwrap_or(0) / 1_000_000
        );
    }
}
