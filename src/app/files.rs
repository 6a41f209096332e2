//! The files that a config names: in, its settings; out, a look at all of them once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

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

/// How long a look may take until it is told of.
const LONG: Duration = Duration::from_secs(5);
/// In the place of a file's name: no file is looked at meanwhile.
const ALL: &str = "*";

/// The look that is under way.
#[derive(Default)]
pub(super) struct Look {
    last: Option<(JoinHandle<()>, Instant)>,
    told: bool,
}

impl Look {
    /// Looks beside what the caller has to do, unless the last look goes on still: a file system that hangs must not
    /// hold up a stop. It is told once, and counts as a failure of all files: deny lists and revocation lists are
    /// no longer followed.
    pub(super) fn aside(
        &mut self,
        now: Instant,
        metrics: &Metrics,
        look: impl FnOnce() + Send + 'static,
    ) {
        let running = self.last.as_ref().filter(|(task, _)| !task.is_finished());
        if let Some((_, since)) = running {
            if now.saturating_duration_since(*since) >= LONG {
                // each time: a reload forgets what files there were
                metrics.service.set_reload_failed(ALL, true);
                if !std::mem::replace(&mut self.told, true) {
                    log::warn!(
                        "a look at the files of the config does not end: changes of any of them are not seen meanwhile"
                    );
                }
            }
            return;
        }
        if std::mem::take(&mut self.told) {
            metrics.service.set_reload_failed(ALL, false);
            log::info!("the files of the config are looked at again");
        }
        self.last = Some((tokio::task::spawn_blocking(look), now));
    }
}

fn sum(watched: &[Arc<dyn Refresh>]) -> u64 {
    watched.iter().fold(0, |sum, file| sum.wrapping_add(file.generation()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::name;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_look_that_hangs_is_told_of_and_one_that_ends_takes_it_back() {
        let (metrics, start) = (Metrics::new().unwrap(), Instant::now());
        let failed = || {
            let families = metrics.families();
            let family = families.iter().find(|f| f.name() == name::FILE_FAILED);
            family.map(|f| f.get_metric()[0].get_gauge().get_value())
        };
        let (go_on, hangs) = mpsc::channel::<()>();
        let mut look = Look::default();
        look.aside(start, &metrics, move || {
            assert!(hangs.recv().is_err(), "only its end is told");
        });
        look.aside(start + LONG - Duration::from_millis(1), &metrics, || panic!("two at once"));
        assert_eq!(failed(), None);
        look.aside(start + LONG, &metrics, || panic!("two at once"));
        assert_eq!(failed(), Some(1.0));
        drop(go_on);
        let (task, _) = look.last.as_mut().unwrap();
        task.await.unwrap();
        let (told, hears) = mpsc::channel();
        look.aside(start + LONG, &metrics, move || told.send(()).unwrap());
        hears.recv().unwrap();
        assert_eq!(failed(), Some(0.0));
    }
}
