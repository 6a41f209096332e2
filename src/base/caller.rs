//! Who is on the other end, and how one finds out: the types that routes, auth and balance share.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::denial::Denial;
use super::head::Head;
use super::principal::Principal;

/// The other end, as far as addresses tell. Only `client` makes one.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS to us.
    pub tls: bool,
    /// The certificate that it has shown, checked against the listener's CAs.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// What a client's certificate says of it (RFC 5280 §4.1.2, §4.2.1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's distinguished name, as RFC 4514 writes it; may be empty.
    pub subject: String,
    /// The subject's (last) common name.
    pub common_name: Option<String>,
    /// Alternative names: DNS names.
    pub dns: Vec<String>,
    /// Alternative names: URIs, such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Alternative names: mail addresses.
    pub emails: Vec<String>,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number in hex.
    pub serial: String,
    /// SHA-256 of the whole certificate in hex.
    pub sha256: String,
}

/// One way to say who a caller is. The methods are in `auth`.
#[async_trait]
pub trait Authenticate: Send + Sync + fmt::Debug {
    /// The method's name in configs and logs.
    fn name(&self) -> &'static str;

    /// `Ok(None)`: no credential of mine here. `Err`: mine, and bad; the chain stops.
    ///
    /// # Errors
    /// The refusal of a credential of this method's own shape.
    async fn authenticate(&self, head: &Head, client: &Client)
    -> Result<Option<Principal>, Denial>;
}
