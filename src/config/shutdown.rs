//! `shutdown`: in, its node; out, how long a stop may take.

use std::time::Duration;

use crate::base::compile::{Cx, Node};
use crate::base::defaults;

/// How the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests that are under way may take to end, before they are cut.
    pub grace: Duration,
    /// How long connections are accepted on while health paths say 503 already; zero where no balancer looks at them.
    pub delay: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: defaults::GRACE, delay: Duration::ZERO }
    }
}

/// Compiles it.
pub(super) fn shutdown(node: &Node, cx: &mut Cx) -> Option<Shutdown> {
    let mut fields = cx.map(node)?;
    let grace = fields.or(cx, "grace", defaults::GRACE, |n, cx| cx.period(n));
    let delay = fields.or(cx, "delay", Duration::ZERO, |n, cx| cx.period_or_none(n));
    fields.finish(cx);
    Some(Shutdown { grace, delay })
}
