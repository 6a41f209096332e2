//! Heads of tokens. In: any text; out: what is found in it is what simpler readers find.
#![no_main]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use mcp_edge::auth::oauth::token::{MAX_TOKEN, is_jwt_shaped, is_well_formed, read};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert!(!is_well_formed(bytes));
        return;
    };
    check(text);
    // the same as head and payload, so that what is inside is found, too
    let (head, claims) = text.split_once('\n').unwrap_or((r#"{"alg":"RS256"}"#, text));
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    check(&format!("{}.{}.AAAA", part(head), part(claims)));
});

fn check(text: &str) {
    let Ok(token) = read(text) else { return };
    assert!(text.len() <= MAX_TOKEN && is_well_formed(text.as_bytes()));
    assert_eq!(format!("{}.{}", token.message, token.signature), text);
    let parts: Vec<&str> = text.split('.').collect();
    assert_eq!(parts.len(), 3);
    let full = |part: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
    };
    let head = full(parts[0]);
    assert_eq!(full(parts[1]), Value::Object(token.claims));
    assert_eq!(head["kid"].as_str(), token.head.key.as_deref());
    assert!(head.get("crit").is_none() && head.get("b64").is_none() && head.get("enc").is_none());
    let named = head["alg"].as_str().expect("a name");
    assert!(!named.eq_ignore_ascii_case("none"));
    assert!(named == "Ed25519" || format!("{:?}", token.head.algorithm) == named);
    if parts[0].starts_with("eyJ") {
        assert!(is_jwt_shaped(text.as_bytes()));
    }
}
