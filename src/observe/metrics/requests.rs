//! Metrics of requests and streams: in, records; out, counters and histograms.

use prometheus::{Error, Histogram, IntCounter, IntCounterVec, IntGauge};

use super::make::Make;
use crate::inspect::methods::known_method;
use crate::observe::record::Record;

/// Metrics of requests, streams and sessions.
pub struct Requests {
    requests: IntCounterVec,
    refusals: IntCounterVec,
    limited: IntCounterVec,
    first_byte: Histogram,
    /// Event streams open now.
    pub streams: IntGauge,
    /// Session ids sealed.
    pub sealed: IntCounter,
    events: IntCounter,
    comments: IntCounter,
}

impl Requests {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        Ok(Self {
            requests: make.counters(
                "mcp_edge_requests_total",
                "Requests answered.",
                &["route", "upstream", "status", "era", "rpc_method"],
            )?,
            refusals: make.counters(
                "mcp_edge_refusals_total",
                "Requests refused by the edge, by cause.",
                &["code"],
            )?,
            limited: make.counters(
                "mcp_edge_limited_total",
                "Requests for which a limit had no room; let through where dry_run is true.",
                &["route", "key", "limit", "dry_run"],
            )?,
            first_byte: make.histogram(
                "mcp_edge_first_byte_seconds",
                "Time from the request's head to the answer's.",
                &[
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                    60.0,
                ],
            )?,
            streams: make.gauge("mcp_edge_streams", "Event streams open.")?,
            sealed: make.counter("mcp_edge_sessions_sealed_total", "Session ids sealed.")?,
            events: make
                .counter("mcp_edge_stream_events_total", "Events of streams that have ended.")?,
            comments: make.counter(
                "mcp_edge_stream_comments_total",
                "Comments put into streams that have ended.",
            )?,
        })
    }

    pub(in crate::observe) fn request(&self, record: &Record) {
        let class = match record.status / 100 {
            0 => "none",
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let (route, upstream) =
            record.route.as_deref().map_or(("", ""), |r| (r.label.as_str(), r.upstream.as_str()));
        let method =
            record.rpc_method.as_deref().map_or("", |m| known_method(m).unwrap_or("other"));
        self.requests.with_label_values(&[route, upstream, class, record.era, method]).inc();
        if let Some(code) = record.code {
            self.refusals.with_label_values(&[code]).inc();
        }
        for limited in &record.limited {
            let dry_run = if limited.dry_run { "true" } else { "false" };
            self.limited.with_label_values(&[route, limited.key, limited.what, dry_run]).inc();
        }
        if let Some(at) = record.first_byte {
            self.first_byte.observe((at - record.started).as_secs_f64());
        }
    }

    pub(in crate::observe) fn stream_end(&self, record: &Record) {
        self.events.inc_by(record.events);
        self.comments.inc_by(record.comments);
    }
}
