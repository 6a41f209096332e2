//! How new sessions and session-less requests are spread: one file and one line in [`POLICIES`] each.

mod first_available;
mod least_requests;
mod round_robin;

use std::fmt;
use std::sync::Arc;

use super::Replica;

/// Every policy that an upstream's `balance` may name.
pub const POLICIES: &[Kind] = &[round_robin::KIND, least_requests::KIND, first_available::KIND];

/// A policy's entry in the table.
pub struct Kind {
    /// As configs write it.
    pub name: &'static str,
    /// Makes the policy for these replicas' weights, in order.
    pub build: fn(weights: &[u32]) -> Arc<dyn Policy>,
}

/// Chooses among replicas.
pub trait Policy: Send + Sync + fmt::Debug {
    /// The policy's name in configs.
    fn name(&self) -> &'static str;

    /// Indices into `replicas`, best first; each at most once. A failed connect tries the next.
    fn order(&self, replicas: &[Arc<Replica>]) -> Vec<usize>;
}
