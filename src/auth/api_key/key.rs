//! New keys: in, a name and a prefix; out, a key, and the lines for the config.
//!
//! A key is a prefix that scanners for leaked secrets can look for, forty random letters and digits, and
//! six more that are a sum of what stands before them: a key that was not copied whole is told from
//! one that is not known. A double click takes all of it.

use sha2::{Digest, Sha256};

use crate::base::text::hex;

/// What keys begin with where nothing else is said.
pub const PREFIX: &str = "mcpk_";
/// 62 letters and digits.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 238 bits.
const RANDOM: usize = 40;
const SUM: usize = 6;

/// A new key.
///
/// # Errors
/// The system has no random bytes, or the prefix is none.
pub fn new(prefix: &str) -> Result<String, String> {
    check_prefix(prefix)?;
    let mut key = prefix.to_owned();
    while key.len() < prefix.len() + RANDOM {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(|e| format!("no random bytes: {e}"))?;
        // above a multiple of 62, some letters would come more often than others
        let good = bytes.into_iter().filter(|byte| *byte < 248).map(|byte| letter(byte.into()));
        key.extend(good.take(prefix.len() + RANDOM - key.len()));
    }
    key.push_str(&sum(&key));
    Ok(key)
}

/// The lines for the config, and the key for whom it is meant.
pub fn lines(key: &str, name: &str) -> String {
    let quoted = serde_json::Value::from(name);
    format!(
        "{key}\n\n\
         # That was the key: it is shown this once. For the route's `auth` list:\n\
         - api_key:\n    keys:\n      - {{ name: {quoted}, sha256: \"{}\" }}\n",
        hex(&Sha256::digest(key))
    )
}

/// Whether a text begins as a key does, but is not one: a letter is wrong, or it is not whole.
pub fn is_damaged(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX) else { return false };
    let split = text.len().checked_sub(SUM).and_then(|at| text.split_at_checked(at));
    rest.len() != RANDOM + SUM || split.is_none_or(|(start, end)| sum(start) != end)
}

/// Checks a prefix: what may stand in a Bearer token (RFC 6750 §2.1), and is short.
///
/// # Errors
/// What is expected.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    if (1..=32).contains(&prefix.len()) && prefix.bytes().all(good) {
        return Ok(());
    }
    Err("a prefix has 1 to 32 letters, digits and `-._~+/`".to_owned())
}

fn sum(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut number = digest.iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let mut next = || {
        let digit = number % 62;
        number /= 62;
        letter(digit)
    };
    (0..SUM).map(|_| next()).collect()
}

fn letter(number: u64) -> char {
    let at = usize::try_from(number % 62).unwrap_or_default();
    char::from(ALPHABET.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_are_whole() {
        let (one, two) = (new(PREFIX).unwrap(), new(PREFIX).unwrap());
        assert_ne!(one, two);
        for key in [&one, &two] {
            assert_eq!(key.len(), 51);
            assert!(key[5..].bytes().all(|b| b.is_ascii_alphanumeric()), "{key}");
            assert!(!is_damaged(key));
        }
        assert!(is_damaged(&one[..50]) && is_damaged("mcpk_") && is_damaged(&format!("{one}x")));
        let other = if one.as_bytes()[9] == b'a' { "b" } else { "a" };
        assert!(is_damaged(&format!("{}{other}{}", &one[..9], &one[10..])));
        assert!(!is_damaged("another kind of key"));
    }

    #[test]
    fn every_letter_comes() {
        let letters: std::collections::HashSet<char> =
            (0..100).flat_map(|_| new("p").unwrap().chars().skip(1).collect::<Vec<_>>()).collect();
        assert_eq!(letters.len(), 62);
    }

    #[test]
    fn the_lines_are_yaml() {
        let text = lines("mcpk_x", "a \"b\": c");
        let yaml = text.split_once("list:\n").unwrap().1;
        let value: serde_yaml::Value = serde_yaml::from_str(yaml).unwrap();
        let key = &value[0]["api_key"]["keys"][0];
        assert_eq!(key["name"], "a \"b\": c");
        assert_eq!(key["sha256"].as_str().unwrap().len(), 64);
        assert!(new("").is_err() && new("a b").is_err());
    }
}
