//! PROXY protocol, versions 1 and 2: in, the first bytes of a connection; out, whom they announce.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. What stands in a header is read by the
//! `ppp` crate; where it ends is found here, because that crate takes a header that is still on its way for a
//! broken one. Nothing behind the header is consumed: it is TLS or HTTP.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BytesMut};
use ppp::{v1, v2};

use super::stream::Socket;
use crate::base::io::fill;

/// Longest header of version 1, line end included (§2.1).
const MOST_V1: usize = 107;
/// Longest header of version 2 that we read. Addresses and TLVs of load balancers take some hundred bytes;
/// the protocol would allow 64 KiB.
const MOST_V2: usize = 4096;
const START_V1: &[u8] = b"PROXY ";
/// What tells the length of a header of version 2 (§2.2).
const HEAD_V2: usize = 16;

/// What the beginning of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// More bytes are needed to tell.
    Short,
    /// No header.
    Other,
    /// A header of so many bytes.
    Header(Announced, usize),
    /// It begins as a header and is none that we read.
    Broken,
}

/// Whom a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// A client.
    Peer(SocketAddr),
    /// Nobody: the sender speaks for itself (LOCAL), or for somebody without an IP address (UNKNOWN,
    /// UNSPEC, a Unix socket).
    Nobody,
}

/// Reads the beginning of a connection.
pub fn parse(bytes: &[u8]) -> Beginning {
    if begins(bytes, v2::PROTOCOL_PREFIX) {
        version2(bytes)
    } else if begins(bytes, START_V1) {
        version1(bytes)
    } else {
        Beginning::Other
    }
}

/// Whether the bytes may be, or become, what starts so.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.starts_with(start) || start.starts_with(bytes)
}

fn version1(bytes: &[u8]) -> Beginning {
    let line = bytes.get(..MOST_V1).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|two| two == b"\r\n").map(|at| at + 2) else {
        return if bytes.len() < MOST_V1 { Beginning::Short } else { Beginning::Broken };
    };
    let Some(Ok(header)) = line.get(..end).map(v1::Header::try_from) else {
        return Beginning::Broken;
    };
    let announced = match header.addresses {
        v1::Addresses::Unknown => Announced::Nobody,
        v1::Addresses::Tcp4(a) => peer(a.source_address, a.source_port),
        v1::Addresses::Tcp6(a) => peer(a.source_address, a.source_port),
    };
    Beginning::Header(announced, end)
}

fn version2(bytes: &[u8]) -> Beginning {
    let Some(length) = bytes.get(HEAD_V2 - 2..HEAD_V2) else { return Beginning::Short };
    let end = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)) + HEAD_V2;
    if end > MOST_V2 {
        return Beginning::Broken;
    }
    let Some(header) = bytes.get(..end) else { return Beginning::Short };
    let Ok(header) = v2::Header::try_from(header) else { return Beginning::Broken };
    let announced = match (header.command, header.protocol, header.addresses) {
        (v2::Command::Local, ..) => Announced::Nobody,
        // nobody came to a TCP listener by UDP
        (_, v2::Protocol::Datagram, _) => return Beginning::Broken,
        (_, _, v2::Addresses::IPv4(a)) => peer(a.source_address, a.source_port),
        (_, _, v2::Addresses::IPv6(a)) => peer(a.source_address, a.source_port),
        (_, _, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => Announced::Nobody,
    };
    Beginning::Header(announced, end)
}

fn peer(address: impl Into<IpAddr>, port: u16) -> Announced {
    Announced::Peer(SocketAddr::new(address.into().to_canonical(), port))
}

/// Reads until it is clear what the beginning is; leaves all but a header to the next reader.
///
/// # Errors
/// `Err(())` when the connection ended before that, or begins with a broken header.
pub(super) async fn read(socket: &mut Socket) -> Result<Option<Announced>, ()> {
    let mut bytes = BytesMut::new();
    loop {
        match fill(socket, &mut bytes).await {
            Ok(n) if n > 0 => {}
            _ => return Err(()),
        }
        match parse(&bytes) {
            Beginning::Short => {}
            Beginning::Broken => return Err(()),
            Beginning::Other => {
                socket.give_back(bytes.freeze());
                return Ok(None);
            }
            Beginning::Header(announced, end) => {
                bytes.advance(end.min(bytes.len()));
                socket.give_back(bytes.freeze());
                return Ok(Some(announced));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x10, 0, 0x01, 0xbb];

    fn announced(text: &str) -> Announced {
        Announced::Peer(text.parse().unwrap())
    }

    fn good() -> Vec<(Vec<u8>, Announced)> {
        let mut six = Vec::from([0; 36]);
        six[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        six[33] = 80;
        let mut mapped = six.clone();
        mapped[..16]
            .copy_from_slice(&"::ffff:192.0.2.7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let with_tlvs = [&V4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        vec![
            (line("TCP4 192.0.2.7 10.0.0.1 4096 443"), announced("192.0.2.7:4096")),
            (line("TCP6 2001:db8::7 ::1 80 443"), announced("[2001:db8::7]:80")),
            (line("TCP6 ::ffff:192.0.2.7 ::1 80 443"), announced("192.0.2.7:80")),
            (line("UNKNOWN"), Announced::Nobody),
            (line("UNKNOWN ffff::1 ffff::2 65535 65535"), Announced::Nobody),
            (v2(1, 0x11, &V4), announced("192.0.2.7:4096")),
            (v2(1, 0x11, &with_tlvs), announced("192.0.2.7:4096")),
            (v2(1, 0x21, &six), announced("[2001:db8::7]:80")),
            (v2(1, 0x21, &mapped), announced("192.0.2.7:80")),
            (v2(0, 0x00, &[]), Announced::Nobody),
            (v2(0, 0x11, &V4), Announced::Nobody),
            (v2(1, 0x00, &[1, 2, 3]), Announced::Nobody),
            (v2(1, 0x31, &[0; 216]), Announced::Nobody),
        ]
    }

    #[test]
    fn headers_are_read_to_their_last_byte() {
        for (bytes, announced) in good() {
            let whole = Beginning::Header(announced, bytes.len());
            assert_eq!(parse(&bytes), whole, "{bytes:?}");
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&followed), whole, "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Beginning::Short, "{cut} of {bytes:?}");
            }
        }
    }

    #[test]
    fn broken_headers_are_broken() {
        let mut all = vec![
            v2(2, 0x11, &V4),
            v2(1, 0x11, &V4[..11]),
            v2(1, 0x12, &V4),
            v2(1, 0x41, &V4),
            v2(1, 0x13, &V4),
            v2(1, 0x11, &[0; MOST_V2]),
        ];
        let mut version = v2(1, 0x11, &V4);
        version[12] = 0x11;
        all.push(version);
        for text in [
            "TCP4 192.0.2.7 10.0.0.1 4096",
            "TCP4 192.0.2.7 10.0.0.1 4096 443 1",
            "TCP4 192.0.2.7 10.0.0.1 65536 443",
            "TCP4 192.0.2.7 10.0.0.1 -1 443",
            "TCP4 192.0.2.7 10.0.0.1 04096 443",
            "TCP4 192.0.2.256 10.0.0.1 1 443",
            "TCP4 2001:db8::7 ::1 80 443",
            "TCP6 192.0.2.7 10.0.0.1 4096 443",
            "TCP4  192.0.2.7 10.0.0.1 4096 443",
            "UDP4 192.0.2.7 10.0.0.1 4096 443",
            "tcp4 192.0.2.7 10.0.0.1 4096 443",
            "TCP4 192.0.2.7 10.0.0.1 4096 443\n",
            "",
        ] {
            all.push(format!("PROXY {text}\r\n").into_bytes());
        }
        all.push([b"PROXY ".as_slice(), &[b'x'; 200]].concat());
        for bytes in all {
            assert_eq!(parse(&bytes), Beginning::Broken, "{}", bytes.escape_ascii());
        }
        for other in
            ["GET / HTTP/1.1\r\n", "PROXX", "PRI * HTTP/2.0\r\n", "\x16\x03\x01", "\r\n\r\nX"]
        {
            assert_eq!(parse(other.as_bytes()), Beginning::Other, "{other:?}");
        }
    }

    proptest! {
        /// What has been told of a beginning stays true, whatever comes behind it.
        #[test]
        fn more_bytes_change_nothing(which in 0usize..13, flips in proptest::collection::vec((0usize..60, any::<u8>()), 0..3), more in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (mut bytes, _) = good().swap_remove(which);
            for (at, byte) in flips {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.extend(more);
            let mut told = Beginning::Short;
            for end in 0..=bytes.len() {
                let now = parse(&bytes[..end]);
                if told != Beginning::Short {
                    prop_assert_eq!(now, told);
                }
                if let Beginning::Header(_, length) = now {
                    prop_assert!(length <= end);
                }
                told = now;
            }
        }
    }
}
