//! `Host` and `:authority`: in, what was sent; out, the one way in which it is written, or a refusal.

use crate::base::denial::{Denial, Reason};

/// `host[:port]` in lower case, without a final dot; no user info (RFC 9110 §4.2.4, §7.2).
///
/// # Errors
/// 400 when it is anything else.
pub fn authority(text: &str) -> Result<String, Denial> {
    if is_plain(text) { Ok(text.to_owned()) } else { any_authority(text) }
}

fn any_authority(text: &str) -> Result<String, Denial> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, tail) = rest.split_once(']').ok_or_else(bad_host)?;
            inner.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
            let port = if tail.is_empty() {
                None
            } else {
                Some(tail.strip_prefix(':').ok_or_else(bad_host)?)
            };
            (text.get(..inner.len() + 2).ok_or_else(bad_host)?, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let named = host.starts_with('[');
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.is_empty() || host.len() > 255 || (!named && !host.bytes().all(fits)) {
        return Err(bad_host());
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match port {
        None => Ok(host),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok() => {
            Ok(format!("{host}:{port}"))
        }
        Some(_) => Err(bad_host()),
    }
}

/// A lower-case name, with a port or without: most hosts, told in one pass.
fn is_plain(text: &str) -> bool {
    let (host, port) = match text.bytes().position(|b| b == b':') {
        None => (text, None),
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
    };
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    !host.is_empty()
        && host.len() <= 255
        && !host.ends_with('.')
        && host.bytes().fold(true, |all, b| all & fits(b))
        && port.is_none_or(is_plain_port)
}

fn is_plain_port(port: &str) -> bool {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    digits && matches!(port.len(), 1..=5) && port.parse::<u16>().is_ok()
}

/// The refusal of anything else.
pub(super) fn bad_host() -> Denial {
    Denial::new(Reason::Malformed, "h1.host", "Host is malformed").closing()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_ones_are_read_as_all_are(text in "([a-c0.-]{0,4}|[A_@\\[\\]:ü]{0,2}|\\[::1\\])(:?[0-9]{0,6}|:[0-9+ ]{0,2})") {
            let any = any_authority(&text).map_err(|d| d.code);
            prop_assert_eq!(authority(&text).map_err(|d| d.code), any, "{}", text);
        }
    }
}
