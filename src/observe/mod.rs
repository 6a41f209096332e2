//! What happened: in, a `Record` per request and stream; out, a log line and counters.
//!
//! Stages return values; this is the only place that logs requests and counts.

pub mod audit;
pub mod log;
pub mod metrics;
pub mod recent;
pub mod record;
mod sink;
pub mod traces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::AuditLog;
use log::AccessLog;
use metrics::{Metrics, Open};
use recent::Recent;
use record::Record;
use traces::Spans;

use crate::base::denial::Denial;
use crate::base::ruling::Ruling;

/// Takes records; cheap to clone.
#[derive(Clone)]
pub struct Observer {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// An example of each refusal.
    pub recent: Arc<Recent>,
    log: Option<Arc<AccessLog>>,
    audit: Option<Arc<AuditLog>>,
    spans: Option<Arc<Spans>>,
}

/// How long the end of the process waits for what is not written yet.
const LAST: Duration = Duration::from_secs(2);

impl Observer {
    /// An observer that counts, and writes lines where there is a log.
    pub fn new(metrics: Arc<Metrics>, log: Option<Arc<AccessLog>>) -> Self {
        Self { metrics, recent: Arc::default(), log, audit: None, spans: None }
    }

    /// The same with an audit log.
    #[must_use]
    pub fn with_audit(self, audit: Option<AuditLog>) -> Self {
        Self { audit: audit.map(Arc::new), ..self }
    }

    /// The same with a collector of spans.
    #[must_use]
    pub fn with_spans(self, spans: Option<Spans>) -> Self {
        Self { spans: spans.map(Arc::new), ..self }
    }

    /// A call is allowed, by a rule where one was asked, and about to go to a server.
    ///
    /// # Errors
    /// 503 where it must be told of, and that is not possible.
    pub async fn call(&self, record: &mut Record, rule: Option<Ruling>) -> Result<(), Denial> {
        match &self.audit {
            Some(audit) => audit.begin(record, rule).await,
            None => Ok(()),
        }
    }

    /// A request was answered.
    pub fn request(&self, record: &Record) {
        let now = Instant::now();
        self.metrics.requests.answered(record, now);
        if let Some(code) = record.code {
            self.recent.note(code, record);
        }
        self.write(record, "request", now);
        self.told(record);
    }

    /// A long answer has begun. What is given goes to its end.
    pub fn begun(&self, record: &Record) -> Open {
        if record.stream {
            let now = Instant::now();
            self.metrics.requests.answered(record, now);
            self.write(record, "stream_start", now);
        }
        self.metrics.requests.begun(record)
    }

    /// A long answer has ended.
    pub fn ended(&self, open: &Open, record: &Record) {
        if !record.stream {
            return self.request(record);
        }
        let now = Instant::now();
        self.metrics.requests.stream_ended(open, record, now);
        self.write(record, "stream_end", now);
        self.told(record);
    }

    /// A request has ended, its stream included: the audit log and traces hear of it.
    fn told(&self, record: &Record) {
        if record.audit.is_some()
            && let Some(audit) = &self.audit
        {
            audit.end(record);
        }
        if record.trace.is_some()
            && let Some(spans) = &self.spans
        {
            spans.end(record);
        }
    }

    fn write(&self, record: &Record, event: &'static str, now: Instant) {
        if let Some(log) = &self.log {
            log.write(|out| record.line(event, now, out));
        }
    }

    /// Has the logs' files opened anew.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
    }

    /// Waits until all lines so far are written and all spans sent, for two seconds each at most.
    pub fn flush(&self) {
        if let Some(log) = &self.log {
            log.flush(LAST);
        }
        if let Some(audit) = &self.audit {
            audit.flush(LAST);
        }
        if let Some(spans) = &self.spans {
            spans.flush(LAST);
        }
    }
}
