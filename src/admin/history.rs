//! The last ten minutes: in, counts every two seconds; out, what happened in each of these intervals.
//!
//! Kept here and not in a page, so that whoever opens one at 3 a.m. sees what led there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::counts::{Counts, Tally};

/// How long an interval is.
pub const EVERY: Duration = Duration::from_secs(2);
/// How many are kept: ten minutes.
const KEPT: usize = 300;
/// A look takes longer the more series there are; it may take one part in so many of a core.
const SHARE: u32 = 100;
/// Even then.
const LONGEST: Duration = Duration::from_secs(30);

/// How long to wait for the next look, after one that took so long.
pub fn pause(look: Duration) -> Duration {
    (look * SHARE).clamp(EVERY, LONGEST)
}

/// What happened in one interval.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Its end, in seconds since 1970.
    pub time: f64,
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Of the config, at its end.
    pub generation: u64,
    /// Requests by status class; those of which there were none are left out.
    pub requests: Tally,
    /// Refusals by code, likewise.
    pub refusals: Tally,
    /// Time to the first byte, in milliseconds, that half of the requests did not exceed; absent where
    /// there was none.
    pub p50_ms: Option<f64>,
    /// The same for 95 of 100.
    pub p95_ms: Option<f64>,
    /// The same for 99 of 100.
    pub p99_ms: Option<f64>,
    /// Open at its end.
    pub connections: u64,
    /// Open at its end.
    pub streams: u64,
    /// Requests and streams under way at replicas at its end.
    pub in_flight: u64,
}

/// The samples so far.
#[derive(Debug, Default)]
pub struct History {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    samples: VecDeque<Sample>,
    last: Option<(f64, Counts)>,
}

impl History {
    /// Notes the counts of this moment.
    pub fn note(&self, counts: Counts, in_flight: u64, generation: u64, at: SystemTime) {
        let now = seconds(at);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, earlier)) = &kept.last {
            let sample = Sample { in_flight, generation, ..sample(earlier, &counts, *before, now) };
            kept.samples.push_back(sample);
            if kept.samples.len() > KEPT {
                kept.samples.pop_front();
            }
        }
        kept.last = Some((now, counts));
    }

    /// What ended after `time`, in seconds since 1970; the oldest first.
    pub fn after(&self, time: f64) -> Vec<Sample> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.samples.iter().filter(|sample| sample.time > time).cloned().collect()
    }
}

fn sample(earlier: &Counts, counts: &Counts, before: f64, now: f64) -> Sample {
    let first_byte = counts.first_byte.since(&earlier.first_byte);
    let quantile = |share| first_byte.quantile(share).map(rounded);
    Sample {
        time: now,
        seconds: rounded(now - before),
        requests: grown(&earlier.requests, &counts.requests),
        refusals: grown(&earlier.refusals, &counts.refusals),
        p50_ms: quantile(0.5),
        p95_ms: quantile(0.95),
        p99_ms: quantile(0.99),
        connections: counts.connections,
        streams: counts.streams,
        in_flight: 0,
        generation: 0,
    }
}

fn grown(earlier: &Tally, now: &Tally) -> Tally {
    let new = |(word, count): (&String, &u64)| {
        let new = count.saturating_sub(earlier.get(word).copied().unwrap_or(0));
        (new > 0).then(|| (word.clone(), new))
    };
    now.iter().filter_map(new).collect::<BTreeMap<_, _>>()
}

/// Seconds since 1970, to the millisecond.
pub fn seconds(at: SystemTime) -> f64 {
    rounded(at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn counts(ok: u64, refused: u64) -> Counts {
        Counts {
            requests: [("2xx".to_owned(), ok), ("4xx".to_owned(), refused)].into(),
            refusals: [("auth.none".to_owned(), refused)].into(),
            ..Counts::default()
        }
    }

    #[test]
    fn a_sample_is_what_came_since_the_last() {
        let history = History::default();
        history.note(counts(100, 7), 1, 1, at(10));
        assert!(history.after(0.0).is_empty(), "what came before the first look has no time");
        history.note(counts(130, 7), 4, 1, at(12));
        history.note(counts(130, 8), 0, 2, at(14));
        let all = history.after(0.0);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].requests, [("2xx".to_owned(), 30)].into());
        assert!(all[0].refusals.is_empty());
        assert_eq!((all[0].time, all[0].seconds, all[0].in_flight), (12.0, 2.0, 4));
        assert_eq!(all[1].refusals, [("auth.none".to_owned(), 1)].into());
        assert_eq!((all[0].generation, all[1].generation), (1, 2));
        assert_eq!(history.after(12.0).len(), 1);
    }

    #[test]
    fn looks_that_are_dear_are_rare() {
        let after = |millis| pause(Duration::from_millis(millis)).as_secs();
        assert_eq!([after(0), after(1), after(50), after(10_000)], [2, 2, 5, 30]);
    }

    #[test]
    fn the_oldest_are_dropped() {
        let history = History::default();
        for n in 0..1000 {
            history.note(counts(n, 0), 0, 1, at(n));
        }
        let all = history.after(0.0);
        assert_eq!((all.len(), all[0].time), (300, 700.0));
    }
}
