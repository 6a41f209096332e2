//! Published keys. In: any document; out: it is taken or refused, every key is counted, and none verifies what
//! nobody has signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::auth::oauth::jwks::KeySet;
use mcp_edge::auth::oauth::token::{Head, algorithm};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(keys) = KeySet::parse(bytes) else { return };
    let full: Value = serde_json::from_slice(bytes).expect("JSON");
    let items = full["keys"].as_array().expect("a list");
    assert_eq!(keys.len() + keys.left_out, items.len());
    assert!(items.len() <= 64);
    let names = items.iter().map(|item| item["kid"].as_str().map(str::to_owned));
    for key in names.chain([None, Some("other".to_owned())]).take(4) {
        for name in ["RS256", "PS512", "ES256", "ES384", "EdDSA", "HS256"] {
            let algorithm = algorithm(name).expect("a name");
            let head = Head { algorithm, key: key.clone(), kind: None };
            for signature in ["", "AAAA", &"A".repeat(86), &"A".repeat(342)] {
                let verdict = keys.verify(&head, "message", signature);
                assert!(!matches!(verdict, Some(Ok(()))), "{name} {key:?} {signature}");
            }
        }
    }
});
