//! In: names and passwords, right and wrong; out: who is let in by an htpasswd file.

use std::thread;
use std::time::{Duration, Instant};

use super::{Files, SHA, WORD, basic, basic_raw, guarded, outcome, verdict, with};
use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::client::Client;
use crate::support::h2::{H2, request};

const WRONG: &str = "auth.basic.wrong";
/// Enough failures for every test but those of failures.
const MANY: &str = ", failures: 100000/s";

#[test]
fn every_kind_of_hash_lets_the_right_password_in() {
    let (files, backend) = (Files::new(), plain());
    let edge = guarded(&backend, &files.basic("htpasswd", MANY), "").start();
    let text = include_str!("htpasswd");
    let users = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(':').next());
    let users: Vec<&str> = users.collect();
    assert_eq!(users.len(), 13);
    for user in &users {
        for (password, expected) in
            [(WORD, "ok"), ("pass", WRONG), ("", WRONG), (WORD, "ok"), ("pass:wörd ", WRONG)]
        {
            assert_eq!(outcome(&edge, &basic(user, password)), expected, "{user} {password:?}");
        }
    }
    assert_eq!(backend.count(), 2 * users.len(), "who is refused does not get through");
}

#[test]
fn a_401_says_how_to_come_in() {
    let (files, backend) = (Files::new(), plain());
    let realm = r#", realm: 'Our "tools"'"#;
    let edge = guarded(&backend, &files.basic("htpasswd", realm), "").start();
    for lines in ["".to_owned(), basic("sha", "wrong"), "Authorization: Bearer x\r\n".to_owned()] {
        let answer = edge.ask(with(&lines));
        answer.assert_refused(401);
        assert_eq!(answer.count("www-authenticate"), 1);
        let challenge = r#"Basic realm="Our \"tools\"", charset="UTF-8""#;
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
    }
}

#[test]
fn credentials_are_read_strictly() {
    let (files, backend) = (Files::new(), plain());
    files.write("users", &format!("jörg:{SHA}\r\n\r\n# comment\r\nann:{SHA}\r\n"));
    let edge = guarded(&backend, &files.basic("users", MANY), "").start();
    let malformed = "auth.basic.malformed";
    let long = format!("ann:{}", "x".repeat(4093));
    for (lines, expected) in [
        (basic("ann", WORD), "ok"),
        (basic("jörg", WORD), "ok"),
        (basic("ann", WORD).replace("Basic ", "bAsIc   "), "ok"),
        (basic("ann", WORD).replace("Authorization", "aUthorization"), "ok"),
        (basic("Ann", WORD), WRONG),
        (basic("", WORD), malformed),
        (basic("#", " comment"), WRONG),
        (basic("ann", "a\0b"), malformed),
        (basic_raw(b"ann"), malformed),
        (basic_raw(b""), malformed),
        (basic_raw(b"j\xf6rg:x"), malformed),
        (basic_raw(&long.as_bytes()[..4096]), WRONG),
        (basic_raw(long.as_bytes()), malformed),
        ("Authorization: Basic\r\n".to_owned(), malformed),
        ("Authorization: Basic ????\r\n".to_owned(), malformed),
        ("Authorization: Basic YW5uOnBhc3M6d8O2cmQ=, Basic x\r\n".to_owned(), malformed),
        ("Authorization: Basic YW5uOnBhc3M6d8O2cmQ= x\r\n".to_owned(), malformed),
        ("Authorization:\r\n".to_owned(), "auth.none"),
        ("Authorization: Digest x\r\n".to_owned(), "auth.none"),
        ("Proxy-Authorization: Basic YW5uOnBhc3M6d8O2cmQ=\r\n".to_owned(), "auth.none"),
    ] {
        assert_eq!(outcome(&edge, &lines), expected, "{lines}");
    }
}

#[test]
fn bcrypt_reads_72_bytes_as_everywhere() {
    let (files, backend) = (Files::new(), plain());
    // 72 times x, by `htpasswd -nbB -C 5`
    files.write("users", "ann:$2y$05$K2tLBniQI48qXCnHyPimGeOHQxINBGLEiSZB6N8PY6NLnFH3RTenW\n");
    let edge = guarded(&backend, &files.basic("users", MANY), "").start();
    assert_eq!(outcome(&edge, &basic("ann", &"x".repeat(72))), "ok");
    assert_eq!(outcome(&edge, &basic("ann", &"x".repeat(80))), "ok");
    assert_eq!(outcome(&edge, &basic("ann", &"x".repeat(71))), WRONG);
}

#[test]
fn what_changes_in_the_file_counts_for_the_next_request() {
    let (files, backend) = (Files::new(), plain());
    files.write("users", &format!("ann:{SHA}\nbob:{SHA}\n"));
    let edge = guarded(&backend, &files.basic("users", MANY), "").start();
    let mut client = edge.client();
    let mut ask = |user: &str, password: &str| {
        let answer = client.ask(with(&basic(user, password)));
        verdict(&edge, &answer)
    };
    assert_eq!((ask("ann", WORD), ask("bob", WORD)), ("ok".into(), "ok".into()));
    files.write("users", &format!("ann:{SHA}\n"));
    assert_eq!((ask("bob", WORD), ask("ann", WORD)), (WRONG.into(), "ok".into()));
    // `password`, by `htpasswd -nbs`
    files.write(
        "users",
        "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\nbob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n",
    );
    assert_eq!((ask("ann", WORD), ask("ann", "password")), (WRONG.into(), "ok".into()));
    assert_eq!(ask("bob", "password"), "ok");
    // put in its place by a rename, as `sed -i` and config management do it
    files.write("users.new", &format!("cid:{SHA}\n"));
    std::fs::rename(files.path("users.new"), files.path("users")).unwrap();
    assert_eq!((ask("ann", "password"), ask("cid", WORD)), (WRONG.into(), "ok".into()));
    files.write("users", "# nobody\n");
    assert_eq!(ask("cid", WORD), WRONG);
}

#[test]
fn a_bad_line_or_no_file_keeps_nobody_in_who_is_out() {
    let (files, backend) = (Files::new(), plain());
    let path = files.write("users", &format!("ann:{SHA}\nbob:{SHA}\ncid:{SHA}\n"));
    let edge = guarded(&backend, &files.basic("users", MANY), "").start();
    let outcomes = || ["ann", "bob", "cid"].map(|user| outcome(&edge, &basic(user, WORD)));
    assert_eq!(outcomes(), ["ok", "ok", "ok"]);
    // bob is taken out, and somebody slips
    files.write("users", &format!("ann:{SHA}\ncid:hunter2\n"));
    assert_eq!(outcomes(), ["ok", WRONG, WRONG]);
    assert_eq!(outcome(&edge, &basic("cid", "hunter2")), WRONG);
    edge.wait_line(&format!("`{path}`: line 2: the password stands there"));
    assert!(!edge.stderr().iter().any(|line| line.contains("hunter2")));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(outcomes(), [WRONG, WRONG, WRONG]);
    edge.wait_line("users`: No such file or directory");
    files.write("users", &format!("bob:{SHA}\n"));
    assert_eq!(outcomes(), [WRONG, "ok", WRONG]);
    edge.wait_line("users is good again");
}

#[test]
fn failures_shut_out_their_own_address() {
    let (files, backend) = (Files::new(), plain());
    let edge = guarded(&backend, &files.basic("htpasswd", ", failures: 2/h burst 3"), "").start();
    for (user, password) in [("sha", "x"), ("nobody", WORD), ("sha", "y")] {
        assert_eq!(outcome(&edge, &basic("sha", WORD)), "ok", "what is right takes nothing");
        assert_eq!(outcome(&edge, &basic(user, password)), WRONG);
    }
    for password in ["z", WORD] {
        let answer = edge.ask(with(&basic("sha", password)));
        answer.assert_refused(429);
        let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=1800).contains(&wait), "{wait}");
        assert_eq!(edge.log_of(&answer)["code"], "auth.basic.failures");
    }
    let other =
        Client::from("127.0.0.2".parse().unwrap(), edge.address()).ask(with(&basic("sha", WORD)));
    assert_eq!(other.status, 200, "another address is not concerned");
}

#[test]
fn routes_with_the_same_settings_count_failures_together() {
    let (files, backend) = (Files::new(), plain());
    let (same, other) = (", failures: 1/h burst 2", ", failures: 1/h burst 2, cache: 1m");
    let edge = guarded(&backend, &files.basic("htpasswd", same), "path: /x")
        .raw_route(&format!("upstream: one, path: /y, auth: [ {} ]", files.basic("htpasswd", same)))
        .raw_route(&format!(
            "upstream: one, path: /z, auth: [ {} ]",
            files.basic("htpasswd", other)
        ))
        .start();
    let ask = |path: &str, password: &str| {
        let request = with(&basic("sha", password)).replacen("/x", path, 1);
        verdict(&edge, &edge.ask(request))
    };
    assert_eq!((ask("/x", "1"), ask("/y", "2")), (WRONG.into(), WRONG.into()));
    for path in ["/x", "/y"] {
        assert_eq!(ask(path, WORD), "auth.basic.failures", "{path}");
    }
    assert_eq!(ask("/z", WORD), "ok", "another count");
}

#[test]
fn a_right_password_is_hashed_once() {
    let (files, backend) = (Files::new(), plain());
    let edge = guarded(&backend, &files.basic("htpasswd", MANY), "").start();
    let timed = |password: &str, times: u32| {
        let start = Instant::now();
        for _ in 0..times {
            outcome(&edge, &basic("bcrypt", password));
        }
        start.elapsed()
    };
    let once = timed(WORD, 1);
    assert!(timed(WORD, 50) < once * 10, "fifty hashes would have taken {:?}", once * 50);
    assert!(timed("wrong", 2) > once / 3, "a wrong one costs a hash each time");
}

#[test]
fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let (files, backend) = (Files::new(), plain());
    let line = include_str!("htpasswd").lines().find(|l| l.starts_with("bcrypt:")).unwrap();
    files.write("users", &format!("{line}\nquick:{SHA}\nbob:{}\n", &line[7..]));
    let edge = guarded(&backend, &files.basic("users", MANY), "").start();
    let timed = |user: &str| {
        let start = Instant::now();
        assert_eq!(outcome(&edge, &basic(user, "wrong")), WRONG);
        start.elapsed()
    };
    let known = timed("bcrypt").min(timed("bcrypt"));
    // `quick` has a hash that costs nothing
    for user in ["nobody", "b", "bcrypt2", "quick"] {
        let unknown = timed(user);
        assert!(unknown > known / 3, "{user}: {unknown:?}, a known one takes {known:?}");
    }
}

#[test]
fn too_many_passwords_at_once_are_answered_503_and_the_rest_goes_on() {
    let (files, backend) = (Files::new(), plain());
    // by `htpasswd -nbB -C 9`: slow enough to pile up
    files.write("users", "ann:$2y$09$r6Aa54wjfFhhrSJKaAX04OdOXpdzr058nC6AcBIw9Sb1xjegEzLei\n");
    let edge = guarded(&backend, &files.basic("users", MANY), "")
        .listener("health_path: /healthz")
        .start();
    assert_eq!(outcome(&edge, &basic("ann", WORD)), "ok");
    // as many threads as half the cores, and 32 that wait for each
    let threads = thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
    let many = threads * 33 + 30;
    let mut clients: Vec<_> = (0..many).map(|_| edge.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(with(&basic("ann", &format!("wrong {n}"))));
    }
    // known already, and so never in the queue
    assert_eq!(outcome(&edge, &basic("ann", WORD)), "ok");
    assert_eq!(edge.get("/healthz").status, 200);
    let full: Vec<_> = clients
        .iter_mut()
        .filter_map(|client| {
            let answer = client.response();
            assert!([401, 503].contains(&answer.status));
            (answer.status == 503).then_some(answer)
        })
        .collect();
    assert!(full.len() >= 20 && full.len() < many - threads, "{} of {many}", full.len());
    assert_eq!(full[0].header("retry-after"), Some("1"));
    assert_eq!(verdict(&edge, &full[0]), "auth.basic.busy");
}

#[test]
fn one_password_on_many_connections_is_one_hash() {
    let (files, backend) = (Files::new(), plain());
    let edge = guarded(&backend, &files.basic("htpasswd", ", failures: 1/h burst 2"), "").start();
    let mut clients: Vec<_> = (0..100).map(|_| edge.client()).collect();
    let start = Instant::now();
    for client in &mut clients {
        client.send(with(&basic("bcrypt", WORD)));
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    // more than one at a time would have found nothing left for failures, and a hundred no end
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

#[test]
fn http2_is_asked_the_same() {
    let (files, certs, backend) = (Files::new(), Certs::new(), plain());
    let edge =
        guarded(&backend, &files.basic("htpasswd", MANY), "").listener(&certs.listener()).start();
    let mut h2 = H2::connect(edge.address(), certs.client(&["h2"]));
    let mut ask = |fields: &[(&str, &str)]| h2.ask(request("GET", "/x", fields), b"").unwrap();
    let right = basic("sha", WORD);
    let right = right.trim_end().strip_prefix("Authorization: ").unwrap();
    assert_eq!(ask(&[("authorization", right)]).status, 200);
    assert_eq!(ask(&[("authorization", "Basic eDp5")]).status, 401);
    assert_eq!(ask(&[("authorization", right), ("authorization", right)]).status, 400);
    assert_eq!(ask(&[]).status, 401);
}
