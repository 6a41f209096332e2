//! One replica: in, what the config or DNS says of it and what it is doing; out, whether it gets more.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::affinity;
use super::health::Health;
use super::settings::{HostHeader, ServerSettings};
use super::view::State;
use crate::base::head::Head;

/// One replica and what it is doing. It stays the same one for as long as it is a member, whoever else
/// comes and goes.
#[derive(Debug)]
pub struct Replica {
    /// Where it is, and what the config said of it when it became a member; see [`Replica::weight`].
    pub server: ServerSettings,
    share: Share,
    /// Connects that it has refused since the last that it took.
    refusals: AtomicU32,
    /// Its places on every ring that it is on.
    pub(super) points: Box<[u64]>,
    /// What is known of its health.
    pub health: Health,
    in_flight: AtomicUsize,
    /// Those of them that wait for what may come.
    listening: AtomicUsize,
    /// Of all replicas of the group.
    together: Arc<AtomicUsize>,
    lane: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// What it gets, as the config or DNS says it now: it stays the same replica when that changes.
#[derive(Debug)]
struct Share {
    weight: AtomicU32,
    priority: AtomicU32,
    drain: AtomicBool,
}

/// Refused connects in a row after which nobody listens there any more, and what was kept there is lost.
const LOST: u32 = 3;

/// Counts a request on a replica for as long as it lives.
#[derive(Debug)]
pub struct InFlight {
    replica: Arc<Replica>,
    listens: bool,
}

impl Replica {
    /// A replica with nothing in flight.
    pub fn new(server: ServerSettings) -> Self {
        let points = affinity::points(&server.authority);
        let share = Share {
            weight: AtomicU32::new(server.weight),
            priority: AtomicU32::new(server.priority),
            drain: AtomicBool::new(server.drain),
        };
        let (in_flight, listening, together, refusals, lane, health) = Default::default();
        Self { server, share, refusals, points, health, in_flight, listening, together, lane }
    }

    /// Whether it is where that server is, however they share. Of the addresses of a name the first counts: it is
    /// the one that was there before, for as long as it is there at all.
    pub(super) fn is_at(&self, server: &ServerSettings) -> bool {
        let Self { server: own, .. } = self;
        let first = |s: &ServerSettings| s.found.as_ref().map(|f| f.addresses.first().copied());
        own.authority == server.authority
            && (own.https, &own.host, own.port) == (server.https, &server.host, server.port)
            && first(own) == first(server)
    }

    /// Whether it is what is said of that server, its share as it is now included.
    pub(super) fn is_as(&self, server: &ServerSettings) -> bool {
        let share = (self.weight(), self.priority(), self.is_drained());
        self.is_at(server) && share == (server.weight, server.priority, server.drain)
    }

    /// Takes what is said of it now; [`Upstream::regroup`](super::Upstream::regroup) makes it count.
    pub(super) fn share_as(&self, server: &ServerSettings) {
        self.share.weight.store(server.weight, Ordering::Relaxed);
        self.share.priority.store(server.priority, Ordering::Relaxed);
        self.share.drain.store(server.drain, Ordering::Relaxed);
    }

    /// Share of new sessions.
    pub fn weight(&self) -> u32 {
        self.share.weight.load(Ordering::Relaxed)
    }

    /// Smaller goes first.
    pub fn priority(&self) -> u32 {
        self.share.priority.load(Ordering::Relaxed)
    }

    /// Whether it is to get nothing new, whatever else is up.
    pub fn is_drained(&self) -> bool {
        self.share.drain.load(Ordering::Relaxed)
    }

    /// Notes how a connect ended: taken, or refused by a system where nobody listens.
    pub fn connected(&self, taken: bool) {
        if !taken {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        } else if self.refusals.load(Ordering::Relaxed) > 0 {
            self.refusals.store(0, Ordering::Relaxed);
        }
    }

    /// Whether its sessions are given up: nobody has listened there for several connects, or its checks found
    /// it down. It may come back with what it kept, but nobody knows when, and a client that is told to wait
    /// asks for the same session for ever, while one that is told to begin another one gets on.
    pub fn is_lost(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) >= LOST || self.health.is_found_down()
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
        match self.health.state() {
            State::Down => State::Down,
            _ if self.is_drained() => State::Draining,
            state => state,
        }
    }

    /// Requests and streams under way.
    pub fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Those of them that are no work: streams and WebSockets that wait for what may come.
    pub fn listening(&self) -> usize {
        self.listening.load(Ordering::Relaxed)
    }

    /// Those of all replicas of its group.
    pub(super) fn load_together(&self) -> usize {
        self.together.load(Ordering::Relaxed)
    }

    /// Counts one more until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.together.fetch_add(1, Ordering::Relaxed);
        InFlight { replica: self.clone(), listens: false }
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
        if self.listens {
            self.replica.listening.fetch_sub(1, Ordering::Relaxed);
        }
        self.replica.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.replica.together.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InFlight {
    /// It goes on as one that waits for what may come.
    pub fn listen(&mut self) {
        if !std::mem::replace(&mut self.listens, true) {
            self.replica.listening.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl HostHeader {
    /// The Host that a replica is sent.
    pub fn of<'a>(&'a self, replica: &'a Replica, head: &'a Head) -> &'a str {
        match self {
            Self::Server => replica.server.host_field(),
            Self::Client => &head.authority,
            Self::Fixed(host) => host,
        }
    }
}
