//! Which replica? In: a call, its caller and what its session says; out: a `Plan`, or a `Denial`.
//!
//! A session goes to its own replica or nowhere. Requests of the 2026-07-28 era have no session, but
//! servers still keep state per process (`list_changed`, tasks, `requestState`), so those of one
//! caller go to one replica ([`affinity`]). Everything else is spread by the upstream's policy.

pub mod affinity;
pub mod compile;
mod credential;
pub mod policy;
pub mod session;
pub mod settings;
mod siv;
pub mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::caller::Client;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::table::Table;
use affinity::Ring;
use policy::Policy;
use session::{Kind, OpenError, Owner, SessionKeys, Ticket};
use settings::{Affinity, HostHeader, ServerSettings, UpstreamSettings};

/// One replica and what it is doing.
#[derive(Debug)]
pub struct Replica {
    /// Its place in the upstream's list.
    pub index: usize,
    /// What the config says of it.
    pub server: ServerSettings,
    in_flight: AtomicUsize,
    /// Of all replicas of the group.
    together: Arc<AtomicUsize>,
}

/// A group of replicas at work.
#[derive(Debug)]
pub struct Upstream {
    /// What the config says of it.
    pub settings: UpstreamSettings,
    /// In the order of the config; never empty.
    pub replicas: Vec<Arc<Replica>>,
    by_authority: Table<usize>,
    policy: Arc<dyn Policy>,
    ring: Ring,
}

/// Where a request may go. Only `balance` makes one.
#[derive(Debug, Clone)]
pub struct Plan {
    bound: Bound,
    /// The session or endpoint that the request belongs to.
    pub ticket: Option<Ticket>,
}

/// What decides on the replica.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// It belongs to this one.
    Replica(usize),
    /// Its caller's place on the ring.
    Caller(u64),
    /// The policy.
    Nothing,
}

/// How a request names what it belongs to, as the client sent it.
#[derive(Debug, Clone, Copy)]
pub enum Claim<'a> {
    /// Nothing: any replica will do.
    None,
    /// `Mcp-Session-Id`.
    Session(&'a str),
    /// The routing token in the query, of the old HTTP+SSE transport.
    Endpoint(&'a str),
    /// A request of the 2026-07-28 era.
    Caller,
}

/// Counts a request on a replica for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Replica>);

impl Replica {
    /// A replica with nothing in flight.
    pub fn new(index: usize, server: ServerSettings) -> Self {
        Self { index, server, in_flight: AtomicUsize::new(0), together: Arc::default() }
    }

    /// The same as one of a group that counts together.
    #[must_use]
    pub fn among(mut self, together: &Arc<AtomicUsize>) -> Self {
        self.together = together.clone();
        self
    }

    /// Requests and streams under way.
    pub fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.together.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
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

impl Upstream {
    /// Puts an upstream to work.
    pub fn new(settings: UpstreamSettings) -> Self {
        let servers = settings.servers.iter().cloned().enumerate();
        let together = Arc::default();
        let replicas: Vec<_> =
            servers.map(|(i, server)| Arc::new(Replica::new(i, server).among(&together))).collect();
        let by_authority = replicas.iter().map(|r| (r.server.authority.clone(), r.index)).collect();
        let policy = settings.policy.clone();
        let ring = Ring::new(&replicas);
        Self { settings, replicas, by_authority, policy, ring }
    }

    /// All replicas as they are now.
    pub fn views(&self) -> Vec<view::ReplicaView> {
        self.replicas.iter().map(|replica| replica.view()).collect()
    }

    /// The best replica of a plan that is not among the `tried`; `None` when there is none.
    pub fn choose(&self, plan: &Plan, tried: &[usize]) -> Option<usize> {
        match plan.bound {
            Bound::Replica(index) => (!tried.contains(&index)).then_some(index),
            Bound::Caller(place) => self.ring.pick(place, &self.replicas, tried),
            Bound::Nothing => self.policy.pick(&self.replicas, tried),
        }
    }

    /// Plans a request: its session's replica, its caller's, or the policy's order.
    ///
    /// # Errors
    /// 404 for a session that is forged, expired, another caller's or another route's, or whose
    /// replica is no longer configured.
    pub fn plan(
        &self,
        claim: Claim<'_>,
        keys: &Keys,
        owner: Owner<'_>,
        client: &Client,
        now: u64,
    ) -> Result<Plan, Denial> {
        match claim {
            Claim::Session(text) => self.pinned(Kind::Session, text, keys, owner, now),
            Claim::Endpoint(text) => self.pinned(Kind::Endpoint, text, keys, owner, now),
            Claim::Caller if self.settings.affinity == Affinity::Principal => {
                let bound = Bound::Caller(affinity::place(owner.principal, client));
                Ok(Plan { bound, ticket: None })
            }
            Claim::Caller | Claim::None => Ok(Plan { bound: Bound::Nothing, ticket: None }),
        }
    }

    fn pinned(
        &self,
        kind: Kind,
        text: &str,
        keys: &Keys,
        owner: Owner<'_>,
        now: u64,
    ) -> Result<Plan, Denial> {
        let opened = keys.keys.open(kind, text, owner, now, keys.max_age);
        let ticket = opened.map_err(|e| match e {
            OpenError::Expired => gone("session.expired"),
            OpenError::Forged => gone("session.unknown"),
        })?;
        if ticket.upstream != self.settings.name {
            return Err(gone("session.foreign"));
        }
        let Some(&index) = self.by_authority.get(&ticket.authority) else {
            return Err(gone("session.replica_gone"));
        };
        Ok(Plan { bound: Bound::Replica(index), ticket: Some(ticket) })
    }
}

/// What opens session ids.
#[derive(Debug, Clone)]
pub struct Keys {
    /// First seals, all open.
    pub keys: SessionKeys,
    /// How long after its issue an id is good.
    pub max_age: Option<std::time::Duration>,
}

/// One message for all causes: the difference is the log's business.
fn gone(code: &'static str) -> Denial {
    Denial::new(Reason::SessionGone, code, "Session not found")
}
