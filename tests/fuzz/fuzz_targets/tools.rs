//! The filter of lists of tools. In: any JSON or stream; out: a full parser finds nothing in it that the caller
//! may not see, what has nothing to hide is left alone, and how a stream is split does not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::limit::buffer::Budget;
use mcp_edge::stream::tool_events::ListFilter;
use mcp_edge::stream::tools::{Refused, cut};
use serde_json::Value;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = (usize::from(input.0) + 1, input.1);
    if let Ok(out) = cut(bytes, &shows) {
        check(out.as_deref().unwrap_or(bytes));
        if let Some(out) = &out {
            assert_eq!(cut(out, &shows), Ok(None), "it is done in one go");
        }
    }
    let whole = run(&[bytes]);
    assert_eq!(whole, run(&bytes.chunks(size).collect::<Vec<_>>()));
    if let Ok(out) = &whole {
        events(out).iter().for_each(|data| check(data.as_bytes()));
        if !has(bytes, b"tools") && !has(bytes, b"\\u00") {
            assert_eq!(out, bytes);
        }
    }
});

fn shows(name: &str) -> bool {
    name.starts_with('g')
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn run(chunks: &[&[u8]]) -> Result<Vec<u8>, Refused> {
    let mut filter = ListFilter::new(Box::new(shows), 1 << 20, Budget::new(1 << 24));
    let mut out = Vec::new();
    for chunk in chunks {
        filter.push(chunk, &mut out)?;
    }
    filter.finish(&mut out)?;
    Ok(out)
}

/// What clients see of a text.
fn check(text: &[u8]) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match serde_json::from_slice(text) {
        Ok(Value::Array(all)) => all.iter().for_each(check_answer),
        Ok(one) => check_answer(&one),
        Err(_) => {}
    }
}

fn check_answer(answer: &Value) {
    let Some(tools) = answer.pointer("/result/tools").and_then(Value::as_array) else { return };
    if !answer.is_object() || !answer["result"].is_object() {
        return;
    }
    for tool in tools {
        assert!(tool["name"].as_str().is_some_and(shows), "{tool}");
    }
    assert!(answer["result"].get("cacheScope").is_none_or(|scope| scope == "private"));
}

/// The data of the events (WHATWG HTML §9.2.6), also of one that is not complete.
fn events(stream: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut all = vec![Vec::new()];
    for line in text.split('\n') {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if line.is_empty() {
            all.push(Vec::new());
        } else if let ("data", Some(last)) = (name, all.last_mut()) {
            last.push(value.strip_prefix(' ').unwrap_or(value).to_owned());
        }
    }
    all.into_iter().map(|lines| lines.join("\n")).collect()
}
