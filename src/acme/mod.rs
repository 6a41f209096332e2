//! Certificates by ACME (RFC 8555, HTTP-01): in, what listeners ask for; out, PEM files that are
//! there in time.
//!
//! This never touches a listener: it writes files, and listeners read files that change. So a
//! renewal reaches every edge that shares the state folder, and an edge that starts while the
//! directory is down serves what the last one obtained. Challenges are files, too: whichever edge the
//! directory asks has the answer.

mod due;
mod obtain;
pub mod store;

use std::io;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::listen::acme::{AcmeSettings, LONGEST_WAIT};
use store::Store;

/// Nothing is left unseen for longer: the clock may have been set, or another edge have renewed.
const LOOK: Duration = Duration::from_secs(600);
/// Between looks while another edge is obtaining the certificate.
const BUSY: Duration = Duration::from_secs(5);
/// For a whole try.
const PATIENCE: Duration = Duration::from_secs(300);

/// Told how the last try for a certificate went; the first name is the certificate's.
pub type Told = Box<dyn Fn(&str, bool) + Send + Sync>;

/// Keeps certificates fresh for as long as it lives.
#[derive(Debug)]
pub struct Keeper(#[allow(dead_code, reason = "held")] oneshot::Sender<()>);

/// Keeps certificates fresh, on a thread of its own, until the keeper is dropped; none where nothing is wanted.
///
/// # Errors
/// The thread cannot be started.
pub fn start(wanted: Vec<AcmeSettings>, store: Store, told: Told) -> io::Result<Option<Keeper>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = std::sync::Arc::new(told);
    let (keeper, ended) = oneshot::channel();
    std::thread::Builder::new().name("acme".into()).spawn(move || {
        runtime.block_on(async move {
            let mut tasks = JoinSet::new();
            for settings in wanted {
                tasks.spawn(keep(settings, store.clone(), told.clone()));
            }
            let all = async {
                while let Some(ended) = tasks.join_next().await {
                    log::error!("ACME: a certificate is no longer renewed: {ended:?}");
                }
            };
            tokio::select! { _ = ended => {}, () = all => {} }
        });
    })?;
    Ok(Some(Keeper(keeper)))
}

/// Keeps one certificate fresh.
async fn keep(settings: AcmeSettings, store: Store, told: std::sync::Arc<Told>) {
    let name = settings.name().to_owned();
    let jitter = due::jitter();
    let mut failures = 0;
    loop {
        let held = store.held(&name);
        let wait = due::wait(held.as_ref(), &settings.domains, SystemTime::now(), jitter);
        if !wait.is_zero() {
            told(&name, true);
            failures = 0;
            sleep(wait.min(LOOK)).await;
            continue;
        }
        match attempt(&settings, &store, &name).await {
            Ok(true) => log::info!("ACME: a certificate for {name} was obtained"),
            Ok(false) => sleep(BUSY).await,
            Err(problem) => {
                told(&name, false);
                let pause = backoff(settings.retry, failures);
                failures += 1;
                let stays = match held {
                    Some(held) if !held.placeholder => "; the certificate before it stays",
                    _ => "; clients see a self-signed one",
                };
                log::error!(
                    "ACME: no certificate for {name}: {problem}{stays}; next try in {} s",
                    pause.as_secs()
                );
                sleep(pause).await;
            }
        }
    }
}

/// One try; `false` when another edge is at it.
async fn attempt(settings: &AcmeSettings, store: &Store, name: &str) -> Result<bool, String> {
    let Some(_lock) = store.lock(name)? else { return Ok(false) };
    // it may have come while we waited for the lock
    let held = store.held(name);
    if !due::wait(held.as_ref(), &settings.domains, SystemTime::now(), 0.0).is_zero() {
        return Ok(true);
    }
    let obtained = tokio::time::timeout(PATIENCE, obtain::obtain(settings, store)).await;
    let pem = obtained.map_err(|_| "the directory took too long".to_owned())??;
    store.put(name, &pem, &settings.domains)?;
    Ok(true)
}

/// Doubles with every failure.
fn backoff(first: Duration, failures: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT.max(first));
    // many edges that failed together must not come back together
    doubled.mul_f64(0.8 + 0.4 * due::jitter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound() {
        let minute = Duration::from_secs(60);
        let between = |d: Duration, low: u64, high: u64| {
            assert!((low..=high).contains(&d.as_secs()), "{d:?}");
        };
        between(backoff(minute, 0), 48, 72);
        between(backoff(minute, 3), 384, 576);
        between(backoff(minute, 60), 17_280, 25_920);
    }
}
