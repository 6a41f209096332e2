//! One replica: in, what the config or DNS says of it and what it is doing; out, whether it gets more.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::affinity;
use super::settings::{HostHeader, ServerSettings};
use super::view::State;
use crate::base::head::Head;

/// One replica and what it is doing. It stays the same one for as long as it is a member, whoever else
/// comes and goes.
#[derive(Debug)]
pub struct Replica {
    /// What the config says of it.
    pub server: ServerSettings,
    /// Its places on every ring that it is on.
    pub(super) points: Box<[u64]>,
    in_flight: AtomicUsize,
    /// Of all replicas of the group.
    together: Arc<AtomicUsize>,
    lane: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Counts a request on a replica for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Replica>);

impl Replica {
    /// A replica with nothing in flight.
    pub fn new(server: ServerSettings) -> Self {
        let points = affinity::points(&server.authority);
        let (in_flight, together) = Default::default();
        Self { server, points, in_flight, together, lane: OnceLock::new() }
    }

    /// The same as one of a group that counts together.
    #[must_use]
    pub fn among(mut self, together: &Arc<AtomicUsize>) -> Self {
        self.together = together.clone();
        self
    }

    /// Whether it gets new sessions and requests, and why not. Whoever changes what this says calls
    /// [`Upstream::regroup`](super::Upstream::regroup) then.
    pub fn state(&self) -> State {
        State::Up
    }

    /// Requests and streams under way.
    pub fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Those of all replicas of its group.
    pub(super) fn load_together(&self) -> usize {
        self.together.load(Ordering::Relaxed)
    }

    /// Counts one more until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.together.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Keeps with it what carries its bytes, once: that is a later stage's, which has its own type for it.
    pub fn fit(&self, lane: impl Any + Send + Sync) {
        if self.lane.set(Box::new(lane)).is_err() {
            log::error!("{}: it was fitted before", self.server.authority);
        }
    }

    /// What was kept with it.
    pub fn lane<L: Any>(&self) -> Option<&L> {
        self.lane.get()?.downcast_ref()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.together.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HostHeader {
    /// The Host that a replica is sent.
    pub fn of<'a>(&'a self, replica: &'a Replica, head: &'a Head) -> &'a str {
        match self {
            Self::Server => &replica.server.authority,
            Self::Client => &head.authority,
            Self::Fixed(host) => host,
        }
    }
}
