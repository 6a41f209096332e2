//! `round_robin`: in turn, by weight. The default.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::weighted::Weighted;
use pingora_load_balancing::selection::{BackendIter, BackendSelection, algorithms};

use super::{Kind, Policy};
use crate::balance::Replica;

/// The table line.
pub(super) const KIND: Kind =
    Kind { name: "round_robin", build: |weights| Arc::new(RoundRobin::new(weights)) };

/// A weight is this many entries at most in Pingora's list.
const MAX_STEPS: usize = 1000;

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

    fn order(&self, replicas: &[Arc<Replica>]) -> Vec<usize> {
        let mut order = Vec::with_capacity(replicas.len());
        let mut iter = self.selection.iter(b"");
        for _ in 0..MAX_STEPS {
            let Some(index) = iter.next().and_then(index) else { break };
            if index < replicas.len() && !order.contains(&index) {
                order.push(index);
                // one alternative is enough here; the rest follow in order
                if order.len() == 2 || order.len() == replicas.len() {
                    break;
                }
            }
        }
        let rest: Vec<usize> = (0..replicas.len()).filter(|i| !order.contains(i)).collect();
        order.extend(rest);
        order
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
    use super::super::tests::replicas;
    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let replicas = replicas(3);
        let policy = RoundRobin::new(&[3, 1, 1]);
        let mut firsts = [0; 3];
        for _ in 0..500 {
            let order = policy.order(&replicas);
            firsts[order[0]] += 1;
            let mut all = order.clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
        assert_eq!(firsts, [300, 100, 100]);
    }

    #[test]
    fn one_replica_is_its_own_order() {
        assert_eq!(RoundRobin::new(&[7]).order(&replicas(1)), [0]);
    }
}
