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

    /// Index of the best replica that is not among the `tried`; `None` when all are. The cost must
    /// not grow with the number of replicas.
    fn pick(&self, replicas: &[Arc<Replica>], tried: &[usize]) -> Option<usize>;
}

/// The first that was not tried, from `start` on in the list and round again.
fn from(start: usize, n: usize, tried: &[usize]) -> Option<usize> {
    let mut all = (start..n).chain(0..start.min(n));
    all.find(|index| !tried.contains(index))
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
        let together = Arc::default();
        (0..n).map(|i| Arc::new(Replica::new(i, server(i)).among(&together))).collect()
    }

    /// The order in which a policy would try all replicas.
    pub(in crate::balance) fn order(policy: &dyn Policy, replicas: &[Arc<Replica>]) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(next) = policy.pick(replicas, &tried) {
            tried.push(next);
        }
        tried
    }

    #[test]
    fn every_policy_orders_every_replica_once() {
        assert!(!POLICIES.is_empty());
        for kind in POLICIES {
            let policy = (kind.build)(&[1, 1, 1, 1]);
            assert_eq!(policy.name(), kind.name);
            let mut order = order(&*policy, &replicas(4));
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3], "{}", kind.name);
        }
    }
}
