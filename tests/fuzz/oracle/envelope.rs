//! The JSON-RPC envelope as serde reads it: what `inspect::envelope` must agree with. In: the bytes of a
//! body; out: a `Scan` whose `Debug` is the same. Slower, and for tests and fuzzing alone.
#![allow(dead_code, unreachable_pub, reason = "only what it prints is compared")]

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Longest id that is echoed, in bytes of JSON text.
const MAX_ID: usize = 256;
/// Longest method and protocol version, in bytes.
const MAX_WORD: usize = 256;
/// Longest name or URI, in bytes; more than fits into the header that mirrors it.
const MAX_NAME: usize = 8192;
/// Where requests of the 2026-07-28 era carry their version (MCP 2026-07-28, basic/index).
const VERSION_KEY: &[u8] = b"io.modelcontextprotocol/protocolVersion";

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
    pub id: Option<String>,
    /// The method, unescaped. `None` in responses, and when `unreadable`.
    pub method: Option<String>,
    /// The tool, prompt, resource URI or task id that the method is about, unescaped; at most 8 KiB.
    pub name: Option<String>,
    /// The version in `params._meta`, unescaped.
    pub protocol_version: Option<String>,
    /// The version in `params._meta` is there, but is no text of at most 256 bytes.
    pub bad_version: bool,
    /// Method or name are there, but too long or not valid Unicode (a lone surrogate).
    pub unreadable: bool,
    /// One of the keys that are read here stands twice.
    pub duplicate: bool,
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
    let Ok(text) = std::str::from_utf8(body) else {
        return Scan::BadJson;
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let mut root = Root::default();
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

/// Something made from an object's fields; other shapes are skipped, arrays element by element.
trait Fields<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error>;

    fn elements<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
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
}

#[derive(Default)]
struct Params<'de> {
    name: Option<&'de str>,
    uri: Option<&'de str>,
    task_id: Option<&'de str>,
    has_meta: bool,
    meta: Meta<'de>,
    duplicate: bool,
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
                self.answers |= matches!(key, b"result" | b"error");
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
            _ => map.next_value::<IgnoredAny>().map(drop),
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

fn keep<'de, A: MapAccess<'de>>(
    slot: &mut Option<&'de str>,
    map: &mut A,
    duplicate: &mut bool,
) -> Result<(), A::Error> {
    let raw = map.next_value::<&'de RawValue>()?;
    *duplicate |= slot.replace(raw.get()).is_some();
    Ok(())
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
        Some(Message {
            kind,
            id: self.id.filter(|raw| is_id(raw)).map(str::to_owned),
            unreadable: method == Text::Unreadable || name == Text::Unreadable,
            bad_version: matches!(version, Text::Other | Text::Unreadable),
            method: method.owned(),
            name: name.owned(),
            protocol_version: version.owned(),
            duplicate,
        })
    }
}

impl<'de> Params<'de> {
    fn named_by(&self, method: &str) -> Option<&'de str> {
        match method {
            "tools/call" | "prompts/get" => self.name,
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

#[derive(PartialEq, Eq)]
enum Text<'a> {
    Absent,
    /// JSON of another type.
    Other,
    /// Too long, or not valid Unicode.
    Unreadable,
    Is(Cow<'a, str>),
}

fn text(raw: Option<&str>, longest: usize) -> Text<'_> {
    let Some(raw) = raw else { return Text::Absent };
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Text::Other;
    };
    // An escape has at most six bytes for each byte that it stands for.
    if inner.len() > longest.saturating_mul(6) {
        return Text::Unreadable;
    }
    let unescaped = if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    };
    match unescaped {
        Some(text) if text.len() <= longest => Text::Is(text),
        _ => Text::Unreadable,
    }
}

impl Text<'_> {
    fn owned(self) -> Option<String> {
        match self {
            Self::Is(text) => Some(text.into_owned()),
            _ => None,
        }
    }
}

/// Reads any JSON value into `T`.
struct Read<'a, T>(&'a mut T);

impl<'de, T: Fields<'de>> DeserializeSeed<'de> for Read<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for Read<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            self.0.field(&key, &mut map)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.elements(&mut seq)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a key as bytes: as a `str`, one with a lone surrogate would end the reading of a body
/// that backends read on.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_bytes<E>(self, key: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_vec()))
    }
}
