//! In: callers with rules on them, and every trick to get around these; out: what the backend gets, and what callers see.

mod bypass;
mod claims;
mod lists;
mod rules;

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::backend::{Backend, backend};
use crate::support::client::{Response, post};
use crate::support::edge::{Builder, Edge, edge};

/// An edge with one route at `/mcp` to this backend.
fn guarded(backend: &Backend, auth: &str, rules: &str) -> Builder {
    let route = format!("path: /mcp, upstream: one, auth: [ {auth} ], {rules}");
    edge().upstream("one", &[backend.url()], "").raw_route(&route)
}

/// A server with tools, which answers every call with a result.
fn tools() -> Backend {
    backend(|x| {
        let Some(body) = x.body() else { return };
        let call: Value = serde_json::from_slice(&body).unwrap_or_default();
        if x.request.method != "POST" {
            return x.answer("405 Method Not Allowed", &[], b"");
        }
        if call.get("id").is_none() {
            return x.answer("202 Accepted", &[], b"");
        }
        x.json(
            &json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "done": true } }).to_string(),
        );
    })
}

/// The body of a call.
fn body(tool: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
        .to_string()
}

/// A call of a tool, with these header lines.
fn call(tool: &str, lines: &str) -> String {
    post("localhost", "/mcp", lines, &body(tool))
}

/// `ok`, or the code of the refusal, which has a status and is one as the edge writes them.
fn verdict(edge: &Edge, answer: &Response) -> (u16, String) {
    if answer.status < 300 {
        return (answer.status, "ok".to_owned());
    }
    assert_eq!(answer.not_a_refusal(), None, "{answer:?}");
    (answer.status, edge.log_of(answer)["code"].as_str().unwrap_or("none").to_owned())
}

/// Keys of callers, in files.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A key of this name, with these metadata; and the header line that shows it.
    fn key(&self, name: &str, metadata: &str) -> (String, String) {
        let (path, key) = (self.0.path().join(name), format!("key-of-{name}-0123456789"));
        fs::write(&path, &key).unwrap();
        let value = format!("\"${{file:{}}}\"", path.display());
        let entry = format!("{{ name: {name}, value: {value}, metadata: {{ {metadata} }} }}");
        (entry, format!("X-API-Key: {key}\r\n"))
    }
}
