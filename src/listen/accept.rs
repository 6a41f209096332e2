//! From an accepted socket to a spoken protocol: connection limit, TLS, HTTP/1.x or HTTP/2.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::server::ShutdownWatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::door::Guest;
use super::h1::conn::{H1, Next};
use super::h1::head::Request;
use super::settings::ListenerSettings;
use super::stream::ClientStream;
use super::tls::{Tls, failure};
use super::wire::Wire;
use super::{ConnCx, Serve, h2};
use crate::base::rate::{Counts, Permit};

/// The application that Pingora hands accepted sockets to.
pub struct Front<S> {
    listeners: Vec<Listener>,
    handler: Arc<S>,
}

struct Listener {
    bound: SocketAddr,
    settings: Arc<ListenerSettings>,
    tls: Option<Tls>,
    slots: Arc<Semaphore>,
    /// Connections by address.
    places: Option<Arc<Counts>>,
}

impl<S: Serve> Front<S> {
    /// Listeners with the addresses that they are really bound to.
    ///
    /// # Errors
    /// A certificate that the TLS library does not take.
    pub fn new(
        listeners: Vec<(SocketAddr, Arc<ListenerSettings>)>,
        handler: Arc<S>,
    ) -> Result<Self, rustls::Error> {
        let listeners = listeners.into_iter().map(|(bound, settings)| {
            let tls = settings.tls.clone().map(Tls::new).transpose()?;
            let slots = Arc::new(Semaphore::new(settings.max_connections));
            let places = settings.door.most_per_address;
            let places = places.map(|most| Arc::new(Counts::new(most.get())));
            Ok(Listener { bound, settings, tls, slots, places })
        });
        Ok(Self { listeners: listeners.collect::<Result<_, rustls::Error>>()?, handler })
    }

    /// The most exact first: the address itself, the wildcard of its version, any wildcard of its port (`[::]`
    /// takes IPv4, too, where nobody else does).
    fn listener(&self, local: SocketAddr) -> Option<&Listener> {
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let wildcard =
            |l: &&Listener| l.bound.ip().is_unspecified() && l.bound.port() == local.port();
        let exact = self.listeners.iter().find(|l| l.bound == local);
        let own = || {
            self.listeners.iter().filter(wildcard).find(|l| l.bound.is_ipv4() == local.is_ipv4())
        };
        exact.or_else(own).or_else(|| self.listeners.iter().find(wildcard))
    }

    /// What has to be known and agreed before the first byte of HTTP; `None` when there will be none.
    async fn receive(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<Connection<S>> {
        let (local, peer) = ends(&stream)?;
        let Some(listener) = self.listener(local) else {
            log::error!("a connection to {local} belongs to no listener");
            return None;
        };
        let Ok(slot) = listener.slots.clone().try_acquire_owned() else {
            warn_of_limit(listener.bound);
            self.handler.turned_away("full");
            return None;
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let settings = listener.settings.clone();
        let mut tcp = stream.into_any().downcast::<TcpStream>().ok()?;
        let (limit, places) = (settings.header_timeout, listener.places.as_ref());
        let guest = match settings.door.enter(&mut tcp, peer, limit, places).await {
            Ok(guest) => guest,
            Err(why) => {
                log::debug!("a connection from {peer} is turned away: {why}");
                self.handler.turned_away(why);
                return None;
            }
        };
        let Guest { peer, may_forward, place } = guest;
        let mut cx = ConnCx {
            peer,
            may_forward,
            certificate: None,
            listener: settings,
            shutdown: shutdown.clone(),
        };
        let open = Open { handler: self.handler.clone(), _slot: slot, _place: place };
        open.handler.connection(true);
        let Some(tls) = &listener.tls else {
            return Some(Connection { io: ClientStream::Left(tcp), h2: false, cx, open });
        };
        match timeout(cx.listener.header_timeout, tls.accept(tcp)).await {
            Ok(Ok(agreed)) => {
                cx.certificate = agreed.certificate;
                Some(Connection { io: ClientStream::Right(agreed.io), h2: agreed.h2, cx, open })
            }
            Ok(Err(e)) => {
                log::debug!("TLS handshake with {peer} failed: {e}");
                open.handler.handshake_failed(failure::why(&e));
                None
            }
            Err(_) => {
                log::debug!("TLS handshake with {peer} took too long");
                open.handler.handshake_failed(failure::TIMEOUT);
                None
            }
        }
    }
}

/// A connection that is ready for HTTP.
struct Connection<S: Serve> {
    io: ClientStream,
    h2: bool,
    cx: ConnCx,
    open: Open<S>,
}

#[async_trait]
impl<S: Serve> ServerApp for Front<S> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // Tasks of their own: the accept task's future and the handshake's are many times the size
        // of what a silent connection needs, and would live as long as it.
        let Connection { io, h2, cx, open } = self.receive(stream, shutdown).await?;
        if h2 {
            tokio::spawn(h2::serve(io, cx, open));
        } else {
            tokio::spawn(http1(io, cx, open));
        }
        None
    }
}

/// One request after another. No `async fn`, which would hold its arguments twice.
fn http1<S: Serve>(io: ClientStream, cx: ConnCx, open: Open<S>) -> impl Future<Output = ()> + Send {
    let mut conn = H1::new(io, cx.listener.send_timeout);
    async move {
        // registered once, not anew for every request
        let mut draining = std::pin::pin!(cx.draining());
        let mut left = cx.listener.door.most_requests;
        // The big futures are boxed, so that while a stream is silent only the small one is there.
        loop {
            let request = match conn.next(&cx.listener, draining.as_mut()).await {
                Next::Closed => return,
                Next::Refused(denial) => {
                    Box::pin(open.handler.refuse(&mut conn, *denial, &cx)).await;
                    return Box::pin(conn.close()).await;
                }
                Next::Request(request) => request,
            };
            if left.is_some_and(|left| left.get() == 1) {
                conn.close_after();
            }
            left = left.and_then(|left| NonZeroU32::new(left.get() - 1));
            let mut tail = begin(&*open.handler, &mut conn, request, &cx).await;
            if let Some(tail) = &mut tail {
                conn.settle();
                open.handler.tail(tail, &mut conn, draining.as_mut()).await;
            }
            drop(tail);
            if cx.is_draining() || !conn.may_go_on() && !Box::pin(conn.drained()).await {
                return Box::pin(conn.close()).await;
            }
        }
    }
}

/// The head is not kept in the connection's task.
fn begin<'a, S: Serve>(
    handler: &'a S,
    conn: &'a mut H1,
    request: Box<Request>,
    cx: &'a ConnCx,
) -> Pin<Box<impl Future<Output = Option<S::Tail>> + Send + 'a>> {
    Box::pin(handler.handle(conn, request.head, cx))
}

/// Says so once a second: a flood must not become one of lines.
fn warn_of_limit(listener: SocketAddr) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if LAST.swap(now, Ordering::Relaxed) != now {
        log::warn!("{listener}: connection limit reached, closing new connections");
    }
}

fn ends(stream: &Stream) -> Option<(SocketAddr, SocketAddr)> {
    let digest = stream.get_socket_digest()?;
    Some((*digest.local_addr()?.as_inet()?, *digest.peer_addr()?.as_inet()?))
}

/// Counts a connection for as long as it lives, whatever ends it.
pub(super) struct Open<S: Serve> {
    /// Answers its requests.
    pub(super) handler: Arc<S>,
    _slot: OwnedSemaphorePermit,
    _place: Option<Permit>,
}

impl<S: Serve> Drop for Open<S> {
    fn drop(&mut self) {
        self.handler.connection(false);
    }
}
