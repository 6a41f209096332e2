//! Every field of every method is one that refuses. In: a config with it as it should be, and with it changed;
//! out: the request passes, and the same request does not. (Those of certificates stand with these.)

use super::{Files, SHA, WORD, basic, guarded, outcome};
use crate::support::backend::plain;

#[test]
fn every_field_refuses() {
    let (files, backend) = (Files::new(), plain());
    files.write("ann", &format!("ann:{SHA}\n"));
    files.write("bob", &format!("bob:{SHA}\n"));
    let (key, other) =
        (files.write("key", "k-0123456789abcdef"), files.write("other", "k-0123456789abcdee"));
    // by `printf %s k-0123456789abcdef | sha256sum`
    let sum = "6b1ed3249bfeaf163cc86042729f1023caea2e1d2f3594407894563fdf054b42";
    let keys =
        |header: &str, key: &str| format!("{{ api_key: {{ {header}keys: [ {{ {key} }} ] }} }}");
    let value = |path: &str| format!("name: a, value: \"${{file:{path}}}\"");
    let hash = |sum: &str| format!("name: a, sha256: \"{sum}\"");
    let ann = basic("ann", WORD);
    let x_key = "X-API-Key: k-0123456789abcdef\r\n".to_owned();
    let bearer = "Authorization: Bearer k-0123456789abcdef\r\n".to_owned();
    let both = format!("{ann}{x_key}");
    let password = files.basic("ann", "");
    let table = [
        ("basic", password.clone(), "anonymous".to_owned(), String::new(), ""),
        ("basic.file", password.clone(), files.basic("bob", ""), ann.clone(), "auth.basic.wrong"),
        (
            "api_key.value",
            keys("", &value(&key)),
            keys("", &value(&other)),
            x_key.clone(),
            "auth.api_key.unknown",
        ),
        (
            "api_key.sha256",
            keys("", &hash(sum)),
            keys("", &hash(&sum.replace('a', "b"))),
            x_key.clone(),
            "auth.api_key.unknown",
        ),
        (
            "api_key.header",
            keys("", &value(&key)),
            keys("header: X-Key, ", &value(&key)),
            x_key.clone(),
            "auth.none",
        ),
        (
            "api_key.header",
            keys("header: Authorization, ", &value(&key)),
            keys("", &value(&key)),
            bearer,
            "auth.none",
        ),
        (
            "api_key.prefix",
            keys("prefix: k-, ", &hash(sum)),
            keys("prefix: m-, ", &hash(sum)),
            x_key.clone(),
            "auth.none",
        ),
        (
            "api_key.expires",
            keys("", &(value(&key) + ", expires: 2999-01-01")),
            keys("", &(value(&key) + ", expires: 2001-01-01")),
            x_key.clone(),
            "auth.api_key.expired",
        ),
        (
            "all",
            format!("{{ all: [ {password}, {} ] }}", keys("", &value(&key))),
            format!("{{ all: [ {password}, {} ] }}", keys("", &value(&other))),
            both.clone(),
            "auth.api_key.unknown",
        ),
        (
            "all, one more",
            password.clone(),
            format!("{{ all: [ {password}, {} ] }}", keys("header: X-Other, ", &value(&key))),
            both,
            "auth.all.missing",
        ),
    ];
    for (field, good, flipped, lines, code) in &table {
        if code.is_empty() {
            // the other way round: who needs no credential under `anonymous` needs one under `basic`
            assert_eq!(outcome(&guarded(&backend, flipped, "").start(), lines), "ok");
            assert_eq!(outcome(&guarded(&backend, good, "").start(), lines), "auth.none");
            continue;
        }
        assert_eq!(outcome(&guarded(&backend, good, "").start(), lines), "ok", "{field}");
        assert_eq!(outcome(&guarded(&backend, flipped, "").start(), lines), *code, "{field}");
    }
}

#[test]
fn failures_refuse_by_their_rate() {
    let (files, backend) = (Files::new(), plain());
    files.write("ann", &format!("ann:{SHA}\n"));
    for (rate, last) in
        [("1/h burst 5", "auth.basic.wrong"), ("1/h burst 4", "auth.basic.failures")]
    {
        let method = files.basic("ann", &format!(", failures: {rate}"));
        let edge = guarded(&backend, &method, "").start();
        for _ in 0..4 {
            assert_eq!(outcome(&edge, &basic("ann", "x")), "auth.basic.wrong");
        }
        assert_eq!(outcome(&edge, &basic("ann", "x")), last, "{rate}");
    }
    // the default
    let edge = guarded(&backend, &files.basic("ann", ""), "").start();
    let codes: Vec<String> = (0..12).map(|_| outcome(&edge, &basic("ann", "x"))).collect();
    assert_eq!(codes.iter().filter(|code| *code == "auth.basic.wrong").count(), 10);
}
