//! Replicas that DNS names: in, names of the config; out, the servers that they stand for, as they come and go.
//!
//! A plain server with a name is one replica, wherever its name leads; `dns` and `srv` make one of each address. What
//! was found stays while DNS does not answer.

mod asker;
mod known;
mod resolve;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::time::sleep_until;

use super::carrier::Carrier;
use crate::balance::lookup::{DnsSettings, Lookup};
use crate::balance::settings::{ServerSettings, UpstreamSettings};
use crate::base::task::Task;
use crate::base::{defaults, random};
use known::{Known, Left, MOST};
use resolve::Answer;

/// The shortest time between two questions.
const LEAST: Duration = Duration::from_secs(1);
/// The longest time for which it is believed that nobody is there: somebody may be just coming up.
const NOBODY: Duration = Duration::from_secs(5);
/// The longest pause after questions that failed, or were not wholly answered.
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// For all that a question takes.
const WHOLE: Duration = Duration::from_secs(10);
/// The same for all questions of a start together; it goes on without what has not been answered by then.
const START: Duration = Duration::from_secs(3);

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Question {
    /// One server, whose name leads to it.
    Server(ServerSettings),
    /// Servers that a name stands for.
    Lookup(Lookup),
}

/// The names of one upstream, and what they have led to.
#[derive(Debug, Default)]
pub struct Names {
    upstream: String,
    dns: DnsSettings,
    questions: Vec<Question>,
    states: Mutex<Vec<State>>,
}

/// How it stands with one name.
#[derive(Debug, Clone)]
struct State {
    known: Known,
    /// When it is asked for again.
    due: Instant,
    /// Until when what was answered is good.
    good: Instant,
    /// Questions in a row that were not answered, or not wholly.
    failures: u32,
    told: NameView,
}

/// A name as pages and metrics show it.
#[derive(Debug, Clone, Default)]
pub struct NameView {
    /// As in the config.
    pub name: String,
    /// How many replicas, or addresses of one, it stands for.
    pub found: usize,
    /// When DNS answered last.
    pub answered: Option<SystemTime>,
    /// What is wrong with it now.
    pub problem: Option<String>,
    /// Questions that were answered by somebody's address, by nobody's, and not, or not wholly.
    pub counts: [u64; 3],
}

/// The words for the three counts.
pub const RESULTS: [&str; 3] = ["found", "nobody", "failed"];

impl Question {
    /// How long an answer is believed at most.
    fn every(&self) -> Duration {
        match self {
            Self::Server(_) => defaults::LOOKUP_EVERY,
            Self::Lookup(lookup) => lookup.every,
        }
    }

    /// Whether an answer to it is one to the other, too, however the servers are used then.
    fn asks_for_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Server(own), Self::Server(other)) => {
                (&own.host, own.port) == (&other.host, other.port)
            }
            (Self::Lookup(own), Self::Lookup(other)) => own.ask == other.ask,
            (Self::Server(_) | Self::Lookup(_), _) => false,
        }
    }
}

/// As in the config.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => {
                let scheme = if server.https { "https" } else { "http" };
                write!(f, "{scheme}://{}", server.authority)
            }
            Self::Lookup(lookup) => lookup.fmt(f),
        }
    }
}

impl Names {
    /// The names of an upstream. Of those that the one before asked for, what they led to stays, whatever else the
    /// config says of it now.
    pub fn new(settings: &UpstreamSettings, before: Option<&Self>) -> Self {
        let named = settings.servers.iter().filter(|server| server.is_named());
        let questions = named.cloned().map(Question::Server);
        let questions: Vec<Question> =
            questions.chain(settings.lookups.iter().cloned().map(Question::Lookup)).collect();
        let state = |question: &Question| {
            let known = before.and_then(|before| before.known(question, &settings.dns));
            known.unwrap_or_else(|| State::new(question))
        };
        let states = Mutex::new(questions.iter().map(state).collect());
        Self { upstream: settings.name.clone(), dns: settings.dns.clone(), questions, states }
    }

    /// How it stands with the name of another question, to be asked by those DNS servers.
    fn known(&self, question: &Question, dns: &DnsSettings) -> Option<State> {
        let place = self.questions.iter().position(|own| own.asks_for_the_same(question))?;
        let state = self.lock().get(place).cloned()?;
        let now = Instant::now();
        // other DNS servers may say something else
        let due = if self.dns == *dns { state.due.min(now + question.every()) } else { now };
        let told = NameView { name: question.to_string(), ..state.told };
        Some(State { due, good: state.good.min(due), told, ..state })
    }

    /// The servers of the config, where they are known to be, and those that were found; of one that stands twice,
    /// the first.
    pub fn servers(&self, of_config: &[ServerSettings]) -> Vec<ServerSettings> {
        let states = self.lock();
        let of = |question: &Question| {
            let place = self.questions.iter().position(|other| other == question);
            let state = place.and_then(|place| states.get(place));
            state.map(|state| state.known.servers(question)).unwrap_or_default()
        };
        let mut servers: Vec<ServerSettings> = Vec::new();
        for server in of_config {
            match server.is_named() {
                true => servers.extend(of(&Question::Server(server.clone()))),
                false => servers.push(server.clone()),
            }
        }
        for question in self.questions.iter().filter(|q| matches!(q, Question::Lookup(_))) {
            for server in of(question) {
                if !servers.iter().any(|other| other.authority == server.authority) {
                    servers.push(server);
                }
            }
        }
        servers
    }

    /// Whether each has been answered.
    pub(super) fn are_settled(&self) -> bool {
        self.lock().iter().all(|state| state.known.answered)
    }

    /// How it stands with each.
    pub fn views(&self) -> Vec<NameView> {
        let states = self.lock();
        states.iter().map(|s| NameView { found: s.known.len(), ..s.told.clone() }).collect()
    }

    /// Takes what came of a question; whether that changes what is known.
    fn learn(&self, place: usize, result: &Result<Answer, String>) -> bool {
        let mut states = self.lock();
        let (Some(state), Some(question)) = (states.get_mut(place), self.questions.get(place))
        else {
            return false;
        };
        let before = state.known.clone();
        let problem = match result {
            Ok(answer) => {
                let again = Instant::now() < state.good;
                let left = state.known.learn(question, answer, again);
                state.answered(question, answer, &left)
            }
            Err(e) => state.failed(e),
        };
        let name = format!("upstream `{}`: {question}", self.upstream);
        match (&problem, &state.told.problem) {
            // said once, or a night fills the log
            (Some(now), None) => log::warn!("{name}: {now}"),
            (None, Some(_)) => log::info!("{name}: found again"),
            _ => {}
        }
        state.told.problem = problem;
        state.known != before
    }

    fn due(&self, place: usize) -> Option<Instant> {
        self.lock().get(place).map(|state| state.due)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(question: &Question) -> Self {
        let told = NameView { name: question.to_string(), ..NameView::default() };
        let (known, now) = (Known::new(question), Instant::now());
        Self { known, due: now, good: now, failures: 0, told }
    }

    /// What is wrong with the answer.
    fn answered(&mut self, question: &Question, answer: &Answer, left: &Left) -> Option<String> {
        let now = Instant::now();
        let nobody = answer.records.is_empty();
        let most = if nobody { NOBODY.min(question.every()) } else { question.every() };
        let good = now + answer.good_for.clamp(LEAST, most);
        if self.good <= now {
            self.good = good;
        }
        self.told.answered = Some(SystemTime::now());
        if let Some(problem) = in_doubt(answer, left) {
            self.due = good.min(now + self.pause());
            return Some(problem);
        }
        self.due = good;
        self.failures = 0;
        let [found, empty, _] = &mut self.told.counts;
        *(if nobody { empty } else { found }) += 1;
        match left.out {
            0 if nobody => Some("DNS says that nobody is there".to_owned()),
            0 => None,
            out => Some(format!("only {MOST} of its {} addresses are used", MOST + out)),
        }
    }

    fn failed(&mut self, problem: &str) -> Option<String> {
        self.due = Instant::now() + self.pause();
        let kept = if self.known.len() > 0 { "; who was found stays" } else { "" };
        Some(format!("{problem}{kept}"))
    }

    /// Counts one more that failed, and gives the time until the next.
    fn pause(&mut self) -> Duration {
        let doubled = LEAST.saturating_mul(1 << self.failures.min(8)).min(MOST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let [.., failed] = &mut self.told.counts;
        *failed += 1;
        jittered(doubled)
    }
}

/// What an answer does not say. Of one host's addresses it is told only where somebody is missed: many servers fail
/// when they are asked for AAAA that nobody has.
fn in_doubt(answer: &Answer, left: &Left) -> Option<String> {
    let whole = answer.gaps.iter().find(|gap| gap.half.is_none());
    let gap = whole.or(answer.gaps.first().filter(|_| left.kept > 0))?;
    let others = if answer.gaps.len() > 1 { " (and others)" } else { "" };
    let kept = if left.kept > 0 { "; who was found there stays" } else { "" };
    Some(format!("{}{others}: {}{kept}", gap.host, gap.why))
}

/// Between half of it and all: those who failed together do not ask again together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + (random::mixed() % 1024) as f64 / 2048.0)
}

/// Asks for all names that have led nowhere yet, at once, and blocks until that is answered, for a bounded time. On a
/// runtime of its own: a config is put to work inside of another and outside of any.
pub fn ask_all(all: &[Names]) {
    let mut questions = Vec::new();
    for (names, of) in all.iter().enumerate() {
        let states = of.lock();
        for (place, (question, state)) in of.questions.iter().zip(states.iter()).enumerate() {
            if !state.known.answered {
                questions.push((names, place, question.clone(), of.dns.clone()));
            }
        }
    }
    if questions.is_empty() {
        return;
    }
    match std::thread::spawn(move || ask_at_once(questions)).join() {
        Ok(Ok(results)) => {
            for (names, place, result) in results {
                if let Some(of) = all.get(names) {
                    of.learn(place, &result);
                }
            }
        }
        Ok(Err(e)) => log::error!("no names could be asked for: {e}"),
        Err(_) => log::error!("no names could be asked for: a thread has failed"),
    }
}

type Asked = (usize, usize, Question, DnsSettings);
type Told = (usize, usize, Result<Answer, String>);

fn ask_at_once(questions: Vec<Asked>) -> std::io::Result<Vec<Told>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ask = |(names, place, question, dns): Asked| {
        let asked = runtime.spawn(async move { resolve::resolve(&question, &dns, START).await });
        (names, place, asked)
    };
    let asked: Vec<_> = questions.into_iter().map(ask).collect();
    let results = runtime.block_on(async {
        let mut results = Vec::new();
        for (names, place, task) in asked {
            let result = task.await.unwrap_or_else(|e| Err(e.to_string()));
            results.push((names, place, result));
        }
        results
    });
    // the system's own look-up cannot be ended
    runtime.shutdown_background();
    Ok(results)
}

impl Carrier {
    /// Begins to ask again for names whose answers are old. What it begins ends with the carrier.
    pub(super) fn follow_names(self: &Arc<Self>, runtime: &Handle) -> Vec<Task> {
        let follow = |(place, question): (usize, &Question)| {
            let (question, dns) = (question.clone(), self.names.dns.clone());
            Task::spawn(runtime, follow(Arc::downgrade(self), place, question, dns))
        };
        self.names.questions.iter().enumerate().map(follow).collect()
    }
}

/// Asks for one name, for ever.
async fn follow(carrier: Weak<Carrier>, place: usize, question: Question, dns: DnsSettings) {
    while let Some(due) = carrier.upgrade().and_then(|carrier| carrier.names.due(place)) {
        sleep_until(due.into()).await;
        let result = resolve::resolve(&question, &dns, WHOLE).await;
        let Some(carrier) = carrier.upgrade() else { return };
        if carrier.names.learn(place, &result) {
            carrier.renew();
        }
    }
}

#[cfg(test)]
mod tests;
