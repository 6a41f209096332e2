//! The JSON-RPC envelope: any bytes are taken, what is echoed is JSON, and what is read is what a
//! full parser reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::inspect::{Scan, scan};
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
