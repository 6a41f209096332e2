//! MD5-crypt as Apache (`$apr1$`) and FreeBSD (`$1$`) know it: in, a password, a salt and the magic;
//! out, 22 characters. A thousand rounds of MD5: it stands here for files that are there already.
//!
//! The algorithm is that of FreeBSD's `crypt-md5.c`, 1994; Apache differs from it by the magic alone.

use md5::{Digest, Md5};

/// The alphabet of `crypt(3)`.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ROUNDS: usize = 1000;

/// The digest as it stands in the file. `magic` is `$apr1$` or `$1$`.
pub(super) fn md5_crypt(password: &[u8], salt: &[u8], magic: &[u8]) -> String {
    let mut sum = begin(password, salt, magic);
    for round in 0..ROUNDS {
        let (odd, mut next) = (round % 2 == 1, Md5::new());
        next.update(if odd { password } else { sum.as_slice() });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { sum.as_slice() } else { password });
        sum = next.finalize().into();
    }
    encode(&sum)
}

fn begin(password: &[u8], salt: &[u8], magic: &[u8]) -> [u8; 16] {
    let mut first = Md5::new();
    for part in [password, magic, salt] {
        first.update(part);
    }
    let mut second = Md5::new();
    for part in [password, salt, password] {
        second.update(part);
    }
    let second = second.finalize();
    for part in password.chunks(16) {
        first.update(second.get(..part.len()).unwrap_or_default());
    }
    let mut bits = password.len();
    while bits > 0 {
        let zero_or_first =
            if bits % 2 == 1 { &[0] } else { password.get(..1).unwrap_or_default() };
        first.update(zero_or_first);
        bits /= 2;
    }
    first.finalize().into()
}

/// Three bytes are four characters, the lowest bits first, in an order of its own.
fn encode(sum: &[u8; 16]) -> String {
    let mut text = String::with_capacity(22);
    let mut push = |high: u8, middle: u8, low: u8, characters: usize| {
        let mut bits = u32::from(high) << 16 | u32::from(middle) << 8 | u32::from(low);
        for _ in 0..characters {
            let at = usize::try_from(bits & 63).unwrap_or_default();
            text.push(char::from(ALPHABET.get(at).copied().unwrap_or_default()));
            bits >>= 6;
        }
    };
    push(sum[0], sum[6], sum[12], 4);
    push(sum[1], sum[7], sum[13], 4);
    push(sum[2], sum[8], sum[14], 4);
    push(sum[3], sum[9], sum[15], 4);
    push(sum[4], sum[10], sum[5], 4);
    push(0, 0, sum[11], 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `openssl passwd -apr1` and `-1`.
    #[test]
    fn as_openssl_writes_it() {
        for (password, salt, magic, digest) in [
            ("password", "saltsalt", "$apr1$", "yAAkm4libquA.ZWLHbSBq/"),
            ("p", "x", "$apr1$", "ya00XvwA0viq10Nb5bv6L."),
            ("Hello world!", "abcdefgh", "$1$", "fzmjzFdo5nMtBG8gtud5e0"),
            ("", "lZBBgAcx", "$apr1$", "hw4kK.hZHZH.WHBWce2//."),
            (
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                "12",
                "$1$",
                ".Ky3ZFdxk.bRfQi5eFQYl/",
            ),
            ("pässwörd", "Zz./", "$apr1$", "OURUTsxIiswAvJ6UwKCuM."),
        ] {
            assert_eq!(md5_crypt(password.as_bytes(), salt.as_bytes(), magic.as_bytes()), digest);
        }
    }
}
