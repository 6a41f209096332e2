//! Forwarding headers: in, their lines, as a trusted peer sent them; out, the right-most address that is not a
//! trusted proxy's.
//!
//! What stands left of that address was written by people who need not be believed; so it is read from the
//! right, and what cannot be read ends the way at the last hop that could.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Longer chains of trusted proxies than this do not exist.
const MOST_HOPS: usize = 32;
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a forwarding header says of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS, where that is said.
    pub tls: Option<bool>,
}

/// Reads a list of addresses, such as `X-Forwarded-For`, or a single one, such as `X-Real-IP`.
pub fn list<'a>(
    lines: impl DoubleEndedIterator<Item = &'a HeaderValue>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let entries = lines.rev().flat_map(|line| line.as_bytes().rsplit(|b| *b == b','));
    let hops = entries.map(|entry| Some(Told { address: node(entry.trim_ascii())?, tls: None }));
    walk(hops, peer, trusted).address
}

/// Reads `Forwarded` (RFC 7239 §4).
pub fn rfc7239<'a>(
    lines: impl DoubleEndedIterator<Item = &'a HeaderValue>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> Told {
    let elements = lines.rev().flat_map(|line| from_right(line.as_bytes(), b','));
    walk(elements.map(element), peer, trusted)
}

/// The right-most hop that is not trusted; the last readable one where all are.
fn walk(
    hops: impl Iterator<Item = Option<Told>>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> Told {
    let mut last = Told { address: peer, tls: None };
    for hop in hops.take(MOST_HOPS) {
        let Some(hop) = hop else { return last };
        last = hop;
        if !trusted(hop.address) {
            return last;
        }
    }
    last
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

/// One hop: `for=` must stand once; a `proto=` that cannot be read says nothing.
fn element(text: &[u8]) -> Option<Told> {
    let (mut address, mut tls) = (None, None);
    for pair in from_right(text, b';') {
        let at = pair.iter().position(|b| *b == b'=')?;
        let (name, value) = (pair.get(..at)?, unquoted(pair.get(at + 1..)?)?);
        if name.eq_ignore_ascii_case(b"for") {
            if address.is_some() {
                return None;
            }
            address = Some(node(value)?);
        } else if name.eq_ignore_ascii_case(b"proto") {
            tls = scheme(value);
        }
    }
    Some(Told { address: address?, tls })
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

    fn listed(all: &[&str]) -> IpAddr {
        list(lines(all).iter(), ip(PEER), trusted)
    }

    fn told(all: &[&str]) -> Told {
        rfc7239(lines(all).iter(), ip(PEER), trusted)
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
            // what cannot be read ends the way
            (&[][..], PEER),
            (&[""], PEER),
            (&["6.6.6.6, unknown"], PEER),
            (&["6.6.6.6, , 10.0.0.3"], "10.0.0.3"),
            (&["6.6.6.6, 192.0.2.256, 10.0.0.3"], "10.0.0.3"),
            (&["fe80::1%1"], PEER),
            (&["[fe80::1%1]:80"], PEER),
            (&["192.0.2.1;x"], PEER),
            (&["\"192.0.2.1\""], PEER),
        ] {
            assert_eq!(listed(header), ip(found), "{header:?}");
        }
    }

    #[test]
    fn a_chain_has_an_end() {
        let near = vec!["10.0.0.2"; MOST_HOPS - 1].join(",");
        assert_eq!(listed(&[&format!("192.0.2.1,{near}")]), ip("192.0.2.1"));
        assert_eq!(listed(&[&format!("192.0.2.1,10.0.0.9,{near}")]), ip("10.0.0.9"));
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
            (&["for=unknown, for=10.0.0.3"], "10.0.0.3", None),
            (&["for=_hidden"], PEER, None),
            (&["proto=https"], PEER, None),
            (&["for=192.0.2.1;for=6.6.6.6"], PEER, None),
            (&["for=\"192.0.2.\\1\""], PEER, None),
            (&["192.0.2.1"], PEER, None),
            (&["for=192.0.2.1;proto=gopher"], "192.0.2.1", None),
            (&[""], PEER, None),
        ] {
            assert_eq!(told(header), Told { address: ip(found), tls }, "{header:?}");
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
            proptest::prop_assert_eq!(listed(&[&value]), ip("192.0.2.1"));
            let value = format!("{junk}, for=192.0.2.1;proto=https, for=10.0.0.7");
            proptest::prop_assert_eq!(told(&[&value]).address, ip("192.0.2.1"));
            proptest::prop_assert_eq!(told(&[&junk, "for=192.0.2.1"]).address, ip("192.0.2.1"));
        }
    }
}
