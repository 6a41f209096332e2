//! A connection to a replica: in, its addresses; out, a stream, plain or TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::net::{connect, getpeername, send, socket_with};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::base::io::{Late, within};

/// Unanswered probes after which a connection is given up: between 150 s and 5 min in all.
const PROBES: u32 = 6;
/// For one of several addresses, where there is so much time: a packet there and back around the world.
const SHARE: Duration = Duration::from_millis(250);

/// A stream to a backend, plain or TLS; the latter boxed, because its state is a kilobyte.
pub type BackendStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Where a replica is and how it is spoken to.
#[derive(Debug)]
pub struct Target {
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// The place of the one that was reached last.
    reached: AtomicUsize,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
}

impl Target {
    /// Addresses that are tried in order, from the one that was reached last on; what `https` needs; the time for a
    /// TCP connect to all of them together, and again for a TLS handshake.
    pub fn new(
        addresses: Vec<SocketAddr>,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        timeout: Duration,
    ) -> Self {
        let (addresses, reached) = (ArcSwap::from_pointee(addresses), AtomicUsize::new(0));
        Self { addresses, reached, tls, timeout }
    }

    /// The name has other addresses now.
    pub fn moved(&self, addresses: Vec<SocketAddr>) {
        let before = self.addresses.load();
        if **before != addresses {
            let reached = before.get(self.reached.load(Ordering::Relaxed));
            let place = addresses.iter().position(|address| Some(address) == reached);
            self.reached.store(place.unwrap_or(0), Ordering::Relaxed);
            self.addresses.store(Arc::new(addresses));
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// `TimedOut`, or an address's: `ConnectionRefused` only where all refuse.
    pub async fn connect(&self) -> io::Result<BackendStream> {
        let tcp = within(self.timeout, self.reach()).await.map_err(late)??;
        let Some((config, name)) = &self.tls else { return Ok(Either::Left(tcp)) };
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(config.clone());
        let handshake = connector.connect(name.clone(), tcp);
        let stream = within(self.timeout, handshake).await.map_err(late)??;
        Ok(Either::Right(Box::new(stream)))
    }

    /// The first address that can be reached.
    async fn reach(&self) -> io::Result<TcpStream> {
        // held while it is waited for
        let addresses = self.addresses.load_full();
        match addresses.as_slice() {
            [only] => dial(*only).await,
            several => Box::pin(self.reach_one_of(several)).await,
        }
    }

    /// One after another, each for its share of the time, and not at once as of RFC 8305: a packet that was lost comes
    /// again after a second, and another address may be another process, which does not know the sessions of this one.
    async fn reach_one_of(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let until = Instant::now() + self.timeout;
        let first = self.reached.load(Ordering::Relaxed);
        let mut failed: Option<io::Error> = None;
        for (turn, left) in (1..=addresses.len()).rev().enumerate() {
            let place = first.wrapping_add(turn) % addresses.len();
            let Some(address) = addresses.get(place) else { continue };
            let most = share(until.saturating_duration_since(Instant::now()), left);
            let e = match within(most, dial(*address)).await {
                Ok(Ok(tcp)) => {
                    self.reached.store(place, Ordering::Relaxed);
                    return Ok(tcp);
                }
                Ok(Err(e)) => e,
                Err(e) => late(e),
            };
            // whoever hears of a refusal takes it that nobody listens any more
            if failed.is_none() || e.kind() != io::ErrorKind::ConnectionRefused {
                failed = Some(e);
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::other("there is no address")))
    }
}

fn late(_: Late) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")
}

/// How long the next of so many addresses is waited for: all the same, but rather few for long enough than all for
/// too short a time; half of the time is for the others.
fn share(left: Duration, addresses: usize) -> Duration {
    let even = left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    if addresses > 1 { even.max(SHARE.min(left / 2)) } else { left }
}

/// tokio's own `connect` waits for the poller's word even where the connection is there before the system call
/// returns, as it is on one machine.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    let connected = getpeername(&socket).is_ok();
    let tcp = TcpStream::from_std(socket.into())?;
    if !connected {
        tcp.writable().await?;
        if let Some(e) = tcp.take_error()? {
            return Err(e);
        }
    }
    Ok(tcp)
}

/// Sends what the system takes at once on a new connection, and gives how much that was: tokio does not try
/// before its poller has said that it may. What is wrong with the connection is the next write's to tell.
pub fn send_at_once(stream: &BackendStream, bytes: &[u8]) -> usize {
    match stream {
        Either::Left(tcp) => send(tcp, bytes, SendFlags::NOSIGNAL).unwrap_or(0),
        Either::Right(_) => 0,
    }
}

/// Lets small writes leave though others are under way.
///
/// # Errors
/// The system's.
pub fn hurry(stream: &BackendStream) -> io::Result<()> {
    tcp(stream).set_nodelay(true)
}

/// Has the system probe a connection that will be silent for long.
///
/// # Errors
/// The system's.
pub fn probe(stream: &BackendStream) -> io::Result<()> {
    SockRef::from(tcp(stream)).set_tcp_keepalive(&probes())
}

fn tcp(stream: &BackendStream) -> &TcpStream {
    match stream {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    }
}

/// How a connection that is silent is probed: a backend that vanished behind a quiet stream would
/// never be noticed. After 60 to 120 s, then every 15 to 30 s, another time for each: thousands of
/// streams that were opened together would be probed in the same moment, and a system that drops
/// what is over its queue (Linux: 1,000 packets on loopback) would drop the same ones every time.
fn probes() -> TcpKeepalive {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let after = Duration::from_secs(60 + n % 61);
    TcpKeepalive::new()
        .with_time(after)
        .with_interval(Duration::from_secs(15 + n % 16))
        .with_retries(PROBES)
}

/// Whether an unused connection is still good: nothing to read and not closed.
pub fn is_quiet(stream: &mut BackendStream) -> bool {
    match stream {
        // No system call unless the poller has reported something: the end, or bytes that a faulty
        // backend sent behind its last answer. A look at the socket would be a moment fresher, and
        // just as blind to what comes while the next answer is waited for.
        Either::Left(tcp) => {
            matches!(tcp.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
        }
        Either::Right(tls) => {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut byte = [0u8; 1];
            let mut buf = ReadBuf::new(&mut byte);
            Pin::new(tls).poll_read(&mut cx, &mut buf).is_pending()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LONG: Duration = Duration::from_secs(10);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Nobody listens there.
    fn gone() -> SocketAddr {
        listener().1
    }

    /// A listener without room drops the first packet of who connects, and what takes the room.
    async fn full() -> (TcpListener, SocketAddr, BackendStream) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let first = Target::new(vec![address], None, LONG).connect().await.unwrap();
        (listener, address, first)
    }

    async fn reached(target: &Target) -> SocketAddr {
        tcp(&target.connect().await.unwrap()).peer_addr().unwrap()
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_the_next_address_tried() {
        let ((_listener, good), gone) = (listener(), gone());
        let target = Target::new(vec![gone, good], None, LONG);
        assert_eq!(reached(&target).await, good);
        target.moved(vec![gone]);
        let refused = target.connect().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        target.moved(vec![]);
        let nowhere = target.connect().await.unwrap_err();
        assert_eq!(nowhere.to_string(), "there is no address");
    }

    /// The system sends another packet after a second.
    #[tokio::test]
    async fn a_connection_that_takes_a_moment_is_waited_for() {
        let (listener, address, _first) = full().await;
        let target = Target::new(vec![address], None, LONG);
        let (waited, _) = tokio::join!(reached(&target), async {
            tokio::task::yield_now().await;
            listener.accept().unwrap()
        });
        assert_eq!(waited, address);
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_the_others_their_time() {
        let (silent, first, _held) = full().await;
        let (listener, good) = listener();
        let target = Target::new(vec![first, first, good], None, Duration::from_secs(1));
        assert_eq!(reached(&target).await, good);
        // from now on that is the first, though another one answers again, and wherever it stands
        let _room = silent.accept().unwrap();
        assert_eq!(reached(&target).await, good);
        target.moved(vec![first, good]);
        assert_eq!(reached(&target).await, good);
        drop(listener);
        assert_eq!(reached(&target).await, first);
    }

    #[tokio::test]
    async fn it_is_refused_only_where_all_refuse() {
        let (_silent, silent, _held) = full().await;
        for (addresses, kind) in [
            (vec![gone(), gone()], io::ErrorKind::ConnectionRefused),
            (vec![silent, gone()], io::ErrorKind::TimedOut),
            (vec![gone(), silent], io::ErrorKind::TimedOut),
        ] {
            let target = Target::new(addresses, None, Duration::from_millis(200));
            assert_eq!(target.connect().await.unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn shares_are_even_but_not_too_small() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(5), 1), seconds(5));
        assert_eq!(share(seconds(5), 2), seconds(5) / 2);
        assert_eq!(share(seconds(5), 256), SHARE);
        assert_eq!(share(SHARE, 2), SHARE / 2, "the other one has its turn");
        assert_eq!(share(Duration::ZERO, 3), Duration::ZERO);
    }
}
