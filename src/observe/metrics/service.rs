//! Metrics of the process: in, what happens to connections, files and certificates; out, gauges and counters.

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::make::Make;

/// Client connections that are open.
pub const CONNECTIONS: &str = "mcp_edge_connections";
/// 1 while a `file` is not in force as it is.
pub const FILE_FAILED: &str = "mcp_edge_file_reload_failed";
/// 1 while the last config that was to be loaded is not at work.
pub const CONFIG_FAILED: &str = "mcp_edge_config_last_reload_failed";
/// 1 while the last try for a `certificate` has failed.
pub const ACME_FAILED: &str = "mcp_edge_acme_failed";
/// Access-log lines lost.
pub const LOG_LOST: &str = "mcp_edge_access_log_lost_total";

/// Metrics of the process.
pub struct Service {
    connections: IntGauge,
    connections_total: IntCounter,
    turned_away: IntCounterVec,
    handshakes_failed: IntCounterVec,
    reload_failed: IntGaugeVec,
    reloads: IntCounterVec,
    generation: IntGauge,
    last_reload_failed: IntGauge,
    generations_alive: IntGauge,
    acme_failed: IntGaugeVec,
    expiry: IntGaugeVec,
    crl_expiry: IntGaugeVec,
    /// Access-log lines lost because they could not be written, or not fast enough.
    pub log_lost: IntCounter,
}

impl Service {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        let build = make.gauges("mcp_edge_build_info", "1; which build this is.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            connections: make.gauge(CONNECTIONS, "Client connections open.")?,
            connections_total: make
                .counter("mcp_edge_connections_total", "Client connections that were let in.")?,
            turned_away: make.counters(
                "mcp_edge_connections_refused_total",
                "Connections closed before a byte of TLS or HTTP was read.",
                &["reason"],
            )?,
            handshakes_failed: make.counters(
                "mcp_edge_tls_handshakes_failed_total",
                "TLS handshakes that brought no connection.",
                &["reason"],
            )?,
            reload_failed: make.gauges(
                FILE_FAILED,
                "1 while a file, as it is now, is not in force as a whole.",
                &["file"],
            )?,
            reloads: make.counters(
                "mcp_edge_config_reloads_total",
                "Times that the config was to be loaded anew.",
                &["result"],
            )?,
            generation: make.gauge(
                "mcp_edge_config_generation",
                "Which config is at work: 1 for the first, one more for every reload that took effect.",
            )?,
            last_reload_failed: make.gauge(
                CONFIG_FAILED,
                "1 while the config, as it was last to be loaded, is not at work.",
            )?,
            generations_alive: make.gauge(
                "mcp_edge_config_generations_alive",
                "Configs that serve a request still; 1 when only the one at work does.",
            )?,
            acme_failed: make.gauges(
                ACME_FAILED,
                "1 while the last try for a certificate has failed.",
                &["certificate"],
            )?,
            expiry: make.gauges(
                "mcp_edge_certificate_expiry_timestamp_seconds",
                "When a certificate that is in force expires, in seconds since 1970.",
                &["file"],
            )?,
            crl_expiry: make.gauges(
                "mcp_edge_crl_expiry_timestamp_seconds",
                "When a revocation list that is in force is too old, in seconds since 1970.",
                &["file"],
            )?,
            log_lost: make.counter(LOG_LOST, "Access-log lines lost.")?,
        })
    }

    /// A client's connection was let in, or has ended.
    pub fn connection(&self, opened: bool) {
        if opened {
            self.connections.inc();
            self.connections_total.inc();
        } else {
            self.connections.dec();
        }
    }

    /// A connection was closed at the door.
    pub fn turned_away(&self, reason: &'static str) {
        self.turned_away.with_label_values(&[reason]).inc();
    }

    /// A TLS handshake brought no connection.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed.with_label_values(&[reason]).inc();
    }

    /// The config was loaded anew, or could not be; `generation` is at work now.
    pub fn reloaded(&self, good: bool, generation: u64) {
        self.reloads.with_label_values(&[if good { "ok" } else { "failed" }]).inc();
        self.last_reload_failed.set((!good).into());
        self.set_generation(generation);
        if good {
            // what is gone must not stay; the others are set when somebody reads
            self.reload_failed.reset();
            self.expiry.reset();
            self.crl_expiry.reset();
        }
    }

    /// Notes which config is at work.
    pub fn set_generation(&self, generation: u64) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// Notes how many configs are there.
    pub fn set_generations_alive(&self, count: usize) {
        self.generations_alive.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes whether the last try for a certificate has failed.
    pub fn set_acme_failed(&self, certificate: &str, failed: bool) {
        self.acme_failed.with_label_values(&[certificate]).set(failed.into());
    }

    /// Forgets how the tries for certificates went: others are wanted now.
    pub fn forget_acme(&self) {
        self.acme_failed.reset();
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
}
