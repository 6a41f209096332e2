//! WebSocket as far as an echo needs it (RFC 6455): in, bytes; out, the handshake and whole text frames of
//! up to 64 KiB. The key is the RFC's own example, so that nobody has to hash.

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;

/// Header lines that ask for a WebSocket.
pub(crate) fn request_lines() -> String {
    format!(
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {KEY}\r\n"
    )
}

/// The answer to them.
pub(crate) fn answer() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {ACCEPT}\r\n\r\n"
    )
}

/// Whether a request's head asks for it as we do.
pub(crate) fn is_request(head: &str) -> bool {
    crate::client::header(head, "upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
        && crate::client::header(head, "sec-websocket-key") == Some(KEY)
}

/// Stops unless an answer's head agrees.
pub(crate) fn check_answer(head: &str) {
    assert!(head.starts_with("HTTP/1.1 101"), "refused: {head}");
    assert_eq!(crate::client::header(head, "sec-websocket-accept"), Some(ACCEPT), "{head}");
}

/// Appends a text frame; a client's is masked.
pub(crate) fn write(payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let bit = if mask.is_some() { MASKED } else { 0 };
    out.push(TEXT);
    match payload.len() {
        short @ 0..126 => out.push(bit | short as u8),
        long => {
            out.push(bit | 126);
            out.extend_from_slice(&u16::try_from(long).expect("up to 64 KiB").to_be_bytes());
        }
    }
    let start = out.len() + mask.map_or(0, |m| m.len());
    out.extend_from_slice(mask.as_ref().map_or(&[], |m| m));
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(&mut out[start..], mask);
    }
}

/// Takes the first whole text frame out of `buf`: its payload, and whether it was masked.
pub(crate) fn take(buf: &mut Vec<u8>) -> Option<(Vec<u8>, bool)> {
    let (&kind, &second) = (buf.first()?, buf.get(1)?);
    assert_eq!(kind, TEXT, "nothing but text is sent here");
    let masked = second & MASKED != 0;
    let (mut at, length) = match second & !MASKED {
        126 => (4, usize::from(u16::from_be_bytes([*buf.get(2)?, *buf.get(3)?]))),
        short => (2, usize::from(short)),
    };
    let mask = if masked {
        at += 4;
        Some(<[u8; 4]>::try_from(buf.get(at - 4..at)?).unwrap())
    } else {
        None
    };
    let mut payload = buf.get(at..at + length)?.to_vec();
    buf.drain(..at + length);
    if let Some(mask) = mask {
        unmask(&mut payload, mask);
    }
    Some((payload, masked))
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
