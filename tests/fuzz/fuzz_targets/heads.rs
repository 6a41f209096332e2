//! HTTP/1.1 heads. In: any bytes; out: what our parser takes, `httparse` takes, too, and reads in the same way;
//! and a head is found at the same place however it arrives. Chunked bodies decode the same in any split.
#![no_main]

use bytes::Bytes;
use http::Method;
use libfuzzer_sys::fuzz_target;
use mcp_edge::base::chunked::{BadChunk, ChunkDecoder, Step};
use mcp_edge::forward::head as answer;
use mcp_edge::listen::h1::head as request;

fuzz_target!(|input: (&[u8], usize)| {
    let (bytes, cut) = input;
    let cut = cut % (bytes.len() + 1);
    request_head(bytes, cut);
    answer_head(bytes);
    let (first, second) = bytes.split_at(cut);
    assert_eq!(decode(&[bytes]), decode(&[first, second]));
});

fn request_head(bytes: &[u8], cut: usize) {
    let whole = request::find_end(bytes, &mut 0);
    let mut seen = 0;
    let split = match request::find_end(&bytes[..cut], &mut seen) {
        Ok(None) => request::find_end(bytes, &mut seen),
        found => found,
    };
    let end = |found: Result<Option<usize>, _>| found.ok().flatten();
    // too long a head may be refused before its end has come, never read differently
    if let Some(split) = end(split) {
        assert_eq!(end(whole.clone()), Some(split));
    }
    let Some(at) = end(whole) else { return };
    let Ok(parsed) = request::parse(&Bytes::copy_from_slice(&bytes[..at])) else { return };
    let mut fields = [httparse::EMPTY_HEADER; request::MAX_FIELDS];
    let mut other = httparse::Request::new(&mut fields);
    assert_eq!(other.parse(&bytes[..at]), Ok(httparse::Status::Complete(at)));
    assert_eq!(other.method, Some(parsed.head.method.as_str()));
    let hosts = other.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("host")).count();
    assert_eq!(other.headers.len(), parsed.head.headers.len() + hosts);
    assert!(hosts <= 1);
}

fn answer_head(bytes: &[u8]) {
    let Ok(Some(at)) = answer::find_end(bytes, &mut 0) else { return };
    let raw = Bytes::copy_from_slice(&bytes[..at]);
    if let Ok(head) = answer::parse(&raw, &Method::GET) {
        assert!((100..600).contains(&head.status));
    }
}

fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), BadChunk> {
    let (mut decoder, mut out) = (ChunkDecoder::default(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match decoder.step(rest)? {
                Step::Need | Step::End(_) => break,
                Step::Data { skip, len } => {
                    out.extend_from_slice(&rest[skip..skip + len]);
                    rest = &rest[skip + len..];
                }
            }
        }
    }
    Ok((out, decoder.is_done()))
}
