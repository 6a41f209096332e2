//! Many streams that are held. In: how many, over what; out: how many are open and how many were lost,
//! while the caller looks at the proxy's memory. Lines on standard input: `open`, `close`, `count`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Target, exchange, read_head};
use crate::options::{Options, next_line};

/// Connections that are opened at the same time.
const OPENING: usize = 16;

struct Held {
    open: Cell<u64>,
    gate: Semaphore,
    opened: Semaphore,
    comments: Cell<u64>,
}

/// `--n` streams; `--h2 100`: so many on each HTTP/2 connection.
pub(crate) async fn idle(options: &Options) {
    let (n, per_connection) = (options.number("n", 1000), options.number("h2", 0));
    let target = Target::new(options);
    let local = LocalSet::new();
    local
        .run_until(async {
            let held = Rc::new(Held {
                open: Cell::new(0),
                gate: Semaphore::new(OPENING),
                opened: Semaphore::new(0),
                comments: Cell::new(0),
            });
            let mut tasks = JoinSet::new();
            while let Some(line) = next_line().await {
                match line.as_str() {
                    "open" if per_connection > 0 => {
                        for _ in 0..n / per_connection {
                            tasks.spawn_local(hold_h2(
                                target.clone(),
                                per_connection,
                                held.clone(),
                            ));
                        }
                        held.opened.acquire_many(n as u32).await.unwrap().forget();
                    }
                    "open" => {
                        for _ in 0..n {
                            tasks.spawn_local(hold_h1(target.clone(), held.clone()));
                        }
                        held.opened.acquire_many(n as u32).await.unwrap().forget();
                    }
                    "close" => {
                        tasks.shutdown().await;
                        held.open.set(0);
                    }
                    _ => {}
                }
                println!("{{\"open\":{},\"comments\":{}}}", held.open.get(), held.comments.get());
            }
        })
        .await;
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
    held.open.set(held.open.get() + 1);
    held.opened.add_permits(1);
    buf.clear();
    while matches!(io.read_buf(&mut buf).await, Ok(n) if n > 0) {
        count_comments(&buf, &held);
        buf.clear();
    }
    held.open.set(held.open.get() - 1);
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
        let held = held.clone();
        tasks.spawn_local(async move {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let mut body = answer.into_body();
            let mut first = true;
            while let Some(Ok(data)) = body.data().await {
                drop(body.flow_control().release_capacity(data.len()));
                if std::mem::take(&mut first) {
                    held.open.set(held.open.get() + 1);
                    held.opened.add_permits(1);
                }
                count_comments(&data, &held);
            }
            held.open.set(held.open.get() - 1);
        });
    }
    while tasks.join_next().await.is_some() {}
    driver.abort();
}

fn count_comments(bytes: &[u8], held: &Held) {
    let found = memchr::memmem::find_iter(bytes, b": keepalive").count() as u64;
    held.comments.set(held.comments.get() + found);
}

/// `--n` streams of which 1 KiB is read every `--pause` seconds, through a small receive buffer.
pub(crate) async fn slow(options: &Options) {
    let mut target = Target::new(options);
    target.receive_buffer = 4096;
    let pause = options.seconds("pause", 0.2);
    let opened = Rc::new(Semaphore::new(0));
    let local = LocalSet::new();
    for _ in 0..options.number("n", 50) {
        let (target, opened) = (target.clone(), opened.clone());
        local.spawn_local(async move {
            let (mut io, _) = target.connect().await.expect("a connection");
            io.write_all(&target.get()).await.unwrap();
            io.flush().await.unwrap();
            read_head(&mut *io, &mut Vec::new()).await.expect("a stream");
            opened.add_permits(1);
            let mut sink = [0; 1024];
            while matches!(io.read(&mut sink).await, Ok(n) if n > 0) {
                tokio::time::sleep(pause).await;
            }
        });
    }
    let all = options.number("n", 50) as u32;
    local
        .run_until(async {
            opened.acquire_many(all).await.unwrap().forget();
            println!("{{\"open\":{all}}}");
            next_line().await;
        })
        .await;
}

/// `--n` answers of 1 MiB and `--n` requests with a body of 1 MiB, four at a time.
pub(crate) async fn bodies(options: &Options) {
    let big = "x".repeat(1024 * 1024);
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"a":"{big}"}}}}}}"#
    );
    let target = Target::new(options);
    let post = Target { path: "/mcp".into(), ..target.clone() }.post(&body);
    let get = target.get();
    let local = LocalSet::new();
    for _ in 0..4 {
        let (target, post, get) = (target.clone(), post.clone(), get.clone());
        let rounds = options.number("n", 100) / 4;
        local.spawn_local(async move {
            let (mut io, _) = target.connect().await.expect("a connection");
            for _ in 0..rounds {
                exchange(&mut *io, &get).await.expect("a large answer");
                exchange(&mut *io, &post).await.expect("an answer to a large body");
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(120), local).await.expect("two minutes are enough");
    println!("{{\"done\":true}}");
}
