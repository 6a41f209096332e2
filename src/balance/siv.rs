//! AES-256-SIV (RFC 5297) with prepared keys. In: associated data and a text; out: the sealed text, and
//! back.
//!
//! Made of the parts that the `aes-siv` crate is made of (`aes`, `cmac`, `ctr`, `dbl`). Its own type
//! keeps a running state and so has to be built, key schedules included, for each use; here the keys are
//! expanded once, and what S2V makes of the first data, which are always the same, is kept.

use aes::Aes256Enc;
use aes::cipher::{Array, InnerIvInit, KeyInit, StreamCipherCore, typenum::U16};
use cmac::digest::{CtOutput, InnerInit};
use cmac::{Cmac, Mac};
use dbl::Dbl;

type Block = Array<u8, U16>;
type Prf<'k> = Cmac<&'k Aes256Enc>;
type Ctr<'k> = ctr::CtrCore<&'k Aes256Enc, ctr::flavors::Ctr128BE>;

/// Length of the tag, which stands before the encrypted text.
pub(super) const TAG: usize = 16;

/// The two keys, expanded.
pub(super) struct Siv {
    mac: Aes256Enc,
    ctr: Aes256Enc,
}

/// What S2V (RFC 5297 §2.4) has made of some associated data; more can follow.
#[derive(Clone, Copy)]
pub(super) struct Bound(Block);

impl Siv {
    /// Expands a key: its first half is for S2V, its second for CTR (RFC 5297 §2.6).
    pub(super) fn new(key: &[u8; 64]) -> Self {
        let (mac, ctr) = key.split_at(32);
        let half = |half: &[u8]| {
            let mut key = [0; 32];
            key.iter_mut().zip(half).for_each(|(to, from)| *to = *from);
            Aes256Enc::new(&key.into())
        };
        Self { mac: half(mac), ctr: half(ctr) }
    }

    fn prf(&self) -> Prf<'_> {
        Cmac::inner_init(&self.mac)
    }

    /// S2V before any data.
    pub(super) fn begin(&self) -> Bound {
        Bound(self.prf().chain_update(Block::default()).finalize().into_bytes())
    }

    /// S2V after one more string of associated data.
    pub(super) fn bind(&self, before: Bound, data: &[u8]) -> Bound {
        let code = self.prf().chain_update(data).finalize().into_bytes();
        Bound(xor(before.0.dbl(), &code))
    }

    /// The end of S2V: the tag of a text.
    fn tag(&self, bound: Bound, text: &[u8]) -> CtOutput<Prf<'_>> {
        match text.split_last_chunk::<TAG>() {
            Some((start, end)) => {
                self.prf().chain_update(start).chain_update(xor(bound.0, end)).finalize()
            }
            None => {
                // padded with one bit and zeros
                let padded = text.iter().copied().chain([0x80]);
                let mut last = bound.0.dbl();
                last.iter_mut().zip(padded).for_each(|(to, with)| *to ^= with);
                self.prf().chain_update(last).finalize()
            }
        }
    }

    /// Encrypts or decrypts in place.
    fn apply(&self, tag: &Block, text: &mut [u8]) {
        let mut iv = *tag;
        // RFC 5297 §2.5: the top bits of the last two words do not count
        for (to, mask) in iv.iter_mut().skip(8).zip([0x7f, 0xff, 0xff, 0xff, 0x7f]) {
            *to &= mask;
        }
        Ctr::inner_iv_init(&self.ctr, &iv).apply_keystream_partial(text.into());
    }

    /// The tag and the encrypted text.
    pub(super) fn seal(&self, bound: Bound, text: &[u8]) -> Vec<u8> {
        let tag = self.tag(bound, text).into_bytes();
        let mut out = Vec::with_capacity(TAG + text.len());
        out.extend_from_slice(&tag);
        out.extend_from_slice(text);
        if let Some(text) = out.get_mut(TAG..) {
            self.apply(&tag, text);
        }
        out
    }

    /// Decrypts in place. The text, when it was sealed with this key and this data; else `None`, and
    /// nothing that was decrypted is left.
    pub(super) fn open<'t>(&self, bound: Bound, sealed: &'t mut [u8]) -> Option<&'t [u8]> {
        let (tag, text) = sealed.split_first_chunk_mut::<TAG>()?;
        let tag = Block::from(*tag);
        self.apply(&tag, text);
        // compared in constant time
        if self.tag(bound, text) == CtOutput::new(tag) {
            return Some(text);
        }
        self.apply(&tag, text);
        None
    }
}

fn xor(mut block: Block, with: &[u8]) -> Block {
    block.iter_mut().zip(with).for_each(|(to, with)| *to ^= with);
    block
}

#[cfg(test)]
mod tests {
    use aes_siv::siv::Aes256Siv;
    use proptest::prelude::*;

    use super::*;

    fn sealed(key: &[u8; 64], data: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let siv = Siv::new(key);
        let bound = data.iter().fold(siv.begin(), |bound, data| siv.bind(bound, data));
        let sealed = siv.seal(bound, text);
        let mut again = sealed.clone();
        assert_eq!(siv.open(bound, &mut again), Some(text));
        sealed
    }

    proptest! {
        #[test]
        fn as_the_crate_does_it(
            key in proptest::collection::vec(any::<u8>(), 64),
            data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70), 0..5),
            text in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
        ) {
            let key: [u8; 64] = key.try_into().unwrap();
            let mut crates = Aes256Siv::new(&key.into());
            let mut got = sealed(&key, &data, &text);
            prop_assert_eq!(&got, &crates.encrypt(&data, &text).unwrap());
            let at = at.index(got.len());
            got[at] ^= 1 << bit;
            let siv = Siv::new(&key);
            let bound = data.iter().fold(siv.begin(), |bound, data| siv.bind(bound, data));
            let changed = got.clone();
            prop_assert_eq!(siv.open(bound, &mut got), None);
            // nothing decrypted is left
            prop_assert_eq!(got, changed);
        }
    }

    #[test]
    fn short_texts_are_refused() {
        let siv = Siv::new(&[7; 64]);
        for len in 0..TAG {
            assert_eq!(siv.open(siv.begin(), &mut vec![0; len]), None);
        }
    }
}
