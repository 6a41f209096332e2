//! One hash of an htpasswd file: in, what stands behind the user's name; out, whether a password fits.
//!
//! Taken is what Apache and nginx take, but for what is no protection (plain text, DES) and what
//! their `crypt(3)` alone knows. bcrypt looks at the first 72 bytes of a password and ignores the
//! rest, here as in `htpasswd`, Apache and nginx: another rule would lock those out whose password is
//! longer, and the file says nothing of how long it was.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::md5_crypt::md5_crypt;

/// A hash that can be verified against.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash {
    kind: Kind,
    text: String,
}

/// What a hash is and how much work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `{SHA}`: one SHA-1.
    Sha1,
    /// `{SSHA}`: one SHA-1 with a salt.
    SaltedSha1,
    /// `$apr1$` and `$1$`: a thousand MD5.
    Md5,
    /// `$5$` with its rounds.
    Sha256(u32),
    /// `$6$` with its rounds.
    Sha512(u32),
    /// `$2a$`, `$2b$` and `$2y$` with the cost.
    Bcrypt(u32),
}

impl Kind {
    /// About how many microseconds it takes.
    pub(super) fn cost(self) -> u64 {
        match self {
            Self::Sha1 | Self::SaltedSha1 => 1,
            Self::Md5 => 500,
            Self::Sha256(rounds) | Self::Sha512(rounds) => u64::from(rounds) / 2,
            Self::Bcrypt(cost) => 50 << cost,
        }
    }
}

/// Above it, one password would take a thread for more than some seconds.
const MAX_COST: u32 = 16;
/// The same for `rounds`; below the lower bound, `crypt(3)` itself would take that.
const ROUNDS: std::ops::RangeInclusive<u32> = 1000..=5_000_000;
/// Where no `rounds` are named (the specification of SHA-crypt, step 13).
const DEFAULT_ROUNDS: u32 = 5000;
const SHA1: usize = 20;

impl Hash {
    /// Reads the hash of a line.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let kind = if let Some(rest) = text.strip_prefix("$2") {
            bcrypt_kind(text, rest)?
        } else if let Some(rest) = text.strip_prefix("$5$") {
            Kind::Sha256(sha_rounds(rest, 43)?)
        } else if let Some(rest) = text.strip_prefix("$6$") {
            Kind::Sha512(sha_rounds(rest, 86)?)
        } else if let Some(rest) = ["$apr1$", "$1$"].iter().find_map(|m| text.strip_prefix(m)) {
            let (salt, digest) = rest.split_once('$').unwrap_or((rest, ""));
            if salt.len() > 8 || digest.len() != 22 {
                return Err("the MD5 hash is not whole".to_owned());
            }
            Kind::Md5
        } else if let Some(rest) = text.strip_prefix("{SHA}") {
            (decoded(rest)?.len() == SHA1)
                .then_some(Kind::Sha1)
                .ok_or("the SHA hash is not whole")?
        } else if let Some(rest) = text.strip_prefix("{SSHA}") {
            let whole = decoded(rest)?.len() > SHA1;
            whole.then_some(Kind::SaltedSha1).ok_or("the SSHA hash is not whole")?
        } else {
            return Err(unknown(text));
        };
        Ok(Self { kind, text: text.to_owned() })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the password is the one that was hashed. Slow on purpose for most kinds.
    pub(super) fn fits(&self, password: &[u8]) -> bool {
        match self.kind {
            Kind::Bcrypt(_) => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Sha256(_) | Kind::Sha512(_) => {
                ShaCrypt::default().verify_password(password, self.text.as_str()).is_ok()
            }
            Kind::Md5 => {
                let mut parts = self.text.splitn(4, '$').skip(1);
                let mut next = || parts.next().unwrap_or_default();
                let (magic, salt, digest) = (format!("${}$", next()), next(), next());
                same(md5_crypt(password, salt.as_bytes(), magic.as_bytes()).as_bytes(), digest)
            }
            Kind::Sha1 | Kind::SaltedSha1 => {
                let start = if self.kind == Kind::Sha1 { "{SHA}" } else { "{SSHA}" };
                let bytes = decoded(self.text.strip_prefix(start).unwrap_or_default());
                let bytes = bytes.unwrap_or_default();
                let Some((digest, salt)) = bytes.split_at_checked(SHA1) else { return false };
                let found = Sha1::new().chain_update(password).chain_update(salt).finalize();
                same(&found, digest)
            }
        }
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

fn same(found: &[u8], expected: impl AsRef<[u8]>) -> bool {
    found.ct_eq(expected.as_ref()).into()
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|_| "the hash is not base64".to_owned())
}

fn bcrypt_kind(text: &str, rest: &str) -> Result<Kind, String> {
    if !["a$", "b$", "y$"].iter().any(|version| rest.starts_with(version)) {
        return Err("this bcrypt is not known; known are $2a$, $2b$ and $2y$".to_owned());
    }
    let parts: bcrypt::HashParts =
        text.parse().map_err(|_| "the bcrypt hash is not whole".to_owned())?;
    match parts.get_cost() {
        cost @ 4..=MAX_COST => Ok(Kind::Bcrypt(cost)),
        cost => Err(format!("the bcrypt cost is {cost}: from 4 to {MAX_COST} is possible")),
    }
}

fn sha_rounds(rest: &str, digest: usize) -> Result<u32, String> {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        None => (Some(DEFAULT_ROUNDS), rest),
        Some(more) => {
            let (number, rest) = more.split_once('$').unwrap_or((more, ""));
            (number.parse().ok().filter(|n| ROUNDS.contains(n)), rest)
        }
    };
    let rounds = rounds.ok_or_else(|| {
        format!("`rounds` must be a number from {} to {}", ROUNDS.start(), ROUNDS.end())
    })?;
    let (salt, found) = rest.split_once('$').unwrap_or((rest, ""));
    let character = |b: u8| b.is_ascii_alphanumeric() || b"./".contains(&b);
    let whole = found.len() == digest && found.bytes().chain(salt.bytes()).all(character);
    if whole && (1..=16).contains(&salt.len()) {
        return Ok(rounds);
    }
    Err("the SHA-crypt hash is not whole".to_owned())
}

fn unknown(text: &str) -> String {
    let new = "make the line anew with `htpasswd -B`";
    let crypt = |b: u8| b.is_ascii_alphanumeric() || b"./".contains(&b);
    if text.is_empty() {
        return format!("there is no hash: {new}");
    }
    if text.len() == 13 && text.bytes().all(crypt) {
        return format!("this is DES crypt, which protects nothing, or plain text: {new}");
    }
    if text.starts_with('$') {
        return format!("this kind of hash is not known: {new}");
    }
    format!("the password stands there in plain text, or its hash is not known: {new}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &str = "pass:wörd";

    /// All by Apache's `htpasswd` and `openssl passwd`, but for `{SSHA}`.
    const GOOD: &[(&str, Kind)] = &[
        ("$2y$05$cH7okCpaz5P18AYnxA/GWed6KNq./mE3KsT.7OWsCBUaiYYfu3/CC", Kind::Bcrypt(5)),
        ("$2b$05$cH7okCpaz5P18AYnxA/GWed6KNq./mE3KsT.7OWsCBUaiYYfu3/CC", Kind::Bcrypt(5)),
        ("$2a$05$cH7okCpaz5P18AYnxA/GWed6KNq./mE3KsT.7OWsCBUaiYYfu3/CC", Kind::Bcrypt(5)),
        ("$apr1$GQqMZagN$JQCAX.NDfMQXt88Qdzbtr1", Kind::Md5),
        ("$apr1$osWCHGU2$joZo70cUz87ZLm7dj7BzQ1", Kind::Md5),
        ("$1$gleCbDMf$CSHcgHk2LyTVdsNCKoYxZ0", Kind::Md5),
        ("{SHA}NMfTLf4kql4x98PMVl16orqGin0=", Kind::Sha1),
        ("{SSHA}pGfIGXhlkwNQ6wGoxVCUn196/FVzYWx0", Kind::SaltedSha1),
        ("$5$XETyei1QbkA9EqqV$UpE3RS.lyVMaEHSYK1HdelcfnRcxU5tMNs8Cu3kwxd7", Kind::Sha256(5000)),
        (
            "$6$cqx97nFTqhBkBKah$2wycGCpGghuHL1nLwELtaNhUTTE40cMlUZj9PAVOC29r4yaDDe83wNf6TMFnsA4htng6xI5CRi26h3cRxxYI..",
            Kind::Sha512(5000),
        ),
        (
            "$5$rounds=1000$WW24srTE7R01EO2n$aukPJPcgV/fJe3mzh1gnzcmO5GImc.DxKrA0QKpgjKB",
            Kind::Sha256(1000),
        ),
        (
            "$6$rounds=10000$9s5rPdJfGVKgkqqo$LQSM9VhJK0gArLmrxM2fBHt2nW3VMNBZQ/LO77KZiF7g8oFmkuG/XTsma2pU3Tab9brRKbnMDqY93ilo8HFFy/",
            Kind::Sha512(10000),
        ),
        (
            "$6$a$x/N5fcprApf9AesrU5.ps.WgfqOewUblFhtlbxUFhvV/MXxcfWkDXmEJUot3NGHfBISDD0R13diw5Dl2SX6Eq/",
            Kind::Sha512(5000),
        ),
    ];

    #[test]
    fn every_kind_knows_right_from_wrong() {
        for (text, kind) in GOOD {
            let hash = Hash::parse(text).unwrap();
            assert_eq!(hash.kind(), *kind, "{text}");
            assert!(hash.fits(WORD.as_bytes()), "{text}");
            for wrong in ["", "pass", "pass:wörd ", "pass:word", "Pass:wörd"] {
                assert!(!hash.fits(wrong.as_bytes()), "{text} {wrong}");
            }
            assert!(!format!("{hash:?}").contains('$'), "a hash is not shown");
        }
    }

    #[test]
    fn a_changed_character_is_no_hash_or_another() {
        for (text, _) in GOOD {
            // the last character but one: of the last, not every bit counts
            let (start, end) = text.split_at(text.len() - 4);
            let other = if end.starts_with('A') { "B" } else { "A" };
            let changed = format!("{start}{other}{}", &end[1..]);
            assert!(Hash::parse(&changed).is_ok_and(|h| !h.fits(WORD.as_bytes())), "{changed}");
            for cut in 1..text.len() {
                let cut = Hash::parse(&text[..cut]);
                assert!(!cut.is_ok_and(|h| h.fits(WORD.as_bytes())));
            }
        }
    }

    #[test]
    fn bcrypt_looks_at_72_bytes() {
        let long = "x".repeat(72);
        let hash =
            Hash::parse("$2y$04$Le4IPCYzC7Py4X4EOOahK.taJ.s4FL1mlWLRw/yLc.988IznrazvG").unwrap();
        assert!(hash.fits(long.as_bytes()) && hash.fits(format!("{long}y").as_bytes()));
        assert!(!hash.fits(&long.as_bytes()[1..]));
    }

    #[test]
    fn what_protects_nothing_is_refused() {
        for (text, part) in [
            ("", "no hash"),
            ("u40Fvup4dyM8.", "DES"),
            ("hunter2", "plain text"),
            ("{PLAIN}hunter2", "plain text"),
            (
                "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
                "not known",
            ),
            ("$2x$05$LhayLxezLhK1LhWvKxCyLOj0j1u.Kj0jZ0pEmm134uzrQlFvQJLF6", "not known"),
            ("$2y$05$short", "not whole"),
            ("$2y$17$LhayLxezLhK1LhWvKxCyLOj0j1u.Kj0jZ0pEmm134uzrQlFvQJLF6", "cost is 17"),
            ("$2y$05$LhayLxezLhK1LhWvKxCyLOj0j1u.Kj0jZ0pEmm134uzrQlFvQJLFé", "not whole"),
            ("$apr1$abc", "not whole"),
            ("$apr1$ninechars$OURUTsxIiswAvJ6UwKCuM.", "not whole"),
            ("{SHA}NMfTLf4kql4x98PMVl16orqGin0", "base64"),
            ("{SHA}NMfTLf4kql4x98PMVl16orqG", "not whole"),
            ("{SSHA}NMfTLf4kql4x98PMVl16orqGin0=", "not whole"),
            ("$6$rounds=999$abc$x", "rounds"),
            ("$6$rounds=5000001$abc$x", "rounds"),
            ("$5$abc$x", "not whole"),
        ] {
            let problem = Hash::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
            assert!(text.is_empty() || !problem.contains(text), "{problem}");
        }
    }
}
