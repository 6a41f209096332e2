//! In: an edge's address and a client's TLS config; out, what the handshake and one request brought.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};

use crate::support::client::get;
use crate::support::wait::DEADLINE;

/// What came of one connection with one `GET /`.
#[derive(Debug)]
pub(super) struct Shaken {
    /// The certificate that the edge has shown.
    pub(super) shown: CertificateDer<'static>,
    pub(super) resumed: bool,
    /// The status of the answer.
    pub(super) status: u16,
}

/// Connects, asks and hangs up; the text of the error where there was no answer.
pub(super) fn shake(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Result<Shaken, String> {
    let tcp = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(config.clone(), server).unwrap();
    let mut tls = StreamOwned::new(session, tcp);
    let request = get("localhost", "/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).map_err(|e| e.to_string())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no answer")?;
    let shown = tls.conn.peer_certificates().unwrap()[0].clone().into_owned();
    let resumed = tls.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Shaken { shown, resumed, status })
}

/// A client that takes any certificate, speaks these versions, and offers these signatures.
pub(super) fn anything(
    versions: &[&'static SupportedProtocolVersion],
    schemes: &[SignatureScheme],
) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(schemes.to_vec())))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct Anything(Vec<SignatureScheme>);

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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
