//! A call's arguments in the audit log. In: any JSON; out: what is told is JSON of a bounded length, names are
//! those that a full parser finds, and nothing below a hidden name is shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::base::disclose::Disclosure;
use mcp_edge::inspect::arguments::told;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(full) = serde_json::from_slice::<Value>(bytes) else { return };
    let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
    let all = Disclosure::new(true, vec!["*token*".to_owned()]);
    read(&told(text, &all));

    let names = read(&told(text, &Disclosure::default()));
    let known = full.as_object();
    for name in names.as_array().expect("a list").iter().map(|name| name.as_str().expect("a text")) {
        let whole = known.is_some_and(|object| object.contains_key(name));
        assert!(whole || name.ends_with('…'), "{name:?} is no name of these");
    }

    // in a hidden place, at any depth, it leaves no trace
    let hidden = format!("{{\"Access_TOKEN\": {text}}}");
    assert_eq!(&*told(&hidden, &all), "{\"Access_TOKEN\":\"***\"}");
    let deeper = read(&told(&format!("{{\"a\": [{{\"token\": {text}}}]}}"), &all));
    assert_eq!(deeper["a"][0]["token"], "***");
});

fn read(told: &str) -> Value {
    assert!(told.len() <= 4096 + 6 * 256 + 64, "{} bytes", told.len());
    serde_json::from_str(told).expect("JSON")
}
