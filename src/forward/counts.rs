//! What was done for requests besides carrying them: in, retries and waits; out, counts for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Why something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No connection could be made.
    Connect,
    /// A connection that was kept for reuse turned out to be closed.
    Closed,
    /// A session's stream met 409: the server has not yet seen the end of the one before.
    Conflict,
}

impl Retry {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Closed, Self::Conflict];

    /// The word for labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Conflict => "conflict",
        }
    }
}

/// Counts of one upstream.
#[derive(Debug, Default)]
pub struct Counts {
    retries: [AtomicU64; Retry::ALL.len()],
    unpaid: AtomicU64,
    waits: AtomicU64,
    waited: AtomicU64,
    full: AtomicU64,
    late: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// In the order of [`Retry::ALL`].
    pub retries: [u64; Retry::ALL.len()],
    /// Retries for which the budget had no room.
    pub unpaid: u64,
    /// Requests that have waited for room, however that ended.
    pub waits: u64,
    /// For how long, together.
    pub waited: Duration,
    /// Requests that were refused because too many waited.
    pub full: u64,
    /// Requests that were refused because they had waited for too long.
    pub late: u64,
}

impl Counts {
    /// Something is tried again.
    pub fn retried(&self, why: Retry) {
        let at = Retry::ALL.iter().position(|one| *one == why);
        if let Some(count) = at.and_then(|at| self.retries.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn unpaid(&self) {
        self.unpaid.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.waited.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn full(&self) {
        self.full.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them.
    pub fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Self { retries, unpaid, waits, waited, full, late } = self;
        Totals {
            retries: retries.each_ref().map(read),
            unpaid: read(unpaid),
            waits: read(waits),
            waited: Duration::from_micros(read(waited)),
            full: read(full),
            late: read(late),
        }
    }
}
