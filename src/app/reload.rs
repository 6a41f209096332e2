//! Another config for an edge that runs: in, its file; out, a new generation at work, or nothing changed and why.
//!
//! First all is made that can fail: the config is compiled, names are looked up, sockets are bound. Then it is
//! put in place in one step. What the new config says in the same words as the one before goes on as it is:
//! connections to servers, counters, caches, keys. Streams are looked at again, and those whose caller, address,
//! certificate, route or listener is let in no more are ended.

use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use super::files::Files;
use super::sockets::{Socket, bind_one, name_ports};
use super::upgrade::{Held, Inherited};
use crate::acme::{self, store::Store};
use crate::base::kept::{Kept, Sum};
use crate::base::life::{Life, Phase};

use crate::config::{self, Fixed, Settings, report};
use crate::control;
use crate::listen::accept::Front;
use crate::listen::acme::AcmeSettings;
use crate::listen::place::Post;
use crate::listen::service::Opening;
use crate::listen::settings::ListenerSettings;
use crate::observe::Observer;
use crate::proxy::Edge;
use crate::proxy::runtime::Runtime;

/// Keys that cannot be renewed, and that nothing else may be renewed beside.
const WHOLE: [&str; 3] = ["audit", "state_dir", "traces"];

/// What a reload renews.
pub(super) struct Reloader {
    /// The config's file; absent where there is none.
    pub(super) source: Option<PathBuf>,
    pub(super) edge: Arc<Edge>,
    pub(super) observer: Observer,
    pub(super) life: Arc<Life>,
    pub(super) files: Arc<ArcSwap<Files>>,
    pub(super) opener: UnboundedSender<Opening<Edge>>,
    /// The sockets of all places, for a process that takes over.
    pub(super) held: Arc<Held>,
    /// One reload at a time.
    pub(super) state: Mutex<State>,
}

/// What is at work besides the [`Runtime`].
pub(super) struct State {
    pub(super) kept: Kept,
    pub(super) open: Vec<Listening>,
    /// What cannot be renewed, by its key and a sum of what it said at the start.
    pub(super) fixed: Vec<(&'static str, Sum)>,
    pub(super) acme: (Vec<AcmeSettings>, Option<acme::Keeper>),
}

/// A place that is listened at.
pub(super) struct Listening {
    /// As the config has it.
    pub(super) address: SocketAddr,
    pub(super) bound: SocketAddr,
    pub(super) post: Arc<Post<Edge>>,
}

/// A reload that took effect.
pub(super) struct Done {
    generation: u64,
    /// What did not, and what is not as it should be.
    notes: Vec<String>,
}

impl Reloader {
    /// Loads the config's file and puts it to work. Blocks its thread.
    ///
    /// # Errors
    /// Sentences; nothing has changed.
    pub(super) fn reload(&self) -> Result<Done, Vec<String>> {
        let done = self.try_reload();
        let metrics = &self.observer.metrics;
        metrics.service.reloaded(done.is_ok(), self.life.generation());
        // what a failed one has read has changed all the same
        self.look();
        match &done {
            Ok(Done { generation, notes }) => {
                log::info!("generation {generation} of the config is at work");
                notes.iter().for_each(|note| log::warn!("{note}"));
            }
            Err(problems) => {
                problems.iter().for_each(|problem| log::error!("{problem}"));
                let generation = self.life.generation();
                log::error!("the config was not reloaded: generation {generation} goes on");
            }
        }
        done
    }

    /// What SIGHUP asks for: a reload; where there is no config file, a look at those that there are.
    pub(super) fn on_signal(&self) {
        if self.source.is_none() {
            return self.look();
        }
        if let Err(problems) = self.reload() {
            log::debug!("{} problems were told", problems.len());
        }
    }

    /// Looks at the files that the config names, and at streams where one has changed.
    pub(super) fn look(&self) {
        if self.files.load().refresh(&self.observer.metrics) {
            self.edge.look_again();
        }
    }

    fn try_reload(&self) -> Result<Done, Vec<String>> {
        let Some(path) = &self.source else {
            return Err(vec!["the edge runs without a config file: there is none to load".into()]);
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.life.phase() == Phase::Stopping {
            return Err(vec!["the edge is stopping".into()]);
        }
        let env = |name: &str| std::env::var(name).ok();
        let refuse = |fixed: &[Fixed]| state.whole_differs(fixed);
        let loaded = config::load_again(path, &env, state.kept.clone(), &refuse);
        let mut settings = loaded.map_err(|errors| {
            let text = report::errors(&path.display().to_string(), &errors);
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })?;
        let plan = state.places(&settings)?;
        name_ports(&mut settings, &plan.iter().map(Planned::bound).collect::<Vec<_>>());
        let before = self.edge.runtime();
        let runtime = Runtime::after(&settings, &before)?;
        let places = self.receive(plan, &settings)?;
        // nothing can fail from here on
        Ok(self.commit(&mut state, settings, Arc::new(runtime), &before, places))
    }

    /// Makes who is to receive at each place.
    fn receive(
        &self,
        plan: Vec<Planned>,
        settings: &Settings,
    ) -> Result<Vec<(Planned, Front<Edge>)>, Vec<String>> {
        let both = plan.into_iter().zip(&settings.listeners);
        let received = both.map(|(planned, listener)| {
            let listener = Arc::new(listener.clone());
            let front = match &planned {
                Planned::Open(open) => open.post.front().renewed(listener),
                Planned::Bound(_, (_, bound)) => Front::new(*bound, listener, self.edge.clone()),
            };
            front.map(|front| (planned, front)).map_err(|e| vec![format!("TLS: {e}")])
        });
        received.collect()
    }

    fn commit(
        &self,
        state: &mut State,
        settings: Settings,
        runtime: Arc<Runtime>,
        before: &Runtime,
        places: Vec<(Planned, Front<Edge>)>,
    ) -> Done {
        runtime.start(&Handle::current());
        // before whoever comes by a new listener
        self.edge.renew(runtime.clone());
        let open: Vec<Listening> =
            places.into_iter().map(|(p, front)| self.open(p, front)).collect();
        let left = mem::replace(&mut state.open, open);
        for gone in left.iter().filter(|l| !state.open.iter().any(|o| o.is(l))) {
            eprintln!("mcp-edge: no longer listening on {}", gone.bound);
            self.held.forget(gone.bound);
            gone.post.close();
        }
        self.files.store(Arc::new(Files::new(&settings)));
        let generation = self.life.renewed();
        before.retire(&runtime);
        // last: streams look at all of it
        self.edge.look_again();
        self.observer.metrics.backends.forget();
        let mut notes = self.warnings(&settings);
        notes.extend(state.fixed_differs(&settings));
        notes.extend(self.files.load().problems());
        notes.extend(state.renew_acme(&settings, &self.observer));
        state.kept = settings.kept;
        Done { generation, notes }
    }

    fn warnings(&self, settings: &Settings) -> Vec<String> {
        let source = self.source.as_ref().map(|path| path.display().to_string());
        report::warnings(&source.unwrap_or_default(), settings)
    }

    /// Renews a place that is open, or opens another.
    fn open(&self, planned: Planned, front: Front<Edge>) -> Listening {
        match planned {
            Planned::Open(open) => {
                open.post.renew(front);
                open
            }
            Planned::Bound(address, (socket, bound)) => {
                let scheme = if front.settings().tls.is_some() { "https" } else { "http" };
                eprintln!("mcp-edge: listening on {scheme}://{bound}");
                let post = Post::new(front);
                self.held.keep(&address.to_string(), &socket);
                if self.opener.send((socket, post.clone())).is_err() {
                    log::error!("{bound} is not listened at: the edge is stopping");
                }
                Listening { address, bound, post }
            }
        }
    }
}

/// A place of a new config: one that is open, or a socket that nobody has come to yet.
enum Planned {
    Open(Listening),
    Bound(SocketAddr, Socket),
}

impl Planned {
    fn bound(&self) -> SocketAddr {
        match self {
            Self::Open(open) => open.bound,
            Self::Bound(_, (_, bound)) => *bound,
        }
    }
}

impl Listening {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.post, &other.post)
    }

    fn again(&self) -> Self {
        Self { address: self.address, bound: self.bound, post: self.post.clone() }
    }
}

impl State {
    /// The places of a config: those that are open, and sockets for the others.
    fn places(&self, settings: &Settings) -> Result<Vec<Planned>, Vec<String>> {
        let (mut places, mut problems) = (Vec::new(), Vec::new());
        let mut left: Vec<&Listening> = self.open.iter().collect();
        for ListenerSettings { address, .. } in &settings.listeners {
            // with port 0, one address may stand several times
            if let Some(at) = left.iter().position(|open| open.address == *address) {
                places.push(Planned::Open(left.remove(at).again()));
                continue;
            }
            match bind_one(*address, &settings.listeners, &mut Inherited::default()) {
                Ok(socket) => places.push(Planned::Bound(*address, socket)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(places) } else { Err(problems) }
    }

    /// What was changed and would be in force in part: routes would be told of an audit log that nobody writes,
    /// sessions be sealed with the key of another folder.
    fn whole_differs(&self, fixed: &[Fixed]) -> Vec<String> {
        let both = self.fixed.iter().zip(fixed);
        let differ = both.filter(|(was, is)| was != is && WHOLE.contains(&was.0));
        let told = |(key, _): &(&str, _)| {
            format!("`{key}` was changed: that needs a restart, and the rest was not taken either")
        };
        differ.map(|(was, _)| told(was)).collect()
    }

    fn fixed_differs(&self, settings: &Settings) -> Vec<String> {
        let both = self.fixed.iter().zip(&settings.fixed);
        let differ = both.filter(|(before, now)| before != now);
        differ.map(|((key, _), _)| format!("`{key}` was changed: that needs a restart")).collect()
    }

    /// Why no certificate is kept any more, if that is so; the next reload tries again.
    fn renew_acme(&mut self, settings: &Settings, observer: &Observer) -> Option<String> {
        if self.acme.0 == settings.acme {
            return None;
        }
        // first the old one ends: both would want the same locks
        self.acme = (Vec::new(), None);
        // what it failed at may not be wanted any more
        observer.metrics.service.forget_acme();
        match keep_certificates(settings, observer) {
            Ok(keeper) => {
                self.acme = (settings.acme.clone(), keeper);
                None
            }
            Err(problem) => Some(problem),
        }
    }
}

/// Begins to obtain certificates, where the config wants any.
///
/// # Errors
/// A sentence.
pub(super) fn keep_certificates(
    settings: &Settings,
    observer: &Observer,
) -> Result<Option<acme::Keeper>, String> {
    let noted = observer.metrics.clone();
    let told = Box::new(move |name: &str, good: bool| noted.service.set_acme_failed(name, !good));
    acme::start(settings.acme.clone(), Store::new(&settings.state_dir), told)
        .map_err(|e| format!("ACME: {e}"))
}

/// `{"do":"reload"}` of the control socket.
pub(super) struct Reload(pub(super) Arc<Reloader>);

impl control::Command for Reload {
    fn name(&self) -> &'static str {
        "reload"
    }

    fn run<'a>(&'a self, _: &'a Value, _: &'a UnixStream) -> control::Reply<'a> {
        let reloader = self.0.clone();
        Box::pin(async move {
            let generation = |this: &Reloader| this.life.generation();
            let reloaded = {
                let reloader = reloader.clone();
                tokio::task::spawn_blocking(move || reloader.reload()).await
            };
            match reloaded {
                Ok(Ok(Done { generation, notes })) => {
                    json!({ "ok": true, "generation": generation, "notes": notes })
                }
                Ok(Err(errors)) => {
                    json!({ "ok": false, "generation": generation(&reloader), "errors": errors })
                }
                Err(e) => control::failed(&e.to_string()),
            }
        })
    }
}
