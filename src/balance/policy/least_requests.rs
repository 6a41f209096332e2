//! `least_requests`: in, the replicas; out, the one where the fewest requests and streams are under way, by
//! weight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Kind, Policy, is_among};
use crate::balance::health::FULL;
use crate::balance::replica::Replica;

/// The table line.
pub(super) const KIND: Kind =
    Kind { name: "least_requests", build: |_| Arc::new(LeastRequests(AtomicUsize::new(0))) };

/// Most replicas that are compared for one request: in a larger group, those whose turn it is.
const COMPARED: usize = 32;

/// Ties go round, or an idle upstream would use its first replica alone.
#[derive(Debug)]
struct LeastRequests(AtomicUsize);

impl Policy for LeastRequests {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn pick<'r>(
        &self,
        replicas: &'r [Arc<Replica>],
        tried: &[Arc<Replica>],
    ) -> Option<&'r Arc<Replica>> {
        let (turn, n) = (self.0.fetch_add(1, Ordering::Relaxed), replicas.len());
        let start = turn.checked_rem(n)?;
        let in_turn = (start..n).chain(0..start).filter_map(|i| replicas.get(i));
        let left = in_turn.filter(|replica| !is_among(replica, tried));
        left.take(COMPARED).min_by_key(|replica| cost(replica))
    }
}

/// What one more request would make of the load, per weight.
fn cost(replica: &Replica) -> u64 {
    let share = replica.weight().saturating_mul(replica.health.share());
    (replica.load() as u64 + 1) * 1000 * u64::from(FULL) / u64::from(share.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{order, places, replicas};
    use super::*;

    #[test]
    fn the_least_loaded_goes_first_and_ties_go_round() {
        let replicas = replicas(3);
        let policy = LeastRequests(AtomicUsize::new(0));
        let _busy = (replicas[0].begin(), replicas[0].begin(), replicas[1].begin());
        assert_eq!(order(&policy, &replicas), [2, 1, 0]);
        drop(_busy);
        let firsts: Vec<_> = (0..6).map(|_| policy.pick(&replicas, &[]).unwrap().clone()).collect();
        let firsts = places(&replicas, &firsts);
        for i in 0..3 {
            assert_eq!(firsts.iter().filter(|f| **f == i).count(), 2);
        }
    }
}
