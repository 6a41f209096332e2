//! A call's arguments as an audit log tells them: in, their JSON as it was sent; out, JSON that is bounded and
//! shows only what it may.
//!
//! They are written in the order and as often as they stand there: of a doubled name, servers take this one
//! or that. What cannot be shown whole says so in its place.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::read::{Fields, Read, any_text};
use crate::base::disclose::Disclosure;
use crate::base::text::push_json;
use serde::de::{DeserializeSeed, IgnoredAny};

/// Longest name and value that are shown, in bytes.
const MAX_TEXT: usize = 256;
/// Most names of one object, and items of one list.
const MAX_ITEMS: usize = 64;
/// How deep values are shown.
const MAX_DEPTH: usize = 6;
/// About as long as the whole text may become, in bytes; one value more may follow.
const MAX_ALL: usize = 4096;
/// In the place of what is hidden.
const HIDDEN: &[u8] = b"\"***\"";
/// In the place of what is left out.
const MORE: &[u8] = b"\"\xe2\x80\xa6\"";

/// The names of arguments as a list, or names and values as an object.
pub fn told(arguments: &str, rules: &Disclosure) -> Box<str> {
    let mut out = Vec::with_capacity(128);
    if rules.values {
        Show { rules, out: &mut out }.value(arguments, "", 0);
    } else {
        names(arguments, &mut out);
    }
    String::from_utf8(out).unwrap_or_default().into()
}

/// What is no object has no names.
fn names(arguments: &str, out: &mut Vec<u8>) {
    let mut names = Names { out, count: 0 };
    names.out.push(b'[');
    let mut json = serde_json::Deserializer::from_str(arguments);
    if Read(&mut names).deserialize(&mut json).is_err() {
        names.item(MORE);
    }
    out.push(b']');
}

struct Names<'o> {
    out: &'o mut Vec<u8>,
    count: usize,
}

impl Names<'_> {
    /// Something that is JSON already.
    fn item(&mut self, json: &[u8]) {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.out.extend_from_slice(json);
        self.count += 1;
    }
}

impl<'de> Fields<'de> for Names<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        if self.count < MAX_ITEMS {
            let mut name = Vec::new();
            push_json(cut(&String::from_utf8_lossy(key)).as_ref(), &mut name);
            self.item(&name);
        } else if self.count == MAX_ITEMS {
            self.item(MORE);
        }
        map.next_value::<IgnoredAny>().map(drop)
    }
}

/// Writes values.
struct Show<'s> {
    rules: &'s Disclosure,
    out: &'s mut Vec<u8>,
}

impl Show<'_> {
    fn value(&mut self, raw: &str, path: &str, depth: usize) {
        let shown = match raw.bytes().next() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => None,
            Some(b'{') => self.object(raw, path, depth),
            Some(b'[') => self.list(raw, path, depth),
            Some(b'"') => any_text(raw).map(|text| push_json(cut(&text).as_ref(), self.out)),
            Some(_) if raw.len() <= MAX_TEXT => {
                self.out.extend_from_slice(raw.as_bytes());
                Some(())
            }
            _ => None,
        };
        if shown.is_none() {
            self.out.extend_from_slice(MORE);
        }
    }

    fn object(&mut self, raw: &str, path: &str, depth: usize) -> Option<()> {
        let start = self.out.len();
        self.out.push(b'{');
        let mut json = serde_json::Deserializer::from_str(raw);
        let inner = Inner { show: self, path, depth, count: 0 };
        if json.deserialize_map(inner).is_err() {
            self.out.truncate(start);
            return None;
        }
        self.out.push(b'}');
        Some(())
    }

    fn list(&mut self, raw: &str, path: &str, depth: usize) -> Option<()> {
        let start = self.out.len();
        self.out.push(b'[');
        let mut json = serde_json::Deserializer::from_str(raw);
        let inner = Inner { show: self, path, depth, count: 0 };
        if json.deserialize_seq(inner).is_err() {
            self.out.truncate(start);
            return None;
        }
        self.out.push(b']');
        Some(())
    }

    /// Whether there is room for one item more.
    fn has_room(&self, count: usize) -> bool {
        count < MAX_ITEMS && self.out.len() < MAX_ALL
    }
}

/// One level of a value.
struct Inner<'i, 's> {
    show: &'i mut Show<'s>,
    path: &'i str,
    depth: usize,
    count: usize,
}

impl Inner<'_, '_> {
    fn comma(&mut self) {
        if self.count > 0 {
            self.show.out.push(b',');
        }
        self.count += 1;
    }

    fn member(&mut self, key: &str, raw: &str) {
        let path = match self.path {
            "" => Cow::Borrowed(key),
            path => Cow::Owned(format!("{path}.{key}")),
        };
        self.comma();
        push_json(cut(key).as_ref(), self.show.out);
        self.show.out.push(b':');
        if self.show.rules.hides(key, &path) {
            self.show.out.extend_from_slice(HIDDEN);
        } else {
            self.show.value(raw, &path, self.depth + 1);
        }
    }
}

impl<'de> Visitor<'de> for Inner<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(super::read::Key)? {
            let raw = map.next_value::<&'de RawValue>()?;
            if self.show.has_room(self.count) {
                self.member(&String::from_utf8_lossy(&key), raw.get());
            } else {
                self.comma();
                self.show.out.extend_from_slice(MORE);
                self.show.out.push(b':');
                self.show.out.extend_from_slice(MORE);
                while map.next_key_seed(super::read::Key)?.is_some() {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            self.comma();
            if self.show.has_room(self.count - 1) {
                self.show.value(raw.get(), self.path, self.depth + 1);
            } else {
                self.show.out.extend_from_slice(MORE);
                while seq.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(())
    }
}

/// A text as far as it is shown.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return Cow::Borrowed(text);
    }
    let kept = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
    Cow::Owned(format!("{kept}…"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn all(arguments: &str) -> String {
        told(arguments, &Disclosure::new(true, vec!["*secret*".into(), "user.name".into()])).into()
    }

    fn names_of(arguments: &str) -> String {
        told(arguments, &Disclosure::default()).into()
    }

    #[test]
    fn names_alone_tell_no_value() {
        assert_eq!(
            names_of(r#"{"b":"VALUE","a":{"VALUE":1},"b":2,"\u0063":0}"#),
            r#"["b","a","b","c"]"#
        );
        for none in ["[]", "null", r#""VALUE""#, "7"] {
            assert_eq!(names_of(none), "[]", "{none}");
        }
        let many: String = (0..70).map(|n| format!("\"{n}\":1,")).collect();
        let many = names_of(&format!("{{{}}}", many.trim_end_matches(',')));
        let many: Vec<String> = serde_json::from_str(&many).unwrap();
        assert_eq!((many.len(), many.last().map(String::as_str)), (65, Some("…")));
        assert_eq!(names_of(&format!(r#"{{"{}":1}}"#, "ä".repeat(300))).chars().count(), 128 + 5);
        assert_eq!(names_of(r#"{"\ud800":1}"#).chars().filter(|c| *c == '\u{fffd}').count(), 3);
    }

    #[test]
    fn values_are_told_but_what_is_hidden() {
        let told = all(
            r#"{"q": "a\nb", "n": 1.50, "Secret":{"x":"HIDDEN"}, "user":{"name":"HIDDEN","age":7}, "name":"ok",
            "list":[{"my_secret":"HIDDEN"}, true, null], "user":[{"name":"HIDDEN"}]}"#,
        );
        let expected = concat!(
            r#"{"q":"a\nb","n":1.50,"Secret":"***","user":{"name":"***","age":7},"name":"ok","#,
            r#""list":[{"my_secret":"***"},true,null],"user":[{"name":"***"}]}"#
        );
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_long_or_deep_or_odd_is_cut() {
        let long = all(&json!({"a": "x".repeat(9000), "b": 1}).to_string());
        assert_eq!(serde_json::from_str::<Value>(&long).unwrap()["a"].as_str().unwrap().len(), 259);
        let digits = all(&format!(r#"{{"n":{}}}"#, "1".repeat(300)));
        assert_eq!(digits, r#"{"n":"…"}"#);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
        assert!(all(&deep).contains('…') && all(&deep).len() < 100);
        let wide = format!("[{}1]", "[2],".repeat(5000));
        let wide: Vec<Value> = serde_json::from_str(&all(&wide)).unwrap();
        assert_eq!((wide.len(), &wide[64]), (65, &json!("…")));
        assert_eq!(
            all(r#"{"a":"\ud800x","b":1}"#),
            "{\"a\":\"\u{fffd}\u{fffd}\u{fffd}x\",\"b\":1}"
        );
        let keys = format!("{{{}\"z\":1}}", format!(r#""{}":"{0}","#, "k".repeat(250)).repeat(60));
        assert!((4096..6000).contains(&all(&keys).len()), "{}", all(&keys).len());
    }

    proptest! {
        #[test]
        fn it_is_always_json(text in r#"[\[\]{}:,"a1 \\]{0,40}"#, deep in 0usize..12) {
            let nested = format!("{}{text}{}", r#"{"a":["#.repeat(deep), "]}".repeat(deep));
            for arguments in [text, nested] {
                if serde_json::from_str::<&RawValue>(&arguments).is_ok() {
                    let arguments = arguments.trim();
                    let (all, names) = (all(arguments), names_of(arguments));
                    prop_assert!(serde_json::from_str::<Value>(&all).is_ok(), "{}", all);
                    prop_assert!(serde_json::from_str::<Vec<String>>(&names).is_ok(), "{}", names);
                }
            }
        }
    }
}
