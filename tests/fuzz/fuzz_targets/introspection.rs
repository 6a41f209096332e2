//! Answers about tokens. In: any bytes; out: only what a full parser finds active is, and all of its claims are
//! what that parser finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::auth::oauth::introspection::read;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let full = serde_json::from_slice::<Value>(bytes);
    match read(bytes) {
        Ok(Some(claims)) => {
            assert_eq!(claims.get("active"), Some(&Value::Bool(true)));
            assert_eq!(full.expect("JSON"), Value::Object(claims));
        }
        Ok(None) => assert_eq!(full.expect("JSON")["active"], Value::Bool(false)),
        Err(words) => assert!(!words.is_empty()),
    }
});
