//! The end of a process: in, the wish to stop; out, an exit as soon as nothing is left, and after the grace time
//! or at a second signal whatever is left.
//!
//! What is left then is cut by Pingora, which drops the runtimes of its services, and every request in them tells of
//! itself where it is dropped. A thread outside of them waits for that, for a bounded time, and ends the process.

use std::process::exit;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{oneshot, watch};
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
/// For what is cut to be dropped: longer than a task goes on without waiting for anything.
const LAST_TASKS: Duration = Duration::from_secs(2);
/// For all of it, should its thread hang.
const LAST: Duration = Duration::from_secs(15);

/// What has to be told, waited for and put away.
pub(super) struct Stop {
    pub(super) edge: Arc<Edge>,
    pub(super) observer: Observer,
    pub(super) life: Arc<Life>,
    pub(super) times: Shutdown,
    pub(super) held: Arc<Held>,
    /// Closes the edge's listeners.
    pub(super) fronts: watch::Sender<bool>,
    /// Closes the admin listener.
    pub(super) pages: watch::Sender<bool>,
    /// Goes to the thread that ends the process.
    pub(super) ender: Mutex<Option<Ender>>,
}

/// Dropped where the thread that ends the process has failed, or was never there: nothing is sent.
pub(super) type Ender = Sender<()>;

/// The end of that thread, to be waited for.
pub(super) struct Ending(Receiver<()>);

impl Ending {
    /// With what is to be dropped at that end.
    pub(super) fn new() -> (Ender, Self) {
        let (ender, ending) = channel();
        (ender, Self(ending))
    }

    /// Waits for a thread that ends the process, and so never comes back but where that has failed; why.
    pub(super) fn join(&self) -> &'static str {
        self.join_within(LAST)
    }

    fn join_within(&self, limit: Duration) -> &'static str {
        match self.0.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => "the thread that ends the process hangs",
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                "the thread that ends the process has failed"
            }
        }
    }
}

/// Word that nobody wants to wait any longer.
pub(super) type Hurry = watch::Receiver<bool>;

impl Stop {
    /// Says that the edge stops, to health checks first; back when listeners are to be closed. From now on a
    /// signal ends all that is under way.
    pub(super) async fn begin(&self, terminate: Signal, interrupt: Signal) -> Hurry {
        self.life.reach(Phase::Stopping);
        notify::tell("STOPPING=1");
        eprintln!("mcp-edge: stopping; a second signal stops at once");
        let mut hurry = self.heed(terminate, interrupt);
        // a balancer needs a few checks to see it; until then it sends more
        tokio::select! {
            () = sleep(self.times.delay) => {}
            _ = hurry.wait_for(|hurried| *hurried) => {}
        }
        hurry
    }

    /// Another process has taken over: the service goes on there, and nothing is said to health checks.
    pub(super) fn retire(&self, terminate: Signal, interrupt: Signal) -> Hurry {
        eprintln!("mcp-edge: retiring; a signal stops at once");
        let hurry = self.heed(terminate, interrupt);
        // both would answer on the one admin socket
        self.pages.send_replace(true);
        hurry
    }

    fn heed(&self, mut terminate: Signal, mut interrupt: Signal) -> Hurry {
        let edge = self.edge.clone();
        let (tell, hurry) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tell.send_replace(true);
            edge.alive.hurry();
            // nobody would hear it from a sender that is gone
            tell.closed().await;
        });
        hurry
    }

    /// Closes the listeners, and ends the process when the last connection has gone; back where that takes too
    /// long: then all that is left is to be cut.
    pub(super) async fn end(&self, hurry: Hurry) {
        self.fronts.send_replace(true);
        // a listening socket that is held takes connections which nobody would serve
        self.held.close();
        let (cut, cutting) = oneshot::channel();
        let ender = self.ender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let last = Last {
            edge: self.edge.clone(),
            observer: self.observer.clone(),
            grace: self.times.grace,
            hurry,
            cut,
            _ender: ender,
        };
        match std::thread::Builder::new().name("stop".into()).spawn(move || last.run()) {
            Ok(_) if cutting.await.is_err() => {
                log::error!("the thread that ends the process failed")
            }
            Ok(_) => {}
            Err(e) => log::error!("no thread can be started to wait for what is under way: {e}"),
        }
    }
}

/// What ends the process.
struct Last {
    edge: Arc<Edge>,
    observer: Observer,
    grace: Duration,
    hurry: Hurry,
    cut: oneshot::Sender<()>,
    _ender: Option<Ender>,
}

impl Last {
    fn run(self) {
        let left = self.edge.alive.wait_until_idle(self.grace);
        let hurried = *self.hurry.borrow();
        if !hurried {
            // first: who makes them is cut, too
            probe::close(LAST_CHECKS);
        }
        if left > 0 {
            let are = if left == 1 { "connection is" } else { "connections are" };
            let why = if hurried { "a second signal came" } else { "the grace time is over" };
            log::warn!("{left} {are} cut: {why}");
            if self.cut.send(()).is_err() {
                log::error!("nobody is there to cut them");
            }
            let left = self.edge.alive.wait_until_gone(LAST_TASKS);
            if left > 0 {
                log::error!("{left} of them do not end, and leave no line in the log");
            }
        }
        self.observer.flush();
        exit(hurried.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_fails_is_noticed_at_once_and_one_that_hangs_after_a_time() {
        let (ender, ending) = Ending::new();
        let start = Instant::now();
        let failing = std::thread::spawn(move || {
            let _ender = ender;
            panic!("on purpose");
        });
        assert!(ending.join().ends_with("has failed"));
        assert!(start.elapsed() < LAST);
        assert!(failing.join().is_err());
        let (_ender, ending) = Ending::new();
        assert!(ending.join_within(Duration::from_millis(1)).ends_with("hangs"));
    }
}
