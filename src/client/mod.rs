//! Who is connected: in, a connection and a head; out, a `Client`.

use std::net::IpAddr;

use crate::listen::ConnCx;

/// The other end, as far as addresses tell.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address: the TCP peer. (A trusted forwarding header comes with the front door.)
    pub address: IpAddr,
    /// Whether it speaks TLS to us.
    pub tls: bool,
}

impl Client {
    /// The client of a connection.
    pub fn identify(cx: &ConnCx) -> Self {
        Self { address: cx.peer.ip(), tls: cx.listener.tls.is_some() }
    }
}
