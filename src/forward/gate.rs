//! How many requests an upstream gets at once: in, a request; out, its place, at once or after a while.
//!
//! Those that wait are served in the order in which they came, each for a bounded time. This is asked only
//! where the config has a `circuit`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::balance::settings::Circuit;
use crate::base::denial::{Denial, Reason};
use crate::base::io::{Late, within};

/// The places of one upstream.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    wait: Duration,
}

/// A request's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(#[allow(dead_code, reason = "its drop makes room")] OwnedSemaphorePermit);

/// Counts who waits for as long as it lives.
struct Waiting<'g>(&'g AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// All places free.
    pub(super) fn new(circuit: &Circuit) -> Self {
        let places = Arc::new(Semaphore::new(circuit.in_flight));
        let waiting = AtomicUsize::new(0);
        Self { places, waiting, most_waiting: circuit.pending, wait: circuit.wait }
    }

    /// Requests that wait now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place, as soon as there is one and all who came before have theirs.
    ///
    /// # Errors
    /// 503 when too many wait already, or when there was none in time.
    pub(super) async fn enter(&self) -> Result<Place, Denial> {
        // takes nothing from those who wait: a place that comes free is theirs at once
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(Place(place));
        }
        let _waiting = self.queue().ok_or_else(|| full("forward.queue_full"))?;
        let place = within(self.wait, self.places.clone().acquire_owned()).await;
        match place.map_err(|Late| full("forward.queue_late"))? {
            Ok(place) => Ok(Place(place)),
            // it is never closed
            Err(_) => Err(full("forward.queue_full")),
        }
    }

    fn queue(&self) -> Option<Waiting<'_>> {
        let one_more = |waiting: usize| (waiting < self.most_waiting).then_some(waiting + 1);
        let queued = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        queued.is_ok().then(|| Waiting(&self.waiting))
    }
}

fn full(code: &'static str) -> Denial {
    Denial::new(Reason::Busy, code, "The server is busy").retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(in_flight: usize, pending: usize) -> Gate {
        Gate::new(&Circuit { in_flight, pending, wait: Duration::from_secs(5) })
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_that_comes_free() {
        let gate = gate(1, 1);
        let first = gate.enter().await.unwrap();
        let (second, third, ()) = tokio::join!(gate.enter(), gate.enter(), async {
            tokio::task::yield_now().await;
            assert_eq!(gate.waiting(), 1);
            drop(first);
        });
        assert_eq!(third.unwrap_err().code, "forward.queue_full");
        let second = second.unwrap();
        assert_eq!(gate.waiting(), 0);
        let late = gate.enter().await.unwrap_err();
        assert_eq!((late.code, late.retry_after), ("forward.queue_late", Some(1)));
        assert_eq!(gate.waiting(), 0);
        drop(second);
        assert!(gate.enter().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_no_trace() {
        let gate = gate(1, 2);
        let held = gate.enter().await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_secs(1), gate.enter()).await;
        assert!(given_up.is_err());
        assert_eq!(gate.waiting(), 0);
        drop(held);
        assert!(gate.enter().await.is_ok());
    }
}
