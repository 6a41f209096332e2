//! Passwords that were right a moment ago: in, a line of the file and a password; out, whether that
//! pair was verified within the last minutes.
//!
//! Kept is a code of both, by AES-CMAC (RFC 4493) with a key that lives as long as the process: what
//! is in memory says nothing of a password without the key, and a line that changes in any way (a new
//! hash, another user, no line at all) finds nothing. Only passwords that were right get in, so
//! nobody can push others out by guessing.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aes::Aes256Enc;
use aes::cipher::KeyInit;
use cmac::digest::InnerInit;
use cmac::{Cmac, Mac};
use lru::LruCache;

/// A code of a line and a password.
pub(super) type Code = [u8; 16];

/// Most entries; the one that was longest unused goes.
const MAX_ENTRIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Right passwords and until when they need not be verified again.
pub(super) struct Cache {
    key: Aes256Enc,
    keep: Duration,
    seen: Mutex<LruCache<Code, Instant>>,
}

impl Cache {
    /// An empty cache that keeps entries for `keep`; none at all for zero.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub(super) fn new(keep: Duration) -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| format!("no random bytes: {e}"))?;
        let seen = Mutex::new(LruCache::new(MAX_ENTRIES));
        Ok(Self { key: Aes256Enc::new(&key.into()), keep, seen })
    }

    /// The code of a line and a password. The line's length goes first, so that no two pairs are
    /// the same bytes.
    pub(super) fn code(&self, line: &str, password: &[u8]) -> Code {
        let mut mac: Cmac<&Aes256Enc> = Cmac::inner_init(&self.key);
        mac.update(&(line.len() as u64).to_be_bytes());
        mac.update(line.as_bytes());
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    /// Whether the pair was right and is still fresh.
    pub(super) fn holds(&self, code: &Code, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(code) {
            Some(until) if now < *until => true,
            Some(_) => {
                seen.pop(code);
                false
            }
            None => false,
        }
    }

    /// Keeps a pair that was right.
    pub(super) fn keep(&self, code: Code, now: Instant) {
        if !self.keep.is_zero() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.put(code, now + self.keep);
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("keep", &self.keep).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end() {
        let cache = Cache::new(Duration::from_secs(60)).unwrap();
        let (now, code) = (Instant::now(), cache.code("a:x", b"secret"));
        assert!(!cache.holds(&code, now));
        cache.keep(code, now);
        assert!(cache.holds(&code, now) && cache.holds(&code, now + Duration::from_secs(59)));
        assert!(!cache.holds(&code, now + Duration::from_secs(60)));
        assert!(!cache.holds(&code, now), "what has ended is gone");
        let off = Cache::new(Duration::ZERO).unwrap();
        off.keep(code, now);
        assert!(!off.holds(&code, now));
    }

    #[test]
    fn line_and_password_both_count() {
        let cache = Cache::new(Duration::from_secs(60)).unwrap();
        let code = cache.code("a:x", b"yz");
        assert_eq!(code, cache.code("a:x", b"yz"));
        for (line, password) in [("a:x", "y"), ("a:xy", "z"), ("b:x", "yz"), ("a:", "xyz")] {
            assert_ne!(code, cache.code(line, password.as_bytes()), "{line} {password}");
        }
        let other = Cache::new(Duration::from_secs(60)).unwrap();
        assert_ne!(code, other.code("a:x", b"yz"), "each process has its key");
    }

    #[test]
    fn it_is_bounded() {
        let cache = Cache::new(Duration::from_secs(60)).unwrap();
        let now = Instant::now();
        for n in 0..5000u32 {
            cache.keep(cache.code("a:x", &n.to_be_bytes()), now);
        }
        assert_eq!(cache.seen.lock().unwrap().len(), 4096);
        assert!(!cache.holds(&cache.code("a:x", &0u32.to_be_bytes()), now));
        assert!(cache.holds(&cache.code("a:x", &4999u32.to_be_bytes()), now));
    }
}
