//! In: a name; out: a stateful MCP server as small as one can be, which knows only the sessions that it minted itself.

use std::net::TcpListener;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::backend::{Backend, Exchange, backend_on};
use super::client::{Response, post};

/// A replica that mints `<name>-session-<n>` at `initialize` and answers 404 to all others; 503 to who asks for that
/// by `X-Break`.
pub(crate) fn replica(name: &'static str) -> Backend {
    replica_on(TcpListener::bind("127.0.0.1:0").unwrap(), name)
}

/// The same on a socket of the caller's.
pub(crate) fn replica_on(listener: TcpListener, name: &'static str) -> Backend {
    let minted = Mutex::new(Vec::<String>::new());
    backend_on(listener, move |x| {
        let Some(body) = x.body() else { return };
        let call: Value = serde_json::from_slice(&body).unwrap_or_default();
        let session = x.header("mcp-session-id");
        let modern = x.header("mcp-protocol-version").as_deref() == Some("2026-07-28");
        if x.header("x-break").is_some() {
            return x.answer("503 Broken", &[], b"");
        }
        let mut minted = minted.lock().unwrap();
        if call["method"] == "initialize" {
            let id = format!("{name}-session-{}", minted.len());
            minted.push(id.clone());
            let headers = [("content-type", "application/json"), ("Mcp-Session-Id", id.as_str())];
            return x.answer("200 OK", &headers, result(&call, name, None).to_string().as_bytes());
        }
        let stranger = session.as_ref().is_some_and(|id| !minted.contains(id));
        // A stream is held below for as long as the client likes; others must get in.
        drop(minted);
        match session {
            Some(_) if !modern && stranger => unknown(x, &call),
            Some(id) if !modern => known(x, &call, name, &id),
            _ => x.json(&result(&call, name, None).to_string()),
        }
    })
}

fn known(x: &mut Exchange, call: &Value, name: &str, id: &str) {
    match x.request.method.as_str() {
        "GET" => {
            x.sse(&[("mcp-session-id", id)]);
            x.chunk(format!("event: message\ndata: {}\n\n", json!({ "replica": name })));
            x.wait_closed();
        }
        "POST" if call.get("id").is_none() => x.answer("202 Accepted", &[], b""),
        _ => {
            let headers = [("content-type", "application/json"), ("mcp-session-id", id)];
            x.answer("200 OK", &headers, result(call, name, Some(id)).to_string().as_bytes());
        }
    }
}

fn unknown(x: &mut Exchange, call: &Value) {
    let body = json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": -32001, "message": "no such session" } });
    x.answer("404 Not Found", &[("content-type", "application/json")], body.to_string().as_bytes());
}

fn result(call: &Value, name: &str, session: Option<&str>) -> Value {
    json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "replica": name, "session": session } })
}

/// `initialize` of the 2025-11-25 revision.
pub(crate) fn initialize(path: &str) -> String {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "e2e", "version": "1" } } });
    post("localhost", path, "", &body.to_string())
}

/// `tools/call` of a legacy session.
pub(crate) fn call(path: &str, session: &str, id: u64) -> String {
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "add", "arguments": {} } });
    let extra = format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-11-25\r\n");
    post("localhost", path, &extra, &body.to_string())
}

/// A request of the 2026-07-28 era; `extra` are whole header lines.
pub(crate) fn modern(path: &str, extra: &str, id: u64) -> String {
    let body = modern_body("tools/list", id);
    let extra = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n{extra}");
    post("localhost", path, &extra, &body)
}

/// The body of a request of the 2026-07-28 era.
pub(crate) fn modern_body(method: &str, id: u64) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "name": "add", "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} } } })
    .to_string()
}

/// The session id of an answer to `initialize`.
pub(crate) fn session(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.count("mcp-session-id"), 1);
    response.header("mcp-session-id").unwrap().to_owned()
}

/// Which replica made the answer.
pub(crate) fn by(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["result"]["replica"].as_str().expect("a replica's name").to_owned()
}
