//! One generation of the config, at work: in, `Settings`; out, routes, upstreams and keys.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;

use super::metadata::Metadata;
use super::redirect::Hosts;
use crate::balance::session::SessionKeys;
use crate::balance::{Keys, Upstream};
use crate::base::limits::Limits;
use crate::base::table::Table;
use crate::config::Settings;
use crate::forward::carrier::Carrier;
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
}

impl Runtime {
    /// Resolves names, reads TLS files and builds the tables.
    ///
    /// # Errors
    /// Every upstream that cannot be put to work, each in a sentence.
    pub fn new(settings: &Settings) -> Result<Self, Vec<String>> {
        let mut carriers = Table::default();
        let mut problems = Vec::new();
        for upstream in &settings.upstreams {
            let name = upstream.name.clone();
            match Carrier::new(Arc::new(Upstream::new(upstream.clone()))) {
                Ok(carrier) => {
                    carriers.insert(name, Arc::new(carrier));
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
        let budget = Budget::new(settings.buffer_budget);
        let metadata = Metadata::new(&settings.routes);
        Ok(Self { routes, carriers, keys, hosts, limits, metadata, budget })
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

/// Seconds since 1970.
pub(crate) fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
