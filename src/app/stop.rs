//! The end of a process: in, the wish to stop; out, an exit as soon as nothing is left, and after the grace time
//! whatever is left.

use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::sleep;

use super::upgrade::Held;
use crate::base::life::{Life, Phase};
use crate::base::notify;
use crate::config::Shutdown;
use crate::forward::probe;
use crate::observe::Observer;
use crate::proxy::Edge;

/// For the last checks' sessions to be ended.
const LAST_CHECKS: Duration = Duration::from_millis(500);

/// What has to be told, waited for and put away.
pub(super) struct Stop {
    pub(super) edge: Arc<Edge>,
    pub(super) observer: Observer,
    pub(super) life: Arc<Life>,
    pub(super) times: Shutdown,
    pub(super) held: Arc<Held>,
    /// Closes the admin listener.
    pub(super) pages: watch::Sender<bool>,
}

impl Stop {
    /// Says that the edge stops, to health checks first; back when listeners are to be closed. From now on a
    /// signal ends the process at once.
    pub(super) async fn begin(&self, terminate: Signal, interrupt: Signal) {
        self.life.reach(Phase::Stopping);
        notify::tell("STOPPING=1");
        eprintln!("mcp-edge: stopping; a second signal stops at once");
        self.heed(terminate, interrupt);
        // a balancer needs a few checks to see it; until then it sends more
        sleep(self.times.delay).await;
    }

    /// Another process has taken over: the service goes on there, and nothing is said to health checks.
    pub(super) fn retire(&self, terminate: Signal, interrupt: Signal) {
        eprintln!("mcp-edge: retiring; a signal stops at once");
        self.heed(terminate, interrupt);
        // both would answer on the one admin socket
        self.pages.send_replace(true);
    }

    fn heed(&self, mut terminate: Signal, mut interrupt: Signal) {
        let observer = self.observer.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            observer.flush();
            exit(1);
        });
    }

    /// Pingora sleeps through its whole grace period; this thread ends the process when nobody accepts any
    /// more and the last connection has gone.
    pub(super) fn end_when_idle(&self) {
        // a listening socket that is held takes connections which nobody would serve
        self.held.close();
        let (edge, observer, grace) = (self.edge.clone(), self.observer.clone(), self.times.grace);
        // Pingora drops whoever waited for the signal, and the admin listener would go with the last sender
        let pages = self.pages.clone();
        let spawned = std::thread::Builder::new().name("stop".into()).spawn(move || {
            let _pages = pages;
            let left = edge.wait_until_idle(grace);
            if left > 0 {
                let are = if left == 1 { "connection is" } else { "connections are" };
                log::warn!("{left} {are} cut: the grace time is over");
            }
            probe::close(LAST_CHECKS);
            observer.flush();
            exit(0);
        });
        if let Err(e) = spawned {
            log::error!("cannot start the stop thread, stopping takes the whole grace period: {e}");
        }
    }
}
