//! The process's life: in, what happens to it; out, what probes and pages are told of it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

/// Where the process stands. One for all, shared.
#[derive(Debug)]
pub struct Life {
    phase: AtomicU8,
    generation: AtomicU64,
    /// When it began.
    pub since: Instant,
    /// The same by the calendar.
    pub at: SystemTime,
}

/// What it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is accepted yet.
    Starting,
    /// At work.
    Ready,
    /// It accepts no more, and waits for what is under way.
    Stopping,
}

impl Life {
    /// A life that begins now, with the config's first generation.
    pub fn new() -> Self {
        Self {
            phase: AtomicU8::new(0),
            generation: AtomicU64::new(1),
            since: Instant::now(),
            at: SystemTime::now(),
        }
    }

    /// What the process is doing.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }

    /// Goes on to a phase; there is no way back.
    pub fn reach(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Which config is at work: 1 for the one that the process began with, one more for every reload that took
    /// effect.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Another config is at work.
    pub fn renewed(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_way_back() {
        let life = Life::new();
        assert_eq!((life.phase(), life.generation()), (Phase::Starting, 1));
        life.reach(Phase::Stopping);
        life.reach(Phase::Ready);
        assert_eq!((life.phase(), life.renewed()), (Phase::Stopping, 2));
    }
}
