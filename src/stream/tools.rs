//! Lists of tools. In: a whole JSON text; out: the same, without the tools that the caller may not call.
//!
//! A list is told by its structure: a JSON-RPC response whose `result.tools` is an array. So it does not
//! matter which request it answers, nor by which way it comes. All other bytes stay as they are. What
//! could be a list and cannot be read is refused.

use memchr::{memchr, memmem};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use crate::base::text::BOM;
use crate::inspect::read::{Fields, Read, Text, keep, text};

/// Longest name of a tool that is shown, in bytes; as it may be called.
const MAX_NAME: usize = 8192;
/// What the hint for caches becomes (MCP 2026-07-28, server/utilities/caching): the list is this
/// caller's, even if nothing was taken out of it.
const PRIVATE: &str = "\"private\"";

/// Says of a tool whether the caller may see it.
pub type Shows = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Why an answer cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It may hold a list, but cannot be read, or not in one way only.
    Unreadable,
    /// It, or one event of it, is larger than what is read.
    TooLarge,
    /// The edge holds too much already.
    Full,
}

impl Refused {
    /// Its stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "authz.list_unreadable",
            Self::TooLarge => "authz.list_too_large",
            Self::Full => "limit.buffer",
        }
    }
}

/// Takes out of a text what the caller may not see; `None` where it can go on as it is.
///
/// # Errors
/// [`Refused::Unreadable`]: it is no JSON but looks like a list, or `result`, `tools` or `cacheScope`
/// stand twice.
pub fn cut(json: &[u8], shows: &dyn Fn(&str) -> bool) -> Result<Option<Vec<u8>>, Refused> {
    if !may_be_list(json) {
        return Ok(None);
    }
    // clients that take a text from bytes drop it
    let bare = json.strip_prefix(&BOM).unwrap_or(json);
    let Some(root) = std::str::from_utf8(bare).ok().and_then(parse) else {
        return if looks_like_list(json) { Err(Refused::Unreadable) } else { Ok(None) };
    };
    let mut edits = Vec::new();
    for answer in root.batch.iter().chain([&root.single]) {
        answer.edits(shows, &mut edits)?;
    }
    Ok((!edits.is_empty()).then(|| applied(json, edits)))
}

/// Whether it is worth a look: most answers are no lists. Keys can be written with escapes, but not the
/// letters of this one without `\u00`; and a zero byte is UTF-16, which some clients guess.
pub(super) fn may_be_list(json: &[u8]) -> bool {
    looks_like_list(json) || memmem::find(json, b"\\u00").is_some()
}

fn looks_like_list(json: &[u8]) -> bool {
    memmem::find(json, b"\"tools\"").is_some() || memchr(0, json).is_some()
}

fn parse(text: &str) -> Option<Root<'_>> {
    let (mut root, mut json) = (Root::default(), serde_json::Deserializer::from_str(text));
    Read(&mut root).deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(root)
}

/// One message, or a batch of them.
#[derive(Default)]
struct Root<'de> {
    single: Answer<'de>,
    batch: Vec<Answer<'de>>,
}

#[derive(Default)]
struct Answer<'de> {
    results: usize,
    result: Found<'de>,
}

/// What of a result matters, as it stands in the text.
#[derive(Default)]
struct Found<'de> {
    tools: Option<&'de str>,
    scope: Option<&'de str>,
    duplicate: bool,
}

impl<'de> Fields<'de> for Root<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        self.single.field(key, map)
    }

    fn elements<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<(), A::Error> {
        let mut answer = Answer::default();
        while seq.next_element_seed(Read(&mut answer))?.is_some() {
            if answer.results > 0 {
                self.batch.push(std::mem::take(&mut answer));
            }
        }
        Ok(())
    }
}

impl<'de> Fields<'de> for Answer<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        if key != b"result" {
            return map.next_value::<IgnoredAny>().map(drop);
        }
        self.results += 1;
        map.next_value_seed(Read(&mut self.result))
    }
}

impl<'de> Fields<'de> for Found<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            b"tools" => keep(&mut self.tools, map, &mut self.duplicate),
            b"cacheScope" => keep(&mut self.scope, map, &mut self.duplicate),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

/// What stands in place of a part of the text, which is a slice of it.
type Edit<'t> = (&'t str, Vec<u8>);

impl<'de> Answer<'de> {
    fn edits(
        &self,
        shows: &dyn Fn(&str) -> bool,
        edits: &mut Vec<Edit<'de>>,
    ) -> Result<(), Refused> {
        if self.results > 1 || self.result.duplicate {
            return Err(Refused::Unreadable);
        }
        let Some(tools) = self.result.tools.filter(|tools| tools.starts_with('[')) else {
            return Ok(());
        };
        let mut list = List { shows, kept: Vec::new(), dropped: false };
        let mut json = serde_json::Deserializer::from_str(tools);
        Read(&mut list).deserialize(&mut json).map_err(|_| Refused::Unreadable)?;
        if list.dropped {
            edits.push((tools, [b"[", &*list.kept, b"]"].concat()));
        }
        let public = self.result.scope.filter(|scope| *scope != PRIVATE);
        edits.extend(public.map(|scope| (scope, PRIVATE.into())));
        Ok(())
    }
}

/// A list as it is gone through.
struct List<'a> {
    shows: &'a dyn Fn(&str) -> bool,
    kept: Vec<u8>,
    dropped: bool,
}

impl<'de> Fields<'de> for List<'_> {
    fn field<A: MapAccess<'de>>(&mut self, _: &[u8], map: &mut A) -> Result<(), A::Error> {
        map.next_value::<IgnoredAny>().map(drop)
    }

    fn elements<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            if !Tool::named(raw.get()).is_some_and(|name| (self.shows)(&name)) {
                self.dropped = true;
                continue;
            }
            if !self.kept.is_empty() {
                self.kept.push(b',');
            }
            self.kept.extend_from_slice(raw.get().as_bytes());
        }
        Ok(())
    }
}

/// An entry of a list.
#[derive(Default)]
struct Tool<'de> {
    name: Option<&'de str>,
    duplicate: bool,
}

impl<'de> Fields<'de> for Tool<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            b"name" => keep(&mut self.name, map, &mut self.duplicate),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

impl<'de> Tool<'de> {
    /// `None` where there is no name that can be read, or more than one.
    fn named(entry: &'de str) -> Option<std::borrow::Cow<'de, str>> {
        let mut tool = Self::default();
        Read(&mut tool).deserialize(&mut serde_json::Deserializer::from_str(entry)).ok()?;
        match text(tool.name, MAX_NAME) {
            Text::Is(name) if !tool.duplicate => Some(name),
            _ => None,
        }
    }
}

/// The text with every edit made. They are apart from each other.
fn applied(json: &[u8], mut edits: Vec<Edit<'_>>) -> Vec<u8> {
    edits.sort_by_key(|(part, _)| part.as_ptr().addr());
    let (mut out, mut done) = (Vec::with_capacity(json.len()), 0);
    for (part, new) in edits {
        let at = part.as_ptr().addr() - json.as_ptr().addr();
        out.extend_from_slice(json.get(done..at).unwrap_or_default());
        out.extend_from_slice(&new);
        done = at + part.len();
    }
    out.extend_from_slice(json.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A caller who sees what begins with `get_`.
    pub(in crate::stream) fn shows(name: &str) -> bool {
        name.starts_with("get_")
    }

    fn done(json: &str) -> Result<String, Refused> {
        let out = cut(json.as_bytes(), &shows)?;
        Ok(out.map_or_else(|| "as it is".to_owned(), |out| String::from_utf8(out).unwrap()))
    }

    fn list(tools: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":{tools}}}}}"#)
    }

    #[test]
    fn lists_are_cut_and_nothing_else_changes() {
        let list = r#" {"result" : { "nextCursor":"c\u00e9", "tools": [ {"name":"get_a", "title" : "A"} , {"name":"drop"},{"x":[{}],"name":"g\u0065t_b"} ] ,"_meta":{}},"id":1.50,"jsonrpc":"2.0"}
"#;
        assert_eq!(
            done(list).unwrap(),
            r#" {"result" : { "nextCursor":"c\u00e9", "tools": [{"name":"get_a", "title" : "A"},{"x":[{}],"name":"g\u0065t_b"}] ,"_meta":{}},"id":1.50,"jsonrpc":"2.0"}
"#
        );
        let marked = format!("\u{feff}{}", list.trim());
        let out = done(&marked).unwrap();
        assert!(out.starts_with("\u{feff}{") && !out.contains("drop"));
    }

    #[test]
    fn what_has_nothing_to_hide_is_left_alone() {
        for same in [
            list(r#"[ {"name":"get_a"} ]"#),
            list("[]"),
            list(r#"{"name":"drop"}"#),
            list("null"),
            r#"{"tools":[{"name":"drop"}]}"#.into(),
            r#"{"params":{"tools":[{"name":"drop"}]}}"#.into(),
            r#"{"result":[{"tools":[{"name":"drop"}]}]}"#.into(),
            r#"{"result":{"structuredContent":{"tools":[{"name":"drop"}]}}}"#.into(),
            r#"{"result":{"content":[{"type":"text","text":"{\"tools\":[{\"name\":\"drop\"}]}"}]}}"#.into(),
            r#"{"error":{"data":{"tools":[{"name":"drop"}]}}}"#.into(),
            r#"{"result":{"Tools":[{"name":"drop"}]}}"#.into(),
            "plain text".into(),
            "not JSON, but \\u00e9".into(),
            String::new(),
            r#"{"result":{"tools"#.into(),
        ] {
            assert_eq!(done(&same).unwrap(), "as it is", "{same}");
        }
    }

    #[test]
    fn entries_that_cannot_be_read_are_not_shown() {
        let long = format!(r#"{{"name":"get_{}"}}"#, "x".repeat(8192));
        for entry in [
            "{}",
            "1",
            "null",
            r#""get_a""#,
            r#"["get_a"]"#,
            r#"{"name":5}"#,
            r#"{"name":null}"#,
            r#"{"name":["get_a"]}"#,
            r#"{"name":"get_\ud800"}"#,
            r#"{"name":"get_a","name":"get_b"}"#,
            r#"{"name":"get_a","n\u0061me":"drop"}"#,
            r#"{"Name":"get_a"}"#,
            &long,
        ] {
            assert_eq!(done(&list(&format!("[{entry}]"))).unwrap(), list("[]"), "{entry}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let tools = r#""tools":[{"name":"drop"}]"#;
        for bad in [
            format!(r#"{{"result":{{{tools}}},"result":{{}}}}"#),
            format!(r#"{{"result":{{}},"re\u0073ult":{{{tools}}}}}"#),
            format!(r#"{{"result":{{{tools},"tools":[]}}}}"#),
            format!(r#"{{"result":{{"tools":1,{tools}}}}}"#),
            format!(r#"{{"result":{{{tools},"cacheScope":"private","cacheScope":"public"}}}}"#),
            format!(r#"[{{"result":{{{tools},"tools":[]}}}}]"#),
            // no JSON, but others read it
            format!(r#"{{"result":{{{tools},"x":NaN}}}}"#),
            format!(r#"{{"result":{{{tools}}}}} x"#),
            format!(r#"{{"result":{{{tools},}}}}"#),
            format!("data {tools}"),
        ] {
            assert_eq!(done(&bad), Err(Refused::Unreadable), "{bad}");
        }
        let latin1 = [list(r#"[{"name":"drop","title":""#).as_bytes(), b"\xe9\"}]}}"].concat();
        assert_eq!(cut(&latin1, &shows), Err(Refused::Unreadable));
        let wide: Vec<u8> =
            list(r#"[{"name":"drop"}]"#).encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(cut(&wide, &shows), Err(Refused::Unreadable));
    }

    #[test]
    fn keys_may_be_escaped_and_batches_are_gone_through() {
        let hidden = r#"{"\u0072esult":{"\u0074oo\u006cs":[{"name":"drop"},{"name":"get_a"}]}}"#;
        assert_eq!(done(hidden).unwrap(), hidden.replace(r#"{"name":"drop"},"#, ""));
        let one = list(r#"[{"name":"drop"}]"#);
        let batch = format!(r#"[{{"method":"x"}},{one},{},{one}]"#, list(r#"[{"name":"get_a"}]"#));
        let expected = batch.replace(&one, &list("[]"));
        assert_eq!(done(&batch).unwrap(), expected);
    }

    #[test]
    fn lists_are_the_callers_own() {
        let of = |scope: &str| {
            format!(
                r#"{{"result":{{"cacheScope":{scope},"tools":[{{"name":"get_a"}}],"ttlMs":5}}}}"#
            )
        };
        for scope in [r#""public""#, r#""pub\u006cic""#, "null", "1", r#""private ""#] {
            assert_eq!(done(&of(scope)).unwrap(), of(r#""private""#), "{scope}");
        }
        assert_eq!(done(&of(r#""private""#)).unwrap(), "as it is");
        let other = r#"{"result":{"cacheScope":"public","resources":[{"name":"tools"}]}}"#;
        assert_eq!(done(other).unwrap(), "as it is");
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        let text = list(&format!(
            r#"[{{"name":"drop","x":{0}}},{{"name":"get_a","x":{0}}}]"#,
            deep(200_000)
        ));
        assert!(!done(&text).unwrap().contains("drop"));
        assert_eq!(
            done(&format!(r#"{{"result":{},"x":"tools\u0020"}}"#, deep(200_000))).unwrap(),
            "as it is"
        );
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            Just(json!("get_a")),
            Just(json!("drop")),
            Just(json!(1)),
            Just(json!("a\"\u{e9}\n")),
        ];
        let key =
            prop_oneof![Just("tools"), Just("name"), Just("result"), Just("cacheScope"), Just("x")];
        leaf.prop_recursive(5, 48, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..5).prop_map(|all| all
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<Value>()),
            ]
        })
    }

    /// Answers, most of them with a list.
    pub(in crate::stream) fn answers() -> impl Strategy<Value = Value> {
        let entry = prop_oneof![
            3 => Just(json!({"name": "get_a", "title": "A"})), 3 => Just(json!({"name": "drop"})), 1 => values(),
        ];
        let tools = proptest::collection::vec(entry, 0..5);
        let list = (tools, values())
            .prop_map(|(tools, rest)| json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "rest": rest, "cacheScope": "public"}}))
            .boxed();
        prop_oneof![
            4 => list.clone(), 1 => values(), 1 => proptest::collection::vec(prop_oneof![list, values()], 0..3).prop_map(Value::from),
        ]
    }

    /// What must come out, on parsed values.
    pub(in crate::stream) fn model(value: &mut Value) {
        if let Value::Array(all) = value {
            return all.iter_mut().for_each(|one| {
                if one.is_object() {
                    model(one)
                }
            });
        }
        let Some(result) = value.get_mut("result").and_then(Value::as_object_mut) else { return };
        let Some(tools) = result.get_mut("tools").and_then(Value::as_array_mut) else { return };
        tools.retain(|tool| tool.get("name").and_then(Value::as_str).is_some_and(shows));
        if let Some(scope) = result.get_mut("cacheScope") {
            *scope = json!("private");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn it_is_the_model(answer in answers(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) }.unwrap();
            let mut expected = answer.clone();
            model(&mut expected);
            match cut(text.as_bytes(), &shows).unwrap() {
                Some(out) => {
                    prop_assert!(expected != answer);
                    prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
                }
                None => prop_assert_eq!(expected, answer),
            }
        }
    }
}
