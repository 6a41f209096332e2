//! Slow readers and large bodies. In: how many; out: a sign that they are there, or done, while the caller
//! looks at the proxy's memory.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::client::{Target, exchange, read_head};
use crate::options::{Options, next_line};

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
