//! An answer's head: in, a backend's bytes; out, status, fields and framing, or why it is rubbish.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method};

use crate::base::body::BodyReader;
use crate::base::chunked::ChunkDecoder;
use crate::base::names::{ascii, header_name, is_type, list};

/// Longest answer head, in bytes.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields in it.
const MAX_FIELDS: usize = 128;

/// A backend's answer, its body still to come.
#[derive(Debug)]
pub struct ResponseHead {
    /// Three digits, 200 and above (or 101).
    pub status: u16,
    /// As sent; framing and hop-by-hop fields are still among them.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// How the body comes.
    pub body: BodyReader,
    /// The announced length, also where no body follows (HEAD, 304).
    pub length: Option<u64>,
    /// Whether the connection can carry another request after the body.
    pub keep_alive: bool,
}

/// Why a backend's bytes are not an answer; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rubbish(pub &'static str);

/// The end of the head in `buf`, if it is there; the first `seen` bytes were searched before.
///
/// # Errors
/// A line that does not end with CR LF.
pub fn find_end(buf: &[u8], seen: &mut usize) -> Result<Option<usize>, Rubbish> {
    let mut at = *seen;
    while let Some(offset) = memchr::memchr(b'\n', buf.get(at..).unwrap_or_default()) {
        let newline = at + offset;
        let before = buf.get(..newline).unwrap_or_default();
        if before.last() != Some(&b'\r') {
            return Err(Rubbish("a line of the answer head does not end with CR LF"));
        }
        if before.ends_with(b"\r\n\r") {
            return Ok(Some(newline + 1));
        }
        at = newline + 1;
    }
    *seen = at;
    Ok(None)
}

/// Reads a complete head. `method` is the request's: it decides whether a body follows.
///
/// # Errors
/// What is wrong with it.
pub fn parse(raw: &Bytes, method: &Method) -> Result<ResponseHead, Rubbish> {
    // not filled beforehand: that takes longer than the reading
    let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut response, raw, &mut storage) {
        // all of it: two readings of where a head ends would be two answers
        Ok(httparse::Status::Complete(n)) if n == raw.len() => {}
        _ => return Err(Rubbish("the answer head is malformed")),
    }
    let status = response.code.filter(|code| (100..600).contains(code));
    let status = status.ok_or(Rubbish("the status is out of range"))?;
    let mut fields = Vec::with_capacity(response.headers.len() + 4);
    let mut noted = Noted::default();
    for header in response.headers.iter() {
        let name = header_name(header.name.as_bytes());
        let name = name.ok_or(Rubbish("a field name is malformed"))?;
        let value = HeaderValue::from_maybe_shared(raw.slice_ref(header.value));
        let value = value.map_err(|_| Rubbish("a field value is malformed"))?;
        noted.note(&name, header);
        fields.push((name, value));
    }
    let (body, length) = framing(&noted, status, method)?;
    let close = noted.close || response.version != Some(1);
    let keep_alive = !close && !matches!(body, BodyReader::UntilClose);
    Ok(ResponseHead { status, fields, body, length, keep_alive })
}

/// What is noted of fields as they go by: how often, and the value that stood first.
#[derive(Default)]
struct Noted<'a> {
    lengths: (usize, &'a [u8]),
    codings: (usize, &'a [u8]),
    close: bool,
}

impl<'a> Noted<'a> {
    /// The length of the name first: it settles most names.
    fn note(&mut self, name: &HeaderName, header: &httparse::Header<'a>) {
        let value = header.value;
        let add = |seen: &mut (usize, &'a [u8])| match seen.0 {
            0 => *seen = (1, value),
            _ => seen.0 += 1,
        };
        match header.name.len() {
            10 if *name == CONNECTION => {
                self.close |=
                    value.is_ascii() && list(value).any(|o| o.eq_ignore_ascii_case(b"close"));
            }
            14 if *name == CONTENT_LENGTH => add(&mut self.lengths),
            17 if *name == TRANSFER_ENCODING => add(&mut self.codings),
            _ => {}
        }
    }
}

/// RFC 9112 §6.3, with every ambiguity an error.
fn framing(
    noted: &Noted<'_>,
    status: u16,
    method: &Method,
) -> Result<(BodyReader, Option<u64>), Rubbish> {
    let length = match noted.lengths {
        (0, _) => None,
        (1, one) => Some(number(one).ok_or(Rubbish("Content-Length is not one number"))?),
        _ => return Err(Rubbish("there is more than one Content-Length")),
    };
    let coding = match noted.codings {
        (0, _) => None,
        (1, one) => Some(one),
        _ => return Err(Rubbish("there is more than one Transfer-Encoding")),
    };
    if *method == Method::HEAD || status == 204 || status == 304 || status < 200 {
        return Ok((BodyReader::Done, length));
    }
    match (length, coding) {
        (None, None) => Ok((BodyReader::UntilClose, None)),
        (Some(n), None) => Ok((BodyReader::length(n), Some(n))),
        (None, Some(c)) if c.eq_ignore_ascii_case(b"chunked") => {
            Ok((BodyReader::Chunked(ChunkDecoder::default()), None))
        }
        (Some(_), Some(_)) => {
            Err(Rubbish("Content-Length and Transfer-Encoding exclude each other"))
        }
        (None, Some(_)) => Err(Rubbish("the transfer coding is unknown")),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

impl ResponseHead {
    /// The first value of a field, where it is visible ASCII.
    pub fn get(&self, name: &HeaderName) -> Option<&str> {
        self.first(name)?.to_str().ok()
    }

    fn first(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Whether the body is an event stream (`text/event-stream`, parameters ignored).
    pub fn is_event_stream(&self) -> bool {
        self.first(&CONTENT_TYPE).and_then(ascii).is_some_and(|v| is_type(v, b"text/event-stream"))
    }

    /// Whether the body is coded (gzip and the like), so that nothing can be read or put into it.
    pub fn is_coded(&self) -> bool {
        let mut codings = self.fields.iter().filter(|(name, _)| *name == CONTENT_ENCODING);
        codings.any(|(_, v)| {
            !v.as_bytes().is_empty() && !v.as_bytes().eq_ignore_ascii_case(b"identity")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ResponseHead, Rubbish> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), &Method::POST)
    }

    #[test]
    fn reads_every_framing() {
        let head = read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap();
        assert!(matches!(head.body, BodyReader::Length(3)) && head.keep_alive);
        let head = read("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n").unwrap();
        assert!(matches!(head.body, BodyReader::Chunked(_)));
        let head = read("HTTP/1.0 200 OK\r\n\r\n").unwrap();
        assert!(matches!(head.body, BodyReader::UntilClose) && !head.keep_alive);
        let head = read("HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert!(head.body.is_done() && head.keep_alive);
        let head =
            read("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, close\r\n\r\n").unwrap();
        assert!(head.body.is_done() && !head.keep_alive);
    }

    #[test]
    fn calls_rubbish_rubbish() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 99 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
