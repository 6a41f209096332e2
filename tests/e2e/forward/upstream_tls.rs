//! In: backends that speak TLS; out: they are reached if their certificate is right, and only then.

use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::client::post;
use crate::support::edge::{Edge, edge};

fn run(url: String, tls: &str) -> Edge {
    edge().upstream("one", &[url], tls).route("upstream: one").start()
}

fn status(edge: &Edge) -> u16 {
    let answer =
        edge.ask(post("localhost", "/", "", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
    assert!(answer.status == 200 || answer.not_a_refusal().is_none());
    answer.status
}

#[test]
fn a_backend_is_trusted_by_its_ca_and_name() {
    let (certs, strangers) = (Certs::new(), Certs::new());
    let backend = plain();
    let front = certs.front(backend.address(), false);
    let ca = format!("ca: {}", certs.path("ca.pem").display());
    assert_eq!(status(&run(front.url(), &format!("tls: {{ {ca} }}"))), 200);
    assert_eq!(
        status(&run(front.url(), &format!("tls: {{ {ca}, server_name: mcp.example.com }}"))),
        200
    );
    let good = backend.count();
    for wrong in [
        String::new(),
        format!("tls: {{ ca: {} }}", strangers.path("ca.pem").display()),
        format!("tls: {{ {ca}, server_name: other.example.com }}"),
    ] {
        let status = status(&run(front.url(), &wrong));
        assert!([502, 503].contains(&status), "{wrong}: {status}");
    }
    assert_eq!(backend.count(), good, "nothing is sent to a server that is not the one");
    assert_eq!(status(&run(front.url(), "tls: { insecure_skip_verify: true }")), 200);
}

#[test]
fn a_client_certificate_is_shown_when_there_is_one() {
    let certs = Certs::new();
    let backend = plain();
    let front = certs.front(backend.address(), true);
    let ca = format!("ca: {}", certs.path("ca.pem").display());
    let own = format!(
        "client_certificate: {{ cert: {}, key: {} }}",
        certs.path("client.pem").display(),
        certs.path("client.key").display()
    );
    assert_eq!(status(&run(front.url(), &format!("tls: {{ {ca}, {own} }}"))), 200);
    let refused = status(&run(front.url(), &format!("tls: {{ {ca} }}")));
    assert!([502, 503].contains(&refused), "{refused}");
    assert_eq!(backend.count(), 1);
}
