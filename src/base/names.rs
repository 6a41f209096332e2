//! Field names: in, the bytes of a name; out, a `HeaderName`. Those that nearly every head has are told
//! by comparing a few words, without lowering each byte, hashing or copying.

use http::header as h;
use http::{HeaderName, HeaderValue};

/// The `Mcp-Session-Id` of the legacy era.
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The `MCP-Protocol-Version` header.
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The `Mcp-Method` header of the 2026-07-28 era.
pub const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The `Mcp-Name` header of the 2026-07-28 era.
pub const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The name of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where the clients of proxies are listed.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Reads a name; `None` when it is not a token (RFC 9110 §5.1).
pub fn header_name(name: &[u8]) -> Option<HeaderName> {
    known(name).or_else(|| HeaderName::from_bytes(name).ok())
}

/// A frequent name, in the spelling of HTTP/2 or in that of HTTP/1.
fn known(name: &[u8]) -> Option<HeaderName> {
    let is = |lower: &[u8], title: &[u8]| name == lower || name == title;
    Some(match name.len() {
        4 if is(b"host", b"Host") => h::HOST,
        4 if is(b"date", b"Date") => h::DATE,
        6 if is(b"accept", b"Accept") => h::ACCEPT,
        6 if is(b"server", b"Server") => h::SERVER,
        8 if is(b"mcp-name", b"Mcp-Name") => MCP_NAME,
        10 if is(b"user-agent", b"User-Agent") => h::USER_AGENT,
        10 if is(b"connection", b"Connection") => h::CONNECTION,
        10 if is(b"keep-alive", b"Keep-Alive") => KEEP_ALIVE,
        10 if is(b"mcp-method", b"Mcp-Method") => MCP_METHOD,
        12 if is(b"content-type", b"Content-Type") => h::CONTENT_TYPE,
        12 if is(b"x-request-id", b"X-Request-Id") => X_REQUEST_ID,
        13 if is(b"cache-control", b"Cache-Control") => h::CACHE_CONTROL,
        13 if is(b"authorization", b"Authorization") => h::AUTHORIZATION,
        14 if is(b"content-length", b"Content-Length") => h::CONTENT_LENGTH,
        14 if is(b"mcp-session-id", b"Mcp-Session-Id") => MCP_SESSION_ID,
        14 if is(b"sec-fetch-mode", b"Sec-Fetch-Mode") => SEC_FETCH_MODE,
        15 if is(b"accept-encoding", b"Accept-Encoding") => h::ACCEPT_ENCODING,
        15 if is(b"accept-language", b"Accept-Language") => h::ACCEPT_LANGUAGE,
        17 if is(b"transfer-encoding", b"Transfer-Encoding") => h::TRANSFER_ENCODING,
        20 if is(b"mcp-protocol-version", b"Mcp-Protocol-Version") => MCP_PROTOCOL_VERSION,
        20 if name == b"MCP-Protocol-Version" => MCP_PROTOCOL_VERSION,
        _ => return None,
    })
}

/// A value as bytes, where it is visible ASCII (what `HeaderValue::to_str` takes).
pub fn ascii(value: &HeaderValue) -> Option<&[u8]> {
    // control characters are in no value
    Some(value.as_bytes()).filter(|bytes| bytes.is_ascii())
}

/// The parts of a list (RFC 9110 §5.6.1) as bytes, white space around them left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// Whether a `Content-Type`, or a part of an `Accept`, is of this type: parameters are ignored.
pub fn is_type(value: &[u8], kind: &[u8]) -> bool {
    let value = value.trim_ascii_start();
    match value.split_at_checked(kind.len()) {
        Some((start, rest)) => {
            start.eq_ignore_ascii_case(kind)
                && matches!(rest.trim_ascii_start().first(), None | Some(b';'))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frequent_names_are_the_same_as_read_the_long_way() {
        for text in [
            "host",
            "date",
            "accept",
            "server",
            "mcp-name",
            "user-agent",
            "connection",
            "keep-alive",
            "mcp-method",
            "content-type",
            "x-request-id",
            "cache-control",
            "authorization",
            "content-length",
            "mcp-session-id",
            "sec-fetch-mode",
            "accept-encoding",
            "accept-language",
            "transfer-encoding",
            "mcp-protocol-version",
        ] {
            let title: String = text
                .split_inclusive('-')
                .map(|part| part[..1].to_uppercase() + &part[1..])
                .collect();
            for spelling in [text, &title] {
                let name = known(spelling.as_bytes()).unwrap();
                assert_eq!(name.as_str(), text);
                // standard names are equal only in their own form
                assert_eq!(name, HeaderName::from_bytes(spelling.as_bytes()).unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn names_are_read_as_http_does(name in "[-A-Za-z0-9 :_\u{e4}]{0,20}|(Mcp|mcp)-(Name|name|Method)|[Hh][Oo]st") {
            prop_assert_eq!(header_name(name.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok());
        }

        #[test]
        fn ascii_is_what_can_be_text(value in proptest::collection::vec(any::<u8>(), 0..4)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                prop_assert_eq!(ascii(&value), value.to_str().ok().map(str::as_bytes));
            }
        }

        #[test]
        fn types_are_read_as_text_was(value in "[ \t]?(text/event-stream|TEXT/Event-Stream|text/eventstream|a)?[ ;,=a\t]{0,4}[a-z;]{0,3}") {
            let old = value.split(';').next().unwrap_or_default().trim();
            let is = old.eq_ignore_ascii_case("text/event-stream");
            prop_assert_eq!(is_type(value.as_bytes(), b"text/event-stream"), is, "{:?}", value);
        }
    }
}
