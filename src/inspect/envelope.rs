//! The JSON-RPC envelope. In: the bytes of a body; out: the few fields that the edge acts upon.
//!
//! Only keys and the values asked for are looked at, in one pass; all else is skipped without
//! being built. Backends take the last of doubled keys and unescape names, so doubled keys are
//! reported and escapes are undone here.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};

use super::methods::kept;
use super::read::{Fields, Read, Text, keep, text};
use super::strict::is_odd;

/// Longest id that is echoed, in bytes of JSON text.
const MAX_ID: usize = 256;
/// Longest method and protocol version, in bytes.
const MAX_WORD: usize = 256;
/// Longest name or URI, in bytes; more than fits into the header that mirrors it.
const MAX_NAME: usize = 8192;
/// Where requests of the 2026-07-28 era carry their version (MCP 2026-07-28, basic/index).
const VERSION_KEY: &[u8] = b"io.modelcontextprotocol/protocolVersion";
/// The keys of JSON-RPC 2.0.
const ENVELOPE: [&[u8]; 6] = [b"jsonrpc", b"id", b"method", b"params", b"result", b"error"];
/// Keys of `params` that decide what is called, with what, and in which era.
const CALL: [&[u8]; 4] = [b"name", b"uri", b"arguments", b"_meta"];
/// The method that calls a tool.
pub const TOOLS_CALL: &str = "tools/call";
/// The methods that run something of the server's by its name.
pub const CALLS: [&str; 3] = [TOOLS_CALL, "prompts/get", "resources/read"];

/// What a body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// One JSON-RPC 2.0 message.
    Single(Message),
    /// An array: a batch, as MCP 2025-03-26 allowed.
    Batch(Batch),
    /// JSON, but not JSON-RPC 2.0.
    NotRpc,
    /// Not JSON in UTF-8 without a byte order mark (RFC 8259).
    BadJson,
}

/// What the edge acts upon in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which of the three shapes it has.
    pub kind: Kind,
    /// The id as it stands in the body, valid JSON: a string, a number or `null`. `None` when
    /// absent, of another type or longer than 256 bytes.
    pub id: Option<Arc<str>>,
    /// The method, unescaped. `None` in responses, and when `unreadable`.
    pub method: Option<Cow<'static, str>>,
    /// The tool, prompt, resource URI or task id that the method is about, unescaped; at most 8 KiB.
    pub name: Option<Arc<str>>,
    /// The version in `params._meta`, unescaped.
    pub protocol_version: Option<String>,
    /// The version in `params._meta` is there, but is no text of at most 256 bytes.
    pub bad_version: bool,
    /// Method or name are there, but too long or not valid Unicode (a lone surrogate).
    pub unreadable: bool,
    /// One of the keys that are read here stands twice.
    pub duplicate: bool,
    /// Only by [`scan_strictly`]: a less exact reader could take a key for one that decides what is called,
    /// or the method is no text.
    pub odd: bool,
}

/// The shapes of JSON-RPC 2.0 messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A method and an id.
    Request,
    /// A method without an id.
    Notification,
    /// A result or an error.
    Response,
}

/// What the edge acts upon in a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// Number of elements, whatever they are.
    pub len: usize,
    /// One of them is an `initialize` request.
    pub initialize: bool,
    /// One of them names a version in `params._meta`.
    pub versioned: bool,
    /// One of them has one of the keys that are read here twice.
    pub duplicate: bool,
}

/// Reads a body. Time and memory are linear in its length; depth costs no stack.
pub fn scan(body: &[u8]) -> Scan {
    read(body, false)
}

/// The same, and whether there is anything in it that others could read in another way.
pub fn scan_strictly(body: &[u8]) -> Scan {
    read(body, true)
}

fn read(body: &[u8], strict: bool) -> Scan {
    let Ok(text) = std::str::from_utf8(body) else {
        return Scan::BadJson;
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let mut root = Root::default();
    root.envelope.strict = strict;
    root.envelope.params.strict = strict;
    let read = Read(&mut root).deserialize(&mut json).and_then(|()| json.end());
    match (read, root.batch) {
        (Err(_), _) => Scan::BadJson,
        (Ok(()), Some(batch)) => Scan::Batch(batch),
        (Ok(()), None) => root.envelope.finish().map_or(Scan::NotRpc, Scan::Single),
    }
}

impl Scan {
    /// The id that a refusal of this body echoes, as JSON text.
    pub fn id(&self) -> Option<&str> {
        if let Self::Single(message) = self { message.id.as_deref() } else { None }
    }
}

#[derive(Default)]
struct Root<'de> {
    envelope: Envelope<'de>,
    batch: Option<Batch>,
}

/// Raw JSON of the fields; the last one of doubled keys, as backends have it.
#[derive(Default)]
struct Envelope<'de> {
    version: Option<&'de str>,
    is_rpc: bool,
    id: Option<&'de str>,
    method: Option<&'de str>,
    answers: bool,
    has_params: bool,
    params: Params<'de>,
    duplicate: bool,
    strict: bool,
    odd: bool,
}

#[derive(Default)]
struct Params<'de> {
    name: Option<&'de str>,
    uri: Option<&'de str>,
    task_id: Option<&'de str>,
    has_arguments: bool,
    has_meta: bool,
    meta: Meta<'de>,
    duplicate: bool,
    strict: bool,
    odd: bool,
}

#[derive(Default)]
struct Meta<'de> {
    version: Option<&'de str>,
    duplicate: bool,
}

impl<'de> Fields<'de> for Root<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        self.envelope.field(key, map)
    }

    fn elements<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<(), A::Error> {
        let batch = self.batch.insert(Batch::default());
        let mut envelope = Envelope::default();
        while seq.next_element_seed(Read(&mut envelope))?.is_some() {
            batch.add(std::mem::take(&mut envelope).finish());
        }
        Ok(())
    }
}

impl Batch {
    fn add(&mut self, element: Option<Message>) {
        self.len += 1;
        if let Some(message) = element {
            self.initialize |= message.method.as_deref() == Some("initialize");
            self.versioned |= message.protocol_version.is_some() || message.bad_version;
            self.duplicate |= message.duplicate;
        }
    }
}

impl<'de> Fields<'de> for Envelope<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            b"jsonrpc" => {
                keep(&mut self.version, map, &mut self.duplicate)?;
                self.is_rpc |= text(self.version, 8) == Text::Is("2.0".into());
            }
            b"id" => keep(&mut self.id, map, &mut self.duplicate)?,
            b"method" => keep(&mut self.method, map, &mut self.duplicate)?,
            b"params" => {
                self.duplicate |= std::mem::replace(&mut self.has_params, true);
                map.next_value_seed(Read(&mut self.params))?;
            }
            _ => {
                let answers = matches!(key, b"result" | b"error");
                self.answers |= answers;
                self.odd |= self.strict && !answers && is_odd(key, &ENVELOPE);
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> Fields<'de> for Params<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            b"name" => keep(&mut self.name, map, &mut self.duplicate),
            b"uri" => keep(&mut self.uri, map, &mut self.duplicate),
            b"taskId" => keep(&mut self.task_id, map, &mut self.duplicate),
            b"_meta" => {
                self.duplicate |= std::mem::replace(&mut self.has_meta, true);
                map.next_value_seed(Read(&mut self.meta))
            }
            b"arguments" => {
                self.odd |= self.strict && std::mem::replace(&mut self.has_arguments, true);
                map.next_value::<IgnoredAny>().map(drop)
            }
            _ => {
                self.odd |= self.strict && is_odd(key, &CALL);
                map.next_value::<IgnoredAny>().map(drop)
            }
        }
    }
}

impl<'de> Fields<'de> for Meta<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error> {
        match key {
            VERSION_KEY => keep(&mut self.version, map, &mut self.duplicate),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

impl Envelope<'_> {
    /// `None`: not JSON-RPC. With doubled keys, one reading as JSON-RPC is enough to be one.
    fn finish(self) -> Option<Message> {
        let duplicate = self.duplicate || self.params.duplicate || self.params.meta.duplicate;
        if !self.is_rpc {
            return None;
        }
        let method = text(self.method, MAX_WORD);
        let kind = match (&method, self.id) {
            (Text::Absent | Text::Other, _) if self.answers || duplicate => Kind::Response,
            (Text::Absent | Text::Other, _) => return None,
            (_, Some(_)) => Kind::Request,
            (_, None) => Kind::Notification,
        };
        let name = match &method {
            Text::Is(method) => text(self.params.named_by(method), MAX_NAME),
            _ => Text::Absent,
        };
        let version = text(self.params.meta.version, MAX_WORD);
        let calls = matches!(&method, Text::Is(method) if CALLS.contains(&method.as_ref()));
        let odd = self.odd || calls && self.params.odd || self.strict && method == Text::Other;
        Some(Message {
            kind,
            id: self.id.filter(|raw| is_id(raw)).map(Arc::from),
            unreadable: method == Text::Unreadable || name == Text::Unreadable,
            bad_version: matches!(version, Text::Other | Text::Unreadable),
            method: method.into_text().map(kept),
            name: name.into_text().map(Arc::from),
            protocol_version: version.into_text().map(Cow::into_owned),
            duplicate,
            odd,
        })
    }
}

impl<'de> Params<'de> {
    fn named_by(&self, method: &str) -> Option<&'de str> {
        match method {
            TOOLS_CALL | "prompts/get" => self.name,
            "resources/read" => self.uri,
            _ if method.starts_with("tasks/") => self.task_id,
            _ => None,
        }
    }
}

fn is_id(raw: &str) -> bool {
    raw.len() <= MAX_ID
        && raw.bytes().next().is_some_and(|b| matches!(b, b'"' | b'-' | b'0'..=b'9' | b'n'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(body: &str) -> Message {
        match scan(body.as_bytes()) {
            Scan::Single(message) => message,
            other => panic!("{body} is {other:?}"),
        }
    }

    fn named(method: &str, params: &str) -> Option<Arc<str>> {
        one(&format!(r#"{{"jsonrpc":"2.0","id":1,"params":{params},"method":"{method}"}}"#)).name
    }

    #[test]
    fn a_request_gives_its_fields() {
        let message = one(
            r#" {"params":{"arguments":{"name":"no","_meta":[1]},"name":"slow","_meta":{"x":{},
            "io.modelcontextprotocol/protocolVersion":"2026-07-28"}},"id":"a\"b","method":"tools/call","jsonrpc":"2.0"} "#,
        );
        let expected = Message {
            kind: Kind::Request,
            id: Some(r#""a\"b""#.into()),
            method: Some("tools/call".into()),
            name: Some("slow".into()),
            protocol_version: Some("2026-07-28".into()),
            bad_version: false,
            unreadable: false,
            duplicate: false,
            odd: false,
        };
        assert_eq!(message, expected);
    }

    #[test]
    fn shapes_are_told_apart() {
        let kind = |body| one(body).kind;
        assert_eq!(kind(r#"{"jsonrpc":"2.0","method":"a","id":null}"#), Kind::Request);
        assert_eq!(kind(r#"{"jsonrpc":"2.0","method":"a","id":{}}"#), Kind::Request);
        assert_eq!(kind(r#"{"jsonrpc":"2.0","method":"a"}"#), Kind::Notification);
        assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Kind::Response);
        assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"error":{}}"#), Kind::Response);
        for body in [
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
            r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"id":1,"id":2,"method":"a"}"#,
            "{}",
            "3",
            "null",
            r#""x""#,
            "-1.5e3",
            "true",
        ] {
            assert_eq!(scan(body.as_bytes()), Scan::NotRpc, "{body}");
        }
    }

    #[test]
    fn ids_are_echoed_as_they_stand() {
        let id = |raw: &str| one(&format!(r#"{{"jsonrpc":"2.0","id": {raw} ,"method":"a"}}"#)).id;
        for raw in
            ["1", "-1", "1.0", "123456789012345678901234567890", r#""ü\u00fc\ud800""#, "null"]
        {
            assert_eq!(id(raw).as_deref(), Some(raw));
        }
        for raw in ["true", "{}", "[1]"] {
            assert_eq!(id(raw), None, "{raw}");
        }
        assert_eq!(id(&"1".repeat(256)).map(|id| id.len()), Some(256));
        assert_eq!(id(&"1".repeat(257)), None);
    }

    #[test]
    fn the_method_says_what_names_it() {
        let params = r#"{"taskId":"t","uri":"u","name":"n"}"#;
        for (method, name) in [
            ("tools/call", Some("n")),
            ("prompts/get", Some("n")),
            ("resources/read", Some("u")),
            ("tasks/get", Some("t")),
            ("tasks/cancel", Some("t")),
            ("tools/list", None),
            ("initialize", None),
        ] {
            assert_eq!(named(method, params).as_deref(), name, "{method}");
        }
        for params in ["[]", "null", "3", r#""name""#, r#"{"name":5}"#, r#"{"x":{"name":"n"}}"#] {
            assert_eq!(named("tools/call", params), None, "{params}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        let message = one(
            r#"{"json\u0072pc":"\u0032.0","id":1,"m\u0065thod":"tools\/c\u0061ll","params":{"na\u006de":"\u0065cho \ud83d\ude00"}}"#,
        );
        assert_eq!(message.method.as_deref(), Some("tools/call"));
        assert_eq!(message.name.as_deref(), Some("echo 😀"));
    }

    #[test]
    fn doubled_keys_are_seen() {
        let dup = |body: &str| one(body).duplicate;
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","m\u0065thod":"b"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","jsonrpc":"1","id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","params":{},"params":{},"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","params":{"name":1,"name":2},"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","params":{"uri":1,"uri":2},"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","params":{"_meta":1,"_meta":2},"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":1,"io.modelcontextprotocol/protocolVersion":1}},"id":1,"method":"a"}"#,
        ] {
            assert!(dup(body), "{body}");
        }
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"a","x":1,"x":2,"params":{"arguments":{"name":1,"name":2}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","name":1,"params":{"name":1,"id":1,"method":1}}"#,
        ] {
            assert!(!dup(body), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_to_be_so() {
        let body = |method: &str, name: &str, version: &str| {
            let meta = format!(r#"{{"io.modelcontextprotocol/protocolVersion":{version}}}"#);
            one(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"{name}","_meta":{meta}}}}}"#
            ))
        };
        let fine = body("tools/call", &"n".repeat(8192), r#""v""#);
        assert!(!fine.unreadable && !fine.bad_version && fine.name.is_some());
        for (method, name) in [
            ("tools/call", "n".repeat(8193)),
            ("tools/call", r"\ud800".into()),
            (r"\ud800", "n".into()),
        ] {
            let message = body(method, &name, r#""v""#);
            assert!(message.unreadable && message.name.is_none(), "{method}");
        }
        assert!(body(&"m".repeat(257), "n", r#""v""#).unreadable);
        for version in ["1", "null", "{}", r#""\udc00""#, &format!(r#""{}""#, "v".repeat(257))] {
            let message = body("tools/call", "n", version);
            assert!(message.bad_version && message.protocol_version.is_none(), "{version}");
        }
    }

    #[test]
    fn batches_are_summed_up() {
        let batch = |body: &str| match scan(body.as_bytes()) {
            Scan::Batch(batch) => batch,
            other => panic!("{body} is {other:?}"),
        };
        assert_eq!(batch("[]"), Batch::default());
        assert_eq!(batch("[1,[{}],{}]"), Batch { len: 3, ..Batch::default() });
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        let other = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"v"}}}"#;
        let doubled = r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}"#;
        let got = batch(&format!("[{initialize},{other}]"));
        assert_eq!(got, Batch { len: 2, initialize: true, versioned: true, duplicate: false });
        assert_eq!(
            batch(&format!("[{doubled}]")),
            Batch { len: 1, duplicate: true, ..Batch::default() }
        );
    }

    #[test]
    fn other_bytes_are_bad_json() {
        let ok = r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#;
        let utf16: Vec<u8> = ok.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let bom = format!("\u{feff}{ok}");
        let bodies: [&[u8]; 8] = [
            b"",
            b" ",
            bom.as_bytes(),
            &utf16,
            b"{\"jsonrpc\":\"2.0\",\"method\":\"a\xff\"}",
            b"{\"jsonrpc\":\"2.0\",\"method\":\"a\"} x",
            b"{\"jsonrpc\":\"2.0\",\"method\":\"a\"",
            b"{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{\"x\":NaN}}",
        ];
        for body in bodies {
            assert_eq!(scan(body), Scan::BadJson, "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{deep},"method":"a","x":{deep},"params":{{"name":{deep}}}}}"#
        );
        assert_eq!(one(&body).method.as_deref(), Some("a"));
        assert!(matches!(scan(deep.as_bytes()), Scan::Batch(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = scan(&body);
        }

        #[test]
        fn what_serde_writes_is_read_back(method in "[^\\u{0}]{0,60}", name in ".{0,60}", id in any::<i64>()) {
            let method = format!("{method}x");
            let body = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": name}});
            let message = one(&body.to_string());
            prop_assert_eq!(message.id, Some(id.to_string().into()));
            prop_assert_eq!(message.method, Some(method.into()));
            let body = serde_json::json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": name}});
            prop_assert_eq!(one(&body.to_string()).name, Some(name.into()));
        }
    }
}
