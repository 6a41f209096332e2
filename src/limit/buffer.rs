//! The buffer budget, in bytes: in, the size of a request's body; out, its share of what the process holds at
//! once, or 503.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::denial::{Denial, Reason};

/// The budget; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Held>);

#[derive(Debug)]
struct Held {
    bytes: AtomicU64,
    most: u64,
}

/// A share of the budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Share {
    bytes: u64,
    of: Option<Arc<Held>>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Held { bytes: AtomicU64::new(0), most: bytes }))
    }

    /// Of how many bytes it is.
    pub fn most(&self) -> u64 {
        self.0.most
    }

    /// Makes a share large enough for `bytes`.
    ///
    /// # Errors
    /// 503 when the budget is used up: refusing one request beats losing all.
    pub fn grow(&self, share: &mut Share, bytes: u64) -> Result<(), Denial> {
        let Some(more @ 1..) = bytes.checked_sub(share.bytes) else { return Ok(()) };
        let held = &self.0;
        let taken = held.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            now.checked_add(more).filter(|sum| *sum <= held.most)
        });
        taken.map_err(|_| {
            let full = "The edge holds too many request bodies at the moment";
            Denial::new(Reason::Busy, "limit.buffer", full).retry_after(1)
        })?;
        share.of.get_or_insert_with(|| held.clone());
        share.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(held) = &self.of {
            held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back() {
        let budget = Budget::new(10);
        let mut share = Share::default();
        budget.grow(&mut share, 6).unwrap();
        budget.grow(&mut share, 9).unwrap();
        let mut other = Share::default();
        assert_eq!(budget.grow(&mut other, 2).unwrap_err().code, "limit.buffer");
        assert_eq!(budget.grow(&mut other, u64::MAX).unwrap_err().code, "limit.buffer");
        drop(share);
        budget.grow(&mut other, 10).unwrap();
    }
}
