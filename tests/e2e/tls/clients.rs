//! In: clients' certificates; out, who gets through the handshake, also by an old ticket.

use std::fs;
use std::time::{Duration, SystemTime};

use super::certificates::listener;
use super::shake::{Shaken, shake};
use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::edge::{Edge, edge};
use crate::support::h2::{H2, request};
use crate::support::wait::eventually;

const DAY: Duration = Duration::from_secs(86_400);

/// The `tls:` value of a listener that asks for certificates.
fn asking(certs: &Certs, ca: &str, rest: &str) -> String {
    let ca = certs.path(ca);
    let asked = format!("client_certificates: {{ ca: {}, {rest} }}", ca.display());
    listener(certs, &["server"], &asked)
}

fn ask(edge: &Edge, n: usize, certs: &Certs, file: &str) -> Result<Shaken, String> {
    shake(edge.listener(n), &certs.client_as(file), "localhost")
}

#[test]
fn only_good_certificates_come_in() {
    let (certs, others) = (Certs::new(), Certs::new());
    certs.leaf(&[]).client("good", 1).write("good");
    certs.leaf(&[]).client("revoked", 2).write("revoked");
    certs.leaf(&[]).client("expired", 3).expired().write("expired");
    certs.leaf(&[]).client("future", 4).future().write("future");
    others.leaf(&[]).client("good", 1).write("good");
    certs.crl("crl.pem", &[2], SystemTime::now() + DAY);
    let crl = certs.path("crl.pem");
    let backend = plain();
    let edge = edge()
        .listener(&asking(&certs, "ca.pem", &format!("crl: {}", crl.display())))
        .listener(&asking(&certs, "ca.pem", "required: false"))
        .to(&backend)
        .start();
    assert_eq!(ask(&edge, 0, &certs, "good").unwrap().status, 200);
    assert_eq!(ask(&edge, 1, &certs, "good").unwrap().status, 200);
    assert_eq!(ask(&edge, 1, &certs, "revoked").unwrap().status, 200, "no list there");
    for (file, alert) in [
        ("revoked", "CertificateRevoked"),
        ("expired", "CertificateExpired"),
        ("future", "CertificateExpired"),
        // it is for servers
        ("server", "UnsupportedCertificate"),
    ] {
        let why = ask(&edge, 0, &certs, file).expect_err(file);
        assert!(why.contains(alert), "{file}: {why}");
    }
    for file in ["expired", "future", "server"] {
        ask(&edge, 1, &certs, file).expect_err("a bad one is worse than none");
    }
    let foreign = shake(edge.listener(0), &stranger(&certs, &others), "localhost");
    assert!(foreign.expect_err("of another CA").contains("alert"));
    let none =
        shake(edge.listener(0), &certs.client(&[]), "localhost").expect_err("no certificate");
    assert!(none.contains("CertificateRequired"), "{none}");
    assert_eq!(shake(edge.listener(1), &certs.client(&[]), "localhost").unwrap().status, 200);
    assert!(backend.count() > 0);
}

/// Trusts the edge, and shows a certificate of another CA.
fn stranger(certs: &Certs, others: &Certs) -> std::sync::Arc<rustls::ClientConfig> {
    for end in ["pem", "key"] {
        let from = others.path(&format!("good.{end}"));
        fs::copy(from, certs.path(&format!("stranger.{end}"))).unwrap();
    }
    certs.client_as("stranger")
}

#[test]
fn an_old_list_lets_nobody_in_and_a_new_one_heals_it() {
    let certs = Certs::new();
    certs.leaf(&[]).client("good", 1).write("good");
    certs.crl("crl.pem", &[], SystemTime::now() - DAY);
    let crl = format!("crl: {}", certs.path("crl.pem").display());
    let backend = plain();
    let edge = edge().listener(&asking(&certs, "ca.pem", &crl)).to(&backend).start();
    edge.wait_line("crl.pem` is too old since ");
    ask(&edge, 0, &certs, "good").expect_err("nobody knows whether it is revoked");
    certs.crl("crl.pem", &[], SystemTime::now() + DAY);
    eventually("the new list is taken", || ask(&edge, 0, &certs, "good").is_ok());
}

#[test]
fn a_change_of_trust_ends_resumption_and_what_is_bad_changes_nothing() {
    let certs = Certs::new();
    certs.leaf(&[]).client("good", 1).write("good");
    certs.crl("crl.pem", &[7], SystemTime::now() + DAY);
    fs::copy(certs.path("ca.pem"), certs.path("trusted.pem")).unwrap();
    let crl = format!("crl: {}", certs.path("crl.pem").display());
    let backend = plain();
    let edge = edge().listener(&asking(&certs, "trusted.pem", &crl)).to(&backend).start();
    let good = certs.client_as("good");
    let resumed = || shake(edge.address(), &good, "localhost").map(|s| s.resumed);
    assert_eq!((resumed(), resumed()), (Ok(false), Ok(true)));

    // somebody else is revoked: a full handshake, once
    certs.crl("crl.pem", &[7, 8], SystemTime::now() + DAY);
    eventually("tickets of the old list are void", || resumed() == Ok(false));
    assert_eq!(resumed(), Ok(true));

    // neither rubbish nor a list that is too old is taken
    fs::write(certs.path("crl.pem"), "rubbish").unwrap();
    edge.wait_line("crl.pem` holds no revocation list");
    certs.crl("crl.pem", &[1], SystemTime::now() - DAY);
    edge.wait_line("crl.pem` is too old since ");
    assert_eq!(resumed(), Ok(true));
    fs::write(certs.path("trusted.pem"), fs::read(certs.path("server.pem")).unwrap()).unwrap();
    certs.crl("crl.pem", &[7], SystemTime::now() + DAY);
    edge.wait_line("trusted.pem` is not a CA's");
    assert_eq!(resumed(), Ok(true));

    // it is revoked itself: its ticket does not help
    fs::copy(certs.path("ca.pem"), certs.path("trusted.pem")).unwrap();
    certs.crl("crl.pem", &[1], SystemTime::now() + DAY);
    eventually("the client is revoked", || resumed().is_err());

    // and another CA
    let others = Certs::new();
    others.crl("crl.pem", &[], SystemTime::now() + DAY);
    fs::copy(others.path("crl.pem"), certs.path("crl.pem")).unwrap();
    fs::copy(others.path("ca.pem"), certs.path("trusted.pem")).unwrap();
    others.leaf(&[]).client("good", 1).write("good");
    let stranger = stranger(&certs, &others);
    eventually("the other CA's client comes in", || {
        shake(edge.address(), &stranger, "localhost").is_ok()
    });
    resumed().expect_err("the first CA is gone");
}

#[test]
fn a_ticket_does_not_outlive_the_certificate() {
    let certs = Certs::new();
    certs.leaf(&[]).client("short", 1).until(Duration::from_secs(3)).write("short");
    let backend = plain();
    let edge = edge().listener(&asking(&certs, "ca.pem", "")).to(&backend).start();
    let short = certs.client_as("short");
    let resumed = || shake(edge.address(), &short, "localhost").map(|s| s.resumed);
    assert_eq!((resumed(), resumed()), (Ok(false), Ok(true)));
    eventually("the certificate has expired", || match resumed() {
        // TLS says so: this was a full handshake
        Err(why) => !why.contains("Certificate") || panic!("the ticket was lost: {why}"),
        Ok(resumed) => {
            assert!(resumed);
            false
        }
    });
}

#[test]
fn http2_asks_for_certificates_too() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&asking(&certs, "ca.pem", "")).to(&backend).start();
    let mut config = (*certs.client_as("client")).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut h2 = H2::connect(edge.address(), config.into());
    assert_eq!(h2.ask(request("GET", "/", &[]), b"").unwrap().status, 200);
}

#[test]
fn the_oldest_version_is_what_the_config_says() {
    use rustls::version::{TLS12, TLS13};
    let certs = Certs::new();
    let backend = plain();
    let edge = edge()
        .listener(&listener(&certs, &["server"], ""))
        .listener(&listener(&certs, &["server"], "min_version: 1.2"))
        .listener(&listener(&certs, &["server"], "min_version: \"1.3\""))
        .to(&backend)
        .start();
    let speaks = |n: usize, version| {
        let client = super::shake::anything(&[version], super::certificates::BOTH);
        shake(edge.listener(n), &client, "localhost").map(|s| s.status)
    };
    for n in 0..3 {
        assert_eq!(speaks(n, &TLS13), Ok(200));
    }
    assert_eq!((speaks(0, &TLS12), speaks(1, &TLS12)), (Ok(200), Ok(200)));
    let why = speaks(2, &TLS12).expect_err("1.2 is too old");
    assert!(why.contains("ProtocolVersion"), "{why}");
}

#[test]
fn both_versions_resume() {
    use rustls::version::{TLS12, TLS13};
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&listener(&certs, &["server"], "")).to(&backend).start();
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let client = super::shake::anything(versions, super::certificates::BOTH);
        let resumed = || shake(edge.address(), &client, "localhost").unwrap().resumed;
        assert!(!resumed() && resumed() && resumed());
    }
}
