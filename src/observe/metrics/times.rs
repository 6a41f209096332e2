//! Histograms of times: in, durations; out, what Prometheus reads of them.
//!
//! The library's own takes six atomic steps for an observation, one of them a loop, so that a reader sees sum
//! and buckets of one moment. Here it takes two, and a reader may see an observation in one and not yet in
//! the other: the next time it is in both. The count is that of the buckets, so those always agree.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Bucket, Histogram};

/// How many were not longer than each of so many bounds, the last of which is none.
pub(super) struct Times<const N: usize> {
    counts: [AtomicU64; N],
    /// Nanoseconds: enough for 584 years.
    sum: AtomicU64,
}

/// Upper bounds in nanoseconds, growing; the last is `u64::MAX`.
pub(super) type Bounds<const N: usize> = [u64; N];

/// A millisecond.
pub(super) const MS: u64 = 1_000_000;
/// A second.
pub(super) const S: u64 = 1000 * MS;

impl<const N: usize> Times<N> {
    pub(super) const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, bounds: &Bounds<N>, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let fits = bounds.iter().zip(&self.counts).find(|(bound, _)| nanos <= **bound);
        if let Some((_, count)) = fits {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// As Prometheus has it: seconds, and each bucket holds those before it.
    pub(super) fn histogram(&self, bounds: &Bounds<N>) -> Histogram {
        let mut so_far = 0;
        let mut buckets = Vec::with_capacity(N);
        for (bound, count) in bounds.iter().zip(&self.counts) {
            so_far += count.load(Ordering::Relaxed);
            // the last is the count of all: where it is not there, it is printed as `+Inf`
            if *bound < u64::MAX {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(seconds(*bound));
                bucket.set_cumulative_count(so_far);
                buckets.push(bucket);
            }
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(so_far);
        histogram.set_sample_sum(seconds(self.sum.load(Ordering::Relaxed)));
        histogram
    }
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds<4> = [MS, 10 * MS, 100 * MS, u64::MAX];

    #[test]
    fn a_time_is_in_its_bucket_and_in_all_above() {
        let times = Times::new();
        for micros in [0, 1000, 1001, 10_000, 99_999, 100_001, 7_000_000] {
            times.observe(&BOUNDS, Duration::from_micros(micros));
        }
        let histogram = times.histogram(&BOUNDS);
        let buckets: Vec<_> = histogram
            .get_bucket()
            .iter()
            .map(|b| (b.upper_bound(), b.cumulative_count()))
            .collect();
        assert_eq!(buckets, [(0.001, 2), (0.01, 4), (0.1, 5)]);
        assert_eq!(histogram.get_sample_count(), 7);
        assert!((histogram.get_sample_sum() - 7.212001).abs() < 1e-9);
    }

    #[test]
    fn what_is_too_long_for_a_number_is_counted() {
        let times = Times::new();
        times.observe(&BOUNDS, Duration::MAX);
        assert_eq!(times.histogram(&BOUNDS).get_sample_count(), 1);
    }
}
