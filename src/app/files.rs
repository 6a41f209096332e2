//! The files that a config names: in, its settings; out, a look at all of them once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pages;
use crate::base::watch::Refresh;
use crate::config::Settings;
use crate::listen::settings::TlsSettings;
use crate::listen::tls::dates::Lists;
use crate::observe::metrics::Metrics;

/// The files of one generation of the config.
pub(super) struct Files {
    watched: Vec<Arc<dyn Refresh>>,
    /// TLS of every listener.
    pub(super) tls: Vec<TlsSettings>,
    /// Their revocation lists.
    pub(super) lists: Lists,
    /// Grows with every content that was taken from any of them.
    seen: AtomicU64,
}

impl Files {
    pub(super) fn new(settings: &Settings) -> Self {
        let (watched, tls) = (settings.watched.clone(), pages::all_tls(settings));
        let seen = sum(&watched).into();
        Self { watched, lists: Lists::new(tls.clone()), tls, seen }
    }

    /// Looks at all of them; whether any content was taken since the last look, which is said once. Blocks its
    /// thread.
    #[must_use = "nobody else is told"]
    pub(super) fn refresh(&self, metrics: &Metrics) -> bool {
        for file in &self.watched {
            file.refresh();
            metrics.service.set_reload_failed(&file.name(), file.problem().is_some());
        }
        self.lists.look();
        let sum = sum(&self.watched);
        self.seen.swap(sum, Ordering::AcqRel) != sum
    }

    /// What is wrong with them as they are: an older content, or a part, is in force.
    pub(super) fn problems(&self) -> Vec<String> {
        let problem =
            |file: &Arc<dyn Refresh>| Some(format!("{}: {}", file.name(), file.problem()?));
        self.watched.iter().filter_map(problem).collect()
    }
}

fn sum(watched: &[Arc<dyn Refresh>]) -> u64 {
    watched.iter().fold(0, |sum, file| sum.wrapping_add(file.generation()))
}
