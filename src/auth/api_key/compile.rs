//! API keys of the config: in, a node; out, keys by their sums.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::super::{quoted, realm};
use super::{ApiKeys, NAME, Sum, key};
use crate::base::caller::Authenticate;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::principal::Principal;
use crate::base::{defaults, edits};

/// Shorter keys could be tried out, in bytes.
const MIN_KEY: usize = 16;
/// Longest name of a key, and longest key and value of its metadata, in bytes.
const MAX_TEXT: usize = 256;
/// Most metadata of a key.
const MAX_METADATA: usize = 32;

pub(super) fn compile(node: Option<&Node>, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    let mut fields = cx.map(node?)?;
    let header = fields.or(cx, "header", HeaderName::from_static("x-api-key"), edits::name);
    let prefix = fields.or(cx, "prefix", String::new(), |n, cx| {
        cx.parse(n, "a prefix", |text| key::check_prefix(text).map(|()| text.to_owned()))
    });
    let realm = fields.or(cx, "realm", defaults::REALM.to_owned(), realm);
    let keys = fields.required(cx, "keys", |n, cx| keys(n, &prefix, cx));
    fields.finish(cx);
    let challenge = if header == AUTHORIZATION {
        format!("Bearer realm={}", quoted(&realm))
    } else {
        // no scheme is registered for keys, but a 401 must carry one (RFC 9110 §15.5.2)
        format!("ApiKey realm={}, header={}", quoted(&realm), quoted(header.as_str()))
    };
    let challenge = HeaderValue::try_from(challenge).ok()?;
    Some(Arc::new(ApiKeys { header, prefix, challenge, keys: keys? }))
}

fn keys(node: &Node, prefix: &str, cx: &mut Cx) -> Option<HashMap<Sum, Arc<Principal>>> {
    let mut names: Vec<(String, usize)> = Vec::new();
    let mut keys: HashMap<Sum, Arc<Principal>> = HashMap::new();
    cx.filled_list(node, |node, cx| {
        let (sum, key) = one(node, prefix, cx)?;
        let name = key.subject.clone();
        if let Some((_, line)) = names.iter().find(|(other, _)| *other == name) {
            cx.error(node, format!("a key with the name `{name}` stands already in line {line}"));
        }
        if let Some(other) = keys.get(&sum) {
            let other = &other.subject;
            cx.error(node, format!("this is the same key as that of the name `{other}`"));
        }
        names.push((name, node.line));
        keys.insert(sum, key);
        Some(())
    })?;
    Some(keys)
}

fn one(node: &Node, prefix: &str, cx: &mut Cx) -> Option<(Sum, Arc<Principal>)> {
    let mut fields = cx.map(node)?;
    let name = fields.required(cx, "name", |n, cx| cx.parse(n, "a name", text));
    let given = fields.optional(cx, "sha256", sum);
    let value_node = fields.take("value");
    let value = value_node.and_then(|n| cx.in_key("value", |cx| value(n, prefix, cx)));
    let expires = fields.optional(cx, "expires", |n, cx| cx.parse(n, "a date", date));
    let metadata = fields.or(cx, "metadata", Vec::new(), metadata);
    fields.finish(cx);
    let sum = match (fields_given(node, "sha256"), value_node.is_some()) {
        (true, true) => {
            cx.error(node, "`sha256` and `value` exclude each other");
            return None;
        }
        (false, false) => {
            cx.error(node, "the key needs `sha256` or `value`; `mcp-edge key new` makes one");
            return None;
        }
        (true, false) => given,
        (false, true) => value,
    };
    let principal = Principal { metadata, until: expires, ..Principal::new(NAME, "", name?) };
    Some((sum?, Arc::new(principal)))
}

fn fields_given(node: &Node, key: &str) -> bool {
    matches!(&node.kind, NodeKind::Map(entries) if entries.iter().any(|(name, ..)| name == key))
}

fn text(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_TEXT if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("1 to {MAX_TEXT} bytes without control characters are possible")),
    }
}

fn sum(node: &Node, cx: &mut Cx) -> Option<Sum> {
    let what = "64 hex digits, as `mcp-edge key new` and `sha256sum` print them";
    let digits = node.text().unwrap_or_default().as_bytes();
    let mut sum = [0; 32];
    let pairs = digits.chunks_exact(2).zip(sum.iter_mut());
    for (pair, byte) in pairs {
        let pair =
            std::str::from_utf8(pair).ok().filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(value) => *byte = value,
            None => {
                cx.error(node, format!("expected {what}"));
                return None;
            }
        }
    }
    if digits.len() != 64 {
        cx.error(node, format!("expected {what}"));
        return None;
    }
    Some(Sum(sum))
}

/// A key itself, which must not stand in the config as it is. It is never shown.
fn value(node: &Node, prefix: &str, cx: &mut Cx) -> Option<Sum> {
    let NodeKind::Scalar { text, written, .. } = &node.kind else {
        cx.expected(node, "`${file:PATH}` or `${env:NAME}`");
        return None;
    };
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    let problem = if written.is_none() {
        "a key does not belong into the config: write `${file:PATH}` or `${env:NAME}`, or its `sha256`".to_owned()
    } else if text.len() < MIN_KEY || text.len() > super::MAX_KEY || !visible {
        format!("a key has {MIN_KEY} to {} characters of visible ASCII", super::MAX_KEY)
    } else if !text.starts_with(prefix) {
        format!("the key does not begin with the `prefix` `{prefix}`")
    } else if key::is_damaged(text) {
        "the key is not as `mcp-edge key new` made it: its sum does not fit".to_owned()
    } else {
        return Some(Sum::of(text.as_bytes()));
    };
    cx.error(node, problem);
    None
}

fn metadata(node: &Node, cx: &mut Cx) -> Option<Vec<(String, String)>> {
    let NodeKind::Map(entries) = &node.kind else {
        cx.expected(node, "a map of texts");
        return None;
    };
    if entries.len() > MAX_METADATA {
        cx.error(node, format!("at most {MAX_METADATA} entries are possible"));
    }
    let mut out: Vec<(String, String)> = Vec::with_capacity(entries.len());
    for (key, line, value) in entries {
        if out.iter().any(|(other, _)| other == key) {
            cx.error_at(*line, format!("the key `{key}` stands twice"));
        }
        out.push((key.clone(), cx.in_key(key, |cx| cx.parse(value, "a text", text))?));
    }
    Some(out)
}

/// The beginning of a day (UTC), as `2027-01-31`: from then on the key is good no more.
fn date(text: &str) -> Result<SystemTime, String> {
    let bad = || format!("`{text}` is not a date like `2027-01-31`");
    let mut parts = text.split('-');
    let mut part = |digits: usize| {
        let part =
            parts.next().filter(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_digit()));
        part.and_then(|part| part.parse::<u64>().ok()).ok_or_else(bad)
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month).ok().and_then(|m| m.checked_sub(1)).ok_or_else(bad)?;
    let length = *lengths.get(index).ok_or_else(bad)?;
    if parts.next().is_some() || year < 1970 || !(1..=length).contains(&day) {
        return Err(bad());
    }
    // days of whole years, of whole months, and of this month
    let years = year - 1;
    let before = years * 365 + years / 4 - years / 100 + years / 400;
    let to_1970 = 1969 * 365 + 1969 / 4 - 1969 / 100 + 1969 / 400;
    let days = before - to_1970 + lengths.iter().take(index).sum::<u64>() + day - 1;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_of_the_calendar() {
        let seconds = |text| {
            let at: SystemTime = date(text)?;
            Ok::<_, String>(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        };
        // by `date -u -d … +%s`
        for (text, expected) in [
            ("1970-01-01", 0),
            ("1972-02-29", 68169600),
            ("1999-12-31", 946598400),
            ("2000-02-29", 951782400),
            ("2000-03-01", 951868800),
            ("2026-11-21", 1795219200),
            ("2027-01-01", 1798761600),
            ("2100-03-01", 4107542400),
            ("2400-02-29", 13574563200),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in [
            "2027-02-29",
            "2027-00-01",
            "2027-13-01",
            "2027-01-00",
            "2027-04-31",
            "2027-1-1",
            "1969-12-31",
            "2027-01-01-",
            "2027-01-01T00:00:00Z",
            "+027-01-01",
            "",
            "tomorrow",
        ] {
            assert!(date(bad).is_err(), "{bad}");
        }
    }
}
