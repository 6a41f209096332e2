//! A request as the log tells it: in, what the stages found; out, one JSON line.
//!
//! Never in it: session ids, tokens, query strings, bodies. Text from outside is bounded.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU128;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Method;

use super::audit::Audited;
use crate::balance::Replica;
use crate::base::limits::Limited;
use crate::base::principal::Principal;
use crate::base::text::{push_ip, push_json, push_millis, push_number, push_time};
use crate::base::trace::{self, Trace};
use crate::route::settings::RouteSettings;

/// Longest foreign text in a field, in bytes.
const MAX_TEXT: usize = 256;

/// [`Record::end`] of what was cut: the edge has exited before it had ended.
pub const CUT: &str = "edge.cut";
/// The same of what the edge's own code broke off.
pub const FAILED: &str = "edge.failed";

/// What is known of a request so far.
#[derive(Debug, Clone)]
pub struct Record {
    /// When its head was complete.
    pub started: Instant,
    /// The same by the calendar.
    pub at: SystemTime,
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
    /// Who asks, once that is known.
    pub principal: Option<Arc<Principal>>,
    /// The replica.
    pub replica: Option<Arc<Replica>>,
    /// `legacy`, `modern` or `none`.
    pub era: &'static str,
    /// The JSON-RPC method.
    pub rpc_method: Option<Cow<'static, str>>,
    /// The tool, prompt or resource that is called.
    pub tool: Option<Arc<str>>,
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
    /// Limits that had no room for it.
    pub limited: Vec<Limited>,
    /// Whether the answer is an event stream, or the connection became a WebSocket.
    pub stream: bool,
    /// Whether it came with a session id, or a routing token, of ours.
    pub in_session: bool,
    /// The code of the JSON-RPC error that the answer is, as far as it is known.
    pub rpc_error: Option<i64>,
    /// What it is known by in traces, where its route has some.
    pub trace: Option<Box<Trace>>,
    /// The trace that its caller says it is in, where its route has none: nobody has made sure of it.
    pub claimed_trace: Option<NonZeroU128>,
    /// What an audit log tells of it.
    pub audit: Option<Box<Audited>>,
}

impl Record {
    /// A record of a request of which nothing else is known yet.
    pub fn begin(started: Instant, at: SystemTime, client: IpAddr, method: Method) -> Self {
        Self {
            started,
            at,
            request_id: String::new(),
            client,
            http: "1.1",
            method,
            path: String::new(),
            route: None,
            principal: None,
            replica: None,
            era: "none",
            rpc_method: None,
            tool: None,
            status: 0,
            code: None,
            end: None,
            detail: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            first_byte: None,
            events: 0,
            comments: 0,
            limited: Vec::new(),
            stream: false,
            in_session: false,
            rpc_error: None,
            trace: None,
            claimed_trace: None,
            audit: None,
        }
    }

    /// The trace that its lines in logs name.
    pub(super) fn trace_id(&self) -> Option<u128> {
        let own = self.trace.as_ref().map(|trace| trace.id);
        own.or_else(|| self.claimed_trace.map(NonZeroU128::get))
    }

    /// Appends the line, newline included, as of `now`.
    pub fn line(&self, event: &'static str, now: Instant, out: &mut Vec<u8>) {
        out.reserve(640);
        out.extend_from_slice(b"{\"time\":\"");
        let elapsed = now - self.started;
        push_time(self.at + elapsed, out);
        word(out, b"\",\"event\":\"", event);
        word(out, b"\",\"request_id\":\"", &self.request_id);
        if let Some(id) = self.trace_id() {
            out.extend_from_slice(b"\",\"trace_id\":\"");
            trace::push_id(id, out);
        }
        out.extend_from_slice(b"\",\"client\":\"");
        push_ip(self.client, out);
        word(out, b"\",\"http\":\"", self.http);
        out.push(b'"');
        text(out, b",\"method\":", bounded(self.method.as_str()));
        text(out, b",\"path\":", bounded(&self.path));
        if let Some(route) = &self.route {
            text(out, b",\"route\":", &route.label);
            text(out, b",\"upstream\":", &route.upstream);
        }
        if let Some(principal) = self.principal.as_ref().filter(|who| !who.is_anonymous()) {
            word(out, b",\"auth\":\"", principal.method);
            text(out, b"\",\"principal\":", bounded(&principal.subject));
        }
        if let Some(replica) = &self.replica {
            text(out, b",\"replica\":", &replica.server.authority);
        }
        word(out, b",\"era\":\"", self.era);
        out.push(b'"');
        if let Some(method) = &self.rpc_method {
            text(out, b",\"rpc_method\":", bounded(method));
        }
        if let Some(tool) = &self.tool {
            text(out, b",\"tool\":", bounded(tool));
        }
        number(out, b",\"status\":", u64::from(self.status));
        if let Some(code) = self.code {
            text(out, b",\"code\":", code);
        }
        if let Some(code) = self.rpc_error {
            signed(out, b",\"rpc_error\":", code);
        }
        if let Some(end) = self.end {
            text(out, b",\"end\":", end);
        }
        if !self.detail.is_empty() {
            text(out, b",\"detail\":", bounded(&self.detail));
        }
        self.sums(event, elapsed, out);
        out.extend_from_slice(b"}\n");
    }

    fn sums(&self, event: &'static str, elapsed: Duration, out: &mut Vec<u8>) {
        number(out, b",\"bytes_in\":", self.bytes_in);
        number(out, b",\"bytes_out\":", self.bytes_out);
        out.extend_from_slice(b",\"duration_ms\":");
        push_millis(elapsed, out);
        if let Some(at) = self.first_byte {
            out.extend_from_slice(b",\"first_byte_ms\":");
            push_millis(at - self.started, out);
        }
        if event == "stream_end" {
            number(out, b",\"events\":", self.events);
            number(out, b",\"comments\":", self.comments);
        }
    }
}

/// A word of ours, which needs no escapes; its quotes stand in what is written around it.
#[inline(always)]
fn word(out: &mut Vec<u8>, before: &[u8], word: &str) {
    out.extend_from_slice(before);
    out.extend_from_slice(word.as_bytes());
}

/// Any text; its quotes are written here.
#[inline(always)]
fn text(out: &mut Vec<u8>, key: &[u8], value: &str) {
    out.extend_from_slice(key);
    push_json(value, out);
}

#[inline(always)]
fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    push_number(value, out);
}

fn signed(out: &mut Vec<u8>, key: &[u8], value: i64) {
    out.extend_from_slice(key);
    if value < 0 {
        out.push(b'-');
    }
    push_number(value.unsigned_abs(), out);
}

/// Foreign text as far as it is told.
pub(super) fn bounded(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default()
}

/// A resource's URI without what could be secret in it: user, query and fragment (RFC 3986 §3).
pub fn shown_uri(uri: &str) -> Arc<str> {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.into() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}").into(),
        None => uri.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_shown_without_secrets() {
        for (uri, shown) in [
            ("file:///a/b@c", "file:///a/b@c"),
            ("https://u:SECRET@h:1/a?x=SECRET", "https://h:1/a"),
            ("https://u@SECRET@h", "https://h"),
            ("memo:x#SECRET", "memo:x"),
            ("x?SECRET", "x"),
            ("", ""),
        ] {
            assert_eq!(&*shown_uri(uri), shown, "{uri}");
        }
    }
    #[test]
    fn foreign_text_is_bounded_on_a_character() {
        assert_eq!(bounded(&"ä".repeat(200)).len(), 256);
        assert_eq!(bounded("abc"), "abc");
    }
}
