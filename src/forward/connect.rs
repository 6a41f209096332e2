//! A connection to a replica: in, its addresses; out, a stream, plain or TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::base::io::{Late, within};

/// Unanswered probes after which a connection is given up: between 150 s and 5 min in all.
const PROBES: u32 = 6;

/// A stream to a backend, plain or TLS; the latter boxed, because its state is a kilobyte.
pub type BackendStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Where a replica is and how it is spoken to.
#[derive(Debug)]
pub struct Target {
    addresses: ArcSwap<Vec<SocketAddr>>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
}

impl Target {
    /// Addresses that are tried in order; what `https` needs; the time for a TCP connect to all of them
    /// together, and again for a TLS handshake.
    pub fn new(
        addresses: Vec<SocketAddr>,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        timeout: Duration,
    ) -> Self {
        Self { addresses: ArcSwap::from_pointee(addresses), tls, timeout }
    }

    /// The name has other addresses now.
    pub fn moved(&self, addresses: Vec<SocketAddr>) {
        if **self.addresses.load() != addresses {
            self.addresses.store(Arc::new(addresses));
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// The last address's, or `TimedOut`.
    pub async fn connect(&self) -> io::Result<BackendStream> {
        let late = |Late| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
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
        let mut last = io::Error::other("there is no address");
        // held while it is waited for
        let addresses = self.addresses.load_full();
        for address in &*addresses {
            match dial(*address).await {
                Ok(tcp) => return Ok(tcp),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
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

    fn target(listener: &TcpListener) -> Target {
        let addresses = vec![listener.local_addr().unwrap()];
        Target::new(addresses, None, Duration::from_secs(10))
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_the_next_address_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = target(&listener);
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        target.moved(vec![gone, listener.local_addr().unwrap()]);
        assert!(target.connect().await.is_ok());
        target.moved(vec![gone]);
        let refused = target.connect().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// A listener without room drops the first packet: the system sends another after a second.
    #[tokio::test]
    async fn a_connection_that_takes_a_moment_is_waited_for() {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let target = target(&listener);
        let _first = target.connect().await.unwrap();
        let (waited, _) = tokio::join!(target.connect(), async {
            tokio::task::yield_now().await;
            listener.accept().unwrap()
        });
        let Either::Left(tcp) = waited.unwrap() else { panic!("TLS unasked") };
        assert_eq!(tcp.peer_addr().unwrap(), target.addresses.load()[0]);
    }
}
