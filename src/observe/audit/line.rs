//! Lines of the audit log: in, a record; out, JSON.
//!
//! Never in it: session ids, tokens, query strings, and values of arguments but by the config's rules. Text
//! from outside is bounded.

use crate::base::text::{push_hex, push_ip, push_json, push_millis, push_number, push_time};
use crate::base::{random, trace};
use crate::observe::record::{CUT, FAILED, Record, bounded};

/// The call goes to the server.
pub(super) const ALLOWED: &str = "allowed";
/// It does not, for the reason in `code`.
pub(super) const REFUSED: &str = "refused";
/// It does not, because the client left before.
pub(super) const GONE: &str = "gone";

/// It does not, because the edge has exited before.
pub(super) const BROKEN_OFF: &str = "cut";
/// Hex digits that name a process.
const INSTANCE: usize = 8;
/// The call went to the server, and the edge has exited before it knew what came of it.
const UNKNOWN: &str = "unknown";

/// Whether the edge itself has ended a request before it was answered.
pub(super) fn is_cut(record: &Record) -> bool {
    matches!(record.end, Some(CUT | FAILED))
}

/// Who wants to call what, and whether that is allowed.
pub(super) fn call(record: &Record, seq: u64, outcome: &str, out: &mut Vec<u8>) {
    begin(record, "call", seq, out);
    out.extend_from_slice(b",\"client\":\"");
    push_ip(record.client, out);
    out.push(b'"');
    if let Some(route) = &record.route {
        text(out, "route", &route.label);
    }
    if let Some(principal) = &record.principal {
        text(out, "auth", principal.method);
        text(out, "principal", &principal.subject);
        text(out, "issuer", &principal.issuer);
        if principal.name != principal.subject {
            text(out, "name", &principal.name);
        }
    }
    if let Some(audited) = &record.audit {
        text(out, "rpc_method", audited.method);
        let key = match audited.method {
            "tools/call" => "tool",
            "prompts/get" => "prompt",
            _ => "resource",
        };
        text(out, key, audited.target.as_deref().unwrap_or_default());
        if let Some(arguments) = &audited.arguments {
            out.extend_from_slice(b",\"arguments\":");
            out.extend_from_slice(arguments.as_bytes());
        }
    }
    text(out, "outcome", outcome);
    if let Some(rule) = record.audit.as_ref().and_then(|audited| audited.rule) {
        text(out, "rule", &rule.to_string());
    }
    if outcome == REFUSED {
        number(out, "status", u64::from(record.status));
    }
    causes(record, out);
    out.extend_from_slice(b"}\n");
}

/// What became of a call that was allowed.
pub(super) fn answer(record: &Record, seq: u64, out: &mut Vec<u8>) {
    begin(record, "answer", seq, out);
    number(out, "status", u64::from(record.status));
    if let Some(code) = record.rpc_error {
        out.extend_from_slice(b",\"rpc_error\":");
        out.extend_from_slice(code.to_string().as_bytes());
    }
    if is_cut(record) {
        text(out, "outcome", UNKNOWN);
    }
    causes(record, out);
    out.extend_from_slice(b",\"duration_ms\":");
    push_millis(record.started.elapsed(), out);
    out.extend_from_slice(b"}\n");
}

fn begin(record: &Record, event: &str, seq: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    push_time(record.at + record.started.elapsed(), out);
    out.push(b'"');
    text(out, "event", event);
    number(out, "seq", seq);
    instance(out);
    text(out, "request_id", &record.request_id);
    if let Some(id) = record.trace_id() {
        out.extend_from_slice(b",\"trace_id\":\"");
        trace::push_id(id, out);
        out.push(b'"');
    }
}

/// Whose number it is: while an upgrade lasts, two processes write to one file. Request ids begin with it.
fn instance(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"instance\":\"");
    let at = out.len();
    push_hex(random::process(), out);
    out.truncate(at + INSTANCE);
    out.push(b'"');
}

fn causes(record: &Record, out: &mut Vec<u8>) {
    text(out, "code", record.code.unwrap_or_default());
    text(out, "end", record.end.unwrap_or_default());
    text(out, "detail", &record.detail);
}

/// What is empty is left out.
fn text(out: &mut Vec<u8>, key: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    out.push(b',');
    push_json(key, out);
    out.push(b':');
    push_json(bounded(value), out);
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.push(b',');
    push_json(key, out);
    out.push(b':');
    push_number(value, out);
}
