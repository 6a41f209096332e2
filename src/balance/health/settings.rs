//! What an upstream is told about health: in, the config; out, checked values.

use std::time::Duration;

use crate::base::defaults;

/// Active checks of an upstream's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSettings {
    /// What is asked.
    pub check: Check,
    /// Time from one check to the next, give or take a tenth; less while a replica is on its way up or down.
    /// Default 10 s.
    pub every: Duration,
    /// For a whole check. Default 3 s.
    pub timeout: Duration,
    /// Good checks in a row that bring a replica back. Default 2.
    pub up_after: u32,
    /// Bad checks in a row that take it out. Default 3.
    pub down_after: u32,
    /// How long a replica that comes back gets less than its share; zero: it gets all at once. Default 0.
    pub slow_start: Duration,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A connection; with a handshake, where the server is https.
    Tcp,
    /// A GET.
    Http(HttpCheck),
    /// What an MCP client asks first.
    Mcp(McpCheck),
}

/// A GET and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// Path and query.
    pub path: String,
    /// Good statuses; empty: 200 to 299.
    pub status: Vec<u16>,
    /// Text that must stand in the first 64 KiB of the body.
    pub body: Option<String>,
}

/// A conversation with an MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpCheck {
    /// Of the endpoint, with a query or without. Default `/mcp`.
    pub path: String,
    /// Tools that must be in the server's list.
    pub tools: Vec<String>,
}

/// When requests that fail take a replica out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectSettings {
    /// Failures in a row. Default 5.
    pub failures: u32,
    /// For how long at first; each time that follows soon takes as much more, up to ten times. Default 30 s.
    pub period: Duration,
    /// Of all replicas, in per cent, counting those that checks have taken out. Default 50.
    pub at_most: u8,
}

impl Default for EjectSettings {
    fn default() -> Self {
        Self {
            failures: defaults::EJECT_FAILURES,
            period: defaults::EJECT_PERIOD,
            at_most: defaults::EJECT_AT_MOST,
        }
    }
}
