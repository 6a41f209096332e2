//! A request head: in, the bytes up to the empty line; out, a checked `Request` or a `Denial`.
//!
//! RFC 9112 with the leniencies left out: what a backend could read in another way than we do is
//! refused, with an answer that says what is wrong.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use memchr::{memchr, memrchr};

use super::authority::{authority, bad_host};
use crate::base::chunked::is_token;
use crate::base::denial::{Denial, Reason};
use crate::base::head::{Head, Version};
use crate::listen::wire::BodySize;

/// Longest request line, in bytes.
pub const MAX_LINE: usize = 8 * 1024;
/// Longest head in all, in bytes.
pub const MAX_HEAD: usize = 32 * 1024;
/// Longest field, in bytes.
pub const MAX_FIELD: usize = 16 * 1024;
/// Most fields in a head.
pub const MAX_FIELDS: usize = 100;

/// A request as it stands in its head.
#[derive(Debug)]
pub struct Request {
    /// For the stages.
    pub head: Head,
    /// The body's framing.
    pub size: BodySize,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// Looks for the end of a head in `buf`, of which the first `seen` bytes were looked at before.
///
/// # Errors
/// A line end that is not CRLF, a forbidden control character, or too many bytes.
pub fn find_end(buf: &[u8], seen: &mut usize) -> Result<Option<usize>, Denial> {
    let mut at = *seen;
    while let Some(offset) = memchr(b'\n', buf.get(at..).unwrap_or_default()) {
        let newline = at + offset;
        let before = buf.get(..newline).unwrap_or_default();
        if before.last() != Some(&b'\r') {
            return Err(malformed("h1.bare_lf", "Lines must end with CR LF"));
        }
        if before.ends_with(b"\r\n\r") {
            return Ok(Some(newline + 1));
        }
        at = newline + 1;
    }
    *seen = at;
    over_limit(buf, at)
}

fn over_limit(buf: &[u8], last_line: usize) -> Result<Option<usize>, Denial> {
    if last_line == 0 && buf.len() > MAX_LINE {
        return Err(
            Denial::new(Reason::UriTooLong, "h1.line", "The request line is too long").closing()
        );
    }
    if buf.len() > MAX_HEAD {
        return Err(Denial::new(
            Reason::HeadTooLarge,
            "h1.head",
            "The header section is too large",
        )
        .closing());
    }
    Ok(None)
}

/// Reads a complete head, final empty line included.
///
/// # Errors
/// What is wrong with it; the connection cannot go on after it.
pub fn parse(bytes: &Bytes) -> Result<Request, Denial> {
    parse_open(bytes).map_err(Denial::closing)
}

fn parse_open(bytes: &Bytes) -> Result<Request, Denial> {
    let mut lines = Lines(bytes);
    let line = lines.next().ok_or_else(bad_line)?;
    if line.len() > MAX_LINE {
        return Err(Denial::new(Reason::UriTooLong, "h1.line", "The request line is too long"));
    }
    if bytes.len() > MAX_HEAD {
        return Err(Denial::new(
            Reason::HeadTooLarge,
            "h1.head",
            "The header section is too large",
        ));
    }
    let (method, target, version) = request_line(line)?;
    let (mut fields, hosts) = fields(bytes, &mut lines)?;
    let (path, query, authority) = resolve(target, hosts, version)?;
    let (size, keep_alive) = framing(&fields, version)?;
    let expects_continue = expectation(&fields, version)?;
    drop_nominated(&mut fields);
    let websocket = size == BodySize::None && is_websocket(&method, &fields, version);
    let head = Head { method, path, query, authority, headers: fields, version, websocket };
    Ok(Request { head, size, keep_alive, expects_continue })
}

/// Lines of a head without their CRLF, the empty last one left out.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at_checked(end + 1)?;
        self.0 = rest;
        let line = line.strip_suffix(b"\r\n")?;
        (!line.is_empty()).then_some(line)
    }
}

/// `method SP target SP HTTP-version` (RFC 9112 §3), single spaces only.
fn request_line(line: &[u8]) -> Result<(Method, &str, Version), Denial> {
    let line = std::str::from_utf8(line).map_err(|_| bad_line())?;
    let spaces = (memchr(b' ', line.as_bytes()), memrchr(b' ', line.as_bytes()));
    let (Some(first), Some(last)) = spaces else { return Err(bad_line()) };
    let method = line.get(..first).unwrap_or_default();
    let target = line.get(first + 1..last).unwrap_or_default();
    let version = line.get(last + 1..).unwrap_or_default();
    if target.is_empty() || target.contains(' ') {
        return Err(bad_line());
    }
    let version = match version {
        "HTTP/1.1" => Version::H11,
        "HTTP/1.0" => Version::H10,
        other => return Err(bad_version(other)),
    };
    if method.is_empty() || !method.bytes().all(is_token) || method.len() > 32 {
        return Err(malformed("h1.method", "The method is not a token"));
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad_line())?;
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(malformed("h1.target", "The request target has a forbidden character"));
    }
    Ok((method, target, version))
}

fn bad_version(text: &str) -> Denial {
    let digits = text.strip_prefix("HTTP/").map(str::as_bytes);
    match digits {
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Denial::new(
                Reason::VersionNotSupported,
                "h1.version",
                "Only HTTP/1.0, 1.1 and 2 are spoken",
            )
        }
        _ => bad_line(),
    }
}

/// All fields but Host, and all values of Host.
fn fields<'a>(raw: &Bytes, lines: &mut Lines<'a>) -> Result<(HeaderMap, Vec<&'a str>), Denial> {
    let mut map = HeaderMap::with_capacity(12);
    let mut hosts = Vec::with_capacity(1);
    let mut count = 0;
    for line in lines {
        count += 1;
        if line.len() > MAX_FIELD {
            return Err(Denial::new(
                Reason::HeadTooLarge,
                "h1.field_size",
                "A header field is too large",
            ));
        }
        if count > MAX_FIELDS {
            return Err(Denial::new(
                Reason::HeadTooLarge,
                "h1.fields",
                "There are too many header fields",
            ));
        }
        let (name, value) = field(line)?;
        if name == http::header::HOST {
            hosts.push(std::str::from_utf8(value).map_err(|_| bad_host())?);
            continue;
        }
        // a part of the head's bytes, not a copy; refuses control characters
        let value = HeaderValue::from_maybe_shared(raw.slice_ref(value))
            .map_err(|_| malformed("h1.value", "A header value has a forbidden character"))?;
        map.append(name, value);
    }
    Ok((map, hosts))
}

/// `name ":" OWS value OWS` (RFC 9112 §5): no space before the colon, no folding.
fn field(line: &[u8]) -> Result<(HeaderName, &[u8]), Denial> {
    let bad = || malformed("h1.field", "A header line is malformed");
    let colon = memchr(b':', line).ok_or_else(bad)?;
    let (name, rest) = line.split_at_checked(colon).ok_or_else(bad)?;
    // takes tokens only, and makes them lower case
    let name = HeaderName::from_bytes(name).map_err(|_| bad())?;
    let mut value = rest.get(1..).unwrap_or_default();
    while let [b' ' | b'\t', after @ ..] = value {
        value = after;
    }
    while let [before @ .., b' ' | b'\t'] = value {
        value = before;
    }
    Ok((name, value))
}

/// Path, query and authority from the target's form and Host (RFC 9112 §3.2).
fn resolve(
    target: &str,
    hosts: Vec<&str>,
    version: Version,
) -> Result<(String, Option<String>, String), Denial> {
    let host = match hosts.as_slice() {
        [one] => authority(one)?,
        [] if version == Version::H10 => String::new(),
        [] => return Err(malformed("h1.no_host", "Host is missing")),
        _ => return Err(malformed("h1.hosts", "There is more than one Host")),
    };
    let (rest, host) = match split_absolute(target) {
        Some((named, rest)) => {
            let named = authority(named)?;
            if !host.is_empty() && named != host {
                return Err(malformed("h1.host_differs", "Host differs from the request target"));
            }
            (rest, named)
        }
        None => (target, host),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest, None),
    };
    let path = if path.is_empty() && rest.len() != target.len() { "/" } else { path };
    Ok((path.to_owned(), query, host))
}

fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    rest.split_at_checked(end)
}

/// One framing, or none at all (RFC 9112 §6): any doubt is refused.
fn framing(fields: &HeaderMap, version: Version) -> Result<(BodySize, bool), Denial> {
    let mut lengths = fields.get_all(http::header::CONTENT_LENGTH).iter();
    let mut codings = fields.get_all(http::header::TRANSFER_ENCODING).iter();
    let size = match (lengths.next(), codings.next()) {
        (None, None) => BodySize::None,
        (Some(length), None) if lengths.next().is_none() => match content_length(length.as_bytes())
        {
            Some(0) => BodySize::None,
            Some(n) => BodySize::Known(n),
            None => return Err(malformed("h1.length", "Content-Length is not one number")),
        },
        (Some(_), None) => {
            return Err(malformed("h1.lengths", "There is more than one Content-Length"));
        }
        (Some(_), Some(_)) => {
            return Err(malformed(
                "h1.length_and_coding",
                "Content-Length and Transfer-Encoding exclude each other",
            ));
        }
        (None, Some(coding)) => {
            if codings.next().is_some() || version == Version::H10 {
                return Err(malformed("h1.codings", "Transfer-Encoding is ambiguous"));
            }
            transfer_coding(coding)?
        }
    };
    Ok((size, version == Version::H11 && !has_option(fields, "close")))
}

fn content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn transfer_coding(value: &HeaderValue) -> Result<BodySize, Denial> {
    let text = value.as_bytes();
    if text.eq_ignore_ascii_case(b"chunked") {
        return Ok(BodySize::Unknown);
    }
    let last = text.rsplit(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    if text.is_empty() || (text.contains(&b',') && !last.eq_ignore_ascii_case(b"chunked")) {
        return Err(malformed("h1.coding_order", "Transfer-Encoding must end with chunked"));
    }
    Err(Denial::new(
        Reason::NotImplemented,
        "h1.coding",
        "Only the chunked transfer coding is spoken",
    ))
}

fn expectation(fields: &HeaderMap, version: Version) -> Result<bool, Denial> {
    let mut values = fields.get_all(http::header::EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Ok(version == Version::H11)
        }
        _ => Err(Denial::new(
            Reason::ExpectationFailed,
            "h1.expect",
            "Only Expect: 100-continue is understood",
        )),
    }
}

/// What `Connection` nominates is for us alone (RFC 9110 §7.6.1), and gone before any stage looks: what
/// one stage read and the backend did not get would be two requests.
fn drop_nominated(fields: &mut HeaderMap) {
    let values = fields.get_all(http::header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let options =
        values.flat_map(|v| v.split(',')).filter_map(|o| HeaderName::try_from(o.trim()).ok());
    for name in options.collect::<Vec<_>>() {
        if name != http::header::CONNECTION && name != http::header::UPGRADE {
            fields.remove(name);
        }
    }
}

/// RFC 6455 §4.1. Any other upgrade is declined by not taking it up (RFC 9110 §7.8).
fn is_websocket(method: &Method, fields: &HeaderMap, version: Version) -> bool {
    let mut protocols = fields.get_all(http::header::UPGRADE).iter();
    version == Version::H11
        && *method == Method::GET
        && has_option(fields, "upgrade")
        && protocols.next().is_some_and(|p| p.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
}

/// Whether `Connection` names this option (RFC 9110 §7.6.1).
pub fn has_option(fields: &HeaderMap, option: &str) -> bool {
    let values = fields.get_all(http::header::CONNECTION).iter();
    values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|o| o.trim().eq_ignore_ascii_case(option))
}

fn bad_line() -> Denial {
    malformed("h1.request_line", "The request line is malformed")
}

fn malformed(code: &'static str, message: &'static str) -> Denial {
    Denial::new(Reason::Malformed, code, message).closing()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        parse(&Bytes::copy_from_slice(text.as_bytes())).map_or_else(|d| d.code, |_| "ok")
    }

    #[test]
    fn takes_ordinary_requests() {
        let text = "POST /mcp?a=b HTTP/1.1\r\nHost: Example.COM.:8080\r\nContent-Length: 3\r\nX:  a b \r\n\r\n";
        let r = parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap();
        assert_eq!((r.head.path.as_str(), r.head.query.as_deref()), ("/mcp", Some("a=b")));
        assert_eq!(r.head.authority, "example.com:8080");
        assert_eq!(r.size, BodySize::Known(3));
        assert_eq!(r.head.headers["x"], "a b");
        assert!(r.keep_alive);
        let r = parse(&Bytes::from_static(
            b"GET http://a.example HTTP/1.1\r\nHost: a.example\r\nConnection: x, Close\r\n\r\n",
        ))
        .unwrap();
        assert_eq!((r.head.path.as_str(), r.keep_alive), ("/", false));
        assert!(parse(&Bytes::from_static(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n")).is_ok());
    }

    #[test]
    fn nominated_fields_are_gone_before_anybody_looks() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-A, mcp-protocol-version\r\nX-A: 1\r\nX-B: 2\r\nMCP-Protocol-Version: 2026-07-28\r\n\r\n";
        let fields = parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap().head.headers;
        assert!(!fields.contains_key("x-a") && !fields.contains_key("mcp-protocol-version"));
        assert!(fields.contains_key("x-b") && fields.contains_key("connection"));
    }

    #[test]
    fn refuses_doubtful_framing() {
        let with = |fields: &str| code(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(with("Content-Length: 3, 3\r\n"), "h1.length");
        assert_eq!(with("Content-Length: 3\r\nContent-Length: 3\r\n"), "h1.lengths");
        assert_eq!(with("Content-Length: +3\r\n"), "h1.length");
        assert_eq!(
            with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            "h1.length_and_coding"
        );
        assert_eq!(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            "h1.codings"
        );
        assert_eq!(with("Transfer-Encoding: xchunked\r\n"), "h1.coding");
        assert_eq!(with("Transfer-Encoding: chunked, gzip\r\n"), "h1.coding_order");
        assert_eq!(with("Transfer-Encoding : chunked\r\n"), "h1.field");
        assert_eq!(with("X: a\r\n folded\r\n"), "h1.field");
        assert_eq!(with("X: a\rb\r\n"), "h1.value");
        assert_eq!(with("Host: a\r\n"), "h1.hosts");
        assert_eq!(with("Expect: tea\r\n"), "h1.expect");
    }

    #[test]
    fn refuses_doubtful_request_lines() {
        for (line, expected) in [
            ("GET / HTTP/1.2", "h1.version"),
            ("GET / HTTP/2.0", "h1.version"),
            ("GET /", "h1.request_line"),
            ("GET  / HTTP/1.1", "h1.request_line"),
            ("GET\t/ HTTP/1.1", "h1.request_line"),
            ("GET /a#b HTTP/1.1", "h1.target"),
            ("GET /\u{e4} HTTP/1.1", "h1.target"),
            ("G@T / HTTP/1.1", "h1.method"),
            ("GET http://b/ HTTP/1.1", "h1.host_differs"),
        ] {
            assert_eq!(code(&format!("{line}\r\nHost: a\r\n\r\n")), expected, "{line}");
        }
    }

    #[test]
    fn finds_the_end_however_it_arrives() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let mut seen = 0;
        for n in 0..text.len() {
            let end = find_end(&text[..n], &mut seen).unwrap();
            assert_eq!(end, (n >= 27).then_some(27), "{n}");
            if end.is_some() {
                break;
            }
        }
        assert_eq!(find_end(b"GET / HTTP/1.1\nHost", &mut 0).unwrap_err().code, "h1.bare_lf");
        assert_eq!(find_end(&[b'a'; MAX_LINE + 1], &mut 0).unwrap_err().reason, Reason::UriTooLong);
    }
}
