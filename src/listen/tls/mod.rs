//! TLS towards clients: in, the settings of a listener; out, an acceptor that is up to date.
//!
//! A renewed certificate takes effect with the next handshake and changes nothing else: tickets stay
//! good, and connections that are there keep what they have agreed on.

pub mod compile;
mod names;

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::ServerSessionMemoryCache;
use tokio_rustls::TlsAcceptor;

use super::settings::TlsSettings;
use names::ByName;

/// What HTTP/2 is called in TLS.
pub(super) const H2: &[u8] = b"h2";
/// Sessions kept for TLS 1.2 resumption; TLS 1.3 resumes by ticket and needs no memory.
const SESSIONS: usize = 4096;

/// TLS of one listener, at work.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    current: RwLock<Built>,
}

/// What a handshake goes by, and the generation of what it was built from.
#[derive(Debug, Clone)]
struct Built {
    config: Arc<ServerConfig>,
    certificates: u64,
}

impl Tls {
    /// Puts settings to work. Certificates that clients will not take are told in the log.
    ///
    /// # Errors
    /// Those of the TLS library.
    pub fn new(settings: TlsSettings) -> Result<Self, rustls::Error> {
        for certificate in settings.current() {
            if let Some(problem) = certificate.problem() {
                log::warn!("{problem}; clients will refuse it until it is renewed");
            }
        }
        let certificates = settings.generation();
        let config = Arc::new(config(&settings)?);
        Ok(Self { settings, current: RwLock::new(Built { config, certificates }) })
    }

    /// The acceptor for the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let certificates = self.settings.generation();
        let built = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if built.certificates == certificates {
            return TlsAcceptor::from(built.config);
        }
        let mut config = ServerConfig::clone(&built.config);
        config.cert_resolver = Arc::new(ByName::new(&self.settings));
        let config = Arc::new(config);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Built { config: config.clone(), certificates };
        TlsAcceptor::from(config)
    }
}

/// TLS 1.2 and 1.3, h2 and http/1.1, resumption by ticket (the Python client opens a connection per
/// call).
fn config(settings: &TlsSettings) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName::new(settings)));
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}
