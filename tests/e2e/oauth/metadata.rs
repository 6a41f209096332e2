//! In: what OAuth clients ask of a resource; out: what the edge says of its routes to them, and to nobody's
//! backend.

use serde_json::json;

use super::{guarded, issuer, oauth};
use crate::support::backend::plain;
use crate::support::client::Response;
use crate::support::edge::{Edge, edge};
use crate::support::provider::{Mood, provider};
use crate::support::signer::Signer;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn ask(edge: &Edge, method: &str, path: &str, lines: &str) -> Response {
    edge.ask(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"))
}

#[test]
fn the_document_comes_from_the_config_alone() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let rest = ", scopes: [ mcp:read ], tool_scopes: { \"delete_*\": [ mcp:admin ] }";
    let edge = guarded(&backend, &oauth(&issuer(&provider, ""), rest), "path: /x").start();
    let expected = json!({
        "resource": "https://mcp.example.com/x",
        "authorization_servers": [provider.issuer()],
        "scopes_supported": ["mcp:read", "mcp:admin"],
        "bearer_methods_supported": ["header"],
    });
    // whatever the client says of itself, and wherever it comes from
    let lies = "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\nOrigin: https://evil.example\r\n";
    for path in ["/x", "", "/x/", "/x/below"] {
        let answer = ask(&edge, "GET", &format!("{WELL_KNOWN}{path}"), lies);
        assert_eq!((answer.status, answer.json()), (200, expected.clone()), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    let head = ask(&edge, "HEAD", WELL_KNOWN, "");
    assert_eq!((head.status, head.text()), (200, String::new()));
    assert_eq!(head.header("content-length"), Some(&*expected.to_string().len().to_string()));
    let wanted = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n\
                  Access-Control-Request-Headers: mcp-protocol-version, x-any\r\n";
    let preflight = ask(&edge, "OPTIONS", &format!("{WELL_KNOWN}/x"), wanted);
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("mcp-protocol-version, x-any")
    );
    ask(&edge, "POST", WELL_KNOWN, "Content-Length: 0\r\n").assert_refused(405);
    ask(&edge, "GET", &format!("{WELL_KNOWN}/y"), "").assert_refused(404);
    ask(&edge, "GET", "/register", "").assert_refused(404);
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_guarded_origin_has_no_endpoints_of_its_backend() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let auth = oauth(&issuer(&provider, ""), "");
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!("upstream: one, auth: [ {auth} ]"))
        .raw_route("upstream: one, path: /open, auth: [ anonymous ]")
        .start();
    for path in [
        "/register",
        "/authorize",
        "/token",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/x",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-protected-resource/open",
    ] {
        for method in ["GET", "POST"] {
            let answer = ask(&edge, method, path, "Content-Length: 0\r\n");
            answer.assert_refused(404);
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        }
    }
    assert_eq!(backend.count(), 0);
    // what is somebody else's business stays that
    assert_eq!(ask(&edge, "GET", "/open/token", "").status, 200);
}

#[test]
fn clients_of_old_find_the_provider_at_the_origin_where_it_is_wanted() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    let auth = oauth(&issuer(&provider, ", serve_metadata: true"), "");
    let edge = guarded(&backend, &auth, "").start();
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        let answer = ask(&edge, "GET", path, "");
        assert_eq!((answer.status, &answer.json()["issuer"]), (200, &json!(provider.issuer())));
        assert_eq!(answer.json()["extra"], 1, "as it was published");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    ask(&edge, "POST", "/register", "Content-Length: 0\r\n").assert_refused(404);
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_provider_that_is_down_from_the_start_takes_no_metadata_with_it() {
    let (signer, backend) = (Signer::ed25519(), plain());
    let provider = provider(&[signer.jwk("k")]);
    provider.set_mood(Mood::HangsUp);
    let auth = oauth(&issuer(&provider, ", serve_metadata: true"), "");
    let edge = guarded(&backend, &auth, "").start();
    assert_eq!(ask(&edge, "GET", WELL_KNOWN, "").status, 200);
    ask(&edge, "GET", "/.well-known/oauth-authorization-server", "").assert_refused(503);
}
