//! Checks of replicas in the background: in, an upstream; out, what its replicas are told of their health.
//!
//! The listeners' connections are not touched: every question has one of its own.

mod ask;
mod mcp;
mod message;
mod open;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::balance::health::settings::{Check, HealthSettings, HttpCheck};
use crate::balance::{Replica, Upstream};
use crate::base::task::Task;
use ask::{Line, Question};
use mcp::Mcp;

pub use open::close;

/// How often ejections and slow starts are looked at, and new replicas found.
const TICK: Duration = Duration::from_secs(1);
/// The shortest time between two checks in doubt.
const SOON: Duration = Duration::from_secs(1);
/// The first check comes within this time, not those of all replicas at once.
const FIRST: Duration = Duration::from_millis(200);
/// How much of a body is searched for a text, in bytes.
const MAX_SEARCHED: usize = 64 << 10;

/// Looks after an upstream's replicas for as long as it lives.
pub(super) async fn look_after(upstream: Arc<Upstream>) {
    let mut checks: Vec<(Arc<Replica>, Task)> = Vec::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        upstream.tick();
        let replicas = upstream.members().replicas.clone();
        if let Some(settings) = &upstream.settings.health {
            checks.retain(|(checked, _)| replicas.iter().any(|r| Arc::ptr_eq(r, checked)));
            for replica in &replicas {
                if !checks.iter().any(|(checked, _)| Arc::ptr_eq(replica, checked)) {
                    let check =
                        check_again_and_again(upstream.clone(), replica.clone(), settings.clone());
                    checks.push((replica.clone(), Task::spawn(&Handle::current(), check)));
                }
            }
        }
        knock(&upstream, &replicas).await;
    }
}

/// Tries to connect to those whose requests could not, so that they need not sit out their rest.
async fn knock(upstream: &Arc<Upstream>, replicas: &[Arc<Replica>]) {
    let mut knocks = JoinSet::new();
    for replica in replicas.iter().filter(|replica| replica.health.is_unreachable()) {
        let (upstream, replica) = (upstream.clone(), replica.clone());
        knocks.spawn(async move {
            let line = Line::new(replica.clone(), &upstream.settings);
            if let Ok(Ok(_)) = timeout(TICK, line.connect()).await {
                upstream.reached(&replica);
            }
        });
    }
    while knocks.join_next().await.is_some() {}
}

async fn check_again_and_again(
    upstream: Arc<Upstream>,
    replica: Arc<Replica>,
    settings: HealthSettings,
) {
    let fresh = || Probe::new(&upstream, &replica, &settings.check);
    let mut probe = fresh();
    sleep(FIRST.mul_f64(random())).await;
    loop {
        let mut asked = tokio::spawn(async move {
            let result = probe.check().await;
            (probe, result)
        });
        let result = in_time(&upstream, &replica, &settings, &mut asked).await;
        probe = match result {
            Some((probe, Some(result))) => {
                upstream.checked(&replica, result, &settings);
                probe
            }
            Some((probe, None)) => probe,
            None => fresh(),
        };
        let every = if replica.health.in_doubt() { soon(settings.every) } else { settings.every };
        sleep(every.mul_f64(0.9 + random() / 5.0)).await;
    }
}

type Asked = JoinHandle<(Probe, Result<(), String>)>;

/// Waits for the end of a check: its result, or none where that came too late and was told before; `None` for one
/// that broke down. The check is a task of its own: what is begun is brought to its end, also when this one ends,
/// so that no session is left open.
async fn in_time(
    upstream: &Upstream,
    replica: &Replica,
    settings: &HealthSettings,
    asked: &mut Asked,
) -> Option<(Probe, Option<Result<(), String>>)> {
    let mut limit = settings.timeout;
    let mut late = false;
    loop {
        match timeout(limit, &mut *asked).await {
            Ok(Ok((probe, result))) => return Some((probe, (!late).then_some(result))),
            Ok(Err(e)) => {
                log::error!("a check of {} broke down: {e}", replica.server.authority);
                return None;
            }
            Err(_) => {
                let problem =
                    format!("the check took longer than {} ms", settings.timeout.as_millis());
                upstream.checked(replica, Err(problem), settings);
                late = true;
                limit = soon(settings.every);
            }
        }
    }
}

/// The time to the next check of a replica that is on its way up or down.
fn soon(every: Duration) -> Duration {
    (every / 5).max(SOON).min(every)
}

/// 0 to 1.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

/// How one replica is checked.
#[derive(Debug)]
enum Probe {
    Tcp(Line),
    Http(Line, HttpCheck),
    Mcp(Box<Mcp>),
}

impl Probe {
    fn new(upstream: &Upstream, replica: &Arc<Replica>, check: &Check) -> Self {
        let line = Line::new(replica.clone(), &upstream.settings);
        let name = format!("upstream `{}`: {}", upstream.settings.name, replica.server.authority);
        match check {
            Check::Tcp => Self::Tcp(line),
            Check::Http(check) => Self::Http(line, check.clone()),
            Check::Mcp(check) => Self::Mcp(Box::new(Mcp::new(name, line, check.clone()))),
        }
    }

    async fn check(&mut self) -> Result<(), String> {
        match self {
            Self::Tcp(line) => line.connect().await.map(drop),
            Self::Http(line, check) => http(line, check).await,
            Self::Mcp(mcp) => mcp.check().await,
        }
    }
}

async fn http(line: &Line, check: &HttpCheck) -> Result<(), String> {
    let HttpCheck { path, status, body } = check;
    let question = Question { method: Method::GET, path, fields: &[("Accept", "*/*")], body: None };
    let reply = line.ask(&question).await?;
    let answered = reply.head.status;
    let good =
        if status.is_empty() { (200..300).contains(&answered) } else { status.contains(&answered) };
    if !good {
        return Err(format!("answered {answered}"));
    }
    let Some(wanted) = body else { return Ok(()) };
    let read = reply.beginning(MAX_SEARCHED).await?;
    if memchr::memmem::find(&read, wanted.as_bytes()).is_some() {
        return Ok(());
    }
    Err("the body does not have the text".to_owned())
}
