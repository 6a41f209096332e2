//! What a listener is told: config in, checked values out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rustls::sign::CertifiedKey;
use x509_parser::time::ASN1Time;

use super::door::Door;

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
    /// Who may come in.
    pub door: Door,
    /// Fields of every answer that does not have them: HSTS and other security headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
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
    /// IP addresses in it.
    pub addresses: Vec<std::net::IpAddr>,
    /// When it expires, in seconds since 1970.
    pub expires: i64,
    /// The chain and key, matched.
    pub key: Arc<CertifiedKey>,
}

impl Certificate {
    /// When it expires, as RFC 3339 in UTC.
    pub fn expires_text(&self) -> String {
        let Ok(time) = ASN1Time::from_timestamp(self.expires) else {
            return self.expires.to_string();
        };
        let t = time.to_datetime();
        let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
        let (hour, minute, second) = t.to_hms();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}
