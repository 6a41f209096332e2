//! Paths: in, the path as sent; out, nothing, or why it is refused; and the rewriting of prefixes.

use crate::base::denial::{Denial, Reason};

/// Refuses paths that a backend may read differently: dot segments, `//`, backslashes, encoded
/// slashes, backslashes, dots and NULs, broken or doubly encoded escapes (RFC 3986 §2.1, §6.2.2).
///
/// # Errors
/// 400 with the rule that the path breaks.
pub fn check(path: &str) -> Result<(), Denial> {
    if is_plain(path) {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(refused("path.form", "The request target must be a path"));
    }
    if path.contains("//") {
        return Err(refused("path.empty_segment", "The path has an empty segment"));
    }
    if path.contains('\\') {
        return Err(refused("path.backslash", "The path has a backslash"));
    }
    escapes(path)?;
    for segment in path.split('/') {
        // `;` starts a path parameter that some servers cut off before they resolve dots
        let name = segment.split(';').next().unwrap_or_default();
        if name == "." || name == ".." {
            return Err(refused("path.dots", "The path has a dot segment"));
        }
    }
    Ok(())
}

/// Letters, digits, `-` and `_` between single slashes: nearly every path, told in one pass.
fn is_plain(path: &str) -> bool {
    let mut before = b'/';
    let mut plain = path.starts_with('/');
    for byte in path.bytes().skip(1) {
        plain &= byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_')
            || (byte == b'/' && before != b'/');
        before = byte;
    }
    plain
}

fn escapes(path: &str) -> Result<(), Denial> {
    let mut rest = path.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        let hex = rest.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        let hex = hex.filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
        match byte {
            None => return Err(refused("path.escape", "The path has a broken escape")),
            Some(b'/' | b'\\' | b'%' | b';' | 0..=0x1f | 0x7f) => {
                return Err(refused("path.encoded", "The path hides a character that matters"));
            }
            // §6.2.2.2: `%61` is `a`; a backend that decodes it would see another path than we match
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                return Err(refused(
                    "path.encoded",
                    "The path encodes a character that needs none",
                ));
            }
            Some(_) => {}
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    Ok(())
}

/// A checked path with the escapes undone of all letters that a route's path can have.
pub(super) fn decoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut pieces = path.split('%');
    out += pieces.next().unwrap_or_default();
    for piece in pieces {
        let byte = piece.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, piece.get(2..)) {
            (Some(byte), Some(rest)) if b"!$&'()*+,=:@".contains(&byte) => {
                out.push(char::from(byte));
                out += rest;
            }
            _ => {
                out.push('%');
                out += piece;
            }
        }
    }
    out
}

/// Whether `path` is `prefix` or below it, on segment borders.
pub fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Replaces `from` by `to` at the start of `path`; `None` when `path` is not below `from`.
pub fn replace_prefix(path: &str, from: &str, to: &str) -> Option<String> {
    if !is_below(path, from) {
        return None;
    }
    let rest = path.strip_prefix(from.trim_end_matches('/'))?;
    let to = to.trim_end_matches('/');
    // a prefix that is the whole path stays without a slash: `/aws` to `/mcp`, never `/mcp/`
    match (to, rest) {
        ("", "") => Some("/".to_owned()),
        ("", rest) => Some(rest.to_owned()),
        (to, "/") if from == "/" => Some(to.to_owned()),
        (to, rest) => Some(format!("{to}{rest}")),
    }
}

/// Replaces the letters `from` by `to` at the start of `path`; `None` when it does not start with them.
pub fn replace_letters(path: &str, from: &str, to: &str) -> Option<String> {
    let rest = path.strip_prefix(from)?;
    let to = if rest.starts_with('/') { to.trim_end_matches('/') } else { to };
    Some(format!("{to}{rest}"))
}

fn refused(code: &'static str, message: &'static str) -> Denial {
    Denial::new(Reason::Malformed, code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        for (path, code) in [
            ("/a/../b", "path.dots"),
            ("/..", "path.dots"),
            ("/a/.", "path.dots"),
            ("/a/..;x/b", "path.dots"),
            ("/a/%2e%2e/b", "path.encoded"),
            ("/a%2Fb", "path.encoded"),
            ("/a%5cb", "path.encoded"),
            ("/a%00", "path.encoded"),
            ("/a%0d%0ab", "path.encoded"),
            ("/a%252fb", "path.encoded"),
            ("/%61dmin", "path.encoded"),
            ("/a%7Eb", "path.encoded"),
            ("/a\\b", "path.backslash"),
            ("//a", "path.empty_segment"),
            ("/a//b", "path.empty_segment"),
            ("/a%", "path.escape"),
            ("/a%g1", "path.escape"),
            ("/a%+1", "path.escape"),
            ("*", "path.form"),
            ("a", "path.form"),
        ] {
            assert_eq!(check(path).unwrap_err().code, code, "{path}");
        }
    }

    #[test]
    fn takes_ordinary_paths() {
        for path in
            ["/", "/mcp", "/mcp/", "/a.b/..c/d..", "/a%20b/%C3%A4", "/.well-known/x", "/a;v=1/b"]
        {
            assert!(check(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn prefixes_end_on_segment_borders() {
        assert_eq!(replace_prefix("/aws", "/aws", "/mcp").as_deref(), Some("/mcp"));
        assert_eq!(replace_prefix("/aws/", "/aws", "/mcp").as_deref(), Some("/mcp/"));
        assert_eq!(replace_prefix("/aws/x", "/aws", "/").as_deref(), Some("/x"));
        assert_eq!(replace_prefix("/aws", "/aws", "/").as_deref(), Some("/"));
        assert_eq!(replace_prefix("/aws-pricing", "/aws", "/mcp"), None);
        assert_eq!(replace_prefix("/mcp/x", "/", "/a").as_deref(), Some("/a/mcp/x"));
        assert_eq!(replace_prefix("/", "/", "/a").as_deref(), Some("/a"));
    }
}
