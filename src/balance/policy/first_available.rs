//! `first_available`: in, the replicas; out, the first in the list, and the others only when it cannot be
//! reached.

use std::sync::Arc;

use super::{Kind, Policy, from};
use crate::balance::replica::Replica;

/// The table line.
pub(super) const KIND: Kind = Kind { name: "first_available", build: |_| Arc::new(FirstAvailable) };

#[derive(Debug)]
struct FirstAvailable;

impl Policy for FirstAvailable {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn pick<'r>(
        &self,
        replicas: &'r [Arc<Replica>],
        tried: &[Arc<Replica>],
    ) -> Option<&'r Arc<Replica>> {
        from(0, replicas, tried)
    }
}
