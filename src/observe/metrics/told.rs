//! Metrics of what is told elsewhere: in, lines of the audit log and spans; out, how many arrived.

use prometheus::Error;

use super::make::Make;
use crate::observe::{audit, traces};

/// 1 while the audit log cannot be written.
pub const AUDIT_FAILING: &str = "mcp_edge_audit_failing";

/// Metrics of the audit log and of traces.
pub struct Told {
    /// Lines of the audit log.
    pub audit: audit::Counters,
    /// Spans.
    pub spans: traces::Counters,
}

impl Told {
    pub(super) fn new(make: &Make) -> Result<Self, Error> {
        let lines = make.counters(
            "mcp_edge_audit_lines_total",
            "Lines of the audit log, by whether they could be written.",
            &["result"],
        )?;
        let spans = make.counters(
            "mcp_edge_spans_total",
            "Spans of recorded traces, by whether the collector took them.",
            &["result"],
        )?;
        Ok(Self {
            audit: audit::Counters {
                written: lines.with_label_values(&["written"]),
                lost: lines.with_label_values(&["lost"]),
                failing: make
                    .gauge(AUDIT_FAILING, "1 while lines of the audit log cannot be written.")?,
            },
            spans: traces::Counters {
                exported: spans.with_label_values(&["exported"]),
                lost: spans.with_label_values(&["lost"]),
            },
        })
    }
}
