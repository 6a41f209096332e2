//! Tokens that were good a moment ago: in, a token; out, whom it stands for.
//!
//! Kept is a sum and what was found out, never the token. The sum is SipHash-1-3 with 128 bits and a key that
//! lives as long as the process: nobody can make up a token with the sum of another one, because sums are never
//! shown. With two rounds and four a token of 1 KiB takes 0.47 µs, with SHA-256 0.73 where the processor helps and
//! several times as much where it does not. An entry ends when its token does, and when the keys that verified it are no
//! longer the issuer's. Only good tokens get in, so nobody can push others out by guessing. The cache is
//! part of its config block and ends with it.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use lru::LruCache;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::principal::Principal;

/// The sum of a token.
pub(super) type Sum = [u8; 16];

/// Above it, threads seldom meet at one lock.
const SHARDS: usize = 16;
/// Most entries of a shard.
const MAX_ENTRIES: usize = 1024;
/// Most bytes of a shard: what tokens weigh with their claims, 64 MiB in all.
const MAX_BYTES: usize = 4 << 20;

/// A moment by both clocks: tokens end by the one that people set, what we remember by the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) wall: SystemTime,
    pub(super) steady: Instant,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }
}

/// What was found out of a token.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Whom it stands for.
    pub(super) principal: Arc<Principal>,
    /// Its own end.
    pub(super) until: Option<SystemTime>,
    /// When its issuer is to be asked again, where it is asked at all.
    pub(super) fresh: Option<Instant>,
    /// Whose it is, and the generation of the keys that say so.
    pub(super) proof: (usize, u64),
}

/// Good tokens.
pub(super) struct Cache {
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    entries: LruCache<Sum, (Entry, usize)>,
    bytes: usize,
}

/// What a token is known by.
pub(super) fn sum(token: &[u8]) -> Sum {
    static KEYED: LazyLock<SipHasher13> = LazyLock::new(|| {
        // two of the standard library's secret keys make one of ours
        let [half, other] = [0; 2].map(|n: u8| RandomState::new().hash_one(n));
        SipHasher13::new_with_keys(half, other)
    });
    let mut hasher = *KEYED;
    hasher.write(token);
    hasher.finish128().as_bytes()
}

impl Cache {
    pub(super) fn new() -> Self {
        let shard = |_| Mutex::new(Shard { entries: LruCache::unbounded(), bytes: 0 });
        Self { shards: (0..SHARDS).map(shard).collect() }
    }

    /// Whom a token stands for, where that is known and `holds` says that its proof still does.
    pub(super) fn get(
        &self,
        sum: &Sum,
        now: Moment,
        holds: impl FnOnce((usize, u64)) -> bool,
    ) -> Option<Arc<Principal>> {
        let mut shard = self.shard(sum)?;
        let (entry, _) = shard.entries.get(sum)?;
        let lasts = entry.until.is_none_or(|until| now.wall < until)
            && entry.fresh.is_none_or(|until| now.steady < until);
        if lasts && holds(entry.proof) {
            return Some(entry.principal.clone());
        }
        shard.remove(sum);
        None
    }

    /// Keeps a good token that weighs so many bytes.
    pub(super) fn keep(&self, sum: Sum, length: usize, entry: Entry) {
        let Some(mut shard) = self.shard(&sum) else { return };
        shard.remove(&sum);
        shard.bytes += length;
        shard.entries.put(sum, (entry, length));
        while shard.entries.len() > MAX_ENTRIES || shard.bytes > MAX_BYTES {
            let Some((_, (_, length))) = shard.entries.pop_lru() else { return };
            shard.bytes -= length;
        }
    }

    fn shard(&self, sum: &Sum) -> Option<MutexGuard<'_, Shard>> {
        let [first, ..] = sum;
        let shard = self.shards.get(usize::from(*first) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    fn remove(&mut self, sum: &Sum) {
        if let Some((_, length)) = self.entries.pop(sum) {
            self.bytes -= length;
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(until: Option<SystemTime>, fresh: Option<Instant>, generation: u64) -> Entry {
        let principal = Arc::new(Principal::new("oauth", "https://a", "ann"));
        Entry { principal, until, fresh, proof: (3, generation) }
    }

    #[test]
    fn an_entry_ends_with_its_token_and_with_its_keys() {
        let (cache, sum) = (Cache::new(), sum(b"token"));
        let now = Moment::now();
        let minute = Duration::from_secs(60);
        let (end, fresh) = (Some(now.wall + minute), Some(now.steady + minute));
        let after = |wall, steady| Moment { wall: now.wall + wall, steady: now.steady + steady };
        let (zero, nearly) = (Duration::ZERO, minute - Duration::from_nanos(1));
        assert!(cache.get(&sum, now, |_| true).is_none());
        let found =
            |at, generation| cache.get(&sum, at, |proof| proof == (3, generation)).is_some();
        cache.keep(sum, 5, entry(end, fresh, 7));
        assert!(found(now, 7) && found(after(nearly, nearly), 7));
        assert!(!found(after(minute, zero), 7));
        assert!(!found(now, 7), "what has ended is gone");
        cache.keep(sum, 5, entry(end, fresh, 7));
        assert!(!found(after(zero, minute), 7), "its issuer is to be asked again");
        cache.keep(sum, 5, entry(end, fresh, 7));
        assert!(!found(now, 8), "the keys are others");
        assert!(!found(now, 7), "and it does not come back with them");
        cache.keep(sum, 5, entry(None, None, 7));
        assert!(found(after(minute * 9999, minute * 9999), 7));
        assert!(cache.get(&super::sum(b"tokem"), now, |_| true).is_none());
    }

    #[test]
    fn it_is_bounded_in_number_and_in_bytes() {
        let cache = Cache::new();
        for n in 0..40_000u32 {
            cache.keep(sum(&n.to_be_bytes()), 4, entry(None, None, 0));
        }
        let count = |cache: &Cache| -> (usize, usize) {
            let shards = cache.shards.iter().map(|shard| shard.lock().unwrap());
            shards.fold((0, 0), |(n, b), shard| (n + shard.entries.len(), b + shard.bytes))
        };
        assert_eq!(count(&cache), (SHARDS * MAX_ENTRIES, 4 * SHARDS * MAX_ENTRIES));
        let now = Moment::now();
        assert!(cache.get(&sum(&39_999u32.to_be_bytes()), now, |_| true).is_some());
        assert!(cache.get(&sum(&0u32.to_be_bytes()), now, |_| true).is_none());
        let cache = Cache::new();
        for n in 0..3_000u32 {
            cache.keep(sum(&n.to_be_bytes()), 64 << 10, entry(None, None, 0));
            cache.keep(sum(&n.to_be_bytes()), 64 << 10, entry(None, None, 0));
        }
        let (entries, bytes) = count(&cache);
        assert_eq!((entries * (64 << 10), entries), (bytes, SHARDS * 64));
        cache.keep(sum(b"huge"), MAX_BYTES + 1, entry(None, None, 0));
        assert!(cache.get(&sum(b"huge"), now, |_| true).is_none());
    }
}
