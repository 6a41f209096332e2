//! TLS towards clients: in, the settings of a listener; out, handshakes by what its files say now.
//!
//! A renewed certificate takes effect with the next handshake and changes nothing else: tickets stay
//! good, and connections that are there keep what they have agreed on. Other CAs or revocations begin
//! anew: a ticket carries the client's certificate as it was checked when it was issued, and rustls
//! takes it at its word. For the same reason the certificate of a resumed session is checked again:
//! it may have expired since, and with each resumption comes another ticket.

pub mod compile;
pub mod dates;
pub(super) mod failure;
mod names;
mod peer;
pub mod trust;

use std::io;
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ServerSessionMemoryCache;
use rustls::version::TLS13;
use rustls::{CertificateError, DEFAULT_VERSIONS, HandshakeKind, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Dated;
use super::settings::{MinVersion, Source, TlsSettings};
use crate::base::caller::ClientCertificate;
use names::ByName;
use trust::Trust;

/// What HTTP/2 is called in TLS.
const H2: &[u8] = b"h2";
/// Sessions kept for TLS 1.2 resumption; TLS 1.3 resumes by ticket and needs no memory.
const SESSIONS: usize = 4096;

/// TLS of one listener, at work.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    current: RwLock<Built>,
}

/// What a handshake goes by, and the generations of what it was built from.
#[derive(Debug, Clone)]
struct Built {
    config: Arc<ServerConfig>,
    trust: Option<Arc<Trust>>,
    certificates: u64,
    trusted: u64,
}

/// What was agreed on.
pub(super) struct Agreed<IO> {
    pub(super) io: Box<TlsStream<IO>>,
    pub(super) h2: bool,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// The same as it came; empty where there is none.
    pub(super) shown: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Puts settings to work. Certificates that are out of their days are told in the log.
    ///
    /// # Errors
    /// Those of the TLS library.
    pub fn new(settings: TlsSettings) -> Result<Self, rustls::Error> {
        for certificate in settings.current() {
            if let Some(problem) = certificate.problem() {
                log::warn!("{problem}; clients will refuse it until it is renewed");
            }
        }
        let current = RwLock::new(Built::new(&settings)?);
        Ok(Self { settings, current })
    }

    /// The handshake with one client.
    ///
    /// # Errors
    /// The client's, or the refusal of its certificate.
    pub(super) async fn accept<IO>(&self, io: IO) -> io::Result<Agreed<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Built { config, trust, .. } = self.current().map_err(io::Error::other)?;
        let io = TlsAcceptor::from(config).accept(io).await?;
        let connection = io.get_ref().1;
        let certificate = match trust {
            Some(trust) => self.caller(connection, &trust).map_err(io::Error::other)?,
            None => None,
        };
        let shown = match &certificate {
            Some(_) => connection.peer_certificates().unwrap_or_default().to_vec(),
            None => Vec::new(),
        };
        let h2 = connection.alpn_protocol() == Some(H2);
        Ok(Agreed { io: Box::new(io), h2, certificate, shown })
    }

    /// Whether these settings are those that it is made of: then tickets stay good.
    pub(super) fn is_of(&self, settings: &TlsSettings) -> bool {
        let TlsSettings { certificates, acme, unknown_names, min_version, clients } = settings;
        let own = &self.settings;
        let same = |(a, b): (&Arc<dyn Source>, &Arc<dyn Source>)| {
            ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
        };
        let clients_are_same = match (clients, &own.clients) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(&a.trust, &b.trust) && a.required == b.required,
            _ => false,
        };
        (acme, unknown_names, min_version) == (&own.acme, &own.unknown_names, &own.min_version)
            && clients_are_same
            && certificates.len() == own.certificates.len()
            && certificates.iter().zip(&own.certificates).all(same)
    }

    /// What the next handshake goes by.
    fn current(&self) -> Result<Built, rustls::Error> {
        let built = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (certificates, trusted) = (self.settings.generation(), self.settings.trusted());
        if (built.certificates, built.trusted) == (certificates, trusted) {
            return Ok(built);
        }
        let built = if built.trusted == trusted {
            let mut config = ServerConfig::clone(&built.config);
            config.cert_resolver = Arc::new(ByName::new(&self.settings));
            Built { config: Arc::new(config), certificates, ..built }
        } else {
            Built::new(&self.settings)?
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = built.clone();
        Ok(built)
    }

    /// Who has shown a certificate.
    fn caller(
        &self,
        connection: &ServerConnection,
        trust: &Trust,
    ) -> Result<Option<Arc<ClientCertificate>>, rustls::Error> {
        let Some([leaf, between @ ..]) = connection.peer_certificates() else {
            return match self.settings.clients.as_ref().is_some_and(|c| c.required) {
                true => Err(rustls::Error::NoCertificatesPresented),
                false => Ok(None),
            };
        };
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            trust.verifier.verify_client_cert(leaf, between, UnixTime::now())?;
        }
        let unreadable = rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let read = peer::read(leaf).ok_or(unreadable)?;
        Ok(Some(Arc::new(read)))
    }
}

impl Built {
    fn new(settings: &TlsSettings) -> Result<Self, rustls::Error> {
        // first the generations: what changes while it is read is read again
        let (certificates, trusted) = (settings.generation(), settings.trusted());
        let trust = settings.clients.as_ref().map(|clients| clients.trust.current());
        let config = Arc::new(config(settings, trust.as_deref())?);
        Ok(Self { config, trust, certificates, trusted })
    }
}

/// h2 and http/1.1, resumption by ticket (the Python client opens a connection per call).
fn config(settings: &TlsSettings, trust: Option<&Trust>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let versions = match settings.min_version {
        MinVersion::Tls12 => DEFAULT_VERSIONS,
        MinVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match trust {
        Some(trust) => builder.with_client_cert_verifier(trust.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(settings)));
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}
