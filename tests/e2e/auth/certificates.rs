//! In: callers that show a certificate, or none; out: whom the edge takes them for.

use super::{Files, WORD, basic, with};
use crate::support::backend::{Backend, plain};
use crate::support::certs::Certs;
use crate::support::edge::{Edge, edge};
use crate::support::h2::{H2, request};

/// One listener that asks for certificates and does without; `auth` is the inside of the list.
fn start(certs: &Certs, backend: &Backend, auth: &str, rest: &str) -> Edge {
    let (cert, key, ca) =
        (certs.path("server.pem"), certs.path("server.key"), certs.path("ca.pem"));
    let tls = format!(
        "tls: {{ certificates: [ {{ cert: {}, key: {} }} ], client_certificates: {{ ca: {}, required: false }} }}",
        cert.display(),
        key.display(),
        ca.display()
    );
    edge()
        .listener(&tls)
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!("upstream: one, auth: [ {auth} ], {rest}"))
        .start()
}

/// What comes of a request by whom this certificate names (`-` for nobody).
fn outcome(edge: &Edge, certs: &Certs, who: &str, lines: &str) -> String {
    let config = if who == "-" { certs.client(&[]) } else { certs.client_as(who) };
    let answer = edge.tls(config).ask(with(lines));
    if answer.status == 200 {
        return "ok".to_owned();
    }
    assert_eq!(answer.not_a_refusal(), None);
    edge.log_of(&answer)["code"].as_str().unwrap().to_owned()
}

fn people() -> Certs {
    let certs = Certs::new();
    certs.leaf(&["ann.example", "a.example"]).client("ann", 1).write("ann");
    certs.leaf(&[]).client("bob", 2).write("bob");
    certs
}

#[test]
fn the_certificate_says_who_it_is() {
    let (certs, backend) = (people(), plain());
    let identity = "identity: { X-User: subject, X-Method: method, X-Issuer: issuer, X-Name: name, X-Serial: metadata.serial }";
    for (principal, subject) in [
        ("principal: common_name", "ann"),
        ("principal: dns", "ann.example"),
        ("principal: dns, allow: [ \"a.*\" ]", "a.example"),
    ] {
        let auth = format!("{{ client_certificate: {{ {principal} }} }}");
        let edge = start(&certs, &backend, &auth, identity);
        assert_eq!(outcome(&edge, &certs, "ann", "X-User: root\r\nX_User: root\r\n"), "ok");
        let seen = backend.last();
        assert_eq!(seen.all("x-user"), [subject]);
        assert_eq!(seen.all("x-method"), ["client_certificate"]);
        assert_eq!(seen.all("x-name"), ["ann"]);
        assert_eq!(seen.header("x_user"), None);
        assert!(seen.header("x-issuer").is_some() && seen.header("x-serial").is_some());
        let log = edge.log("its line", |line| line["principal"] == subject);
        assert_eq!(log["auth"], "client_certificate");
    }
    let auth = "{ client_certificate: { principal: subject } }";
    let edge = start(&certs, &backend, auth, identity);
    assert_eq!(outcome(&edge, &certs, "bob", ""), "ok");
    assert_eq!(backend.last().all("x-user"), ["CN=bob,O=Tests\\,%20Inc."]);
}

#[test]
fn every_field_refuses() {
    let (certs, backend) = (people(), plain());
    let (nameless, other) =
        ("auth.client_certificate.nameless", "auth.client_certificate.not_allowed");
    for (settings, ann, bob) in [
        ("principal: common_name", "ok", "ok"),
        ("principal: dns", "ok", nameless),
        ("principal: uri", nameless, nameless),
        ("principal: email", nameless, nameless),
        ("principal: common_name, allow: [ ann ]", "ok", other),
        ("principal: common_name, allow: [ \"b*\", x ]", other, "ok"),
        ("principal: dns, allow: [ ann ]", other, nameless),
    ] {
        let auth = format!("{{ client_certificate: {{ {settings} }} }}");
        let edge = start(&certs, &backend, &auth, "");
        assert_eq!(outcome(&edge, &certs, "ann", ""), ann, "{settings}");
        assert_eq!(outcome(&edge, &certs, "bob", ""), bob, "{settings}");
        assert_eq!(outcome(&edge, &certs, "-", ""), "auth.none", "{settings}");
    }
}

#[test]
fn all_takes_a_certificate_and_a_password() {
    let (certs, files, backend) = (people(), Files::new(), plain());
    let certificate = "client_certificate: { principal: common_name, allow: [ ann ] }";
    let file = files.path("htpasswd");
    let auth =
        format!("{{ all: [ {{ {certificate} }}, {{ basic: {{ file: {} }} }} ] }}", file.display());
    let edge = start(&certs, &backend, &auth, "identity: { X-User: subject }");
    let (right, wrong) = (basic("sha", WORD), basic("sha", "wrong"));
    for (who, lines, expected) in [
        ("ann", &right, "ok"),
        ("ann", &wrong, "auth.basic.wrong"),
        ("bob", &right, "auth.client_certificate.not_allowed"),
        ("-", &right, "auth.all.missing"),
        // a certificate is there on every request: alone it asks for nothing
        ("ann", &String::new(), "auth.none"),
        ("-", &String::new(), "auth.none"),
    ] {
        assert_eq!(outcome(&edge, &certs, who, lines), expected, "{who} {lines}");
    }
    assert_eq!(backend.last().all("x-user"), ["ann"], "who the first one says");
    assert_eq!(backend.count(), 1);
}

#[test]
fn http2_carries_it_too() {
    let (certs, backend) = (people(), plain());
    let auth = "{ client_certificate: { principal: common_name, allow: [ ann ] } }";
    let edge = start(&certs, &backend, auth, "");
    for (who, status) in [("ann", 200), ("bob", 403)] {
        let mut config = (*certs.client_as(who)).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut h2 = H2::connect(edge.address(), std::sync::Arc::new(config));
        assert_eq!(h2.ask(request("GET", "/x", &[]), b"").unwrap().status, status);
    }
}
