//! In: a config and requests; out, what is said of them.

use std::path::Path;

use super::*;
use crate::config::{Mode, load_text};

/// `{SHA}` of `pass`.
const USERS: &str = "ann:{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=\n";

const CONFIG: &str = "
state_dir: nowhere-to-be
listeners:
  - { address: '0.0.0.0:8080', plaintext: true, health_path: /healthz }
  - { address: '127.0.0.1:8081', deny: [ 192.0.2.0/24 ] }
  - { address: '0.0.0.0:8082', redirect: https, plaintext: true }
upstreams:
  - { name: tools, servers: [ 'http://127.0.0.1:1', { url: 'http://127.0.0.1:2', weight: 3 } ],
      circuit: { in_flight: 5, pending: 7, wait: 2500ms } }
  - name: wide
    servers: [ 'http://127.0.0.1:1', { url: 'http://127.0.0.1:2', drain: true }, { url: 'http://127.0.0.1:3', priority: secondary } ]
  - name: named
    servers: [ { dns: 'http://mcp.internal:8000', weight: 2 }, { srv: 'http://_mcp._tcp.example.com', priority: secondary } ]
routes:
  - path: /named
    upstream: named
    auth: [ anonymous ]
  - path: /open
    upstream: tools
    rewrite: /mcp
    auth: [ anonymous ]
    tools: [ { deny: [ 'delete_*' ] }, { allow: [ '*' ] } ]
    limits: [ { key: address, rate: 60/m burst 20 }, { key: principal, in_flight: 3, dry_run: true } ]
  - path: /wide
    upstream: wide
    auth: [ anonymous ]
  - { host: known.example, path: /known, upstream: tools, auth: [ anonymous ] }
  - host: tokens.example
    upstream: tools
    auth:
      - oauth:
          resource: https://tokens.example
          issuers: [ { issuer: https://login.example } ]
          scopes: [ read ]
    require: { groups: [ finops ] }
    tools: [ { allow: [ 'get_*' ], when: { groups: [ finops ] } } ]
  - path: /page
    upstream: tools
    auth: [ basic: { file: users } ]
    origins: [ 'https://app.example' ]
  - path: /keyed
    upstream: tools
    auth: [ { api_key: { header: X-Key, prefix: k_, keys: [ { name: a, sha256: f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7 } ] } } ]
  - { host: plain.example, path: /plain, upstream: tools, auth: [ anonymous ], listeners: [ '0.0.0.0:8082' ] }
  - path: /locked
    upstream: tools
    auth: [ basic: { file: users } ]
    require: { subject: [ bob ] }
    deny: [ 203.0.113.9 ]
";

fn said<'a>(method: &'a str, url: &'a str, more: impl FnOnce(&mut Request<'a>)) -> (String, bool) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users"), USERS).unwrap();
    let mut request = Request {
        method,
        url,
        headers: &[],
        from: "198.51.100.1".parse().unwrap(),
        tool: None,
        listener: None,
    };
    more(&mut request);
    let settings = settings(folder.path());
    let explained = explain_here(&settings, &request.read().unwrap()).unwrap();
    (explained.text(), explained.refused)
}

fn settings(folder: &Path) -> Settings {
    load_text(CONFIG, folder, &|_| None, Mode::Check).unwrap()
}

/// Has every one of these lines, in this order, and ends or does not end with a refusal.
fn has((text, refused): (String, bool), lines: &[&str], refusal: bool) {
    let mut all = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    for line in lines {
        assert!(all.any(|found| found.contains(line)), "no further `{line}` in\n{text}");
    }
    assert_eq!(refused, refusal, "{text}");
}

#[test]
fn names_are_told_and_not_asked_for() {
    has(
        said("post", "http://host.example:8080/named", |_| {}),
        &["of all of http://mcp.internal:8000 (dns) (weight 2); then its session's; \
           where none of these is up: all of http://_mcp._tcp.example.com (srv)"],
        false,
    );
}

#[test]
fn every_stage_says_what_it_does() {
    has(
        said("post", "http://host.example:8080/open/x?a=1", |_| {}),
        &[
            "listener http://0.0.0.0:8080: port 8080 of http",
            "client 198.51.100.1",
            "route */open: any host, /open and all below it",
            "limit address: rate 60/m burst 20",
            "auth anonymous",
            "limit principal: in_flight 3, only counted",
            "rule tools by 2 rules",
            "tool which may be called depends",
            "upstream tools: gets POST /mcp/x?a=1",
            "limit upstream tools: 5 at once, 7 wait 2.5 s at most",
            "replica by round_robin (2026-07-28: by the hash of its caller) of 127.0.0.1:1, 127.0.0.1:2 (weight 3); then",
            "answer what the server says",
        ],
        false,
    );
}

#[test]
fn every_limit_is_said_once_and_where_it_counts() {
    let (text, _) = said("post", "http://host.example:8080/open", |_| {});
    let at = |part: &str| {
        assert_eq!(text.matches(part).count(), 1, "{part} in {text}");
        text.find(part).unwrap()
    };
    let order = ["address: rate 60/m", "anonymous", "principal: in_flight 3"].map(at);
    assert!(order.is_sorted(), "{text}");
}

#[test]
fn a_refusal_says_who_refused_and_why() {
    let open = "http://host.example:8080/open";
    let locked = "http://host.example:8080/locked";
    let tool = |tool| move |request: &mut Request<'_>| request.tool = Some(tool);
    has(said("POST", open, tool("get_x")), &["tool get_x may be called", "answer what"], false);
    let refused = &["tool This tool is not allowed (", "answer refused: 403 `authz.tool`"];
    has(said("POST", open, tool("delete_x")), refused, true);
    has(said("PUT", open, |_| {}), &["method", "answer refused: 405 `route.method`"], true);
    has(said("GET", "http://h:8080/else", |_| {}), &["refused: 404 `route.no_path`"], true);
    has(said("GET", "http://h:8080/a/../open", |_| {}), &["refused: 400"], true);
    has(said("GET", locked, |_| {}), &["shows none", "refused: 401 `auth.none`"], true);
    let outside = |request: &mut Request<'_>| request.from = "203.0.113.9".parse().unwrap();
    has(said("GET", locked, outside), &["address", "refused: 403 `route.address`"], true);
    let session = ["Mcp-Session-Id: forged".to_owned()];
    has(
        said("GET", open, |request| request.headers = &session),
        &["replica the session's; the keys that open its id are not here"],
        false,
    );
}

#[test]
fn rules_about_whom_only_an_issuer_knows_are_not_asked() {
    let shown = [
        "Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA".to_owned(),
        "Mcp-Session-Id: some".to_owned(),
    ];
    has(
        said("POST", "http://tokens.example:8080/", |request| {
            request.headers = &shown;
            request.tool = Some("get_x");
        }),
        &[
            "assumed good",
            "rule require groups",
            "depends on the token, and is not asked",
            "replica the session's, if its id is this caller's",
            "answer what the server says",
        ],
        false,
    );
}

#[test]
fn who_stands_back_is_named() {
    let line = "replica 127.0.0.1:1, the only one; where none of these is up: 127.0.0.1:3; \
        nothing new goes to 127.0.0.1:2, which drains";
    has(said("POST", "http://h:8080/wide", |_| {}), &[line], false);
}

#[test]
fn credentials_are_looked_at() {
    let locked = "http://host.example:8080/locked";
    let wrong = ["Authorization: Basic YW5uOm5v".to_owned()];
    has(
        said("GET", locked, |request| request.headers = &wrong),
        &["auth basic: the request shows one", "refused: 401 `auth.basic.wrong`"],
        true,
    );
    let right = ["authorization: basic YW5uOnBhc3M=".to_owned()];
    let (text, refused) = said("GET", locked, |request| request.headers = &right);
    assert!(!text.contains("YW5u"), "{text}");
    has((text, refused), &["caller ann, by basic", "rule", "refused: 403 `authz.require`"], true);
}

#[test]
fn a_credential_of_another_shape_is_none() {
    let url = "http://h:8080/keyed";
    for (key, shown, code) in
        [("X-Key: k_else", "one", "auth.api_key.unknown"), ("X-Key: else", "none", "auth.none")]
    {
        let key = [key.to_owned()];
        let lines =
            [format!("auth api_key: the request shows {shown}"), format!("refused: 401 `{code}`")];
        has(said("GET", url, |request| request.headers = &key), &[&lines[0], &lines[1]], true);
    }
}

#[test]
fn preflights_are_answered_before_anybody_is_asked_who_they_are() {
    let asks = [
        "Origin: https://app.example".to_owned(),
        "Access-Control-Request-Method: POST".to_owned(),
    ];
    has(
        said("OPTIONS", "http://h:8080/page", |request| request.headers = &asks),
        &["preflight", "answer by the edge itself"],
        false,
    );
}

#[test]
fn what_was_asked_cannot_steer_a_terminal() {
    let (text, _) = said("GET", "http://h:8080/open/x?a=\u{1b}[2J\u{202e}", |_| {});
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.lines().all(|line| !line.starts_with('[')), "{text}");
}

#[test]
fn listeners_answer_by_themselves() {
    has(
        said("GET", "http://h:8080/healthz", |_| {}),
        &["health_path", "answer by the edge"],
        false,
    );
    let known = "http://known.example:8082/known";
    has(said("GET", known, |_| {}), &["redirects to https, port 443"], false);
    // a route that names the listener is served there
    has(
        said("GET", "http://plain.example:8082/plain", |_| {}),
        &["route", "what the server says"],
        false,
    );
    let unknown = said("GET", "http://h:8082/open", |_| {});
    has(unknown, &["listener", "refused: 421 `redirect.unknown_host`"], true);
    let of_resource = "/.well-known/oauth-protected-resource";
    for path in [of_resource, &format!("{of_resource}/open")] {
        let url = format!("http://h:8080{path}");
        has(said("GET", &url, |_| {}), &["refused: 404 `route.no_path`"], true);
    }
    let url = format!("http://tokens.example:8080{of_resource}");
    has(said("GET", &url, |_| {}), &["serves the metadata of an OAuth resource"], false);
    let url = "http://tokens.example:8080/.well-known/openid-configuration";
    has(said("GET", url, |_| {}), &["refused: 404"], true);
    has(said("GET", "http://tokens.example:8080/token", |_| {}), &["refused: 404"], true);
    let from = |request: &mut Request<'_>| request.from = "192.0.2.7".parse().unwrap();
    has(said("GET", "http://127.0.0.1:8081/open", from), &["keep it out", "closed"], true);
    has(said("GET", "https://h/open", |_| {}), &["none listens on port 443 of https"], false);
    let there = |request: &mut Request<'_>| request.listener = Some("1.1.1.1:1".parse().unwrap());
    has(said("GET", "http://h:8080/open", there), &["there is none such; there are"], true);
}

#[test]
fn what_cannot_be_read_is_said_without_its_value() {
    let read = |method: &str, url: &str, header: &str| {
        let headers = [header.to_owned()];
        let from = "127.0.0.1".parse().unwrap();
        let request = Request { method, url, headers: &headers, from, tool: None, listener: None };
        request.read().map(drop).unwrap_err()
    };
    assert!(read("G T", "http://h/", "a: b").contains("not a method"));
    assert!(read("GET", "ftp://h/", "a: b").contains("must start with http"));
    let said = read("GET", "http://h/", "X-Key: sec\u{7f}ret");
    assert!(said.contains("`X-Key`") && !said.contains("sec"), "{said}");
    assert!(!read("GET", "http://h/", "secret").contains("secret"));
}
