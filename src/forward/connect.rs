//! A connection to a replica: in, its addresses; out, a stream, plain or TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// Unanswered probes after which a connection is given up: between 150 s and 5 min in all.
const PROBES: u32 = 6;

/// A stream to a backend, plain or TLS; the latter boxed, because its state is a kilobyte.
pub type BackendStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Where a replica is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Tried in order; never empty.
    pub addresses: Vec<SocketAddr>,
    /// For `https`.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// For a TCP connect to all addresses together, and again for a TLS handshake.
    pub timeout: Duration,
}

impl Target {
    /// Connects.
    ///
    /// # Errors
    /// The last address's, or `TimedOut`.
    pub async fn connect(&self) -> io::Result<BackendStream> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
        let tcp = timeout(self.timeout, TcpStream::connect(self.addresses.as_slice()))
            .await
            .map_err(late)??;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&probes())?;
        let Some((config, name)) = &self.tls else { return Ok(Either::Left(tcp)) };
        let connector = TlsConnector::from(config.clone());
        let handshake = connector.connect(name.clone(), tcp);
        let stream = timeout(self.timeout, handshake).await.map_err(late)??;
        Ok(Either::Right(Box::new(stream)))
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
