//! What can become of requests and checks: in, nothing; out, the words for it, and counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a request failed by the replica's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No connection could be made.
    Connect,
    /// The answer was a 500, 502, 503 or 504.
    Status,
    /// There was no answer in time.
    Timeout,
    /// The connection ended before the answer's head was complete, or that was rubbish.
    Broken,
}

impl Cause {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Status, Self::Timeout, Self::Broken];

    /// The word for labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }
}

/// A replica has changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It gets new work, and something has shown that it can do it.
    Up,
    /// Its rest is over: it gets new work, and has shown nothing yet.
    Tried,
    /// Its requests fail, this many in a row so far, and it gets them all the same.
    Failing(Cause, u32),
    /// Its checks fail.
    Down,
    /// Its requests failed: it rests for this long.
    Ejected(Cause, Duration),
}

/// Checks and ejections so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Checks that were good.
    pub good: u64,
    /// Checks that were not.
    pub bad: u64,
    /// In the order of [`Cause::ALL`].
    pub ejections: [u64; Cause::ALL.len()],
}

/// What has happened, for metrics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    good: AtomicU64,
    bad: AtomicU64,
    ejections: [AtomicU64; Cause::ALL.len()],
}

impl Counts {
    pub(super) fn checked(&self, good: bool) {
        let count = if good { &self.good } else { &self.bad };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ejected(&self, cause: Cause) {
        let at = Cause::ALL.iter().position(|c| *c == cause);
        if let Some(count) = at.and_then(|at| self.ejections.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Self { good, bad, ejections } = self;
        Totals { good: read(good), bad: read(bad), ejections: ejections.each_ref().map(read) }
    }
}
