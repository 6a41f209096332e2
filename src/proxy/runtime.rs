//! One generation of the config, at work: in, `Settings`; out, routes, upstreams and keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;

use super::metadata::Metadata;
use super::redirect::Hosts;
use crate::balance::session::SessionKeys;
use crate::balance::settings::UpstreamSettings;
use crate::balance::{Keys, Upstream};
use crate::base::limits::Limits;
use crate::base::table::Table;
use crate::config::Settings;
use crate::forward::carrier::Carrier;
use crate::forward::names::{self, Names};
use crate::limit::buffer::Budget;
use crate::route::Routes;

/// What a request is served with, from its first byte to its last.
#[derive(Debug)]
pub struct Runtime {
    /// The routing table.
    pub routes: Routes,
    /// Upstreams by name.
    pub carriers: Table<Arc<Carrier>>,
    /// What seals and opens session ids.
    pub keys: Keys,
    /// Limits of routes.
    limits: Vec<Arc<dyn Limits>>,
    /// The hosts that https may be sent to.
    pub hosts: Hosts,
    /// What the routes are to OAuth; absent where they are nothing.
    pub metadata: Option<Metadata>,
    /// Request bodies held at once.
    pub budget: Budget,
    _alive: Alive,
}

/// Counts the generations that are there.
#[derive(Debug)]
struct Alive;

static ALIVE: AtomicUsize = AtomicUsize::new(0);

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Generations of the config of this process that serve a request still, the one at work included.
pub fn alive() -> usize {
    ALIVE.load(Ordering::Relaxed)
}

impl Runtime {
    /// The first generation: asks for names, for a bounded time, reads TLS files and builds the tables.
    ///
    /// # Errors
    /// Every upstream that cannot be put to work, each in a sentence.
    pub fn new(settings: &Settings) -> Result<Self, Vec<String>> {
        Self::build(settings, None)
    }

    /// The generation after another, with whom it has in common what is said of in the same words: upstreams with
    /// their connections, and of changed ones the replicas that have not.
    ///
    /// # Errors
    /// As [`Runtime::new`]. The other one goes on as it was then.
    pub fn after(settings: &Settings, before: &Self) -> Result<Self, Vec<String>> {
        Self::build(settings, Some(before))
    }

    fn build(settings: &Settings, before: Option<&Self>) -> Result<Self, Vec<String>> {
        let mut carriers = Table::default();
        let mut problems = Vec::new();
        let old = |upstream: &UpstreamSettings| before?.carriers.get(&upstream.name);
        let names: Vec<Names> =
            settings.upstreams.iter().map(|upstream| names(upstream, old(upstream))).collect();
        names::ask_all(&names);
        for (upstream, names) in settings.upstreams.iter().zip(names) {
            let name = upstream.name.clone();
            match carrier(upstream, names, old(upstream)) {
                Ok(carrier) => {
                    carriers.insert(name, carrier);
                }
                Err(problem) => problems.push(format!("upstream `{name}`: {problem}")),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let routes = Routes::new(settings.routes.iter().cloned().map(Arc::new));
        let keys: SessionKeys = settings.session_keys.clone();
        let keys = Keys { keys, max_age: settings.session_max_age };
        let limits = settings.routes.iter().filter_map(|route| route.limits.clone()).collect();
        let hosts = Hosts::new(settings);
        let budget = before.map(|before| before.budget.clone());
        let budget = budget.filter(|budget| budget.most() == settings.buffer_budget);
        let budget = budget.unwrap_or_else(|| Budget::new(settings.buffer_budget));
        let metadata = Metadata::new(&settings.routes);
        let _alive = Alive::new();
        Ok(Self { routes, carriers, keys, hosts, limits, metadata, budget, _alive })
    }

    /// Another generation is at work: what goes on in the background for upstreams that it does not have ends,
    /// also while a stream keeps them.
    pub fn retire(&self, after: &Self) {
        for (name, carrier) in &self.carriers {
            if !after.carriers.get(name).is_some_and(|other| Arc::ptr_eq(carrier, other)) {
                carrier.retire();
            }
        }
    }

    /// It goes to work: begins what its upstreams do in the background, on a runtime that lasts. Those that
    /// worked in the generation before go on with what they do.
    pub fn start(&self, runtime: &Handle) {
        for carrier in self.carriers.values() {
            carrier.start(runtime);
        }
    }

    /// Closes backend connections that have been unused for too long, and drops idle counters.
    pub fn sweep(&self) {
        for carrier in self.carriers.values() {
            carrier.sweep();
        }
        for limits in &self.limits {
            limits.sweep();
        }
    }
}

/// The one before, if it is told the same.
fn same<'c>(
    settings: &UpstreamSettings,
    before: Option<&'c Arc<Carrier>>,
) -> Option<&'c Arc<Carrier>> {
    before.filter(|before| before.upstream.settings.fingerprint == settings.fingerprint)
}

/// What an upstream's names have led to; nothing where its carrier stays, which knows that itself.
fn names(settings: &UpstreamSettings, before: Option<&Arc<Carrier>>) -> Names {
    match same(settings, before) {
        Some(_) => Names::default(),
        None => Names::new(settings, before.map(|before| &before.names)),
    }
}

/// The carrier of an upstream: the one before, if it is told the same.
fn carrier(
    settings: &UpstreamSettings,
    names: Names,
    before: Option<&Arc<Carrier>>,
) -> Result<Arc<Carrier>, String> {
    if let Some(same) = same(settings, before) {
        return Ok(same.clone());
    }
    let servers = names.servers(&settings.servers);
    let before = before.map(Arc::as_ref);
    let old = before.map(|before| &*before.upstream);
    let upstream = Upstream::among(settings.clone(), &servers, old);
    Carrier::new(Arc::new(upstream), names, before).map(Arc::new)
}

/// Seconds since 1970.
pub(crate) fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
