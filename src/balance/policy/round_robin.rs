//! `round_robin`, the default: in, the replicas; out, each in turn, by weight.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::weighted::Weighted;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, algorithms};

use super::{Kind, Policy, from};
use crate::balance::replica::Replica;

/// The table line.
pub(super) const KIND: Kind =
    Kind { name: "round_robin", build: |weights| Arc::new(RoundRobin::new(weights)) };

struct RoundRobin {
    selection: Arc<Weighted<algorithms::RoundRobin>>,
}

impl fmt::Debug for RoundRobin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoundRobin")
    }
}

impl RoundRobin {
    fn new(weights: &[u32]) -> Self {
        let backends: BTreeSet<Backend> =
            weights.iter().enumerate().filter_map(|(i, weight)| backend(i, *weight)).collect();
        Self { selection: Arc::new(Weighted::build(&backends)) }
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn pick<'r>(
        &self,
        replicas: &'r [Arc<Replica>],
        tried: &[Arc<Replica>],
    ) -> Option<&'r Arc<Replica>> {
        let n = replicas.len();
        // one step of the turn per request: the alternatives to the first just follow it in the list
        let start = match tried.first() {
            Some(first) => replicas.iter().position(|r| Arc::ptr_eq(r, first)),
            None => self.selection.iter(b"").next().and_then(index).filter(|i| *i < n),
        };
        let start = start.unwrap_or(0);
        let passes = |replica: &Arc<Replica>| tried.is_empty() && !replica.health.takes();
        from(start + usize::from(replicas.get(start).is_some_and(passes)), replicas, tried)
    }
}

/// Pingora's selection knows addresses only, and several replicas may share one; so the address
/// carries the replica's index and is never connected to.
fn backend(index: usize, weight: u32) -> Option<Backend> {
    let ip = std::net::Ipv4Addr::from(u32::try_from(index).ok()?);
    let mut backend = Backend::new(&format!("{ip}:1")).ok()?;
    backend.weight = usize::try_from(weight).ok()?;
    Some(backend)
}

fn index(backend: &Backend) -> Option<usize> {
    match backend.addr.as_inet()?.ip() {
        std::net::IpAddr::V4(ip) => usize::try_from(u32::from(ip)).ok(),
        std::net::IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{order, replicas};
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let replicas = replicas(3);
        let policy = RoundRobin::new(&[3, 1, 1]);
        let mut firsts = [0; 3];
        for _ in 0..500 {
            let order = order(&policy, &replicas);
            firsts[order[0]] += 1;
            let mut all = order.clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
        assert_eq!(firsts, [300, 100, 100]);
    }

    #[test]
    fn equal_weights_take_turns() {
        let (replicas, policy) = (replicas(2), RoundRobin::new(&[1, 1]));
        let firsts: Vec<usize> = (0..4).map(|_| order(&policy, &replicas)[0]).collect();
        assert!(firsts == [0, 1, 0, 1] || firsts == [1, 0, 1, 0], "{firsts:?}");
    }

    #[test]
    fn one_replica_is_its_own_order() {
        assert_eq!(order(&RoundRobin::new(&[7]), &replicas(1)), [0]);
    }
}
