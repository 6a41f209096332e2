//! Forwarding headers. In: any values; out: what a client sends hides nothing of what a trusted proxy has
//! appended, and an address that is found was there.
#![no_main]

use std::net::IpAddr;

use http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use mcp_edge::client::forwarded::{list, rfc7239};

/// Whether an address is spelled somewhere, in whatever way.
fn stands_in(bytes: &[u8], address: IpAddr) -> bool {
    let letter = |b: &u8| !(b.is_ascii_hexdigit() || matches!(b, b'.' | b':'));
    bytes.split(letter).any(|word| {
        let word = std::str::from_utf8(word).unwrap_or_default();
        // a port may follow, and `for=` may stand before
        let ends = word.char_indices().map(|(at, _)| at).chain([word.len()]);
        ends.flat_map(|end| [(0, end), (1, end)]).any(|(start, end)| {
            let text = word.get(start..end).unwrap_or_default();
            text.parse::<IpAddr>().is_ok_and(|found| found.to_canonical() == address)
        })
    })
}

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|b| *b == b'\n').filter_map(|l| HeaderValue::from_bytes(l).ok());
    let mut lines: Vec<HeaderValue> = lines.collect();
    let peer = IpAddr::from([10, 0, 0, 1]);
    let trusted = |a: IpAddr| matches!(a, IpAddr::V4(four) if four.octets()[0] == 10);
    let found = [list(lines.iter(), peer, trusted), rfc7239(lines.iter(), peer, trusted)];
    for told in found.into_iter().flatten() {
        let address = told.address;
        assert!(!told.hidden || trusted(address), "only a trusted proxy hides anybody");
        assert_eq!(address, address.to_canonical());
        if address != peer {
            assert!(stands_in(bytes, address), "{address} from nothing");
        }
    }
    // the proxy's own word, on the client's line and on one of its own
    let client = IpAddr::from([192, 0, 2, 1]);
    for (more, old) in
        [("192.0.2.1, 10.0.0.7", true), ("for=192.0.2.1;proto=https, for=10.0.0.7", false)]
    {
        let told = |lines: &[HeaderValue]| match old {
            true => list(lines.iter(), peer, trusted),
            false => rfc7239(lines.iter(), peer, trusted),
        };
        let told = |lines: &[HeaderValue]| told(lines).map(|told| told.address);
        lines.push(HeaderValue::from_static(more));
        assert_eq!(told(&lines), Ok(client));
        lines.pop();
        if let Some(last) = lines.last() {
            let joined = [last.as_bytes(), b", ", more.as_bytes()].concat();
            assert_eq!(told(&[HeaderValue::from_bytes(&joined).unwrap()]), Ok(client));
        }
    }
});
