//! Sessions that checks have open, of all upstreams there are and have been: in, checks that begin and end; out,
//! the moment at which the process may go without leaving one behind.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static OPEN: Open = Open::new();

/// How many are open, and whether more may be.
struct Open {
    state: Mutex<(usize, bool)>,
    fewer: Condvar,
}

/// A session is open, or about to be, for as long as this lives.
#[derive(Debug)]
pub(super) struct Held(());

/// Opens no more, and waits for those that are open to be ended, for so long at most. Blocks its thread.
pub fn close(limit: Duration) {
    OPEN.close(limit);
}

impl Held {
    /// Before a session is opened; waits for ever when the process is about to end.
    pub(super) async fn begin() -> Self {
        if !OPEN.add() {
            std::future::pending::<()>().await;
        }
        Self(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        OPEN.remove();
    }
}

impl Open {
    const fn new() -> Self {
        Self { state: Mutex::new((0, true)), fewer: Condvar::new() }
    }

    fn add(&self) -> bool {
        let mut state = self.lock();
        state.0 += usize::from(state.1);
        state.1
    }

    fn remove(&self) {
        self.lock().0 -= 1;
        self.fewer.notify_all();
    }

    fn close(&self, limit: Duration) {
        let mut state = self.lock();
        state.1 = false;
        let waited = self.fewer.wait_timeout_while(state, limit, |(open, _)| *open > 0);
        let left = waited.unwrap_or_else(PoisonError::into_inner).0.0;
        if left > 0 {
            log::warn!(
                "{left} of the checks' sessions may be left open: their servers do not answer"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, (usize, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_waited_for_and_nothing_else_begins() {
        let open = Open::new();
        assert!(open.add() && open.add());
        open.remove();
        std::thread::scope(|scope| {
            scope.spawn(|| open.close(Duration::from_secs(60)));
            // as long as it may, it waits
            while open.add() {
                open.remove();
            }
            open.remove();
        });
        assert_eq!(*open.lock(), (0, false));
    }

    #[test]
    fn the_wait_has_an_end() {
        let open = Open::new();
        open.add();
        open.close(Duration::from_millis(1));
        assert_eq!(*open.lock(), (1, false));
    }
}
