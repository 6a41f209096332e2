//! A place that is listened at, over generations of the config: in, settings that come and go; out, what its
//! connections go by.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use pingora::server::ShutdownWatch;
use tokio::sync::watch;

use super::Serve;
use super::accept::Front;
use super::settings::ListenerSettings;

/// A place as its connections know it.
#[derive(Debug)]
pub struct Place {
    /// What the config says of it now; absent once the config has it no more.
    now: ArcSwapOption<ListenerSettings>,
    stop: watch::Sender<bool>,
}

impl Place {
    /// A place that the config has.
    pub fn new(settings: Arc<ListenerSettings>) -> Arc<Self> {
        let now = ArcSwapOption::from(Some(settings));
        Arc::new(Self { now, stop: watch::Sender::new(false) })
    }

    /// What the config says of it now, where it has it still.
    pub fn now(&self) -> Option<Arc<ListenerSettings>> {
        self.now.load_full()
    }

    /// Turns true when its connections are to end.
    pub(super) fn shutdown(&self) -> ShutdownWatch {
        self.stop.subscribe()
    }

    /// Ends the accepting, and its connections as soon as they have nothing to do.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// A place at work: who receives those who come there.
pub struct Post<S> {
    place: Arc<Place>,
    front: ArcSwap<Front<S>>,
}

impl<S: Serve> Post<S> {
    /// A place with its first settings.
    pub fn new(front: Front<S>) -> Arc<Self> {
        let place = Place::new(front.settings().clone());
        Arc::new(Self { place, front: ArcSwap::from_pointee(front) })
    }

    /// Who receives now.
    pub fn front(&self) -> Arc<Front<S>> {
        self.front.load_full()
    }

    /// Whoever comes from now on is received by other settings; who is there is looked at by them.
    pub fn renew(&self, front: Front<S>) {
        self.place.now.store(Some(front.settings().clone()));
        self.front.store(Arc::new(front));
    }

    /// The config has it no more: nobody else comes in, and those who are there leave.
    pub fn close(&self) {
        self.place.now.store(None);
        self.place.stop();
    }

    /// Whether the config has it.
    pub(super) fn is_open(&self) -> bool {
        self.place.now.load().is_some()
    }

    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }
}
