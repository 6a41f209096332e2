//! The demo's own tests. In: one blocking HTTP client of ten lines; out: what the demo's servers answer over
//! real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

/// Sends one request and reads the answer until the server closes.
fn exchange(server: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn post(server: SocketAddr, headers: &str, body: &str) -> String {
    exchange(server, "POST", server::PATH, headers, body)
}

fn open(server: SocketAddr) -> String {
    let answer = post(server, "", INITIALIZE);
    let id = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).unwrap();
    let headers = format!("mcp-session-id: {id}\r\nmcp-protocol-version: 2025-11-25\r\n");
    post(server, &headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    headers
}

fn call(server: SocketAddr, session: &str, tool: &str, arguments: &str) -> String {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},"_meta":{{"progressToken":"t"}}}}}}"#
    );
    post(server, session, &body)
}

fn modern(server: SocketAddr, tool: &str) -> String {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"t","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    );
    let headers = format!(
        "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {tool}\r\n"
    );
    post(server, &headers, &body)
}

fn text(answer: &str) -> &str {
    answer.split(r#""text":""#).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(answer)
}

#[test]
fn each_session_counts_for_itself() {
    let server = start("a").unwrap();
    let (first, second) = (open(server), open(server));
    assert_eq!(text(&call(server, &first, "count", "{}")), "1");
    assert_eq!(text(&call(server, &first, "count", "{}")), "2");
    assert_eq!(text(&call(server, &second, "count", "{}")), "1");
    assert_eq!(text(&call(server, &second, "whoami", "{}")), "a");
    assert_eq!(text(&call(server, &second, "echo", r#"{"message":"hi"}"#)), "hi");
}

#[test]
fn a_session_is_unknown_to_the_other_server() {
    let (a, b) = (start("a").unwrap(), start("b").unwrap());
    let session = open(a);
    assert!(call(b, &session, "count", "{}").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_deleted_session_is_gone() {
    let server = start("a").unwrap();
    let session = open(server);
    assert!(exchange(server, "DELETE", server::PATH, &session, "").starts_with("HTTP/1.1 2"));
    assert!(call(server, &session, "count", "{}").starts_with("HTTP/1.1 404"));
}

#[test]
fn slow_reports_each_step() {
    let server = start("a").unwrap();
    let session = open(server);
    let answer = call(server, &session, "slow", r#"{"n":3,"interval_ms":1}"#);
    assert_eq!(answer.matches("notifications/progress").count(), 3, "{answer}");
    assert_eq!(text(&answer), "3 steps done by a");
}

#[test]
fn the_era_without_sessions_counts_per_replica() {
    let server = start("b").unwrap();
    assert_eq!(text(&modern(server, "count")), "1");
    assert_eq!(text(&modern(server, "count")), "2");
    assert_eq!(text(&modern(server, "whoami")), "b");
}

#[test]
fn other_paths_are_not_found() {
    let server = start("a").unwrap();
    assert!(exchange(server, "POST", "/", "", INITIALIZE).starts_with("HTTP/1.1 404"));
}

#[test]
fn a_taken_port_is_replaced_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = taken.local_addr().unwrap();
    let plan = plan(wanted, folder.path()).unwrap();
    assert!(plan.words.starts_with(&format!("{wanted} is taken")), "{}", plan.words);
    assert!(!plan.config.contains(&format!("address: {wanted}\n")), "{}", plan.config);
}

#[test]
fn the_config_is_yaml_and_names_both_servers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("it's here");
    let plan = plan(SocketAddr::from(([127, 0, 0, 1], 0)), &folder).unwrap();
    let config: serde_json::Value = serde_yaml::from_str(&plan.config).unwrap();
    assert_eq!(config["upstreams"][0]["servers"].as_array().unwrap().len(), 2);
    let cert = config["listeners"][0]["tls"]["certificates"][0]["cert"].as_str().unwrap();
    assert!(Path::new(cert).is_file());
    assert!(plan.words.contains(r"it'\''s here/cert.pem'"), "{}", plan.words);
}
