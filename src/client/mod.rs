//! Who is connected: in, a connection's addresses; out, a `Client`.

use std::net::SocketAddr;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// The TCP peer, IPv4-mapped IPv6 addresses turned into IPv4.
    pub address: SocketAddr,
    /// Whether the client speaks TLS to us.
    pub tls: bool,
}

impl Client {
    /// The client behind a TCP peer.
    pub fn new(peer: SocketAddr, tls: bool) -> Self {
        Self { address: SocketAddr::new(peer.ip().to_canonical(), peer.port()), tls }
    }
}
