//! Sockets bound by us, served by Pingora: in, addresses; out, a service, or an error that names the address.
//!
//! Pingora binds inside its runtime and panics when a port is taken. Bound beforehand and put into
//! its table of inherited sockets, a taken port is an ordinary error, port 0 is possible, and
//! passing sockets to a new binary works as before.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service as ServiceTrait;
use pingora::services::listening::Service;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// Shorter than the timeouts of connections, and seldom enough to cost nothing.
const TICK: Duration = Duration::from_secs(1);

/// A Pingora service whose sockets are bound already.
pub struct Bound<A> {
    inner: Service<A>,
    sockets: Vec<(String, TcpListener)>,
}

/// Binds an address; the error names it. `v6_only`: IPv4 is another listener's, which `[::]` would take, too.
///
/// # Errors
/// The system's, with the address in front.
pub fn bind(address: SocketAddr, v6_only: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"));
    let socket = open(address, v6_only).map_err(named)?;
    socket.set_nonblocking(true).map_err(named)?;
    // accepted sockets inherit it: five system calls less for each
    SockRef::from(&socket).set_tcp_keepalive(&probes()).map_err(named)?;
    let bound = socket.local_addr().map_err(named)?;
    Ok((socket, bound))
}

fn open(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    if !v6_only {
        // std sets SO_REUSEADDR and a backlog of 4096 (capped by somaxconn)
        return TcpListener::bind(address);
    }
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

impl<A: ServerApp + Send + Sync + 'static> Bound<A> {
    /// A service named `name` that accepts on these sockets.
    pub fn new(
        name: &str,
        app: A,
        sockets: Vec<(TcpListener, SocketAddr)>,
        threads: usize,
    ) -> Self {
        let mut inner = Service::new(name.to_owned(), app);
        inner.threads = Some(threads);
        for (_, bound) in &sockets {
            let listener = ListenerConfig::tcp(bound.to_string());
            inner.add_listener(listener.l4_buffer(L4BufferSettings::unbuffered()));
        }
        let named = sockets.into_iter().map(|(socket, bound)| (bound.to_string(), socket));
        Self { inner, sockets: named.collect() }
    }
}

/// Finds out within two minutes about clients that vanished without a word: a silent stream would
/// never notice.
fn probes() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4)
}

/// Keeps a near timer in the runtime: one that would be the first to fire wakes the poller by two
/// system calls, and every connection begins with such a one.
async fn tick() {
    let mut every = tokio::time::interval(TICK);
    loop {
        every.tick().await;
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServiceTrait for Bound<A> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        if let Some(fds) = &fds {
            let mut table = fds.lock();
            for (name, socket) in self.sockets.drain(..) {
                if table.get(&name).is_none() {
                    table.add(name, socket.into_raw_fd());
                }
            }
        }
        let ticking = tokio::spawn(tick());
        self.inner.start_service(fds, shutdown, listeners_per_fd).await;
        ticking.abort();
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.inner.listen_addresses()
    }
}
