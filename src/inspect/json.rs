//! JSON (RFC 8259), walked without being built. In: a text; out: keys and raw values, or that it is none.
//!
//! One pass; time is linear in the length, and depth costs a bit of memory per level and no stack. It takes
//! and refuses what `serde_json` does (it is compared with it in tests and by fuzzing), at a third of the
//! cost.

use std::borrow::Cow;

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotJson;

/// A place in a text.
pub(super) struct Json<'a> {
    text: &'a str,
    rest: &'a [u8],
}

impl<'a> Json<'a> {
    /// The start of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, rest: text.as_bytes() }
    }

    /// The next byte that is no white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\n' | b'\t' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    /// Nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), NotJson> {
        if self.peek().is_none() { Ok(()) } else { Err(NotJson) }
    }

    /// The next key of the object whose `{` or member was read last; `None` behind its `}`.
    pub(super) fn next_key(&mut self, first: bool) -> Result<Option<Cow<'a, [u8]>>, NotJson> {
        if !self.goes_on(first, b'}')? {
            return Ok(None);
        }
        self.peek();
        let from = self.at();
        self.quote()?;
        // as in serde: only in keys that are read here, control characters may stand
        let escaped = self.string(true)?;
        let raw = self.text.get(from..self.at()).ok_or(NotJson)?;
        self.colon()?;
        if escaped {
            // a lone surrogate is in no key that is looked for
            let text = serde_json::from_str::<String>(raw).unwrap_or_default();
            return Ok(Some(Cow::Owned(text.into_bytes())));
        }
        let inner = raw.as_bytes().get(1..raw.len() - 1).ok_or(NotJson)?;
        Ok(Some(Cow::Borrowed(inner)))
    }

    /// Whether another element of the array follows whose `[` or element was read last; else its `]`
    /// has been read.
    pub(super) fn next_element(&mut self, first: bool) -> Result<bool, NotJson> {
        self.goes_on(first, b']')
    }

    fn goes_on(&mut self, first: bool, close: u8) -> Result<bool, NotJson> {
        match self.peek() {
            Some(byte) if byte == close => {
                self.advance(1);
                Ok(false)
            }
            Some(_) if first => Ok(true),
            Some(b',') => {
                self.advance(1);
                Ok(true)
            }
            _ => Err(NotJson),
        }
    }

    /// Takes a byte that [`Json::peek`] has shown.
    pub(super) fn open(&mut self) {
        self.advance(1);
    }

    /// The next value as it stands.
    pub(super) fn raw(&mut self) -> Result<&'a str, NotJson> {
        self.peek();
        let from = self.at();
        self.skip()?;
        self.text.get(from..self.at()).ok_or(NotJson)
    }

    /// Goes behind the next value.
    pub(super) fn skip(&mut self) -> Result<(), NotJson> {
        let mut around = Around::default();
        loop {
            match self.peek().ok_or(NotJson)? {
                b'"' => {
                    self.advance(1);
                    self.string(false)?;
                }
                open @ (b'{' | b'[') => {
                    self.advance(1);
                    let object = open == b'{';
                    if self.goes_on(true, open + 2)? {
                        around.push(object);
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return Err(NotJson),
            }
            // a value ends, and with it maybe what is around it
            loop {
                let Some(object) = around.last() else { return Ok(()) };
                if self.goes_on(false, if object { b'}' } else { b']' })? {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                around.pop();
            }
        }
    }

    fn key(&mut self) -> Result<(), NotJson> {
        self.quote()?;
        self.string(false)?;
        self.colon()
    }

    fn quote(&mut self) -> Result<(), NotJson> {
        self.expect(b'"')
    }

    fn colon(&mut self) -> Result<(), NotJson> {
        self.expect(b':')
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() != Some(byte) {
            return Err(NotJson);
        }
        self.advance(1);
        Ok(())
    }

    /// The rest of a string, its end included; whether there was an escape in it.
    fn string(&mut self, controls: bool) -> Result<bool, NotJson> {
        let mut escaped = false;
        loop {
            self.plain();
            match self.rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Ok(escaped);
                }
                [b'\\', b'u', a, b, c, d, rest @ ..]
                    if [a, b, c, d].iter().all(|b| b.is_ascii_hexdigit()) =>
                {
                    self.rest = rest;
                    escaped = true;
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => {
                    self.rest = rest;
                    escaped = true;
                }
                [0..b' ', rest @ ..] if controls => self.rest = rest,
                _ => return Err(NotJson),
            }
        }
    }

    /// Goes to the next quote, backslash or control character.
    fn plain(&mut self) {
        // no early end within a block: so its bytes are looked at all at once
        while let Some((block, rest)) = self.rest.split_first_chunk::<16>()
            && !block.iter().fold(false, |any, b| any | is_special(*b))
        {
            self.rest = rest;
        }
        while let [byte, rest @ ..] = self.rest
            && !is_special(*byte)
        {
            self.rest = rest;
        }
    }

    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self) -> Result<(), NotJson> {
        if let [b'-', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let zero = self.rest.first() == Some(&b'0');
        let digits = self.digits()?;
        if zero && digits > 1 {
            return Err(NotJson);
        }
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            self.digits()?;
        }
        if let [b'e' | b'E', b'+' | b'-', rest @ ..] | [b'e' | b'E', rest @ ..] = self.rest {
            self.rest = rest;
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more; how many.
    fn digits(&mut self) -> Result<usize, NotJson> {
        let before = self.rest.len();
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let count = before - self.rest.len();
        if count == 0 { Err(NotJson) } else { Ok(count) }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), NotJson> {
        self.rest = self.rest.strip_prefix(word).ok_or(NotJson)?;
        Ok(())
    }

    fn at(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    fn advance(&mut self, n: usize) {
        self.rest = self.rest.get(n..).unwrap_or_default();
    }
}

fn is_special(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// What is around a value, from the outside in: an object (1) or an array (0) per level.
#[derive(Default)]
struct Around {
    depth: usize,
    last: u64,
    before: Vec<u64>,
}

impl Around {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.before.push(self.last);
        }
        self.last = self.last << 1 | u64::from(object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.last >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.last = self.before.pop().unwrap_or_default();
        }
    }

    fn last(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.last & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn ours(text: &str) -> bool {
        let mut json = Json::new(text);
        json.skip().and_then(|()| json.end()).is_ok()
    }

    fn agree(text: &str) {
        assert_eq!(ours(text), serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text:?}");
    }

    #[test]
    fn depth_costs_no_stack_and_kinds_are_kept() {
        for n in [1, 63, 64, 65, 127, 128, 129, 100_000] {
            let open = r#"[{"a":"#.repeat(n);
            let close = "}]".repeat(n);
            assert!(ours(&format!("{open}1{close}")), "{n}");
            assert!(!ours(&format!("{open}1{}]", close.strip_suffix("}]").unwrap())), "{n}");
            assert!(!ours(&format!("{open}1{close}]")), "{n}");
        }
    }

    #[test]
    fn what_is_no_json() {
        for text in [
            "",
            " ",
            "01",
            "-",
            "-01",
            "1.",
            ".1",
            "1e",
            "1e+",
            "+1",
            "tru",
            "nul",
            "truex",
            "[1,]",
            "[,1]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "{1:1}",
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u123""#,
            "\"\t\"",
            "\"a",
            "[1}",
            r#"{"a":1]"#,
            "1 2",
            "\u{feff}1",
            "[1 2]",
        ] {
            assert!(!ours(text), "{text:?}");
            agree(text);
        }
        for text in
            ["-0", "0.5e-7", "1E5", r#""\ud800""#, "[ ]", "{ }", "1e999", " [1 , {\"\":null}]\r\n"]
        {
            assert!(ours(text), "{text:?}");
            agree(text);
        }
    }

    proptest! {
        #[test]
        fn as_serde_json_takes_it(text in r#"([\[\]{},: ]|"[a\\"u0\n]{0,3}"?|-?[01]{0,2}(\.[01]?)?([eE][+-]?[01]?)?|true|null|fals){0,12}"#) {
            agree(&text);
        }

        #[test]
        fn strings_are_as_serde_json_takes_them(inner in "[ -~\u{0}\u{1f}ü\\\\\"]{0,40}") {
            agree(&format!("\"{inner}\""));
        }
    }
}
