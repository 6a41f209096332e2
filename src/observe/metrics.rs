//! Prometheus counters: in, records; out, the exposition text. All label sets are closed.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::record::Record;
use crate::inspect::methods::known_method;

/// Every metric of the edge.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    refusals: IntCounterVec,
    limited: IntCounterVec,
    first_byte: Histogram,
    /// Connections open now.
    pub connections: IntGauge,
    /// Event streams open now.
    pub streams: IntGauge,
    turned_away: IntCounterVec,
    handshakes_failed: IntCounterVec,
    in_flight: IntGaugeVec,
    reload_failed: IntGaugeVec,
    acme_failed: IntGaugeVec,
    expiry: IntGaugeVec,
    crl_expiry: IntGaugeVec,
    /// Session ids sealed.
    pub sealed: IntCounter,
    events: IntCounter,
    comments: IntCounter,
    /// Access-log lines lost because they could not be written, or not fast enough.
    pub log_lost: IntCounter,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// Two metrics of one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let count = |name: &str, help: &str| register(&registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help)?);
        let requests = IntCounterVec::new(
            Opts::new("mcp_edge_requests_total", "Requests answered."),
            &["route", "upstream", "status", "era", "rpc_method"],
        )?;
        let refusals = IntCounterVec::new(
            Opts::new("mcp_edge_refusals_total", "Requests refused by the edge, by cause."),
            &["code"],
        )?;
        let limited = IntCounterVec::new(
            Opts::new(
                "mcp_edge_limited_total",
                "Requests for which a limit had no room; let through where dry_run is true.",
            ),
            &["route", "key", "limit", "dry_run"],
        )?;
        let turned_away = IntCounterVec::new(
            Opts::new(
                "mcp_edge_connections_refused_total",
                "Connections closed before a byte of TLS or HTTP was read.",
            ),
            &["reason"],
        )?;
        let handshakes_failed = IntCounterVec::new(
            Opts::new(
                "mcp_edge_tls_handshakes_failed_total",
                "TLS handshakes that brought no connection.",
            ),
            &["reason"],
        )?;
        let in_flight = IntGaugeVec::new(
            Opts::new("mcp_edge_in_flight", "Requests and streams under way at a replica."),
            &["upstream", "replica"],
        )?;
        let reload_failed = IntGaugeVec::new(
            Opts::new(
                "mcp_edge_file_reload_failed",
                "1 while a file, as it is now, is not in force as a whole.",
            ),
            &["file"],
        )?;
        let expiry = IntGaugeVec::new(
            Opts::new(
                "mcp_edge_certificate_expiry_seconds",
                "When a certificate that is in force expires, in seconds since 1970.",
            ),
            &["file"],
        )?;
        let crl_expiry = IntGaugeVec::new(
            Opts::new(
                "mcp_edge_crl_expiry_seconds",
                "When a revocation list that is in force is too old, in seconds since 1970.",
            ),
            &["file"],
        )?;
        let acme_failed = IntGaugeVec::new(
            Opts::new("mcp_edge_acme_failed", "1 while the last try for a certificate has failed."),
            &["certificate"],
        )?;
        let first_byte = Histogram::with_opts(
            HistogramOpts::new(
                "mcp_edge_first_byte_seconds",
                "Time from the request's head to the answer's.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
            ]),
        )?;
        Ok(Self {
            requests: register(&registry, requests)?,
            refusals: register(&registry, refusals)?,
            limited: register(&registry, limited)?,
            turned_away: register(&registry, turned_away)?,
            handshakes_failed: register(&registry, handshakes_failed)?,
            in_flight: register(&registry, in_flight)?,
            reload_failed: register(&registry, reload_failed)?,
            acme_failed: register(&registry, acme_failed)?,
            expiry: register(&registry, expiry)?,
            crl_expiry: register(&registry, crl_expiry)?,
            first_byte: register(&registry, first_byte)?,
            connections: gauge("mcp_edge_connections", "Client connections open.")?,
            streams: gauge("mcp_edge_streams", "Event streams open.")?,
            sealed: count("mcp_edge_sessions_sealed_total", "Session ids sealed.")?,
            events: count("mcp_edge_stream_events_total", "Events of streams that have ended.")?,
            comments: count(
                "mcp_edge_stream_comments_total",
                "Comments put into streams that have ended.",
            )?,
            log_lost: count("mcp_edge_access_log_lost_total", "Access-log lines lost.")?,
            registry,
        })
    }

    pub(super) fn request(&self, record: &Record) {
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

    pub(super) fn stream_end(&self, record: &Record) {
        self.events.inc_by(record.events);
        self.comments.inc_by(record.comments);
    }

    /// A connection was closed at the door.
    pub fn turned_away(&self, reason: &'static str) {
        self.turned_away.with_label_values(&[reason]).inc();
    }

    /// A TLS handshake brought no connection.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed.with_label_values(&[reason]).inc();
    }

    /// Notes how many requests and streams are under way at a replica. Asked for when somebody
    /// reads: the counts are kept by the balancer, not twice.
    pub fn set_in_flight(&self, upstream: &str, replica: &str, load: usize) {
        let load = i64::try_from(load).unwrap_or(i64::MAX);
        self.in_flight.with_label_values(&[upstream, replica]).set(load);
    }

    /// Notes whether the last try for a certificate has failed.
    pub fn set_acme_failed(&self, certificate: &str, failed: bool) {
        self.acme_failed.with_label_values(&[certificate]).set(failed.into());
    }

    /// Notes whether the last change of a file was bad.
    pub fn set_reload_failed(&self, file: &str, failed: bool) {
        self.reload_failed.with_label_values(&[file]).set(failed.into());
    }

    /// Notes when the certificate that came from a file expires, in seconds since 1970.
    pub fn set_expiry(&self, file: &str, expires: i64) {
        self.expiry.with_label_values(&[file]).set(expires);
    }

    /// Notes when the revocation lists of a file are too old, in seconds since 1970.
    pub fn set_crl_expiry(&self, file: &str, expires: i64) {
        self.crl_expiry.with_label_values(&[file]).set(expires);
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            log::error!("cannot write metrics: {e}");
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_register_and_print() {
        let metrics = Metrics::new().unwrap();
        metrics.connections.inc();
        assert!(metrics.text().contains("mcp_edge_connections 1"));
    }

    #[test]
    fn the_readme_names_every_metric_and_no_other() {
        let names = |text: &str| {
            let word = |c: char| c.is_ascii_lowercase() || c == '_';
            let mut all: Vec<String> = text
                .match_indices("mcp_edge_")
                .map(|(at, _)| text[at..].chars().take_while(|c| word(*c)).collect())
                .filter(|name: &String| name != "mcp_edge_")
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let code = include_str!("metrics.rs").split("#[cfg(test)]").next().unwrap();
        let readme = include_str!("../../README.md");
        let section = readme.split("### Metrics").nth(1).expect("a section");
        let section = section.split("\n## ").next().unwrap();
        assert_eq!(names(section), names(code));
        let elsewhere = names(readme);
        // the library's name, in RUST_LOG, is followed by none of its letters
        assert!(elsewhere.iter().all(|name| names(code).contains(name)), "{elsewhere:?}");
    }
}
