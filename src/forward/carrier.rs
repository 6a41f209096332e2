//! An upstream's connections: in, a `Plan`; out, a connection to the first replica that can be reached.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::budget::Budget;
use super::conn::BackendConn;
use super::connect::Target;
use super::counts::{Counts, Retry};
use super::gate::{Gate, Place};
use super::names::{NameView, Names};
use super::pool::Pool;
use super::{probe, tls};
use crate::balance::health::Cause;
use crate::balance::settings::{ServerSettings, UpstreamSettings};
use crate::balance::{InFlight, Plan, Replica, Upstream};
use crate::base::denial::{Denial, Reason};
use crate::base::task::Task;
use crate::base::url;

/// Carries requests to the replicas of one upstream.
#[derive(Debug)]
pub struct Carrier {
    /// Whom it carries to.
    pub upstream: Arc<Upstream>,
    /// For `https` replicas.
    tls: Option<Arc<ClientConfig>>,
    gate: Option<Gate>,
    budget: Budget,
    /// Retries and waits.
    pub counts: Arc<Counts>,
    /// Where names have led.
    pub names: Names,
    /// Held while members come and go, from the look at what is known until they have.
    renewing: Mutex<()>,
    started: AtomicBool,
    /// What goes on in the background: whoever begins something there puts it here.
    tasks: Mutex<Vec<Task>>,
}

/// How one replica is reached; kept with the replica, and gone with it.
#[derive(Debug)]
struct Lane {
    target: Target,
    pool: Pool,
}

/// A connection, the replica at its end, and its place in that replica's count.
#[derive(Debug)]
pub struct Opened {
    /// Ready for a request.
    pub conn: BackendConn,
    /// At its other end.
    pub replica: Arc<Replica>,
    /// Held until the answer is complete.
    pub held: Held,
}

/// What a request holds until its answer is complete.
#[derive(Debug)]
pub struct Held {
    in_flight: InFlight,
    place: Option<Place>,
}

impl Held {
    /// It goes on as a stream that waits for what may come: others may have its place.
    pub fn make_room(&mut self) {
        self.in_flight.listen();
        self.place = None;
    }
}

impl Carrier {
    /// Fits out the replicas, and reads the TLS files. `names` is what the replicas were found by; requests that are
    /// under way by the one before count here.
    ///
    /// # Errors
    /// A sentence that names the server or file.
    pub fn new(
        upstream: Arc<Upstream>,
        names: Names,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let settings = &upstream.settings;
        let tls = tls_for(settings)?;
        let counts = before.map(|before| before.counts.clone()).unwrap_or_default();
        let old = before.and_then(|before| before.gate.as_ref());
        let gate = settings.circuit.as_ref();
        let gate = gate.map(|circuit| Gate::new(circuit, old, counts.clone()));
        let budget = Budget::new(settings.retry.budget, Instant::now());
        let (started, renewing, tasks) = Default::default();
        let carrier = Self { upstream, tls, gate, budget, counts, names, renewing, started, tasks };
        carrier.upstream.settle(carrier.names.are_settled());
        for replica in &carrier.upstream.members().replicas {
            // one that was there before a reload has its connections
            if replica.lane::<Lane>().is_some() {
                continue;
            }
            replica.fit(carrier.lane(&replica.server)?);
        }
        Ok(carrier)
    }

    /// Takes up who is found by now, and lets go of who is gone: what is under way with those goes on.
    pub(super) fn renew(&self) {
        let _renewing = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = &self.upstream.settings;
        let servers = self.names.servers(&settings.servers);
        let before = self.upstream.members().clone();
        self.upstream.replace(&servers, |replica| match self.lane(&replica.server) {
            Ok(lane) => replica.fit(lane),
            Err(e) => log::error!("upstream `{}`: {e}", settings.name),
        });
        self.upstream.settle(self.names.are_settled());
        let now = self.upstream.members().clone();
        for server in &servers {
            if let (Some(replica), Some(found)) = (now.named(&server.authority), &server.found)
                && let Some(target) = target(replica)
            {
                target.moved(found.addresses.clone());
            }
        }
        for replica in &now.replicas {
            let server = &replica.server;
            if before.named(&server.authority).is_none_or(|other| !Arc::ptr_eq(other, replica)) {
                let at = shown(server);
                log::info!("upstream `{}`: {} is there{at}", settings.name, server.authority);
            }
        }
        for replica in &before.replicas {
            let authority = &replica.server.authority;
            let other = now.named(authority);
            if other.is_some_and(|other| Arc::ptr_eq(other, replica)) {
                continue;
            }
            if let Some(lane) = replica.lane::<Lane>() {
                lane.pool.close();
            }
            if other.is_none() {
                log::info!("upstream `{}`: {authority} is gone", settings.name);
            }
        }
    }

    /// Begins its work in the background, on a runtime that lasts; once, however many generations of the config
    /// it serves in. What it begins ends with it.
    pub fn start(self: &Arc<Self>, runtime: &Handle) {
        if self.started.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(gate) = &self.gate {
            gate.open();
        }
        let health = Task::spawn(runtime, probe::look_after(self.upstream.clone()));
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(health);
        tasks.extend(self.follow_names(runtime));
    }

    /// Ends what [`Carrier::start`] began, though streams may need the carrier still: another one does it now.
    pub fn retire(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How a server is reached.
    fn lane(&self, server: &ServerSettings) -> Result<Lane, String> {
        let settings = &self.upstream.settings;
        let ip = server.host.parse::<IpAddr>().ok();
        let own = ip.map(|ip| SocketAddr::new(ip, server.port));
        let addresses = match &server.found {
            Some(found) => found.addresses.clone(),
            None => own.into_iter().collect(),
        };
        let tls = match &self.tls {
            Some(config) if server.https => {
                Some((config.clone(), tls::server_name(&settings.tls, &server.host)?))
            }
            _ => None,
        };
        let target = Target::new(addresses, tls, settings.connect_timeout);
        Ok(Lane { target, pool: Pool::new(settings.idle_timeout) })
    }

    /// A connection to the first replica of the plan that can be reached. `fresh` leaves pooled
    /// connections alone; the others have not been unused for too long at `now`.
    ///
    /// # Errors
    /// 503 when none can be, or when there is no room for the request in time; 404 when it belongs to a
    /// replica that is lost. No byte of the request has gone out then.
    pub async fn open(&self, plan: &Plan, fresh: bool, now: Instant) -> Result<Opened, Denial> {
        let place = match &self.gate {
            Some(gate) => Some(Box::pin(gate.enter()).await?),
            None => None,
        };
        self.budget.earn();
        let Some(replica) = self.upstream.choose(plan, &[]) else {
            return Err(self.nobody());
        };
        let pooled = if fresh { None } else { take(&replica, now) };
        match pooled {
            Some(conn) => {
                let held = Held { in_flight: replica.begin(), place };
                Ok(Opened { conn, replica, held })
            }
            None => Box::pin(self.connect(plan, replica, place, fresh)).await,
        }
    }

    /// What a client is told where nobody takes anything new.
    fn nobody(&self) -> Denial {
        if !self.upstream.members().replicas.is_empty() {
            return unreachable("no replica takes requests".to_owned());
        }
        let views = self.names.views();
        let problem = |v: &NameView| Some(format!("{}: {}", v.name, v.problem.as_ref()?));
        let problems: Vec<String> = views.iter().filter_map(problem).collect();
        let denial = Denial::new(Reason::NoBackend, "upstream.no_replica", "No server is there");
        denial.retry_after(1).detail(problems.join("; "))
    }

    /// A new connection, to that replica or, where the plan has others, to another.
    async fn connect(
        &self,
        plan: &Plan,
        mut replica: Arc<Replica>,
        place: Option<Place>,
        fresh: bool,
    ) -> Result<Opened, Denial> {
        let (mut failures, mut tried, mut retries) = (String::new(), Vec::new(), 0);
        loop {
            let in_flight = replica.begin();
            let failed = match dial(&replica).await {
                Ok(conn) => {
                    let held = Held { in_flight, place };
                    return Ok(Opened { conn, replica, held });
                }
                Err(failed) => failed,
            };
            drop(in_flight);
            self.upstream.failed(&replica, Cause::Connect);
            failures.push_str(&format!("{}: {failed}; ", replica.server.authority));
            tried.push(replica);
            replica = match self.another(plan, &mut tried, &mut retries).await {
                Some(next) => next,
                None => return Err(given_up(plan, failures)),
            };
            // the first had none
            if !fresh && let Some(conn) = take(&replica, Instant::now()) {
                let held = Held { in_flight: replica.begin(), place };
                return Ok(Opened { conn, replica, held });
            }
        }
    }

    /// Where to try again, after a pause from the second time on; `None` when that is not to be.
    async fn another(
        &self,
        plan: &Plan,
        tried: &mut Vec<Arc<Replica>>,
        retries: &mut u32,
    ) -> Option<Arc<Replica>> {
        let retry = &self.upstream.settings.retry;
        if *retries >= retry.most {
            return None;
        }
        if !self.budget.spend(Instant::now()) {
            self.counts.unpaid();
            return None;
        }
        if let Some(doubled) = retries.checked_sub(1) {
            sleep(jittered(retry.backoff.saturating_mul(1 << doubled.min(16)))).await;
        }
        *retries += 1;
        self.counts.retried(Retry::Connect);
        if let Some(next) = self.upstream.choose(plan, tried) {
            return Some(next);
        }
        // all of them have had their turn: another round
        tried.clear();
        self.upstream.choose(plan, tried)
    }

    /// Keeps a connection, unused since `now`, for the next request, if it can carry one.
    pub fn give_back(&self, conn: BackendConn, replica: &Replica, now: Instant) {
        if let (Some(unused), Some(lane)) = (conn.into_reusable(), replica.lane::<Lane>()) {
            lane.pool.give(unused, now);
        }
    }

    /// Closes connections that have been unused for too long.
    pub fn sweep(&self) {
        for replica in &self.upstream.members().replicas {
            if let Some(lane) = replica.lane::<Lane>() {
                lane.pool.sweep();
            }
        }
    }

    /// Requests that wait for room; absent where there is no `circuit`.
    pub fn waiting(&self) -> Option<usize> {
        self.gate.as_ref().map(Gate::waiting)
    }

    /// Where a replica is, for what carries its bytes by other means.
    pub fn target<'r>(&self, replica: &'r Replica) -> Option<&'r Target> {
        replica.lane::<Lane>().map(|lane| &lane.target)
    }
}

/// Where a replica is, for checks.
pub(super) fn target(replica: &Replica) -> Option<&Target> {
    replica.lane::<Lane>().map(|lane| &lane.target)
}

/// An unused connection to a replica.
fn take(replica: &Replica, now: Instant) -> Option<BackendConn> {
    let unused = replica.lane::<Lane>()?.pool.take(now)?;
    Some(BackendConn::new(unused, true))
}

/// A new connection to a replica.
async fn dial(replica: &Replica) -> io::Result<BackendConn> {
    let Some(lane) = replica.lane::<Lane>() else {
        return Err(io::Error::other("it is not fitted"));
    };
    let connected = lane.target.connect().await;
    match &connected {
        Ok(_) => replica.connected(true),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => replica.connected(false),
        Err(_) => {}
    }
    Ok(BackendConn::new(connected?.into(), false))
}

/// What a client is told whose request nobody takes.
fn given_up(plan: &Plan, failures: String) -> Denial {
    match Upstream::pinned_to(plan) {
        // its process is gone, and what it kept in memory: only a new session can go on
        Some(replica) if replica.is_lost() => Upstream::lost().detail(failures),
        _ => unreachable(failures),
    }
}

fn unreachable(failures: String) -> Denial {
    let denial = Denial::new(Reason::NoBackend, "forward.no_backend", "No server can be reached");
    denial.retry_after(1).detail(failures)
}

/// Between half of it and all: who failed together does not come back together.
fn jittered(pause: Duration) -> Duration {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // a Weyl sequence: the golden ratio spreads its values evenly
    let n = NEXT.fetch_add(0x9e37_79b9, Ordering::Relaxed);
    pause.mul_f64(0.5 + f64::from(n) / f64::from(u32::MAX) / 2.0)
}

/// Where a plain server's name has led, for the log; of others the authority says it.
fn shown(server: &ServerSettings) -> String {
    let first = server.found.as_ref().and_then(|found| found.addresses.first());
    first
        .filter(|address| !server.authority.starts_with(&url::bracketed(&address.ip().to_string())))
        .map_or_else(String::new, |address| format!(", at {address}"))
}

/// What `https` replicas need: those that may come, too. All their names must be good for certificates.
fn tls_for(settings: &UpstreamSettings) -> Result<Option<Arc<ClientConfig>>, String> {
    let mut lookups = settings.lookups.iter().filter(|lookup| lookup.https).peekable();
    if lookups.peek().is_none() && !settings.servers.iter().any(|server| server.https) {
        return Ok(None);
    }
    for lookup in lookups {
        tls::server_name(&settings.tls, lookup.ask.host())?;
    }
    tls::config(&settings.tls).map(Some)
}
