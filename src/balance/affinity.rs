//! One caller, one replica. In: a caller or a header's value, and the replicas; out, the caller's replica, by a
//! consistent-hash ring with a bound on load.
//!
//! Each replica has points on the ring, as many as its weight says, that depend on nothing but itself, so one that
//! leaves moves only its own callers. A replica whose load is above 1.25 times its share passes its
//! new requests on to the caller's next one (Mirrokni et al., "Consistent Hashing with Bounded
//! Loads"). What a request costs does not depend on the number of replicas.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::policy::is_among;
use super::replica::Replica;
use crate::base::caller::Client;
use crate::base::cidr;
use crate::base::principal::Principal;

/// Below this many requests in flight, a replica is never too busy.
const FREE: usize = 4;
/// Points of a replica of the largest weight: callers spread within a few per cent.
const POINTS: u64 = 160;
/// Points that are looked at for a replica that is not too busy.
const LOOKED_AT: usize = 512;

/// The points of all replicas, in order.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u64, usize)>,
    /// Of all of them.
    weight: u64,
}

impl Ring {
    pub(super) fn new(replicas: &[Arc<Replica>]) -> Self {
        let most = replicas.iter().map(|replica| weight(replica)).max().unwrap_or(1);
        let of = |(index, replica): (usize, &Arc<Replica>)| {
            let all = replica.points.len() as u64;
            let own = usize::try_from((all * weight(replica)).div_ceil(most)).unwrap_or(usize::MAX);
            let points: Vec<u64> = replica.points.iter().take(own).copied().collect();
            points.into_iter().map(move |point| (point, index))
        };
        let mut points: Vec<_> = replicas.iter().enumerate().flat_map(of).collect();
        points.sort_unstable();
        Self { points, weight: replicas.iter().map(|replica| weight(replica)).sum() }
    }

    /// The first replica behind `place` that was not `tried` and is not too busy; else the first
    /// that was not tried.
    pub(super) fn pick<'r>(
        &self,
        place: u64,
        replicas: &'r [Arc<Replica>],
        tried: &[Arc<Replica>],
    ) -> Option<&'r Arc<Replica>> {
        let at = self.points.partition_point(|(point, _)| *point < place);
        let (before, behind) = self.points.split_at_checked(at)?;
        let in_order = || {
            let all = behind.iter().chain(before);
            all.filter_map(|(_, index)| replicas.get(*index)).filter(|r| !is_among(r, tried))
        };
        let free = |replica: &&Arc<Replica>| {
            replica.health.takes_place(place) && !is_busy(replica, self.weight)
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
        hash(b"address", &cidr::subscriber(client.address).to_be_bytes())
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

/// Whether one more request would lift the replica above 1.25 times its share.
fn is_busy(replica: &Replica, together: u64) -> bool {
    let load = replica.load();
    let (one_more, total) = (load as u64 + 1, replica.load_together() as u64 + 1);
    load >= FREE && one_more * together * 4 > total * weight(replica) * 5
}

fn weight(replica: &Replica) -> u64 {
    u64::from(replica.weight().max(1))
}

#[cfg(test)]
mod tests {
    use super::super::policy::tests::{places, replicas};
    use super::super::settings::ServerSettings;
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

    /// `n` replicas of which the first has this weight.
    fn weighted(n: usize, weight: u32) -> Vec<Arc<Replica>> {
        let mut replicas = replicas(n);
        let server = ServerSettings { weight, ..replicas[0].server.clone() };
        replicas[0] = Arc::new(Replica::new(server));
        replicas
    }

    #[test]
    fn callers_spread_by_weight() {
        let (replicas, nobody) = (weighted(3, 2), Principal::anonymous());
        let mut firsts = [0; 3];
        (0..2000).for_each(|n| firsts[order(&replicas, &nobody, &client(n))[0]] += 1);
        assert!((850..1150).contains(&firsts[0]), "{firsts:?}");
        assert!(firsts[1] > 400 && firsts[2] > 400, "{firsts:?}");
    }

    #[test]
    fn the_bound_on_load_is_by_weight() {
        let together = Arc::default();
        let of = |weight| {
            let server = ServerSettings { weight, ..replicas(1)[0].server.clone() };
            Arc::new(Replica::new(server).among(&together))
        };
        let (large, small) = (of(3), of(1));
        let held =
            |replica: &Arc<Replica>, n: usize| (0..n).map(|_| replica.begin()).collect::<Vec<_>>();
        let _held = (held(&large, 30), held(&small, 10));
        assert!(!is_busy(&large, 4) && !is_busy(&small, 4));
        let _more = held(&small, 3);
        assert!(!is_busy(&large, 4) && is_busy(&small, 4));
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_caller() {
        let nobody = Principal::anonymous();
        let at = |text: &str| Client { address: text.parse().unwrap(), ..client(1) };
        let place = |text: &str| place(&nobody, &at(text));
        assert_eq!(place("2001:db8::1"), place("2001:db8::ffff:1:2:3"));
        assert_ne!(place("2001:db8::1"), place("2001:db8:0:1::1"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
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
