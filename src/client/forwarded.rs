//! Forwarding headers: in, their lines, as a trusted peer sent them; out, the right-most address that is not a
//! trusted proxy's, or that it cannot be told.
//!
//! What stands left of that address was written by people who need not be believed; so it is read from the
//! right. What cannot be read there was written by a proxy that we trust: to guess would be to let somebody in as
//! that proxy, so it is an error. A proxy may also say that it does not tell; then its client has no address.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Longer chains of trusted proxies than this do not exist.
const MOST_HOPS: usize = 32;
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a forwarding header says of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Its address; where that is hidden, the one of the proxy that hides it.
    pub address: IpAddr,
    /// Whether that proxy says that it does not tell.
    pub hidden: bool,
    /// Whether it speaks TLS, where that is said.
    pub tls: Option<bool>,
}

/// An entry that has to be read and cannot be: which, counted from the right and from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable(pub usize);

/// One entry of a header.
enum Hop {
    At(IpAddr, Option<bool>),
    Hidden(Option<bool>),
    Empty,
    Unreadable,
}

/// Reads a list of addresses, such as `X-Forwarded-For`, or a single one, such as `X-Real-IP`.
///
/// # Errors
/// [`Unreadable`].
pub fn list<'a>(
    lines: impl DoubleEndedIterator<Item = &'a HeaderValue>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> Result<Told, Unreadable> {
    let entries = lines.rev().flat_map(|line| line.as_bytes().rsplit(|b| *b == b','));
    walk(entries.map(|text| entry(text.trim_ascii())), peer, trusted)
}

/// Reads `Forwarded` (RFC 7239 §4).
///
/// # Errors
/// [`Unreadable`].
pub fn rfc7239<'a>(
    lines: impl DoubleEndedIterator<Item = &'a HeaderValue>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> Result<Told, Unreadable> {
    let elements = lines.rev().flat_map(|line| from_right(line.as_bytes(), b','));
    walk(elements.map(|text| element(text).unwrap_or(Hop::Unreadable)), peer, trusted)
}

/// The right-most hop that is not trusted; the left-most one where all are.
fn walk(
    mut hops: impl Iterator<Item = Hop>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> Result<Told, Unreadable> {
    let mut last = Told { address: peer, hidden: false, tls: None };
    for nth in 1..=MOST_HOPS {
        match hops.next() {
            None => return Ok(last),
            Some(Hop::At(address, tls)) => last = Told { address, hidden: false, tls },
            Some(Hop::Hidden(tls)) => return Ok(Told { hidden: true, tls, ..last }),
            // nothing was there before this one
            Some(Hop::Empty) if hops.all(|hop| matches!(hop, Hop::Empty)) => return Ok(last),
            Some(Hop::Empty | Hop::Unreadable) => return Err(Unreadable(nth)),
        }
        if !trusted(last.address) {
            return Ok(last);
        }
    }
    if hops.next().is_none() { Ok(last) } else { Err(Unreadable(MOST_HOPS + 1)) }
}

/// What `X-Forwarded-Proto` says of the client's connection; of a list, what the nearest proxy says.
pub fn proto(headers: &HeaderMap) -> Option<bool> {
    let line = headers.get_all(X_FORWARDED_PROTO).iter().next_back()?;
    scheme(line.as_bytes().rsplit(|b| *b == b',').next()?.trim_ascii())
}

fn scheme(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"https") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"http") {
        Some(false)
    } else {
        None
    }
}

/// One entry of a plain list. Squid writes `unknown` where it is told to hide its clients.
fn entry(text: &[u8]) -> Hop {
    match node(text) {
        Some(address) => Hop::At(address, None),
        None if text.is_empty() => Hop::Empty,
        None if text.eq_ignore_ascii_case(b"unknown") => Hop::Hidden(None),
        None => Hop::Unreadable,
    }
}

/// One hop: `for=` may stand once, and is hidden where it does not; a `proto=` that cannot be read says nothing.
fn element(text: &[u8]) -> Option<Hop> {
    let (mut named, mut tls) = (None, None);
    for pair in from_right(text, b';').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|b| *b == b'=')?;
        let (name, value) = (pair.get(..at)?, unquoted(pair.get(at + 1..)?)?);
        if name.eq_ignore_ascii_case(b"for") {
            if named.is_some() {
                return None;
            }
            named = Some(identifier(value)?);
        } else if name.eq_ignore_ascii_case(b"proto") {
            tls = scheme(value);
        }
    }
    Some(match named {
        None if text.is_empty() => Hop::Empty,
        None | Some(None) => Hop::Hidden(tls),
        Some(Some(address)) => Hop::At(address, tls),
    })
}

/// A node identifier (RFC 7239 §6): an address, or, as `Some(None)`, one that is not told.
fn identifier(text: &[u8]) -> Option<Option<IpAddr>> {
    if let Some(address) = node(text) {
        return Some(Some(address));
    }
    let colon = text.iter().rposition(|b| *b == b':');
    let name = match colon.and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?))) {
        Some((name, port)) if is_obfuscated(port) || is_port(port) => name,
        _ => text,
    };
    if name.eq_ignore_ascii_case(b"unknown") || is_obfuscated(name) {
        return Some(None);
    }
    let six = name.starts_with(b"[") || !name.contains(&b':');
    node(name).filter(|_| six).map(Some)
}

/// `_` and a name of the proxy's own (RFC 7239 §6.3).
fn is_obfuscated(text: &[u8]) -> bool {
    let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    matches!(text, [b'_', rest @ ..] if !rest.is_empty() && rest.iter().all(good))
}

fn is_port(text: &[u8]) -> bool {
    (1..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

/// A token, or a string in quotes without escapes: no address needs one.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    if inner.iter().any(|b| matches!(b, b'"' | b'\\')) { None } else { Some(inner) }
}

/// The parts of a text, last first; `separator` in quotes separates nothing. Counted from the right, an open
/// quote that somebody has put before what a proxy appended hides nothing of it.
fn from_right(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let at = text.iter().rposition(|byte| {
            quoted ^= *byte == b'"';
            *byte == separator && !quoted
        });
        let part = match at {
            Some(at) => {
                rest = text.get(..at);
                text.get(at + 1..)?
            }
            None => {
                rest = None;
                text
            }
        };
        Some(part.trim_ascii())
    })
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`. IPv4-mapped ones are IPv4.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        // no zones: what they mean, only their sender knows
        let zone = matches!(address, SocketAddr::V6(six) if six.scope_id() != 0);
        return if zone { None } else { Some(address.ip().to_canonical()) };
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse().ok().map(|six: std::net::Ipv6Addr| IpAddr::V6(six).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn lines(all: &[&str]) -> Vec<HeaderValue> {
        all.iter().map(|line| HeaderValue::from_str(line).unwrap()).collect()
    }

    fn trusted(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(four) if four.octets()[0] == 10)
    }

    fn listed(all: &[&str]) -> Result<Told, Unreadable> {
        list(lines(all).iter(), ip(PEER), trusted)
    }

    fn told(all: &[&str]) -> Result<Told, Unreadable> {
        rfc7239(lines(all).iter(), ip(PEER), trusted)
    }

    fn at(address: &str, tls: Option<bool>) -> Result<Told, Unreadable> {
        Ok(Told { address: ip(address), hidden: false, tls })
    }

    fn hidden(by: &str, tls: Option<bool>) -> Result<Told, Unreadable> {
        Ok(Told { address: ip(by), hidden: true, tls })
    }

    #[test]
    fn the_right_most_hop_that_is_not_trusted_wins() {
        for (header, found) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1, 10.0.0.3,10.0.0.2"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1", "10.0.0.3"], "192.0.2.1"),
            (&["10.0.0.9, 10.0.0.3"], "10.0.0.9"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["[2001:db8::1]:80"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, ::ffff:10.0.0.3"], "192.0.2.1"),
            // nothing was said
            (&[][..], PEER),
            (&["", " ,"], PEER),
            (&["", ", 10.0.0.3"], "10.0.0.3"),
            // not ours to read
            (&["nonsense, 192.0.2.1"], "192.0.2.1"),
        ] {
            assert_eq!(listed(header), at(found, None), "{header:?}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_must_be_readable() {
        for (header, nth) in [
            (&["6.6.6.6, , 10.0.0.3"][..], 2),
            (&["6.6.6.6,"], 1),
            (&["6.6.6.6", ""], 1),
            (&["6.6.6.6, 192.0.2.256, 10.0.0.3"], 2),
            (&["fe80::1%1"], 1),
            (&["[fe80::1%1]:80"], 1),
            (&["192.0.2.1;x"], 1),
            (&["\"192.0.2.1\""], 1),
            (&["unix:"], 1),
            (&["_hidden"], 1),
        ] {
            assert_eq!(listed(header), Err(Unreadable(nth)), "{header:?}");
        }
        for (header, nth) in [
            (&["for=192.0.2.1;for=6.6.6.6"][..], 1),
            (&["for=\"192.0.2.\\1\""], 1),
            (&["192.0.2.1"], 1),
            (&["for=_, for=10.0.0.3"], 2),
            (&["for=_a b"], 1),
            (&["for=\"_a:x\""], 1),
            (&["for=\"2001:db8::1:_a\""], 1),
            (&["for="], 1),
            (&["for=192.0.2.1,"], 1),
        ] {
            assert_eq!(told(header), Err(Unreadable(nth)), "{header:?}");
        }
    }

    #[test]
    fn who_is_hidden_has_no_address() {
        assert_eq!(listed(&["6.6.6.6, unknown"]), hidden(PEER, None));
        assert_eq!(listed(&["6.6.6.6, Unknown, 10.0.0.3"]), hidden("10.0.0.3", None));
        for header in [
            "for=unknown",
            "for=\"Unknown:80\"",
            "for=_hidden",
            "for=\"_SEVK.a-b:_p\"",
            "by=_me",
            "a=b;",
        ] {
            assert_eq!(told(&["for=6.6.6.6", header]), hidden(PEER, None), "{header}");
            let more = format!("{header};proto=https, for=10.0.0.3;proto=http");
            assert_eq!(told(&[&more]), hidden("10.0.0.3", Some(true)), "{header}");
        }
    }

    #[test]
    fn a_chain_has_an_end() {
        let near = vec!["10.0.0.2"; MOST_HOPS - 1].join(",");
        assert_eq!(listed(&[&format!("192.0.2.1,{near}")]), at("192.0.2.1", None));
        assert_eq!(listed(&[&format!("10.0.0.9,{near}")]), at("10.0.0.9", None));
        let long = format!("192.0.2.1,10.0.0.9,{near}");
        assert_eq!(listed(&[&long]), Err(Unreadable(MOST_HOPS + 1)));
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        for (header, found, tls) in [
            (&["for=192.0.2.1"][..], "192.0.2.1", None),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17", None),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60", Some(false)),
            (
                &["for=6.6.6.6, for=192.0.2.1; Proto=HTTPS ,for=10.0.0.3;proto=http"],
                "192.0.2.1",
                Some(true),
            ),
            (&["for=6.6.6.6", "for=192.0.2.1"], "192.0.2.1", None),
            (&["for=192.0.2.1;host=\"a,b;for=6.6.6.6\""], "192.0.2.1", None),
            // an open quote of the client's hides nothing of what the proxy appended
            (&["for=\"6.6.6.6, for=192.0.2.1"], "192.0.2.1", None),
            (&["for=\"6.6.6.6;x=\\\", for=192.0.2.1"], "192.0.2.1", None),
            (&["for=\"192.0.2.1:_port\""], "192.0.2.1", None),
            (&["for=\"[2001:db8::1]:_port\""], "2001:db8::1", None),
            (&[";for=192.0.2.1; ;proto=http;"], "192.0.2.1", Some(false)),
            (&["for=192.0.2.1;proto=gopher"], "192.0.2.1", None),
            (&[""], PEER, None),
        ] {
            assert_eq!(told(header), at(found, tls), "{header:?}");
        }
    }

    #[test]
    fn the_protocol_is_what_the_nearest_proxy_says() {
        let said = |all: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines(all) {
                headers.append(X_FORWARDED_PROTO, line);
            }
            proto(&headers)
        };
        assert_eq!(said(&["https"]), Some(true));
        assert_eq!(said(&["HTTP"]), Some(false));
        assert_eq!(said(&["https, http"]), Some(false));
        assert_eq!(said(&["http", "https"]), Some(true));
        assert_eq!((said(&["ws"]), said(&[""]), said(&[])), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_client_sends_the_proxys_word_stands(
            junk in "[ -~]{0,20}(|6[.]6[.]6[.]6|for=6[.]6[.]6[.]6|for=\"6[.]6[.]6[.]6|, ?)",
        ) {
            let value = format!("{junk}, 192.0.2.1, 10.0.0.7");
            proptest::prop_assert_eq!(listed(&[&value]), at("192.0.2.1", None));
            let value = format!("{junk}, for=192.0.2.1;proto=https, for=10.0.0.7");
            proptest::prop_assert_eq!(told(&[&value]), at("192.0.2.1", Some(true)));
            proptest::prop_assert_eq!(told(&[&junk, "for=192.0.2.1"]), at("192.0.2.1", None));
        }
    }
}
