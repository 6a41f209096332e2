//! In: keys and anything as head and claims; out: signed tokens, and the keys as providers publish them.
//! Unit tests of the library use it, too.

#![allow(dead_code, reason = "each of the two needs another part of it")]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// A private key.
pub(crate) enum Signer {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::rsa(), Self::p256(), Self::p384(), Self::ed25519()]
    }

    /// Always the same one: ring makes none.
    pub(crate) fn rsa() -> Self {
        let pem = include_str!("rsa.key");
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
        else {
            panic!("the key is PKCS #8")
        };
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap()))
    }

    pub(crate) fn p256() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::P256(EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap())
    }

    pub(crate) fn p384() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P384_SHA384_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::P384(EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).unwrap())
    }

    pub(crate) fn ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    pub(crate) fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Rsa(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            Self::P256(_) => &[Algorithm::ES256],
            Self::P384(_) => &[Algorithm::ES384],
            Self::Ed25519(_) => &[Algorithm::EdDSA],
        }
    }

    /// The public half (RFC 7517).
    pub(crate) fn jwk(&self, id: &str) -> Value {
        let halves = |key: &EcdsaKeyPair| {
            let point = &key.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            (encoded(x), encoded(y))
        };
        match self {
            Self::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                let (n, e) = (encoded(public.n), encoded(public.e));
                json!({ "kty": "RSA", "kid": id, "n": n, "e": e })
            }
            Self::P256(key) => {
                let (x, y) = halves(key);
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y })
            }
            Self::P384(key) => {
                let (x, y) = halves(key);
                json!({ "kty": "EC", "crv": "P-384", "kid": id, "x": x, "y": y })
            }
            Self::Ed25519(key) => {
                let x = encoded(key.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x })
            }
        }
    }

    /// A signature in base64url.
    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> String {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let padding: &dyn RsaEncoding = match algorithm {
                    Algorithm::RS256 => &RSA_PKCS1_SHA256,
                    Algorithm::RS384 => &RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &RSA_PSS_SHA256,
                    Algorithm::PS384 => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                encoded(signature)
            }
            Self::P256(key) | Self::P384(key) => encoded(key.sign(&random, message).unwrap()),
            Self::Ed25519(key) => encoded(key.sign(message)),
        }
    }

    /// A token with this head and these claims, which may be any text.
    pub(crate) fn token(&self, head: impl ToString, claims: impl ToString) -> String {
        let head = head.to_string();
        let read: Value = serde_json::from_str(&head).unwrap_or_default();
        let message = format!("{}.{}", encoded(&head), encoded(claims.to_string()));
        let named = |a: &&Algorithm| read["alg"] == format!("{a:?}").as_str();
        let algorithm = self.algorithms().iter().find(named).unwrap_or(&self.algorithms()[0]);
        let signature = self.sign(*algorithm, message.as_bytes());
        format!("{message}.{signature}")
    }
}

/// A token by a shared secret.
pub(crate) fn hs256(secret: &[u8], head: impl ToString, claims: impl ToString) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let message = format!("{}.{}", encoded(head.to_string()), encoded(claims.to_string()));
    format!("{message}.{}", encoded(ring::hmac::sign(&key, message.as_bytes())))
}

/// A part of a token.
pub(crate) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// An RSA key of 1024 bits.
pub(crate) fn jwk_rsa_short(id: &str) -> Value {
    json!({ "kty": "RSA", "kid": id, "n": encoded([0xff; 128]), "e": "AQAB" })
}
