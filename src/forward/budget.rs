//! How many connects may be tried again: in, each request and each wish to try again; out, whether to.
//!
//! Retries help where one replica is gone, and make things worse where all are: so they are a share of the
//! requests, and some for free each second, so that a quiet edge may retry, too. No locks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

/// What a retry costs.
const RETRY: i64 = 100;
/// Most retries that can be saved up.
const SAVED: i64 = 100;
/// Retries that come back each second, whatever the share.
const FREE: u64 = 10;

/// Retries that are left, of one upstream.
#[derive(Debug)]
pub(super) struct Budget {
    share: i64,
    left: AtomicI64,
    since: Instant,
    /// Milliseconds after `since` up to which free ones were given.
    given: AtomicU64,
}

impl Budget {
    /// A full one; `share` is in percent of the requests.
    pub(super) fn new(share: u32, since: Instant) -> Self {
        let left = AtomicI64::new(SAVED * RETRY);
        Self { share: i64::from(share), left, since, given: AtomicU64::new(0) }
    }

    /// A request has come. Mostly there is nothing to write.
    pub(super) fn earn(&self) {
        if self.left.load(Ordering::Relaxed) < SAVED * RETRY {
            self.left.fetch_add(self.share, Ordering::Relaxed);
        }
    }

    /// Whether one more connect may be tried at `now`.
    pub(super) fn spend(&self, now: Instant) -> bool {
        self.give_free(now);
        let pay = |left: i64| (left >= RETRY).then_some(left - RETRY);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }

    fn give_free(&self, now: Instant) {
        let at = now.saturating_duration_since(self.since).as_millis();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        let each = 1000 / FREE;
        let given = self.given.load(Ordering::Relaxed);
        let due = at.saturating_sub(given) / each;
        let next = given.saturating_add(due.saturating_mul(each));
        // of several that see the same time, one gives
        let swap = self.given.compare_exchange(given, next, Ordering::Relaxed, Ordering::Relaxed);
        if due == 0 || swap.is_err() {
            return;
        }
        let free = i64::try_from(due).unwrap_or(SAVED).min(SAVED) * RETRY;
        let before = self.left.fetch_add(free, Ordering::Relaxed);
        let over = (before + free - SAVED * RETRY).clamp(0, free);
        self.left.fetch_sub(over, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let start = Instant::now();
        let budget = Budget::new(20, start);
        let spend = |times: usize, at: Instant| (0..times).filter(|_| budget.spend(at)).count();
        assert_eq!(spend(200, start), 100, "what was saved up");
        (0..50).for_each(|_| budget.earn());
        assert_eq!(spend(200, start), 10, "a fifth of fifty");
        let later = start + Duration::from_millis(350);
        assert_eq!(spend(200, later), 3, "ten a second are free");
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(spend(200, much_later), 100, "and no more than can be saved");
    }

    #[test]
    fn without_a_share_there_are_the_free_ones() {
        let start = Instant::now();
        let budget = Budget::new(0, start);
        while budget.spend(start) {}
        (0..1000).for_each(|_| budget.earn());
        assert!(!budget.spend(start));
        assert!(budget.spend(start + Duration::from_millis(100)));
    }
}
