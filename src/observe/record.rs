//! A request as the log tells it: in, what the stages found; out, one JSON line.
//!
//! Never in it: session ids, tokens, query strings, bodies. Text from outside is bounded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::Method;

use crate::balance::Replica;
use crate::base::text::{push_ip, push_json, push_millis, push_number, push_time};
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
    pub method: Method,
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

impl Record {
    /// Appends the line, newline included.
    pub fn line(&self, event: &'static str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        push_time(SystemTime::now(), out);
        out.push(b'"');
        text(out, "event", event);
        text(out, "request_id", &self.request_id);
        key(out, "client");
        out.push(b'"');
        push_ip(self.client, out);
        out.push(b'"');
        text(out, "http", self.http);
        text(out, "method", bounded(self.method.as_str()));
        text(out, "path", bounded(&self.path));
        if let Some(route) = &self.route {
            text(out, "route", &route.label);
            text(out, "upstream", &route.upstream);
        }
        if let Some(replica) = &self.replica {
            text(out, "replica", &replica.server.authority);
        }
        text(out, "era", self.era);
        let named = [("rpc_method", &self.rpc_method), ("tool", &self.tool)];
        for (name, value) in named.iter().filter_map(|(n, v)| Some((n, v.as_deref()?))) {
            text(out, name, bounded(value));
        }
        number(out, "status", u64::from(self.status));
        for (name, value) in [("code", self.code), ("end", self.end)] {
            if let Some(value) = value {
                text(out, name, value);
            }
        }
        if !self.detail.is_empty() {
            text(out, "detail", bounded(&self.detail));
        }
        self.sums(event, out);
        out.extend_from_slice(b"}\n");
    }

    fn sums(&self, event: &'static str, out: &mut Vec<u8>) {
        number(out, "bytes_in", self.bytes_in);
        number(out, "bytes_out", self.bytes_out);
        key(out, "duration_ms");
        push_millis(self.started.elapsed(), out);
        if let Some(at) = self.first_byte {
            key(out, "first_byte_ms");
            push_millis(at - self.started, out);
        }
        if event == "stream_end" {
            number(out, "events", self.events);
            number(out, "comments", self.comments);
        }
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    push_json(value, out);
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    push_number(value, out);
}

fn bounded(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn foreign_text_is_bounded_on_a_character() {
        assert_eq!(bounded(&"ä".repeat(200)).len(), 256);
        assert_eq!(bounded("abc"), "abc");
    }
}
