//! Event streams from the client's side. In: how many streams and for how long; out: the time to the
//! first event and the age of events at their arrival, in microseconds.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::client::{Target, read_head};
use crate::options::{Options, monotonic, next_line, print_times};

/// `--n` streams, one after the other, each on a new connection: from sending to the first event.
pub(crate) async fn first(options: &Options) {
    let target = Target::new(options);
    one_first(&target).await;
    println!("{{\"ready\":true}}");
    if next_line().await.is_none() {
        return;
    }
    let mut times = Vec::new();
    for _ in 0..options.number("n", 200) {
        times.push(one_first(&target).await);
    }
    print_times(&mut times, &[]);
}

async fn one_first(target: &Target) -> u64 {
    let (mut io, _) = target.connect().await.expect("a connection");
    let start = monotonic();
    io.write_all(&target.get()).await.unwrap();
    io.flush().await.unwrap();
    let mut buf = Vec::new();
    read_head(&mut *io, &mut buf).await.expect("a stream");
    while stamps(&mut buf).is_empty() {
        assert!(io.read_buf(&mut buf).await.unwrap() > 0, "the stream ended");
    }
    monotonic() - start
}

/// `--streams`, `--seconds`: the age of all events that arrive in that time.
pub(crate) async fn delays(options: &Options) {
    let target = Target::new(options);
    let (streams, period) = (options.number("streams", 50), options.seconds("seconds", 3.0));
    let start = Rc::new(Semaphore::new(0));
    let opened = Rc::new(Semaphore::new(0));
    let ages = Rc::new(RefCell::new(Vec::new()));
    let local = tokio::task::LocalSet::new();
    for _ in 0..streams {
        let (target, ages) = (target.clone(), ages.clone());
        let (start, opened) = (start.clone(), opened.clone());
        local.spawn_local(async move {
            let (mut io, _) = target.connect().await.expect("a connection");
            io.write_all(&target.get()).await.unwrap();
            io.flush().await.unwrap();
            let mut buf = Vec::with_capacity(4096);
            read_head(&mut *io, &mut buf).await.expect("a stream");
            opened.add_permits(1);
            start.acquire().await.unwrap().forget();
            let (begin, end) = (monotonic(), Instant::now() + period);
            while let Ok(read) = timeout_at(end, io.read_buf(&mut buf)).await {
                assert!(read.unwrap() > 0, "the stream ended");
                let now = monotonic();
                let sent = stamps(&mut buf);
                // what waited here until the start says nothing
                let fresh = sent.iter().filter(|at| **at >= begin);
                ages.borrow_mut().extend(fresh.map(|at| now.saturating_sub(*at)));
            }
        });
    }
    let go = async {
        opened.acquire_many(streams as u32).await.unwrap().forget();
        println!("{{\"ready\":true}}");
        if next_line().await.is_none() {
            std::process::exit(0);
        }
        start.add_permits(streams as usize);
    };
    local.run_until(go).await;
    local.await;
    print_times(&mut ages.borrow_mut(), &[]);
}

/// Takes the whole lines out of `buf`: the time stamps in them. Chunk sizes and comments mean nothing.
fn stamps(buf: &mut Vec<u8>) -> Vec<u64> {
    let Some(last) = memchr::memrchr(b'\n', buf) else { return Vec::new() };
    let found = buf[..last].split(|b| *b == b'\n').filter_map(|line| {
        let digits = line.strip_prefix(b"data: {\"t\":")?.split(|b| *b == b',').next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    });
    let found = found.collect();
    buf.drain(..=last);
    found
}
