//! In: API keys, and the command that makes them; out: who is let in, and what is printed.

use std::process::Command;

use super::{Files, guarded, outcome, with};
use crate::support::backend::plain;
use crate::support::edge::binary;

/// What `key new` prints.
fn new_key(args: &[&str]) -> (String, String) {
    let out = Command::new(binary()).args(["key", "new"]).args(args).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    (text.lines().next().unwrap().to_owned(), text)
}

#[test]
fn a_new_key_and_its_lines_fit() {
    let (files, backend) = (Files::new(), plain());
    let (key, text) = new_key(&["--name", "Ann's laptop"]);
    assert!(key.starts_with("mcpk_") && key.len() == 51, "{key}");
    let line = text.lines().find(|line| line.contains("sha256:")).unwrap();
    let entry = line.trim().strip_prefix("- ").unwrap();
    assert!(!entry.contains(&key), "the config does not hold the key");
    let value = files.write("value", &format!("{}\n", new_key(&[]).0));
    let keys = format!(
        "{{ api_key: {{ prefix: mcpk_, keys: [ {entry}, {{ name: file, value: \"${{file:{value}}}\" }} ] }} }}"
    );
    let edge = guarded(&backend, &keys, "").start();
    let of_file = std::fs::read_to_string(&value).unwrap();
    for (sent, expected) in [
        (key.as_str(), "ok"),
        (of_file.trim(), "ok"),
        (&key[..50], "auth.api_key.unknown"),
        (&new_key(&[]).0, "auth.api_key.unknown"),
        ("mcpk_", "auth.api_key.unknown"),
        ("other", "auth.none"),
        ("", "auth.none"),
    ] {
        assert_eq!(outcome(&edge, &format!("X-API-Key: {sent}\r\n")), expected, "{sent}");
    }
    let answer = edge.ask(with(&format!("X-API-Key: {key}\r\n")));
    let log = edge.log_of(&answer);
    assert_eq!((&log["auth"], &log["principal"]), (&"api_key".into(), &"Ann's laptop".into()));
    assert!(!edge.stdout().concat().contains("mcpk_"), "no key in the log");
}

#[test]
fn keys_end_on_their_day() {
    let (files, backend) = (Files::new(), plain());
    for (n, (expires, expected)) in
        [("2020-01-01", "auth.api_key.expired"), ("2999-01-01", "ok")].into_iter().enumerate()
    {
        let value = files.write(&format!("key{n}"), "a-key-0123456789abcdef");
        let keys = format!(
            "{{ api_key: {{ keys: [ {{ name: a, value: \"${{file:{value}}}\", expires: {expires} }} ] }} }}"
        );
        let edge = guarded(&backend, &keys, "").start();
        let lines = "X-API-Key: a-key-0123456789abcdef\r\n";
        assert_eq!(outcome(&edge, lines), expected);
        assert_eq!(outcome(&edge, "X-API-Key: a-key-0123456789abcdee\r\n"), "auth.api_key.unknown");
    }
}

#[test]
fn a_bad_prefix_makes_no_key() {
    let out = Command::new(binary()).args(["key", "new", "--prefix", "a b"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("a prefix has"));
    assert!(new_key(&["--prefix", "acme_"]).0.starts_with("acme_"));
}

#[test]
fn a_page_may_send_its_key_wherever_the_route_wants_it() {
    let (files, backend) = (Files::new(), plain());
    let value = files.write("key", "a-key-0123456789abcdef");
    let keys = format!(
        "{{ api_key: {{ header: X-Team-Key, keys: [ {{ name: a, value: \"${{file:{value}}}\" }} ] }} }}"
    );
    let edge = guarded(&backend, &keys, "origins: [ https://app.example.com ]").start();
    let answer = edge.ask(
        "OPTIONS /x HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example.com\r\n\
         Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: x-other, x-team-key\r\n\r\n",
    );
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-team-key"));
}
