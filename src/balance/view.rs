//! A replica as pages and metrics show it: in, a replica at work; out, plain values.

use std::time::{Duration, SystemTime};

use super::replica::Replica;

/// One replica, at one moment.
#[derive(Debug, Clone, PartialEq)]
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
    /// What the last failed probe or request ended with.
    pub problem: Option<String>,
}

/// Whether a replica gets new sessions and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Up,
    /// It does, slowly more.
    Starting,
    /// Its sessions go on; it gets no new ones.
    Draining,
    /// Requests have failed: it rests for a while.
    Ejected,
    /// Its health checks fail.
    Down,
}

impl State {
    /// The word for labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
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
