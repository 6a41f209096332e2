//! How a replica came to its state: in, changes; out, what the next one depends on, and what is shown.

use std::time::{Duration, Instant, SystemTime};

use super::outcome::Cause;

/// What only changes need.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) since: SystemTime,
    pub(super) problem: Option<Problem>,
    /// How its last requests failed, while none was answered since.
    pub(super) failing: Option<Cause>,
    /// When it was last told that they do.
    pub(super) told: Option<Instant>,
    /// Whether it is to be told when that is over.
    pub(super) to_tell: bool,
    /// Whether a check has come to its end yet.
    pub(super) checked: bool,
    /// Checks in a row that spoke against the state it is in.
    pub(super) against: u32,
    /// Good checks in a row since it was ejected.
    pub(super) good: u32,
    pub(super) ejected: Option<Ejected>,
    /// How many ejections followed each other closely.
    pub(super) times: u32,
    /// When the last one ended.
    pub(super) back: Option<Instant>,
    /// When a slow start began, and how long it takes.
    pub(super) warming: Option<(Instant, Duration)>,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            since: SystemTime::now(),
            problem: None,
            failing: None,
            told: None,
            to_tell: false,
            checked: false,
            against: 0,
            good: 0,
            ejected: None,
            times: 0,
            back: None,
            warming: None,
        }
    }

    /// Whether nobody could connect to it.
    pub(super) fn unreachable(&self) -> bool {
        let cause = self.ejected.map(|ejected| ejected.cause).or(self.failing);
        cause == Some(Cause::Connect)
    }
}

/// What went wrong last.
#[derive(Debug, Clone)]
pub struct Problem {
    /// A few words.
    pub text: String,
    /// When.
    pub at: SystemTime,
}

impl Problem {
    pub(super) fn now(text: String) -> Self {
        Self { text, at: SystemTime::now() }
    }

    pub(super) fn of(cause: Cause) -> Self {
        Self::now(format!("requests failed: {}", cause.name()))
    }
}

/// A rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ejected {
    pub(super) cause: Cause,
    pub(super) until: Instant,
}
