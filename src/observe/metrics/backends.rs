//! Metrics of replicas: in, what the balancer and the probes know; out, gauges and counters.

use prometheus::{Error, IntCounterVec, IntGaugeVec};

use super::make::Make;
use crate::balance::health::{Cause, Totals};

/// Metrics of replicas.
pub struct Backends {
    in_flight: IntGaugeVec,
    up: IntGaugeVec,
    failing: IntGaugeVec,
    probes: IntCounterVec,
    ejections: IntCounterVec,
}

impl Backends {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        Ok(Self {
            in_flight: make.gauges(
                "mcp_edge_in_flight",
                "Requests and streams under way at a replica.",
                &["upstream", "replica"],
            )?,
            up: make.gauges(
                "mcp_edge_replica_up",
                "1 while a replica gets new sessions and requests, and its last ones have not all failed.",
                &["upstream", "replica"],
            )?,
            failing: make.gauges(
                "mcp_edge_replica_failing",
                "1 while a replica's last requests have failed, too many in a row, and none was answered since.",
                &["upstream", "replica"],
            )?,
            probes: make.counters(
                "mcp_edge_probes_total",
                "Health checks of a replica, by what came of them.",
                &["upstream", "replica", "result"],
            )?,
            ejections: make.counters(
                "mcp_edge_ejections_total",
                "Times that a replica was given a rest because requests failed, by how they did.",
                &["upstream", "replica", "cause"],
            )?,
        })
    }

    /// Replicas may have gone; the others are set when somebody reads.
    pub fn forget(&self) {
        self.in_flight.reset();
        self.up.reset();
        self.failing.reset();
    }

    /// Notes how many requests and streams are under way at a replica. Asked for when somebody
    /// reads: the counts are kept by the balancer, not twice.
    pub fn set_in_flight(&self, upstream: &str, replica: &str, load: usize) {
        let load = i64::try_from(load).unwrap_or(i64::MAX);
        self.in_flight.with_label_values(&[upstream, replica]).set(load);
    }

    /// Notes a replica's health. The counts are the replica's own: those of one that was replaced begin again,
    /// which Prometheus knows from processes that were.
    pub fn set_health(
        &self,
        upstream: &str,
        replica: &str,
        (up, failing): (bool, bool),
        totals: &Totals,
    ) {
        self.up.with_label_values(&[upstream, replica]).set(up.into());
        self.failing.with_label_values(&[upstream, replica]).set(failing.into());
        let raise = |counters: &IntCounterVec, what: &str, total: u64| {
            let counter = counters.with_label_values(&[upstream, replica, what]);
            if total < counter.get() {
                counter.reset();
            }
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        raise(&self.probes, "good", totals.good);
        raise(&self.probes, "bad", totals.bad);
        for (cause, total) in Cause::ALL.iter().zip(totals.ejections) {
            raise(&self.ejections, cause.name(), total);
        }
    }
}
