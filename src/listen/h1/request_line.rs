//! The first line of a request: in, its bytes without CRLF; out, method, target and version, or a `Denial`.

use http::Method;
use memchr::{memchr, memrchr};

use super::head::{bad_line, malformed};
use crate::base::chunked::is_token;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Version;

/// `method SP target SP HTTP-version` (RFC 9112 §3), single spaces only.
pub(super) fn request_line(line: &[u8]) -> Result<(Method, &str, Version), Denial> {
    match plain_line(line) {
        Some(plain) => Ok(plain),
        None => any_line(line),
    }
}

/// The request line of nearly every request; all others, and what is wrong, go the long way.
fn plain_line(line: &[u8]) -> Option<(Method, &str, Version)> {
    let line = line.strip_suffix(b" HTTP/1.1")?;
    let (method, target) = if let Some(target) = line.strip_prefix(b"POST ") {
        (Method::POST, target)
    } else if let Some(target) = line.strip_prefix(b"GET ") {
        (Method::GET, target)
    } else {
        (Method::DELETE, line.strip_prefix(b"DELETE ")?)
    };
    // no early end: so it is done for many bytes at once
    let fits = target.iter().fold(true, |fits, b| fits & is_target(*b));
    let target = std::str::from_utf8(target).ok()?;
    (fits && !target.is_empty()).then_some((method, target, Version::H11))
}

fn is_target(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'#'
}

fn any_line(line: &[u8]) -> Result<(Method, &str, Version), Denial> {
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
    if !target.bytes().all(is_target) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_lines_are_read_as_all_are(
            line in "(GET|POST|DELETE|PUT|get|)( |  )([/a?=#\t\u{7f}ü*]{0,6}|http://a/)( |)(HTTP/1.[012]|HTTP/1.1 )",
        ) {
            if let Some(plain) = plain_line(line.as_bytes()) {
                prop_assert_eq!(Some(plain), any_line(line.as_bytes()).ok(), "{:?}", line);
            }
        }
    }
}
