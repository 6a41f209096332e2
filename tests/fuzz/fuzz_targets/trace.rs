//! Trace headers. In: any values; out: what is taken of a `traceparent` is what a plain reading by columns
//! finds, what is handed on is a valid one, and a `tracestate` is handed on whole or not at all.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mcp_edge::base::trace::{Parent, Trace, state_of};

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|b| *b == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let mut headers = HeaderMap::new();
    if let Some(parent) = lines.next() {
        headers.append("traceparent", parent);
    }
    for state in lines.take(8) {
        headers.append("tracestate", state);
    }
    let state = state_of(&headers);
    if let Some(state) = &state {
        let sent: Vec<&[u8]> = headers.get_all("tracestate").iter().map(HeaderValue::as_bytes).collect();
        let sent: Vec<&[u8]> = sent.into_iter().skip_while(|line| line.is_empty()).collect();
        assert_eq!(state.as_bytes(), sent.join(&b','));
        assert!(state.len() <= 1024 && !state.contains(['\r', '\n', '\0']));
    }
    let text = headers.get("traceparent").map(HeaderValue::as_bytes).unwrap_or_default();
    let Some(parent) = Parent::of(&headers) else {
        assert!(!is_of_version_0(text), "a valid one is taken");
        return;
    };
    assert!(is_of_version_0(text) || !text.starts_with(b"00"), "only a valid one is taken");
    assert_eq!(text.get(3..35), Some(format!("{:032x}", parent.trace).as_bytes()));
    assert_eq!(text.get(36..52), Some(format!("{:016x}", parent.span).as_bytes()));
    let mut out = Vec::new();
    Trace::go_on(parent, state).write(&mut out);
    let out = String::from_utf8(out).expect("ASCII");
    let mut told = out.split("\r\n");
    let next = told.next().and_then(|line| line.strip_prefix("traceparent: ")).expect("a header");
    assert!(is_of_version_0(next.as_bytes()));
    let next = Parent::parse(next).expect("it is taken again");
    assert_eq!((next.trace, next.is_sampled()), (parent.trace, parent.is_sampled()));
    assert!(out.ends_with("\r\n") && told.count() <= 2);
});

/// W3C Trace Context §3.2.2, column by column.
fn is_of_version_0(text: &[u8]) -> bool {
    let hex = |from: usize, to: usize| {
        text[from..to].iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    };
    text.len() == 55
        && text.starts_with(b"00-")
        && (text[35], text[52]) == (b'-', b'-')
        && (hex(3, 35) && hex(36, 52) && hex(53, 55))
        && text[3..35].iter().any(|b| *b != b'0')
        && text[36..52].iter().any(|b| *b != b'0')
}
