//! In: several certificates and hellos; out, the one that fits, or no handshake.

use rustls::SignatureScheme;
use rustls::version::{TLS12, TLS13};

use super::shake::{anything, shake};
use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::edge::edge;

const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
const RSA: &[SignatureScheme] =
    &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
pub(super) const BOTH: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
];

/// The `tls:` value of a listener with these pairs of files.
pub(super) fn listener(certs: &Certs, files: &[&str], rest: &str) -> String {
    let pair = |file: &&str| {
        let path = |end: &str| certs.path(&format!("{file}.{end}")).display().to_string();
        format!("{{ cert: {}, key: {} }}", path("pem"), path("key"))
    };
    let pairs: Vec<_> = files.iter().map(pair).collect();
    format!("tls: {{ certificates: [ {} ], {rest} }}", pairs.join(", "))
}

#[test]
fn each_client_is_shown_the_certificate_that_fits() {
    let certs = Certs::new();
    let first = certs.leaf(&["first.example"]).write("first");
    let rsa = certs.leaf(&["two.example", "*.two.example"]).rsa().write("rsa");
    let ecdsa = certs.leaf(&["two.example"]).write("ecdsa");
    let own = certs.leaf(&["own.two.example"]).write("own");
    let backend = plain();
    let files = ["first", "rsa", "ecdsa", "own"];
    let edge = edge()
        .listener(&listener(&certs, &files, "unknown_names: default"))
        .listener(&listener(&certs, &files, "unknown_names: refuse"))
        .to(&backend)
        .start();
    let cases = [
        ("first.example", BOTH, Some(&first), true),
        ("two.example", BOTH, Some(&ecdsa), true),
        ("two.example", ECDSA, Some(&ecdsa), true),
        ("two.example", RSA, Some(&rsa), true),
        ("TWO.example", RSA, Some(&rsa), true),
        ("any.two.example", BOTH, Some(&rsa), true),
        ("own.two.example", BOTH, Some(&own), true),
        // the name is known, its kind of signature is not
        ("own.two.example", RSA, None, true),
        ("unknown.example", BOTH, Some(&first), false),
        ("unknown.example", RSA, Some(&rsa), false),
        ("deep.any.two.example", BOTH, Some(&first), false),
        // an address is no name: the hello names nobody
        ("127.0.0.1", BOTH, Some(&first), false),
    ];
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for (name, schemes, expected, known) in cases {
            let client = anything(versions, schemes);
            let shown = |n: usize| shake(edge.listener(n), &client, name).map(|s| s.shown);
            assert_eq!(shown(0).ok().as_ref(), expected, "{name} {schemes:?}");
            let refusing = shown(1);
            if known {
                assert_eq!(refusing.ok().as_ref(), expected, "{name} {schemes:?}");
            } else {
                let why = refusing.expect_err(name);
                assert!(why.contains("alert"), "a word of TLS, no mere hang-up: {why}");
            }
        }
    }
}

#[test]
fn an_expired_certificate_is_no_reason_not_to_start_but_is_told() {
    let certs = Certs::new();
    let old = certs.leaf(&["old.example"]).expired().write("old");
    let early = certs.leaf(&["early.example"]).future().write("early");
    let backend = plain();
    let edge = edge().listener(&listener(&certs, &["old", "early"], "")).to(&backend).start();
    let client = anything(&[&TLS13], BOTH);
    let answer = shake(edge.address(), &client, "old.example").unwrap();
    assert_eq!((answer.shown, answer.status), (old, 200));
    assert_eq!(shake(edge.address(), &client, "early.example").unwrap().shown, early);
    edge.wait_line("old.pem` expired on ");
    edge.wait_line("early.pem` is not valid before ");
}
