//! The buffer budget: request bodies that the process holds at once, in bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::denial::{Denial, Reason};

/// What a permit stands for: a semaphore counts up to 2^29 on small machines, bytes may be more.
const UNIT: u64 = 1024;

/// The budget; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// A share of the budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Share {
    bytes: u64,
    permits: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    /// Makes a share large enough for `bytes`.
    ///
    /// # Errors
    /// 503 when the budget is used up: refusing one request beats losing all.
    pub fn grow(&self, share: &mut Share, bytes: u64) -> Result<(), Denial> {
        if bytes <= share.bytes {
            return Ok(());
        }
        let units = (bytes - share.bytes).div_ceil(UNIT);
        let busy = || {
            let full = "The edge holds too many request bodies at the moment";
            Denial::new(Reason::Busy, "limit.buffer", full).retry_after(1)
        };
        let wanted = u32::try_from(units).map_err(|_| busy())?;
        let more = self.0.clone().try_acquire_many_owned(wanted).map_err(|_| busy())?;
        share.bytes += units * UNIT;
        match &mut share.permits {
            Some(permits) => permits.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back() {
        let budget = Budget::new(10 * UNIT);
        let mut share = Share::default();
        budget.grow(&mut share, 6 * UNIT).unwrap();
        budget.grow(&mut share, 9 * UNIT).unwrap();
        let mut other = Share::default();
        assert_eq!(budget.grow(&mut other, 2 * UNIT).unwrap_err().code, "limit.buffer");
        drop(share);
        budget.grow(&mut other, 10 * UNIT).unwrap();
    }
}
