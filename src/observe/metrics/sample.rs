//! Samples of metrics that are not counted by the library: in, numbers and labels; out, what it prints.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::times::{Bounds, Times};

pub(super) fn described(name: &str, help: &str) -> Result<Desc, prometheus::Error> {
    Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())
}

/// A metric with all its samples.
pub(super) fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: Vec<Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

pub(super) fn counter(count: u64, labels: Vec<LabelPair>) -> Metric {
    sum(count as f64, labels)
}

/// A counter that need not be whole.
pub(super) fn sum(sum: f64, labels: Vec<LabelPair>) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(sum);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

pub(super) fn gauge(value: f64, labels: Vec<LabelPair>) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn histogram<const N: usize>(
    times: &Times<N>,
    bounds: &Bounds<N>,
    labels: Vec<LabelPair>,
) -> Metric {
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(times.histogram(bounds));
    metric
}

/// A label.
pub(super) fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
