//! What a client sends (RFC 7617 §2): in, the text behind `Basic`; out, a user's name and a password.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Longest name and password together, in bytes with the colon.
const MAX_CREDENTIALS: usize = 4096;
/// Some clients leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A name and a password, not yet looked at. The password may have colons, and bytes of any charset:
/// what counts is what the file's hash was made of.
pub struct Credentials {
    /// Not empty, and without a colon.
    pub user: String,
    /// May be empty.
    pub password: Vec<u8>,
}

impl Credentials {
    /// Reads them; `None` where they are no credentials: not base64, longer than 4 KiB, without a
    /// colon or a name, with a control character (RFC 7617 §2; with NUL, bcrypt would take several
    /// passwords for one), or with a name that is not UTF-8.
    pub fn read(encoded: &[u8]) -> Option<Self> {
        if encoded.len() > MAX_CREDENTIALS.div_ceil(3) * 4 {
            return None;
        }
        let mut user = BASE64.decode(encoded).ok()?;
        if user.len() > MAX_CREDENTIALS || user.iter().any(u8::is_ascii_control) {
            return None;
        }
        let colon = memchr::memchr(b':', &user)?;
        let password = user.get(colon + 1..)?.to_vec();
        user.truncate(colon);
        let user = String::from_utf8(user).ok().filter(|user| !user.is_empty())?;
        Some(Self { user, password })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(plain: impl AsRef<[u8]>) -> Option<(String, Vec<u8>)> {
        let found = Credentials::read(BASE64.encode(plain).as_bytes())?;
        Some((found.user, found.password))
    }

    #[test]
    fn the_first_colon_ends_the_name() {
        let some = |user: &str, password: &[u8]| Some((user.to_owned(), password.to_vec()));
        assert_eq!(read("ann:b:c:"), some("ann", b"b:c:"));
        assert_eq!(read("ann:"), some("ann", b""));
        assert_eq!(read("jörg:pässword"), some("jörg", "pässword".as_bytes()));
        assert_eq!(read(b"ann:p\xe4ss"), some("ann", b"p\xe4ss"), "Latin-1, as old clients do");
    }

    #[test]
    fn what_is_no_credentials_is_refused() {
        for bad in ["", "ann", ":secret", ":", "ann:a\0b", "a\nb:c", "ann:\x7f"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(read(b"j\xf6rg:x"), None);
        assert!(Credentials::read(b"!!!!").is_none());
        assert!(Credentials::read(b"").is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            drop(Credentials::read(&bytes));
            if let Some((user, password)) = read(&bytes) {
                let whole = [user.as_bytes(), b":", &password].concat();
                proptest::prop_assert_eq!(whole, bytes);
            }
        }
    }

    #[test]
    fn padding_may_be_missing() {
        assert!(Credentials::read(b"YTpi").is_some());
        assert!(Credentials::read(b"YTpiYg").is_some() && Credentials::read(b"YTpiYg==").is_some());
        assert!(Credentials::read(b"YTpiYh==").is_none(), "one text for one value");
    }

    #[test]
    fn four_kibibytes_are_the_most() {
        assert!(read(format!("a:{}", "x".repeat(4094))).is_some());
        assert!(read(format!("a:{}", "x".repeat(4095))).is_none());
        assert!(read(format!("a:{}", "x".repeat(100_000))).is_none());
    }
}
