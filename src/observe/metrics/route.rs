//! What is counted of one route: in, records; out, numbers that a reader finds by their labels.
//!
//! A request finds these by its route alone, then by small numbers: no name is hashed, no lock is taken, and
//! nothing is allocated but once for each status class and method that occurs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;

use super::times::{Bounds, MS, S, Times};
use crate::inspect::methods::{METHODS, number};
use crate::observe::record::{CUT, FAILED, Record};
use crate::stream::passed::Passed;

/// From what the edge adds by itself to what a long-running tool takes.
pub(super) const LATENCY: Bounds<17> = [
    MS,
    MS * 5 / 2,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    S * 5 / 2,
    5 * S,
    10 * S,
    30 * S,
    60 * S,
    300 * S,
    u64::MAX,
];
/// From an answer in pieces to a day.
pub(super) const LIFE: Bounds<8> =
    [S, 10 * S, 60 * S, 600 * S, 3600 * S, 6 * 3600 * S, 24 * 3600 * S, u64::MAX];

/// Labels of `status`, by the status' first digit; the first is for clients that left before an answer.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Labels of `era`.
pub(super) const ERAS: [&str; 3] = ["none", "legacy", "modern"];
/// Labels of `end`: as the access log has them, but for the first. The last is for all others.
pub(super) const ENDS: [&str; 16] = [
    "complete",
    "client.gone",
    "client.stalled",
    "forward.broke_off",
    "forward.silent",
    "stream.bad_endpoint",
    "edge.stopping",
    CUT,
    FAILED,
    "auth.expired",
    "auth.revoked",
    "address.revoked",
    "certificate.revoked",
    "listener.revoked",
    "route.revoked",
    "other",
];
/// The methods of MCP, none, and all others.
const METHOD_LABELS: usize = METHODS.len() + 2;

/// The counters of a route.
pub(super) struct RouteCounts {
    pub(super) route: String,
    pub(super) upstream: String,
    answers: [OnceLock<Box<ByMethod>>; CLASSES.len()],
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    /// Session ids sealed.
    pub(super) sealed: AtomicU64,
    /// Requests with a session id that was opened.
    pub(super) opened: AtomicU64,
    /// Streams open now.
    pub(super) streams: AtomicI64,
    pub(super) lives: Times<8>,
    ended: [AtomicU64; ENDS.len()],
    /// Events and comments of streams.
    pub(super) passed: Passed,
}

/// By where a method stands in [`METHODS`], then those without one, then all others.
type ByMethod = [OnceLock<Box<Answers>>; METHOD_LABELS];

/// The answers of a route that have a status class and a method in common.
pub(super) struct Answers {
    by_era: [AtomicU64; ERAS.len()],
    pub(super) duration: Times<17>,
    pub(super) first_byte: Times<17>,
}

impl RouteCounts {
    pub(super) fn new(route: &str, upstream: &str) -> Self {
        Self {
            route: route.to_owned(),
            upstream: upstream.to_owned(),
            answers: Default::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sealed: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            streams: AtomicI64::new(0),
            lives: Times::new(),
            ended: Default::default(),
            passed: Passed::default(),
        }
    }

    /// A request was answered; it may have begun a stream.
    pub(super) fn answered(&self, record: &Record, now: Instant) {
        let Some(answers) = self.answers_to(record) else { return };
        let era = ERAS.iter().position(|era| *era == record.era).unwrap_or_default();
        answers.by_era.get(era).inspect(|count| add(count, 1));
        if let Some(at) = record.first_byte {
            answers.first_byte.observe(&LATENCY, at - record.started);
        }
        if record.in_session {
            add(&self.opened, 1);
        }
        if !record.stream {
            self.complete(answers, record, now - record.started);
        }
    }

    /// A stream has ended. Where a request waits for it, that is when it has its answer.
    pub(super) fn stream_ended(&self, record: &Record, now: Instant) {
        let life = now - record.started;
        self.lives.observe(&LIFE, life);
        let end = record.end.unwrap_or(ENDS[0]);
        let end = ENDS.iter().position(|known| *known == end).unwrap_or(ENDS.len() - 1);
        self.ended.get(end).inspect(|count| add(count, 1));
        if is_awaited(record)
            && let Some(answers) = self.answers_to(record)
        {
            answers.duration.observe(&LATENCY, life);
        }
        self.bytes(record);
    }

    fn complete(&self, answers: &Answers, record: &Record, took: Duration) {
        answers.duration.observe(&LATENCY, took);
        self.bytes(record);
    }

    fn bytes(&self, record: &Record) {
        add(&self.received, record.bytes_in);
        add(&self.sent, record.bytes_out);
    }

    fn answers_to(&self, record: &Record) -> Option<&Answers> {
        let class = usize::from(record.status / 100).min(CLASSES.len() - 1);
        let method = match &record.rpc_method {
            None => METHODS.len(),
            Some(method) => number(method).unwrap_or(METHODS.len() + 1),
        };
        let by_method = self.answers.get(class)?.get_or_init(Default::default);
        Some(by_method.get(method)?.get_or_init(Default::default))
    }

    /// All answers, with the labels of their status class and their method.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, &Answers)> {
        let classes = CLASSES.into_iter().zip(&self.answers);
        let methods = || METHODS.iter().copied().chain(["", "other"]);
        let there = classes.filter_map(|(class, of)| Some((class, of.get()?)));
        there
            .flat_map(move |(class, of)| methods().zip(of.iter()).map(move |(m, a)| (class, m, a)))
            .filter_map(|(class, method, answers)| Some((class, method, &**answers.get()?)))
    }

    /// How many streams have ended in each way that has occurred.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let ends = ENDS.into_iter().zip(&self.ended).map(|(end, count)| (end, get(count)));
        ends.filter(|(_, count)| *count > 0)
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self { by_era: Default::default(), duration: Times::new(), first_byte: Times::new() }
    }
}

impl Answers {
    /// How many there were in each era that has occurred.
    pub(super) fn eras(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let eras = ERAS.into_iter().zip(&self.by_era).map(|(era, count)| (era, get(count)));
        eras.filter(|(_, count)| *count > 0)
    }
}

/// Whether a request waits for the end of a stream: then that is its answer.
fn is_awaited(record: &Record) -> bool {
    record.method == Method::POST
        && record.status != 101
        && record.rpc_method.as_deref() != Some("subscriptions/listen")
}

pub(super) fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
