//! Metrics of replicas: in, what the balancer and the probes know; out, gauges and counters.

use prometheus::{Error, IntGaugeVec};

use super::make::Make;

/// Metrics of replicas.
pub struct Backends {
    in_flight: IntGaugeVec,
}

impl Backends {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        Ok(Self {
            in_flight: make.gauges(
                "mcp_edge_in_flight",
                "Requests and streams under way at a replica.",
                &["upstream", "replica"],
            )?,
        })
    }

    /// Replicas may have gone; the others are set when somebody reads.
    pub fn forget(&self) {
        self.in_flight.reset();
    }

    /// Notes how many requests and streams are under way at a replica. Asked for when somebody
    /// reads: the counts are kept by the balancer, not twice.
    pub fn set_in_flight(&self, upstream: &str, replica: &str, load: usize) {
        let load = i64::try_from(load).unwrap_or(i64::MAX);
        self.in_flight.with_label_values(&[upstream, replica]).set(load);
    }
}
