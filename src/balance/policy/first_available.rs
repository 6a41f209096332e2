//! `first_available`: the first in the list; the others only when it cannot be reached.

use std::sync::Arc;

use super::{Kind, Policy};
use crate::balance::Replica;

/// The table line.
pub(super) const KIND: Kind = Kind { name: "first_available", build: |_| Arc::new(FirstAvailable) };

#[derive(Debug)]
struct FirstAvailable;

impl Policy for FirstAvailable {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn order(&self, replicas: &[Arc<Replica>]) -> Vec<usize> {
        (0..replicas.len()).collect()
    }
}
