//! How many requests an upstream gets at once: in, a request; out, its place, at once or after a while.
//!
//! Those that wait are served in the order in which they came, each for a bounded time. This is asked only
//! where the config has a `circuit`. When that changes, who has a place or waits for one does so still, and counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counts::Counts;
use crate::balance::settings::Circuit;
use crate::base::denial::{Denial, Reason};
use crate::base::io::{Late, within};

/// The places of one upstream, as the config says it.
#[derive(Debug)]
pub(super) struct Gate {
    room: Arc<Room>,
    in_flight: usize,
    most_waiting: usize,
    wait: Duration,
    counts: Arc<Counts>,
}

/// The places themselves, and who waits for one, from one config to the next.
#[derive(Debug)]
struct Room {
    places: Arc<Semaphore>,
    /// How many places there are to be.
    size: Mutex<usize>,
    /// How many more there are, all of them taken: they go when they come free.
    too_many: AtomicUsize,
    waiting: AtomicUsize,
}

impl Room {
    fn new(size: usize) -> Self {
        let places = Arc::new(Semaphore::new(size));
        Self {
            places,
            size: Mutex::new(size),
            too_many: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// There are to be so many from now on.
    fn resize(&self, size: usize) {
        let mut before = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in *before..size {
            if !self.one_too_many() {
                self.places.add_permits(1);
            }
        }
        let fewer = before.saturating_sub(size);
        let gone = self.places.forget_permits(fewer);
        self.too_many.fetch_add(fewer - gone, Ordering::Relaxed);
        *before = size;
    }

    /// Whether there was one too many; now it is one less.
    fn one_too_many(&self) -> bool {
        let one_less = |many: usize| many.checked_sub(1);
        self.too_many.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// A request's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    room: Arc<Room>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.room.one_too_many()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

/// Counts who waits for as long as it lives.
struct Waiting<'g> {
    gate: &'g Gate,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gate.room.waiting.fetch_sub(1, Ordering::Relaxed);
        self.gate.counts.waited(self.since.elapsed());
    }
}

impl Gate {
    /// All places free; or those of the one before, as many as there were until [`Gate::open`].
    pub(super) fn new(circuit: &Circuit, before: Option<&Self>, counts: Arc<Counts>) -> Self {
        let Circuit { in_flight, pending: most_waiting, wait } = *circuit;
        let room = before.map(|before| before.room.clone());
        let room = room.unwrap_or_else(|| Arc::new(Room::new(in_flight)));
        Self { room, in_flight, most_waiting, wait, counts }
    }

    /// It goes to work.
    pub(super) fn open(&self) {
        self.room.resize(self.in_flight);
    }

    /// Requests that wait now.
    pub(super) fn waiting(&self) -> usize {
        self.room.waiting.load(Ordering::Relaxed)
    }

    /// A place, as soon as there is one and all who came before have theirs.
    ///
    /// # Errors
    /// 503 when too many wait already, or when there was none in time.
    pub(super) async fn enter(&self) -> Result<Place, Denial> {
        // takes nothing from those who wait: a place that comes free is theirs at once
        let Self { room, .. } = self;
        let place = |permit| Place { permit: Some(permit), room: room.clone() };
        if let Ok(permit) = room.places.clone().try_acquire_owned() {
            return Ok(place(permit));
        }
        let Some(_waiting) = self.queue() else {
            self.counts.full();
            return Err(full("forward.queue_full"));
        };
        let waited = within(self.wait, room.places.clone().acquire_owned()).await;
        let late = |Late| {
            self.counts.late();
            full("forward.queue_late")
        };
        match waited.map_err(late)? {
            Ok(permit) => Ok(place(permit)),
            // it is never closed
            Err(_) => Err(full("forward.queue_full")),
        }
    }

    fn queue(&self) -> Option<Waiting<'_>> {
        let one_more = |waiting: usize| (waiting < self.most_waiting).then_some(waiting + 1);
        let waiting = &self.room.waiting;
        let queued = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        queued.is_ok().then(|| Waiting { gate: self, since: Instant::now() })
    }
}

fn full(code: &'static str) -> Denial {
    Denial::new(Reason::Busy, code, "The server is busy").retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(in_flight: usize, pending: usize) -> Gate {
        let circuit = Circuit { in_flight, pending, wait: Duration::from_secs(5) };
        Gate::new(&circuit, None, Arc::default())
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
        let totals = gate.counts.totals();
        assert_eq!((totals.waits, totals.full, totals.late), (2, 1, 1));
    }

    fn after(before: &Gate, in_flight: usize) -> Gate {
        let circuit = Circuit { in_flight, pending: 9, wait: Duration::from_secs(5) };
        Gate::new(&circuit, Some(before), Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_under_way_counts_when_there_are_fewer_places() {
        let old = gate(3, 9);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(old.enter().await.unwrap());
        }
        let new = after(&old, 1);
        drop(held.pop());
        held.push(old.enter().await.expect("not at work yet: nothing has changed"));
        new.open();
        // three are under way where one may be: two must end before one that ends makes room
        for _ in 0..2 {
            drop(held.pop());
            assert_eq!(new.enter().await.unwrap_err().code, "forward.queue_late");
        }
        let (entered, ()) = tokio::join!(new.enter(), async {
            tokio::task::yield_now().await;
            assert_eq!((new.waiting(), old.waiting()), (1, 1));
            drop(held.pop());
        });
        let entered = entered.unwrap();
        assert!(new.enter().await.is_err(), "one at a time");
        drop(entered);
        assert!(new.enter().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_at_once_when_there_are_more_places() {
        let old = gate(2, 9);
        let _held = (old.enter().await.unwrap(), old.enter().await.unwrap());
        // one fewer first: what was owed is not given twice
        let fewer = after(&old, 1);
        fewer.open();
        let more = after(&fewer, 3);
        let (entered, ()) = tokio::join!(old.enter(), async {
            tokio::task::yield_now().await;
            more.open();
        });
        let _entered = entered.unwrap();
        assert!(more.enter().await.is_err(), "three of three");
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
