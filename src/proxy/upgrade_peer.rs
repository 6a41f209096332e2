//! A replica as Pingora's connector wants it: in, TLS settings and a target; out, an `HttpPeer`.

use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::balance::settings::{ServerSettings, UpstreamTls};
use crate::forward::connect::Target;
use crate::forward::tls::certificates;

/// TLS files of an upstream, read once. They were checked when the carrier was made.
pub(super) struct PeerTls {
    settings: UpstreamTls,
    ca: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
}

impl PeerTls {
    /// Reads the files.
    pub(super) fn new(settings: &UpstreamTls) -> Self {
        let ca = settings.ca.as_ref().and_then(|path| certificates(path).ok());
        let ca = ca.map(|all| {
            all.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect()
        });
        let client = settings.client_certificate.as_ref().and_then(|(chain, key)| {
            let chain = certificates(chain).ok()?.into_iter().map(|der| der.to_vec()).collect();
            Some(Arc::new(CertKey::new(chain, key_bytes(key)?)))
        });
        Self { settings: settings.clone(), ca, client }
    }

    /// The peer for a replica.
    pub(super) fn peer(&self, target: &Target, server: &ServerSettings) -> Option<HttpPeer> {
        let address = target.addresses.first()?;
        let name = self.settings.server_name.as_deref().unwrap_or(&server.host);
        let mut peer = HttpPeer::new(*address, server.https, name.to_owned());
        peer.options.connection_timeout = Some(target.timeout);
        peer.options.total_connection_timeout = Some(target.timeout * 2);
        peer.options.ca.clone_from(&self.ca);
        peer.client_cert_key.clone_from(&self.client);
        if self.settings.insecure_skip_verify {
            (peer.options.verify_cert, peer.options.verify_hostname) = (false, false);
        }
        Some(peer)
    }
}

fn key_bytes(path: &std::path::Path) -> Option<Vec<u8>> {
    match PrivateKeyDer::from_pem_file(path).ok()? {
        PrivateKeyDer::Pkcs8(key) => Some(key.secret_pkcs8_der().to_vec()),
        other => {
            Some(PrivatePkcs8KeyDer::from(other.secret_der().to_vec()).secret_pkcs8_der().to_vec())
        }
    }
}
