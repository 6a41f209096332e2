//! What a route is told: in, the config; out, checked values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cors::Cors;
use super::methods::Methods;
use super::outgoing::Outgoing;
use crate::base::caller::Chain;
use crate::base::cidr::Access;
use crate::base::disclose::Disclosure;
use crate::base::edits::Edits;
use crate::base::limits::Limits;
use crate::base::rules::Rule;
use crate::base::slot::Slot;
use crate::base::trace::Tracing;

/// One route.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// Its name in logs and metrics: its host (or `*`) and path.
    pub label: String,
    /// The listeners it serves, by their addresses as the config has them; absent = all. Never empty.
    pub listeners: Option<Vec<SocketAddr>>,
    /// The host it serves, lower case, without port; any where absent.
    pub host: Option<String>,
    /// The paths it serves.
    pub path: PathMatch,
    /// What clients type.
    pub public_url: PublicUrl,
    /// Name of its upstream.
    pub upstream: String,
    /// What the prefix becomes upstream; absent = unchanged. Starts with `/`, no trailing `/` unless it is `/`.
    pub rewrite: Option<String>,
    /// Addresses that may come in.
    pub access: Access,
    /// How much of it anybody may have; absent = as much as there is.
    pub limits: Option<Arc<dyn Limits>>,
    /// Who may come in; its methods are never empty.
    pub auth: Chain,
    /// What its callers may do; empty where whoever comes in may do everything.
    pub rules: Vec<Arc<dyn Rule>>,
    /// What is done to the fields of its requests; absent where nothing is.
    pub outgoing: Option<Outgoing>,
    /// HTTP methods that it takes.
    pub methods: Methods,
    /// Web pages that may call.
    pub origins: Origins,
    /// What the edge tells browsers of these; absent: that is the backend's business.
    pub cors: Option<Cors>,
    /// What is done to the fields of its answers.
    pub answer_edits: Edits,
    /// Largest JSON body, in bytes. Default 4 MiB.
    pub body_limit: u64,
    /// How long an event stream may be silent before the edge sends a comment. Default 15 s; `off` = never.
    pub keepalive: Option<Duration>,
    /// What is counted of it; `observe` puts it here.
    pub counts: Slot,
    /// What the audit log tells of its calls; absent where it tells nothing.
    pub audit: Option<Arc<Disclosure>>,
    /// How its requests are traced; absent where they are not.
    pub traces: Option<Arc<Tracing>>,
}

impl RouteSettings {
    /// Whether it serves what comes in on this listener.
    pub fn is_served_at(&self, listener: SocketAddr) -> bool {
        self.listeners.is_none() || self.names(listener)
    }

    /// Whether it names this listener: then it is served there even where all else is sent to https.
    pub fn names(&self, listener: SocketAddr) -> bool {
        self.listeners.as_ref().is_some_and(|all| all.contains(&listener))
    }

    /// Whether bodies are read strictly, so that no call gets past rules or an audit log.
    pub fn reads_strictly(&self) -> bool {
        self.audit.is_some() || self.guards_tools()
    }

    /// Whether a rule is about tools: then lists of tools are cut, too.
    pub fn guards_tools(&self) -> bool {
        self.rules.iter().any(|rule| rule.has_tools())
    }
}

/// Web pages that may call a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Besides the public URL's own, as `scheme://host[:port]`, lower case.
    Listed(Vec<String>),
    /// All.
    Any,
}

/// Which paths a route serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// This path and all below it, on segment borders. `/` is everything. No trailing `/` otherwise.
    Prefix(String),
    /// Every path that starts with these letters, as nginx's prefixes: `/a` serves `/ab`, too. No `/` at its end.
    Letters(String),
    /// This path alone.
    Exact(String),
}

impl PathMatch {
    /// The path as the config has it.
    pub fn text(&self) -> &str {
        let (Self::Prefix(path) | Self::Letters(path) | Self::Exact(path)) = self;
        path
    }
}

/// A route's public URL, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// `host[:port]`, lower case, without the scheme's default port.
    pub authority: String,
    /// Starts with `/`.
    pub path: String,
}

impl PublicUrl {
    /// `scheme://host[:port]`.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// All of it, as a resource identifier (RFC 8707 §2): without a slash at the end.
    pub fn whole(&self) -> String {
        format!("{}{}", self.origin(), self.path.trim_end_matches('/'))
    }
}
