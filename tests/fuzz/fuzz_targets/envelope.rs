//! The JSON-RPC envelope. In: any bytes; out: what is echoed is JSON, and what is read is what a full parser
//! reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::inspect::{Message, Scan, scan, scan_strictly};
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let got = scan(body);
    let full = serde_json::from_slice::<Value>(body);
    let message = match (&got, &full) {
        (Scan::BadJson, full) => {
            assert!(full.is_err(), "{full:?}");
            return;
        }
        (Scan::Single(message), full) => {
            if let Some(id) = &message.id {
                assert!(
                    id.len() <= 256
                        && serde_json::from_str::<&serde_json::value::RawValue>(id).is_ok()
                );
            }
            assert!(message.name.as_ref().is_none_or(|name| name.len() <= 8192));
            let Ok(full) = full else { return };
            (message, full)
        }
        (Scan::Batch(batch), Ok(full)) => {
            assert_eq!(full.as_array().map(Vec::len), Some(batch.len));
            return;
        }
        _ => return,
    };
    let (message, full) = message;
    if message.duplicate {
        return;
    }
    assert_eq!(full.get("jsonrpc"), Some(&Value::from("2.0")));
    strictly(body, message, full);
    if message.method.is_some() {
        assert_eq!(full.get("method").and_then(Value::as_str), message.method.as_deref());
    }
    if let (Some("tools/call"), false) = (message.method.as_deref(), message.unreadable) {
        let name = full.pointer("/params/name").and_then(Value::as_str);
        assert_eq!(name, message.name.as_deref());
    }
    if !message.bad_version {
        let meta = full.get("params").and_then(|params| params.get("_meta"));
        let version = meta.and_then(|meta| meta.get("io.modelcontextprotocol/protocolVersion"));
        assert_eq!(version.and_then(Value::as_str), message.protocol_version.as_deref());
    }
});

/// Read strictly, it is the same message, and no key is ours in another case.
fn strictly(body: &[u8], message: &Message, full: &Value) {
    let Scan::Single(strict) = scan_strictly(body) else { panic!("it was one message") };
    assert_eq!(&Message { odd: false, ..strict.clone() }, message);
    let like = |part: Option<&Value>, ours: &[&str]| {
        let keys = part.and_then(Value::as_object).into_iter().flat_map(|map| map.keys());
        let mut keys = keys.filter(|key| !ours.contains(&key.as_str()));
        keys.any(|key| ours.iter().any(|own| key.eq_ignore_ascii_case(own)))
    };
    let call = message.method.as_deref() == Some("tools/call");
    let odd = like(Some(full), &["jsonrpc", "id", "method", "params", "result", "error"])
        || call && like(full.get("params"), &["name", "_meta"]);
    assert!(strict.odd || !odd);
}
