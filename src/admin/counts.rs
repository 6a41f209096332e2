//! Sums over the metrics: in, what the registry holds; out, the few numbers that pages show.
//!
//! The registry is the one place that counts: what a page shows is what Prometheus reads.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};

use crate::observe::metrics::name;

/// How many, by a word.
pub type Tally = BTreeMap<String, u64>;

/// Numbers since the process began.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Requests by status class.
    pub requests: Tally,
    /// The same by route and upstream.
    pub routes: BTreeMap<(String, String), Tally>,
    /// Refusals by code.
    pub refusals: Tally,
    /// Times from head to head.
    pub first_byte: Buckets,
    /// Client connections open now.
    pub connections: u64,
    /// Event streams open now.
    pub streams: u64,
    /// Session ids sealed.
    pub sealed: u64,
    /// Access-log lines lost.
    pub log_lost: u64,
    /// Files that are not in force as they are.
    pub bad_files: Vec<String>,
    /// Certificates that could not be obtained.
    pub bad_acme: Vec<String>,
    /// Whether the last reload of the config has failed.
    pub bad_config: bool,
    /// Whether the audit log cannot be written.
    pub bad_audit: bool,
}

/// A histogram: upper bounds in seconds, and how many were not above each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets(Vec<(f64, u64)>);

impl Counts {
    /// Adds up what is registered.
    pub fn of(families: &[MetricFamily]) -> Self {
        let mut counts = Self::default();
        for family in families {
            let metrics = family.get_metric();
            match family.name() {
                name::REQUESTS => counts.take_requests(metrics),
                name::REFUSALS => counts.refusals = by(metrics, "code"),
                name::FIRST_BYTE => counts.first_byte = Buckets::of(metrics),
                name::CONNECTIONS => counts.connections = total(metrics),
                name::STREAMS => counts.streams = total(metrics),
                name::SEALED => counts.sealed = total(metrics),
                name::LOG_LOST => counts.log_lost = total(metrics),
                name::AUDIT_FAILING => counts.bad_audit = total(metrics) > 0,
                name::FILE_FAILED => counts.bad_files = raised(metrics, "file"),
                name::ACME_FAILED => counts.bad_acme = raised(metrics, "certificate"),
                name::CONFIG_FAILED => counts.bad_config = total(metrics) > 0,
                _ => {}
            }
        }
        counts
    }

    fn take_requests(&mut self, metrics: &[Metric]) {
        self.requests = by(metrics, "status");
        for metric in metrics {
            let route = (label(metric, "route").to_owned(), label(metric, "upstream").to_owned());
            let tally = self.routes.entry(route).or_default();
            *tally.entry(label(metric, "status").to_owned()).or_default() += value(metric);
        }
    }
}

impl Buckets {
    fn of(metrics: &[Metric]) -> Self {
        let mut sums: Vec<(f64, u64)> = Vec::new();
        for histogram in metrics.iter().map(Metric::get_histogram) {
            let buckets = histogram.get_bucket().iter();
            let finite = buckets.filter(|bucket| bucket.upper_bound().is_finite());
            // some have a last bucket for all, and some leave it to whoever writes them
            let all = std::iter::once((f64::INFINITY, histogram.get_sample_count()));
            let finite = finite.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
            for (n, (bound, count)) in finite.chain(all).enumerate() {
                match sums.get_mut(n) {
                    Some((_, sum)) => *sum += count,
                    None => sums.push((bound, count)),
                }
            }
        }
        Self(sums)
    }

    /// What came after an earlier look.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |n: usize| before.0.get(n).map_or(0, |(_, count)| *count);
        let all = self.0.iter().enumerate();
        Self(all.map(|(n, (bound, count))| (*bound, count.saturating_sub(earlier(n)))).collect())
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// The time, in milliseconds, that this share did not exceed: within its bucket a straight line, as
    /// Prometheus draws it; beyond the last bound, that bound. `None` where nothing came.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share * as_float(count);
        let (mut low, mut below) = (0.0, 0);
        for (bound, up_to) in &self.0 {
            if as_float(*up_to) >= rank && up_to > &below {
                if bound.is_infinite() {
                    break;
                }
                let inside = (rank - as_float(below)) / as_float(up_to - below);
                return Some((low + (bound - low) * inside) * 1000.0);
            }
            if bound.is_finite() {
                (low, below) = (*bound, *up_to);
            }
        }
        Some(low * 1000.0)
    }
}

fn label<'m>(metric: &'m Metric, name: &str) -> &'m str {
    let found = metric.get_label().iter().find(|label| label.name() == name);
    found.map_or("", |label| label.value())
}

/// A counter's or a gauge's; the other one is zero.
fn value(metric: &Metric) -> u64 {
    let value = metric.get_counter().get_value() + metric.get_gauge().get_value();
    // counts: whole, and far below 2^53
    if value >= 1.0 { value as u64 } else { 0 }
}

fn as_float(count: u64) -> f64 {
    count as f64
}

fn total(metrics: &[Metric]) -> u64 {
    metrics.iter().map(value).sum()
}

fn by(metrics: &[Metric], name: &str) -> Tally {
    let mut tally = Tally::new();
    for metric in metrics {
        *tally.entry(label(metric, name).to_owned()).or_default() += value(metric);
    }
    tally
}

fn raised(metrics: &[Metric], name: &str) -> Vec<String> {
    let raised = metrics.iter().filter(|metric| value(metric) > 0);
    raised.map(|metric| label(metric, name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::observe::Observer;
    use crate::observe::metrics::Metrics;
    use crate::observe::record::Record;

    fn buckets(counts: &[u64]) -> Buckets {
        let bounds = [0.001, 0.01, 0.1, f64::INFINITY];
        Buckets(bounds.into_iter().zip(counts.iter().copied()).collect())
    }

    #[test]
    fn quantiles_are_where_prometheus_draws_them() {
        let some = buckets(&[0, 100, 100, 100]);
        assert!((some.quantile(0.5).unwrap() - 5.5).abs() < 1e-9, "{:?}", some.quantile(0.5));
        assert!((some.quantile(1.0).unwrap() - 10.0).abs() < 1e-9);
        let slow = buckets(&[0, 0, 0, 7]);
        assert!((slow.quantile(0.5).unwrap() - 100.0).abs() < 1e-9, "the last bound");
        let mixed = buckets(&[50, 50, 100, 100]);
        assert!((mixed.quantile(0.5).unwrap() - 1.0).abs() < 1e-9);
        assert!((mixed.quantile(0.75).unwrap() - 55.0).abs() < 1e-9);
        assert_eq!(buckets(&[0, 0, 0, 0]).quantile(0.5), None);
        assert_eq!(Buckets::default().quantile(0.5), None);
    }

    #[test]
    fn series_are_added_up_whatever_their_last_bucket_is() {
        use prometheus::proto::{Bucket, Histogram};
        let metric = |bounds: &[(f64, u64)], count| {
            let bucket = |&(bound, so_far): &(f64, u64)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(so_far);
                bucket
            };
            let mut histogram = Histogram::default();
            histogram.set_bucket(bounds.iter().map(bucket).collect());
            histogram.set_sample_count(count);
            let mut metric = Metric::default();
            metric.set_histogram(histogram);
            metric
        };
        let open = metric(&[(0.1, 2), (1.0, 3)], 4);
        let closed = metric(&[(0.1, 1), (1.0, 1), (f64::INFINITY, 5)], 5);
        let sums = vec![(0.1, 3), (1.0, 4), (f64::INFINITY, 9)];
        assert_eq!(Buckets::of(&[open.clone(), closed.clone()]), Buckets(sums.clone()));
        assert_eq!(Buckets::of(&[closed, open]), Buckets(sums));
    }

    #[test]
    fn all_that_happens_is_found() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let service = &metrics.service;
        service.connection(true);
        service.log_lost.inc();
        service.set_reload_failed("users", true);
        service.set_acme_failed("a.example", true);
        service.reloaded(false, 1);
        metrics.told.audit.failing.set(1);
        let observer = Observer::new(metrics.clone(), None);
        let now = Instant::now();
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let mut record = Record::begin(now, SystemTime::now(), client, http::Method::GET);
        (record.status, record.code, record.first_byte) = (404, Some("route.none"), Some(now));
        metrics.requests.sealed(&record);
        observer.request(&record);
        record.stream = true;
        let _open = observer.begun(&record);
        let counts = Counts::of(&metrics.families());
        assert_eq!((counts.connections, counts.streams, counts.sealed), (1, 1, 1));
        assert_eq!((counts.log_lost, counts.bad_config, counts.bad_audit), (1, true, true));
        assert_eq!(
            (counts.bad_files, counts.bad_acme),
            (vec!["users".into()], vec!["a.example".into()])
        );
        assert_eq!(counts.requests, Tally::from([("4xx".to_owned(), 2)]));
        assert_eq!(counts.routes.into_values().collect::<Vec<_>>(), [counts.requests]);
        assert_eq!(counts.refusals, Tally::from([("route.none".to_owned(), 2)]));
        assert_eq!(counts.first_byte.count(), 2);
    }

    #[test]
    fn only_what_came_since_counts() {
        let (early, late) = (buckets(&[5, 5, 5, 5]), buckets(&[5, 15, 15, 15]));
        let new = late.since(&early);
        assert_eq!(new.count(), 10);
        assert!(new.quantile(0.5).unwrap() > 1.0, "the old ones, all below 1 ms, are not in it");
        assert_eq!(late.since(&Buckets::default()), late);
    }
}
