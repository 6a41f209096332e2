//! Who is connected: in, a connection and a head; out, a `Client`, or that a trusted proxy cannot be understood.
//!
//! The address is the peer's, unless the peer is a trusted proxy that names another in the one header that is
//! believed. All other headers of this kind are dropped on the way to the backend.

pub mod forwarded;

use http::HeaderName;
use http::header::FORWARDED;

use crate::base::caller::Client;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::listen::ConnCx;
use forwarded::{Told, Unreadable};

/// The client of a request. The header that was read is gone then: the backend gets what was found.
///
/// # Errors
/// 400 where a trusted proxy's word on it cannot be read.
pub fn identify(head: &mut Head, cx: &ConnCx) -> Result<Client, Box<Denial>> {
    let Told { address, hidden, tls } = match &cx.listener.door.proxies.header {
        None => Told { address: cx.peer.ip(), hidden: false, tls: None },
        Some(name) => {
            let told = told(head, name, cx).map_err(|at| unreadable(name, at));
            forget(head, name);
            told?
        }
    };
    let tls = tls.unwrap_or(cx.listener.tls.is_some());
    Ok(Client { address, hidden, tls, certificate: cx.certificate.clone() })
}

fn unreadable(name: &HeaderName, Unreadable(nth): Unreadable) -> Box<Denial> {
    let message = "The proxy before this one sent a forwarding header that cannot be read";
    let detail = format!("entry {nth} of {name}, from the right, is no address");
    Box::new(Denial::new(Reason::Malformed, "client.forwarded", message).detail(detail))
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

/// What a peer says of the client, where it may.
fn told(head: &Head, name: &HeaderName, cx: &ConnCx) -> Result<Told, Unreadable> {
    let proxies = &cx.listener.door.proxies.trusted;
    let peer = cx.peer.ip();
    if !cx.may_forward || !proxies.contains(peer) {
        return Ok(Told { address: peer, hidden: false, tls: None });
    }
    let lines = head.headers.get_all(name).iter();
    let trusted = |address| proxies.contains(address);
    if *name == FORWARDED {
        return forwarded::rfc7239(lines, peer, trusted);
    }
    let told = forwarded::list(lines, peer, trusted)?;
    Ok(Told { tls: forwarded::proto(&head.headers), ..told })
}
