//! How new sessions and session-less requests are spread: in, replicas and those that were tried; out, the next
//! to try. One file and one line in [`POLICIES`] for each policy.

mod first_available;
mod least_requests;
mod round_robin;

use std::fmt;
use std::sync::Arc;

use super::replica::Replica;

/// Every policy that an upstream's `balance` may name.
pub const POLICIES: &[Kind] = &[round_robin::KIND, least_requests::KIND, first_available::KIND];

/// A policy's entry in the table.
#[derive(Debug)]
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

    /// The best replica that is not among the `tried`; `None` when all are. The `replicas` are those that
    /// it was made for. The cost must not grow with their number.
    fn pick<'r>(
        &self,
        replicas: &'r [Arc<Replica>],
        tried: &[Arc<Replica>],
    ) -> Option<&'r Arc<Replica>>;
}

/// The first that was not tried, from `start` on in the list and round again.
fn from<'r>(
    start: usize,
    replicas: &'r [Arc<Replica>],
    tried: &[Arc<Replica>],
) -> Option<&'r Arc<Replica>> {
    let (before, behind) = replicas.split_at(start.min(replicas.len()));
    behind.iter().chain(before).find(|replica| !is_among(replica, tried))
}

/// Whether a replica is one of those.
pub(super) fn is_among(replica: &Arc<Replica>, those: &[Arc<Replica>]) -> bool {
    those.iter().any(|other| Arc::ptr_eq(replica, other))
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
            priority: 0,
            drain: false,
            found: None,
        };
        let together = Arc::default();
        (0..n).map(|i| Arc::new(Replica::new(server(i)).among(&together))).collect()
    }

    /// The order in which a policy would try all replicas.
    pub(in crate::balance) fn order(policy: &dyn Policy, replicas: &[Arc<Replica>]) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(next) = policy.pick(replicas, &tried) {
            tried.push(next.clone());
        }
        places(replicas, &tried)
    }

    /// Where they stand in the list.
    pub(in crate::balance) fn places(all: &[Arc<Replica>], some: &[Arc<Replica>]) -> Vec<usize> {
        let place = |one: &Arc<Replica>| all.iter().position(|r| Arc::ptr_eq(r, one)).unwrap();
        some.iter().map(place).collect()
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
