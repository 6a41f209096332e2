//! The replicas of an upstream at one moment: in, all that belong to it; out, the best for a request.
//!
//! Never changed, only replaced whole: a request reads it without a lock, and what a choice costs does
//! not depend on the number of replicas, whatever state they are in.

use std::sync::Arc;

use super::Bound;
use super::affinity::Ring;
use super::policy::{Kind, Policy};
use super::replica::Replica;
use super::view::State;
use crate::base::table::Table;

/// All replicas of an upstream, and those that get new sessions and requests.
#[derive(Debug)]
pub struct Members {
    /// In the order of the config.
    pub replicas: Vec<Arc<Replica>>,
    by_authority: Table<Arc<Replica>>,
    open: Group,
}

/// Replicas that a policy chooses among.
#[derive(Debug)]
struct Group {
    replicas: Vec<Arc<Replica>>,
    policy: Arc<dyn Policy>,
    ring: Ring,
}

impl Members {
    /// Sorts out who gets new requests, as the replicas are now.
    pub(super) fn new(replicas: Vec<Arc<Replica>>, policy: &Kind) -> Self {
        let name = |replica: &Arc<Replica>| (replica.server.authority.clone(), replica.clone());
        let by_authority = replicas.iter().map(name).collect();
        let is_open =
            |replica: &&Arc<Replica>| matches!(replica.state(), State::Up | State::Starting);
        let mut open: Vec<_> = replicas.iter().filter(is_open).cloned().collect();
        if open.is_empty() {
            // rather a try at one that is said to be down than a refusal of everything
            open.clone_from(&replicas);
        }
        Self { open: Group::new(open, policy), replicas, by_authority }
    }

    /// The replica of that name, whatever its state.
    pub fn named(&self, authority: &str) -> Option<&Arc<Replica>> {
        self.by_authority.get(authority)
    }

    /// The best replica that is not among the `tried`; `None` when there is none.
    pub(super) fn choose(&self, bound: &Bound, tried: &[Arc<Replica>]) -> Option<&Arc<Replica>> {
        let group = &self.open;
        match bound {
            Bound::Replica(_) => None,
            Bound::Caller(place) => group.ring.pick(*place, &group.replicas, tried),
            Bound::Nothing => group.policy.pick(&group.replicas, tried),
        }
    }
}

impl Group {
    fn new(replicas: Vec<Arc<Replica>>, policy: &Kind) -> Self {
        let weights: Vec<u32> = replicas.iter().map(|r| r.server.weight).collect();
        let ring = Ring::new(&replicas);
        Self { policy: (policy.build)(&weights), ring, replicas }
    }
}
