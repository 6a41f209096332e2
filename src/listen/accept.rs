//! From a listening socket to a spoken protocol: in, whoever connects; out, connection limit, TLS, HTTP/1.x or
//! HTTP/2, request by request.
//!
//! The accept loop is ours: Pingora's gives every connection a task of 14 KiB that is moved four times
//! before the first byte is read, and six system calls that can be inherited or left out.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::door::Guest;
use super::h1::conn::{H1, Next};
use super::h1::head::Request;
use super::place::{Place, Post};
use super::settings::ListenerSettings;
use super::stream::{ClientStream, Socket};
use super::tls::{Tls, failure};
use super::wire::Wire;
use super::{ConnCx, Serve, h2, lingered, until_stop};
use crate::base::rate::{Counts, Permit};

/// How long to wait when the system has no room for a connection.
const NO_ROOM: Duration = Duration::from_secs(1);

/// A listener, and what answers those who come.
pub struct Front<S> {
    bound: SocketAddr,
    settings: Arc<ListenerSettings>,
    tls: Option<Arc<Tls>>,
    /// Connections, over all of its settings.
    taken: Arc<AtomicUsize>,
    /// Connections by address.
    places: Option<Arc<Counts>>,
    handler: Arc<S>,
}

impl<S: Serve> Front<S> {
    /// A listener with the address that it is really bound to.
    ///
    /// # Errors
    /// A certificate that the TLS library does not take.
    pub fn new(
        bound: SocketAddr,
        settings: Arc<ListenerSettings>,
        handler: Arc<S>,
    ) -> Result<Self, rustls::Error> {
        let tls = settings.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
        let taken = Arc::default();
        let places = settings.door.most_per_address;
        let places = places.map(|most| Arc::new(Counts::new(most.get())));
        Ok(Self { bound, settings, tls, taken, places, handler })
    }

    /// The same listener by other settings. What they leave as it is goes on: tickets of TLS, and the counts of
    /// connections.
    ///
    /// # Errors
    /// As [`Front::new`].
    pub fn renewed(&self, settings: Arc<ListenerSettings>) -> Result<Self, rustls::Error> {
        let tls = match (&self.tls, &settings.tls) {
            (Some(tls), Some(wanted)) if tls.is_of(wanted) => Some(tls.clone()),
            (_, wanted) => wanted.clone().map(Tls::new).transpose()?.map(Arc::new),
        };
        // those who are there count by another bound, too
        let new = |most: NonZeroU32| Arc::new(Counts::new(most.get()));
        let most = settings.door.most_per_address;
        let places = most.map(|most| self.places.clone().unwrap_or_else(|| new(most)));
        let (bound, taken, handler) = (self.bound, self.taken.clone(), self.handler.clone());
        Ok(Self { bound, settings, tls, taken, places, handler })
    }

    /// What it goes by.
    pub fn settings(&self) -> &Arc<ListenerSettings> {
        &self.settings
    }

    /// Where it is really bound to.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }
}

impl<S: Serve> Post<S> {
    /// Accepts until the place is closed, or we are to stop.
    pub(super) async fn run(self: Arc<Self>, socket: Arc<TcpListener>) {
        let front = self.front();
        let (_accepting, bound) = (Accepting::new(&front.handler), front.bound);
        drop(front);
        let mut stop = pin!(until_stop(self.place().shutdown()));
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = poll_fn(|cx| socket.poll_accept(cx)) => accepted,
                () = &mut stop => return,
            };
            match accepted {
                Ok((tcp, peer)) => self.front().welcome(tcp, peer, self.place()),
                Err(e) if is_of_one(&e) => {
                    log::debug!("a connection was gone before it was accepted: {e}")
                }
                Err(e) => {
                    log::error!("{bound}: cannot accept connections: {e}");
                    tokio::select! { () = sleep(NO_ROOM) => {}, () = &mut stop => return }
                }
            }
        }
    }
}

impl<S: Serve> Front<S> {
    /// Gives a connection a task; most know at once who came and need no TLS.
    fn welcome(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr, place: &Arc<Place>) {
        let Some(slot) = Slot::take(&self.taken, self.settings.max_connections) else {
            warn_of_limit(self.bound);
            return self.handler.turned_away("full");
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.handler.connection(true);
        let open = Open { handler: self.handler.clone(), _slot: slot, place: None };
        // before anything is looked at: what changes meanwhile is looked at again
        let epoch = self.handler.epoch();
        let came = Came { socket: tcp.into(), peer, open, place: place.clone(), epoch };
        let door = &self.settings.door;
        if self.tls.is_some() || !door.knows_at_once() {
            tokio::spawn(self.clone().receive(came));
            return;
        }
        match door.enter_at_once(peer, self.places.as_ref()) {
            Ok(guest) => {
                let (socket, cx, open) = self.open(came, guest);
                tokio::spawn(http1(ClientStream::Left(socket), cx, open));
            }
            Err(why) => self.turn_away(peer, why),
        }
    }

    /// What has to be known and agreed before the first byte of HTTP.
    async fn receive(self: Arc<Self>, mut came: Came<S>) {
        let (limit, places) = (self.settings.header_timeout, self.places.as_ref());
        let door = &self.settings.door;
        let entered = tokio::select! {
            biased;
            entered = door.enter(&mut came.socket, came.peer, limit, places) => entered,
            // who has not said for whom it comes has asked for nothing
            () = lingered(came.place.shutdown()) => return,
        };
        let guest = match entered {
            Ok(guest) => guest,
            Err(why) => return self.turn_away(came.peer, why),
        };
        let peer = guest.peer;
        let (socket, mut cx, open) = self.open(came, guest);
        // Tasks of their own: this one's future is many times the size of what a silent connection
        // needs, and would live as long as it.
        let Some(tls) = &self.tls else {
            tokio::spawn(http1(ClientStream::Left(socket), cx, open));
            return;
        };
        let agreed = tokio::select! {
            biased;
            agreed = timeout(limit, tls.accept(socket)) => agreed,
            // as above
            () = lingered(cx.shutdown.clone()) => return,
        };
        match agreed {
            Ok(Ok(agreed)) => {
                (cx.certificate, cx.shown) = (agreed.certificate, agreed.shown);
                let io = ClientStream::Right(agreed.io);
                if agreed.h2 {
                    tokio::spawn(h2::serve(io, cx, open));
                } else {
                    tokio::spawn(http1(io, cx, open));
                }
            }
            Ok(Err(e)) => {
                log::debug!("TLS handshake with {peer} failed: {e}");
                open.handler.handshake_failed(failure::why(&e));
            }
            Err(_) => {
                log::debug!("TLS handshake with {peer} took too long");
                open.handler.handshake_failed(failure::TIMEOUT);
            }
        }
    }

    /// A guest is in.
    fn open(&self, came: Came<S>, guest: Guest) -> (Socket, ConnCx, Open<S>) {
        let Guest { peer, may_forward, place } = guest;
        open_with(came, peer, may_forward, place, self.settings.clone())
    }

    fn turn_away(&self, peer: SocketAddr, why: &'static str) {
        log::debug!("a connection from {peer} is turned away: {why}");
        self.handler.turned_away(why);
    }
}

/// A connection of which nothing has been read.
struct Came<S: Serve> {
    socket: Socket,
    peer: SocketAddr,
    open: Open<S>,
    place: Arc<Place>,
    epoch: u64,
}

fn open_with<S: Serve>(
    came: Came<S>,
    peer: SocketAddr,
    may_forward: bool,
    count: Option<Permit>,
    listener: Arc<ListenerSettings>,
) -> (Socket, ConnCx, Open<S>) {
    let Came { socket, mut open, place, epoch, .. } = came;
    open.place = count;
    let cx = ConnCx {
        peer,
        may_forward,
        certificate: None,
        shown: Vec::new(),
        good_until: 0.into(),
        listener,
        shutdown: place.shutdown(),
        place,
        looked_at: epoch.into(),
    };
    (socket, cx, open)
}

/// Whether only one connection has failed: the next may be tried at once.
fn is_of_one(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// One request after another. No `async fn`, which would hold its arguments twice.
fn http1<S: Serve>(io: ClientStream, cx: ConnCx, open: Open<S>) -> impl Future<Output = ()> + Send {
    let mut conn = H1::new(io, cx.listener.send_timeout);
    async move {
        // registered once, not anew for every request
        let (mut stop, mut stopped) = (pin!(cx.draining()), false);
        // a wait that is over is not asked again, and both the next request and a long answer wait for the stop
        let mut draining = pin!(poll_fn(|task| {
            stopped = stopped || stop.as_mut().poll(task).is_ready();
            if stopped { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut left = cx.listener.door.most_requests;
        // The big futures are boxed, so that while a stream is silent only the small one is there.
        loop {
            let request = match conn.next(&cx.listener, draining.as_mut()).await {
                Next::Closed => return,
                Next::Refused(denial) => {
                    Box::pin(open.handler.refuse(&mut conn, *denial, &cx)).await;
                    return Box::pin(conn.close(cx.is_draining())).await;
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
                open.handler.tail(tail, &mut conn, &cx, draining.as_mut()).await;
            }
            drop(tail);
            if cx.is_draining() || !conn.may_go_on() && !Box::pin(conn.drained()).await {
                return Box::pin(conn.close(cx.is_draining())).await;
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

/// Counts a connection for as long as it lives, whatever ends it.
pub(super) struct Open<S: Serve> {
    /// Answers its requests.
    pub(super) handler: Arc<S>,
    _slot: Slot,
    #[allow(dead_code, reason = "held")]
    place: Option<Permit>,
}

/// One connection of a listener.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// One more, where fewer than `most` are there.
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let one_more = |n: usize| (n < most).then_some(n + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).ok()?;
        Some(Self(taken.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Says that a listener accepts for as long as it lives.
struct Accepting<S: Serve>(Arc<S>);

impl<S: Serve> Accepting<S> {
    fn new(handler: &Arc<S>) -> Self {
        handler.accepting(true);
        Self(handler.clone())
    }
}

impl<S: Serve> Drop for Accepting<S> {
    fn drop(&mut self) {
        self.0.accepting(false);
    }
}

impl<S: Serve> Drop for Open<S> {
    fn drop(&mut self) {
        self.handler.connection(false);
    }
}
