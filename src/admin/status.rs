//! How the edge stands: in, views of its parts; out, one value that `/status` writes as JSON, and that the page
//! and the terminal show.
//!
//! The names are an interface: README has them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::alarms;
use super::counts::{Counts, Tally};
use super::history::seconds;
use crate::balance::view::{ReplicaView, State};
use crate::base::life::{Life, Phase};
use crate::forward::names::NameView;
use crate::observe::recent;

/// An upstream's replicas at one moment.
#[derive(Debug, Clone)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// Its replicas.
    pub replicas: Vec<ReplicaView>,
    /// The names that DNS is asked for.
    pub names: Vec<NameView>,
}

/// What is known of the parts of the edge that are not counted.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Every upstream, in the order of their names.
    pub upstreams: Vec<UpstreamView>,
    /// Every certificate that listeners serve.
    pub certificates: Vec<Certificate>,
}

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of the edge.
    pub version: String,
    /// `starting`, `ready` or `stopping`.
    pub phase: String,
    /// What `/readyz` says.
    pub ready: bool,
    /// When this was written, in seconds since 1970.
    pub now: f64,
    /// When the process began, likewise.
    pub started: f64,
    /// For how many seconds it has been running.
    pub uptime: f64,
    /// Of the config: 1, and one more for each reload that took effect.
    pub generation: u64,
    /// What somebody should look at, the worst first.
    pub alarms: Vec<Alarm>,
    /// Client connections open.
    pub connections: u64,
    /// Event streams open.
    pub streams: u64,
    /// Requests and streams under way at replicas.
    pub in_flight: u64,
    /// Session ids sealed since the start.
    pub sessions_sealed: u64,
    /// Requests since the start, by status class.
    pub requests: Tally,
    /// Time to the first byte since the start.
    pub first_byte: FirstByte,
    /// The same requests by route.
    pub routes: Vec<Route>,
    /// Every upstream.
    pub upstreams: Vec<Upstream>,
    /// Refusals since the start, the newest first.
    pub refusals: Vec<Refusal>,
    /// Certificates in force, the first to expire first.
    pub certificates: Vec<Certificate>,
}

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// `error`: something does not work; `warning`: something soon will not.
    pub level: String,
    /// A sentence.
    pub text: String,
}

/// Milliseconds that a share of all requests did not exceed; absent where there was none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FirstByte {
    /// Half.
    pub p50_ms: Option<f64>,
    /// 95 of 100.
    pub p95_ms: Option<f64>,
    /// 99 of 100.
    pub p99_ms: Option<f64>,
}

/// Requests of a route.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Route {
    /// Its label; empty for what belongs to no route.
    pub route: String,
    /// Its upstream.
    pub upstream: String,
    /// By status class.
    pub requests: Tally,
}

/// An upstream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Replicas that get new sessions, and whose last requests have not all failed.
    pub available: usize,
    /// All of them.
    pub replicas: Vec<Replica>,
    /// The names that DNS is asked for.
    #[serde(default)]
    pub names: Vec<Name>,
}

/// A name that stands for replicas.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Name {
    /// As in the config.
    pub name: String,
    /// How many replicas, or addresses of one, it stands for.
    pub found: usize,
    /// When DNS answered last, in seconds since 1970; absent where it never did.
    pub answered: Option<f64>,
    /// What is wrong with it now.
    pub problem: Option<String>,
}

/// A replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Replica {
    /// `host:port`.
    pub address: String,
    /// `up`, `starting`, `failing`, `draining`, `ejected` or `down`.
    pub state: String,
    /// Since when, in seconds since 1970; absent for the start of the process.
    pub since: Option<f64>,
    /// What its last failed probe or request ended with; absent once that goes well again.
    pub problem: Option<String>,
    /// When that was, in seconds since 1970.
    #[serde(default)]
    pub problem_at: Option<f64>,
    /// Requests and streams under way.
    pub in_flight: usize,
    /// Time to the first byte, a moving average in milliseconds.
    pub latency_ms: Option<f64>,
    /// Share of new sessions.
    pub weight: u32,
    /// Smaller goes first.
    pub priority: u32,
}

/// Refusals of one code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// As in the access log.
    pub code: String,
    /// How many since the start.
    pub count: u64,
    /// One of the last; absent where none was kept.
    pub last: Option<Example>,
}

/// A refused request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Example {
    /// When it came in, in seconds since 1970.
    pub time: f64,
    /// The answer's status.
    pub status: u16,
    /// The client's address.
    pub client: String,
    /// HTTP method and path.
    pub request: String,
    /// The route's label.
    pub route: Option<String>,
    /// JSON-RPC method.
    pub rpc_method: Option<String>,
    /// Tool, prompt or resource.
    pub tool: Option<String>,
    /// What the client was not told.
    pub detail: String,
}

/// A certificate in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Where it came from.
    pub file: String,
    /// The names in it.
    pub names: Vec<String>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
}

impl Status {
    /// All of it, at one moment.
    pub fn new(
        life: &Life,
        counts: Counts,
        view: View,
        recent: Vec<recent::Refusal>,
        now: SystemTime,
    ) -> Self {
        let upstreams = upstreams(view.upstreams);
        let mut certificates = view.certificates;
        certificates.sort_by_key(|certificate| certificate.expires);
        let phase = life.phase();
        let now = seconds(now);
        let quantile = |share| counts.first_byte.quantile(share).map(millis);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: word(phase).to_owned(),
            ready: is_ready(phase, &upstreams),
            now,
            started: seconds(life.at),
            uptime: millis(life.since.elapsed().as_secs_f64()),
            generation: life.generation(),
            alarms: alarms::alarms(phase, &upstreams, &certificates, &counts, now),
            connections: counts.connections,
            streams: counts.streams,
            in_flight: upstreams.iter().map(Upstream::in_flight).sum(),
            sessions_sealed: counts.sealed,
            first_byte: FirstByte {
                p50_ms: quantile(0.5),
                p95_ms: quantile(0.95),
                p99_ms: quantile(0.99),
            },
            routes: routes(&counts),
            refusals: refusals(&counts.refusals, recent),
            requests: counts.requests,
            upstreams,
            certificates,
        }
    }
}

/// Whether new work should come here: it is at work, and somebody can do it. One upstream of several that is
/// gone does not take the others away. One that fails may answer the next request: what a caller can bring
/// about, such as five calls that a tool answers with 500, must not take the edge out of its balancer.
pub(super) fn is_ready(phase: Phase, upstreams: &[Upstream]) -> bool {
    let worth_a_try = |replica: &Replica| replica.state == State::Failing.name();
    let some =
        |upstream: &Upstream| upstream.available > 0 || upstream.replicas.iter().any(worth_a_try);
    phase == Phase::Ready && upstreams.iter().any(some)
}

/// How upstreams stand.
pub(super) fn upstreams(views: Vec<UpstreamView>) -> Vec<Upstream> {
    views.into_iter().map(Upstream::of).collect()
}

/// The word for a phase.
fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Stopping => "stopping",
    }
}

impl Upstream {
    fn of(view: UpstreamView) -> Self {
        let is_well = |replica: &&ReplicaView| replica.state.is_well();
        Self {
            name: view.name,
            available: view.replicas.iter().filter(is_well).count(),
            replicas: view.replicas.into_iter().map(Replica::of).collect(),
            names: view.names.into_iter().map(Name::of).collect(),
        }
    }

    fn in_flight(&self) -> u64 {
        self.replicas.iter().map(|replica| replica.in_flight as u64).sum()
    }
}

impl Name {
    fn of(view: NameView) -> Self {
        let NameView { name, found, answered, problem, .. } = view;
        Self { name, found, answered: answered.map(seconds), problem }
    }
}

impl Replica {
    fn of(view: ReplicaView) -> Self {
        Self {
            address: view.authority,
            state: view.state.name().to_owned(),
            since: (view.since > SystemTime::UNIX_EPOCH).then(|| seconds(view.since)),
            problem_at: view.problem.as_ref().map(|problem| seconds(problem.at)),
            problem: view.problem.map(|problem| problem.text),
            in_flight: view.in_flight,
            latency_ms: view.latency.map(as_millis),
            weight: view.weight,
            priority: view.priority,
        }
    }
}

fn routes(counts: &Counts) -> Vec<Route> {
    let route = |((route, upstream), requests): (&(String, String), &Tally)| Route {
        route: route.clone(),
        upstream: upstream.clone(),
        requests: requests.clone(),
    };
    counts.routes.iter().map(route).collect()
}

fn refusals(tally: &Tally, recent: Vec<recent::Refusal>) -> Vec<Refusal> {
    let mut all: Vec<Refusal> = tally
        .iter()
        .map(|(code, count)| Refusal { code: code.clone(), count: *count, last: None })
        .collect();
    for example in recent {
        if let Some(refusal) = all.iter_mut().find(|refusal| refusal.code == example.code) {
            refusal.last = Some(Example::of(example));
        }
    }
    let age = |refusal: &Refusal| refusal.last.as_ref().map_or(f64::MIN, |last| last.time);
    all.sort_by(|a, b| age(b).total_cmp(&age(a)));
    all
}

impl Example {
    fn of(refusal: recent::Refusal) -> Self {
        Self {
            time: seconds(refusal.at),
            status: refusal.status,
            client: refusal.client.to_string(),
            request: refusal.request,
            route: refusal.route,
            rpc_method: refusal.rpc_method,
            tool: refusal.tool,
            detail: refusal.detail,
        }
    }
}

fn as_millis(period: Duration) -> f64 {
    millis(period.as_secs_f64() * 1000.0)
}

/// To three places.
fn millis(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::Value;

    use super::*;

    fn replica(state: State) -> ReplicaView {
        ReplicaView {
            authority: "a:1".to_owned(),
            state,
            since: SystemTime::UNIX_EPOCH,
            in_flight: 2,
            latency: Some(Duration::from_micros(1500)),
            weight: 1,
            priority: 0,
            problem: None,
        }
    }

    #[test]
    fn an_upstream_that_fails_is_not_available_and_takes_no_edge_out() {
        let status = status(Phase::Ready, &[&[State::Failing]]);
        assert_eq!((status.ready, status.upstreams[0].available), (true, 0));
        let errors = status.alarms.iter().filter(|alarm| alarm.level == "error");
        assert!(errors.count() >= 1, "{:?}", status.alarms);
    }

    fn status(phase: Phase, states: &[&[State]]) -> Status {
        let life = Life::new();
        life.reach(phase);
        let upstream = |states: &&[State]| UpstreamView {
            name: "u".to_owned(),
            replicas: states.iter().copied().map(replica).collect(),
            names: vec![NameView::default()],
        };
        let certificate =
            Certificate { file: "f".to_owned(), names: vec!["n".to_owned()], expires: 9 };
        let view = View {
            upstreams: states.iter().map(upstream).collect(),
            certificates: vec![certificate],
        };
        let refused = recent::Refusal {
            code: "a.b",
            at: SystemTime::UNIX_EPOCH,
            status: 403,
            client: IpAddr::from([127, 0, 0, 1]),
            request: "GET /".to_owned(),
            route: None,
            rpc_method: None,
            tool: None,
            detail: String::new(),
        };
        let tally = || Tally::from([("4xx".to_owned(), 1)]);
        let counts = Counts {
            refusals: [("a.b".to_owned(), 1), ("c.d".to_owned(), 2)].into(),
            routes: [((String::new(), String::new()), tally())].into(),
            requests: tally(),
            ..Counts::default()
        };
        Status::new(&life, counts, view, vec![refused], SystemTime::now())
    }

    #[test]
    fn one_upstream_that_works_is_enough_to_be_ready() {
        use State::{Down, Draining, Ejected, Starting, Up};
        let ready = |phase, states: &[&[State]]| status(phase, states).ready;
        assert!(ready(Phase::Ready, &[&[Up]]));
        assert!(ready(Phase::Ready, &[&[Down], &[Ejected, Starting]]));
        assert!(!ready(Phase::Ready, &[&[Down, Ejected], &[Draining]]));
        assert!(!ready(Phase::Starting, &[&[Up]]));
        assert!(!ready(Phase::Stopping, &[&[Up]]));
    }

    #[test]
    fn numbers_are_added_up() {
        let status = status(Phase::Ready, &[&[State::Up, State::Down], &[State::Up]]);
        assert_eq!(status.in_flight, 6);
        let first = &status.upstreams[0];
        assert_eq!((first.available, first.replicas[0].latency_ms), (1, Some(1.5)));
        assert_eq!(first.replicas[0].since, None, "nobody has looked since the start");
        let codes: Vec<_> = status.refusals.iter().map(|r| (r.code.as_str(), r.count)).collect();
        assert_eq!(codes, [("a.b", 1), ("c.d", 2)]);
        assert!(status.refusals[0].last.is_some() && status.refusals[1].last.is_none());
    }

    /// The names of all fields, whatever they are in. Those of a tally are words of the edge's.
    fn names(value: &Value, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    all.push(name.clone());
                    if name != "requests" {
                        names(value, all);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| names(item, all)),
            _ => {}
        }
    }

    #[test]
    fn the_readme_names_every_field() {
        let status = status(Phase::Stopping, &[&[State::Up]]);
        let mut all = Vec::new();
        names(&serde_json::to_value(&status).unwrap(), &mut all);
        assert!(all.len() > 40, "{all:?}");
        let readme = include_str!("../../README.md");
        let section = readme.split("### Status as JSON").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
        let missing: Vec<_> =
            all.iter().filter(|name| !section.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "README says nothing of {missing:?}");
    }
}
