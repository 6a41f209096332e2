//! One caller, one replica: rendezvous hashing with a bound on load.
//!
//! Each replica's score for a caller depends on nothing but the two, so a replica that leaves moves
//! only its own callers. A replica whose load is above 1.25 times the mean passes its new requests
//! on to the caller's next one (Mirrokni et al., "Consistent Hashing with Bounded Loads").

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Replica;
use crate::base::caller::Client;
use crate::base::principal::Principal;

/// Below this many requests in flight, a replica is never too busy.
const FREE: usize = 4;

/// Indices of the replicas in the caller's order of preference, too busy ones last.
pub fn order(replicas: &[Arc<Replica>], principal: &Principal, client: &Client) -> Vec<usize> {
    let caller = caller(principal, client);
    let mut scored: Vec<(bool, std::cmp::Reverse<u64>, usize)> = replicas
        .iter()
        .map(|r| (is_busy(r, replicas), std::cmp::Reverse(score(&caller, r)), r.index))
        .collect();
    scored.sort_unstable();
    scored.into_iter().map(|(_, _, index)| index).collect()
}

fn caller(principal: &Principal, client: &Client) -> Vec<u8> {
    if principal.is_anonymous() {
        client.address.to_string().into_bytes()
    } else {
        principal.to_bytes()
    }
}

fn score(caller: &[u8], replica: &Replica) -> u64 {
    let mut hash = Sha256::new();
    hash.update(replica.server.authority.as_bytes());
    hash.update([0]);
    hash.update(caller);
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Whether one more request would lift the replica above 1.25 times the mean.
fn is_busy(replica: &Replica, replicas: &[Arc<Replica>]) -> bool {
    let load = replica.load();
    let total: usize = replicas.iter().map(|r| r.load()).sum();
    load >= FREE && (load + 1) * replicas.len() * 4 > (total + 1) * 5
}

#[cfg(test)]
mod tests {
    use super::super::policy::tests::replicas;
    use super::*;
    use std::net::IpAddr;

    fn client(n: u32) -> Client {
        Client { address: IpAddr::V4(n.into()), tls: false }
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
        let who = Principal { method: "basic", issuer: String::new(), subject: "ann".into() };
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
