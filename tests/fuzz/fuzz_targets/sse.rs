//! The scanner of event streams. In: any stream; out: how it is split never matters, and a comment at a place
//! that the scanner gives leaves the place what it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::stream::sse::{LeadingBom, Scanner};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = (usize::from(input.0) + 1, input.1);
    let (mut whole, mut parts, mut spoken) = (Scanner::new(), Scanner::new(), Scanner::new());
    whole.push(stream);
    let (mut bom, mut stripped) = (LeadingBom::default(), Vec::new());
    for chunk in stream.chunks(size) {
        parts.push(chunk);
        if let Some(comment) = spoken.comment() {
            let mut after = spoken;
            after.push(comment);
            assert!(after.at_boundary(), "a comment ends where another may stand");
        }
        spoken.push(chunk);
        let (held, rest) = bom.strip(chunk);
        stripped.extend_from_slice(held);
        stripped.extend_from_slice(rest);
    }
    stripped.extend_from_slice(bom.finish());
    assert_eq!(whole, parts);
    assert_eq!(whole.at_boundary(), whole.comment().is_some());
    assert_eq!(stripped, stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream));
    for end in [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"] {
        assert!(!stream.ends_with(end) || whole.at_boundary());
    }
});
