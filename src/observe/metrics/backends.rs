//! Metrics of replicas: in, what the balancer and the probes know; out, gauges and counters.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{CounterVec, Error, IntCounterVec, IntGaugeVec, Opts};

use super::make::Make;
use crate::balance::health::{Cause, Totals};
use crate::forward::counts::{self, Retry};

/// Metrics of replicas, of their upstreams, and of the names that these go by.
pub struct Backends {
    replicas: OfReplicas,
    upstreams: OfUpstreams,
    names: OfNames,
    /// Whose series there are, by upstream and replica.
    shown: Mutex<HashSet<(String, String)>>,
}

struct OfReplicas {
    in_flight: IntGaugeVec,
    listening: IntGaugeVec,
    up: IntGaugeVec,
    failing: IntGaugeVec,
    probes: IntCounterVec,
    ejections: IntCounterVec,
}

struct OfUpstreams {
    replicas: IntGaugeVec,
    retries: IntCounterVec,
    retries_refused: IntCounterVec,
    waiting: IntGaugeVec,
    waits: IntCounterVec,
    waited: CounterVec,
    circuit_refused: IntCounterVec,
}

struct OfNames {
    lookups: IntCounterVec,
    failing: IntGaugeVec,
}

impl OfReplicas {
    fn new(make: &Make) -> Result<Self, Error> {
        Ok(Self {
            in_flight: make.gauges(
                "mcp_edge_in_flight",
                "Requests and streams under way at a replica.",
                &["upstream", "replica"],
            )?,
            listening: make.gauges(
                "mcp_edge_in_flight_listening",
                "Those of them that wait for what may come: GET and subscription streams, and WebSockets.",
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
}

impl OfUpstreams {
    fn new(make: &Make) -> Result<Self, Error> {
        Ok(Self {
            replicas: make.gauges(
                "mcp_edge_upstream_replicas",
                "Replicas that an upstream has, in whatever state.",
                &["upstream"],
            )?,
            retries: make.counters(
                "mcp_edge_retries_total",
                "Times that a request was tried again, by why.",
                &["upstream", "reason"],
            )?,
            retries_refused: make.counters(
                "mcp_edge_retries_refused_total",
                "Times that a request was not tried again because the budget had no room.",
                &["upstream"],
            )?,
            waiting: make.gauges(
                "mcp_edge_circuit_waiting",
                "Requests that wait for room at an upstream.",
                &["upstream"],
            )?,
            waits: make.counters(
                "mcp_edge_circuit_waits_total",
                "Requests that have waited for room at an upstream, however that ended.",
                &["upstream"],
            )?,
            waited: make.add(CounterVec::new(
                Opts::new(
                    "mcp_edge_circuit_wait_seconds_total",
                    "How long requests have waited for room at an upstream, together.",
                ),
                &["upstream"],
            )?)?,
            circuit_refused: make.counters(
                "mcp_edge_circuit_refused_total",
                "Requests that were refused for want of room at an upstream, by whether too many waited or it waited for too long.",
                &["upstream", "reason"],
            )?,
        })
    }
}

impl OfNames {
    fn new(make: &Make) -> Result<Self, Error> {
        Ok(Self {
            lookups: make.counters(
                "mcp_edge_dns_lookups_total",
                "Questions to DNS for the replicas of an upstream, by what came of them (failed: not answered, or not wholly).",
                &["upstream", "name", "result"],
            )?,
            failing: make.gauges(
                "mcp_edge_dns_failing",
                "1 while a name's last question was not or not wholly answered, or by nobody's address, or by too many.",
                &["upstream", "name"],
            )?,
        })
    }
}

impl Backends {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        Ok(Self {
            replicas: OfReplicas::new(make)?,
            upstreams: OfUpstreams::new(make)?,
            names: OfNames::new(make)?,
            shown: Mutex::default(),
        })
    }

    /// Replicas may have gone; the others are set when somebody reads.
    pub fn forget(&self) {
        self.replicas.in_flight.reset();
        self.replicas.listening.reset();
        self.replicas.up.reset();
        self.replicas.failing.reset();
        self.upstreams.waiting.reset();
        self.upstreams.replicas.reset();
        self.names.failing.reset();
    }

    /// Drops the series of replicas that are not among those that there are: names bring ever new ones.
    pub fn keep_only(&self, there: HashSet<(String, String)>) {
        let own = &self.replicas;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (upstream, replica) in shown.difference(&there) {
            let labels = [upstream.as_str(), replica.as_str()];
            // one that was never counted has none of these
            let gauges = [&own.in_flight, &own.listening, &own.up, &own.failing];
            let gauges = gauges.map(|g| g.remove_label_values(&labels));
            let of = |word| [upstream.as_str(), replica.as_str(), word];
            let probes = ["good", "bad"].map(|word| own.probes.remove_label_values(&of(word)));
            let ejections = Cause::ALL.map(|c| own.ejections.remove_label_values(&of(c.name())));
            let all = gauges.into_iter().chain(probes).chain(ejections);
            log::debug!(
                "{replica} is gone, and {} series of it",
                all.filter(Result::is_ok).count()
            );
        }
        *shown = there;
    }

    /// Notes how many replicas an upstream has.
    pub fn set_replicas(&self, upstream: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.upstreams.replicas.with_label_values(&[upstream]).set(count);
    }

    /// Notes how it stands with a name: whether it leads anywhere now, and what came of all questions, by word.
    pub fn set_name<'w>(
        &self,
        upstream: &str,
        name: &str,
        failing: bool,
        counts: impl IntoIterator<Item = (&'w str, u64)>,
    ) {
        self.names.failing.with_label_values(&[upstream, name]).set(failing.into());
        for (word, total) in counts {
            raise(&self.names.lookups, &[upstream, name, word], total);
        }
    }

    /// Notes how many requests and streams are under way at a replica, and how many of them wait for what may
    /// come. Asked for when somebody reads: the counts are kept by the balancer, not twice.
    pub fn set_in_flight(&self, upstream: &str, replica: &str, load: usize, listening: usize) {
        for (gauge, count) in
            [(&self.replicas.in_flight, load), (&self.replicas.listening, listening)]
        {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            gauge.with_label_values(&[upstream, replica]).set(count);
        }
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
        let own = &self.replicas;
        own.up.with_label_values(&[upstream, replica]).set(up.into());
        own.failing.with_label_values(&[upstream, replica]).set(failing.into());
        let of = |what| [upstream, replica, what];
        raise(&own.probes, &of("good"), totals.good);
        raise(&own.probes, &of("bad"), totals.bad);
        for (cause, total) in Cause::ALL.iter().zip(totals.ejections) {
            raise(&own.ejections, &of(cause.name()), total);
        }
    }

    /// Notes what was done for an upstream's requests; `waiting`: where they may have to wait, how many do.
    pub fn set_carried(&self, upstream: &str, totals: &counts::Totals, waiting: Option<usize>) {
        let own = &self.upstreams;
        for (why, total) in Retry::ALL.iter().zip(totals.retries) {
            raise(&own.retries, &[upstream, why.name()], total);
        }
        raise(&own.retries_refused, &[upstream], totals.unpaid);
        let Some(waiting) = waiting else { return };
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        own.waiting.with_label_values(&[upstream]).set(waiting);
        raise(&own.waits, &[upstream], totals.waits);
        raise(&own.circuit_refused, &[upstream, "full"], totals.full);
        raise(&own.circuit_refused, &[upstream, "late"], totals.late);
        let (waited, total) = (own.waited.with_label_values(&[upstream]), totals.waited);
        if total.as_secs_f64() < waited.get() {
            waited.reset();
        }
        waited.inc_by((total.as_secs_f64() - waited.get()).max(0.0));
    }
}

/// Brings a counter to what was counted elsewhere.
fn raise(counters: &IntCounterVec, labels: &[&str], total: u64) {
    let counter = counters.with_label_values(labels);
    if total < counter.get() {
        counter.reset();
    }
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder, Registry, TextEncoder};

    #[test]
    fn who_is_gone_leaves_no_series() {
        let registry = Registry::new();
        let backends = Backends::new(&Make(&registry)).unwrap();
        let note = |replicas: &[&str]| {
            for replica in replicas {
                backends.set_in_flight("u", replica, 1, 1);
                backends.set_health("u", replica, (true, false), &Totals::default());
            }
            let there = replicas.iter().map(|r| ("u".to_owned(), (*r).to_owned()));
            backends.keep_only(there.collect());
            let mut out = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let both = note(&["a:1", "b:1"]);
        let series = |text: &str, replica| text.matches(replica).count();
        assert!(series(&both, "a:1") > 2 && series(&both, "a:1") == series(&both, "b:1"));
        let one = note(&["b:1"]);
        assert_eq!((series(&one, "a:1"), series(&one, "b:1")), (0, series(&both, "b:1")));
    }
}
