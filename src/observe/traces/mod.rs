//! Traces: in, records of requests whose trace is recorded; out, spans at a collector that speaks OTLP.
//!
//! A request costs a copy of its record; what is left is done on the thread that asks other servers. Spans
//! that the collector does not take in time are lost and counted: no request ever waits for it.

pub mod compile;
mod export;
mod span;

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Uri};
use prometheus::IntCounter;
use tokio::sync::Notify;

use super::record::Record;
use crate::base::fetch::{self, Fetch};

/// What a config says of the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// Where spans go: OTLP over HTTP, protobuf.
    pub endpoint: Uri,
    /// Fields of every request to it, such as a key.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// CAs to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// For a whole request to it.
    pub timeout: Duration,
    /// `service.name` (OpenTelemetry's resource conventions).
    pub service: String,
    /// Spans that may wait; further ones are lost.
    pub queue: usize,
}

/// What is counted of the spans.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Spans that the collector took.
    pub exported: IntCounter,
    /// Spans that it did not.
    pub lost: IntCounter,
}

/// Takes spans to a collector.
#[derive(Debug)]
pub struct Spans(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// A first span waits, or enough of them, or somebody.
    wake: Notify,
    settings: TraceSettings,
    fetch: Fetch,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Queue {
    ended: Vec<Ended>,
    /// Spans with the exporter.
    under_way: usize,
    /// Who waits until nothing is left.
    flushing: Vec<mpsc::Sender<()>>,
}

/// A request that has ended.
#[derive(Debug)]
struct Ended {
    record: Record,
    at: SystemTime,
}

impl Spans {
    /// Begins to take spans.
    ///
    /// # Errors
    /// The CAs cannot be read, or the thread could not be started.
    pub fn start(settings: TraceSettings, counters: Counters) -> Result<Self, String> {
        let fetch = Fetch::new(settings.ca.as_deref(), settings.timeout)?;
        let (queue, wake) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared { queue, wake, settings, fetch, counters });
        fetch::spawn(export::run(shared.clone()))?;
        Ok(Self(shared))
    }

    /// A request has ended, its stream included. One whose trace is not recorded costs nothing.
    pub fn end(&self, record: &Record) {
        if !record.trace.as_ref().is_some_and(|trace| trace.is_sampled()) {
            return;
        }
        let ended = Ended { record: record.clone(), at: record.at + record.started.elapsed() };
        let mut queue = self.0.lock();
        if queue.ended.len() + queue.under_way >= self.0.settings.queue {
            self.0.counters.lost.inc();
            return;
        }
        queue.ended.push(ended);
        let waiting = queue.ended.len();
        drop(queue);
        if waiting == 1 || waiting == export::BATCH {
            self.0.wake.notify_one();
        }
    }

    /// Waits until the collector has all spans so far, for `limit` at most. Blocks its thread.
    pub fn flush(&self, limit: Duration) {
        let (sender, done) = mpsc::channel();
        let mut queue = self.0.lock();
        if queue.ended.is_empty() && queue.under_way == 0 {
            return;
        }
        queue.flushing.push(sender);
        drop(queue);
        self.0.wake.notify_one();
        // the other end is dropped when all has been sent
        if done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            log::warn!("the last spans may not have reached their collector");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
