//! Listening sockets: in, listeners of the config; out, bound ones, and public URLs that name their ports.

use std::net::{SocketAddr, TcpListener};

use super::upgrade::{Held, Inherited};
use crate::config::Settings;
use crate::listen::settings::ListenerSettings;

/// A socket, and where it is really bound to.
pub(super) type Socket = (TcpListener, SocketAddr);

/// Binds a listener among all of a config, or takes it from the process before.
///
/// # Errors
/// A sentence that names the address.
pub(super) fn bind_one(
    address: SocketAddr,
    all: &[ListenerSettings],
    inherited: &mut Inherited,
) -> Result<Socket, String> {
    // `[::]` takes IPv4, too, unless another listener has that
    let has_v4 = |other: &ListenerSettings| {
        other.address.is_ipv4() && other.address.port() == address.port()
    };
    let v6_only = address.is_ipv6() && address.port() != 0 && all.iter().any(has_v4);
    inherited.bind(&address.to_string(), address, v6_only).map_err(|e| e.to_string())
}

/// Binds every listener.
///
/// # Errors
/// All that fail are named, each in a sentence.
pub(super) fn bind_all(
    settings: &Settings,
    inherited: &mut Inherited,
    held: &Held,
) -> Result<Vec<Socket>, String> {
    let (mut sockets, mut problems) = (Vec::new(), Vec::new());
    for listener in &settings.listeners {
        match bind_one(listener.address, &settings.listeners, inherited) {
            Ok(socket) => {
                held.keep(&listener.address.to_string(), &socket.0);
                sockets.push(socket);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(sockets) } else { Err(problems.join("\n")) }
}

/// Port 0 became a real one: public URLs that were made from the route's first listener name it now.
pub(super) fn name_ports(settings: &mut Settings, bound: &[SocketAddr]) {
    for route in &mut settings.routes {
        let mut both = settings.listeners.iter().zip(bound);
        let serves = |l: &ListenerSettings| match l.redirect {
            None => route.is_served_at(l.address),
            Some(_) => route.names(l.address),
        };
        let Some((_, bound)) = both.find(|(l, _)| serves(l)) else { continue };
        if let Some(host) = route.public_url.authority.strip_suffix(":0") {
            route.public_url.authority = format!("{host}:{}", bound.port());
        }
    }
}
