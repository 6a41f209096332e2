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
mod options;
mod reconnect;
mod streams;

use options::Options;

fn main() {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rest: Vec<String> = args.collect();
    runtime.block_on(async {
        match command.as_str() {
            "backend" => backend::serve(&rest).await,
            "idle" => streams::idle(&Options::read(rest)).await,
            "slow" => streams::slow(&Options::read(rest)).await,
            "bodies" => streams::bodies(&Options::read(rest)).await,
            "first" => events::first(&Options::read(rest)).await,
            "events" => events::delays(&Options::read(rest)).await,
            "reconnect" => reconnect::run(&Options::read(rest)).await,
            "sessions" => reconnect::sessions(&Options::read(rest)).await,
            other => panic!("no such command: {other:?}"),
        }
    });
}
