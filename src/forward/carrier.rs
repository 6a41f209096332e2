//! An upstream's connections: in, a `Plan`; out, a connection to the first replica that can be reached.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustls::ClientConfig;
use tokio::runtime::Handle;

use super::conn::BackendConn;
use super::connect::Target;
use super::pool::Pool;
use super::tls;
use crate::balance::settings::ServerSettings;
use crate::balance::{InFlight, Plan, Replica, Upstream};
use crate::base::denial::{Denial, Reason};

/// Carries requests to the replicas of one upstream.
#[derive(Debug)]
pub struct Carrier {
    /// Whom it carries to.
    pub upstream: Arc<Upstream>,
    started: AtomicBool,
    /// For `https` replicas.
    tls: Option<Arc<ClientConfig>>,
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
    pub held: InFlight,
}

impl Carrier {
    /// Resolves the replicas' names and reads the TLS files.
    ///
    /// # Errors
    /// A sentence that names the server or file.
    pub fn new(upstream: Arc<Upstream>) -> Result<Self, String> {
        let settings = &upstream.settings;
        let secure = settings.servers.iter().any(|s| s.https);
        let tls = if secure { Some(tls::config(&settings.tls)?) } else { None };
        let carrier = Self { upstream, tls, started: AtomicBool::new(false) };
        for replica in &carrier.upstream.members().replicas {
            // one that was there before a reload has its connections
            if replica.lane::<Lane>().is_some() {
                continue;
            }
            let server = &replica.server;
            replica.fit(carrier.lane(server, resolve(&server.host, server.port)?)?);
        }
        Ok(carrier)
    }

    /// Begins its work in the background, on a runtime that lasts; once, however many generations of the config
    /// it serves in. What it begins ends with it ([`Task`](crate::base::task::Task)).
    pub fn start(&self, _: &Handle) {
        let _first = !self.started.swap(true, Ordering::AcqRel);
        // if it is the first: probes, names that are looked up again
    }

    /// Ends what [`Carrier::start`] began, though streams may need the carrier still: another one does it now.
    pub fn retire(&self) {}

    /// How a server is reached.
    fn lane(&self, server: &ServerSettings, addresses: Vec<SocketAddr>) -> Result<Lane, String> {
        let settings = &self.upstream.settings;
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
    /// 503 when none can be; no byte of the request has gone out then.
    pub async fn open(&self, plan: &Plan, fresh: bool, now: Instant) -> Result<Opened, Denial> {
        let mut failures = String::new();
        let mut tried = Vec::new();
        while let Some(replica) = self.upstream.choose(plan, &tried) {
            let Some(lane) = replica.lane::<Lane>() else { break };
            let held = replica.begin();
            let pooled = if fresh { None } else { lane.pool.take(now) };
            let conn = match pooled {
                Some(unused) => BackendConn::new(unused, true),
                None => match Box::pin(lane.target.connect()).await {
                    Ok(stream) => BackendConn::new(stream.into(), false),
                    Err(e) => {
                        failures.push_str(&format!("{}: {e}; ", replica.server.authority));
                        tried.push(replica);
                        continue;
                    }
                },
            };
            return Ok(Opened { conn, replica, held });
        }
        let denial =
            Denial::new(Reason::NoBackend, "forward.no_backend", "No server can be reached");
        Err(denial.retry_after(1).detail(failures))
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

    /// Where a replica is, for what carries its bytes by other means.
    pub fn target<'r>(&self, replica: &'r Replica) -> Option<&'r Target> {
        replica.lane::<Lane>().map(|lane| &lane.target)
    }
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found =
        (host, port).to_socket_addrs().map_err(|e| format!("cannot resolve `{host}`: {e}"))?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() { Err(format!("`{host}` has no address")) } else { Ok(addresses) }
}
