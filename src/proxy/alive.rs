//! What keeps a stopping edge alive: in, connections that come and go, and listeners; out, the moment when none is
//! left, or when nobody wants to wait for it any longer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A count that can be waited for.
#[derive(Debug, Default)]
pub struct Alive {
    /// Connections, and listeners that accept more.
    count: AtomicUsize,
    /// The latter alone.
    listeners: AtomicUsize,
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody waits.
    awaited: bool,
    /// It is not to be waited for.
    hurried: bool,
}

impl Alive {
    /// One listener more, or one less.
    pub(super) fn listener(&self, one_more: bool) {
        if one_more {
            self.listeners.fetch_add(1, Ordering::AcqRel);
        } else {
            self.listeners.fetch_sub(1, Ordering::AcqRel);
        }
        self.count(one_more);
    }

    /// One connection more, or one less.
    pub(super) fn connection(&self, one_more: bool) {
        self.count(one_more);
    }

    fn count(&self, one_more: bool) {
        if one_more {
            self.count.fetch_add(1, Ordering::AcqRel);
        } else if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Under the lock, or it could ring between the look and the wait. And ringing is a system
            // call, whether anybody hears it or not.
            let state = self.lock();
            if state.awaited {
                self.rung.notify_all();
            }
        }
    }

    /// Waits until none is left, for `limit` at most, and not after [`Alive::hurry`]; how many connections are left
    /// then. Blocks its thread.
    pub fn wait_until_idle(&self, limit: Duration) -> usize {
        self.wait(limit, |state| state.hurried)
    }

    /// The same for those who are on their way already, however much of a hurry there is.
    pub fn wait_until_gone(&self, limit: Duration) -> usize {
        self.wait(limit, |_| false)
    }

    /// Whoever waits for them to end by themselves does so no longer.
    pub fn hurry(&self) {
        self.lock().hurried = true;
        self.rung.notify_all();
    }

    fn wait(&self, limit: Duration, enough: impl Fn(&State) -> bool) -> usize {
        let mut state = self.lock();
        state.awaited = true;
        let left = || self.count.load(Ordering::Acquire);
        let busy = |state: &mut State| left() > 0 && !enough(state);
        if self.rung.wait_timeout_while(state, limit, busy).is_err() {
            log::error!("a thread that closed a connection has failed");
        }
        left().saturating_sub(self.listeners.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn the_last_one_and_a_hurry_end_the_wait() {
        let alive = Arc::new(Alive::default());
        assert_eq!(alive.wait_until_idle(LONG), 0, "nobody was ever there");
        alive.connection(true);
        alive.connection(true);
        alive.listener(true);
        assert_eq!(alive.wait_until_idle(Duration::ZERO), 2);
        let waiting = {
            let alive = alive.clone();
            thread::spawn(move || alive.wait_until_idle(LONG))
        };
        alive.hurry();
        assert_eq!(waiting.join().unwrap(), 2);
        assert_eq!(alive.wait_until_idle(LONG), 2, "from now on");
        let waiting = {
            let alive = alive.clone();
            thread::spawn(move || alive.wait_until_gone(LONG))
        };
        alive.connection(false);
        alive.connection(false);
        assert!(!waiting.is_finished(), "one listens still");
        alive.listener(false);
        assert_eq!(waiting.join().unwrap(), 0);
    }
}
