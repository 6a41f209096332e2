//! For a program that counts instructions. In: what to do, and how often; out: it is done that often.
//!
//! `list` names the hot pieces, `NUMBER TIMES` does one of them (`benches/instructions.sh`); `kinds` names
//! what may grow, `grow KIND SIZE TIMES` says `ready` and admits requests at that size once it is told to,
//! and `kept SESSIONS` prints the KiB that so many sessions leave behind (`benches/compare/growth.py`).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a measuring tool stops at what it did not expect"
)]

mod growth;
mod work;

use work::Once;

/// As the edge itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args {
        ["list"] => work::pieces().iter().for_each(|(name, _)| println!("{name}")),
        ["kinds"] => growth::kinds().for_each(|name| println!("{name}")),
        ["kept", sessions] => println!("{}", growth::kept_kib(sessions.parse().unwrap())),
        ["grow", kind, size, times] => {
            let mut once = growth::at(kind, size.parse().unwrap());
            // what is done at the first time only does not count
            (0..100).for_each(|_| once());
            println!("ready");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            repeat(once, times);
        }
        [piece, times] => {
            let (_, once) = work::pieces().swap_remove(piece.parse().unwrap());
            repeat(once, times);
        }
        _ => panic!("list | NUMBER TIMES | kinds | grow KIND SIZE TIMES | kept SESSIONS"),
    }
}

fn repeat(mut once: Once, times: &str) {
    for _ in 0..times.parse::<u64>().unwrap() {
        once();
    }
    // its end takes the longer the larger it is, and does not count either
    std::process::exit(0);
}
