//! The form of a signed JWT (RFC 7519, compact JWS of RFC 7515): in, a token; out, its parts, of which
//! nothing is known to be true.
//!
//! Only what is needed is taken from the head: `alg`, `kid` and `typ`. Where a token says itself where
//! its key is (`jku`, `x5u`, `x5c`, `jwk`), nobody listens.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::fault::Fault;
use super::strict;

/// Longest token, in bytes.
pub const MAX_TOKEN: usize = 16 << 10;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 512;

/// The parts of a signed token.
#[derive(Debug)]
pub struct Token<'t> {
    /// The head.
    pub head: Head,
    /// The claims as the token has them.
    pub claims: Map<String, Value>,
    /// What is signed.
    pub message: &'t str,
    /// The signature, in base64url.
    pub signature: &'t str,
}

/// What matters of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How it is signed.
    pub algorithm: Algorithm,
    /// By which key.
    pub key: Option<String>,
    /// The media type, in lower case and without `application/` (RFC 7515 §4.1.9).
    pub kind: Option<String>,
}

/// Whether a Bearer token can only be a JWT: a JSON object without spaces begins so in base64url.
pub fn is_jwt_shaped(token: &[u8]) -> bool {
    token.starts_with(b"eyJ") && token.contains(&b'.')
}

/// Whether these bytes may be a Bearer token at all (RFC 6750 §2.1, `b64token`).
pub fn is_well_formed(token: &[u8]) -> bool {
    let end = token.iter().rposition(|b| *b != b'=').map_or(0, |at| at + 1);
    let (text, _) = token.split_at(end);
    let good = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    !text.is_empty() && text.iter().all(good)
}

/// Takes a token apart.
///
/// # Errors
/// What is wrong with its form.
pub fn read(token: &str) -> Result<Token<'_>, Fault> {
    if token.len() > MAX_TOKEN {
        return Err(Fault::Format);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Fault::Format)?;
    let (head, payload) = message.split_once('.').ok_or(Fault::Format)?;
    match payload.bytes().filter(|b| *b == b'.').count() {
        0 => {}
        2 => return Err(Fault::Encrypted),
        _ => return Err(Fault::Format),
    }
    if !signature.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(Fault::Format);
    }
    let head = self::head(&object(head)?)?;
    let claims = object(payload)?;
    Ok(Token { head, claims, message, signature })
}

/// Whether a token that cannot be taken apart may be one of this issuer: its claims name no other, or it is
/// encrypted (RFC 7516: five parts) and has none to be read.
pub fn may_be_of(token: &str, issuer: &str) -> bool {
    if token.len() > MAX_TOKEN {
        return false;
    }
    let parts: Vec<&str> = token.splitn(6, '.').collect();
    match *parts.as_slice() {
        [_, _, _, _, _] => true,
        [_, payload, _] => match object(payload) {
            Ok(claims) => claims.get("iss").is_none_or(|named| named == issuer),
            Err(_) => false,
        },
        _ => false,
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Fault> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Format)?;
    strict::object(&bytes).ok_or(Fault::Format)
}

fn head(fields: &Map<String, Value>) -> Result<Head, Fault> {
    if fields.contains_key("enc") {
        return Err(Fault::Encrypted);
    }
    if fields.contains_key("crit") || fields.contains_key("b64") {
        return Err(Fault::Critical);
    }
    let text = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Fault::Format),
    };
    let algorithm = text("alg")?.ok_or(Fault::Format)?;
    let algorithm = self::algorithm(algorithm).ok_or(Fault::Algorithm)?;
    let key = text("kid")?.map(str::to_owned);
    if key.as_ref().is_some_and(|key| key.len() > MAX_KID) {
        return Err(Fault::Format);
    }
    let kind = text("typ")?.map(media_type);
    Ok(Head { algorithm, key, kind })
}

/// An algorithm by its name (RFC 7518 §3.1, RFC 8037, RFC 9864); upper and lower case differ.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        name => name.parse().ok(),
    }
}

/// A media type as `typ` has it (RFC 7515 §4.1.9): case does not count, nor does `application/`.
pub fn media_type(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    lower.strip_prefix("application/").map_or(lower.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(text)
    }

    fn with_head(head: &str) -> Result<Head, Fault> {
        let token = format!("{}.{}.c2ln", encoded(head), encoded("{}"));
        read(&token).map(|token| token.head)
    }

    #[test]
    fn heads_are_read() {
        let head = with_head(
            r#"{"alg":"RS256","kid":"a","typ":"application/AT+JWT","jku":"https://evil","x5c":[1],"jwk":{},"z":1}"#,
        );
        let (key, kind) = (Some("a".to_owned()), Some("at+jwt".to_owned()));
        assert_eq!(head, Ok(Head { algorithm: Algorithm::RS256, key, kind }));
        assert_eq!(with_head(r#"{"alg":"Ed25519"}"#).unwrap().algorithm, Algorithm::EdDSA);
        for (head, fault) in [
            (r#"{}"#, Fault::Format),
            (r#"{"alg":1}"#, Fault::Format),
            (r#"{"alg":null}"#, Fault::Format),
            (r#"{"alg":["RS256"]}"#, Fault::Format),
            (r#"{"alg":"none"}"#, Fault::Algorithm),
            (r#"{"alg":"None"}"#, Fault::Algorithm),
            (r#"{"alg":"rs256"}"#, Fault::Algorithm),
            (r#"{"alg":""}"#, Fault::Algorithm),
            (r#"{"alg":"ES256K"}"#, Fault::Algorithm),
            (r#"{"alg":"RS256","kid":7}"#, Fault::Format),
            (r#"{"alg":"RS256","typ":7}"#, Fault::Format),
            (r#"{"alg":"RS256","crit":[]}"#, Fault::Critical),
            (r#"{"alg":"RS256","b64":true}"#, Fault::Critical),
            (r#"{"alg":"RS256","enc":"A128GCM"}"#, Fault::Encrypted),
            (r#"{"alg":"RS256","alg":"HS256"}"#, Fault::Format),
            (r#"["RS256"]"#, Fault::Format),
            ("", Fault::Format),
        ] {
            assert_eq!(with_head(head), Err(fault), "{head}");
        }
        let long = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(513));
        assert_eq!(with_head(&long), Err(Fault::Format));
    }

    #[test]
    fn there_are_three_parts_without_padding() {
        let (head, claims) = (encoded(r#"{"alg":"RS256"}"#), encoded(r#"{"a":1}"#));
        let good = format!("{head}.{claims}.c2ln");
        let token = read(&good).unwrap();
        assert_eq!((token.message, token.signature), (&*format!("{head}.{claims}"), "c2ln"));
        assert_eq!(token.claims.get("a"), Some(&1.into()));
        for (bad, fault) in [
            (String::new(), Fault::Format),
            (head.clone(), Fault::Format),
            (format!("{head}.{claims}"), Fault::Format),
            (format!("{head}.{claims}.s.s"), Fault::Format),
            (format!("{head}.{claims}.s.s.s"), Fault::Encrypted),
            (format!("{head}.{claims}=.c2ln"), Fault::Format),
            (format!("{head}=.{claims}.c2ln"), Fault::Format),
            (format!("{head}. {claims}.c2ln"), Fault::Format),
            (format!("{head}.{claims}.c2ln="), Fault::Format),
            (format!("{head}.{claims}.c$ln"), Fault::Format),
            (format!(".{claims}.c2ln"), Fault::Format),
            (format!("{head}..c2ln"), Fault::Format),
            (format!("{head}.{}.c2ln", encoded("[]")), Fault::Format),
            (format!("{head}.{}.c2ln", encoded(r#"{"a":1,"a":2}"#)), Fault::Format),
            // the same bytes with other bits behind the last one
            (format!("{}x.{claims}.c2ln", &head[..head.len() - 1]), Fault::Format),
            (format!("{good}{}", "A".repeat(MAX_TOKEN)), Fault::Format),
        ] {
            assert_eq!(read(&bad).map(|_| ()), Err(fault), "{bad:.100}");
        }
    }

    #[test]
    fn nobody_but_its_issuer_is_shown_a_token_that_cannot_be_read() {
        let head = encoded(r#"{"alg":"ES512"}"#);
        let with = |claims: &str| format!("{head}.{}.c2ln", encoded(claims));
        for (token, shown) in [
            (with(r#"{"iss":"https://a"}"#), true),
            (with(r#"{"sub":"x"}"#), true),
            (with(r#"{"iss":"https://b"}"#), false),
            (with(r#"{"iss":["https://a"]}"#), false),
            (with(r#"{"iss":"https://b","iss":"https://a"}"#), false),
            (format!("{head}.$.c2ln"), false),
            (format!("{head}.AAAA.AAAA.AAAA.AAAA"), true),
            (format!("{head}.AAAA.AAAA.AAAA"), false),
            (format!("{head}.AAAA.AAAA.AAAA.AAAA.AAAA"), false),
            (format!("{head}.{}.AAAA.AAAA.AAAA", "A".repeat(MAX_TOKEN)), false),
        ] {
            assert_eq!(may_be_of(&token, "https://a"), shown, "{token:.100}");
        }
    }

    #[test]
    fn bearer_tokens_have_an_alphabet() {
        for good in ["a", "a-._~+/9", "abc==", "eyJ.a.b"] {
            assert!(is_well_formed(good.as_bytes()), "{good}");
        }
        for bad in ["", "=", "a b", "a,b", "a=b", "a\"", "\u{e9}", "a\tb"] {
            assert!(!is_well_formed(bad.as_bytes()), "{bad}");
        }
        assert!(is_jwt_shaped(b"eyJh.b.c") && !is_jwt_shaped(b"eyJh") && !is_jwt_shaped(b"a.b.c"));
    }
}
