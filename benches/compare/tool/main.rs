//! The two ends of the benchmark. In: a subcommand; out: a backend, or a client and its figures.
//!
//! `backend ADDR...` serves until it is ended. The clients print one JSON object per step; those
//! that hold something open take a line on standard input as the sign to go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a measuring tool stops at what it did not expect"
)]

mod backend;
mod client;
mod events;
mod frames;
mod held;
mod options;
mod paced;
mod reconnect;
mod streams;
mod websocket;

use options::Options;

fn main() {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rest: Vec<String> = args.collect();
    if command != "backend" {
        end_on_panic();
    }
    runtime.block_on(async {
        match command.as_str() {
            "backend" => backend::serve(&rest).await,
            "idle" => held::idle(&Options::read(rest)).await,
            "slow" => streams::slow(&Options::read(rest)).await,
            "bodies" => streams::bodies(&Options::read(rest)).await,
            "first" => events::first(&Options::read(rest)).await,
            "events" => events::delays(&Options::read(rest)).await,
            "echo" => websocket::echo(&Options::read(rest)).await,
            "paced" => paced::run(&Options::read(rest)).await,
            "reconnect" => reconnect::run(&Options::read(rest)).await,
            "sessions" => reconnect::sessions(&Options::read(rest)).await,
            other => panic!("no such command: {other:?}"),
        }
    });
}

/// A client that finds one answer wrong must not go on with the others.
fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        print(what);
        std::process::exit(101);
    }));
}
