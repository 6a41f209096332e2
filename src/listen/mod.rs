//! Connections: in, sockets; out, requests on a [`wire::Wire`], given to a [`Serve`].
//!
//! Pingora's server runs it and stops it; sockets, accept loop and TLS are ours, so that what must
//! happen before TLS can (PROXY protocol, address lists, connection limits: [`door`]), every TLS
//! setting is within reach, and a connection costs what it needs. HTTP/1.x is read by our own loop ([`h1`]), HTTP/2 by the
//! `h2` crate under our accept loop ([`h2`]).

pub mod accept;
pub mod acme;
pub mod certificate;
pub mod compile;
pub mod door;
pub mod h1;
pub mod h2;
pub mod local;
pub mod place;
pub mod proxy_protocol;
pub mod service;
pub mod settings;
pub mod stream;
pub mod tls;
pub mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::time::sleep;

use crate::base::caller::ClientCertificate;
use crate::base::denial::Denial;
use crate::base::head::Head;
use place::Place;
use rustls::pki_types::CertificateDer;
use settings::ListenerSettings;
use wire::Wire;

/// How long a connection that waits for a request stays open when the edge stops: a client that has not heard of
/// it may be sending one just now, and no client may repeat a POST that was cut off. Clients on the other side of
/// the world need half of it; and who stops an idle edge does not want to wait for longer.
pub const LINGER: Duration = Duration::from_millis(750);

/// What a request needs to know of its connection.
#[derive(Debug)]
pub struct ConnCx {
    /// The TCP peer, or the one that a trusted peer has announced by the PROXY protocol; IPv4-mapped IPv6
    /// addresses are turned into IPv4.
    pub peer: SocketAddr,
    /// Whether it may say by a header for whom it speaks, if it is trusted.
    pub may_forward: bool,
    /// The certificate that the client has shown, checked.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The same as it came, with those between it and its CA; empty where there is none.
    pub shown: Vec<CertificateDer<'static>>,
    /// When what it has shown may be good no more, in seconds since 1970; 0: nobody has looked.
    pub good_until: AtomicI64,
    /// The listener that it came in on, as it was then.
    pub listener: Arc<ListenerSettings>,
    /// The same as it is now.
    pub place: Arc<Place>,
    /// The [`Serve::epoch`] in which it was last found to be let in.
    pub looked_at: AtomicU64,
    /// Turns true when we are to stop, or the listener is.
    pub shutdown: ShutdownWatch,
}

impl ConnCx {
    /// Ends when we are to stop.
    pub async fn draining(&self) {
        until_stop(self.shutdown.clone()).await;
    }

    /// Whether we are to stop.
    pub fn is_draining(&self) -> bool {
        // as in `draining`
        *self.shutdown.borrow() || self.shutdown.has_changed().is_err()
    }
}

/// Ends when we are to stop.
async fn until_stop(mut shutdown: ShutdownWatch) {
    // a closed channel means that the server is gone: that is a stop, too
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        log::debug!("the server ended before its connections");
    }
}

/// Ends [`LINGER`] after we are to stop.
async fn lingered(shutdown: ShutdownWatch) {
    until_stop(shutdown).await;
    sleep(LINGER).await;
}

/// What answers requests: the proxy.
pub trait Serve: Send + Sync + 'static {
    /// What is left of a long answer: small, so that idle streams are cheap.
    type Tail: Send;

    /// Answers a request, or begins to and leaves the rest to [`Serve::tail`].
    fn handle<W: Wire>(
        &self,
        wire: &mut W,
        head: Head,
        cx: &ConnCx,
    ) -> impl Future<Output = Option<Self::Tail>> + Send;

    /// Goes on with a long answer to its end; `draining` ends when we are to stop.
    fn tail<W: Wire>(
        &self,
        tail: &mut Self::Tail,
        wire: &mut W,
        cx: &ConnCx,
        draining: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> impl Future<Output = ()> + Send;

    /// Answers what could not be read as a request.
    fn refuse<W: Wire>(
        &self,
        wire: &mut W,
        denial: Denial,
        cx: &ConnCx,
    ) -> impl Future<Output = ()> + Send;

    /// Grows whenever who was let in may be let in no more.
    fn epoch(&self) -> u64;

    /// A listener begins to accept connections (`true`), or has ended: none will come from it.
    fn accepting(&self, begun: bool);

    /// A connection was opened (`true`) or is gone (`false`).
    fn connection(&self, opened: bool);

    /// A connection was closed before a byte of TLS or HTTP was read.
    fn turned_away(&self, why: &'static str);

    /// A TLS handshake brought no connection.
    fn handshake_failed(&self, why: &'static str);
}
