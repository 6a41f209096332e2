//! How many at once, by key: in, a key; out, a permit that counts until it is dropped.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Above it, threads seldom meet at one lock.
const SHARDS: usize = 16;

/// Counters by key. There are only as many entries as permits, so what bounds those bounds the memory.
pub struct Counts {
    most: u32,
    hasher: RandomState,
    first: Mutex<Shard>,
    more: Vec<Mutex<Shard>>,
}

type Shard = HashMap<u128, u32>;

impl Counts {
    /// Up to `most` permits for each key.
    pub fn new(most: u32) -> Self {
        let shard = || Mutex::new(Shard::new());
        let more = (1..SHARDS).map(|_| shard()).collect();
        Self { most, hasher: RandomState::new(), first: shard(), more }
    }

    /// Permits for each key.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Holds a key's counter still, so that other limits can be looked at before anything is taken. Whoever
    /// holds several takes them in the same order as all others.
    pub fn hold<'a>(self: &'a Arc<Self>, key: u128) -> HeldCount<'a> {
        let shard = lock(self.shard(key));
        HeldCount { counts: self, shard, key }
    }

    fn shard(&self, key: u128) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(key) % SHARDS as u64;
        let index = usize::try_from(hash).unwrap_or(0);
        self.more.get(index).unwrap_or(&self.first)
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        std::iter::once(&self.first).chain(&self.more).map(|shard| lock(shard).len()).sum()
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counts({})", self.most)
    }
}

/// A counter that nobody else changes for the time being.
pub struct HeldCount<'a> {
    counts: &'a Arc<Counts>,
    shard: MutexGuard<'a, Shard>,
    key: u128,
}

impl HeldCount<'_> {
    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.is_below(self.counts.most)
    }

    /// The same by another bound.
    pub fn is_below(&self, most: u32) -> bool {
        self.shard.get(&self.key).copied().unwrap_or(0) < most
    }

    /// Takes one, room or not, and lets go.
    pub fn take(mut self) -> Permit {
        let count = self.shard.entry(self.key).or_default();
        *count = count.saturating_add(1);
        Permit { counts: self.counts.clone(), key: self.key }
    }
}

/// One of so many; the place is free again once this is dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Counts>,
    key: u128,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shard = lock(self.counts.shard(self.key));
        match shard.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shard.remove(&self.key);
                if shard.capacity() > 4 * shard.len().max(64) {
                    shard.shrink_to_fit();
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn take(counts: &Arc<Counts>, key: u128) -> Option<Permit> {
        let held = counts.hold(key);
        held.has_room().then(|| held.take())
    }

    #[test]
    fn permits_come_back_and_leave_nothing() {
        let counts = Arc::new(Counts::new(2));
        let (a, b) = (take(&counts, 1).unwrap(), take(&counts, 1).unwrap());
        assert!(take(&counts, 1).is_none());
        assert!(take(&counts, 2).is_some());
        drop(a);
        let c = take(&counts, 1).unwrap();
        assert!(take(&counts, 1).is_none());
        drop((b, c));
        assert_eq!(counts.keys(), 0);
    }

    #[test]
    fn sixteen_threads_never_hold_more() {
        let counts = Arc::new(Counts::new(5));
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(permit) = take(&counts, 7) else { continue };
                        assert!(now.fetch_add(1, Ordering::SeqCst) < 5);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(counts.keys(), 0);
    }
}
