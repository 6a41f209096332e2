//! Where it is said what happens: in, settings; out, an observer with its logs open.

use std::io;
use std::sync::Arc;

use crate::config::{AccessLog as LogTo, Settings};
use crate::observe::Observer;
use crate::observe::audit::{AuditLog, AuditSettings};
use crate::observe::log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::observe::traces::Spans;

/// With the access log, the audit log and the traces that the settings ask for.
///
/// # Errors
/// A sentence that names the log that cannot be opened.
pub(super) fn observer(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Observer, String> {
    let log = open_log(&settings.access_log, metrics).map_err(|e| format!("access log: {e}"))?;
    let audit =
        open_audit(settings.audit.as_ref(), metrics).map_err(|e| format!("audit log: {e}"))?;
    let spans = settings.traces.clone();
    let spans = spans.map(|traces| Spans::start(traces, metrics.told.spans.clone())).transpose()?;
    Ok(Observer::new(metrics.clone(), log).with_audit(audit).with_spans(spans))
}

fn open_log(to: &LogTo, metrics: &Metrics) -> io::Result<Option<Arc<AccessLog>>> {
    let lost = metrics.service.log_lost.clone();
    Ok(match to {
        LogTo::Off => None,
        LogTo::Stdout => Some(Arc::new(AccessLog::stdout(lost)?)),
        LogTo::File(path) => Some(Arc::new(AccessLog::file(path, lost)?)),
    })
}

fn open_audit(to: Option<&AuditSettings>, metrics: &Metrics) -> io::Result<Option<AuditLog>> {
    to.map(|settings| AuditLog::start(settings, metrics.told.audit.clone())).transpose()
}
