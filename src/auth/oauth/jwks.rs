//! Published keys (RFC 7517): in, a document; out, the keys that can verify tokens.
//!
//! A key that is for something else (encryption, a curve that is not verified here, a secret) is left
//! out. What is left out verifies nothing.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::fault::Fault;
use super::strict;
use super::token::{self, Head};
use super::verify;

/// Most keys of a document.
const MAX_KEYS: usize = 64;
/// Most keys that are tried for a token that does not name its own.
const MAX_TRIES: usize = 8;
/// RSA keys in bits: shorter ones are weak (RFC 7518 §3.3), longer ones are slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of one document.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// How many were left out.
    pub left_out: usize,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// What it may be used with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a document.
    ///
    /// # Errors
    /// It is no such document.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document = strict::object(bytes).ok_or("the keys are not a JSON object")?;
        let Some(Value::Array(items)) = document.get("keys") else {
            return Err("the document has no `keys`".to_owned());
        };
        if items.len() > MAX_KEYS {
            return Err(format!("{} keys are too many: at most {MAX_KEYS}", items.len()));
        }
        let keys: Vec<Key> = items.iter().filter_map(|item| Key::read(item.as_object()?)).collect();
        let left_out = items.len() - keys.len();
        Ok(Self { keys, left_out })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the signature is that of one of the keys; `None` where newer keys might know better.
    pub fn verify(&self, head: &Head, message: &str, signature: &str) -> Option<Result<(), Fault>> {
        let fits = |key: &Key| verify::fits(message, signature, &key.key, head.algorithm);
        let usable = |key: &&Key| key.algorithms.contains(&head.algorithm);
        let Some(id) = &head.key else {
            let right = self.keys.iter().filter(usable).take(MAX_TRIES).any(fits);
            return right.then_some(Ok(()));
        };
        let mut named = self.keys.iter().filter(|key| key.id.as_ref() == Some(id)).peekable();
        named.peek()?;
        let mut usable = named.filter(usable).take(MAX_TRIES).peekable();
        if usable.peek().is_none() {
            return Some(Err(Fault::Algorithm));
        }
        Some(if usable.any(fits) { Ok(()) } else { Err(Fault::Signature) })
    }
}

impl Key {
    fn read(fields: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(()),
        };
        // RFC 7517 §4.2, §4.3: a key for encryption signs nothing
        if text("use").ok()?.is_some_and(|usage| usage != "sig") {
            return None;
        }
        match fields.get("key_ops") {
            None => {}
            Some(Value::Array(uses)) if uses.iter().any(|usage| usage == "verify") => {}
            Some(_) => return None,
        }
        let part = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name).ok()??).ok();
        let (mut algorithms, key) = match (text("kty").ok()??, text("crv").ok()?) {
            ("RSA", _) => rsa(&part("n")?, &part("e")?)?,
            ("EC", Some("P-256")) => (vec![Algorithm::ES256], point(&part("x")?, &part("y")?, 32)?),
            ("EC", Some("P-384")) => (vec![Algorithm::ES384], point(&part("x")?, &part("y")?, 48)?),
            ("OKP", Some("Ed25519")) => {
                let x = part("x").filter(|x| x.len() == 32)?;
                (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&x))
            }
            _ => return None,
        };
        if let Some(name) = text("alg").ok()? {
            let only = token::algorithm(name)?;
            algorithms.retain(|algorithm| *algorithm == only);
        }
        let id = text("kid").ok()?.map(str::to_owned);
        (!algorithms.is_empty()).then_some(Self { id, algorithms, key })
    }
}

fn rsa(n: &[u8], e: &[u8]) -> Option<(Vec<Algorithm>, DecodingKey)> {
    // some write a zero in front, as DER does
    let n = n.get(n.iter().position(|byte| *byte != 0)?..)?;
    let e = e.get(e.iter().position(|byte| *byte != 0)?..)?;
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    let algorithms = vec![
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    let key = DecodingKey::from_rsa_raw_components(n, e);
    RSA_BITS.contains(&bits).then_some((algorithms, key))
}

/// An uncompressed point (SEC 1 §2.3.3); RFC 7518 §6.2.1.2 gives the length of each half.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<DecodingKey> {
    let good = x.len() == length && y.len() == length;
    good.then(|| DecodingKey::from_ec_der(&[&[4], x, y].concat()))
}

#[cfg(test)]
mod tests {
    use super::super::signer::{Signer, jwk_rsa_short};
    use super::*;

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(serde_json::json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn head(algorithm: Algorithm, key: Option<&str>) -> Head {
        Head { algorithm, key: key.map(str::to_owned), kind: None }
    }

    #[test]
    fn every_kind_of_key_verifies_its_own_and_nothing_else() {
        let signers = Signer::all();
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk("k")).collect();
        for (signer, key) in signers.iter().zip(&keys) {
            for algorithm in signer.algorithms() {
                let signature = signer.sign(*algorithm, b"message");
                let check = |key: &Value, id, message| {
                    set(std::slice::from_ref(key)).verify(
                        &head(*algorithm, id),
                        message,
                        &signature,
                    )
                };
                assert_eq!(check(key, Some("k"), "message"), Some(Ok(())), "{algorithm:?}");
                assert_eq!(check(key, None, "message"), Some(Ok(())), "{algorithm:?}");
                let wrong = Some(Err(Fault::Signature));
                assert_eq!(check(key, Some("k"), "massage"), wrong, "{algorithm:?}");
                assert_eq!(check(key, None, "massage"), None, "{algorithm:?}");
                assert_eq!(check(key, Some("l"), "message"), None, "{algorithm:?}");
                // any other algorithm with this key
                for other in signers.iter().flat_map(|s| s.algorithms()) {
                    if other == algorithm {
                        continue;
                    }
                    let wrong = set(std::slice::from_ref(key)).verify(
                        &head(*other, Some("k")),
                        "message",
                        &signature,
                    );
                    assert!(matches!(wrong, Some(Err(_))), "{algorithm:?} {other:?}");
                }
                // what is public is no secret: the old trick of HS256 with the RSA key
                let hmac =
                    set(&keys).verify(&head(Algorithm::HS256, Some("k")), "message", &signature);
                assert_eq!(hmac, Some(Err(Fault::Algorithm)));
            }
        }
    }

    #[test]
    fn keys_of_one_name_are_all_tried_and_tries_are_bounded() {
        let signer = Signer::ed25519();
        let others: Vec<Value> = (0..8).map(|_| Signer::ed25519().jwk("k")).collect();
        let signature = signer.sign(Algorithm::EdDSA, b"m");
        let mut keys = others[..7].to_vec();
        keys.push(signer.jwk("k"));
        let head = head(Algorithm::EdDSA, Some("k"));
        assert_eq!(set(&keys).verify(&head, "m", &signature), Some(Ok(())));
        keys.insert(0, others[7].clone());
        assert_eq!(set(&keys).verify(&head, "m", &signature), Some(Err(Fault::Signature)));
    }

    #[test]
    fn keys_for_something_else_are_left_out() {
        let good = Signer::ed25519().jwk("k");
        let rsa = Signer::rsa().jwk("k");
        assert_eq!(set(&[good.clone(), rsa.clone()]).len(), 2);
        let with = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            key
        };
        for bad in [
            with(&good, "use", "enc".into()),
            with(&good, "use", 1.into()),
            with(&good, "key_ops", serde_json::json!(["sign"])),
            with(&good, "key_ops", "verify".into()),
            with(&good, "alg", "RS256".into()),
            with(&good, "alg", "ECDH-ES".into()),
            with(&good, "kid", 7.into()),
            with(&good, "crv", "X25519".into()),
            with(&good, "kty", "EC".into()),
            with(&good, "x", "AAAA".into()),
            with(&good, "x", "no base64!".into()),
            with(&rsa, "alg", "RSA-OAEP".into()),
            with(&rsa, "n", "".into()),
            with(&rsa, "n", "AAAA".into()),
            jwk_rsa_short("k"),
            serde_json::json!({ "kty": "oct", "kid": "k", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }),
            serde_json::json!("k"),
            serde_json::json!({}),
        ] {
            let set = set(std::slice::from_ref(&bad));
            assert_eq!((set.len(), set.left_out), (0, 1), "{bad}");
        }
        for fine in [
            with(&good, "use", "sig".into()),
            with(&good, "key_ops", serde_json::json!(["verify"])),
            with(&good, "alg", "EdDSA".into()),
            with(&good, "alg", "Ed25519".into()),
            with(&good, "x5c", serde_json::json!(["junk"])),
        ] {
            assert_eq!(set(std::slice::from_ref(&fine)).len(), 1, "{fine}");
        }
    }

    #[test]
    fn a_key_with_an_algorithm_is_for_that_one() {
        let signer = Signer::rsa();
        let mut key = signer.jwk("k");
        key["alg"] = "RS256".into();
        let signature = signer.sign(Algorithm::PS256, b"m");
        let verdict = set(&[key]).verify(&head(Algorithm::PS256, Some("k")), "m", &signature);
        assert_eq!(verdict, Some(Err(Fault::Algorithm)));
    }

    #[test]
    fn other_documents_are_refused() {
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(KeySet::parse(br#"{"keys":[]}"#).unwrap().is_empty());
        let many = |n: usize| format!(r#"{{"keys":[{}]}}"#, vec!["{}"; n].join(","));
        assert!(KeySet::parse(many(64).as_bytes()).is_ok());
        assert!(KeySet::parse(many(65).as_bytes()).is_err());
    }
}
