//! Tables that the config fills: in, a name of a request's; out, what the config says of it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table of which only the config decides what is in it: a request can choose what is looked for, but
/// not how much has to be looked at, so that a hash without a secret does.
pub type Table<V> = HashMap<String, V, BuildHasherDefault<Fnv>>;

/// FNV-1a (draft-eastlake-fnv).
#[derive(Debug)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
