//! The config: in, a file's text; out, `Settings` that cannot be wrong, or every error at once.
//!
//! `yaml` makes a tree with lines, `substitute` puts `${…}` in, each stage's `compile` turns its
//! part into its own settings, and `load` joins them. `run --to` writes a YAML text (`quick`) and
//! takes the same way.

mod acme;
pub mod admin;
pub mod load;
mod place;
pub mod quick;
pub mod report;
mod self_signed;
mod session_keys;
mod shutdown;
mod substitute;
pub mod writable;
mod yaml;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use admin::AdminSettings;

use crate::balance::session::SessionKeys;
use crate::balance::settings::UpstreamSettings;
use crate::base::compile::ConfigError;
use crate::base::kept::Kept;
use crate::base::masks::Masks;
use crate::base::watch::Refresh;
use crate::listen::acme::AcmeSettings;
use crate::listen::settings::ListenerSettings;
use crate::observe::audit::AuditSettings;
use crate::observe::traces::TraceSettings;
use crate::route::settings::RouteSettings;

pub use load::{Mode, load, load_again, load_text};
pub use place::{Fixed, state_dirs, usual_state_dirs};
pub use shutdown::Shutdown;
pub use substitute::Env;

/// All that a config says, checked; nothing here needs to be parsed or validated again.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Certificates that the edge obtains by itself.
    pub acme: Vec<AcmeSettings>,
    /// Where generated keys and certificates live.
    pub state_dir: PathBuf,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Where metrics and the status page are served.
    pub admin: Option<AdminSettings>,
    /// Where access-log lines go.
    pub access_log: AccessLog,
    /// How long a stop may take.
    pub shutdown: Shutdown,
    /// Where lines of the audit log go; absent where there is none.
    pub audit: Option<AuditSettings>,
    /// Where spans go; absent where nothing is traced.
    pub traces: Option<TraceSettings>,
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
    /// Where the keys come from.
    pub session_keys_from: KeysFrom,
    /// Files that are read again when they change.
    pub watched: Vec<Arc<dyn Refresh>>,
    /// What a reload cannot renew: top-level keys, each with a sum of what it says, in a fixed order.
    pub fixed: Vec<Fixed>,
    /// What remembers: handed on to the generation of the config after this one.
    pub kept: Kept,
    /// What is taken as it stands, and is hardly what is meant.
    pub warnings: Vec<ConfigError>,
    /// What messages about the config must not show.
    pub masks: Masks,
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

/// Where the session keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysFrom {
    /// The config names them.
    Config,
    /// Generated once and kept in this file.
    File(PathBuf),
    /// `check` only: `run` would generate them into this file.
    NotYet(PathBuf),
}
