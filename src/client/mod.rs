//! Who is connected: in, a connection; out, a `Client`.
//!
//! The address is the TCP peer's. A trusted forwarding header comes with the front door.

use crate::base::caller::Client;
use crate::listen::ConnCx;

/// The client of a connection.
pub fn identify(cx: &ConnCx) -> Client {
    Client {
        address: cx.peer.ip(),
        tls: cx.listener.tls.is_some(),
        certificate: cx.certificate.clone(),
    }
}
