//! Replicas that are named by DNS: in, what the config says of them; out, what is to be asked, and of whom.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::settings::ServerSettings;
use crate::base::{defaults, url};

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// DNS servers; empty: those of the system, with its search list.
    pub servers: Vec<SocketAddr>,
    /// For one try at one of them. Default 2 s.
    pub timeout: Duration,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: defaults::DNS_TIMEOUT }
    }
}

/// Replicas that a name stands for, each address one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// What is asked for.
    pub ask: Ask,
    /// Whether they are spoken to over TLS.
    pub https: bool,
    /// It is asked for again after this, or sooner when the answer's time to live is over. Default 1 min.
    pub every: Duration,
    /// Of each; an SRV record says it itself. Default 1.
    pub weight: u32,
    /// Of each; the place of an SRV record's own among those of the answer is added. Default 0.
    pub priority: u32,
    /// Of each.
    pub drain: bool,
}

/// What DNS is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// All addresses (A and AAAA) of a host, and the port there.
    Host(String, u16),
    /// The SRV records (RFC 2782) of a name, such as `_mcp._tcp.example.com`.
    Service(String),
}

impl Ask {
    /// The name that the replicas are known by: to themselves, as `Host`, and in their certificates. Of a service it
    /// is the domain that the config has, and not what a record says: who forges answers could say anything there
    /// (RFC 6125 §6.2.1).
    pub fn host(&self) -> &str {
        match self {
            Self::Host(host, _) => host,
            // behind `_service._protocol.`
            Self::Service(name) => name.splitn(3, '.').nth(2).unwrap_or(name),
        }
    }
}

/// Where DNS says that a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its addresses, tried in order; never empty.
    pub addresses: Vec<SocketAddr>,
    /// The Host that it is sent.
    pub host: String,
}

impl Lookup {
    /// The replica at an address.
    pub fn server(&self, address: SocketAddr, weight: u32, priority: u32) -> ServerSettings {
        let (host, port, https) = (self.ask.host(), address.port(), self.https);
        let found =
            Found { addresses: vec![address], host: url::authority(self.https, host, port) };
        ServerSettings {
            https,
            host: host.to_owned(),
            port,
            authority: url::authority(https, &address.ip().to_string(), port),
            weight,
            priority,
            drain: self.drain,
            found: Some(found),
        }
    }
}

/// As in configs, with how it is asked for behind it.
impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        match &self.ask {
            Ask::Host(host, port) => {
                write!(f, "{scheme}://{} (dns)", url::authority(self.https, host, *port))
            }
            Ask::Service(name) => write!(f, "{scheme}://{name} (srv)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_by_its_domain() {
        let host = |name: &str| Ask::Service(name.to_owned()).host().to_owned();
        assert_eq!(host("_mcp._tcp.example.com"), "example.com");
        assert_eq!(host("_mcp._tcp.svc.ns.svc.cluster.local"), "svc.ns.svc.cluster.local");
    }

    #[test]
    fn a_replica_is_called_by_its_address_and_hears_its_name() {
        let ask = Ask::Host("mcp.internal".to_owned(), 443);
        let every = Duration::from_secs(1);
        let lookup = Lookup { ask, https: true, every, weight: 1, priority: 0, drain: true };
        let server = lookup.server("[::1]:443".parse().unwrap(), 7, 2);
        assert_eq!((server.authority.as_str(), server.host_field()), ("[::1]", "mcp.internal"));
        assert_eq!((server.host.as_str(), server.weight, server.priority), ("mcp.internal", 7, 2));
        assert!(server.drain && server.https);
    }
}
