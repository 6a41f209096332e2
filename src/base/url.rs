//! Origins, hosts and paths as configs write them: in, text; out, checked parts or a sentence.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `http://host[:port]` or `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// Lower case; IPv6 addresses without brackets.
    pub host: String,
    /// The port, explicit or the scheme's; never 0.
    pub port: u16,
}

impl Origin {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// `host[:port]`: brackets around IPv6, no port where it is the scheme's.
    pub fn authority(&self) -> String {
        authority(self.https, &self.host, self.port)
    }
}

/// `host[:port]` for a host without brackets: brackets around IPv6, no port where it is the scheme's.
pub fn authority(https: bool, host: &str, port: u16) -> String {
    let host = bracketed(host);
    if port == default_port(https) { host } else { format!("{host}:{port}") }
}

/// A host as it stands in a `Host` field: IPv6 in brackets.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Splits `http(s)://host[:port]` from what follows, which is empty or starts with `/`, `?` or `#`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn split(text: &str) -> Result<(Origin, &str), String> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let (https, rest) = if lower.starts_with("https://") {
        (true, text.get(8..).unwrap_or(""))
    } else if lower.starts_with("http://") {
        (false, text.get(7..).unwrap_or(""))
    } else {
        return Err(format!("`{text}` must start with http:// or https://"));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains('@') {
        // and not in a message either
        return Err("the URL holds a user name: credentials do not belong in a URL".to_owned());
    }
    let (host, port) = split_port(authority)?;
    let origin =
        Origin { https, host: self::host(host)?, port: port.unwrap_or(default_port(https)) };
    Ok((origin, rest))
}

/// Reads `http(s)://host[:port]` with nothing behind it but, at most, one `/`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn origin(text: &str) -> Result<Origin, String> {
    let (origin, rest) = split(text)?;
    if !matches!(rest, "" | "/") {
        let plain = format!("{}://{}", origin.scheme(), origin.authority());
        return Err(format!("`{text}` has more than an origin: write `{plain}`"));
    }
    Ok(origin)
}

/// Reads `host` or `host:port`, IPv6 in brackets.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn host_port(text: &str) -> Result<(String, Option<u16>), String> {
    let (name, port) = split_port(text)?;
    Ok((host(name)?, port))
}

/// Reads a host name or address, IPv6 in brackets or not; gives lower case without brackets.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn host(text: &str) -> Result<String, String> {
    let bad = |why: &str| Err(format!("`{text}` is not a host: {why}"));
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Some(address) = inner.or_else(|| text.contains(':').then_some(text)) {
        return match address.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(ip.to_string()),
            Err(_) => bad("expected a name without port, or an address"),
        };
    }
    let name = text.to_ascii_lowercase();
    if name.contains('*') {
        return bad("wildcards are not built yet");
    }
    if name.is_empty() || name.len() > 253 {
        return bad("a name has 1 to 253 characters");
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !name.split('.').all(label) {
        return bad("a name is made of letters, digits, `-`, `_` and single dots");
    }
    // `127.1` or `10` would be an address for some resolvers and a name for others
    let numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if numeric && name.parse::<Ipv4Addr>().is_err() {
        return bad("an IPv4 address has four numbers up to 255");
    }
    Ok(name)
}

/// Checks a path of the config: what a request's path can equal after the checks on requests.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn path(text: &str) -> Result<String, String> {
    let bad = |why: &str| Err(format!("`{text}` is not a path: {why}"));
    if !text.starts_with('/') {
        return bad("it must start with `/`");
    }
    if text.contains("//") {
        return bad("`//` is refused in requests");
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return bad("dot segments are refused in requests");
    }
    if text.contains('?') || text.contains('#') {
        return bad("it can have no query and no fragment");
    }
    if text.contains('%') {
        return bad("write it without percent encoding");
    }
    // RFC 3986 §3.3 pchar, without percent encoding
    let pchar = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    if !text.bytes().all(pchar) {
        return bad("letters, digits and -._~!$&'()*+,;=:@ can stand in it");
    }
    Ok(text.to_owned())
}

/// The same for a prefix: no `/` at its end, unless it is `/`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn prefix(text: &str) -> Result<String, String> {
    let path = path(text)?;
    if path.len() > 1 && path.ends_with('/') {
        return Err(format!(
            "`{text}` ends with `/`: leave it out, prefixes end at segment borders"
        ));
    }
    Ok(path)
}

/// Whether a host is this machine: `localhost`, names below it, and loopback addresses.
pub fn is_loopback_name(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let after_host = text.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = text.get(after_host..).and_then(|t| t.find(':')) else {
        return Ok((text, None));
    };
    let (host, port) = text.split_at(after_host + colon);
    let port = port.strip_prefix(':').unwrap_or(port);
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(n) if digits && n > 0 => Ok((host, Some(n))),
        _ => Err(format!("`{text}` has no good port: 1 to 65535 is one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_split_and_normalised() {
        let o = origin("HTTP://Example.COM:8000/").unwrap();
        assert_eq!((o.https, o.host.as_str(), o.port), (false, "example.com", 8000));
        assert_eq!(o.authority(), "example.com:8000");
        assert_eq!(origin("https://[::0001]:443").unwrap().authority(), "[::1]");
        assert_eq!(origin("http://[::1]:8000").unwrap().authority(), "[::1]:8000");
        assert_eq!(origin("http://a:80").unwrap().authority(), "a");
        assert_eq!(origin("https://a:80").unwrap().authority(), "a:80");
    }

    #[test]
    fn bad_origins_are_refused() {
        for bad in [
            "",
            "ftp://a",
            "http://",
            "http:///x",
            "a:80",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://a:+1",
            "http://u@a",
            "http://u:p@a",
            "http://a/x",
            "http://a?x",
            "http://a#x",
            "http://a b",
            "http://a..b",
            "http://127.1",
            "http://[::1",
            "http://::1",
            "http://[::1]x",
            "http://a\\b",
            "http://%61",
            "http://*.a",
            "http://a.",
            "http://é",
            "https:/a",
            "é://aaaaaa",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_plain() {
        for good in ["/", "/mcp", "/a/b.c/~d", "/.well-known/x", "/a:b@c"] {
            assert_eq!(prefix(good).as_deref(), Ok(good));
        }
        for bad in [
            "", "mcp", "//", "/a//b", "/a/./b", "/..", "/a%2fb", "/a?b", "/a#b", "/a\\b", "/a b",
            "/é",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(prefix("/a/").is_err());
        assert!(path("/a/").is_ok());
    }
}
