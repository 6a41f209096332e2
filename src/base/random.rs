//! Numbers that no two processes share and that are no secret: in, nothing; out, 64 bits, without a system call each.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Random for the process, and the same for as long as it lives.
pub fn process() -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| {
        let mut bytes = [0u8; 8];
        if getrandom::fill(&mut bytes).is_err() {
            log::error!("the system's random source fails");
        }
        u64::from_ne_bytes(bytes)
    });
    *SEED
}

/// Another number each time: a counter, spread over all bits.
pub fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // an odd factor: every counter gives another number
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The same without a pattern that could be seen (SplitMix64).
pub fn mixed() -> u64 {
    let n = process().wrapping_add(next());
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_number_comes_twice() {
        let all: HashSet<u64> = (0..10_000).flat_map(|_| [next(), mixed()]).collect();
        assert_eq!((all.len(), process()), (20_000, process()));
    }
}
