//! The method as a whole. In: a file of its own and credentials; out: who is let in, and what it costs.

use std::fs;

use tempfile::TempDir;

use super::super::tests::head;
use super::*;

const HERE: &str = "192.0.2.1";
/// `pass:wörd`, by `htpasswd -nbB -C 5` and `-nbs`.
const BCRYPT: &str = "$2y$05$cH7okCpaz5P18AYnxA/GWed6KNq./mE3KsT.7OWsCBUaiYYfu3/CC";
const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";

struct Stage {
    dir: TempDir,
    basic: Basic,
}

impl Stage {
    fn new(text: &str, failures: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("users"), text).unwrap();
        let file = Watched::named("users".to_owned(), vec![dir.path().join("users")], |paths| {
            Users::read(&paths[0], "r")
        });
        let memory = Memory {
            right: Cache::new(Duration::from_secs(60)).unwrap(),
            failures: Buckets::new(Rate::parse(failures).unwrap(), 1000),
        };
        let challenge = HeaderValue::from_static("Basic");
        let basic = Basic { file: file.unwrap(), challenge, memory: Arc::new(memory) };
        Self { dir, basic }
    }

    fn write(&self, text: &str) {
        fs::write(self.dir.path().join("users"), text).unwrap();
    }

    /// Whom an attempt makes, or why it makes nobody; and whether that took a hash.
    fn attempt(&self, address: &str, credentials: &str) -> (String, bool) {
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, credentials);
        self.ask(address, &format!("Basic {encoded}"))
    }

    fn ask(&self, address: &str, authorization: &str) -> (String, bool) {
        let head = head(&[("authorization", authorization)]);
        let address = address.parse().unwrap();
        let client = Client { address, hidden: false, tls: true, certificate: None };
        let (verdict, slow) = match self.basic.authenticate(&head, &client) {
            Verdict::Absent => return ("absent".to_owned(), false),
            Verdict::Known(who) => (Ok(who), false),
            Verdict::Refused(denial) => (Err(denial), false),
            Verdict::Later(later) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                (runtime.block_on(later), true)
            }
        };
        let text = match verdict {
            Ok(who) => who.subject.clone(),
            Err(denial) => denial.code.to_owned(),
        };
        (text, slow)
    }
}

fn slow(text: &str) -> (String, bool) {
    (text.to_owned(), true)
}

fn quick(text: &str) -> (String, bool) {
    (text.to_owned(), false)
}

#[test]
fn the_second_time_costs_no_hash() {
    let stage = Stage::new(&format!("ann:{BCRYPT}\n"), "1000/s");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("ann"));
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), quick("ann"));
    assert_eq!(stage.attempt("192.0.2.2", "ann:pass:wörd"), quick("ann"));
    for wrong in ["ann:pass", "ann:pass:wörd ", "bob:pass:wörd", "ann:"] {
        assert_eq!(stage.attempt(HERE, wrong), slow("auth.basic.wrong"), "{wrong}");
        assert_eq!(stage.attempt(HERE, wrong), slow("auth.basic.wrong"), "{wrong}, again");
    }
}

#[test]
fn what_changes_in_the_file_counts_at_once() {
    let stage = Stage::new(&format!("ann:{BCRYPT}\nbob:{SHA}\n"), "1000/s");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("ann"));
    assert_eq!(stage.attempt(HERE, "bob:pass:wörd"), slow("bob"));
    stage.write(&format!("ann:{SHA}\n"));
    assert_eq!(stage.attempt(HERE, "bob:pass:wörd"), slow("auth.basic.wrong"), "removed");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("ann"), "another hash of the same");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), quick("ann"));
    stage.write("ann:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=\n");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("auth.basic.wrong"), "another password");
    stage.write("# nobody is left\n");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("auth.basic.wrong"));
    stage.write(&format!("ann:{SHA}\nbob:{SHA}\n"));
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), quick("ann"));
    stage.write(&format!("ann\nbob:{SHA}\n"));
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("auth.basic.wrong"), "a bad line");
    assert_eq!(stage.attempt(HERE, "bob:pass:wörd"), quick("bob"), "beside a good one");
    fs::remove_file(stage.dir.path().join("users")).unwrap();
    assert_eq!(stage.attempt(HERE, "bob:pass:wörd"), slow("auth.basic.wrong"), "no file");
    stage.write(&format!("bob:{SHA}\n"));
    assert_eq!(stage.attempt(HERE, "bob:pass:wörd"), quick("bob"), "it is back");
}

/// Counted, not timed.
#[test]
fn a_wrong_password_makes_as_many_hashes_for_everybody() {
    let (users, problems) =
        Users::parse(format!("ann:{BCRYPT}\nbob:{SHA}\ncid:{SHA}\n").as_bytes(), "r");
    assert!(problems.is_empty());
    let cost = |name: &str, password: &str| {
        let (known, mut made) = (users.get(name), Vec::new());
        let right = is_right(known.map(|user| &user.hash), &users.besides(known), |hash| {
            made.push(hash.kind());
            hash.fits(password.as_bytes())
        });
        made.sort_unstable();
        (right, made)
    };
    let (sha, bcrypt) = (hash::Kind::Sha1, hash::Kind::Bcrypt(5));
    for name in ["ann", "bob", "cid", "nobody"] {
        assert_eq!(cost(name, "wrong"), (false, vec![sha, bcrypt]), "{name}");
    }
    // somebody else's hash that fits makes nobody
    assert_eq!(cost("nobody", "pass:wörd"), (false, vec![sha, bcrypt]));
    assert_eq!(cost("bob", "pass:wörd"), (true, vec![sha]), "what is right stays cheap");
    assert_eq!(cost("ann", "pass:wörd"), (true, vec![bcrypt]));
}

#[test]
fn failures_shut_an_address_out_and_no_other() {
    let stage = Stage::new(&format!("ann:{SHA}\n"), "1/h burst 3");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("ann"));
    for n in 0..20 {
        // a right password takes nothing away
        assert_eq!(
            stage.attempt("192.0.2.9", &format!("ann:{n}")).0,
            if n < 3 { "auth.basic.wrong" } else { "auth.basic.failures" }
        );
        assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), quick("ann"));
    }
    for user in ["nobody", "none", "nil"] {
        assert_eq!(stage.attempt(HERE, &format!("{user}:x")), slow("auth.basic.wrong"));
    }
    let limited = quick("auth.basic.failures");
    assert_eq!(stage.attempt(HERE, "ann:x"), limited, "unknown users count, too");
    assert_eq!(
        stage.attempt(HERE, "ann:pass:wörd"),
        limited,
        "or the cache could be asked for ever"
    );
    assert_eq!(stage.attempt("192.0.2.2", "ann:pass:wörd"), quick("ann"));
}

#[test]
fn a_flood_from_everywhere_shuts_out_nobody_whose_password_is_known() {
    let stage = Stage::new(&format!("ann:{SHA}\nbob:{SHA}\n"), "1/h burst 1");
    assert_eq!(stage.attempt(HERE, "ann:pass:wörd"), slow("ann"));
    for n in 0..2000 {
        stage.attempt(&format!("2001:db8:{n:x}::1"), "ann:x");
    }
    let limited = quick("auth.basic.failures");
    assert_eq!(stage.attempt("192.0.2.77", "bob:pass:wörd"), limited, "nothing is hashed");
    assert_eq!(stage.attempt("192.0.2.78", "ann:pass:wörd"), quick("ann"));
}

#[test]
fn an_ipv6_network_is_one_address() {
    let stage = Stage::new(&format!("ann:{SHA}\n"), "1/h burst 1");
    assert_eq!(stage.attempt("2001:db8::1", "ann:x"), slow("auth.basic.wrong"));
    assert_eq!(stage.attempt("2001:db8::ffff:2", "ann:pass:wörd"), quick("auth.basic.failures"));
    assert_eq!(stage.attempt("2001:db8:0:1::1", "ann:pass:wörd"), slow("ann"));
}

#[test]
fn right_passwords_are_no_failures() {
    let stage = Stage::new(&format!("ann:{SHA}\nbob:{SHA}\ncid:{SHA}\n"), "1/h burst 1");
    for user in ["ann", "bob", "cid"] {
        assert_eq!(stage.attempt(HERE, &format!("{user}:pass:wörd")), slow(user));
    }
}

#[test]
fn only_basic_is_looked_at() {
    let stage = Stage::new(&format!("ann:{SHA}\n"), "1000/s");
    assert_eq!(stage.ask(HERE, "Bearer abc"), quick("absent"));
    assert_eq!(stage.ask(HERE, "Basically"), quick("absent"));
    for bad in ["Basic", "Basic !", "Basic YW5u", "Basic OnNlY3JldA=="] {
        assert_eq!(stage.ask(HERE, bad), quick("auth.basic.malformed"), "{bad}");
    }
}
