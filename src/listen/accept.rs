//! From an accepted socket to a spoken protocol: connection limit, TLS, HTTP/1.x or HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::{ALPN, Ssl, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::h1::conn::{H1, Next};
use super::settings::ListenerSettings;
use super::{ConnCx, Serve, h2, tls};

/// The application that Pingora hands accepted sockets to.
pub struct Front<S> {
    listeners: Vec<Listener>,
    handler: Arc<S>,
}

struct Listener {
    bound: SocketAddr,
    settings: Arc<ListenerSettings>,
    tls: Option<Acceptor>,
    slots: Arc<Semaphore>,
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
            let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
            let slots = Arc::new(Semaphore::new(settings.max_connections));
            Ok(Listener { bound, settings, tls, slots })
        });
        Ok(Self { listeners: listeners.collect::<Result<_, rustls::Error>>()?, handler })
    }

    fn listener(&self, local: SocketAddr) -> Option<&Listener> {
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let exact = self.listeners.iter().find(|l| l.bound == local);
        exact.or_else(|| {
            self.listeners
                .iter()
                .find(|l| l.bound.ip().is_unspecified() && l.bound.port() == local.port())
        })
    }

    async fn connection(self: Arc<Self>, stream: Stream, shutdown: ShutdownWatch) {
        let Some((local, peer)) = ends(&stream) else { return };
        let Some(listener) = self.listener(local) else {
            log::error!("a connection to {local} belongs to no listener");
            return;
        };
        let Ok(_slot) = listener.slots.clone().try_acquire_owned() else {
            warn_of_limit(listener.bound);
            return;
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let cx = ConnCx { peer, listener: listener.settings.clone(), shutdown };
        let _open = Open::new(self.handler.clone());
        match &listener.tls {
            None => http1(stream, cx, self.handler.clone()).await,
            Some(acceptor) => {
                let Ok(tcp) = stream.into_any().downcast::<TcpStream>() else { return };
                let handshake = Box::pin(acceptor.tls_handshake(*tcp));
                match timeout(cx.listener.header_timeout, handshake).await {
                    Ok(Ok(stream)) => {
                        let h2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
                        let stream: Stream = Box::new(stream);
                        if h2 {
                            Box::pin(h2::serve(stream, cx, self.handler.clone())).await;
                        } else {
                            http1(stream, cx, self.handler.clone()).await;
                        }
                    }
                    Ok(Err(e)) => log::debug!("TLS handshake with {peer} failed: {e}"),
                    Err(_) => log::debug!("TLS handshake with {peer} took too long"),
                }
            }
        }
    }
}

#[async_trait]
impl<S: Serve> ServerApp for Front<S> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // A task of its own: the accept task's future is nine times the size that ours needs, and
        // would live as long as the connection.
        tokio::spawn(self.clone().connection(stream, shutdown.clone()));
        None
    }
}

async fn http1<S: Serve>(stream: Stream, cx: ConnCx, handler: Arc<S>) {
    let mut conn = H1::new(stream, &cx.listener);
    // registered once, not anew for every request
    let mut draining = std::pin::pin!(cx.draining());
    loop {
        // The big futures are boxed, so that while a stream is silent only the small one is there.
        match Box::pin(conn.next(&cx.listener, draining.as_mut())).await {
            Next::Closed => return,
            Next::Refused(denial) => {
                handler.clone().refuse(&mut conn, denial, &cx).await;
                return Box::pin(conn.close()).await;
            }
            Next::Request(request) => {
                if let Some(tail) =
                    Box::pin(handler.clone().handle(&mut conn, request.head, &cx)).await
                {
                    handler.clone().tail(tail, &mut conn, &cx).await;
                }
                if cx.is_draining() || !Box::pin(conn.reusable()).await {
                    return Box::pin(conn.close()).await;
                }
            }
        }
    }
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
struct Open<S: Serve>(Arc<S>);

impl<S: Serve> Open<S> {
    fn new(handler: Arc<S>) -> Self {
        handler.connection(true);
        Self(handler)
    }
}

impl<S: Serve> Drop for Open<S> {
    fn drop(&mut self) {
        self.0.connection(false);
    }
}
