//! A replica as pages and metrics show it: in, a replica at work; out, plain values.

use std::time::{Duration, SystemTime};

use super::health::Problem;
use super::replica::Replica;

/// One replica, at one moment.
#[derive(Debug, Clone)]
pub struct ReplicaView {
    /// Its `host:port`.
    pub authority: String,
    /// Whether it gets new sessions and requests, and why not.
    pub state: State,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// Requests and streams under way.
    pub in_flight: usize,
    /// Time to the first byte, a moving average; absent before the first answer.
    pub latency: Option<Duration>,
    /// Share of new sessions.
    pub weight: u32,
    /// Smaller goes first.
    pub priority: u32,
    /// What the last failed probe or request ended with, and when; absent once it goes well again.
    pub problem: Option<Problem>,
}

/// Whether a replica gets new sessions and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Up,
    /// It does, slowly more.
    Starting,
    /// It does, and its last requests have failed: too many others are out already, or none has been answered
    /// since its rest.
    Failing,
    /// Its sessions go on; it gets no new ones.
    Draining,
    /// Requests have failed: it rests for a while.
    Ejected,
    /// Its health checks fail.
    Down,
}

impl State {
    /// Whether it gets new sessions and requests, before those that do not.
    pub const fn gets_work(self) -> bool {
        matches!(self, Self::Up | Self::Starting | Self::Failing)
    }

    /// Whether, besides, nothing speaks against it.
    pub const fn is_well(self) -> bool {
        matches!(self, Self::Up | Self::Starting)
    }

    /// The word for labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

impl Replica {
    /// What it is doing now.
    pub fn view(&self) -> ReplicaView {
        let (since, problem) = self.health.story();
        ReplicaView {
            authority: self.server.authority.clone(),
            state: self.state(),
            since,
            in_flight: self.load(),
            latency: self.health.latency(),
            weight: self.weight(),
            priority: self.priority(),
            problem,
        }
    }
}
