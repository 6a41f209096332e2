//! In: HTTP/2 requests that no client library would send; out: a stream error or a 4xx, and nothing at the backend.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::client::{Client, get};
use crate::support::edge::{Edge, edge};
use crate::support::h2::{Outcome, raw};

/// What is wrong, the fields of the header block, and the body.
type Case = (&'static str, Vec<(&'static str, &'static str)>, Option<&'static [u8]>);

/// Malformed messages in HTTP/2 (RFC 9113 §8.1.1): a stream error, or a 4xx before it.
#[test]
fn malformed_http2_requests_reach_nobody() {
    let certs = Certs::new();
    let backend = plain();
    let edge = edge().listener(&certs.listener()).to(&backend).start();
    let config = certs.client(&["h2"]);
    let base =
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")];
    let plus = |extra: &[(&'static str, &'static str)]| [&base[..], extra].concat();
    let without = |name: &str| base.iter().copied().filter(|f| f.0 != name).collect::<Vec<_>>();
    let post = |lengths: &[&'static str]| {
        let mut fields = base.to_vec();
        fields[0].1 = "POST";
        fields.push(("content-type", "application/json"));
        fields.extend(lengths.iter().map(|l| ("content-length", *l)));
        fields
    };
    let swap = |name: &'static str, value: &'static str| {
        base.iter().map(|f| if f.0 == name { (name, value) } else { *f }).collect::<Vec<_>>()
    };
    let cases: Vec<Case> = vec![
        ("upper-case name (§8.2.1)", plus(&[("X-Upper", "1")]), None),
        ("space in a name (§8.2.1)", plus(&[("x a", "1")]), None),
        ("connection (§8.2.2)", plus(&[("connection", "keep-alive")]), None),
        ("keep-alive (§8.2.2)", plus(&[("keep-alive", "1")]), None),
        ("proxy-connection (§8.2.2)", plus(&[("proxy-connection", "close")]), None),
        ("transfer-encoding (§8.2.2)", plus(&[("transfer-encoding", "chunked")]), None),
        ("upgrade (§8.2.2)", plus(&[("upgrade", "websocket")]), None),
        ("te: gzip (§8.2.2)", plus(&[("te", "gzip")]), None),
        ("no :authority and no host (§8.3.1)", without(":authority"), None),
        ("no :method", without(":method"), None),
        ("no :path", without(":path"), None),
        ("no :scheme", without(":scheme"), None),
        ("empty :path", swap(":path", ""), None),
        ("relative :path", swap(":path", "a"), None),
        ("two :path", plus(&[(":path", "/b")]), None),
        ("unknown pseudo-field", plus(&[(":x", "1")]), None),
        ("response pseudo-field", plus(&[(":status", "200")]), None),
        ("pseudo-field after others", [&[("x-a", "1")][..], &base[..]].concat(), None),
        ("CR in a value (§8.2.1)", plus(&[("x-a", "b\r\nc: d")]), None),
        ("NUL in a value (§8.2.1)", plus(&[("x-a", "b\0c")]), None),
        (":authority and host differ (§8.3.1)", plus(&[("host", "other")]), None),
        (":authority with userinfo (§8.3.1)", swap(":authority", "me@localhost"), None),
        ("unknown :authority", swap(":authority", "evil.example.net"), None),
        ("dot segments", swap(":path", "/a/../b"), None),
        ("encoded slash", swap(":path", "/a%2fb"), None),
        ("asterisk with GET", swap(":path", "*"), None),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "localhost:443")], None),
        ("TRACE", swap(":method", "TRACE"), None),
        ("content-length over the data (§8.1.1)", post(&["5"]), Some(b"{}")),
        ("content-length under the data (§8.1.1)", post(&["1"]), Some(b"{}")),
        ("content-length and no data (§8.1.1)", post(&["5"]), None),
        ("two content-lengths", post(&["2", "2"]), Some(b"{}")),
        ("content-length: 2, 2", post(&["2, 2"]), Some(b"{}")),
        ("negative content-length", post(&["-2"]), Some(b"{}")),
    ];
    let mut wrong = Vec::new();
    for (name, fields, data) in &cases {
        let before = backend.count();
        let outcome = raw(edge.address(), config.clone(), fields, *data);
        let right = match outcome {
            Outcome::Status(s) => (400..500).contains(&s),
            Outcome::Reset(code) => code != 0,
            Outcome::Gone(_) => true,
        };
        if !right {
            wrong.push(format!("{name}: {outcome:?}"));
        }
        tls_probe(&edge, &certs.client(&["http/1.1"]));
        let seen: Vec<_> = backend.requests().into_iter().skip(before).collect();
        if seen.len() != 1 {
            wrong.push(format!("{name}: THE BACKEND GOT {:?}", seen[0]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn tls_probe(edge: &Edge, config: &Arc<ClientConfig>) {
    let mut client: Client = edge.tls(config.clone());
    assert_eq!(client.ask(get("localhost", "/probe")).status, 200);
}
