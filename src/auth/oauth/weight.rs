//! What claims take of memory: in, claims; out, bytes, by estimate. Their JSON says little: an object of
//! small objects takes forty times as much when it is read.

use serde_json::{Map, Value};

/// One entry of an object: its share of a node of the tree, and the texts' own heads.
const ENTRY: usize = 112;

/// Bytes on the heap. The depth is bounded by what reads JSON.
pub(super) fn of(claims: &Map<String, Value>) -> usize {
    claims.iter().map(|(name, value)| ENTRY + name.len() + of_value(value)).sum()
}

fn of_value(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(|value| size_of::<Value>() + of_value(value)).sum(),
        // the tree gives room for eleven entries to whoever has one
        Value::Object(entries) => 11 * ENTRY + of(entries),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nesting_weighs() {
        let weigh = |value: Value| of(value.as_object().unwrap());
        assert_eq!(weigh(json!({})), 0);
        assert_eq!(weigh(json!({ "sub": "ann" })), ENTRY + 6);
        assert_eq!(weigh(json!({ "a": [1, "x"] })), ENTRY + 2 + 2 * size_of::<Value>());
        assert_eq!(weigh(json!({ "a": { "b": 1 } })), 13 * ENTRY + 2);
        let nested = json!({ "a": vec![json!({ "b": 1 }); 1000] });
        assert!(weigh(nested.clone()) > 100 * nested.to_string().len());
    }
}
