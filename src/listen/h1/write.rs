//! An answer's head as HTTP/1.1 bytes: in, an `Answer` and its framing; out, what goes on the wire.

use http::StatusCode;

use crate::base::text::push_number;
use crate::listen::wire::{Answer, Payload};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body follows.
    Done,
    /// This many bytes follow.
    Length(u64),
    /// Chunks follow.
    Chunked,
    /// The end of the connection is the end of the body.
    Close,
}

/// Writes the head; says how the body has to follow.
pub(super) fn head(
    answer: &Answer,
    payload: &Payload,
    http10: bool,
    keep: bool,
    out: &mut Vec<u8>,
) -> Framing {
    status_line(answer.status, out);
    for (name, value) in &answer.fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let framing = framing(payload, http10, out);
    if !keep || framing == Framing::Close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    framing
}

fn status_line(status: u16, out: &mut Vec<u8>) {
    if status == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn framing(payload: &Payload, http10: bool, out: &mut Vec<u8>) -> Framing {
    match payload {
        Payload::Nothing(None) => Framing::Done,
        Payload::Nothing(Some(n)) => {
            length(*n, out);
            Framing::Done
        }
        Payload::Whole(body) => {
            length(body.len() as u64, out);
            Framing::Length(body.len() as u64)
        }
        Payload::Length(n) => {
            length(*n, out);
            Framing::Length(*n)
        }
        Payload::Stream if http10 => Framing::Close,
        Payload::Stream => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
        }
    }
}

fn length(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    push_number(n, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn text(payload: Payload, http10: bool, keep: bool) -> (String, Framing) {
        let mut out = Vec::new();
        let answer = Answer { status: 200, fields: Vec::new() };
        let framing = head(&answer, &payload, http10, keep, &mut out);
        (String::from_utf8(out).unwrap(), framing)
    }

    #[test]
    fn frames_every_payload() {
        let whole = text(Payload::Whole(Bytes::from_static(b"0123456789")), false, true);
        assert_eq!(
            whole,
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".into(), Framing::Length(10))
        );
        let (head, framing) = text(Payload::Stream, false, true);
        assert!(head.contains("transfer-encoding: chunked\r\n") && framing == Framing::Chunked);
        let (head, framing) = text(Payload::Stream, true, true);
        assert!(head.contains("connection: close\r\n") && framing == Framing::Close);
        let (head, framing) = text(Payload::Nothing(Some(7)), false, false);
        assert!(
            head.contains("content-length: 7\r\nconnection: close\r\n") && framing == Framing::Done
        );
    }
}
