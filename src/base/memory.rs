//! What a burst leaves behind: in, word that memory was taken or freed; out, pages that the system has back.
//!
//! mimalloc keeps the last page of every size that is free (of 64 or 512 KiB, some 4 MiB in all), and free runs of
//! pages, until it comes by them again: once in 10,000 allocations above 1 KiB, and when another run is freed 10 ms
//! after them, which becomes a millisecond more with each run that is freed in that time. An edge that is silent after a burst allocates nothing and would keep them for ever. Its function for
//! this is not within reach of safe code; so its own clock is moved on, while nothing else happens.
//!
//! Each thread has pages of its own: with several, those of the one that does this are given back.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::io::step_aside;

/// So long nothing may have changed before pages are given back.
const QUIET: Duration = Duration::from_millis(50);
/// They are after this time, even if there is always something.
const LONGEST: Duration = Duration::from_secs(2);
/// Allocations after which mimalloc looks for free pages (its option `generic_collect`), and some for good measure.
const LOOKS: usize = 10_240;
/// In so many turns of the thread: each takes some 20 microseconds.
const TURNS: usize = 20;
/// The size of such an allocation: above 1 KiB.
const BLOCK: usize = 2 * 1024;
/// A block that is given a run of pages: from 64 KiB.
const RUN: usize = 128 * 1024;
/// More than a freed run waits before it is given back, if few were freed with it.
const WAIT: Duration = Duration::from_millis(20);
/// More than any waits: a segment (32 MiB) has 512 runs at most.
const LONGEST_WAIT: Duration = Duration::from_millis(600);

static CHANGED: AtomicBool = AtomicBool::new(false);
static NEWS: Notify = Notify::const_new();

/// Memory was taken or freed for something that lasts. Costs nothing.
pub fn changed() {
    if !CHANGED.swap(true, Ordering::Relaxed) {
        NEWS.notify_one();
    }
}

/// Gives pages back whenever there was a change and it has become quiet, the start among them. Never ends.
pub async fn tidy() {
    changed();
    loop {
        NEWS.notified().await;
        let start = Instant::now();
        sleep(QUIET).await;
        while CHANGED.swap(false, Ordering::Relaxed) && start.elapsed() < LONGEST {
            sleep(QUIET).await;
        }
        give_back().await;
    }
}

async fn give_back() {
    look().await;
    // what was found is given back with the next run that is freed after a moment
    touch(RUN);
    sleep(WAIT).await;
    touch(RUN);
    // or, where many were freed one after another, at the next look after so long
    sleep(LONGEST_WAIT).await;
    look().await;
}

/// Lets the allocator come by its free pages.
async fn look() {
    for _ in 0..TURNS {
        for _ in 0..LOOKS / TURNS {
            touch(BLOCK);
        }
        step_aside().await;
    }
}

/// Takes a block and frees it; nothing is written to it.
fn touch(size: usize) {
    drop(black_box(Vec::<u8>::with_capacity(size)));
}
