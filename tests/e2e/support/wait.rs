//! In: a shared value that threads change; out: a wait for a condition on it, with a deadline and no sleep.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Nothing waits this long when all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A value with a bell: whoever changes it wakes whoever waits.
#[derive(Default)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    /// Changes the value and wakes all who wait.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let out = change(&mut self.lock());
        self.changed.notify_all();
        out
    }

    /// Looks at the value as it is now.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.lock())
    }

    /// Waits until `f` says something.
    ///
    /// # Panics
    /// At the deadline, naming what did not happen.
    pub(crate) fn wait<R>(&self, what: &str, f: impl Fn(&T) -> Option<R>) -> R {
        match self.wait_for(DEADLINE, f) {
            Some(found) => found,
            None => panic!("did not happen within {DEADLINE:?}: {what}"),
        }
    }

    /// Waits until `f` says something, or `limit` has passed.
    pub(crate) fn wait_for<R>(&self, limit: Duration, f: impl Fn(&T) -> Option<R>) -> Option<R> {
        let end = Instant::now() + limit;
        let mut value = self.lock();
        loop {
            if let Some(found) = f(&value) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            value = self.changed.wait_timeout(value, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Asks again and again until something holds that nobody can announce.
///
/// # Panics
/// At the deadline, naming what did not happen.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "did not happen within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}
