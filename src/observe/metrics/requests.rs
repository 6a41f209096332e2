//! Metrics of requests, streams and sessions: in, records; out, counters and histograms.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use prometheus::{Error, IntCounter, IntCounterVec};

use super::make::Make;
use super::route::RouteCounts;
use super::routes::Routes;
use crate::observe::record::Record;
use crate::stream::passed::Passed;

/// Methods that admit callers of whom something is known, by their names in a principal.
const METHODS: [&str; 5] = ["basic", "api_key", "oauth", "client_certificate", "all"];

/// Codes with a label of their own: those of JSON-RPC 2.0 §5.1 and of the MCP specification.
const RPC_CODES: [(i64, &str); 12] = [
    (-32700, "-32700"),
    (-32600, "-32600"),
    (-32601, "-32601"),
    (-32602, "-32602"),
    (-32603, "-32603"),
    (-32000, "-32000"),
    (-32001, "-32001"),
    (-32002, "-32002"),
    (-32020, "-32020"),
    (-32021, "-32021"),
    (-32022, "-32022"),
    (-32042, "-32042"),
];

/// Refusals by `code`.
pub const REFUSALS: &str = "mcp_edge_refusals_total";

/// Metrics of requests, streams and sessions.
pub struct Requests {
    routes: Routes,
    refusals: IntCounterVec,
    limited: IntCounterVec,
    sessions_refused: IntCounterVec,
    rpc_errors: IntCounterVec,
    auth: IntCounterVec,
    /// Of `auth`, what occurs with every request: callers that each of [`METHODS`] has admitted.
    accepted: [IntCounter; METHODS.len()],
}

/// A long answer that is under way. It stays with the counters of the route that it began in, whatever becomes
/// of that by a reload.
pub struct Open {
    route: Arc<RouteCounts>,
    stream: bool,
}

impl Requests {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        let auth = make.counters(
            "mcp_edge_auth_total",
            "Requests by the method that decided who sends them, and by what it said.",
            &["method", "outcome"],
        )?;
        Ok(Self {
            routes: make.add(Routes::new()?)?,
            refusals: make.counters(
                REFUSALS,
                "Requests refused by the edge, by cause.",
                &["code"],
            )?,
            limited: make.counters(
                "mcp_edge_limited_total",
                "Requests for which a limit had no room; let through where dry_run is true.",
                &["route", "key", "limit", "dry_run"],
            )?,
            sessions_refused: make.counters(
                "mcp_edge_sessions_refused_total",
                "Requests whose session id was refused.",
                &["route", "code"],
            )?,
            rpc_errors: make.counters(
                "mcp_edge_rpc_errors_total",
                "Answers of servers that are a JSON-RPC error, as far as the edge reads them.",
                &["route", "code"],
            )?,
            accepted: METHODS.map(|method| auth.with_label_values(&[method, "accepted"])),
            auth,
        })
    }

    /// A request was answered, or its stream has begun.
    pub(in crate::observe) fn answered(&self, record: &Record, now: Instant) {
        let route = self.routes.of(record);
        route.answered(record, now);
        if let Some(principal) = &record.principal {
            // nothing is asked for on an anonymous route
            let method = METHODS.iter().position(|method| *method == principal.method);
            method.and_then(|n| self.accepted.get(n)).inspect(|count| count.inc());
        }
        match record.code {
            Some(code) => self.refused(route, code, record),
            None => self.rpc_error(route, record),
        }
        for limited in &record.limited {
            let dry_run = if limited.dry_run { "true" } else { "false" };
            let labels = [&*route.route, limited.key, limited.what, dry_run];
            self.limited.with_label_values(&labels).inc();
        }
    }

    fn refused(&self, route: &RouteCounts, code: &'static str, record: &Record) {
        self.refusals.with_label_values(&[code]).inc();
        if code.starts_with("session.") {
            self.sessions_refused.with_label_values(&[&route.route, code]).inc();
        }
        if record.principal.is_none()
            && let Some(kind) = code.strip_prefix("auth.")
        {
            let method = kind.split_once('.').map_or("", |(method, _)| method);
            self.auth.with_label_values(&[method, outcome(kind, record.status)]).inc();
        }
    }

    /// A long answer has begun; it counts as open until what is given is dropped.
    pub(in crate::observe) fn begun(&self, record: &Record) -> Open {
        let route = self.routes.shared(record);
        if record.stream {
            route.streams.fetch_add(1, Ordering::Relaxed);
        }
        Open { route, stream: record.stream }
    }

    /// A stream has ended.
    pub(in crate::observe) fn stream_ended(&self, open: &Open, record: &Record, now: Instant) {
        open.route.stream_ended(record, now);
        self.rpc_error(&open.route, record);
    }

    fn rpc_error(&self, route: &RouteCounts, record: &Record) {
        if let Some(code) = record.rpc_error {
            let known = RPC_CODES.iter().find(|(known, _)| *known == code);
            let label = known.map_or("other", |(_, label)| label);
            self.rpc_errors.with_label_values(&[&route.route, label]).inc();
        }
    }

    /// A session id was sealed for the answer to this request.
    pub fn sealed(&self, record: &Record) {
        self.routes.of(record).sealed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Open {
    /// Where it counts what passes in it.
    pub fn passed(&self) -> &Passed {
        &self.route.passed
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.stream {
            self.route.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a refusal by authentication says of the credential.
fn outcome(kind: &str, status: u16) -> &'static str {
    match status {
        429 => "throttled",
        // nobody could say: the provider is down, too many passwords wait to be hashed
        503 => "unavailable",
        _ if matches!(kind, "none" | "all.missing") => "absent",
        _ => "refused",
    }
}
