//! A second look into a body, for what only some routes need: in, its bytes; out, its arguments and the trace
//! that it says it is in.

use super::read::{Fields, Read, keep, text};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess};

/// Longest value of a trace's keys, in bytes.
const MAX_WORD: usize = 512;

/// What stands in `params`.
#[derive(Debug, Default)]
pub struct Look<'b> {
    /// The arguments, as they stand there.
    pub arguments: Option<&'b str>,
    /// `_meta.traceparent` (MCP SEP-414).
    pub traceparent: Option<String>,
    /// `_meta.tracestate`.
    pub tracestate: Option<String>,
}

/// Looks into a body; what is no object with these fields gives nothing.
pub fn look(body: &[u8]) -> Look<'_> {
    let Ok(text_of) = std::str::from_utf8(body) else { return Look::default() };
    let mut json = serde_json::Deserializer::from_str(text_of);
    let mut root = Root::default();
    if Read(&mut root).deserialize(&mut json).is_err() {
        return Look::default();
    }
    let Params { arguments, meta } = root.0;
    let word = |raw| text(raw, MAX_WORD).into_text().map(|text| text.into_owned());
    Look { arguments, traceparent: word(meta.parent), tracestate: word(meta.state) }
}

#[derive(Default)]
struct Root<'de>(Params<'de>);

#[derive(Default)]
struct Params<'de> {
    arguments: Option<&'de str>,
    meta: Meta<'de>,
}

#[derive(Default)]
struct Meta<'de> {
    parent: Option<&'de str>,
    state: Option<&'de str>,
}

impl<'de> Fields<'de> for Root<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            b"params" => map.next_value_seed(Read(&mut self.0)),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

impl<'de> Fields<'de> for Params<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            b"arguments" => keep(&mut self.arguments, map, &mut false),
            b"_meta" => map.next_value_seed(Read(&mut self.meta)),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

impl<'de> Fields<'de> for Meta<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            b"traceparent" => keep(&mut self.parent, map, &mut false),
            b"tracestate" => keep(&mut self.state, map, &mut false),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_and_their_meta_are_looked_at() {
        let body = br#"{"arguments":1,"params":{"name":"x","arguments": {"a":[1, "_meta"]} ,
            "_meta":{"traceparent":"00-\u0061","tracestate":"k=v","x":{"traceparent":"no"}}},"_meta":{"tracestate":"no"}}"#;
        let found = look(body);
        assert_eq!(found.arguments, Some(r#"{"a":[1, "_meta"]}"#));
        assert_eq!(found.traceparent.as_deref(), Some("00-a"));
        assert_eq!(found.tracestate.as_deref(), Some("k=v"));
    }

    #[test]
    fn other_bodies_give_nothing() {
        let long = format!(r#"{{"params":{{"_meta":{{"traceparent":"{}"}}}}}}"#, "x".repeat(513));
        for body in [
            "",
            "[]",
            "3",
            r#"[{"params":{"arguments":{}}}]"#,
            r#"{"params":[{"arguments":{}}]}"#,
            r#"{"params":{"arguments":{}}"#,
            r#"{"params":{"_meta":{"traceparent":1}}}"#,
            &long,
        ] {
            let found = look(body.as_bytes());
            assert!(found.arguments.is_none() && found.traceparent.is_none(), "{body}");
        }
        assert!(look(b"\xff").arguments.is_none());
    }
}
