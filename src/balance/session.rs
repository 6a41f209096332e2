//! Sealed session ids. In: a backend's own id, where it lives and for whom; out: the id that a
//! client sees, and back. Nothing is stored: any edge with the same keys opens what another sealed.
//!
//! The text is `e1.` and base64url without padding (RFC 4648 §5) of AES-256-SIV (RFC 5297) over
//! `issued (8 bytes, big endian) | len, upstream | len, authority | inner`. The encryption is
//! deterministic, so that the id stays the same for the life of a session, and authenticated over
//! three associated data: what kind of text it is, the principal it was made for, and the route.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256, Sha512};

use super::siv::{Bound, Siv, TAG};
use crate::base::principal::Principal;

/// What every text of this version starts with.
const PREFIX: &str = "e1.";
/// Longest text that is looked at, in bytes. The longest that [`SessionKeys::seal`] writes has 2083.
const MAX_TEXT: usize = 4096;
/// Longest id of a backend, in bytes.
const MAX_INNER: usize = 1024;
/// How far the clocks of two edges may differ, in seconds.
const MAX_AHEAD: u64 = 300;
/// Shortest key text, in bytes.
const MIN_KEY: usize = 32;
/// Most keys at once: each foreign text costs one decryption per key.
const MAX_KEYS: usize = 16;

/// The keys of `sessions.keys`: the first seals, all open. Cheap to clone.
#[derive(Clone)]
pub struct SessionKeys(Arc<[Key]>);

struct Key {
    siv: Siv,
    session: Begun,
    endpoint: Begun,
    fingerprint: [u8; 4],
}

/// What a kind of text has bound before anything of the request: the kind, and where nobody is known
/// the principal as well.
struct Begun {
    kind: Bound,
    anonymous: Bound,
}

/// What a sealed text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// What the text is used as.
    pub kind: Kind,
    /// Name of the upstream, at most 255 bytes.
    pub upstream: String,
    /// The replica, as `ServerSettings::authority`, at most 255 bytes.
    pub authority: String,
    /// The backend's own id, at most 1024 bytes.
    pub inner: String,
    /// When it was sealed, in seconds since 1970 (UTC).
    pub issued: u64,
}

/// Whom a text is sealed for, and where it counts: bound as associated data, not written into it.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The caller.
    pub principal: &'a Principal,
    /// The route's label: routes of one upstream may differ in what they allow.
    pub route: &'a str,
}

/// What a sealed text is used as. One kind never opens as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The value of `Mcp-Session-Id` (MCP 2025-03-26 to 2025-11-25).
    Session,
    /// The routing token in the query of an `endpoint` event (MCP 2024-11-05).
    Endpoint,
}

/// Why a text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Not made by these keys, for another principal or kind, or changed on the way.
    Forged,
    /// Ours, but older than allowed, or from further in the future than clocks differ.
    Expired,
}

impl SessionKeys {
    /// Makes keys from the texts of the config, 1 to 16, each at least 32 bytes long.
    ///
    /// # Errors
    /// A sentence that names the key by its place (counted from 1), never by its text.
    pub fn from_texts(texts: &[String]) -> Result<Self, String> {
        if texts.is_empty() || texts.len() > MAX_KEYS {
            return Err(format!("1 to {MAX_KEYS} session keys are needed, got {}", texts.len()));
        }
        let mut seen = HashSet::new();
        for (i, text) in texts.iter().enumerate() {
            let (place, len) = (i + 1, text.len());
            if len < MIN_KEY {
                return Err(format!(
                    "session key {place} has {len} bytes, at least {MIN_KEY} are needed"
                ));
            }
            if !seen.insert(text) {
                return Err(format!("session key {place} is there twice"));
            }
        }
        Ok(Self(texts.iter().map(|text| Key::derive(text)).collect()))
    }

    /// What logs may show of each key, in order: 8 hex digits that tell keys apart.
    pub fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(Key::fingerprint).collect()
    }

    /// Seals with the first key. The same ticket gives the same text. `None` when a field is too long.
    pub fn seal(&self, ticket: &Ticket, owner: Owner<'_>) -> Option<String> {
        let payload = encode(ticket)?;
        let key = self.0.first()?;
        let sealed = key.siv.seal(key.bound(ticket.kind, owner), &payload);
        let mut text = String::with_capacity(PREFIX.len() + sealed.len().div_ceil(3) * 4);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(sealed, &mut text);
        Some(text)
    }

    /// Opens a text that any of the keys sealed as `kind` for `owner`. `now` is in seconds
    /// since 1970; `max_age` counts from the sealing, and its end is still in time.
    ///
    /// # Errors
    /// See [`OpenError`]. Every changed byte, however encoded, is `Forged`.
    pub fn open(
        &self,
        kind: Kind,
        text: &str,
        owner: Owner<'_>,
        now: u64,
        max_age: Option<Duration>,
    ) -> Result<Ticket, OpenError> {
        if text.len() > MAX_TEXT {
            return Err(OpenError::Forged);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(OpenError::Forged)?;
        // This engine refuses padding and stray bits at the end: one text per sealed value.
        let mut sealed = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| OpenError::Forged)?;
        // a key that does not fit leaves the bytes as they were
        let fits = |key: &&Key| key.siv.open(key.bound(kind, owner), &mut sealed).is_some();
        self.0.iter().find(fits).ok_or(OpenError::Forged)?;
        let payload = sealed.get(TAG..).unwrap_or_default();
        let ticket = decode(kind, payload).ok_or(OpenError::Forged)?;
        check_age(ticket.issued, now, max_age)?;
        Ok(ticket)
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionKeys").field(&self.fingerprints()).finish()
    }
}

impl Key {
    fn derive(text: &str) -> Self {
        let secret = Sha512::new().chain_update("mcp-edge session key 1\0").chain_update(text);
        let print = Sha256::new().chain_update("mcp-edge key fingerprint 1\0").chain_update(text);
        let [a, b, c, d, ..]: [u8; 32] = print.finalize().into();
        let siv = Siv::new(&secret.finalize().into());
        let begun = |kind: Kind| {
            let kind = siv.bind(siv.begin(), kind.domain());
            let anonymous = siv.bind(kind, &Principal::anonymous().to_bytes());
            Begun { kind, anonymous }
        };
        let (session, endpoint) = (begun(Kind::Session), begun(Kind::Endpoint));
        Self { siv, session, endpoint, fingerprint: [a, b, c, d] }
    }

    fn fingerprint(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.fingerprint))
    }

    /// The associated data: kind, principal, route.
    fn bound(&self, kind: Kind, owner: Owner<'_>) -> Bound {
        let begun = match kind {
            Kind::Session => &self.session,
            Kind::Endpoint => &self.endpoint,
        };
        let who = owner.principal;
        let nobody = who.is_anonymous() && who.issuer.is_empty() && who.subject.is_empty();
        let who = if nobody { begun.anonymous } else { self.siv.bind(begun.kind, &who.to_bytes()) };
        self.siv.bind(who, owner.route.as_bytes())
    }
}

impl Kind {
    fn domain(self) -> &'static [u8] {
        match self {
            Self::Session => b"mcp-edge e1 session",
            Self::Endpoint => b"mcp-edge e1 endpoint",
        }
    }
}

fn encode(ticket: &Ticket) -> Option<Vec<u8>> {
    let Ticket { upstream, authority, inner, issued, .. } = ticket;
    if inner.len() > MAX_INNER {
        return None;
    }
    let mut out = Vec::with_capacity(10 + upstream.len() + authority.len() + inner.len());
    out.extend_from_slice(&issued.to_be_bytes());
    for field in [upstream, authority] {
        out.push(u8::try_from(field.len()).ok()?);
        out.extend_from_slice(field.as_bytes());
    }
    out.extend_from_slice(inner.as_bytes());
    Some(out)
}

fn decode(kind: Kind, payload: &[u8]) -> Option<Ticket> {
    let (issued, rest) = payload.split_first_chunk::<8>()?;
    let (upstream, rest) = take_field(rest)?;
    let (authority, rest) = take_field(rest)?;
    if rest.len() > MAX_INNER {
        return None;
    }
    let inner = std::str::from_utf8(rest).ok()?.to_owned();
    Some(Ticket { kind, upstream, authority, inner, issued: u64::from_be_bytes(*issued) })
}

fn take_field(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (field, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((std::str::from_utf8(field).ok()?.to_owned(), rest))
}

fn check_age(issued: u64, now: u64, max_age: Option<Duration>) -> Result<(), OpenError> {
    let too_old = max_age.is_some_and(|age| now.saturating_sub(issued) > age.as_secs());
    if too_old || issued.saturating_sub(now) > MAX_AHEAD {
        return Err(OpenError::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn keys(texts: &[&str]) -> SessionKeys {
        let texts: Vec<String> = texts.iter().map(|t| t.repeat(32)).collect();
        SessionKeys::from_texts(&texts).unwrap()
    }

    fn ticket() -> Ticket {
        Ticket {
            kind: Kind::Session,
            upstream: "aws-pricing".into(),
            authority: "10.0.1.10:8000".into(),
            inner: "6d1096e9-91a7-4f0c-b2ad-8d1a5a0b3c1f".into(),
            issued: NOW,
        }
    }

    fn alice() -> Principal {
        Principal::new("basic", "file", "alice")
    }

    fn owner(principal: &Principal) -> Owner<'_> {
        Owner { principal, route: "*/mcp" }
    }

    fn open(keys: &SessionKeys, text: &str) -> Result<Ticket, OpenError> {
        keys.open(Kind::Session, text, owner(&alice()), NOW, None)
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(
            upstream in ".{0,60}", authority in ".{0,60}", inner in ".{0,250}",
            issued in 0..=NOW, endpoint in any::<bool>(), subject in ".{0,20}",
        ) {
            let kind = if endpoint { Kind::Endpoint } else { Kind::Session };
            let who = Principal::new("basic", "x", subject);
            let ticket = Ticket { kind, upstream, authority, inner, issued };
            let keys = keys(&["a"]);
            let text = keys.seal(&ticket, owner(&who)).unwrap();
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(keys.open(kind, &text, owner(&who), NOW, None), Ok(ticket));
        }

        #[test]
        fn rubbish_is_refused(text in "(e1\\.)?[A-Za-z0-9_=.-]{0,200}") {
            prop_assert_eq!(open(&keys(&["a", "b"]), &text), Err(OpenError::Forged));
        }

        #[test]
        fn decoding_takes_any_bytes_and_is_exact(bytes in proptest::collection::vec(0u8..40, 0..80)) {
            if let Some(ticket) = decode(Kind::Session, &bytes) {
                prop_assert_eq!(encode(&ticket), Some(bytes));
            }
        }
    }

    #[test]
    fn the_same_ticket_gives_the_same_text() {
        let text = keys(&["a"]).seal(&ticket(), owner(&alice())).unwrap();
        assert_eq!(keys(&["a"]).seal(&ticket(), owner(&alice())).unwrap(), text);
        // Written down once: a change of the format must take a new version.
        assert_eq!(text, KNOWN);
    }

    const KNOWN: &str = "e1.2KluQRpj0y3gu6Ml6MAz68F7dzgZzhOdvatlDyEcFXjEuH-9wfhVDe1YRONe3xCQnhCm_y5mi5en8lC8NFfihx3tOVTWW1OI06B6vzqQXXVMJAMCZDpI";

    #[test]
    fn every_changed_bit_is_refused() {
        let keys = keys(&["a"]);
        let text = keys.seal(&ticket(), owner(&alice())).unwrap();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8_lossy(&bytes);
                assert_eq!(open(&keys, &changed), Err(OpenError::Forged), "byte {at} bit {bit}");
            }
        }
        for changed in [
            format!("{text}="),
            format!("{text}A"),
            format!(" {text}"),
            text[..text.len() - 1].into(),
        ] {
            assert_eq!(open(&keys, &changed), Err(OpenError::Forged), "{changed}");
        }
    }

    #[test]
    fn no_second_spelling_of_the_last_bits() {
        let keys = keys(&["a"]);
        for len in 0..3 {
            let mut t = ticket();
            t.inner = "x".repeat(len);
            let text = keys.seal(&t, owner(&alice())).unwrap();
            for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
                let other = format!("{}{last}", &text[..text.len() - 1]);
                assert_eq!(open(&keys, &other).is_ok(), other == text, "{other}");
            }
        }
    }

    #[test]
    fn another_caller_or_kind_is_refused() {
        let keys = keys(&["a"]);
        let text = keys.seal(&ticket(), owner(&alice())).unwrap();
        let moved = Principal::new("basic", "filea", "lice");
        for who in [Principal::anonymous(), Principal { subject: "bob".into(), ..alice() }, moved] {
            let got = keys.open(Kind::Session, &text, owner(&who), NOW, None);
            assert_eq!(got, Err(OpenError::Forged), "{who:?}");
        }
        let got = keys.open(Kind::Endpoint, &text, owner(&alice()), NOW, None);
        assert_eq!(got, Err(OpenError::Forged));
    }

    #[test]
    fn keys_rotate() {
        let (old, both, new) = (keys(&["a"]), keys(&["b", "a"]), keys(&["b"]));
        let text = old.seal(&ticket(), owner(&alice())).unwrap();
        assert_eq!(open(&both, &text), Ok(ticket()));
        assert_eq!(open(&new, &text), Err(OpenError::Forged));
        let text = both.seal(&ticket(), owner(&alice())).unwrap();
        assert_eq!(open(&new, &text), Ok(ticket()));
        assert_eq!(open(&old, &text), Err(OpenError::Forged));
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let keys = keys(&["a"]);
        let text = keys.seal(&ticket(), owner(&alice())).unwrap();
        for prefix in ["e2.", "E1.", "e1", ""] {
            let other = format!("{prefix}{}", &text[3..]);
            assert_eq!(open(&keys, &other), Err(OpenError::Forged), "{other}");
        }
    }

    #[test]
    fn age_is_bounded_on_both_sides() {
        let keys = keys(&["a"]);
        let text = keys.seal(&ticket(), owner(&alice())).unwrap();
        let at = |now, age: Option<u64>| {
            let age = age.map(Duration::from_secs);
            keys.open(Kind::Session, &text, owner(&alice()), now, age).map(|t| t.issued)
        };
        assert_eq!(at(NOW + 60, Some(60)), Ok(NOW));
        assert_eq!(at(NOW + 61, Some(60)), Err(OpenError::Expired));
        assert_eq!(at(u64::MAX, None), Ok(NOW));
        assert_eq!(at(NOW - 300, Some(60)), Ok(NOW));
        assert_eq!(at(NOW - 301, None), Err(OpenError::Expired));
    }

    #[test]
    fn sizes_are_bounded() {
        let keys = keys(&["a"]);
        let long = |upstream: usize, authority: usize, inner: usize| {
            let (upstream, authority) = ("u".repeat(upstream), "a".repeat(authority));
            let t = Ticket { upstream, authority, inner: "i".repeat(inner), ..ticket() };
            keys.seal(&t, owner(&alice()))
        };
        assert_eq!(long(255, 255, 1024).unwrap().len(), 2083);
        assert!(open(&keys, &long(255, 255, 1024).unwrap()).is_ok());
        assert_eq!(long(256, 0, 0), None);
        assert_eq!(long(0, 256, 0), None);
        assert_eq!(long(0, 0, 1025), None);
        assert_eq!(open(&keys, &format!("e1.{}", "A".repeat(5000))), Err(OpenError::Forged));
    }

    #[test]
    fn key_texts_are_checked() {
        let of = |texts: &[String]| SessionKeys::from_texts(texts).map(|_| ());
        let long = "k".repeat(32);
        assert!(of(&[]).is_err());
        assert!(of(&["k".repeat(31)]).is_err());
        assert!(of(std::slice::from_ref(&long)).is_ok());
        assert!(of(&[long.clone(), long.clone()]).is_err());
        let many: Vec<String> = (0..17).map(|i| format!("{long}{i}")).collect();
        assert!(of(&many).is_err());
        assert!(of(&many[..16]).is_ok());
        assert!(!of(&[long.clone(), long]).unwrap_err().contains("kkk"));
    }

    #[test]
    fn debug_shows_fingerprints_only() {
        let keys = keys(&["a", "b"]);
        let prints = keys.fingerprints();
        assert_ne!(prints[0], prints[1]);
        assert!(prints.iter().all(|p| p.len() == 8 && p.bytes().all(|b| b.is_ascii_hexdigit())));
        assert_eq!(format!("{keys:?}"), format!("SessionKeys([{:?}, {:?}])", prints[0], prints[1]));
    }
}
