//! Buckets by key: in, a key; out, room for one more, or a time to wait.
//!
//! The arithmetic is `governor`'s GCRA (ITU-T I.371): a bucket is one number, the time at which it
//! will be full again. Where those numbers are kept is ours: governor's own stores grow without bound,
//! and cannot look at several buckets before they take from any.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::RateLimiter;
use governor::clock::Clock as GovernorClock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};

use super::Rate;

/// Above it, threads seldom meet at one lock.
const SHARDS: usize = 16;
/// How often a full shard looks for entries that it can drop, in nanoseconds: the look costs as much as
/// the shard is large, and a flood of new keys must not pay for it each time.
const SWEEP_EVERY: u64 = 1_000_000_000;
/// A shard with fewer entries is not looked at.
const FEW: usize = 64;

/// One was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How many more could come right now.
    pub remaining: u32,
    at: u64,
    shared: bool,
}

/// There is no room for one more before this time has passed; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// How long.
    pub time: Duration,
    /// Whether this is the bucket that all keys beyond the cap share: others may have emptied it.
    pub shared: bool,
}

impl Wait {
    /// Whole seconds, rounded up, so that who waits them is not refused again: for `Retry-After`.
    pub fn seconds(self) -> u32 {
        let whole = self.time.as_secs() + u64::from(self.time.subsec_nanos() > 0);
        u32::try_from(whole).unwrap_or(u32::MAX)
    }
}

/// Where buckets have their time from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's monotonic clock, since this moment.
    Real(Instant),
    /// Nanoseconds that a test sets.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's.
    pub fn real() -> Self {
        Self::Real(Instant::now())
    }

    fn now(&self) -> u64 {
        match self {
            Self::Real(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Self::Manual(now) => now.load(Ordering::SeqCst),
        }
    }
}

/// A bucket per key, in bounded memory: full buckets are dropped, since a new one is full, too, and keys
/// beyond the cap share one bucket, so that a flood of keys is bounded by the rate of one.
pub struct Buckets<K> {
    rate: Rate,
    clock: Clock,
    hasher: RandomState,
    first: Mutex<Shard<K>>,
    more: Vec<Mutex<Shard<K>>>,
    /// Of the keys that had no room. Locked after a shard, never before.
    shared: Mutex<Option<u64>>,
    most_per_shard: usize,
}

/// Times at which buckets are full again.
struct Shard<K> {
    full_at: HashMap<K, u64, RandomState>,
    /// No look for full ones before this time, or below this number.
    sweep_at: u64,
    sweep_above: usize,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Buckets for about `most_keys` keys at once.
    pub fn new(rate: Rate, most_keys: usize) -> Self {
        Self::with_clock(rate, most_keys, Clock::real())
    }

    /// The same with another clock.
    pub fn with_clock(rate: Rate, most_keys: usize, clock: Clock) -> Self {
        let count = if most_keys < SHARDS * FEW { 1 } else { SHARDS };
        let hasher = RandomState::new();
        let shard = |_| Mutex::new(Shard::new(hasher.clone()));
        Self {
            first: shard(0),
            more: (1..count).map(shard).collect(),
            rate,
            clock,
            hasher,
            shared: Mutex::new(None),
            most_per_shard: most_keys.div_ceil(count),
        }
    }

    /// What they are filled by.
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Whether there is room for one more; takes nothing.
    ///
    /// # Errors
    /// How long there will be none.
    pub fn peek(&self, key: &K) -> Result<Room, Wait> {
        self.hold(key).room()
    }

    /// Takes one where there is room.
    ///
    /// # Errors
    /// How long there will be none.
    pub fn take(&self, key: &K) -> Result<Room, Wait> {
        let held = self.hold(key);
        let room = held.room();
        if room.is_ok() {
            held.take();
        }
        room
    }

    /// Undoes one [`Buckets::take`], but for what has come in since: it might have come into a full bucket,
    /// and then there would be more than the rate.
    pub fn give_back(&self, key: &K, room: Room) {
        let mut shard = lock(self.shard(key));
        let mut shared = room.shared.then(|| lock(&self.shared));
        let slot = match &mut shared {
            Some(shared) => shared.as_mut(),
            None => shard.full_at.get_mut(key),
        };
        if let Some(full_at) = slot {
            let since = self.clock.now().saturating_sub(room.at);
            *full_at = full_at.saturating_sub(self.rate.each.saturating_sub(since));
        }
    }

    /// Holds a key's bucket still, so that others can be looked at before anything is taken. Whoever holds
    /// several takes them in the same order as all others.
    pub fn hold(&self, key: &K) -> Held<'_, K> {
        let mut shard = lock(self.shard(key));
        let now = self.clock.now();
        let mut full_at = shard.full_at.get(key).copied();
        let mut shared = None;
        if full_at.is_none() && !shard.has_room(now, self.most_per_shard) {
            let bucket = lock(&self.shared);
            full_at = *bucket;
            shared = Some(bucket);
        }
        Held { rate: &self.rate, shard, shared, key: key.clone(), full_at, now }
    }

    /// Drops what is full again, where nobody has looked for some seconds. To be called now and then: without
    /// it, only new keys make room.
    pub fn sweep(&self) {
        for shard in self.shards() {
            let mut shard = lock(shard);
            let now = self.clock.now();
            if now >= shard.sweep_at.saturating_add(9 * SWEEP_EVERY) {
                shard.sweep(now);
            }
        }
    }

    /// How many buckets are kept.
    pub fn len(&self) -> usize {
        self.shards().map(|shard| lock(shard).full_at.len()).sum()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K>> {
        // other bits than those by which the map spreads its entries
        let hash = self.hasher.hash_one(key).rotate_right(24);
        let index = usize::try_from(hash % (self.more.len() as u64 + 1)).unwrap_or(0);
        self.more.get(index).unwrap_or(&self.first)
    }

    fn shards(&self) -> impl Iterator<Item = &Mutex<Shard<K>>> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

/// A config shows what is configured, not what is in it.
impl<K> fmt::Debug for Buckets<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buckets({:?})", self.rate)
    }
}

impl<K: Hash + Eq> Shard<K> {
    fn new(hasher: RandomState) -> Self {
        Self { full_at: HashMap::with_hasher(hasher), sweep_at: 0, sweep_above: FEW }
    }

    /// Whether one more entry fits, once full ones are gone.
    fn has_room(&mut self, now: u64, most: usize) -> bool {
        let full = self.full_at.len() >= most;
        if (full || self.full_at.len() >= self.sweep_above) && now >= self.sweep_at {
            self.sweep(now);
            return self.full_at.len() < most;
        }
        !full
    }

    fn sweep(&mut self, now: u64) {
        self.full_at.retain(|_, full_at| *full_at > now);
        let left = self.full_at.len();
        if self.full_at.capacity() > 4 * left.max(FEW) {
            self.full_at.shrink_to(2 * left);
        }
        self.sweep_above = (2 * left).max(FEW);
        self.sweep_at = now.saturating_add(SWEEP_EVERY);
    }
}

/// A bucket that nobody else takes from for the time being.
pub struct Held<'a, K> {
    rate: &'a Rate,
    shard: MutexGuard<'a, Shard<K>>,
    shared: Option<MutexGuard<'a, Option<u64>>>,
    key: K,
    full_at: Option<u64>,
    now: u64,
}

impl<K: Hash + Eq> Held<'_, K> {
    /// Whether there is room for one more.
    ///
    /// # Errors
    /// How long there will be none.
    pub fn room(&self) -> Result<Room, Wait> {
        self.ask().map(|(room, _)| room)
    }

    /// Takes one if there is room, and lets go.
    pub fn take(mut self) {
        let Ok((_, full_at)) = self.ask() else { return };
        match &mut self.shared {
            Some(shared) => **shared = Some(full_at),
            None => {
                self.shard.full_at.insert(self.key, full_at);
            }
        }
    }

    /// Lets governor look at this one bucket.
    fn ask(&self) -> Result<(Room, u64), Wait> {
        let slot = Slot(Cell::new(self.full_at));
        let limiter: RateLimiter<NotKeyed, Slot, Moment, StateInformationMiddleware> =
            RateLimiter::new(self.rate.quota, slot, Moment(Cell::new(0)));
        limiter.clock().0.set(self.now);
        match limiter.check() {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity();
                let room = Room { remaining, at: self.now, shared: self.shared.is_some() };
                Ok((room, limiter.into_state_store().0.get().unwrap_or(self.now)))
            }
            Err(refused) => {
                let wait = refused.wait_time_from(Nanos::new(self.now));
                let shared = self.shared.is_some();
                Err(Wait { time: wait.max(Duration::from_nanos(1)), shared })
            }
        }
    }
}

/// One bucket, as governor reads and writes it; locked by who made it.
struct Slot(Cell<Option<u64>>);

impl StateStore for Slot {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, full_at) = decide(self.0.get().map(Nanos::new))?;
        self.0.set(Some(full_at.as_u64()));
        Ok(outcome)
    }
}

/// A clock that was set once the lock was held: governor counts from its start, which is 0.
#[derive(Clone)]
struct Moment(Cell<u64>);

impl GovernorClock for Moment {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.get())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    const SECOND: u64 = 1_000_000_000;

    fn rate(text: &str) -> Rate {
        Rate::parse(text).unwrap()
    }

    fn manual(text: &str, most: usize) -> (Buckets<u64>, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(0));
        (Buckets::with_clock(rate(text), most, Clock::Manual(now.clone())), now)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (buckets, now) = manual("60/m burst 3", 100);
        let remaining: Vec<_> = (0..3).map(|_| buckets.take(&1).unwrap().remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let second = Wait { time: Duration::from_secs(1), shared: false };
        assert_eq!(buckets.take(&1), Err(second));
        assert!(buckets.take(&2).is_ok(), "another key has its own");
        now.store(SECOND - 1, Ordering::SeqCst);
        let wait = buckets.take(&1).unwrap_err();
        assert_eq!((wait.time.as_nanos(), wait.seconds()), (1, 1));
        now.store(SECOND, Ordering::SeqCst);
        assert!(buckets.take(&1).is_ok());
        assert!(buckets.take(&1).is_err());
    }

    #[test]
    fn looking_takes_nothing() {
        let (buckets, _) = manual("1/m", 100);
        for _ in 0..5 {
            assert_eq!(buckets.peek(&1).unwrap().remaining, 0);
        }
        assert!(buckets.is_empty());
        assert!(buckets.take(&1).is_ok());
        assert!(buckets.peek(&1).is_err());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (buckets, now) = manual("1/s burst 2", 100);
        let (first, _) = (buckets.take(&1).unwrap(), buckets.take(&1).unwrap());
        buckets.give_back(&1, first);
        assert!(buckets.take(&1).is_ok());
        assert!(buckets.take(&1).is_err());
        buckets.give_back(&9, first);

        // a full bucket stays full: what was taken before has come in since
        now.store(100 * SECOND, Ordering::SeqCst);
        let old = buckets.take(&1).unwrap();
        now.store(110 * SECOND, Ordering::SeqCst);
        assert!(buckets.take(&1).is_ok());
        buckets.give_back(&1, old);
        assert!(buckets.take(&1).is_ok());
        assert!(buckets.take(&1).is_err(), "three at once with a burst of two");
    }

    #[test]
    fn keys_beyond_the_cap_share_one_bucket() {
        let (buckets, now) = manual("1/m burst 2", 10);
        for key in 0..10 {
            buckets.take(&key).unwrap();
        }
        assert!(buckets.take(&100).is_ok());
        let shared = buckets.take(&101).unwrap();
        assert!(buckets.take(&102).is_err(), "the shared bucket is empty");
        assert!(buckets.take(&3).is_ok(), "old keys have their own");
        assert_eq!(buckets.len(), 10);
        buckets.give_back(&101, shared);
        assert!(buckets.take(&103).is_ok());
        // full ones make room, at the next look
        now.store(200 * SECOND, Ordering::SeqCst);
        assert!((200..210).all(|key| buckets.take(&key).is_ok()));
        assert_eq!(buckets.len(), 10);
    }

    #[test]
    fn a_million_random_keys_fit_in_bounded_memory() {
        let (buckets, now) = manual("1/h", 20_000);
        let mut x = 1_u64;
        let mut let_through = 0;
        for n in 0..1_000_000_u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            now.store(n * 1_000, Ordering::SeqCst);
            let_through += u64::from(buckets.take(&x).is_ok());
        }
        assert!(buckets.len() <= 20_000, "{} entries", buckets.len());
        let capacity: usize = buckets.shards().map(|s| lock(s).full_at.capacity()).sum();
        assert!(capacity <= 80_000, "room for {capacity}");
        assert_eq!(let_through, 20_001, "one for each bucket, and one of the shared");
        now.store(2 * 3_600 * SECOND, Ordering::SeqCst);
        buckets.sweep();
        assert!(buckets.is_empty());
        let capacity: usize = buckets.shards().map(|s| lock(s).full_at.capacity()).sum();
        assert!(capacity < 5_000, "room for {capacity} that are gone");
    }

    /// 16 threads, and a clock that moves on whenever they have taken all there is.
    #[test]
    fn sixteen_threads_get_the_rate_exactly() {
        const STEP: u64 = 20_000_000;
        for most in [1_000, 0] {
            let (buckets, now) = manual("1000/s burst 50", most);
            let (taken, refused, over) =
                (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
            std::thread::scope(|scope| {
                for thread in 0..16 {
                    let (buckets, taken, refused, over) = (&buckets, &taken, &refused, &over);
                    // without room for keys of their own, all share one bucket
                    let key = if most == 0 { thread } else { 7 };
                    scope.spawn(move || {
                        while !over.load(Ordering::SeqCst) {
                            let counted = if buckets.take(&key).is_ok() { taken } else { refused };
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
                for step in 0..=100 {
                    now.store(step * STEP, Ordering::SeqCst);
                    let due = 50 + step * STEP / 1_000_000;
                    let enough = refused.load(Ordering::SeqCst) + 100;
                    let late = Instant::now() + Duration::from_secs(20);
                    let counted = |n: &AtomicU32| u64::from(n.load(Ordering::SeqCst));
                    // all that there is, and then refusals
                    while counted(&taken) < due || counted(&refused) < u64::from(enough) {
                        if Instant::now() > late || counted(&taken) > due {
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
                over.store(true, Ordering::SeqCst);
            });
            assert_eq!(taken.into_inner(), 50 + 100 * 20);
        }
    }

    proptest::proptest! {
        /// In any window of time, no more than burst and rate allow, whatever is given back when.
        #[test]
        fn no_window_holds_more_than_the_rate(
            steps in proptest::collection::vec((0u64..3_000_000_000, 0u8..3, 0usize..4), 1..80),
        ) {
            let (buckets, now) = manual("1/s burst 3", 100);
            let mut kept: Vec<(u64, Room)> = Vec::new();
            for (pause, what, which) in steps {
                let at = now.fetch_add(pause, Ordering::SeqCst) + pause;
                if what < 2 {
                    kept.extend(buckets.take(&1).ok().map(|room| (at, room)));
                } else if which < kept.len() {
                    let (_, room) = kept.remove(kept.len() - 1 - which);
                    buckets.give_back(&1, room);
                }
                for (n, (from, _)) in kept.iter().enumerate() {
                    let inside = (kept.len() - n) as u64;
                    let to = kept.last().unwrap().0;
                    proptest::prop_assert!(inside <= 3 + (to - from) / SECOND);
                }
            }
        }
    }
}
