//! Who is on the other end, and how one finds out: in, a client and its credentials; out, a principal or a refusal.
//! The types that routes, auth and balance share.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::denial::Denial;
use super::head::Head;
use super::principal::Principal;
use super::rules::Rule;

/// The other end, as far as addresses tell. Only `client` makes one.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address; where that is hidden, the one of the trusted proxy that hides it.
    pub address: IpAddr,
    /// Whether a trusted proxy says that it does not tell the address.
    pub hidden: bool,
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
pub trait Authenticate: Send + Sync + fmt::Debug {
    /// The method's name in configs and logs.
    fn name(&self) -> &'static str;

    /// The same with what it is made of, for `check`.
    fn described(&self) -> String {
        self.name().to_owned()
    }

    /// What the credentials of this method look like in a request's head; empty where they are not
    /// there (a certificate, or none at all).
    fn shapes(&self) -> Vec<Shape> {
        Vec::new()
    }

    /// What a 401 says of this method (RFC 9110 §11.6.1).
    fn challenges(&self) -> Vec<HeaderValue> {
        Vec::new()
    }

    /// Whether it can admit nobody but callers with a certificate.
    fn needs_certificate(&self) -> bool {
        false
    }

    /// What its callers may do, where that depends on what they have shown.
    fn rule(&self) -> Option<Arc<dyn Rule>> {
        None
    }

    /// What it makes of its route.
    fn protects(&self) -> Option<Arc<Resource>> {
        None
    }

    /// Looks for a credential of this method's own shape, and at it.
    fn authenticate<'a>(&'a self, head: &'a Head, client: &'a Client) -> Verdict<'a>;

    /// The same for who was let in `before` by this very credential and has a stream open: by what is in force
    /// now, without counting it as another attempt.
    fn again<'a>(
        &'a self,
        head: &'a Head,
        client: &'a Client,
        before: &'a Principal,
    ) -> Verdict<'a> {
        let _ = before;
        self.authenticate(head, client)
    }
}

/// What a method says of a request.
pub enum Verdict<'a> {
    /// There is no credential of its shape.
    Absent,
    /// There is one, and it is good.
    Known(Arc<Principal>),
    /// There is one, and it is bad: the chain stops.
    Refused(Denial),
    /// There is one, and to look at it takes time.
    Later(Later<'a>),
}

/// A verdict that is still to come. Boxed, so that a verdict that is there at once costs nothing.
pub type Later<'a> = Pin<Box<dyn Future<Output = Result<Arc<Principal>, Denial>> + Send + 'a>>;

/// How credentials in a head are told apart. (An issuer comes with JWTs.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The header that carries it.
    pub header: HeaderName,
    /// In `Authorization`: the scheme, in lower case.
    pub scheme: Option<&'static str>,
    /// What it starts with; may be empty.
    pub prefix: String,
}

impl Shape {
    /// Whether a credential could be of both shapes.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.header == other.header
            && self.scheme == other.scheme
            && (self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix))
    }
}

/// A route's methods in the order of the config, and what follows from them. Only `auth` fills one.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// Never empty in a config.
    pub methods: Vec<Arc<dyn Authenticate>>,
    /// What a 401 carries: `Bearer` first, because MCP clients begin OAuth by it.
    pub challenges: Vec<HeaderValue>,
    /// The headers that carry credentials: each may stand once, and goes no further.
    pub headers: Vec<HeaderName>,
    /// What the methods say of what their callers may do.
    pub rules: Vec<Arc<dyn Rule>>,
    /// What the route is to OAuth; absent where no method takes tokens.
    pub resource: Option<Arc<Resource>>,
}

/// A protected resource, as its metadata describe it (RFC 9728 §2). `auth` makes it, `proxy` serves it.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its canonical URL, without a slash at the end unless the path is `/`.
    pub url: String,
    /// The issuers of its tokens, as they write themselves.
    pub authorization_servers: Vec<String>,
    /// Every scope that a call may need.
    pub scopes: Vec<String>,
    /// Where its metadata are: the well-known URL with the resource's path behind it (RFC 9728 §3.1).
    pub metadata_url: String,
    /// Metadata of an authorization server that the resource's origin repeats.
    pub server: Option<Arc<dyn ServerMetadata>>,
}

/// An authorization server's metadata (RFC 8414), for clients of MCP 2025-03-26, which ask the
/// resource's origin for them.
pub trait ServerMetadata: Send + Sync + fmt::Debug {
    /// The document as the provider publishes it, JSON.
    fn document(&self) -> Document<'_>;
}

/// A document that is still to come.
pub type Document<'a> = Pin<Box<dyn Future<Output = Result<Bytes, Denial>> + Send + 'a>>;
