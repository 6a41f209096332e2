//! Which certificate a client is shown: in, the names of all of them; out, the one that fits a hello.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::listen::settings::{TlsSettings, UnknownNames};

/// All certificates by name. A name may have several, of different kinds of key.
#[derive(Debug, Default)]
pub(super) struct ByName {
    exact: HashMap<String, Keys>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Keys>,
    /// For unknown names; empty where those are refused.
    default: Keys,
}

type Keys = Vec<Arc<CertifiedKey>>;

impl ByName {
    pub(super) fn new(settings: &TlsSettings) -> Self {
        let mut all = Self::default();
        for certificate in settings.current() {
            for name in &certificate.names {
                let keys = match name.strip_prefix("*.") {
                    Some(rest) => all.wildcard.entry(rest.to_owned()),
                    None => all.exact.entry(name.clone()),
                };
                keys.or_default().push(certificate.key.clone());
            }
            if settings.unknown_names == UnknownNames::Default {
                all.default.push(certificate.key.clone());
            }
        }
        // stable: of two of a kind the first one in the config is shown
        for keys in all.exact.values_mut().chain(all.wildcard.values_mut()) {
            keys.sort_by_key(|key| cost(key));
        }
        all
    }

    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let known = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(&name).or_else(|| self.wildcard.get(parent?))
        });
        let keys = known.unwrap_or(&self.default);
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // where none fits, the handshake fails with a word about just that
        keys.iter().find(fits).or_else(|| keys.first())
    }
}

/// Signing with RSA takes the edge ten times as long as with an elliptic curve.
fn cost(key: &CertifiedKey) -> u8 {
    match key.key.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::RSA => 2,
        _ => 1,
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::crypto::ring;

    use super::*;
    use crate::listen::settings::{Certificate, MinVersion, Source};

    /// A certificate in memory.
    #[derive(Debug)]
    struct Fixed(Arc<Certificate>);

    impl Source for Fixed {
        fn current(&self) -> Option<Arc<Certificate>> {
            Some(self.0.clone())
        }

        fn generation(&self) -> u64 {
            0
        }
    }

    const RSA: &str = include_str!("../../../tests/e2e/support/rsa.key");

    fn certificate(source: &str, names: &[&str]) -> Arc<dyn Source> {
        let key = match source {
            "rsa" => KeyPair::from_pem(RSA).unwrap(),
            "ed" => KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            _ => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        };
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let cert = CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let chain = vec![cert.der().clone()];
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap();
        let source = source.to_owned();
        let (addresses, starts, expires, key) = (Vec::new(), 0, i64::MAX, Arc::new(key));
        Arc::new(Fixed(Arc::new(Certificate { source, names, addresses, starts, expires, key })))
    }

    /// The source of what is found.
    fn found(settings: &TlsSettings, name: Option<&str>, schemes: &[SignatureScheme]) -> String {
        let names = ByName::new(settings);
        let Some(key) = names.find(name, schemes) else { return "none".to_owned() };
        let all = settings.current();
        all.into_iter().find(|c| Arc::ptr_eq(&c.key, key)).map(|c| c.source.clone()).unwrap()
    }

    const ALL: &[SignatureScheme] = &[
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ED25519,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ];

    #[test]
    fn names_wildcards_and_kinds_of_keys() {
        let mut settings = TlsSettings {
            acme: None,
            certificates: vec![
                certificate("first", &["a.example", "*.a.example"]),
                certificate("rsa", &["b.example", "*.b.example"]),
                certificate("ed", &["b.example"]),
                certificate("second", &["b.example", "x.b.example"]),
                certificate("third", &["b.example", "a.example"]),
            ],
            unknown_names: UnknownNames::Default,
            min_version: MinVersion::Tls12,
            clients: None,
        };
        let rsa_only = &[SignatureScheme::RSA_PKCS1_SHA256][..];
        let ed_only = &[SignatureScheme::ED25519][..];
        let cases = [
            (Some("a.example"), ALL, "first"),
            (Some("A.Example"), ALL, "first"),
            (Some("x.a.example"), ALL, "first"),
            (Some("x.b.example"), ALL, "second"),
            (Some("y.b.example"), ALL, "rsa"),
            (Some("b.example"), ALL, "second"),
            (Some("b.example"), rsa_only, "rsa"),
            (Some("b.example"), ed_only, "ed"),
            // nothing fits: the name's own all the same, and the handshake says why it fails
            (Some("x.a.example"), rsa_only, "first"),
            // unknown names
            (None, ALL, "first"),
            (None, rsa_only, "rsa"),
            (Some("x.y.a.example"), ALL, "first"),
            (Some("example"), ALL, "first"),
        ];
        for (name, schemes, expected) in cases {
            assert_eq!(found(&settings, name, schemes), expected, "{name:?} {schemes:?}");
        }
        settings.unknown_names = UnknownNames::Refuse;
        for (name, schemes, default) in cases {
            let known = name.is_some_and(|n| !["x.y.a.example", "example"].contains(&n));
            let expected = if known { default } else { "none" };
            assert_eq!(found(&settings, name, schemes), expected, "{name:?} {schemes:?}");
        }
    }
}
