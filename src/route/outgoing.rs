//! What a route says to its backend of its own: in, nodes of the config; later, a caller; out, header
//! fields. A client can send none of them itself.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::base::caller::Chain;
use crate::base::compile::{Cx, Node};
use crate::base::edits::{self, Edits};
use crate::base::fields::{Fields, hint};
use crate::base::principal::Principal;
use crate::base::text::push_ip;

/// What is done to the fields of a route's requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Fields of these names stay here: credentials, and whatever is removed or written below.
    dropped: Vec<HeaderName>,
    /// Written as they are.
    set: Vec<(HeaderName, HeaderValue)>,
    /// Written with what is known of the caller.
    identity: Vec<(HeaderName, Part)>,
}

/// What of a caller a field says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Where the request comes from, as in X-Forwarded-For; known of everybody.
    Address,
    Subject,
    Method,
    Issuer,
    Name,
    Metadata(String),
    /// A claim of the token: its name, or the path to it.
    Claim(String),
}

const PARTS: &[(&str, Part)] = &[
    ("address", Part::Address),
    ("subject", Part::Subject),
    ("method", Part::Method),
    ("issuer", Part::Issuer),
    ("name", Part::Name),
];

/// Fields of a request that the edge writes itself.
const WRITTEN: &[&str] =
    &["host", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Reads `forward_credentials`, `identity` and `request_headers`; `None` where there is nothing to do.
pub fn outgoing(fields: &mut Fields<'_>, chain: Option<&Chain>, cx: &mut Cx) -> Option<Outgoing> {
    let forward = fields.or(cx, "forward_credentials", false, |n, cx| cx.boolean(n));
    let identity = fields.or(cx, "identity", Vec::new(), identity);
    let edits = fields.or(cx, "request_headers", Edits::default(), |n, cx| {
        let edits = edits::edits(n, cx)?;
        let names = edits.set.iter().map(|(name, _)| name).chain(&edits.remove);
        for name in names.filter(|name| WRITTEN.contains(&name.as_str())) {
            cx.error(n, format!("the edge writes `{name}` itself"));
        }
        if let Some((both, _)) = identity.iter().find(|(name, _)| edits.touches(name)) {
            cx.error(n, format!("`{both}` stands in `identity` already"));
        }
        Some(edits)
    });
    let credentials = chain.filter(|_| !forward).map(|chain| chain.headers.clone());
    let mut dropped = credentials.unwrap_or_default();
    dropped.extend(edits.remove);
    dropped.extend(edits.set.iter().map(|(name, _)| name.clone()));
    dropped.extend(identity.iter().map(|(name, _)| name.clone()));
    (!dropped.is_empty()).then_some(Outgoing { dropped, set: edits.set, identity })
}

fn identity(node: &Node, cx: &mut Cx) -> Option<Vec<(HeaderName, Part)>> {
    let named = edits::named(node, cx, |node, cx| cx.parse(node, "a part of the caller", part))?;
    for (name, _) in named.iter().filter(|(name, _)| WRITTEN.contains(&name.as_str())) {
        cx.error(node, format!("the edge writes `{name}` itself"));
    }
    Some(named)
}

fn part(text: &str) -> Result<Part, String> {
    if let Some(key) = text.strip_prefix("metadata.").filter(|key| !key.is_empty()) {
        return Ok(Part::Metadata(key.to_owned()));
    }
    if let Some(path) = text.strip_prefix("claims.").filter(|path| !path.is_empty()) {
        return Ok(Part::Claim(path.to_owned()));
    }
    let more = ["metadata.KEY", "claims.NAME"];
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).chain(more).collect();
    let found = PARTS.iter().find(|(name, _)| *name == text).map(|(_, part)| part.clone());
    found.ok_or_else(|| format!("unknown part `{text}`{}", hint(text, &names)))
}

impl Outgoing {
    /// Whether a client's field of this name stays here.
    pub fn drops(&self, name: &HeaderName) -> bool {
        self.dropped.iter().any(|own| reads_as(name, own))
    }

    /// Writes the route's own fields as lines of HTTP/1.1, but for one of this name. What is not
    /// known of the caller is not said.
    pub fn write(
        &self,
        principal: &Principal,
        client: IpAddr,
        but: Option<&HeaderName>,
        bytes: &mut Vec<u8>,
    ) {
        for (name, value) in self.set.iter().filter(|(name, _)| Some(name) != but) {
            line(name, bytes, |bytes| bytes.extend_from_slice(value.as_bytes()));
        }
        for (name, part) in self.identity.iter().filter(|(name, _)| Some(name) != but) {
            if *part == Part::Address {
                line(name, bytes, |bytes| push_ip(client, bytes));
                continue;
            }
            if let Part::Claim(path) = part {
                if let Some(value) = claim(principal, path) {
                    line(name, bytes, |bytes| bytes.extend_from_slice(&value));
                }
                continue;
            }
            let value = part.of(principal).filter(|value| !value.is_empty());
            if let Some(value) = value {
                line(name, bytes, |bytes| push_encoded(value, bytes));
            }
        }
    }
}

impl Part {
    fn of<'p>(&self, principal: &'p Principal) -> Option<&'p str> {
        Some(match self {
            Self::Address | Self::Claim(_) => return None,
            Self::Subject => &principal.subject,
            Self::Method => principal.method,
            Self::Issuer => &principal.issuer,
            Self::Name => &principal.name,
            Self::Metadata(key) => {
                let (_, value) = principal.metadata.iter().find(|(name, _)| name == key)?;
                value
            }
        })
    }
}

/// A claim as the value of a field: a text, a number or a boolean, or a list of these with commas between
/// them (those inside are encoded); nothing else has a form that a server would know.
fn claim(principal: &Principal, path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match principal.token.as_ref()?.claim(path)? {
        Value::Array(items) => {
            for item in items {
                if !bytes.is_empty() {
                    bytes.push(b',');
                }
                let mut encoded = Vec::new();
                push_encoded(&plain(item)?, &mut encoded);
                for byte in encoded {
                    if byte == b',' { bytes.extend_from_slice(b"%2C") } else { bytes.push(byte) }
                }
            }
        }
        one => push_encoded(&plain(one)?, &mut bytes),
    }
    (!bytes.is_empty()).then_some(bytes)
}

fn plain(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a server may take a client's field for this one of ours: CGI-like servers (RFC 3875
/// §4.1.18) read `X_User` as `X-User`, and some every other sign, too.
pub fn reads_as(name: &HeaderName, own: &HeaderName) -> bool {
    let (name, own) = (name.as_str().as_bytes(), own.as_str().as_bytes());
    let sign = |b: u8| if b.is_ascii_alphanumeric() { b } else { b'-' };
    name.len() == own.len() && name.iter().zip(own).all(|(n, o)| sign(*n) == sign(*o))
}

fn line(name: &HeaderName, bytes: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    bytes.extend_from_slice(name.as_str().as_bytes());
    bytes.extend_from_slice(b": ");
    value(bytes);
    bytes.extend_from_slice(b"\r\n");
}

/// Percent-encodes (RFC 3986 §2.1) all but visible ASCII, and `%` itself: any text becomes a field's
/// value, and back.
fn push_encoded(text: &str, bytes: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            bytes.push(byte);
        } else {
            let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or_default();
            bytes.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&'static str]) -> Vec<HeaderName> {
        all.iter().map(|name| HeaderName::from_static(name)).collect()
    }

    #[test]
    fn a_name_is_dropped_in_every_spelling() {
        let outgoing =
            Outgoing { dropped: names(&["x-user", "authorization"]), ..Default::default() };
        for name in ["x-user", "x_user", "x.user", "x~user", "authorization"] {
            assert!(outgoing.drops(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["x-users", "xuser", "x-use", "proxy-authorization"] {
            assert!(!outgoing.drops(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn what_is_known_is_said_and_nothing_else() {
        let name = HeaderName::from_static;
        let outgoing = Outgoing {
            dropped: Vec::new(),
            set: vec![(name("x-env"), HeaderValue::from_static("a b"))],
            identity: vec![
                (name("x-user"), Part::Subject),
                (name("x-method"), Part::Method),
                (name("x-issuer"), Part::Issuer),
                (name("x-name"), Part::Name),
                (name("x-tenant"), Part::Metadata("tenant".into())),
                (name("x-none"), Part::Metadata("none".into())),
                (name("x-real-ip"), Part::Address),
            ],
        };
        let mut principal = Principal::new("basic", "", "jörg\r\nx: 50% ");
        principal.metadata = vec![("tenant".into(), "a".into())];
        let mut bytes = Vec::new();
        outgoing.write(&principal, "2001:db8::1".parse().unwrap(), None, &mut bytes);
        let encoded = "j%C3%B6rg%0D%0Ax:%2050%25%20";
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            format!(
                "x-env: a b\r\nx-user: {encoded}\r\nx-method: basic\r\nx-name: {encoded}\r\nx-tenant: a\r\n\
                 x-real-ip: 2001:db8::1\r\n"
            )
        );
    }

    #[test]
    fn claims_are_said_where_they_have_a_plain_form() {
        let claims = serde_json::json!({
            "email": "a b@c", "n": 7.5, "yes": true, "none": null, "empty": "", "object": {},
            "groups": ["a,b", "c\r\nx: y", 7], "odd": ["a", ["b"]], "nothing": [],
            "realm_access": { "roles": ["x"] }, "https://a/b.c": "url", "https://a/b": { "c": "path" },
        });
        let token = crate::base::principal::Token {
            resource: String::new(),
            scopes: Vec::new(),
            claims: claims.as_object().unwrap().clone(),
            streams_until: None,
        };
        let token = Some(std::sync::Arc::new(token));
        let principal = Principal { token, ..Principal::new("oauth", "i", "s") };
        for (path, expected) in [
            ("email", Some("a%20b@c")),
            ("n", Some("7.5")),
            ("yes", Some("true")),
            ("none", None),
            ("empty", None),
            ("object", None),
            ("groups", Some("a%2Cb,c%0D%0Ax:%20y,7")),
            ("odd", None),
            ("nothing", None),
            ("realm_access.roles", Some("x")),
            ("realm_access", None),
            ("https://a/b.c", Some("url")),
            ("missing", None),
        ] {
            let found = claim(&principal, path).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expected, "{path}");
        }
        assert_eq!(claim(&Principal::anonymous(), "email"), None);
        assert_eq!(part("claims.a.b"), Ok(Part::Claim("a.b".into())));
        assert!(part("claims.").is_err());
    }
}
