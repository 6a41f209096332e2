//! Who is connected: in, a connection and a head; out, a `Client`.
//!
//! The address is the peer's, unless the peer is a trusted proxy that names another in the one header that is
//! believed. All other headers of this kind are dropped on the way to the backend.

pub mod forwarded;

use std::net::IpAddr;

use http::HeaderName;
use http::header::FORWARDED;

use crate::base::caller::Client;
use crate::base::head::Head;
use crate::listen::ConnCx;
use forwarded::Told;

/// The client of a request. The header that was read is gone then: the backend gets what was found.
pub fn identify(head: &mut Head, cx: &ConnCx) -> Client {
    let (address, tls) = match &cx.listener.door.proxies.header {
        None => (cx.peer.ip(), None),
        Some(name) => {
            let told = told(head, name, cx);
            forget(head, name);
            told
        }
    };
    Client {
        address,
        tls: tls.unwrap_or(cx.listener.tls.is_some()),
        certificate: cx.certificate.clone(),
    }
}

/// Takes a header out, and what servers that read `_` as `-` (RFC 3875 §4.1.18) take for it.
fn forget(head: &mut Head, name: &HeaderName) {
    head.headers.remove(name);
    let same = |other: &&HeaderName| {
        let (other, name) = (other.as_str(), name.as_str());
        other.len() == name.len() && other.contains('_') && other.replace('_', "-") == name
    };
    let doubles: Vec<HeaderName> = head.headers.keys().filter(same).cloned().collect();
    for double in doubles {
        head.headers.remove(double);
    }
}

/// What a peer says of the client, where it may: address, and whether that one speaks TLS.
fn told(head: &Head, name: &HeaderName, cx: &ConnCx) -> (IpAddr, Option<bool>) {
    let proxies = &cx.listener.door.proxies.trusted;
    let peer = cx.peer.ip();
    if !cx.may_forward || !proxies.contains(peer) {
        return (peer, None);
    }
    let lines = head.headers.get_all(name).iter();
    let trusted = |address| proxies.contains(address);
    if *name == FORWARDED {
        let Told { address, tls } = forwarded::rfc7239(lines, peer, trusted);
        return (address, tls);
    }
    (forwarded::list(lines, peer, trusted), forwarded::proto(&head.headers))
}
