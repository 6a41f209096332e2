//! A place for what a later stage knows of something that an earlier one made: in, a value, once; out,
//! that value without a search.
//!
//! The counters of a route belong to `observe`, which comes after `route`: found by the route's name for
//! each request, they would cost more than the counting.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// An empty place, or what was put there first.
#[derive(Clone, Default)]
pub struct Slot(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Slot {
    /// What is there; where nothing is, what `make` makes. `None`: something of another type was first.
    pub fn get_or<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<&T> {
        self.0.get_or_init(|| make()).downcast_ref()
    }

    /// The same, to keep.
    pub fn share_or<T: Any + Send + Sync>(&self, make: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        self.0.get_or_init(|| make()).clone().downcast().ok()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Slot(taken)" } else { "Slot" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stays_and_copies_share_it() {
        let slot = Slot::default();
        let empty = slot.clone();
        assert_eq!(slot.get_or(|| Arc::new(7_u32)), Some(&7));
        assert_eq!(slot.get_or::<u32>(|| panic!("it is taken")), Some(&7));
        assert_eq!(slot.clone().get_or(|| Arc::new(8_u32)), Some(&7));
        assert_eq!(slot.get_or(|| Arc::new("text")), None);
        assert_eq!(slot.share_or(|| Arc::new(8_u32)), Some(Arc::new(7)));
        assert_eq!(slot.share_or(|| Arc::new("text")), None);
        assert_eq!(empty.get_or(|| Arc::new(8_u32)), Some(&8));
    }
}
