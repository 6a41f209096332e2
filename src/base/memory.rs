//! What a burst leaves behind: in, word that memory was taken or freed; out, pages that the system has back.
//!
//! mimalloc keeps the last page of every size that is free (of 64 or 512 KiB, some 4 MiB in all), and free runs of
//! pages, until it comes by them again: once in 10,000 allocations above 1 KiB. A run has to be free for 10 ms by then,
//! and for a millisecond more with each other that is freed meanwhile. An edge that is silent after a burst allocates
//! nothing and would keep them for ever. Its function for this is not within reach of safe code; so its own clock is
//! moved on, while nothing else happens.
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
/// More than a freed run waits: 10 ms, and 1 ms for each other, of which a segment (32 MiB) has 512 at most.
const WAIT: Duration = Duration::from_millis(600);

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
    // what the first finds free, the second gives back
    look().await;
    sleep(WAIT).await;
    look().await;
}

/// Lets the allocator come by its free pages.
async fn look() {
    for _ in 0..TURNS {
        for _ in 0..LOOKS / TURNS {
            touch();
        }
        step_aside().await;
    }
}

/// Takes a block and frees it; nothing is written to it.
fn touch() {
    drop(black_box(Vec::<u8>::with_capacity(BLOCK)));
}
