//! Is what we read all that a server could read? In: a head and its scanned body; out: [`Seen`], or a
//! `Denial`.
//!
//! Where rules are about tools, nothing goes to the server that it might read in another way than we
//! did. Servers differ much: in what was measured, some took batches, coded bodies, other charsets, a
//! byte order mark or the last of doubled keys, and Go's `encoding/json` takes `Method` and `ſ` for
//! `method` and `s`. So a body goes on only in a POST, as plain JSON in UTF-8, read whole, as one JSON-RPC
//! 2.0 message whose keys cannot be mistaken. Everything else with a body is refused, WebSockets too, as
//! calls could be made in them.

use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method};

use super::envelope::{CALLS, Message, Scan, TOOLS_CALL};
use crate::base::denial::{Denial, RPC_INVALID_PARAMS, RPC_INVALID_REQUEST, RPC_PARSE, Reason};
use crate::base::head::Head;

/// What is let through at all.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS");

/// How a request's body was read.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    all: bool,
}

impl Seen {
    /// There may be a body of which nothing is known.
    pub fn in_part() -> Self {
        Self { all: false }
    }

    /// Whether what the server gets is what was read. Only [`Readable::body`] says so.
    pub fn is_all(self) -> bool {
        self.all
    }
}

/// A request that has no body, or one that is worth reading. Only [`head`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Readable {
    has_body: bool,
}

/// Looks at the head, before anything of the body is read.
///
/// # Errors
/// 403 for a WebSocket, 405 for methods that are not MCP's, 415 for other types, charsets and codings,
/// 400 for a body where none belongs, or none where one does.
pub fn head(head: &Head, has_body: bool) -> Result<Readable, Denial> {
    if head.websocket {
        let upgrade = "This server is not to be reached by WebSocket";
        return Err(Denial::new(Reason::Forbidden, "inspect.upgrade", upgrade));
    }
    match head.method {
        Method::POST if has_body => check_type(head)?,
        Method::POST => {
            return Err(malformed("inspect.no_body", "A POST needs a JSON-RPC message"));
        }
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS if has_body => {
            let unasked = "This method takes no body";
            return Err(malformed("inspect.body_unasked", unasked).closing());
        }
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS => {}
        _ => {
            let method = "This method is not served";
            let denial = Denial::new(Reason::MethodNotAllowed, "inspect.method", method);
            return Err(denial.field(ALLOW, METHODS).closing());
        }
    }
    Ok(Readable { has_body })
}

fn check_type(head: &Head) -> Result<(), Denial> {
    let unsupported = |code, message| Denial::new(Reason::Unsupported, code, message).closing();
    let plain = |v: &HeaderValue| v.is_empty() || v.as_bytes().eq_ignore_ascii_case(b"identity");
    if !head.headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err(unsupported("inspect.coded", "A JSON body must not be coded"));
    }
    if head.single(CONTENT_TYPE).is_some_and(is_plain_json) {
        return Ok(());
    }
    Err(unsupported("inspect.content_type", "The body must be application/json in UTF-8"))
}

/// `application/json`, and no other parameter than `charset=utf-8`: there are several ways to name a
/// charset (RFC 8187 §3.2), and to read parameters.
fn is_plain_json(value: &str) -> bool {
    let (essence, parameter) = match value.split_once(';') {
        Some((essence, parameter)) => (essence, Some(parameter)),
        None => (value, None),
    };
    let is_utf8 = |parameter: &str| {
        let named = parameter.trim().split_once('=');
        named.is_some_and(|(name, value)| {
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            let utf8 = value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8");
            name.eq_ignore_ascii_case("charset") && utf8
        })
    };
    essence.trim().eq_ignore_ascii_case("application/json") && parameter.is_none_or(is_utf8)
}

impl Readable {
    /// Looks at the body, read by `scan_strictly`; `None` where there is none.
    ///
    /// # Errors
    /// 400 for all that is not one JSON-RPC 2.0 message that everybody reads in the same way.
    pub fn body(self, scan: Option<&Scan>) -> Result<Seen, Denial> {
        match scan {
            None if !self.has_body => {}
            None => return Err(Denial::new(Reason::Internal, "inspect.unread", "Internal error")),
            Some(Scan::Single(message)) => check(message)?,
            Some(Scan::Batch(_)) => {
                return Err(malformed("inspect.batch", "Batches are not taken here"));
            }
            Some(Scan::NotRpc) => {
                let other = "The body is not a JSON-RPC 2.0 message";
                return Err(malformed("inspect.not_rpc", other));
            }
            Some(Scan::BadJson) => {
                let bad = "The body is not JSON in UTF-8 without a byte order mark";
                return Err(malformed("inspect.bad_json", bad).rpc(RPC_PARSE));
            }
        }
        Ok(Seen { all: true })
    }
}

fn check(message: &Message) -> Result<(), Denial> {
    let method = message.method.as_deref().unwrap_or_default();
    if message.duplicate {
        return Err(malformed("inspect.duplicate_key", "A key stands twice in the message"));
    }
    if message.odd {
        let odd = "A key of the message could be mistaken for another, or its method is no text";
        return Err(malformed("inspect.odd_key", odd));
    }
    if message.unreadable {
        return Err(malformed("inspect.unreadable", "The method or the name cannot be read"));
    }
    if CALLS.iter().any(|call| resembles(method.as_bytes(), call.as_bytes())) {
        return Err(malformed("inspect.odd_method", "The method could be mistaken for another"));
    }
    if method == TOOLS_CALL && message.name.is_none() {
        let nameless = "tools/call needs the name of a tool";
        return Err(malformed("inspect.no_tool", nameless).rpc(RPC_INVALID_PARAMS));
    }
    Ok(())
}

fn malformed(code: &'static str, message: &'static str) -> Denial {
    Denial::new(Reason::Malformed, code, message).rpc(RPC_INVALID_REQUEST)
}

/// Whether a key that is none of ours could do as one: by its looks, or because JavaScript's objects take
/// what is missing in them from there.
pub(super) fn is_odd(key: &[u8], ours: &[&[u8]]) -> bool {
    key == b"__proto__" || ours.iter().any(|own| resembles(key, own))
}

/// Whether a text is not this one of ours, but a reader that is less exact could take it for it: by case,
/// by Unicode's folding to ASCII, by leaving out what cannot be seen or is not valid, or by stopping at a
/// zero byte.
fn resembles(text: &[u8], ours: &[u8]) -> bool {
    if text == ours {
        return false;
    }
    let mut chars = text.utf8_chunks().flat_map(|chunk| chunk.valid().chars());
    let mut left = ours.iter();
    loop {
        match chars.next() {
            None => return left.next().is_none(),
            Some('\0') if left.as_slice().is_empty() => return true,
            Some(c) if is_nothing(c) => {}
            Some(c) => {
                let same = |own: &u8| folded(c).is_some_and(|c| own.eq_ignore_ascii_case(&c));
                if !left.next().is_some_and(same) {
                    return false;
                }
            }
        }
    }
}

/// White space, control characters, and characters without a width.
fn is_nothing(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fffd}')
}

/// The ASCII that a character is, or that Unicode's case folding, or a lower or upper case of it, makes.
fn folded(c: char) -> Option<u8> {
    match c {
        'ſ' => Some(b's'),
        '\u{212a}' => Some(b'k'),
        'ı' | 'İ' => Some(b'i'),
        // full width: by compatibility (NFKC)
        '\u{ff01}'..='\u{ff5e}' => u8::try_from(u32::from(c) - 0xff01 + 0x21).ok(),
        _ => u8::try_from(c).ok().filter(u8::is_ascii),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::super::envelope::scan_strictly;
    use super::*;
    use crate::base::head::Version;

    fn asked(
        method: Method,
        fields: &[(&str, &str)],
        has_body: bool,
        websocket: bool,
    ) -> &'static str {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (path, authority) = ("/mcp".into(), "a.example".into());
        let (query, version) = (None, Version::H11);
        let request = Head { method, path, query, authority, headers, version, websocket };
        match head(&request, has_body) {
            Ok(readable) => {
                assert_eq!(readable.has_body, has_body);
                "ok"
            }
            Err(denial) => denial.code,
        }
    }

    fn post(fields: &[(&str, &str)]) -> &'static str {
        asked(Method::POST, fields, true, false)
    }

    fn read(body: &[u8]) -> &'static str {
        match (Readable { has_body: true }).body(Some(&scan_strictly(body))) {
            Ok(seen) => {
                assert!(seen.is_all());
                "ok"
            }
            Err(denial) => {
                assert_eq!(denial.reason, Reason::Malformed);
                denial.code
            }
        }
    }

    fn call(params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    }

    #[test]
    fn only_posts_have_bodies() {
        for method in [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS] {
            assert_eq!(asked(method.clone(), &[], false, false), "ok");
            assert_eq!(asked(method, &[], true, false), "inspect.body_unasked");
        }
        for method in ["PUT", "PATCH", "QUERY", "TRACE", "post", "PROPFIND"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let json = [("content-type", "application/json")];
            assert_eq!(asked(method.clone(), &json, true, false), "inspect.method");
            assert_eq!(asked(method, &[], false, false), "inspect.method");
        }
        assert_eq!(asked(Method::POST, &[], false, false), "inspect.no_body");
        assert_eq!(asked(Method::GET, &[], false, true), "inspect.upgrade");
    }

    #[test]
    fn only_plain_json_is_read() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json ; Charset=utf8",
        ] {
            assert_eq!(post(&[("content-type", good)]), "ok", "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "text/json",
            "application/jsonx",
            "application/vnd.api+json",
            "text/plain, application/json",
            "multipart/form-data; x=application/json",
            "application/json; charset=utf-16le",
            "application/json; charset=us-ascii",
            "application/json; charset*=utf-16''x",
            "application/json; charset=utf-8; charset=utf-16",
            "application/json; x=y",
            "application/json;",
            "application/json; charset=\"utf-8",
            "application/json; charset = utf-8",
        ] {
            assert_eq!(post(&[("content-type", bad)]), "inspect.content_type", "{bad}");
        }
        let json = ("content-type", "application/json");
        assert_eq!(post(&[]), "inspect.content_type");
        assert_eq!(post(&[json, json]), "inspect.content_type");
        assert_eq!(post(&[json, ("content-encoding", "Identity")]), "ok");
        for coded in ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"] {
            assert_eq!(post(&[json, ("content-encoding", coded)]), "inspect.coded", "{coded}");
        }
        let twice = [json, ("content-encoding", "identity"), ("content-encoding", "gzip")];
        assert_eq!(post(&twice), "inspect.coded");
    }

    #[test]
    fn one_message_and_nothing_else() {
        for good in [
            call(r#"{"name":"echo","arguments":{"Name":"x","name":"y","name":"z"}}"#).as_str(),
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"Name":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""},"extra":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x/y","params":{"Name":"a","_META":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"NAME"}}"#,
        ] {
            assert_eq!(read(good.as_bytes()), "ok", "{good}");
        }
        for (bad, code) in [
            ("[]", "inspect.batch"),
            (&format!("[{}]", call(r#"{"name":"a"}"#)), "inspect.batch"),
            ("{}", "inspect.not_rpc"),
            ("1", "inspect.not_rpc"),
            (r#"{"id":1,"method":"tools/call","params":{"name":"a"}}"#, "inspect.not_rpc"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"tools/call"}"#, "inspect.not_rpc"),
            (r#"{"jsonrpc":2.0,"id":1,"method":"tools/call"}"#, "inspect.not_rpc"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "inspect.not_rpc"),
            ("", "inspect.bad_json"),
            (&call(r#"{"name":"a"}}"#), "inspect.bad_json"),
            (&format!("\u{feff}{}", call(r#"{"name":"a"}"#)), "inspect.bad_json"),
            (&format!("{}\0", call(r#"{"name":"a"}"#)), "inspect.bad_json"),
            (&call(r#"{"name":"a",}"#), "inspect.bad_json"),
            (&call(r#"{"name":NaN}"#), "inspect.bad_json"),
            (&call("{'name':'a'}"), "inspect.bad_json"),
            (&call(r#"{/**/"name":"a"}"#), "inspect.bad_json"),
            (r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"],"result":{}}"#, "inspect.odd_key"),
            (r#"{"jsonrpc":"2.0","id":1,"method":null,"result":{}}"#, "inspect.odd_key"),
        ] {
            assert_eq!(read(bad.as_bytes()), code, "{bad}");
        }
        let utf16: Vec<u8> =
            call(r#"{"name":"a"}"#).encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(read(&utf16), "inspect.bad_json");
        assert_eq!(read(call("{\"name\":\"a\u{e9}\"}").as_bytes()), "ok");
        let latin1 = call(r#"{"name":"aé"}"#).replace('é', "\u{1}").into_bytes();
        let latin1: Vec<u8> = latin1.iter().map(|b| if *b == 1 { 0xe9 } else { *b }).collect();
        assert_eq!(read(&latin1), "inspect.bad_json");
    }

    #[test]
    fn keys_stand_once_and_cannot_be_mistaken() {
        let envelope = |more: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list",{more},"params":{{}}}}"#)
        };
        for key in ["METHOD", "Method", "meth\\u006Fd", "params", "\\u0070arams", "method"] {
            let body = envelope(&format!(r#""{key}":"tools/call""#));
            assert_ne!(read(body.as_bytes()), "ok", "{body}");
        }
        for key in [
            "__proto__",
            "__pr\\u006fto__",
            "Params",
            "paramſ",
            "reſult",
            "re\\u017fult",
            "Id",
            "İD",
            "ıd",
            "JSONRPC",
            "method ",
            " method",
            "method\\u0000",
            "method\\u0000x",
            "me\\u0000thod",
            "m\\u200bethod",
            "\\ufeffmethod",
            "\\ud800method",
            "ｍethod",
            "Error",
        ] {
            let body = envelope(&format!(r#""{key}":{{"name":"x"}}"#));
            assert_eq!(read(body.as_bytes()), "inspect.odd_key", "{body}");
        }
        for key in ["_meta", "methods", "meth", "x", "parameters", "metho\\u0308d", ""] {
            let body = envelope(&format!(r#""{key}":{{"name":"x"}}"#));
            assert_eq!(read(body.as_bytes()), "ok", "{body}");
        }
        for key in
            ["Name", "NAME", "nam\\u0045", "__proto__", "name\\u0000", "_Meta", "_META", " name"]
        {
            let body = call(&format!(r#"{{"name":"a","{key}":"b"}}"#));
            assert_eq!(read(body.as_bytes()), "inspect.odd_key", "{body}");
        }
        for doubled in [
            call(r#"{"name":"a","name":"b"}"#),
            call(r#"{"name":"a","n\u0061me":"b"}"#),
            call(r#"{"name":"a"},"params":{"name":"b"}"#),
            call(r#"{"name":"a","_meta":{},"_meta":{}}"#),
            call(r#"{"name":"a"},"method":"tools/call""#),
            call(r#"{"name":"a"},"id":2"#),
            call(r#"{"name":"a"},"jsonrpc":"2.0""#),
        ] {
            assert_eq!(read(doubled.as_bytes()), "inspect.duplicate_key", "{doubled}");
        }
    }

    #[test]
    fn a_call_has_a_readable_name_and_method() {
        for params in ["{}", r#"["a"]"#, r#"{"name":5}"#, r#"{"name":null}"#, r#"{"name":["a"]}"#] {
            assert_eq!(read(call(params).as_bytes()), "inspect.no_tool", "{params}");
        }
        let none = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#;
        assert_eq!(read(none.as_bytes()), "inspect.no_tool");
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(8193));
        for params in [r#"{"name":"\ud800"}"#, &long] {
            assert_eq!(read(call(params).as_bytes()), "inspect.unreadable");
        }
        for method in
            ["Tools/Call", "tools/call ", "toolſ/call", "tools/call\\u0000x", "TOOLS/CALL"]
        {
            let body = call("{}").replace("tools/call", method);
            assert_eq!(read(body.as_bytes()), "inspect.odd_method", "{method}");
        }
        for method in ["tools/cal", "tools/calls", "tools//call", "x"] {
            let body = call("{}").replace("tools/call", method);
            assert_eq!(read(body.as_bytes()), "ok", "{method}");
        }
    }

    #[test]
    fn without_a_body_there_is_nothing_to_read() {
        assert!((Readable { has_body: false }).body(None).unwrap().is_all());
        let unread = (Readable { has_body: true }).body(None).unwrap_err();
        assert_eq!(unread.reason, Reason::Internal);
        assert!(!Seen::in_part().is_all());
    }
}
