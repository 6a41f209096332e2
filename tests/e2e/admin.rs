//! In: an edge with an admin listener, and one without; out: what those see who look after it, and nobody else.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;

use crate::support::backend::{Backend, Refusing, backend, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, Response, get, post};
use crate::support::edge::{Builder, Edge, binary, edge};
use crate::support::mcp::{call, initialize, replica, session};
use crate::support::wait::{Watched, eventually};

const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";
/// `ann:pass`.
const USERS: &str = "ann:{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=\n";
const ANN: &str = "Authorization: Basic YW5uOnBhc3M=\r\n";

fn ask(to: SocketAddr, path: &str) -> Response {
    Client::plain(to).ask(get("localhost", path))
}

fn ask_with(to: SocketAddr, path: &str, fields: &str) -> Response {
    Client::plain(to).ask(format!("GET {path} HTTP/1.1\r\n{fields}\r\n"))
}

fn status(edge: &Edge) -> Value {
    ask(edge.admin(), "/status").json()
}

#[test]
fn probes_say_when_work_should_come_here() {
    let gate = Arc::new(Watched::new(false));
    let opened = gate.clone();
    let backend = backend(move |x| {
        opened.wait("the gate opens", |open| open.then_some(()));
        x.json("{}");
    });
    let edge = edge().top(ADMIN).to(&backend).start();
    let admin = edge.admin();
    assert_eq!((ask(admin, "/healthz").status, ask(admin, "/readyz").status), (200, 200));
    assert_eq!(ask(admin, "/readyz").text(), "ready\nupstream one: 1 of 1 replicas up\n");

    // what is under way keeps the process up
    let mut client = edge.client();
    assert!(client.send(get("localhost", "/x")));
    backend.wait_request(0);
    edge.signal("TERM");
    edge.wait_line("mcp-edge: stopping");
    for (path, said) in [("/healthz", "stopping"), ("/readyz", "not ready: stopping")] {
        let answer = ask(admin, path);
        assert_eq!((answer.status, answer.text().starts_with(said)), (503, true), "{path}");
    }
    let stopping = ask(admin, "/status").json();
    assert_eq!((&stopping["phase"], &stopping["in_flight"]), (&"stopping".into(), &1.into()));
    assert!(stopping["alarms"][0]["text"].as_str().unwrap().contains("stopping"));
    gate.update(|open| *open = true);
    assert_eq!(client.start().status, 200);
}

#[test]
fn the_status_has_what_went_on() {
    let (certs, backend, dead) = (Certs::new(), plain(), Refusing::new());
    let edge = edge()
        .top(ADMIN)
        .listener("")
        .listener(&certs.listener())
        .upstream("tools", &[backend.url()], "")
        .upstream("dead", &[dead.url()], "connect_timeout: 1s")
        .route("path: /mcp, upstream: tools, tools: [ { allow: [ good ] } ]")
        .route("path: /dead, upstream: dead")
        .start();
    let call = |name: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#)
    };
    assert_eq!(edge.ask(post("localhost", "/mcp", "", &call("good"))).status, 200);
    let nasty = "<img src=x onerror=alert(1)>";
    assert_eq!(edge.ask(post("localhost", "/mcp", "", &call(nasty))).status, 403);
    assert_eq!(edge.get("/dead").status, 503);
    // answers are counted when they are out
    eventually("all three are counted", || {
        status(&edge)["requests"] == serde_json::json!({ "2xx": 1, "4xx": 1, "5xx": 1 })
    });
    let status = status(&edge);
    assert_eq!((&status["phase"], &status["ready"]), (&"ready".into(), &true.into()));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["generation"], 1);
    assert!(status["uptime"].as_f64().unwrap() > 0.0 && status["now"].as_f64().unwrap() > 1.7e9);
    let route = |name: &str| {
        let all = status["routes"].as_array().unwrap();
        all.iter().find(|route| route["route"] == name).unwrap_or_else(|| panic!("{status}"))
    };
    assert_eq!(route("*/mcp")["requests"], serde_json::json!({ "2xx": 1, "4xx": 1 }));
    assert_eq!(route("*/dead")["upstream"], "dead");
    let names: Vec<_> =
        status["upstreams"].as_array().unwrap().iter().map(|u| &u["name"]).collect();
    assert_eq!(names, ["dead", "tools"]);
    let replica = &status["upstreams"][1]["replicas"][0];
    assert_eq!(replica["address"], backend.authority());
    assert_eq!((&replica["state"], &replica["in_flight"]), (&"up".into(), &0.into()));
    let refusal = |code: &str| {
        let all = status["refusals"].as_array().unwrap();
        all.iter().find(|refusal| refusal["code"] == code).unwrap_or_else(|| panic!("{status}"))
    };
    let tool = &refusal("authz.tool")["last"];
    assert_eq!((&tool["tool"], &tool["status"]), (&nasty.into(), &403.into()));
    assert_eq!((&tool["request"], &tool["route"]), (&"POST /mcp".into(), &"*/mcp".into()));
    assert_eq!(tool["client"], "127.0.0.1");
    assert!(refusal("forward.no_backend")["last"]["detail"].as_str().unwrap().contains("refused"));
    assert_eq!(refusal("forward.no_backend")["count"], 1);
    let certificate = &status["certificates"][0];
    assert_eq!(certificate["names"][0], "localhost");
    assert!(certificate["expires"].as_f64().unwrap() > status["now"].as_f64().unwrap());
    edge.stop();
}

#[test]
fn history_tells_what_led_there() {
    let backend = plain();
    let edge = edge().top(ADMIN).to(&backend).start();
    let history = |path: &str| ask(edge.admin(), path).json();
    eventually("an interval with the request", || {
        assert_eq!(edge.get("/x").status, 200);
        let said = history("/status/history");
        assert_eq!(said["every"], 2.0);
        let samples = said["samples"].as_array().unwrap();
        samples.iter().any(|sample| {
            sample["requests"]["2xx"].as_u64() > Some(0) && sample["p50_ms"].as_f64() > Some(0.0)
        })
    });
    let said = history("/status/history");
    let last = said["samples"].as_array().unwrap().last().unwrap()["time"].as_f64().unwrap();
    let later = history(&format!("/status/history?after={last}"));
    let times = later["samples"].as_array().unwrap().iter().map(|s| s["time"].as_f64().unwrap());
    assert!(times.clone().all(|time| time > last), "{later}");
    edge.stop();
}

#[test]
fn only_this_machine_is_told_and_nothing_can_be_changed() {
    let backend = plain();
    let edge = edge()
        .top("admin: { address: \"127.0.0.1:0\", hosts: [ edge.internal, \"2001:db8::1\" ] }")
        .to(&backend)
        .start();
    let admin = edge.admin();
    for host in ["localhost", "127.0.0.1:9", "[::1]", "edge.internal:9900", "EDGE.internal"] {
        assert_eq!(ask_with(admin, "/status", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "internal", "[2001:db8::2]"]
    {
        for path in ["/", "/status", "/metrics", "/healthz", "/readyz"] {
            let answer = ask_with(admin, path, &format!("Host: {host}\r\n"));
            assert_eq!(answer.status, 421, "{host}{path}");
        }
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request =
            format!("{method} /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let answer = Client::plain(admin).ask(request);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let mut client = Client::plain(admin);
    assert!(client.send("HEAD /status HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.ask(get("localhost", "/healthz")).text(), "ok\n", "no body came before");
    for path in ["/nothing", "/status/", "/../etc/passwd", "/page.js/"] {
        assert_ne!(ask(admin, path).status, 200, "{path}");
    }
    edge.stop();
}

#[test]
fn every_answer_is_guarded_against_other_sites() {
    let backend = plain();
    let edge = edge().top(ADMIN).to(&backend).start();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/chart.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/status", "application/json"),
        ("/status/history", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/nothing", "text/plain; charset=utf-8"),
    ] {
        let answer = ask(edge.admin(), path);
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part) && !policy.contains("unsafe"), "{path}: {policy}");
        }
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(answer.header("access-control-allow-origin").is_none(), "{path}");
    }
    edge.stop();
}

#[test]
fn elsewhere_credentials_are_asked_for() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let users = dir.path().join("users");
    fs::write(&users, USERS).unwrap();
    let edge = edge()
        .top(&format!(
            "admin: {{ address: \"0.0.0.0:0\", plaintext: true, auth: [ {{ basic: {{ file: \"{}\" }} }} ] }}",
            users.display()
        ))
        .to(&backend)
        .start();
    let admin = SocketAddr::new("127.0.0.1".parse().unwrap(), edge.admin().port());
    let host = "Host: edge.example\r\n";
    for path in ["/", "/page.js", "/status", "/status/history", "/metrics", "/nothing"] {
        let answer = ask_with(admin, path, host);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "), "{path}");
        assert!(!answer.text().contains("one"), "{path}: {}", answer.text());
    }
    let wrong = format!("{host}Authorization: Basic YW5uOm5v\r\n");
    assert_eq!(ask_with(admin, "/status", &wrong).status, 401);
    // probes have no credentials; they hear a word, and no name
    assert_eq!(ask_with(admin, "/healthz", host).text(), "ok\n");
    assert_eq!(ask_with(admin, "/readyz", host).text(), "ready\n");
    let right = format!("{host}{ANN}");
    assert_eq!(ask_with(admin, "/status", &right).json()["ready"], true);
    assert!(ask_with(admin, "/readyz", &right).text().contains("upstream one: 1 of 1"));
    assert_eq!(ask_with(admin, "/", &right).status, 200);

    let url = format!("http://{admin}");
    assert_eq!(run(&["status", "--url", &url]).status.code(), Some(1));
    let told = run(&["status", "--url", &url, "-H", "Authorization: Basic YW5uOnBhc3M="]);
    assert_eq!(told.status.code(), Some(0), "{}", said(&told));
    edge.stop();
}

#[test]
fn it_speaks_tls_where_it_is_told_to() {
    let (certs, backend) = (Certs::new(), plain());
    let edge = edge()
        .top(&format!("admin: {{ address: \"127.0.0.1:0\", {} }}", certs.listener()))
        .to(&backend)
        .start();
    let mut client = Client::tls(edge.admin(), certs.client(&[]), "localhost");
    let answer = client.ask(get("localhost", "/status"));
    assert_eq!(answer.json()["certificates"][0]["names"][0], "localhost");
    edge.stop();
}

#[test]
fn who_is_let_in_no_more_is_told_nothing_on_the_same_connection() {
    let (certs, backend) = (Certs::new(), plain());
    let dir = tempfile::tempdir().unwrap();
    let denied = dir.path().join("denied");
    std::fs::write(&denied, "127.0.0.9\n").unwrap();
    let rest = format!("{}, deny: [ {{ file: \"{}\" }} ]", certs.listener(), denied.display());
    let edge =
        edge().top(&format!("admin: {{ address: \"127.0.0.1:0\", {rest} }}")).to(&backend).start();
    let mut client = Client::tls(edge.admin(), certs.client(&[]), "localhost");
    assert_eq!(client.ask(get("localhost", "/status")).status, 200);
    std::fs::write(&denied, "127.0.0.1\n").unwrap();
    edge.wait_line("denied read again");
    eventually("it is told nothing", || client.ask(get("localhost", "/status")).status == 403);
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("XDG_STATE_HOME", "/nonexistent").output().unwrap()
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn the_terminal_shows_the_same() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), plain());
    let state = dir.path().join("state");
    for admin in ["admin: off", ADMIN] {
        let edge = edge()
            .top(admin)
            .state(&state)
            .upstream("tools", &[backend.url()], "")
            .route("path: /mcp, upstream: tools, tools: [ { allow: [ good ] } ]")
            .start();
        let body =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"e\u001b[2Jvil"}}"#;
        assert_eq!(edge.ask(post("localhost", "/mcp", "", body)).status, 403);
        edge.log("the refusal is noted", |line| line["code"] == "authz.tool");
        // what is in the file by now is not what it runs with
        let config = edge.config();
        let rest = format!(
            "state_dir: \"{}\"\n{}\nlisteners: [ {{ address: \"127.0.0.1:1\" }} ]\n\
             routes: [ {{ upstream: \"http://127.0.0.1:1\", auth: [ anonymous ] }} ]\n",
            state.display(),
            if admin == ADMIN { "admin: { address: \"127.0.0.1:2\" }" } else { admin },
        );
        fs::write(&config, &rest).unwrap();
        let told = run(&["status", "--config", config.to_str().unwrap()]);
        let text = said(&told);
        assert_eq!(told.status.code(), Some(0), "{text}");
        for part in
            ["ready", "upstream tools: 1 of 1 up", &backend.authority(), "authz.tool", "*/mcp"]
        {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(text.contains("\\u{1b}[2J") && !text.contains('\u{1b}'), "{text}");
        let json = run(&["status", "--json", "--config", config.to_str().unwrap()]);
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["upstreams"][0]["name"], "tools");
        edge.stop();
        let config = dir.path().join("edge.yaml");
        fs::write(&config, &rest).unwrap();
        let told = run(&["status", "--config", config.to_str().unwrap()]);
        assert_eq!(told.status.code(), Some(1), "{}", said(&told));
        assert!(said(&told).contains("no edge can be reached"), "{}", said(&told));
    }
}

#[test]
fn requests_are_explained_without_an_edge() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("edge.yaml");
    let text = "state_dir: state\nlisteners: [ { address: \"127.0.0.1:8080\" } ]\n\
        routes: [ { path: /mcp, upstream: \"http://127.0.0.1:1\", auth: [ anonymous ], tools: [ { allow: [ get_* ] } ] } ]\n";
    fs::write(&config, text).unwrap();
    let explain = |rest: &[&str]| {
        let mut all = vec!["explain", "--config", config.to_str().unwrap()];
        all.extend(rest);
        run(&all)
    };
    let good = explain(&["POST", "http://127.0.0.1:8080/mcp", "--tool", "get_x"]);
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(said(&good).contains("replica    127.0.0.1:1, the only one"), "{}", said(&good));
    let refused = explain(&["POST", "http://localhost:8080/mcp", "--tool", "rm"]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("403 `authz.tool`"), "{}", said(&refused));
    let foreign = explain(&["POST", "http://localhost:8080/mcp", "-H", "Host: evil.example"]);
    assert!(said(&foreign).contains("421 `route.host_not_local`"), "{}", said(&foreign));
    assert_eq!(explain(&["POST", "nonsense"]).status.code(), Some(2));
}

#[test]
fn whose_session_it_is_is_explained() {
    let (dir, backend, other) = (tempfile::tempdir().unwrap(), replica("a"), replica("b"));
    let keys = dir.path().join("keys");
    fs::write(&keys, "a session key, which is long enough for it").unwrap();
    let base = |rest: &str| {
        edge()
            .top(&format!("sessions: {{ keys: [ \"${{file:{}}}\" ]{rest} }}", keys.display()))
            .upstream("one", &[backend.url(), other.url()], "balance: first_available")
            .upstream("two", &[backend.url()], "")
            .upstream("three", &[other.url()], "")
    };
    let routes = |config: Builder| {
        config.route("path: /mcp, upstream: one").route("path: /other, upstream: one")
    };
    let edge = routes(base("")).start();
    let id = session(&edge.ask(initialize("/mcp")));
    let explain = |config: &Builder, path: &str, id: &str| {
        let file = dir.path().join("explained.yaml");
        fs::write(&file, config.yaml(&dir.path().join("state"))).unwrap();
        let (url, field) = (format!("http://localhost{path}"), format!("Mcp-Session-Id: {id}"));
        let told =
            run(&["explain", "POST", &url, "--config", file.to_str().unwrap(), "-H", &field]);
        (told.status.code(), said(&told))
    };
    let refused = |(code, told): (Option<i32>, String), cause: &str| {
        let cause = format!("refused: 404 `{cause}`");
        assert!(code == Some(3) && told.contains(&cause), "{cause}: {code:?} {told}");
    };
    let (code, told) = explain(&routes(base("")), "/mcp", &id);
    let its = format!("{}, the session's", backend.authority());
    assert!(code == Some(0) && told.contains(&its), "{told}");
    refused(explain(&routes(base("")), "/mcp", "forged"), "session.unknown");
    refused(explain(&routes(base("")), "/other", &id), "session.unknown");
    let foreign = base("").route("path: /mcp, upstream: two");
    refused(explain(&foreign, "/mcp", &id), "session.foreign");
    let gone = edge_without(&keys, &other);
    refused(explain(&gone, "/mcp", &id), "session.replica_gone");
    // the edge says the same
    edge.ask(call("/other", &id, 1)).assert_refused(404);
    let aged = || explain(&routes(base(", max_age: 1s")), "/mcp", &id);
    eventually("it is too old", || aged().1.contains("refused: 404 `session.expired`"));
    edge.stop();
}

/// The same upstream with another replica.
fn edge_without(keys: &std::path::Path, other: &Backend) -> Builder {
    edge()
        .top(&format!("sessions: {{ keys: [ \"${{file:{}}}\" ] }}", keys.display()))
        .upstream("one", &[other.url()], "")
        .route("path: /mcp, upstream: one")
}
