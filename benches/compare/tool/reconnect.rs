//! One new connection per call, as the Python client does. In: how many, how many at once, resumed
//! or not; out: calls per second. Also: opens sessions and prints their ids.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use crate::client::{Target, exchange, header};
use crate::options::{Options, next_line};

/// What every measured POST asks.
pub(crate) const CALL: &str = include_str!("../call.json");
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"compare","version":"1"}}}"#;

/// `--n`, `--at-once`: each call on a connection of its own.
pub(crate) async fn run(options: &Options) {
    let (total, at_once) = (options.number("n", 1000), options.number("at-once", 8));
    let target = Target::new(options);
    let request: Rc<[u8]> = target.post(CALL).into();
    // one before, so that the resumed ones have a ticket
    call(&target, &request).await;
    println!("{{\"ready\":true}}");
    if next_line().await.is_none() {
        return;
    }
    let start = Instant::now();
    let (left, resumed) = (Rc::new(Cell::new(total)), Rc::new(Cell::new(0)));
    let local = tokio::task::LocalSet::new();
    for _ in 0..at_once {
        let (target, request) = (target.clone(), request.clone());
        let (left, resumed) = (left.clone(), resumed.clone());
        local.spawn_local(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let was = call(&target, &request).await;
                resumed.set(resumed.get() + u64::from(was));
            }
        });
    }
    local.await;
    println!(
        "{{\"calls\":{total},\"resumed\":{},\"seconds\":{:.3}}}",
        resumed.get(),
        start.elapsed().as_secs_f64()
    );
}

async fn call(target: &Target, request: &[u8]) -> bool {
    let (mut io, resumed) = target.connect().await.expect("a connection");
    exchange(&mut *io, request).await.expect("an answer");
    resumed
}

/// `--n`: opens that many sessions and prints their ids, one per line.
pub(crate) async fn sessions(options: &Options) {
    let target = Target::new(options);
    let request = target.post(INITIALIZE);
    for _ in 0..options.number("n", 1) {
        let (mut io, _) = target.connect().await.expect("a connection");
        let head = exchange(&mut *io, &request).await.expect("an answer");
        println!("{}", header(&head, "mcp-session-id").expect("a session id"));
    }
}
