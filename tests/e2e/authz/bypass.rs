//! In: every trick to make a server execute what the edge has not judged; out: none reaches the backend.

use serde_json::json;

use super::{body, call, guarded, tools, verdict};
use crate::support::certs::Certs;
use crate::support::client::post;
use crate::support::h2::{H2, request};

const RULES: &str = "tools: [ { allow: [ echo, \"ec*\" ] } ]";

/// A POST with these lines in place of the usual ones.
fn raw(lines: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, text/event-stream\r\n\
         {lines}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn json_raw(body: &[u8]) -> Vec<u8> {
    raw("Content-Type: application/json\r\n", body)
}

fn rpc(members: &str) -> Vec<u8> {
    json_raw(format!(r#"{{"jsonrpc":"2.0","id":7,{members}}}"#).as_bytes())
}

fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(order).collect()
}

/// What is sent, and how it is refused.
type Trick = (&'static str, Vec<u8>, u16, &'static str);

/// Bodies that servers read and we would not, or read in another way.
fn bodies() -> Vec<Trick> {
    let (drop, echo) = (body("drop"), body("echo"));
    vec![
        ("forbidden", json_raw(drop.as_bytes()), 403, "authz.tool"),
        (
            "escaped name",
            rpc(r#""method":"tools/call","params":{"n\u0061me":"\u0064rop"}"#),
            403,
            "authz.tool",
        ),
        (
            "escaped method",
            rpc(r#""m\u0065thod":"tools\/c\u0061ll","params":{"name":"drop"}"#),
            403,
            "authz.tool",
        ),
        (
            "a notification",
            json_raw(br#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"drop"}}"#),
            403,
            "authz.tool",
        ),
        (
            "as a task (2025-11-25)",
            rpc(r#""method":"tools/call","params":{"name":"drop","task":{"ttl":1}}"#),
            403,
            "authz.tool",
        ),
        (
            "with a result beside it",
            rpc(r#""result":{},"method":"tools/call","params":{"name":"drop"}"#),
            403,
            "authz.tool",
        ),
        ("a batch", json_raw(format!("[{echo},{drop}]").as_bytes()), 400, "inspect.batch"),
        ("a batch of one", json_raw(format!(" [{drop}] ").as_bytes()), 400, "inspect.batch"),
        ("an empty batch", json_raw(b"[]"), 400, "inspect.batch"),
        (
            "doubled name",
            rpc(r#""method":"tools/call","params":{"name":"echo","name":"drop"}"#),
            400,
            "inspect.duplicate_key",
        ),
        (
            "doubled name, escaped",
            rpc(r#""method":"tools/call","params":{"name":"echo","nam\u0065":"drop"}"#),
            400,
            "inspect.duplicate_key",
        ),
        (
            "doubled method",
            rpc(r#""method":"ping","method":"tools/call","params":{"name":"drop"}"#),
            400,
            "inspect.duplicate_key",
        ),
        (
            "doubled params",
            rpc(r#""method":"tools/call","params":{"name":"echo"},"params":{"name":"drop"}"#),
            400,
            "inspect.duplicate_key",
        ),
        (
            "doubled _meta",
            rpc(r#""method":"tools/call","params":{"name":"echo","_meta":{},"_meta":{}}"#),
            400,
            "inspect.duplicate_key",
        ),
        (
            "a second name in upper case",
            rpc(r#""method":"tools/call","params":{"name":"echo","NAME":"drop"}"#),
            400,
            "inspect.odd_key",
        ),
        (
            "a second method in another case",
            rpc(r#""method":"ping","Method":"tools/call","params":{"name":"drop"}"#),
            400,
            "inspect.odd_key",
        ),
        (
            "params by folding",
            rpc(r#""method":"tools/call","params":{"name":"echo"},"param\u017f":{"name":"drop"}"#),
            400,
            "inspect.odd_key",
        ),
        (
            "a zero byte in a key",
            rpc(r#""method":"tools/call","params":{"name":"echo","name\u0000":"drop"}"#),
            400,
            "inspect.odd_key",
        ),
        (
            "a prototype",
            rpc(r#""result":{},"__proto__":{"method":"tools/call","params":{"name":"drop"}}"#),
            400,
            "inspect.odd_key",
        ),
        (
            "a method that is a list",
            rpc(r#""method":["tools/call"],"result":{},"params":{"name":"drop"}"#),
            400,
            "inspect.odd_key",
        ),
        (
            "a method in another case",
            rpc(r#""method":"Tools/Call","params":{"name":"drop"}"#),
            400,
            "inspect.odd_method",
        ),
        ("no name", rpc(r#""method":"tools/call","params":{}"#), 400, "inspect.no_tool"),
        (
            "params in a list",
            rpc(r#""method":"tools/call","params":["drop"]"#),
            400,
            "inspect.no_tool",
        ),
        (
            "a name that is a list",
            rpc(r#""method":"tools/call","params":{"name":["drop"]}"#),
            400,
            "inspect.no_tool",
        ),
        (
            "a lone surrogate",
            rpc(r#""method":"tools/call","params":{"name":"drop\ud800"}"#),
            400,
            "inspect.unreadable",
        ),
        (
            "a name without end",
            rpc(&format!(r#""method":"tools/call","params":{{"name":"{}"}}"#, "e".repeat(9000))),
            400,
            "inspect.unreadable",
        ),
        (
            "not version 2.0",
            json_raw(drop.replace("2.0", "2.1").as_bytes()),
            400,
            "inspect.not_rpc",
        ),
        (
            "a byte order mark",
            json_raw(&[b"\xef\xbb\xbf", drop.as_bytes()].concat()),
            400,
            "inspect.bad_json",
        ),
        ("UTF-16", json_raw(&utf16(&drop, u16::to_le_bytes)), 400, "inspect.bad_json"),
        ("UTF-16BE", json_raw(&utf16(&drop, u16::to_be_bytes)), 400, "inspect.bad_json"),
        ("a comment", json_raw(drop.replacen('{', "{/**/", 1).as_bytes()), 400, "inspect.bad_json"),
        ("two messages", json_raw(format!("{echo}\n{drop}").as_bytes()), 400, "inspect.bad_json"),
        (
            "a trailing comma",
            json_raw(drop.replace("}}", "},}").as_bytes()),
            400,
            "inspect.bad_json",
        ),
        ("nothing", json_raw(b""), 400, "inspect.no_body"),
    ]
}

/// Heads that make servers read bodies in another way, or read what we do not.
fn heads() -> Vec<Trick> {
    let drop = body("drop");
    let drop = drop.as_bytes();
    let json = "Content-Type: application/json\r\n";
    let mut all = vec![
        ("no type", raw("", drop), 415, "inspect.content_type"),
        (
            "two types",
            raw(&format!("{json}Content-Type: text/plain\r\n"), drop),
            415,
            "inspect.content_type",
        ),
        (
            "an unknown method",
            [b"PROPFIND /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice()].concat(),
            405,
            "inspect.method",
        ),
        (
            "a WebSocket",
            b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_vec(),
            403,
            "inspect.upgrade",
        ),
    ];
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/x-ndjson",
        "application/vnd.api+json",
        "text/plain, application/json",
        "multipart/form-data; x=application/json",
        "application/json; charset=utf-16le",
        "application/json; charset=iso-8859-1",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset*=utf-16''x",
    ] {
        let lines = format!("Content-Type: {kind}\r\n");
        all.push(("another type", raw(&lines, drop), 415, "inspect.content_type"));
    }
    for coding in ["gzip", "deflate", "br", "identity, gzip", "x-gzip"] {
        let lines = format!("{json}Content-Encoding: {coding}\r\n");
        all.push(("coded", raw(&lines, drop), 415, "inspect.coded"));
    }
    for method in ["PUT", "PATCH", "QUERY"] {
        let request = call("drop", "").replacen("POST", method, 1);
        all.push(("another method", request.into_bytes(), 405, "inspect.method"));
    }
    for method in ["GET", "DELETE", "OPTIONS"] {
        let request = call("drop", "").replacen("POST", method, 1);
        all.push(("a body unasked", request.into_bytes(), 400, "inspect.body_unasked"));
        let chunked = format!(
            "{method} /mcp HTTP/1.1\r\nHost: localhost\r\n{json}Transfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{}\r\n0\r\n\r\n",
            drop.len(),
            body("drop")
        );
        all.push(("a body unasked", chunked.into_bytes(), 400, "inspect.body_unasked"));
    }
    all
}

/// What a client says of itself in header fields.
fn spoofed() -> Vec<Trick> {
    let named = |tool: &str, header: &str, version: &str| {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": version });
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
                           "params": { "name": tool, "_meta": meta } });
        let lines = format!(
            "MCP-Protocol-Version: {version}\r\nMcp-Method: tools/call\r\nMcp-Name: {header}\r\n"
        );
        post("localhost", "/mcp", &lines, &body.to_string()).into_bytes()
    };
    let (old, new) = ("2025-11-25", "2026-07-28");
    let legacy = "Mcp-Method: ping\r\nMcp-Name: echo\r\n";
    let chunked = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        body("drop").len(),
        body("drop")
    );
    vec![
        (
            "mirrors mean nothing on old requests",
            call("drop", legacy).into_bytes(),
            403,
            "authz.tool",
        ),
        ("nor with an old version", named("drop", "echo", old), 403, "authz.tool"),
        ("the body counts", named("drop", "drop", new), 403, "authz.tool"),
        (
            "and the header must say the same",
            named("drop", "echo", new),
            400,
            "inspect.header_mismatch",
        ),
        (
            "base64 or not",
            named("drop", "=?base64?ZWNobw==?=", new),
            400,
            "inspect.header_mismatch",
        ),
        ("base64 or not", named("drop", "=?base64?ZHJvcA==?=", new), 403, "authz.tool"),
        (
            "another method by a header",
            call("drop", "X-HTTP-Method-Override: GET\r\n").into_bytes(),
            403,
            "authz.tool",
        ),
        ("chunked", chunked.into_bytes(), 403, "authz.tool"),
    ]
}

#[test]
fn no_trick_reaches_the_backend() {
    let backend = tools();
    let edge = guarded(&backend, "anonymous", &format!("methods: any, {RULES}")).start();
    let tricks: Vec<Trick> = [bodies(), heads(), spoofed()].concat();
    assert!(tricks.len() > 60, "{}", tricks.len());
    for (trick, request, status, code) in &tricks {
        let answer = edge.ask(request);
        let shown = String::from_utf8_lossy(request);
        assert_eq!(verdict(&edge, &answer), (*status, (*code).to_owned()), "{trick}: {shown}");
        if *code == "authz.tool" && *trick != "a notification" {
            assert_eq!(answer.json()["id"], 7, "{trick}");
        }
    }
    assert_eq!(backend.count(), 0, "{:?}", backend.requests());
    // and what is allowed is let through in all good forms
    let good = [
        call("echo", ""),
        call("echo", "Mcp-Name: drop\r\nMcp-Method: tools/list\r\n"),
        call("echo", "Content-Encoding: identity\r\n"),
        call("ec\u{f6}", ""),
        call("echo", "").replace("application/json\r\n", "application/json; charset=UTF-8\r\n"),
        call("echo", "").replace("\"name\"", "\"n\\u0061me\"").replace(
            &format!("Content-Length: {}", body("echo").len()),
            &format!("Content-Length: {}", body("echo").len() + 5),
        ),
    ];
    for (n, request) in good.iter().enumerate() {
        let answer = edge.ask(request);
        assert_eq!(verdict(&edge, &answer), (200, "ok".to_owned()), "{request}");
        assert_eq!(backend.count(), n + 1);
    }
    for method in ["GET", "DELETE", "OPTIONS"] {
        let answer = edge.ask(format!(
            "{method} /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!((answer.status, answer.body.len()), (405, 0), "the backend's own answer");
    }
    assert_eq!(backend.count(), good.len() + 3);
}

#[test]
fn nor_over_http2() {
    let (certs, backend) = (Certs::new(), tools());
    let edge = guarded(&backend, "anonymous", RULES).listener(&certs.listener()).start();
    let json = ("content-type", "application/json");
    for (method, fields, tool, expected) in [
        ("POST", vec![json], "drop", 403),
        ("POST", vec![json, ("content-encoding", "gzip")], "echo", 415),
        ("POST", vec![("content-type", "text/plain")], "echo", 415),
        ("GET", vec![json], "echo", 400),
        ("DELETE", vec![json], "echo", 400),
        ("POST", vec![json], "echo", 200),
    ] {
        let mut client = H2::connect(edge.address(), certs.client(&["h2"]));
        let (answer, mut stream) = client.begin(request(method, "/mcp", &fields), false);
        // a refusal may end the stream before the body is out
        drop(stream.send_data(body(tool).into(), true));
        let status = client.head(answer).unwrap().head.status;
        assert_eq!(status, expected, "{method} {fields:?} {tool}");
    }
    assert_eq!(backend.count(), 1);
}

#[test]
fn routes_without_tool_rules_stay_as_they_were() {
    let backend = tools();
    let edge = guarded(&backend, "anonymous", "methods: any").start();
    let tricks: Vec<Trick> = [bodies(), heads()].concat();
    let free =
        ["a batch", "a second name in upper case", "a byte order mark", "no type", "a WebSocket"];
    let mut sent = 0;
    for (trick, request, ..) in tricks.iter().filter(|(trick, ..)| free.contains(trick)) {
        edge.ask(request);
        sent += 1;
        assert_eq!(backend.count(), sent, "{trick}");
    }
    assert_eq!(sent, free.len());
}
