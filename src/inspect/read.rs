//! One pass over JSON: in, text; out, the fields that were asked for, as they stand in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Something made from an object's fields; other shapes are skipped, arrays element by element.
pub(crate) trait Fields<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &[u8], map: &mut A) -> Result<(), A::Error>;

    fn elements<A: SeqAccess<'de>>(&mut self, seq: &mut A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Keeps a field's text; a second one of its key replaces the first, and is noted.
pub(crate) fn keep<'de, A: MapAccess<'de>>(
    slot: &mut Option<&'de str>,
    map: &mut A,
    duplicate: &mut bool,
) -> Result<(), A::Error> {
    let raw = map.next_value::<&'de RawValue>()?;
    *duplicate |= slot.replace(raw.get()).is_some();
    Ok(())
}

/// What stands where a text is wanted.
#[derive(PartialEq, Eq)]
pub(crate) enum Text<'a> {
    /// Nothing.
    Absent,
    /// JSON of another type.
    Other,
    /// Too long, or not valid Unicode.
    Unreadable,
    /// A text, unescaped.
    Is(Cow<'a, str>),
}

/// Reads JSON as a text of at most so many bytes.
pub(crate) fn text(raw: Option<&str>, longest: usize) -> Text<'_> {
    let Some(raw) = raw else { return Text::Absent };
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Text::Other;
    };
    // An escape has at most six bytes for each byte that it stands for.
    if inner.len() > longest.saturating_mul(6) {
        return Text::Unreadable;
    }
    let unescaped = if memchr::memchr(b'\\', inner.as_bytes()).is_some() {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    };
    match unescaped {
        Some(text) if text.len() <= longest => Text::Is(text),
        _ => Text::Unreadable,
    }
}

impl<'a> Text<'a> {
    pub(crate) fn into_text(self) -> Option<Cow<'a, str>> {
        if let Self::Is(text) = self { Some(text) } else { None }
    }
}

/// Any JSON string, with signs for what is not valid Unicode in it.
pub(crate) fn any_text(raw: &str) -> Option<String> {
    let bytes = Key.deserialize(&mut serde_json::Deserializer::from_str(raw)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads any JSON value into `T`.
pub(crate) struct Read<'a, T>(pub(crate) &'a mut T);

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
pub(crate) struct Key;

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
