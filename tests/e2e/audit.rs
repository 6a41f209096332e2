//! In: calls of all kinds; out: what an audit log tells of them, and what happens where it cannot.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::backend::{backend, plain};
use crate::support::client::{Client, get, post};
use crate::support::edge::{Builder, Edge, edge};
use crate::support::mcp;
use crate::support::wait::eventually;

const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";
const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";
/// `ann:pass:wörd`.
const ANN: &str = "Authorization: Basic YW5uOnBhc3M6d8O2cmQ=\r\n";
/// `bob:pass:wörd`.
const BOB: &str = "Authorization: Basic Ym9iOnBhc3M6d8O2cmQ=\r\n";

fn audited(to: &Path, rest: &str) -> Builder {
    edge().top(&format!("audit: {{ to: \"{}\"{rest} }}", to.display()))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines, once there are so many.
fn wait(path: &Path, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines"), || lines(path).len() >= count);
    let all = lines(path);
    assert_eq!(all.len(), count, "{all:?}");
    all
}

fn tool(name: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments}}}}}"#
    )
}

fn ask(edge: &Edge, extra: &str, body: &str) -> (u16, String) {
    let answer = edge.ask(post("localhost", "/x", extra, body));
    (answer.status, answer.header("x-request-id").unwrap_or_default().to_owned())
}

#[test]
fn who_called_what_and_whether_they_might() {
    let dir = tempfile::tempdir().unwrap();
    let (log, users) = (dir.path().join("audit.log"), dir.path().join("users"));
    fs::write(&users, format!("ann:{SHA}\nbob:{SHA}\n")).unwrap();
    let backend = plain();
    let edge = audited(&log, "")
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!(
            "upstream: one, auth: [ basic: {{ file: \"{}\" }} ],\n    require: {{ subject: [ ann ] }},\n    \
             tools: [\n    {{ deny: [ \"delete_*\" ] }},\n    {{ allow: [ \"get_*\" ] }} ]",
            users.display()
        ))
        .start();
    let config = fs::read_to_string(edge.config()).unwrap();
    let by = |key: &str, part: &str| {
        let line = config.lines().position(|line| line.contains(part)).unwrap() + 1;
        json!(format!("{key}, line {line}"))
    };
    let (status, id) = ask(&edge, ANN, &tool("get_x", r#"{"b":1,"a":"VALUE"}"#));
    assert_eq!(status, 200);
    let seen = wait(&log, 2);
    for (key, value) in [
        ("event", "call"),
        ("request_id", &id),
        ("client", "127.0.0.1"),
        ("auth", "basic"),
        ("principal", "ann"),
        ("rpc_method", "tools/call"),
        ("tool", "get_x"),
        ("outcome", "allowed"),
    ] {
        assert_eq!(seen[0][key], value, "{key}");
    }
    assert_eq!((&seen[0]["arguments"], &seen[0]["seq"]), (&json!(["b", "a"]), &json!(1)));
    assert_eq!(seen[0]["rule"], by("tools", "get_*"));
    assert_eq!((&seen[1]["event"], &seen[1]["rule"]), (&json!("answer"), &Value::Null));
    assert_eq!((&seen[1]["request_id"], &seen[1]["status"]), (&json!(id), &json!(200)));

    assert_eq!(ask(&edge, ANN, &tool("delete_x", "{}")).0, 403);
    let seen = wait(&log, 3);
    assert_eq!((&seen[2]["tool"], &seen[2]["outcome"]), (&json!("delete_x"), &json!("refused")));
    assert_eq!((&seen[2]["code"], &seen[2]["status"]), (&json!("authz.tool"), &json!(403)));
    assert_eq!(seen[2]["rule"], by("tools", "delete_*"));

    // strangers fill no disks; other methods are not calls
    assert_eq!(ask(&edge, "", &tool("get_x", "{}")).0, 401);
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert_eq!(ask(&edge, ANN, list).0, 200);
    let prompt = r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p","arguments":{"q":"VALUE"}}}"#;
    assert_eq!(ask(&edge, ANN, prompt).0, 200);
    let read = r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"http://u:VALUE@h/a?VALUE"}}"#;
    assert_eq!(ask(&edge, ANN, read).0, 200);
    let seen = wait(&log, 7);
    assert_eq!((&seen[3]["prompt"], &seen[3]["arguments"]), (&json!("p"), &json!(["q"])));
    assert_eq!(seen[5]["resource"], "http://h/a");
    // who asked for no tool was let in by what holds for the route
    assert_eq!(
        (&seen[3]["rule"], &seen[5]["rule"]),
        (&by("require", "ann"), &by("require", "ann"))
    );
    assert_eq!(ask(&edge, ANN, &tool("put_x", "{}")).0, 403);
    assert_eq!(ask(&edge, BOB, &tool("get_x", "{}")).0, 403);
    let seen = wait(&log, 9);
    assert_eq!(seen[7]["rule"], by("tools", "tools: ["));
    assert_eq!(
        (&seen[8]["code"], &seen[8]["rule"]),
        (&json!("authz.require"), &by("require", "ann"))
    );
    let numbers: Vec<_> = seen.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(!fs::read_to_string(&log).unwrap().contains("VALUE"));
    edge.stop();
}

#[test]
fn refusals_before_the_body_is_read_and_failures_after_it_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let gone = backend(|x| x.close());
    let edge = audited(&log, "")
        .upstream("gone", &[gone.url()], "")
        .route("upstream: gone, limits: [ { key: principal, rate: 1/h burst 1 } ]")
        .start();
    assert_eq!(ask(&edge, "", &tool("a", "{}")).0, 502);
    // what became of it is told behind the answer
    wait(&log, 2);
    assert_eq!(ask(&edge, "", &tool("b", r#"{"x":1}"#)).0, 429);
    let seen = wait(&log, 3);
    assert_eq!((&seen[0]["tool"], &seen[0]["outcome"]), (&json!("a"), &json!("allowed")));
    assert!(seen.iter().all(|line| line["rule"].is_null()), "none was asked: {seen:?}");
    assert_eq!((&seen[1]["status"], &seen[1]["code"]), (&json!(502), &json!("forward.closed")));
    assert_eq!((&seen[2]["tool"], &seen[2]["outcome"]), (&json!("b"), &json!("refused")));
    assert_eq!((&seen[2]["status"], &seen[2]["arguments"]), (&json!(429), &json!(["x"])));
    edge.stop();
}

#[test]
fn values_are_told_by_rule() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let backend = plain();
    let rest = r#", arguments: all, redact: [ "*secret*", user.mail ]"#;
    let edge = audited(&log, rest).to(&backend).start();
    let arguments = r#"{"q":"shown","Client_Secret":"HIDDEN","user":{"mail":"HIDDEN","age":3}}"#;
    assert_eq!(ask(&edge, "", &tool("x", arguments)).0, 200);
    let told = &wait(&log, 2)[0]["arguments"];
    let expected =
        json!({ "q": "shown", "Client_Secret": "***", "user": { "mail": "***", "age": 3 } });
    assert_eq!(told, &expected);
    edge.stop();
}

#[test]
fn nothing_goes_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.log");
    let backend = plain();
    let edge = audited(&log, "")
        .upstream("one", &[backend.url()], "")
        .route("upstream: one")
        .route("upstream: one, path: /off, audit: off")
        .start();
    let batch = format!("[{}]", tool("x", "{}"));
    for body in [
        batch.as_str(),
        &tool("x", "{}").replace("tools/call", "Tools/Call"),
        &tool("x", "{}").replace("prompts", "x").replace("tools/call", "Prompts/Get"),
        &tool("x", "{}").replace("arguments", "Arguments"),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{},"arguments":{"y":1}}}"#,
    ] {
        assert_eq!(ask(&edge, "", body).0, 400, "{body}");
    }
    assert_eq!(backend.count(), 0);
    let open = edge.ask(post("localhost", "/off", "", &batch));
    assert_eq!((open.status, backend.count()), (200, 1));
    // two of them named a tool
    let told = wait(&log, 2);
    assert!(
        told.iter().all(|line| line["outcome"] == "refused" && line["code"] == "inspect.odd_key")
    );
    edge.stop();
}

#[test]
fn a_call_that_cannot_be_recorded_is_not_made() {
    let backend = plain();
    let edge = audited(Path::new("/dev/full"), "").top(ADMIN).to(&backend).start();
    let answer = edge.ask(post("localhost", "/x", "", &tool("x", "{}")));
    assert_eq!(answer.assert_refused(503)["id"], 1);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(backend.count(), 0, "the server has not heard of it");
    edge.wait_line("cannot write the audit log");
    assert_eq!(edge.log_of(&answer)["code"], "audit.unwritable");
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert_eq!(ask(&edge, "", list).0, 200, "what is not told of goes on");
    let metrics = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    assert!(metrics.contains("mcp_edge_audit_failing 1"), "{metrics}");
    assert_eq!(
        edge.stderr().iter().filter(|l| l.contains("the audit log")).count(),
        1,
        "said once"
    );
    edge.stop();
}

#[test]
fn where_calls_go_on_lost_lines_are_counted() {
    let backend = plain();
    let edge = audited(Path::new("/dev/full"), ", full: go_on").top(ADMIN).to(&backend).start();
    assert_eq!(ask(&edge, "", &tool("x", "{}")).0, 200);
    edge.wait_line("cannot write the audit log");
    eventually("both lines are counted", || {
        let metrics = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
        metrics.contains("mcp_edge_audit_lines_total{result=\"lost\"} 2")
    });
    edge.stop();
}

#[test]
fn it_is_turned_and_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (log, moved) = (dir.path().join("audit.log"), dir.path().join("moved"));
    let backend = plain();
    let edge = audited(&log, ", rotate: { size: 4KiB }").to(&backend).start();
    for n in 0..3 {
        ask(&edge, "", &tool(&format!("t{n}"), "{}"));
    }
    wait(&log, 6);
    fs::rename(&log, &moved).unwrap();
    edge.signal("USR1");
    eventually("there is a new file", || log.exists());
    for n in 0..60 {
        ask(&edge, "", &tool(&format!("u{n}"), "{}"));
    }
    edge.stop();
    let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 4, "{files:?}");
    let mut numbers: Vec<_> =
        files.iter().flat_map(|f| lines(f)).map(|l| l["seq"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=126).collect::<Vec<_>>(), "none lost, none twice");
}

#[test]
fn two_processes_may_write_to_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (log, backend) = (dir.path().join("audit.log"), plain());
    let mut edge = audited(&log, "").to(&backend).start();
    let (_, first) = ask(&edge, "", &tool("a", "{}"));
    wait(&log, 2);
    let (code, said) = edge.upgrade();
    assert_eq!(code, Some(0), "{said}");
    // both may answer for as long as the old one is there
    assert_eq!(edge.first_exit(), Some(0));
    let (_, second) = ask(&edge, "", &tool("b", "{}"));
    let seen = wait(&log, 4);
    let whose = |n: usize| {
        let instance = seen[n]["instance"].as_str().unwrap();
        (instance.to_owned(), seen[n]["seq"].as_u64().unwrap())
    };
    let (old, new) = (whose(0).0, whose(2).0);
    assert!(old != new && old.len() == 8 && new.len() == 8, "{old} {new}");
    assert_eq!([whose(1), whose(3)], [(old.clone(), 2), (new.clone(), 2)]);
    assert!(first.starts_with(&old) && second.starts_with(&new));
    edge.stop();
}

#[test]
fn it_may_stand_on_standard_output() {
    let backend = mcp::replica("a");
    let edge = edge().top("audit: { to: stdout }").to(&backend).start();
    let session = mcp::session(&edge.ask(mcp::initialize("/x")));
    let answer = edge.ask(mcp::call("/x", &session, 2));
    let id = answer.header("x-request-id").unwrap();
    let line = edge.log("the call", |line| line["event"] == "call" && line["request_id"] == id);
    assert_eq!((&line["tool"], &line["auth"]), (&json!("add"), &json!("anonymous")));
    assert!(!line.to_string().contains(&session));
    edge.stop();
}
