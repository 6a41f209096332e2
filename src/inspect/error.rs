//! Whether an answer is a JSON-RPC error: in, its bytes; out, the error's code.
//!
//! For logs and metrics alone, so that it may be cheap: most answers do not have the word at all, and what
//! cannot be read has no code.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;

/// The key of a JSON-RPC error. Inside of a string, as tools answer with, its quotes would be escaped.
static WORD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));

#[derive(Deserialize)]
struct Answer {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    code: i64,
}

/// The code of the error that this JSON text is; `None` for all else, batches and unreadable ones too.
pub fn code(json: &[u8]) -> Option<i64> {
    WORD.find(json)?;
    parse(json)
}

/// The last such code among events, of those whose data stands in one line, as servers write them.
pub fn code_in_events(events: &[u8]) -> Option<i64> {
    WORD.find(events)?;
    let mut lines = events.rsplit(|byte| matches!(byte, b'\n' | b'\r'));
    lines.find_map(|line| parse(line.strip_prefix(b"data:")?))
}

fn parse(json: &[u8]) -> Option<i64> {
    serde_json::from_slice::<Answer>(json).ok().map(|answer| answer.error.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_what_speaks_of_them() {
        let error =
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no","data":[{}]}}"#;
        assert_eq!(code(error), Some(-32602));
        for other in [
            &br#"{"jsonrpc":"2.0","id":1,"result":{"error":{"code":-32602}}}"#[..],
            br#"{"jsonrpc":"2.0","id":1,"result":{"text":"\"error\":{\"code\":1}"}}"#,
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":"-32602"}}"#,
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602"#,
            br#"[{"jsonrpc":"2.0","id":1,"error":{"code":-32602}}]"#,
            br#""error""#,
            b"",
        ] {
            assert_eq!(code(other), None, "{}", String::from_utf8_lossy(other));
        }
        assert_eq!(code(format!("{}\"error\"", "[".repeat(60_000)).as_bytes()), None, "too deep");
    }

    #[test]
    fn events_are_looked_at_one_by_one() {
        let events = b"event: message\r\ndata: {\"method\":\"x\"}\r\n\r\n: \"error\"\ndata:{\"id\":1,\"error\":{\"code\":-32001}}\n\n";
        assert_eq!(code_in_events(events), Some(-32001));
        assert_eq!(code_in_events(&events[..events.len() - 4]), None, "only half of it is here");
        assert_eq!(code_in_events(b"data: {\"id\":1,\"result\":{\"error\":1}}\n\n"), None);
        assert_eq!(code_in_events(b"data: {\"id\":1,\"result\":{}}\n\n"), None);
    }
}
