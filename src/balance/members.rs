//! The replicas of an upstream at one moment: in, all that belong to it; out, the best for a request.
//!
//! Never changed, only replaced whole: a request reads it without a lock, and what a choice costs does
//! not depend on the number of replicas, whatever state they are in.

use std::sync::Arc;

use super::Bound;
use super::affinity::Ring;
use super::policy::{Kind, Policy};
use super::replica::Replica;
use crate::base::table::Table;

/// All replicas of an upstream, and those that get new sessions and requests.
#[derive(Debug)]
pub struct Members {
    /// In the order of the config.
    pub replicas: Vec<Arc<Replica>>,
    by_authority: Table<Arc<Replica>>,
    /// Those of one priority each, the first first; empty only where nobody may get anything.
    groups: Vec<Group>,
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
        let is_open = |replica: &&Arc<Replica>| replica.state().gets_work();
        let mut open: Vec<_> = replicas.iter().filter(is_open).cloned().collect();
        if open.is_empty() {
            // rather a try at one that is said to be down than a refusal of everything
            open = replicas.iter().filter(|replica| !replica.is_drained()).cloned().collect();
        }
        let mut priorities: Vec<u32> = open.iter().map(|replica| replica.priority()).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let group = |priority: u32| {
            let all = open.iter().filter(|replica| replica.priority() == priority);
            Group::new(all.cloned().collect(), policy)
        };
        Self { groups: priorities.into_iter().map(group).collect(), replicas, by_authority }
    }

    /// The replica of that name, whatever its state.
    pub fn named(&self, authority: &str) -> Option<&Arc<Replica>> {
        self.by_authority.get(authority)
    }

    /// The best replica that is not among the `tried`; `None` when there is none.
    pub(super) fn choose<'m>(
        &'m self,
        bound: &Bound,
        tried: &[Arc<Replica>],
    ) -> Option<&'m Arc<Replica>> {
        let from = |group: &'m Group| match bound {
            Bound::Replica(_) => None,
            Bound::Caller(place) => group.ring.pick(*place, &group.replicas, tried),
            Bound::Nothing => group.policy.pick(&group.replicas, tried),
        };
        self.groups.iter().find_map(from)
    }
}

impl Group {
    fn new(replicas: Vec<Arc<Replica>>, policy: &Kind) -> Self {
        let weights: Vec<u32> = replicas.iter().map(|r| r.weight()).collect();
        let ring = Ring::new(&replicas);
        Self { policy: (policy.build)(&weights), ring, replicas }
    }
}
