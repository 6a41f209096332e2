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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::balance::settings::ServerSettings;

    pub(in crate::balance) fn replicas(n: usize) -> Vec<Arc<Replica>> {
        let server = |i: usize| ServerSettings {
            https: false,
            host: "127.0.0.1".into(),
            port: 8000 + i as u16,
            authority: format!("127.0.0.1:{}", 8000 + i),
            weight: 1,
        };
        (0..n).map(|i| Arc::new(Replica::new(i, server(i)))).collect()
    }

    #[test]
    fn every_policy_orders_every_replica_once() {
        assert!(!POLICIES.is_empty());
        for kind in POLICIES {
            let policy = (kind.build)(&[1, 1, 1, 1]);
            assert_eq!(policy.name(), kind.name);
            let mut order = policy.order(&replicas(4));
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3], "{}", kind.name);
        }
    }
}
