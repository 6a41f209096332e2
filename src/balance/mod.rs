//! Which replica? In: a call, its caller and what its session says; out: a `Plan`, or a `Denial`.
//!
//! A session goes to its own replica or nowhere. Requests of the 2026-07-28 era have no session, but
//! servers still keep state per process (`list_changed`, tasks, `requestState`), so those of one
//! caller go to one replica ([`affinity`]). Everything else is spread by the upstream's policy.

pub mod affinity;
pub mod compile;
mod credential;
pub mod dns;
pub mod health;
pub mod lookup;
pub mod members;
mod minted;
pub mod policy;
mod replica;
mod servers;
pub mod session;
pub mod settings;
mod siv;
mod spread;
pub mod view;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use http::header::ALLOW;
use http::{HeaderMap, HeaderValue};

use crate::base::caller::Client;
use crate::base::denial::{Denial, Reason};
use health::Health;
use members::Members;
use minted::Minted;
use session::{Kind, OpenError, Owner, SessionKeys, Ticket};
use settings::{Affinity, HashBy, ServerSettings, UpstreamSettings};

pub use replica::{InFlight, Replica};

/// A group of replicas at work.
#[derive(Debug)]
pub struct Upstream {
    /// What the config says of it.
    pub settings: UpstreamSettings,
    members: ArcSwap<Members>,
    /// Held while the members change; never on a request's way.
    changing: Mutex<()>,
    /// Held while it is decided whether one more replica may be taken out.
    judging: Mutex<()>,
    minted: Minted,
    /// Whether every name has been answered, so that a replica that is unknown is gone.
    settled: AtomicBool,
    /// Requests and streams under way, at all replicas.
    together: Arc<AtomicUsize>,
}

/// Where a request may go. Only `balance` makes one.
#[derive(Debug, Clone)]
pub struct Plan {
    bound: Bound,
    /// The session or endpoint that the request belongs to.
    pub ticket: Option<Ticket>,
}

/// What decides on the replica.
#[derive(Debug, Clone)]
enum Bound {
    /// It belongs to this one.
    Replica(Arc<Replica>),
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

impl Upstream {
    /// Puts an upstream to work, with the servers that the config names.
    pub fn new(settings: UpstreamSettings) -> Self {
        let servers = settings.servers.clone();
        Self::with(settings, &servers, Arc::default(), |_| None)
    }

    /// The same with the servers that are known by now, in place of one that the config says something else of. A
    /// replica of whom is said what was said, and who is reached in the same way, stays who it is, with all that
    /// is known of it.
    pub fn among(
        settings: UpstreamSettings,
        servers: &[ServerSettings],
        before: Option<&Self>,
    ) -> Self {
        let Some(before) = before else {
            return Self::with(settings, servers, Arc::default(), |_| None);
        };
        let same_wire = settings.wire == before.settings.wire;
        let members = before.members.load();
        let known = |server: &ServerSettings| {
            let known = members.named(&server.authority).filter(|known| known.is_as(server));
            known.filter(|_| same_wire).cloned()
        };
        Self::with(settings, servers, before.together.clone(), known)
    }

    fn with(
        settings: UpstreamSettings,
        servers: &[ServerSettings],
        together: Arc<AtomicUsize>,
        known: impl Fn(&ServerSettings) -> Option<Arc<Replica>>,
    ) -> Self {
        // at a start, all are taken for good until a check says something else; who joins others waits for one
        let joins = settings.health.is_some() && servers.iter().any(|s| known(s).is_some());
        let new = |server: &ServerSettings| {
            let mut new = Replica::new(server.clone()).among(&together);
            new.health = Health::joined(joins);
            new
        };
        let replica = |server: &ServerSettings| known(server).unwrap_or_else(|| new(server).into());
        let replicas = servers.iter().map(replica).collect();
        let members = ArcSwap::from_pointee(Members::new(replicas, settings.policy));
        let (changing, judging, minted) = Default::default();
        let settled = AtomicBool::new(true);
        Self { settings, members, changing, judging, minted, settled, together }
    }

    /// The replicas as they are at this moment. To be dropped soon: not to be held while something is
    /// waited for.
    pub fn members(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// Sorts anew who gets new sessions and requests: some replica's state has changed.
    pub fn regroup(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let replicas = self.members.load().replicas.clone();
        self.members.store(Arc::new(Members::new(replicas, self.settings.policy)));
    }

    /// Takes other servers in place of those that are there. Of who is there already, the replica stays,
    /// with its connections and what is under way; `fit` is called for each that is new, before it gets
    /// its first request.
    pub fn replace(&self, servers: &[ServerSettings], mut fit: impl FnMut(&Replica)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.members.load();
        // where nobody was, there is nobody to be better than
        let joins = self.settings.health.is_some() && !before.replicas.is_empty();
        let replica = |server: &ServerSettings| match before.named(&server.authority) {
            Some(known) if known.is_at(server) => {
                known.share_as(server);
                known.clone()
            }
            _ => {
                let mut new = Replica::new(server.clone()).among(&self.together);
                new.health = Health::joined(joins);
                fit(&new);
                Arc::new(new)
            }
        };
        let replicas = servers.iter().map(replica).collect();
        self.members.store(Arc::new(Members::new(replicas, self.settings.policy)));
    }

    /// Whether all names that the config has have been answered by DNS: until then, nobody is told that a session's
    /// replica is gone.
    pub fn settle(&self, settled: bool) {
        self.settled.store(settled, Ordering::Relaxed);
    }

    /// A session's replica is gone for good: the refusal that makes its client begin another session.
    pub fn lost() -> Denial {
        gone("session.replica_gone")
    }

    /// Notes that a GET, HEAD or OPTIONS without a session was refused with one at `path`.
    pub fn minted(&self, path: &str) {
        self.minted.note(path, Instant::now());
    }

    /// Keeps such requests from a server that would register a session for each of them.
    ///
    /// # Errors
    /// 405 (RFC 9110 §15.5.6), as servers without a stream for all answer.
    pub fn shield(&self, path: &str) -> Result<(), Denial> {
        if !self.minted.is_at(path, Instant::now()) {
            return Ok(());
        }
        let words = "Without a session, only POST is served here";
        let denial = Denial::new(Reason::MethodNotAllowed, "session.none", words);
        Err(denial.field(ALLOW, HeaderValue::from_static("POST")))
    }

    /// All replicas as they are now.
    pub fn views(&self) -> Vec<view::ReplicaView> {
        self.members().replicas.iter().map(|replica| replica.view()).collect()
    }

    /// The replica that a plan is bound to.
    pub fn pinned_to(plan: &Plan) -> Option<&Arc<Replica>> {
        match &plan.bound {
            Bound::Replica(replica) => Some(replica),
            Bound::Caller(_) | Bound::Nothing => None,
        }
    }

    /// The best replica of a plan that is not among the `tried`; `None` when there is none.
    pub fn choose(&self, plan: &Plan, tried: &[Arc<Replica>]) -> Option<Arc<Replica>> {
        match &plan.bound {
            Bound::Replica(replica) => tried.is_empty().then(|| replica.clone()),
            bound => self.members.load().choose(bound, tried).cloned(),
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
        headers: &HeaderMap,
        now: u64,
    ) -> Result<Plan, Denial> {
        let modern = match claim {
            Claim::Session(text) => return self.pinned(Kind::Session, text, keys, owner, now),
            Claim::Endpoint(text) => return self.pinned(Kind::Endpoint, text, keys, owner, now),
            Claim::Caller => true,
            Claim::None => false,
        };
        let by_caller = || Bound::Caller(affinity::place(owner.principal, client));
        let bound = match &self.settings.hash {
            Some(HashBy::Header(name)) => match headers.get(name) {
                Some(value) => Bound::Caller(affinity::place_of(value.as_bytes())),
                None => by_caller(),
            },
            Some(HashBy::Principal) => by_caller(),
            None if modern && self.settings.affinity == Affinity::Principal => by_caller(),
            None => Bound::Nothing,
        };
        Ok(Plan { bound, ticket: None })
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
        let Some(replica) = self.members.load().named(&ticket.authority).cloned() else {
            return Err(self.missing(&ticket.authority));
        };
        Ok(Plan { bound: Bound::Replica(replica), ticket: Some(ticket) })
    }

    /// Of a replica that is not there: where a name has not led anywhere yet, that says nothing of it.
    fn missing(&self, authority: &str) -> Denial {
        let is_named = self.settings.servers.iter().any(|server| server.authority == authority);
        if self.settled.load(Ordering::Relaxed) && !is_named {
            return gone("session.replica_gone");
        }
        let words = "The session's server cannot be found at this moment";
        Denial::new(Reason::NoBackend, "session.replica_unknown", words).retry_after(1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::url;

    fn servers(urls: &[&str]) -> Vec<ServerSettings> {
        let one = |url: &&str| compile::from_origin(&url::origin(url).unwrap()).unwrap().servers;
        urls.iter().flat_map(one).collect()
    }

    fn upstream(urls: &[&str]) -> Upstream {
        let some = compile::from_origin(&url::origin(urls[0]).unwrap()).unwrap();
        Upstream::new(UpstreamSettings { servers: servers(urls), ..some })
    }

    fn anywhere() -> Plan {
        Plan { bound: Bound::Nothing, ticket: None }
    }

    #[test]
    fn who_stays_is_the_same_and_who_left_gets_nothing_new() {
        let upstream = upstream(&["http://a", "http://b"]);
        let (a, b) = {
            let members = upstream.members();
            (members.replicas[0].clone(), members.replicas[1].clone())
        };
        let _held = a.begin();
        let mut fitted = Vec::new();
        upstream.replace(&servers(&["http://c", "http://a"]), |new| {
            fitted.push(new.server.authority.clone());
        });
        assert_eq!(fitted, ["c"]);
        let members = upstream.members();
        assert!(Arc::ptr_eq(members.named("a").unwrap(), &a));
        assert!(members.named("b").is_none());
        // all of a group count together, also who came later
        let _new = members.named("c").unwrap().begin();
        assert_eq!((a.load_together(), b.load()), (2, 0));
        for _ in 0..4 {
            let chosen = upstream.choose(&anywhere(), &[]).unwrap();
            assert_ne!(chosen.server.authority, "b");
        }
    }

    #[test]
    fn another_server_of_the_same_name_is_a_new_one() {
        let upstream = upstream(&["http://a:443"]);
        let before = upstream.members().replicas[0].clone();
        let mut other = servers(&["http://a:443"]);
        other[0].https = true;
        upstream.replace(&other, |_| {});
        assert!(!Arc::ptr_eq(&upstream.members().replicas[0], &before));
    }

    #[test]
    fn without_members_there_is_no_choice() {
        let upstream = upstream(&["http://a"]);
        upstream.replace(&[], |_| {});
        for bound in [Bound::Nothing, Bound::Caller(7)] {
            let plan = Plan { bound, ticket: None };
            assert!(upstream.choose(&plan, &[]).is_none());
        }
        upstream.regroup();
        assert!(upstream.views().is_empty());
    }
}
