//! A span in OTLP: in, the record of a request; out, what OpenTelemetry's conventions for HTTP servers and for
//! MCP say of it.
//!
//! Who called is not in it, nor arguments, session ids, JSON-RPC ids, query strings or `tracestate`: spans go
//! to places where many read. The trace id leads from them to the audit log.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use crate::base::random;
use crate::inspect::methods::known_method;
use crate::observe::record::{Record, bounded};

/// Longest name of a tool or prompt in a span's name, in bytes.
const MAX_TARGET: usize = 64;

/// What this process is known by.
pub(super) fn instance() -> u64 {
    random::mixed()
}

/// The span of a request that has ended; `None` where it has no trace.
pub(super) fn span(record: &Record, end: SystemTime) -> Option<Span> {
    let trace = record.trace.as_ref()?;
    let link = trace.link.map(|link| Link {
        trace_id: link.trace.to_be_bytes().to_vec(),
        span_id: link.span.to_be_bytes().to_vec(),
        ..Link::default()
    });
    Some(Span {
        trace_id: trace.id.to_be_bytes().to_vec(),
        span_id: trace.span.to_be_bytes().to_vec(),
        parent_span_id: trace.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name: name(record),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(record.at),
        end_time_unix_nano: nanos(end),
        attributes: attributes(record),
        links: link.into_iter().collect(),
        status: status(record),
        ..Span::default()
    })
}

/// `tools/call get_weather`, or `GET */mcp`. Names that nobody vouches for are no part of it.
fn name(record: &Record) -> String {
    let Some(method) = record.rpc_method.as_deref() else {
        let route = record.route.as_ref().map_or("", |route| route.label.as_str());
        return format!("{} {route}", bounded(record.method.as_str()));
    };
    let method = known_method(method).unwrap_or("other");
    let target = record.tool.as_deref().filter(|tool| {
        matches!(method, "tools/call" | "prompts/get")
            && record.code.is_none()
            && record.rpc_error.is_none()
            && tool.len() <= MAX_TARGET
    });
    target.map_or_else(|| method.to_owned(), |target| format!("{method} {target}"))
}

fn attributes(record: &Record) -> Vec<KeyValue> {
    let mut all = vec![
        attribute("http.request.method", bounded(record.method.as_str())),
        attribute("url.path", bounded(&record.path)),
        attribute("network.protocol.name", "http"),
        attribute("network.protocol.version", record.http),
        attribute("network.transport", "tcp"),
        attribute("client.address", record.client.to_string()),
        attribute("mcp_edge.request_id", record.request_id.as_str()),
        attribute("mcp_edge.era", record.era),
    ];
    if record.status > 0 {
        all.push(attribute("http.response.status_code", i64::from(record.status)));
    }
    if let Some(route) = &record.route {
        all.push(attribute("http.route", route.label.as_str()));
        all.push(attribute("mcp_edge.upstream", route.upstream.as_str()));
    }
    if let Some(replica) = &record.replica {
        all.push(attribute("mcp_edge.replica", replica.server.authority.as_str()));
    }
    all.extend(call(record));
    if let Some(code) = record.code {
        all.push(attribute("mcp_edge.refusal", code));
    }
    if let Some(end) = record.end {
        all.push(attribute("mcp_edge.end", end));
    }
    if let Some(error) = error(record) {
        all.push(attribute("error.type", error));
    }
    if record.stream {
        all.push(attribute("mcp_edge.events", i64::try_from(record.events).unwrap_or(i64::MAX)));
    }
    if let Some(at) = record.first_byte {
        let millis = (at - record.started).as_secs_f64() * 1000.0;
        all.push(attribute("mcp_edge.first_byte_ms", Value::DoubleValue(millis)));
    }
    all
}

/// What MCP's conventions ask for.
fn call(record: &Record) -> Vec<KeyValue> {
    let Some(method) = record.rpc_method.as_deref() else { return Vec::new() };
    let mut all = vec![attribute("mcp.method.name", bounded(method))];
    if let Some(code) = record.rpc_error {
        all.push(attribute("rpc.response.status_code", code.to_string()));
    }
    let target = record.tool.as_deref().map(bounded);
    match (method, target) {
        ("tools/call", Some(tool)) => {
            all.push(attribute("gen_ai.operation.name", "execute_tool"));
            all.push(attribute("gen_ai.tool.name", tool));
        }
        ("prompts/get", Some(prompt)) => all.push(attribute("gen_ai.prompt.name", prompt)),
        ("resources/read", Some(uri)) => all.push(attribute("mcp.resource.uri", uri)),
        _ => {}
    }
    all
}

/// The edge's or the server's own fault; what clients do wrong is no error of a server's span
/// (OpenTelemetry's conventions for HTTP).
fn status(record: &Record) -> Option<Status> {
    let broken = record.end.is_some_and(|end| end.starts_with("forward."));
    // MCP's own conventions: whoever is at fault
    let failed = record.status >= 500 || broken || record.rpc_error.is_some();
    failed.then(|| Status { message: String::new(), code: StatusCode::Error.into() })
}

fn error(record: &Record) -> Option<String> {
    let status = (record.status >= 400).then(|| record.status.to_string());
    let rpc = record.rpc_error.map(|code| code.to_string());
    record.code.or(record.end).map(str::to_owned).or(rpc).or(status)
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A name and what it stands for.
pub(super) fn attribute(key: &str, value: impl Into<Any>) -> KeyValue {
    let value = Some(AnyValue { value: Some(value.into().0) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// What an attribute may be.
pub(super) struct Any(Value);

impl From<&str> for Any {
    fn from(text: &str) -> Self {
        Self(Value::StringValue(text.to_owned()))
    }
}

impl From<String> for Any {
    fn from(text: String) -> Self {
        Self(Value::StringValue(text))
    }
}

impl From<i64> for Any {
    fn from(number: i64) -> Self {
        Self(Value::IntValue(number))
    }
}

impl From<Value> for Any {
    fn from(value: Value) -> Self {
        Self(value)
    }
}
