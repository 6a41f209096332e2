//! The config: in, a file's text; out, `Settings` that cannot be wrong, or every error at once.

use std::path::PathBuf;
use std::time::Duration;

use crate::balance::session::SessionKeys;
use crate::balance::settings::UpstreamSettings;
use crate::listen::settings::ListenerSettings;
use crate::route::settings::RouteSettings;

/// All that a config says, checked; nothing here needs to be parsed or validated again.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where generated keys and certificates live.
    pub state_dir: PathBuf,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Where `/metrics` is served; loopback.
    pub admin: Option<std::net::SocketAddr>,
    /// Where access-log lines go.
    pub access_log: AccessLog,
    /// Bytes of request bodies that may be held at once in the whole process.
    pub buffer_budget: u64,
    /// At least one.
    pub listeners: Vec<ListenerSettings>,
    /// Named ones, then those written into routes.
    pub upstreams: Vec<UpstreamSettings>,
    /// At least one.
    pub routes: Vec<RouteSettings>,
    /// Seal session ids; never empty.
    pub session_keys: SessionKeys,
    /// How long a session id is good for after it was issued; no limit where absent.
    pub session_max_age: Option<Duration>,
}

/// Where access-log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// Appended to this file.
    File(PathBuf),
}
