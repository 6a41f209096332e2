//! In: nothing; out: a CA of the test's own, certificates on disk for the edge, TLS settings for clients and backends.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// A CA with one server certificate for `localhost`, `mcp.example.com` and `127.0.0.1`, and one client certificate.
pub(crate) struct Certs {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Certs {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(dir.path().join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let names = ["localhost", "mcp.example.com", "127.0.0.1"];
        for (file, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new(names.map(String::from)).unwrap();
            leaf.extended_key_usages = vec![usage];
            let cert = leaf.signed_by(&key, &issuer).unwrap();
            fs::write(dir.path().join(format!("{file}.pem")), cert.pem()).unwrap();
            fs::write(dir.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir, issuer }
    }

    /// A certificate of the CA, to be described: a server's, valid for a month, with an elliptic key.
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf<'_> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Leaf { certs: self, params, rsa: false }.until(30 * DAY)
    }

    /// Writes the CA's list of revoked serial numbers, good until then (or not any more).
    pub(crate) fn crl(&self, file: &str, revoked: &[u64], until: SystemTime) {
        let revoked = revoked.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: (SystemTime::now() - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (SystemTime::now() - 60 * DAY).into(),
            next_update: until.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.path(file), list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
    }

    /// `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The `tls:` value of a listener.
    pub(crate) fn listener(&self) -> String {
        let (cert, key) = (self.path("server.pem"), self.path("server.key"));
        format!(
            "tls: {{ certificates: [ {{ cert: {}, key: {} }} ] }}",
            cert.display(),
            key.display()
        )
    }

    /// The certificate of a file.
    pub(crate) fn der(&self, file: &str) -> CertificateDer<'static> {
        chain(&self.path(file)).remove(0)
    }

    /// A client that trusts the CA and shows the certificate `file`.pem.
    pub(crate) fn client_as(&self, file: &str) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{file}.key"))).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain(&self.path(&format!("{file}.pem"))), key)
            .unwrap();
        Arc::new(config)
    }

    /// A client that trusts the CA and offers these protocols.
    pub(crate) fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A TLS front for a plain backend; with `client_auth` it demands a certificate of the CA.
    pub(crate) fn front(&self, backend: SocketAddr, client_auth: bool) -> Front {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if client_auth {
            let roots = Arc::new(self.roots());
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let config = builder.with_single_cert(chain(&self.path("server.pem")), key).unwrap();
        Front::start(backend, TlsAcceptor::from(Arc::new(config)))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(chain(&self.path("ca.pem")));
        roots
    }
}

/// A certificate that is being described.
pub(crate) struct Leaf<'c> {
    certs: &'c Certs,
    params: CertificateParams,
    rsa: bool,
}

impl Leaf<'_> {
    /// With an RSA key.
    pub(crate) fn rsa(mut self) -> Self {
        self.rsa = true;
        self
    }

    /// A client's, of this common name and serial number.
    pub(crate) fn client(mut self, name: &str, serial: u64) -> Self {
        self.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.params.distinguished_name = rcgen::DistinguishedName::new();
        self.params.distinguished_name.push(DnType::OrganizationName, "Tests, Inc.");
        self.params.distinguished_name.push(DnType::CommonName, name);
        self.params.serial_number = Some(SerialNumber::from(serial));
        self
    }

    /// Valid from yesterday for so long from now.
    pub(crate) fn until(mut self, later: Duration) -> Self {
        self.params.not_before = (SystemTime::now() - DAY).into();
        self.params.not_after = (SystemTime::now() + later).into();
        self
    }

    /// It expired yesterday.
    pub(crate) fn expired(mut self) -> Self {
        self.params.not_before = (SystemTime::now() - 2 * DAY).into();
        self.params.not_after = (SystemTime::now() - DAY).into();
        self
    }

    /// It will be valid tomorrow.
    pub(crate) fn future(mut self) -> Self {
        self.params.not_before = (SystemTime::now() + DAY).into();
        self
    }

    /// Writes `file`.pem and `file`.key; gives the certificate.
    pub(crate) fn write(self, file: &str) -> CertificateDer<'static> {
        let key = match self.rsa {
            true => KeyPair::from_pem(include_str!("rsa.key")).unwrap(),
            false => KeyPair::generate().unwrap(),
        };
        let cert = self.params.signed_by(&key, &self.certs.issuer).unwrap();
        fs::write(self.certs.path(&format!("{file}.pem")), cert.pem()).unwrap();
        fs::write(self.certs.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        cert.der().clone()
    }
}

/// A TLS terminator in front of a backend.
pub(crate) struct Front {
    address: SocketAddr,
    #[allow(dead_code, reason = "its tasks live as long as the front")]
    runtime: Runtime,
}

impl Front {
    fn start(backend: SocketAddr, acceptor: TlsAcceptor) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(stream).await.ok()?;
                    let mut plain = TcpStream::connect(backend).await.ok()?;
                    tokio::io::copy_bidirectional(&mut tls, &mut plain).await.ok()
                });
            }
        });
        Self { address, runtime }
    }

    /// With a name, so that the certificate is checked against one.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
