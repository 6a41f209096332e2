//! `first_available`: the first in the list; the others only when it cannot be reached.

use std::sync::Arc;

use super::{Kind, Policy, from};
use crate::balance::Replica;

/// The table line.
pub(super) const KIND: Kind = Kind { name: "first_available", build: |_| Arc::new(FirstAvailable) };

#[derive(Debug)]
struct FirstAvailable;

impl Policy for FirstAvailable {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn pick(&self, replicas: &[Arc<Replica>], tried: &[usize]) -> Option<usize> {
        from(0, replicas.len(), tried)
    }
}
