//! What happened: in, a `Record` per request and stream; out, a log line and counters.
//!
//! Stages return values; this is the only place that logs requests and counts.

pub mod log;
pub mod metrics;
pub mod recent;
pub mod record;
mod sink;

use std::sync::Arc;
use std::time::Instant;

use log::AccessLog;
use metrics::Metrics;
use recent::Recent;
use record::Record;

/// Takes records; cheap to clone.
#[derive(Clone)]
pub struct Observer {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// An example of each refusal.
    pub recent: Arc<Recent>,
    log: Option<Arc<AccessLog>>,
}

impl Observer {
    /// An observer that counts, and writes lines where there is a log.
    pub fn new(metrics: Arc<Metrics>, log: Option<Arc<AccessLog>>) -> Self {
        Self { metrics, recent: Arc::default(), log }
    }

    /// A request was answered, or its stream has begun.
    pub fn request(&self, record: &Record) {
        let now = Instant::now();
        self.metrics.requests.answered(record, now);
        if let Some(code) = record.code {
            self.recent.note(code, record);
        }
        self.write(record, if record.stream { "stream_start" } else { "request" }, now);
    }

    /// A stream ended.
    pub fn stream_end(&self, record: &Record) {
        let now = Instant::now();
        self.metrics.requests.stream_ended(record, now);
        self.write(record, "stream_end", now);
    }

    fn write(&self, record: &Record, event: &'static str, now: Instant) {
        if let Some(log) = &self.log {
            log.write(|out| record.line(event, now, out));
        }
    }

    /// Has the log's file opened anew.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// Waits until all lines so far are written, for two seconds at most.
    pub fn flush(&self) {
        if let Some(log) = &self.log {
            log.flush(std::time::Duration::from_secs(2));
        }
    }
}
