//! The `traces` of a config: in, its node; out, a collector, and how requests are traced.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::TraceSettings;
use crate::base::compile::{Cx, Node};
use crate::base::edits;
use crate::base::fetch::{Fetch, target};
use crate::base::trace::{Share, Tracing, Trust};
use crate::base::url;

/// `traces.timeout`: what OpenTelemetry's exporters wait.
const TIMEOUT: Duration = Duration::from_secs(10);
/// `traces.queue`: what OpenTelemetry's exporters hold.
const QUEUE: u64 = 2048;
/// Where OTLP's spans go at a collector's own URL.
const PATH: &str = "/v1/traces";

/// How requests are traced, and where that goes.
#[derive(Debug, Clone)]
pub struct Traces {
    /// The collector.
    pub settings: TraceSettings,
    /// What routes do.
    pub tracing: Arc<Tracing>,
}

/// Compiles it; `None` also where it is `off`.
pub fn traces(node: &Node, cx: &mut Cx) -> Option<Traces> {
    if node.text() == Some("off") {
        return None;
    }
    let mut fields = cx.map(node)?;
    let endpoint_node = fields.take("endpoint");
    let endpoint = endpoint_node.and_then(|n| cx.in_key("endpoint", |cx| endpoint(n, cx)));
    if endpoint_node.is_none() {
        cx.error(node, "the key `endpoint` is missing");
    }
    let mut headers = fields.or(cx, "headers", Vec::new(), edits::values);
    headers.iter_mut().for_each(|(_, value)| value.set_sensitive(true));
    let ca = fields.optional(cx, "ca", |n, cx| cx.file(n));
    let timeout = fields.or(cx, "timeout", TIMEOUT, |n, cx| cx.period(n));
    let queue = fields.or(cx, "queue", QUEUE, |n, cx| cx.integer(n, 1..=1_000_000));
    let service = fields.optional(cx, "service", |n, cx| cx.string(n));
    let trust = fields.or(cx, "trust", Trust::Proxies, trust);
    let sample = fields
        .or(cx, "sample", Share::ALL, |n, cx| cx.parse(n, "a share such as `10%`", Share::parse));
    fields.finish(cx);
    if let Err(problem) = Fetch::new(ca.as_deref(), timeout) {
        cx.error(node, problem);
    }
    let endpoint = endpoint?;
    if !headers.is_empty() && !is_private(&endpoint) {
        cx.error(node, "`headers` would be sent in plain text: give an https `endpoint`");
    }
    let settings = TraceSettings {
        endpoint,
        headers,
        ca,
        timeout,
        service: service.unwrap_or_else(|| "mcp-edge".to_owned()),
        queue: usize::try_from(queue).unwrap_or(usize::MAX),
    };
    Some(Traces { settings, tracing: Arc::new(Tracing { trust, share: sample }) })
}

/// A collector's own URL means OTLP's path there.
fn endpoint(node: &Node, cx: &mut Cx) -> Option<Uri> {
    cx.parse(node, "a URL", |text| {
        let (_, path) = url::split(text)?;
        let whole = match path {
            "" | "/" => format!("{}{PATH}", text.trim_end_matches('/')),
            _ => text.to_owned(),
        };
        target(&whole, true)
    })
}

/// Whether nobody reads along: TLS, or this machine.
fn is_private(endpoint: &Uri) -> bool {
    let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    endpoint.scheme_str() == Some("https") || loopback || host == "localhost"
}

fn trust(node: &Node, cx: &mut Cx) -> Option<Trust> {
    cx.parse(node, "`nobody`, `proxies`, `callers` or `anybody`", |text| match text {
        "nobody" => Ok(Trust::Nobody),
        "proxies" => Ok(Trust::Proxies),
        "callers" => Ok(Trust::Callers),
        "anybody" => Ok(Trust::Anybody),
        _ => Err(format!("expected `nobody`, `proxies`, `callers` or `anybody`, found `{text}`")),
    })
}
