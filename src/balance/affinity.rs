//! One caller, one replica: a consistent-hash ring with a bound on load.
//!
//! Each replica has many points on the ring that depend on nothing but itself, so a replica that
//! leaves moves only its own callers. A replica whose load is above 1.25 times the mean passes its
//! new requests on to the caller's next one (Mirrokni et al., "Consistent Hashing with Bounded
//! Loads"). What a request costs does not depend on the number of replicas.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::policy::is_among;
use super::replica::Replica;
use crate::base::caller::Client;
use crate::base::principal::Principal;

/// Below this many requests in flight, a replica is never too busy.
const FREE: usize = 4;
/// Points per replica: callers spread within a few per cent.
const POINTS: u64 = 160;
/// Points that are looked at for a replica that is not too busy.
const LOOKED_AT: usize = 512;

/// The points of all replicas, in order.
#[derive(Debug)]
pub(super) struct Ring(Vec<(u64, usize)>);

impl Ring {
    pub(super) fn new(replicas: &[Arc<Replica>]) -> Self {
        let of = |(index, replica): (usize, &Arc<Replica>)| {
            let all = replica.points.to_vec();
            all.into_iter().map(move |point| (point, index))
        };
        let mut points: Vec<_> = replicas.iter().enumerate().flat_map(of).collect();
        points.sort_unstable();
        Self(points)
    }

    /// The first replica behind `place` that was not `tried` and is not too busy; else the first
    /// that was not tried.
    pub(super) fn pick<'r>(
        &self,
        place: u64,
        replicas: &'r [Arc<Replica>],
        tried: &[Arc<Replica>],
    ) -> Option<&'r Arc<Replica>> {
        let at = self.0.partition_point(|(point, _)| *point < place);
        let (before, behind) = self.0.split_at_checked(at)?;
        let in_order = || {
            let all = behind.iter().chain(before);
            all.filter_map(|(_, index)| replicas.get(*index)).filter(|r| !is_among(r, tried))
        };
        let free = |replica: &&Arc<Replica>| {
            replica.health.takes_place(place) && !is_busy(replica, replicas.len())
        };
        in_order().take(LOOKED_AT).find(free).or_else(|| in_order().next())
    }
}

/// A replica's points: they depend on nothing but its name.
pub(super) fn points(authority: &str) -> Box<[u64]> {
    (0..POINTS).map(|n| hash(authority.as_bytes(), &n.to_be_bytes())).collect()
}

/// A caller's place on the ring.
pub(super) fn place(principal: &Principal, client: &Client) -> u64 {
    if principal.is_anonymous() {
        match client.address {
            std::net::IpAddr::V4(v4) => hash(b"v4", &v4.octets()),
            std::net::IpAddr::V6(v6) => hash(b"v6", &v6.octets()),
        }
    } else {
        hash(b"principal", &principal.to_bytes())
    }
}

/// The place of a header field's value.
pub(super) fn place_of(value: &[u8]) -> u64 {
    hash(b"header", value)
}

fn hash(first: &[u8], second: &[u8]) -> u64 {
    let digest = Sha256::new().chain_update(first).chain_update([0]).chain_update(second);
    digest.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Whether one more request would lift the replica above 1.25 times the mean.
fn is_busy(replica: &Replica, replicas: usize) -> bool {
    let load = replica.load();
    let total = replica.load_together();
    load >= FREE && (load + 1) * replicas * 4 > (total + 1) * 5
}

#[cfg(test)]
mod tests {
    use super::super::policy::tests::{places, replicas};
    use super::*;
    use std::net::IpAddr;

    /// All replicas in a caller's order.
    fn order(replicas: &[Arc<Replica>], principal: &Principal, client: &Client) -> Vec<usize> {
        let (ring, place) = (Ring::new(replicas), place(principal, client));
        let mut tried = Vec::new();
        while let Some(next) = ring.pick(place, replicas, &tried) {
            tried.push(next.clone());
        }
        places(replicas, &tried)
    }

    fn client(n: u32) -> Client {
        Client { address: IpAddr::V4(n.into()), hidden: false, tls: false, certificate: None }
    }

    #[test]
    fn a_caller_keeps_its_replica_and_callers_spread() {
        let (replicas, nobody) = (replicas(4), Principal::anonymous());
        let mut firsts = [0; 4];
        for n in 0..1000 {
            let first = order(&replicas, &nobody, &client(n))[0];
            assert_eq!(first, order(&replicas, &nobody, &client(n))[0]);
            firsts[first] += 1;
        }
        assert!(firsts.iter().all(|n| *n > 180), "{firsts:?}");
    }

    #[test]
    fn a_replica_that_leaves_moves_only_its_own_callers() {
        let (all, nobody) = (replicas(4), Principal::anonymous());
        let fewer: Vec<_> = all.iter().take(3).cloned().collect();
        for n in 0..500 {
            let before = order(&all, &nobody, &client(n));
            let after = order(&fewer, &nobody, &client(n));
            let expected: Vec<usize> = before.into_iter().filter(|i| *i != 3).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn a_known_caller_is_known_whatever_its_address() {
        let replicas = replicas(4);
        let who = Principal::new("basic", "", "ann");
        let first = order(&replicas, &who, &client(1));
        assert!((2..50).all(|n| order(&replicas, &who, &client(n)) == first));
    }

    #[test]
    fn load_stays_within_the_bound() {
        let (replicas, nobody) = (replicas(4), Principal::anonymous());
        // every request from one address: without the bound all would go to one replica
        let mut held = Vec::new();
        for _ in 0..400 {
            let first = order(&replicas, &nobody, &client(7))[0];
            held.push(replicas[first].begin());
            let (max, total) =
                replicas.iter().fold((0, 0), |(m, t), r| (r.load().max(m), t + r.load()));
            assert!(max <= FREE || max * 4 * 4 <= (total + 1) * 5 + 16, "{max} of {total}");
        }
        assert!(replicas.iter().all(|r| r.load() > 0));
    }
}
