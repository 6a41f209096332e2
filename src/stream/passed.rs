//! What has passed in streams: in, what each stream sees; out, sums that grow while streams are open.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sums over many streams.
#[derive(Debug, Default)]
pub struct Passed {
    events: AtomicU64,
    comments: AtomicU64,
}

impl Passed {
    /// Events that have passed.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Comments that the edge has put in.
    pub fn comments(&self) -> u64 {
        self.comments.load(Ordering::Relaxed)
    }

    pub(super) fn saw(&self, events: u64) {
        // most pieces of a large event end none
        if events > 0 {
            self.events.fetch_add(events, Ordering::Relaxed);
        }
    }

    pub(super) fn put_in_a_comment(&self) {
        self.comments.fetch_add(1, Ordering::Relaxed);
    }
}
