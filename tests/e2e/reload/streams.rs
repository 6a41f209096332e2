//! In: streams and WebSockets of callers that the next config, or a file, no longer lets in; out: theirs end
//! within five seconds, and the others notice nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::ClientConfig;

use super::SHA;
use crate::support::backend::{Backend, backend};
use crate::support::certs::Certs;
use crate::support::client::{Client, get_events, post};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::h2::{H2, Open, request};
use crate::support::wait::{DEADLINE, Watched};

const FIVE: Duration = Duration::from_secs(5);
/// Until something expires: streams must have begun by then.
const SOON: Duration = Duration::from_secs(6);
const DAY: Duration = Duration::from_secs(86_400);
const FIRST: &[u8] = b"data: one\n\n";
/// Every way that a stream can come.
const WAYS: [Way; 4] = [Way::H1, Way::Call, Way::H2, Way::WebSocket];
/// Those that have no end of their own.
const ENDLESS: [Way; 3] = [Way::H1, Way::H2, Way::WebSocket];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    H1,
    /// The answer to a POST.
    Call,
    H2,
    WebSocket,
}

enum Stream {
    H1(Client),
    H2(H2, Open),
    WebSocket(Client),
}

/// Whoever is let in, and a server that says something whenever it is to.
struct Stage {
    certs: Certs,
    bell: Arc<Watched<usize>>,
    backend: Backend,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let bell = Arc::new(Watched::new(0));
        let heard = bell.clone();
        let backend = backend(move |x| {
            if x.upgraded() {
                return;
            }
            if x.request.target.contains("plain") {
                return x.json("{}");
            }
            if x.body().is_none() {
                return;
            }
            x.sse(&[]);
            x.chunk(FIRST);
            let before = heard.look(|n| *n);
            if heard.wait_for(DEADLINE, |n| (*n > before).then_some(())).is_some() {
                x.chunk("data: two\n\n");
            }
            x.wait_closed();
        });
        let certs = Certs::new();
        for (serial, name) in [(1, "good"), (2, "bad")] {
            certs.leaf(&[]).client(name, serial).write(name);
        }
        certs.crl("crl.pem", &[], SystemTime::now() + DAY);
        let stage = Self { certs, bell, backend, dir: tempfile::tempdir().unwrap() };
        stage.write("users", &format!("ann:{SHA}\nbob:{SHA}\ncid:{SHA}\n"));
        stage.write("denied", "127.0.0.9\n");
        stage.write("door", "127.0.0.9\n");
        stage
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// All that is let in; `keys` are those of `/key`, `deny` is of `/deny`.
    fn config(&self, keys: &[&str], deny: &str) -> Builder {
        let crl = self.certs.path("crl.pem").display().to_string();
        let tls = self.certs.listener();
        let tls = tls.trim_end_matches(" }");
        let ca = self.certs.path("ca.pem").display().to_string();
        let keys: Vec<String> = keys
            .iter()
            .map(|name| {
                format!(
                    "{{ name: {name}, sha256: \"{}\" }}",
                    sha256(&format!("key-{name}-0123456789"))
                )
            })
            .collect();
        edge()
            .listener(&format!("{tls}, client_certificates: {{ ca: {ca}, crl: {crl}, required: false }} }}"))
            .listener(&format!("{}, deny: [ {{ file: \"{}\" }} ]", self.certs.listener(), self.file("door")))
            .upstream("one", &[self.backend.url()], "")
            .route("path: /open, upstream: one")
            .route(&format!("path: /file, upstream: one, deny: [ {{ file: \"{}\" }} ]", self.file("denied")))
            .route(&format!("path: /deny, upstream: one, deny: [ {deny} ]"))
            .raw_route(&format!("path: /user, upstream: one, auth: [ {{ basic: {{ file: \"{}\" }} }} ]", self.file("users")))
            .raw_route(&format!("path: /key, upstream: one, auth: [ {{ api_key: {{ keys: [ {} ] }} }} ]", keys.join(", ")))
            .raw_route("path: /cert, upstream: one, auth: [ { client_certificate: { principal: common_name } } ]")
    }

    fn client(&self, way: Way, certificate: Option<&str>) -> Arc<ClientConfig> {
        let mut config = match certificate {
            Some(name) => ClientConfig::clone(&self.certs.client_as(name)),
            None => ClientConfig::clone(&self.certs.client(&[])),
        };
        config.alpn_protocols =
            vec![if way == Way::H2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Arc::new(config)
    }

    /// Opens a stream on a listener.
    fn open(
        &self,
        edge: &Edge,
        n: usize,
        way: Way,
        path: &str,
        field: &str,
        certificate: Option<&str>,
    ) -> Stream {
        let config = self.client(way, certificate);
        let to = edge.listener(n);
        if way == Way::H2 {
            let mut h2 = H2::connect(to, config);
            let fields: Vec<(&str, &str)> = field.trim_end().split_once(": ").into_iter().collect();
            let mut open = h2.open(request("GET", path, &fields));
            assert_eq!(open.head.status, 200, "{path}");
            assert_eq!(h2.parts(&mut open, FIRST.len()), FIRST);
            return Stream::H2(h2, open);
        }
        let mut client = Client::tls(to, config, "localhost");
        if way == Way::H1 || way == Way::Call {
            let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
            client.send(match way {
                Way::Call => post("localhost", path, field, ping),
                _ => get_events("localhost", path, field),
            });
            assert_eq!(client.start().status, 200, "{path}");
            assert_eq!(client.chunks(FIRST.len()), FIRST);
            return Stream::H1(client);
        }
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{field}\r\n"
        ));
        assert_eq!(client.start().status, 101, "{path}");
        client.send("ping");
        assert_eq!(client.exact(4), b"ping");
        Stream::WebSocket(client)
    }

    /// By this config, some end, each in one of these ways, and others live on.
    fn only_these_end(
        &self,
        edge: &Edge,
        next: &Builder,
        gone: &mut [Stream],
        mut ways: Vec<&str>,
        stay: &mut [Stream],
    ) {
        let start = Instant::now();
        edge.take(next);
        all_end(gone, start);
        ways.sort_unstable();
        ways.dedup();
        assert_eq!(ends(edge, gone.len()), ways);
        self.bell.update(|n| *n += 1);
        assert!(stay.iter_mut().all(Stream::lives));
    }
}

impl Stream {
    /// Waits for its end. Nothing stands before it: who may not go on is not asked to come back.
    fn ended(&mut self) {
        match self {
            Self::H1(client) => assert_eq!(client.chunk(), Some(Vec::new()), "ended as it should"),
            Self::H2(h2, open) => {
                while let Ok(Some(part)) = h2.part(open) {
                    assert!(part.is_empty(), "{part:?}");
                }
            }
            Self::WebSocket(client) => drop(client.end()),
        }
    }

    /// Whether it goes on, once its server has said something more.
    fn lives(&mut self) -> bool {
        const TWO: &[u8] = b"data: two\n\n";
        match self {
            Self::H1(client) => spoken(|| client.chunk()).as_deref() == Some(TWO),
            Self::H2(h2, open) => spoken(|| h2.part(open).ok().flatten()).as_deref() == Some(TWO),
            Self::WebSocket(client) => client.send("pong") && client.exact(4) == b"pong",
        }
    }
}

/// The next part that the server said: a slow machine may have been silent for long enough for a comment of the edge.
fn spoken<T: AsRef<[u8]>>(mut next: impl FnMut() -> Option<T>) -> Option<T> {
    std::iter::from_fn(&mut next).find(|part| !part.as_ref().starts_with(b":"))
}

/// The SHA-256 sum of a text in hex.
fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn basic(user: &str) -> String {
    use base64::Engine;
    let plain = format!("{user}:pass:wörd");
    format!("Authorization: Basic {}\r\n", base64::prelude::BASE64_STANDARD.encode(plain))
}

/// All of them end, and soon.
fn all_end(streams: &mut [Stream], since: Instant) {
    streams.iter_mut().for_each(Stream::ended);
    assert!(since.elapsed() < FIVE, "{:?}", since.elapsed());
}

/// The ends of so many streams, with what was found, sorted.
fn ends(edge: &Edge, count: usize) -> Vec<String> {
    let ends = || -> Vec<String> {
        let lines = edge.stdout();
        let lines = lines.iter().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let mut ends: Vec<String> = lines
            .filter(|line| line["event"] == "stream_end")
            .map(|line| {
                format!(
                    "{} {}",
                    line["end"].as_str().unwrap(),
                    line["detail"].as_str().unwrap_or_default()
                )
            })
            .collect();
        ends.sort();
        ends
    };
    crate::support::wait::eventually("the ends are in the log", || ends().len() >= count);
    let mut all = ends();
    all.dedup();
    all
}

#[test]
fn by_files_that_change() {
    let stage = Stage::new();
    let edge = stage.config(&["one"], "192.0.2.1").start();
    let (ann, bob, cid) = (basic("ann"), basic("bob"), basic("cid"));
    let (mut gone, mut stay) = (Vec::new(), Vec::new());
    for way in WAYS {
        gone.push(stage.open(&edge, 0, way, "/user", &ann, None));
        gone.push(stage.open(&edge, 0, way, "/user", &bob, None));
        gone.push(stage.open(&edge, 0, way, "/file", "", None));
        gone.push(stage.open(&edge, 0, way, "/cert", "", Some("bad")));
        gone.push(stage.open(&edge, 1, way, "/open", "", None));
        stay.push(stage.open(&edge, 0, way, "/user", &cid, None));
        stay.push(stage.open(&edge, 0, way, "/cert", "", Some("good")));
        stay.push(stage.open(&edge, 0, way, "/open", "", None));
    }
    let mut kept = Client::tls(edge.listener(0), stage.client(Way::H1, Some("bad")), "localhost");
    assert_eq!(kept.ask("GET /cert/plain HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    let mut let_in = Client::tls(edge.listener(1), stage.client(Way::H1, None), "localhost");
    assert_eq!(let_in.ask("GET /open/plain HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);

    let start = Instant::now();
    // one user less, and another with another password
    stage.write("users", &format!("cid:{SHA}\nbob:{{SHA}}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n"));
    stage.write("denied", "127.0.0.1\n");
    stage.write("door", "127.0.0.1\n");
    stage.certs.crl("crl.pem", &[2], SystemTime::now() + DAY);
    all_end(&mut gone, start);
    assert_eq!(
        ends(&edge, 5 * WAYS.len()),
        [
            "address.revoked listen.denied",
            "address.revoked route.address",
            "auth.revoked auth.basic.wrong",
            "certificate.revoked listen.certificate",
        ]
    );
    kept.ask("GET /cert/plain HTTP/1.1\r\nHost: localhost\r\n\r\n").assert_refused(403);
    let_in.ask("GET /open/plain HTTP/1.1\r\nHost: localhost\r\n\r\n").assert_refused(403);
    stage.bell.update(|n| *n += 1);
    assert!(stay.iter_mut().all(Stream::lives));
}

#[test]
fn by_the_end_of_a_certificate() {
    let stage = Stage::new();
    stage.certs.leaf(&[]).client("soon", 3).until(SOON).write("soon");
    let over = Instant::now() + SOON;
    let edge = stage.config(&["one"], "192.0.2.1").start();
    let open = |way, name| stage.open(&edge, 0, way, "/cert", "", Some(name));
    let (mut gone, mut stay) =
        (WAYS.map(|way| open(way, "soon")), WAYS.map(|way| open(way, "good")));
    let mut kept = Client::tls(edge.listener(0), stage.client(Way::H1, Some("soon")), "localhost");
    assert_eq!(kept.ask("GET /cert/plain HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    // who was looked at meanwhile is looked at again
    edge.take(&stage.config(&["one"], "192.0.2.2"));
    all_end(&mut gone, over);
    assert!(Instant::now() > over, "not before");
    assert_eq!(ends(&edge, WAYS.len()), ["certificate.revoked listen.certificate"]);
    kept.ask("GET /cert/plain HTTP/1.1\r\nHost: localhost\r\n\r\n").assert_refused(403);
    stage.bell.update(|n| *n += 1);
    assert!(stay.iter_mut().all(Stream::lives));
}

#[test]
fn by_the_end_of_a_revocation_list_that_was_not_renewed() {
    let stage = Stage::new();
    let over = Instant::now() + SOON;
    stage.certs.crl("crl.pem", &[], SystemTime::now() + SOON);
    let edge = stage.config(&["one"], "192.0.2.1").start();
    let mut gone = WAYS.map(|way| stage.open(&edge, 0, way, "/cert", "", Some("good")));
    let mut stay = WAYS.map(|way| stage.open(&edge, 0, way, "/open", "", None));
    all_end(&mut gone, over);
    assert_eq!(ends(&edge, WAYS.len()), ["certificate.revoked listen.certificate"]);
    stage.bell.update(|n| *n += 1);
    assert!(stay.iter_mut().all(Stream::lives));
}

#[test]
fn by_a_reload() {
    let stage = Stage::new();
    let edge =
        stage.config(&["one", "two"], "192.0.2.1").route("path: /gone, upstream: one").start();
    let key = |name: &str| format!("X-API-Key: key-{name}-0123456789\r\n");
    let (mut gone, mut stay) = (Vec::new(), Vec::new());
    for way in WAYS {
        gone.push(stage.open(&edge, 0, way, "/key", &key("one"), None));
        gone.push(stage.open(&edge, 0, way, "/deny", "", None));
        gone.push(stage.open(&edge, 0, way, "/gone", "", None));
        stay.push(stage.open(&edge, 0, way, "/key", &key("two"), None));
        stay.push(stage.open(&edge, 0, way, "/open", "", None));
        stay.push(stage.open(&edge, 0, way, "/user", &basic("ann"), None));
        stay.push(stage.open(&edge, 0, way, "/cert", "", Some("good")));
    }
    let start = Instant::now();
    // what a wider route takes is not what it was
    let next = stage.config(&["two"], "127.0.0.0/8").route("upstream: one");
    edge.take(&next);
    all_end(&mut gone, start);
    assert_eq!(
        ends(&edge, 3 * WAYS.len()),
        [
            "address.revoked route.address",
            "auth.revoked auth.api_key.unknown",
            "route.revoked route.other",
        ]
    );
    for _ in 0..3 {
        edge.take(&stage.config(&["two"], "127.0.0.0/8"));
    }
    stage.bell.update(|n| *n += 1);
    assert!(stay.iter_mut().all(Stream::lives));
}

/// A library that sets the clock of a process forward, by `CLOCK_SHIFT` seconds.
fn clock(dir: &Path) -> PathBuf {
    const SHIFT: &str = "#define _GNU_SOURCE
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>
        int clock_gettime(clockid_t id, struct timespec *at) {
            const char *shift = getenv(\"CLOCK_SHIFT\");
            int failed = (int) syscall(SYS_clock_gettime, id, at);
            if (!failed && id == CLOCK_REALTIME && shift) at->tv_sec += atol(shift);
            return failed;
        }";
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    fs::write(&source, SHIFT).unwrap();
    let mut compiler = Command::new("cc");
    let made = compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(made.unwrap().success(), "cc makes a library");
    library
}

#[test]
fn by_the_end_of_a_key() {
    let stage = Stage::new();
    let key = |name: &str| format!("X-API-Key: key-{name}-0123456789\r\n");
    // keys end with a day: the edge lives shortly before the end of this one
    let over = Instant::now() + SOON;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let midnight = (now / DAY.as_secs() + 1) * DAY.as_secs();
    let date =
        Command::new("date").args(["-u", "+%F", "-d", &format!("@{midnight}")]).output().unwrap();
    let date = String::from_utf8(date.stdout).unwrap();
    let soon = format!(
        "path: /soon, upstream: one, auth: [ {{ api_key: {{ keys: [ {{ name: soon, sha256: \"{}\", expires: {} }}, {{ name: late, sha256: \"{}\" }} ] }} }} ]",
        sha256("key-soon-0123456789"),
        date.trim(),
        sha256("key-late-0123456789")
    );
    let library = clock(stage.dir.path());
    let edge = stage.config(&["one"], "192.0.2.1").raw_route(&soon).start_with(|command| {
        let shift = i64::try_from(midnight - now).unwrap() - SOON.as_secs().cast_signed();
        command.env("LD_PRELOAD", library).env("CLOCK_SHIFT", shift.to_string());
    });
    let open = |way, name| stage.open(&edge, 0, way, "/soon", &key(name), None);
    let (mut gone, mut stay) =
        (WAYS.map(|way| open(way, "soon")), WAYS.map(|way| open(way, "late")));
    all_end(&mut gone, over);
    // the shift is in whole seconds
    assert!(Instant::now() + Duration::from_secs(1) > over, "not before");
    assert_eq!(ends(&edge, WAYS.len()), ["auth.revoked auth.api_key.expired"]);
    stage.bell.update(|n| *n += 1);
    assert!(stay.iter_mut().all(Stream::lives));
}

/// What lets somebody in by one config and not by the next one: a path, a field, a certificate, the route before and
/// after, and what its stream ends with.
struct Change {
    path: &'static str,
    field: String,
    certificate: Option<&'static str>,
    before: String,
    after: String,
    end: &'static str,
}

impl Stage {
    fn changes(&self) -> Vec<Change> {
        let users =
            |name: &str| format!("auth: [ {{ basic: {{ file: \"{}\" }} }} ]", self.file(name));
        let keys = |name: &str, text: &str| {
            let sum = sha256(&format!("key-{text}-0123456789"));
            format!("api_key: {{ keys: [ {{ name: {name}, sha256: \"{sum}\" }} ] }}")
        };
        let change = |path, field: &str, before: String, after: String, end| Change {
            path,
            field: field.to_owned(),
            certificate: None,
            before,
            after,
            end,
        };
        let (ann, one) = (basic("ann"), "X-API-Key: key-one-0123456789\r\n");
        let certified = |allow: &str| {
            format!(
                "auth: [ {{ client_certificate: {{ principal: common_name, allow: [ {allow} ] }} }} ]"
            )
        };
        let required = |who: &str| format!("{}, require: {{ subject: [ {who} ] }}", users("users"));
        let joined = |key: &str| {
            format!(
                "auth: [ {{ all: [ basic: {{ file: \"{}\" }}, {} ] }} ]",
                self.file("users"),
                keys("a", key)
            )
        };
        let anybody = || "auth: [ anonymous ]".to_owned();
        vec![
            change(
                "/users",
                &ann,
                users("users"),
                users("others"),
                "auth.revoked auth.basic.wrong",
            ),
            change(
                "/value",
                one,
                format!("auth: [ {} ]", keys("a", "one")),
                format!("auth: [ {} ]", keys("a", "two")),
                "auth.revoked auth.api_key.unknown",
            ),
            change(
                "/name",
                one,
                format!("auth: [ {} ]", keys("a", "one")),
                format!("auth: [ {} ]", keys("b", "one")),
                "auth.revoked auth.other",
            ),
            change(
                "/require",
                &ann,
                required("ann"),
                required("bob"),
                "auth.revoked authz.require",
            ),
            change(
                "/all",
                &format!("{ann}{one}"),
                joined("one"),
                joined("two"),
                "auth.revoked auth.api_key.unknown",
            ),
            change(
                "/method",
                one,
                format!("auth: [ {} ]", keys("a", "one")),
                users("users"),
                "auth.revoked auth.none",
            ),
            change("/guarded", "", anybody(), users("users"), "auth.revoked auth.none"),
            change(
                "/origin",
                "Origin: https://a.example\r\n",
                format!("{}, origins: [ https://a.example ]", anybody()),
                format!("{}, origins: [ https://b.example ]", anybody()),
                "route.revoked route.origin",
            ),
            change(
                "/host",
                "",
                format!("{}, host: localhost", anybody()),
                format!("{}, host: other.example", anybody()),
                "route.revoked route.no_path",
            ),
            change(
                "/longer",
                "",
                anybody(),
                format!("{}, path: /longer/x", anybody()),
                "route.revoked route.no_path",
            ),
            change(
                "/allow",
                "",
                format!("{}, allow: [ 127.0.0.0/8 ]", anybody()),
                format!("{}, allow: [ 10.0.0.0/8 ]", anybody()),
                "address.revoked route.address",
            ),
            Change {
                certificate: Some("good"),
                ..change(
                    "/named",
                    "",
                    certified("good"),
                    certified("other"),
                    "auth.revoked auth.client_certificate.not_allowed",
                )
            },
        ]
    }
}

#[test]
fn by_whatever_a_reload_takes_away() {
    let stage = Stage::new();
    stage.write("others", &format!("bob:{SHA}\n"));
    let changes = stage.changes();
    let config = |after: bool| {
        changes.iter().fold(stage.config(&["one"], "192.0.2.1"), |config, change| {
            let said = if after { &change.after } else { &change.before };
            let path = if said.contains("path: ") { "" } else { change.path };
            let path = if path.is_empty() { String::new() } else { format!("path: {path}, ") };
            config.raw_route(&format!("{path}upstream: one, {said}"))
        })
    };
    let edge = config(false).start();
    let mut gone = Vec::new();
    for change in &changes {
        for way in WAYS {
            // HTTP/2 takes one field in this test
            if way == Way::H2 && change.field.lines().count() > 1 {
                continue;
            }
            let Change { path, field, certificate, .. } = change;
            gone.push(stage.open(&edge, 0, way, path, field, *certificate));
        }
    }
    let mut stay = WAYS.map(|way| stage.open(&edge, 0, way, "/user", &basic("ann"), None));
    let ended = changes.iter().map(|change| change.end).collect();
    stage.only_these_end(&edge, &config(true), &mut gone, ended, &mut stay);
}

/// The listeners of these tests, each with what a reload makes of it.
#[test]
fn by_what_their_listener_asks_for_now() {
    let (stage, strangers) = (Stage::new(), Certs::new());
    let asks = |ca: &Path, required: bool| {
        let (tls, ca) = (stage.certs.listener(), ca.display());
        let tls = tls.trim_end_matches(" }");
        format!("{tls}, client_certificates: {{ ca: {ca}, required: {required} }} }}")
    };
    let (own, other) = (stage.certs.path("ca.pem"), strangers.path("ca.pem"));
    let plain = || stage.certs.listener();
    let listeners = [
        // before, after, whose certificate, the end
        (
            asks(&own, false),
            asks(&other, false),
            Some("good"),
            "certificate.revoked listen.certificate",
        ),
        (asks(&own, false), asks(&own, true), None, "certificate.revoked listen.certificate"),
        (asks(&own, true), plain(), Some("good"), "certificate.revoked listen.certificate"),
        (
            plain(),
            format!("{}, deny: [ 127.0.0.1 ]", plain()),
            None,
            "address.revoked listen.denied",
        ),
        (
            plain(),
            format!("{}, allow: [ 192.0.2.0/24 ]", plain()),
            None,
            "address.revoked listen.denied",
        ),
    ];
    let config = |after: bool| {
        let all = listeners.iter().map(|(before, now, ..)| if after { now } else { before });
        let config = all.fold(edge(), |config, listener| config.listener(listener));
        // who stays comes by the last one
        let config = config.listener(&plain());
        config.upstream("one", &[stage.backend.url()], "").route("upstream: one")
    };
    let edge = config(false).start();
    let mut gone = Vec::new();
    for (n, (.., certificate, _)) in listeners.iter().enumerate() {
        gone.extend(WAYS.map(|way| stage.open(&edge, n, way, "/", "", *certificate)));
    }
    let mut stay = WAYS.map(|way| stage.open(&edge, listeners.len(), way, "/", "", None));
    let ended = listeners.iter().map(|(.., end)| *end).collect();
    stage.only_these_end(&edge, &config(true), &mut gone, ended, &mut stay);
}

#[test]
fn by_the_end_of_their_listener() {
    let stage = Stage::new();
    let config = |more: bool| {
        let config = edge().listener(&stage.certs.listener());
        let config = if more {
            config.raw_listener(&format!("address: \"127.0.0.2:0\", {}", stage.certs.listener()))
        } else {
            config
        };
        config.upstream("one", &[stage.backend.url()], "").route("upstream: one")
    };
    let edge = config(true).start();
    let mut gone = ENDLESS.map(|way| stage.open(&edge, 1, way, "/", "", None));
    let mut call = stage.open(&edge, 1, Way::Call, "/", "", None);
    let mut stay = WAYS.map(|way| stage.open(&edge, 0, way, "/", "", None));
    let start = Instant::now();
    edge.take(&config(false));
    for stream in &mut gone {
        match stream {
            // it may be asked to come back
            Stream::H1(client) => drop(client.end()),
            Stream::H2(h2, open) => while h2.part(open).is_ok_and(|part| part.is_some()) {},
            Stream::WebSocket(client) => drop(client.end()),
        }
    }
    assert!(start.elapsed() < FIVE, "{:?}", start.elapsed());
    assert_eq!(ends(&edge, ENDLESS.len()), ["listener.revoked "]);
    stage.bell.update(|n| *n += 1);
    assert!(call.lives(), "a call is answered first");
    assert!(stay.iter_mut().all(Stream::lives));
}

/// Who is trusted to name others names them no more: what came through it ends, also where it named nobody.
#[test]
fn by_a_proxy_that_is_trusted_no_more() {
    let stage = Stage::new();
    let config = |trusted: &str| {
        stage
            .config(&["one"], "192.0.2.1")
            .top(&format!("trusted_proxies: [ {trusted} ]"))
            .route("path: /inside, upstream: one, allow: [ 10.0.0.0/8 ]")
    };
    let edge = config("127.0.0.1").start();
    let field = "X-Forwarded-For: 10.1.1.1\r\n";
    let mut gone = WAYS.map(|way| stage.open(&edge, 0, way, "/inside", field, None));
    let start = Instant::now();
    edge.take(&config("127.0.0.9"));
    all_end(&mut gone, start);
    assert_eq!(ends(&edge, WAYS.len()), ["address.revoked client.untrusted"]);
}

/// Tokens stay as they are, and the config asks for others.
#[test]
fn by_what_tokens_are_held_to_now() {
    use crate::support::provider::provider;
    use crate::support::signer::Signer;
    use serde_json::json;
    let (stage, signer) = (Stage::new(), Signer::ed25519());
    let (provider, other) = (provider(&[signer.jwk("k")]), provider(&[]));
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 600;
    let claims = json!({ "iss": provider.issuer(), "aud": "https://a.example/x", "sub": "ann", "exp": exp, "scope": "read", "groups": [ "ops" ] });
    let token = signer.token(json!({ "alg": "EdDSA", "kid": "k", "typ": "at+jwt" }), claims);
    let field = format!("Authorization: Bearer {token}\r\n");
    let oauth = |issuer: &str, rest: &str, behind: &str| {
        format!(
            "auth: [ {{ oauth: {{ resource: \"https://a.example/x\", issuers: [ {{ issuer: \"{issuer}\", allow_http: true{rest} }} ]{behind} }} }} ]"
        )
    };
    let (own, others) = (provider.issuer(), other.issuer());
    let good = || oauth(&own, "", "");
    let routes = [
        ("/issuer", good(), oauth(&others, "", ""), "auth.revoked auth.oauth.issuer"),
        (
            "/audience",
            good(),
            oauth(&own, ", audiences: [ other ]", ""),
            "auth.revoked auth.oauth.audience",
        ),
        ("/scope", good(), oauth(&own, "", ", scopes: [ write ]"), "auth.revoked auth.oauth.scope"),
        (
            "/groups",
            format!("{}, require: {{ groups: [ ops ] }}", good()),
            format!("{}, require: {{ groups: [ dev ] }}", good()),
            "auth.revoked authz.require",
        ),
        (
            "/algorithm",
            good(),
            oauth(&own, ", algorithms: [ RS256 ]", ""),
            "auth.revoked auth.oauth.algorithm",
        ),
    ];
    let config = |after: bool| {
        routes.iter().fold(stage.config(&["one"], "192.0.2.1"), |config, (path, before, now, _)| {
            config.raw_route(&format!(
                "path: {path}, upstream: one, {}",
                if after { now } else { before }
            ))
        })
    };
    let edge = config(false).raw_route(&format!("path: /stays, upstream: one, {}", good())).start();
    let open = |way, path| stage.open(&edge, 0, way, path, &field, None);
    let mut gone: Vec<Stream> =
        routes.iter().flat_map(|(path, ..)| WAYS.map(|way| open(way, path))).collect();
    let mut stay = WAYS.map(|way| open(way, "/stays"));
    let ended = routes.iter().map(|(.., end)| *end).collect();
    stage.only_these_end(
        &edge,
        &config(true).raw_route(&format!("path: /stays, upstream: one, {}", good())),
        &mut gone,
        ended,
        &mut stay,
    );
}

#[test]
fn by_rules_about_tools_by_which_they_did_not_begin() {
    let stage = Stage::new();
    let config = |rules: &str| {
        stage.config(&["one"], "192.0.2.1").route(&format!("path: /ruled, upstream: one{rules}"))
    };
    let rules = ", tools: [ { allow: [ \"get_*\" ] } ]";
    let edge = config("").start();
    let open = |way, path| stage.open(&edge, 0, way, path, "", None);
    let mut gone: Vec<Stream> = WAYS.map(|way| open(way, "/ruled")).into();
    let mut stay: Vec<Stream> = WAYS.map(|way| open(way, "/open")).into();
    let start = Instant::now();
    edge.take(&config(rules));
    all_end(&mut gone, start);
    assert_eq!(ends(&edge, WAYS.len()), ["route.revoked route.rules"]);
    stay.push(open(Way::H1, "/ruled"));
    stay.push(open(Way::H2, "/ruled"));
    // a route above moves all that is below
    edge.take(
        &stage
            .config(&["one"], "192.0.2.1")
            .route("path: /more, upstream: one")
            .route(&format!("path: /ruled, upstream: one{rules}")),
    );
    stage.bell.update(|n| *n += 1);
    assert!(stay.iter_mut().all(Stream::lives));
}

/// The reload has seen what changed, and nothing else looks again for it.
#[test]
fn by_a_file_that_a_failed_reload_has_read() {
    let stage = Stage::new();
    let edge = stage.config(&["one"], "192.0.2.1").start();
    let mut gone = WAYS.map(|way| stage.open(&edge, 0, way, "/user", &basic("ann"), None));
    let start = Instant::now();
    stage.write("users", &format!("cid:{SHA}\n"));
    let bad = stage.config(&["one"], "192.0.2.1").route("path: /more, upstream: none");
    assert!(!edge.reload(&bad).status.success());
    all_end(&mut gone, start);
    assert_eq!(ends(&edge, WAYS.len()), ["auth.revoked auth.basic.wrong"]);
}

/// Their server always has something to say, and their clients take all of it, little, or nothing.
#[test]
fn that_are_never_silent() {
    let chatty = backend(|x| {
        x.sse(&[]);
        let event = format!("data: {}\n\n", "x".repeat(16 * 1024));
        while x.chunk(&event) {}
    });
    let config = |deny: &str| {
        edge()
            .upstream("one", &[chatty.url()], "")
            .route(&format!("path: /slow, upstream: one, deny: [ {deny} ]"))
            .route(&format!("path: /fast, upstream: one, deny: [ {deny} ]"))
            .route(&format!("path: /still, upstream: one, deny: [ {deny} ]"))
    };
    let edge = config("192.0.2.1").start();
    let open = |path: &str| {
        let mut client = edge.client();
        client.send(get_events("localhost", path, ""));
        assert_eq!(client.start().status, 200, "{path}");
        client
    };
    let (mut slow, mut fast, still) = (open("/slow"), open("/fast"), open("/still"));
    let fast = std::thread::spawn(move || while fast.sip(64 * 1024) > 0 {});
    // more than fits on the way
    slow.exact(8 << 20);
    let start = Instant::now();
    edge.take(&config("127.0.0.1"));
    // what is on the way is more than is taken in that time: the log tells of the end
    let over = || edge.stdout().iter().filter(|line| line.contains("\"stream_end\"")).count() == 3;
    while start.elapsed() < FIVE && !over() {
        slow.sip(512);
    }
    assert!(over(), "{:#?}", edge.stdout());
    assert_eq!(ends(&edge, 3), ["address.revoked route.address"]);
    fast.join().unwrap();
    drop(still);
}

#[test]
fn an_event_under_way_has_a_moment() {
    let bell = Arc::new(Watched::new(false));
    let heard = bell.clone();
    let backend = backend(move |x| {
        x.sse(&[]);
        x.chunk("data: one\n\ndata: never e");
        heard.wait_for(DEADLINE, |done| done.then_some(()));
        x.wait_closed();
    });
    let config = |rest: &str| {
        edge().upstream("one", &[backend.url()], "").route(&format!("upstream: one, {rest}"))
    };
    let edge = config("").start();
    let mut client = edge.client();
    client.send(get_events("localhost", "/x", ""));
    assert_eq!(client.start().status, 200);
    client.chunks(24);
    let start = Instant::now();
    edge.take(&config("deny: [ 127.0.0.1 ]"));
    assert_eq!(client.end(), b"", "it is broken off");
    assert!(start.elapsed() < FIVE, "{:?}", start.elapsed());
    bell.update(|done| *done = true);
}
