//! JSON-RPC in an answer to a check: in, bytes; out, the response that was asked for.

use serde_json::Value;

/// What a server said to a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Response {
    /// Its `result`.
    Result(Value),
    /// The code of its `error`.
    Error(i64),
}

/// The response with this id, if that is what the text is.
pub(super) fn response(text: &[u8], id: u64) -> Option<Response> {
    let mut message: Value = serde_json::from_slice(text).ok()?;
    let message = message.as_object_mut()?;
    if message.get("jsonrpc")? != "2.0" {
        return None;
    }
    // to a request that it could not read, a server answers without an id (JSON-RPC 2.0 §5)
    let answered = message.get("id");
    if let Some(error) = message.get("error") {
        let fits = answered.is_none_or(|a| *a == id || a.is_null());
        return fits
            .then(|| Response::Error(error.get("code").and_then(Value::as_i64).unwrap_or(0)));
    }
    let fits = answered.is_some_and(|a| *a == id);
    fits.then(|| message.remove("result").map(Response::Result)).flatten()
}

/// Data of an event stream, as it comes. The caller bounds how much that is.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    after_cr: bool,
}

impl Events {
    /// The data of the events that end in this piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut ended = Vec::new();
        for byte in piece {
            let skipped = std::mem::replace(&mut self.after_cr, *byte == b'\r') && *byte == b'\n';
            match byte {
                b'\n' if skipped => {}
                b'\r' | b'\n' => ended.extend(self.line_end()),
                other => self.line.push(*other),
            }
        }
        ended
    }

    fn line_end(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Some(std::mem::take(&mut self.data)).filter(|data| !data.is_empty());
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_response_that_was_asked_for() {
        let good = br#"{"jsonrpc":"2.0","id":2,"result":{"a":1}}"#;
        assert_eq!(response(good, 2), Some(Response::Result(serde_json::json!({ "a": 1 }))));
        assert_eq!(response(good, 1), None);
        let error = |id| format!(r#"{{"jsonrpc":"2.0"{id},"error":{{"code":-32601}}}}"#);
        for id in ["", r#","id":2"#, r#","id":null"#] {
            assert_eq!(response(error(id).as_bytes(), 2), Some(Response::Error(-32601)));
        }
        assert_eq!(response(error(r#","id":3"#).as_bytes(), 2), None);
        let others: [&[u8]; 5] = [
            b"",
            b"<html>",
            b"[]",
            br#"{"jsonrpc":"2.0","id":2}"#,
            br#"{"jsonrpc":"2.0","method":"ping","id":2}"#,
        ];
        assert!(others.iter().all(|text| response(text, 2).is_none()));
    }

    #[test]
    fn events_come_in_any_pieces() {
        let all = b": hi\r\n\r\nevent: message\r\ndata: one\r\n\r\nid: 7\ndata:two\ndata: three\n\ndata\rdata: 4\r\r";
        for size in 1..all.len() {
            let mut events = Events::default();
            let found: Vec<_> = all.chunks(size).flat_map(|piece| events.take(piece)).collect();
            assert_eq!(found, [&b"one"[..], b"two\nthree", b"4"], "{size}");
        }
    }
}
