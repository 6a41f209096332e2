//! TLS towards backends: in, an upstream's settings; out, a client config, or what is wrong with its files.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::balance::settings::UpstreamTls;

/// Builds the client config of an upstream; only HTTP/1.1 is offered.
///
/// # Errors
/// A sentence that names the file.
pub fn config(settings: &UpstreamTls) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if settings.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything(provider)))
    } else {
        builder.with_root_certificates(roots(settings.ca.as_deref())?)
    };
    let mut config = match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let named =
                |path: &Path, e: &dyn std::fmt::Display| format!("`{}`: {e}", path.display());
            let chain_der = certificates(chain)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| named(key, &e))?;
            builder.with_client_auth_cert(chain_der, key_der).map_err(|e| named(key, &e))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The name to ask a replica for and to check.
///
/// # Errors
/// A name that is neither a DNS name nor an address.
pub fn server_name(settings: &UpstreamTls, host: &str) -> Result<ServerName<'static>, String> {
    let name = settings.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` is not a server name"))
}

/// The CAs to trust: those of the file, else the system's.
///
/// # Errors
/// A sentence that names the file, or says that the system has none.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| format!("`{}`: {e}", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(
            "there are no CA certificates to trust: install ca-certificates or set `tls.ca`".into(),
        );
    }
    Ok(roots)
}

/// All certificates of a PEM file, at least one.
///
/// # Errors
/// A sentence that names the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |e: &dyn std::fmt::Display| format!("`{}`: {e}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(|e| named(&e))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| named(&e))?;
    if found.is_empty() { Err(named(&"there is no certificate in it")) } else { Ok(found) }
}

/// For `insecure_skip_verify`: takes any certificate, but only with a valid signature over the handshake.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
