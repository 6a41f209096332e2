//! A request head: in, the bytes up to the empty line; out, a checked `Request` or a `Denial`.
//!
//! RFC 9112 with the leniencies left out: what a backend could read in another way than we do is
//! refused, with an answer that says what is wrong.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use memchr::memchr;

use super::authority::{authority, bad_host};
use super::request_line::request_line;
use crate::base::denial::{Denial, Reason};
use crate::base::head::{Head, Version};
use crate::base::names::{ascii, header_name, list};
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
    let (mut fields, noted) = fields(bytes, &mut lines)?;
    let (path, query, authority) = resolve(target, &noted, version)?;
    let size = framing(&noted, version)?;
    let expects_continue = expectation(&noted, version)?;
    let (mut keep_alive, mut websocket) = (version == Version::H11, false);
    if noted.connection {
        keep_alive &= !has_option(&fields, "close");
        drop_nominated(&mut fields);
        websocket = size == BodySize::None && is_websocket(&method, &fields, version);
    }
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

/// What is noted of fields as they go by, so that nobody has to look for them again.
#[derive(Default)]
struct Noted<'a> {
    hosts: Values<'a>,
    lengths: Values<'a>,
    codings: Values<'a>,
    expects: Values<'a>,
    connection: bool,
}

/// How often a field stands, and the value that it has the first time.
#[derive(Default)]
struct Values<'a>(Option<&'a [u8]>, usize);

impl<'a> Values<'a> {
    fn note(&mut self, value: &'a [u8]) {
        self.0.get_or_insert(value);
        self.1 += 1;
    }
}

impl<'a> Noted<'a> {
    /// Returns whether it was a Host. The length first: it settles most names.
    fn note(&mut self, name: &HeaderName, len: usize, value: &'a [u8]) -> bool {
        match len {
            4 if *name == HOST => {
                self.hosts.note(value);
                return true;
            }
            6 if *name == EXPECT => self.expects.note(value),
            10 if *name == CONNECTION => self.connection = true,
            14 if *name == CONTENT_LENGTH => self.lengths.note(value),
            17 if *name == TRANSFER_ENCODING => self.codings.note(value),
            _ => {}
        }
        false
    }
}

/// All fields but Host, and what is noted of them.
fn fields<'a>(raw: &Bytes, lines: &mut Lines<'a>) -> Result<(HeaderMap, Noted<'a>), Denial> {
    let mut map = HeaderMap::with_capacity(12);
    let mut noted = Noted::default();
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
        let (len, name, value) = field(line)?;
        if noted.note(&name, len, value) {
            if !value.is_ascii() && std::str::from_utf8(value).is_err() {
                return Err(bad_host());
            }
            continue;
        }
        // a part of the head's bytes, not a copy; refuses control characters
        let value = HeaderValue::from_maybe_shared(raw.slice_ref(value))
            .map_err(|_| malformed("h1.value", "A header value has a forbidden character"))?;
        map.append(name, value);
    }
    Ok((map, noted))
}

/// `name ":" OWS value OWS` (RFC 9112 §5): no space before the colon, no folding.
fn field(line: &[u8]) -> Result<(usize, HeaderName, &[u8]), Denial> {
    let bad = || malformed("h1.field", "A header line is malformed");
    // names are short: a loop is over before a search has begun
    let colon = line.iter().position(|b| *b == b':').ok_or_else(bad)?;
    let (name, rest) = line.split_at_checked(colon).ok_or_else(bad)?;
    // takes tokens only, and makes them lower case
    let name = header_name(name).ok_or_else(bad)?;
    let mut value = rest.get(1..).unwrap_or_default();
    while let [b' ' | b'\t', after @ ..] = value {
        value = after;
    }
    while let [before @ .., b' ' | b'\t'] = value {
        value = before;
    }
    Ok((colon, name, value))
}

/// Path, query and authority from the target's form and Host (RFC 9112 §3.2).
fn resolve(
    target: &str,
    noted: &Noted<'_>,
    version: Version,
) -> Result<(String, Option<String>, String), Denial> {
    let host = match noted.hosts {
        Values(Some(one), 1) => authority(std::str::from_utf8(one).map_err(|_| bad_host())?)?,
        Values(None, _) if version == Version::H10 => String::new(),
        Values(None, _) => return Err(malformed("h1.no_host", "Host is missing")),
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
    let (path, query) = match memchr(b'?', rest.as_bytes()) {
        Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).map(str::to_owned)),
        None => (rest, None),
    };
    let path = if path.is_empty() && rest.len() != target.len() { "/" } else { path };
    Ok((path.to_owned(), query, host))
}

fn split_absolute(target: &str) -> Option<(&str, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    rest.split_at_checked(end)
}

/// One framing, or none at all (RFC 9112 §6): any doubt is refused.
fn framing(noted: &Noted<'_>, version: Version) -> Result<BodySize, Denial> {
    match (&noted.lengths, &noted.codings) {
        (Values(None, _), Values(None, _)) => Ok(BodySize::None),
        (Values(Some(length), 1), Values(None, _)) => match content_length(length) {
            Some(0) => Ok(BodySize::None),
            Some(n) => Ok(BodySize::Known(n)),
            None => Err(malformed("h1.length", "Content-Length is not one number")),
        },
        (Values(Some(_), _), Values(None, _)) => {
            Err(malformed("h1.lengths", "There is more than one Content-Length"))
        }
        (Values(Some(_), _), Values(Some(_), _)) => Err(malformed(
            "h1.length_and_coding",
            "Content-Length and Transfer-Encoding exclude each other",
        )),
        (Values(None, _), Values(Some(coding), count)) => {
            if *count > 1 || version == Version::H10 {
                return Err(malformed("h1.codings", "Transfer-Encoding is ambiguous"));
            }
            transfer_coding(coding)
        }
    }
}

fn content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

fn transfer_coding(text: &[u8]) -> Result<BodySize, Denial> {
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

fn expectation(noted: &Noted<'_>, version: Version) -> Result<bool, Denial> {
    match &noted.expects {
        Values(None, _) => Ok(false),
        Values(Some(value), 1) if value.eq_ignore_ascii_case(b"100-continue") => {
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
/// one stage read and the backend did not get would be two requests. But for what a proxy says of its
/// client: a client that nominates that would pass for the proxy itself, and none of it goes on as it is.
fn drop_nominated(fields: &mut HeaderMap) {
    let values = fields.get_all(CONNECTION).iter().filter_map(ascii);
    let options: Vec<_> = values.flat_map(list).filter_map(header_name).collect();
    for name in options {
        if name != CONNECTION && name != UPGRADE && !names_client(&name) {
            fields.remove(name);
        }
    }
}

fn names_client(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "forwarded" || name.starts_with("x-forwarded-") || name.ends_with("-ip")
}

/// RFC 6455 §4.1. Any other upgrade is declined by not taking it up (RFC 9110 §7.8).
fn is_websocket(method: &Method, fields: &HeaderMap, version: Version) -> bool {
    let mut protocols = fields.get_all(UPGRADE).iter();
    version == Version::H11
        && *method == Method::GET
        && has_option(fields, "upgrade")
        && protocols.next().is_some_and(|p| p.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
}

/// Whether `Connection` names this option (RFC 9110 §7.6.1).
fn has_option(fields: &HeaderMap, option: &str) -> bool {
    let values = fields.get_all(CONNECTION).iter().filter_map(ascii);
    values.flat_map(list).any(|o| o.eq_ignore_ascii_case(option.as_bytes()))
}

pub(super) fn bad_line() -> Denial {
    malformed("h1.request_line", "The request line is malformed")
}

pub(super) fn malformed(code: &'static str, message: &'static str) -> Denial {
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
