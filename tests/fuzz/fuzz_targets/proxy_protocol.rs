//! The beginning of a connection. In: any bytes, one more at a time; out: what is told of it stays true,
//! whatever follows, and a header ends inside of what has come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::listen::proxy_protocol::{Announced, Beginning, parse};

fuzz_target!(|bytes: &[u8]| {
    let mut told = Beginning::Short;
    for end in 0..=bytes.len().min(5000) {
        let now = parse(&bytes[..end]);
        if told != Beginning::Short {
            assert_eq!(now, told);
            break;
        }
        if let Beginning::Header(announced, length) = now {
            assert_eq!(length, end, "a header is known by its last byte");
            let start: &[u8] = if bytes[0] == b'P' { b"PROXY " } else { b"\r\n\r\n\0\r\nQUIT\n" };
            assert!(bytes.starts_with(start));
            if let Announced::Peer(peer) = announced {
                assert_eq!(peer.ip(), peer.ip().to_canonical());
            }
        }
        told = now;
    }
    // as much as anybody may send before the connection is closed
    assert!(bytes.len() < 5000 || told != Beginning::Short);
});
