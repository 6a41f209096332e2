//! A request as the log tells it: in, what the stages found; out, one JSON line.
//!
//! Never in it: session ids, tokens, query strings, bodies. Text from outside is bounded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::balance::Replica;
use crate::route::settings::RouteSettings;

/// Longest foreign text in a field, in bytes.
const MAX_TEXT: usize = 256;

/// What is known of a request so far.
#[derive(Debug, Clone)]
pub struct Record {
    /// When its head was complete.
    pub started: Instant,
    /// Unique, also sent to the client and the backend.
    pub request_id: String,
    /// The client's address.
    pub client: IpAddr,
    /// `1.0`, `1.1` or `2`.
    pub http: &'static str,
    /// The method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The route.
    pub route: Option<Arc<RouteSettings>>,
    /// The replica.
    pub replica: Option<Arc<Replica>>,
    /// `legacy`, `modern` or `none`.
    pub era: &'static str,
    /// The JSON-RPC method.
    pub rpc_method: Option<String>,
    /// The tool, prompt or resource that is called.
    pub tool: Option<String>,
    /// The status that the client got; 0 when it left before.
    pub status: u16,
    /// Why the request was refused.
    pub code: Option<&'static str>,
    /// How a request or stream ended that did not run to its end, such as `client.gone`: many
    /// clients leave as soon as they have what they want, so this need not be a fault.
    pub end: Option<&'static str>,
    /// What the client is not told.
    pub detail: String,
    /// Bytes of request body read.
    pub bytes_in: u64,
    /// Bytes of answer body sent.
    pub bytes_out: u64,
    /// When the answer's head was sent.
    pub first_byte: Option<Instant>,
    /// Events of a stream.
    pub events: u64,
    /// Comments that the edge put into it.
    pub comments: u64,
    /// Whether the answer is an event stream.
    pub stream: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    request_id: &'a str,
    client: IpAddr,
    http: &'static str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<&'a str>,
    era: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comments: Option<u64>,
}

impl Record {
    /// Appends the line, newline included.
    pub fn line(&self, event: &'static str, out: &mut Vec<u8>) {
        let ended = event == "stream_end";
        let line = Line {
            time: rfc3339(SystemTime::now()),
            event,
            request_id: &self.request_id,
            client: self.client,
            http: self.http,
            method: bounded(&self.method),
            path: bounded(&self.path),
            route: self.route.as_deref().map(|r| r.label.as_str()),
            upstream: self.route.as_deref().map(|r| r.upstream.as_str()),
            replica: self.replica.as_deref().map(|r| r.server.authority.as_str()),
            era: self.era,
            rpc_method: self.rpc_method.as_deref().map(bounded),
            tool: self.tool.as_deref().map(bounded),
            status: self.status,
            code: self.code,
            end: self.end,
            detail: bounded(&self.detail),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ms: millis(self.started.elapsed()),
            first_byte_ms: self.first_byte.map(|at| millis(at - self.started)),
            events: ended.then_some(self.events),
            comments: ended.then_some(self.comments),
        };
        let start = out.len();
        if serde_json::to_writer(&mut *out, &line).is_err() {
            out.truncate(start);
        }
        out.push(b'\n');
    }
}

fn millis(period: std::time::Duration) -> f64 {
    (period.as_secs_f64() * 1e6).round() / 1e3
}

fn bounded(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default()
}

/// `2026-11-21T03:04:05.678Z` (RFC 3339).
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_rfc_3339() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_millis(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(at(1_795_233_599_999), "2026-11-21T03:59:59.999Z");
    }

    #[test]
    fn foreign_text_is_bounded_on_a_character() {
        assert_eq!(bounded(&"ä".repeat(200)).len(), 256);
        assert_eq!(bounded("abc"), "abc");
    }
}
