//! What a listener is told: in, a config that was read; out, checked values.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rustls::sign::CertifiedKey;

use super::acme::AcmeSettings;
use super::tls::trust::Trust;
use crate::base::watch::Watched;

use super::door::Door;

/// One listener, as the config names it.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Where it listens; port 0 lets the system choose.
    pub address: SocketAddr,
    /// TLS, or plain HTTP where absent.
    pub tls: Option<TlsSettings>,
    /// Whether requests may be served without TLS: the config says so, or nobody else can hear them.
    pub plaintext: bool,
    /// The port of https that requests are sent to instead of being served, but for those of routes that
    /// name this listener.
    pub redirect: Option<u16>,
    /// Folders whose `.well-known/acme-challenge` is served, for any host and without auth.
    pub acme_webroots: Vec<PathBuf>,
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
    /// Who may come in.
    pub door: Door,
    /// Fields of every answer that does not have them: HSTS and other security headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ListenerSettings {
    /// Whether requests may be answered without being routed.
    pub fn answers_itself(&self) -> bool {
        self.redirect.is_some() || !self.acme_webroots.is_empty()
    }
}

/// TLS of a listener.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// In the order of the config; the first is the default for unknown names.
    pub certificates: Vec<Arc<dyn Source>>,
    /// A certificate that the edge obtains by itself; it is the last of those above, once it is known
    /// where it is kept.
    pub acme: Option<AcmeSettings>,
    /// What becomes of clients that ask for a name that is in no certificate, or for none.
    pub unknown_names: UnknownNames,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Whose certificates clients have to show; nobody is asked where absent.
    pub clients: Option<ClientCertificates>,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// RFC 5246; with AEAD suites and ephemeral keys only.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// What is asked of clients' certificates.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// The CAs, and what they have revoked.
    pub trust: Arc<Watched<Trust>>,
    /// Whether a client without one is sent away. One that is not good always is.
    pub required: bool,
}

impl TlsSettings {
    /// The certificates that are there now, in the order of the config.
    pub fn current(&self) -> impl Iterator<Item = Arc<Certificate>> {
        self.certificates.iter().filter_map(|source| source.current())
    }

    /// Grows with every change of any certificate.
    pub fn generation(&self) -> u64 {
        self.certificates.iter().map(|source| source.generation()).sum()
    }

    /// Grows with every change of the CAs and revocations.
    pub fn trusted(&self) -> u64 {
        self.clients.as_ref().map_or(0, |clients| clients.trust.generation())
    }
}

/// Where a certificate comes from. Files are one kind of source; whatever obtains certificates while
/// the edge runs is another.
pub trait Source: Send + Sync + fmt::Debug {
    /// The certificate as of now, where there is one.
    fn current(&self) -> Option<Arc<Certificate>>;

    /// Grows with every other certificate; asked for each handshake.
    fn generation(&self) -> u64;
}

impl Source for Watched<Certificate> {
    fn current(&self) -> Option<Arc<Certificate>> {
        Some(Self::current(self))
    }

    fn generation(&self) -> u64 {
        Self::generation(self)
    }
}

/// What a client gets that asks for a name of which there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownNames {
    /// The first certificate.
    Default,
    /// No handshake.
    Refuse,
}

/// One certificate chain with its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where it came from, for messages.
    pub source: String,
    /// DNS names in it, lower case; `*.example.com` for wildcards.
    pub names: Vec<String>,
    /// IP addresses in it.
    pub addresses: Vec<std::net::IpAddr>,
    /// From when it is valid, in seconds since 1970.
    pub starts: i64,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
    /// The chain and key, matched.
    pub key: Arc<CertifiedKey>,
}
