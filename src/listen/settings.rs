//! What a listener is told: config in, checked values out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

/// One listener, as the config names it.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Where it listens; port 0 lets the system choose.
    pub address: SocketAddr,
    /// TLS, or plain HTTP where absent.
    pub tls: Option<TlsSettings>,
    /// A path that the edge itself answers on this listener, for any host and without auth.
    pub health_path: Option<String>,
    /// Time for a whole request head from its first byte, and for the TLS handshake. Default 10 s.
    pub header_timeout: Duration,
    /// Time for a whole request body that the edge reads itself. Default 60 s.
    pub body_timeout: Duration,
    /// How long a connection may wait for its next request. Default 75 s.
    pub idle_timeout: Duration,
    /// How long a write to the client may make no progress. Default 60 s.
    pub send_timeout: Duration,
    /// Open connections on this listener; further ones are closed. Default 16384.
    pub max_connections: usize,
}

/// Certificates of a TLS listener, loaded and checked.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// In the order of the config; the first is the default for unknown names.
    pub certificates: Vec<Certificate>,
}

/// One certificate chain with its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where it came from, for messages.
    pub source: String,
    /// DNS names in it, lower case; `*.example.com` for wildcards.
    pub names: Vec<String>,
    /// The chain and key, matched.
    pub key: Arc<CertifiedKey>,
}
