//! In: requests to a plain listener; out, the way to https, or the answers to ACME's challenges.

use std::fs;
use std::os::unix::fs::symlink;

use super::certificates::listener;
use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::client::{Client, get, post};
use crate::support::edge::{Edge, edge};
use crate::support::h2::{H2, request};

/// An edge that redirects on its first listener, to this port, and serves on its second.
fn redirecting(certs: &Certs, rest: &str) -> Edge {
    certs.leaf(&["site.example", "*.site.example", "192.0.2.7"]).write("site");
    edge()
        .listener(&format!("redirect: https, health_path: /healthz, {rest}"))
        .listener(&listener(certs, &["site"], ""))
        .upstream("one", &["http://127.0.0.1:9".to_owned()], "")
        .route("host: route.example, upstream: one")
        .route("path: /any, public_url: \"https://public.example:8443/any\", upstream: one")
        .start()
}

#[test]
fn known_hosts_are_sent_to_https_and_others_nowhere() {
    let certs = Certs::new();
    let edge = redirecting(&certs, "");
    let cases = [
        ("route.example", "/", "https://route.example/"),
        ("ROUTE.example:80", "/a//b/%2e?x=%20&y", "https://route.example/a//b/%2e?x=%20&y"),
        ("public.example", "/any?", "https://public.example/any?"),
        ("site.example", "/", "https://site.example/"),
        ("x.site.example:8080", "/", "https://x.site.example/"),
        ("192.0.2.7", "/", "https://192.0.2.7/"),
    ];
    let mut client = edge.client();
    for (host, path, to) in cases {
        let answer = client.ask(get(host, path));
        assert_eq!((answer.status, answer.header("location")), (308, Some(to)));
        assert_eq!(answer.body, b"");
    }
    // the method stays, and a small body is no reason to hang up
    let answer = client.ask(post("route.example", "/mcp", "", "{}"));
    assert_eq!(answer.header("location"), Some("https://route.example/mcp"));
    let line = edge.log_of(&answer);
    assert_eq!((&line["status"], &line["path"]), (&308.into(), &"/mcp".into()));
    for host in ["evil.example", "y.x.site.example", ".site.example", "example", "192.0.2.8"] {
        let refused = client.ask(get(host, "/"));
        refused.assert_refused(421);
        assert_eq!(edge.log_of(&refused)["code"], "redirect.unknown_host");
        assert_eq!(refused.header("location"), None, "{host}");
    }
    assert_eq!(client.ask(get("anything", "/healthz")).status, 200);
    // without a webroot a challenge is a path like any other
    let challenge = client.ask(get("route.example", "/.well-known/acme-challenge/x"));
    assert_eq!(challenge.status, 308);
    client.ask("TRACE / HTTP/1.1\r\nHost: route.example\r\n\r\n").assert_refused(405);
    edge.ask("GET / HTTP/1.0\r\n\r\n").assert_refused(421);
}

#[test]
fn another_port_is_named() {
    let certs = Certs::new();
    let edge = redirecting(&certs, "redirect_port: 8443");
    let answer = edge.ask(get("route.example:8080", "/x"));
    assert_eq!(answer.header("location"), Some("https://route.example:8443/x"));
}

#[test]
fn a_redirecting_listener_may_face_the_world_without_a_word() {
    let certs = Certs::new();
    let edge = edge()
        .raw_listener("address: \"0.0.0.0:0\", redirect: https")
        .listener(&listener(&certs, &["server"], ""))
        .to(&plain())
        .start();
    let port = edge.address().port();
    let mut client = Client::plain(([127, 0, 0, 1], port).into());
    // a name of the certificate
    let answer = client.ask(get("mcp.example.com", "/"));
    assert_eq!(answer.header("location"), Some("https://mcp.example.com/"));
}

#[test]
fn challenges_are_answered_from_the_webroot_and_nothing_else_is() {
    let certs = Certs::new();
    let root = certs.path("www");
    let folder = root.join(".well-known/acme-challenge");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("to-ken_1"), "to-ken_1.thumbprint").unwrap();
    fs::write(root.join("index.html"), "secret").unwrap();
    fs::write(folder.join("page.html"), "secret").unwrap();
    symlink("../../index.html", folder.join("link")).unwrap();
    let backend = plain();
    let webroot = format!("acme_webroot: {}", root.display());
    let edge = edge()
        .listener(&format!("redirect: https, {webroot}"))
        .listener(&format!("{}, {webroot}", listener(&certs, &["server"], "")))
        .listener(&webroot)
        .to(&backend)
        .start();
    let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
    let mut h2 = H2::connect(edge.listener(1), certs.client(&["h2"]));
    let answers = [
        edge.ask(get("any.example", &path("to-ken_1"))),
        h2.ask(request("GET", &path("to-ken_1"), &[]), b"").unwrap(),
        Client::plain(edge.listener(2)).ask(get("any.example", &path("to-ken_1"))),
    ];
    for answer in answers {
        assert_eq!((answer.status, answer.text().as_str()), (200, "to-ken_1.thumbprint"));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let mut client = edge.client();
    let head = client.ask(format!("HEAD {} HTTP/1.1\r\nHost: x\r\n\r\n", path("to-ken_1")));
    assert_eq!((head.status, head.header("content-length")), (200, Some("19")));
    for bad in
        ["", "gone", "link", "page.html", "..", ".", "%74o-ken_1", "to-ken_1/", "a/../to-ken_1"]
    {
        let refused = client.ask(get("localhost", &path(bad)));
        assert_eq!(refused.status, 404, "{bad}");
        assert!(!refused.text().contains("secret"));
    }
    client.ask(post("localhost", &path("to-ken_1"), "", "{}")).assert_refused(405);
    assert_eq!(client.ask(get("mcp.example.com", "/index.html")).status, 308);
    assert_eq!(backend.count(), 0, "none of it reached the server");
    assert_eq!(Client::plain(edge.listener(2)).ask(get("localhost", "/")).status, 200);
}
