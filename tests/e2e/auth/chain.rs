//! In: several methods on one route, and requests with several credentials; out: which method has judged.

use super::{Files, WORD, basic, guarded, outcome, verdict, with};
use crate::support::backend::plain;
use crate::support::edge::edge;

const KEY: &str = "mcpk_0123456789abcdef";

/// Methods, and what comes of requests with these header lines.
type Cases<'a> = (&'a [&'a str], &'a [(String, &'a str)]);

/// The method `api_key` with one key, `name: ci`.
fn api_key(files: &Files, rest: &str) -> String {
    let path = files.write("key", "other_0123456789abcdef");
    let mcpk = files.write("mcpk", "a-key-0123456789abcdef");
    let value = if rest.contains("other_") { path } else { mcpk };
    format!("{{ api_key: {{ {rest}keys: [ {{ name: ci, value: \"${{file:{value}}}\" }} ] }} }}")
}

const X_KEY: &str = "X-API-Key: a-key-0123456789abcdef\r\n";
const BEARER: &str = "Authorization: Bearer a-key-0123456789abcdef\r\n";

#[test]
fn nobody_knocks_in_vain_without_hearing_every_way_in() {
    let (files, backend) = (Files::new(), plain());
    let methods = [
        files.basic("htpasswd", ""),
        api_key(&files, ""),
        api_key(&files, "header: Authorization, realm: keys, "),
    ];
    let edge = guarded(&backend, &methods.join(", "), "").start();
    let answer = edge.ask(with(""));
    answer.assert_refused(401);
    let named = |name: &str| name.eq_ignore_ascii_case("www-authenticate");
    let challenges: Vec<&str> =
        answer.headers.iter().filter(|(n, _)| named(n)).map(|(_, v)| v.as_str()).collect();
    assert_eq!(
        challenges,
        [
            "Bearer realm=\"keys\"",
            "Basic realm=\"MCP\", charset=\"UTF-8\"",
            "ApiKey realm=\"MCP\", header=\"x-api-key\""
        ]
    );
    assert_eq!(verdict(&edge, &answer), "auth.none");
}

#[test]
fn the_first_that_finds_its_own_decides() {
    let (files, backend) = (Files::new(), plain());
    let (password, key) = (files.basic("htpasswd", ""), api_key(&files, ""));
    let right = basic("sha", WORD);
    let wrong = basic("sha", "wrong");
    let (bad_key, unknown) = ("X-API-Key: x\r\n", "auth.api_key.unknown");
    let edge_of = |auth: &[&str]| guarded(&backend, &auth.join(", "), "").start();
    let table: [Cases<'_>; 3] = [
        (
            &[&password, &key],
            &[
                (right.clone(), "ok"),
                (X_KEY.into(), "ok"),
                (wrong.clone() + X_KEY, "auth.basic.wrong"),
                (right.clone() + bad_key, "ok"),
                (bad_key.into(), unknown),
                (BEARER.into(), "auth.none"),
            ],
        ),
        (&[&key, &password], &[(wrong.clone() + X_KEY, "ok"), (right.clone() + bad_key, unknown)]),
        (
            &[&password, "anonymous"],
            &[
                (String::new(), "ok"),
                (BEARER.into(), "ok"),
                (wrong.clone(), "auth.basic.wrong"),
                ("Authorization: Basic\r\n".into(), "auth.basic.malformed"),
            ],
        ),
    ];
    for (auth, cases) in table {
        let edge = edge_of(auth);
        for (lines, expected) in cases {
            assert_eq!(outcome(&edge, lines), *expected, "{auth:?} {lines}");
        }
    }
}

#[test]
fn bearer_keys_are_told_apart_by_their_prefixes() {
    let (files, backend) = (Files::new(), plain());
    let first = api_key(&files, "header: Authorization, prefix: a-key-, ");
    let second = api_key(&files, "header: Authorization, prefix: other_, ");
    let edge = guarded(&backend, &format!("{first}, {second}"), "").start();
    for (key, expected) in [
        ("a-key-0123456789abcdef", "ok"),
        ("other_0123456789abcdef", "ok"),
        ("other_0123456789abcdee", "auth.api_key.unknown"),
        (KEY, "auth.none"),
    ] {
        assert_eq!(outcome(&edge, &format!("Authorization: Bearer {key}\r\n")), expected, "{key}");
    }
}

#[test]
fn all_demands_every_one_and_names_the_first() {
    let (files, backend) = (Files::new(), plain());
    let all = format!("{{ all: [ {}, {} ] }}", files.basic("htpasswd", ""), api_key(&files, ""));
    let edge = guarded(&backend, &all, "identity: { X-User: subject }").start();
    let (right, wrong) = (basic("sha", WORD), basic("sha", "wrong"));
    let missing = "auth.all.missing";
    for (lines, expected) in [
        (right.clone() + X_KEY, "ok"),
        (right.clone(), missing),
        (X_KEY.into(), missing),
        (String::new(), "auth.none"),
        (wrong + X_KEY, "auth.basic.wrong"),
        (right.clone() + "X-API-Key: x\r\n", "auth.api_key.unknown"),
        (right.clone() + X_KEY, "ok"),
    ] {
        assert_eq!(outcome(&edge, &lines), expected, "{lines}");
    }
    assert_eq!(backend.last().all("x-user"), ["sha"]);
    assert_eq!(backend.count(), 2);
    let refused = edge.ask(with(&right));
    assert_eq!(refused.count("www-authenticate"), 2, "both are needed");
}

#[test]
fn a_credential_that_stands_twice_is_refused() {
    let (files, backend) = (Files::new(), plain());
    let auth = format!("{}, {}", files.basic("htpasswd", ""), api_key(&files, ""));
    let edge = guarded(&backend, &auth, "").start();
    let right = basic("sha", WORD);
    for lines in [
        right.clone() + &right,
        right.clone() + BEARER,
        format!("{BEARER}{right}"),
        format!("{X_KEY}{X_KEY}"),
        format!("{right}{X_KEY}x-api-key: b\r\n"),
    ] {
        let answer = edge.ask(with(&lines));
        answer.assert_refused(400);
        assert_eq!(edge.log_of(&answer)["code"], "auth.doubled", "{lines}");
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn without_tls_nobody_has_a_certificate() {
    let (files, backend) = (Files::new(), plain());
    let certificate = "{ client_certificate: { principal: common_name } }";
    let both = format!("{{ all: [ {certificate}, {} ] }}", files.basic("htpasswd", ""));
    let edge = edge()
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!("upstream: one, path: /x, auth: [ {both}, anonymous ]"))
        .start();
    assert_eq!(outcome(&edge, &basic("sha", WORD)), "auth.all.missing");
    assert_eq!(outcome(&edge, "X-Client-Cert: x\r\nX-SSL-Client-Verify: SUCCESS\r\n"), "ok");
}
