//! Sockets bound by us, as services of Pingora's server: in, addresses; out, a service, or an error that names
//! the address.
//!
//! Pingora binds inside its runtime and panics when a port is taken. Bound beforehand, a taken port is an
//! ordinary error, and port 0 is possible. All sockets but that of a local admin listener
//! (`listen::local`) are accepted from by our own loop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service as ServiceTrait;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};

use super::accept::Front;
use super::place::Post;
use super::{Serve, until_stop};
use crate::base::memory;

/// Shorter than the timeouts of connections, and seldom enough to cost nothing.
const TICK: Duration = Duration::from_secs(1);

/// The edge's listeners.
pub struct Fronts<S> {
    /// Those that come, each with its socket: the first ones wait here already.
    coming: UnboundedReceiver<Opening<S>>,
    threads: usize,
    stop: ShutdownWatch,
}

/// A socket that is bound, and who receives there.
pub type Opening<S> = (TcpListener, Arc<Post<S>>);

/// A listener that serves until the process is gone, with work that goes on beside it: who looks after a
/// process that stops must still be told how it stands.
pub struct Steady<S> {
    socket: Option<TcpListener>,
    post: Arc<Post<S>>,
    beside: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    stop: ShutdownWatch,
}

/// Binds an address; the error names it. `v6_only`: IPv4 is another listener's, which `[::]` would take, too.
///
/// # Errors
/// The system's, with the address in front.
pub fn bind(address: SocketAddr, v6_only: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"));
    let socket = open(address, v6_only).map_err(named)?;
    socket.set_nonblocking(true).map_err(named)?;
    // accepted sockets inherit both: six system calls less for each
    SockRef::from(&socket).set_tcp_nodelay(true).map_err(named)?;
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

impl<S: Serve> Fronts<S> {
    /// A service on so many threads of the listeners that are sent to it, before and while it runs. `stop` is
    /// said where they are to be closed; what Pingora says then comes too late, with the end of its runtimes.
    pub fn new(threads: usize, stop: ShutdownWatch) -> (Self, UnboundedSender<Opening<S>>) {
        let (opener, coming) = unbounded_channel();
        (Self { coming, threads, stop }, opener)
    }
}

impl<S: Serve> Steady<S> {
    /// A service of one listener, on one thread. `stop` is said where another process has taken over.
    pub fn new(
        socket: TcpListener,
        front: Front<S>,
        beside: impl Future<Output = ()> + Send + Sync + 'static,
        stop: ShutdownWatch,
    ) -> Self {
        Self { socket: Some(socket), post: Post::new(front), beside: Some(Box::pin(beside)), stop }
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

/// Accepts until the place is closed. What fails in it is a mistake of ours, and takes the connection with it that
/// it met, not the listener.
async fn keep<S: Serve>(post: Arc<Post<S>>, socket: tokio::net::TcpListener) {
    let socket = Arc::new(socket);
    while let Err(e) = tokio::spawn(post.clone().run(socket.clone())).await {
        let bound = post.front().bound();
        log::error!("{bound}: accepting has failed, and is begun anew: {e}");
        tokio::time::sleep(TICK).await;
    }
}

#[async_trait]
impl<S: Serve> ServiceTrait for Fronts<S> {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let aside = [tokio::spawn(tick()), tokio::spawn(memory::tidy())];
        let mut accepting = JoinSet::new();
        let mut posts: Vec<Arc<Post<S>>> = Vec::new();
        let mut stop = pin!(until_stop(self.stop.clone()));
        loop {
            let (socket, post) = tokio::select! {
                Some(opening) = self.coming.recv() => opening,
                // those that were closed
                Some(_) = accepting.join_next() => continue,
                () = &mut stop => break,
            };
            posts.retain(|post| post.is_open());
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => drop(accepting.spawn(keep(post.clone(), socket))),
                Err(e) => log::error!("a listener cannot be polled: {e}"),
            }
            posts.push(post);
        }
        self.coming.close();
        posts.iter().for_each(|post| post.place().stop());
        while accepting.join_next().await.is_some() {}
        aside.iter().for_each(JoinHandle::abort);
    }

    fn name(&self) -> &str {
        "edge"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

#[async_trait]
impl<S: Serve> ServiceTrait for Steady<S> {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(socket) = self.socket.take() else { return };
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(e) => return log::error!("the admin listener cannot be polled: {e}"),
        };
        if let Some(work) = self.beside.take() {
            drop(tokio::spawn(work));
        }
        let (post, stop) = (self.post.clone(), self.stop.clone());
        tokio::spawn(async move {
            until_stop(stop).await;
            post.place().stop();
        });
        keep(self.post.clone(), socket).await;
    }

    fn name(&self) -> &str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::denial::Denial;
    use crate::base::head::Head;
    use crate::listen::ConnCx;
    use crate::listen::wire::{Answer, Payload, Wire};

    /// Fails at the first connection.
    struct Fails(std::sync::atomic::AtomicBool);

    impl Serve for Fails {
        type Tail = ();

        async fn handle<W: Wire>(&self, wire: &mut W, _: Head, _: &ConnCx) -> Option<()> {
            let answer = Answer { status: 204, fields: Vec::new() };
            wire.answer(answer, Payload::Nothing(None)).await.unwrap();
            None
        }

        async fn tail<W: Wire>(
            &self,
            (): &mut (),
            _: &mut W,
            _: &ConnCx,
            _: Pin<&mut (impl Future<Output = ()> + Send)>,
        ) {
        }

        async fn refuse<W: Wire>(&self, _: &mut W, _: Denial, _: &ConnCx) {}

        fn epoch(&self) -> u64 {
            assert!(self.0.swap(true, std::sync::atomic::Ordering::AcqRel), "as it is to");
            0
        }

        fn accepting(&self, _: bool) {}

        fn connection(&self, _: bool) {}

        fn turned_away(&self, _: &'static str) {}

        fn handshake_failed(&self, _: &'static str) {}
    }

    #[tokio::test]
    async fn a_listener_outlives_a_failure_of_ours() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (socket, address) = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let settings = Arc::new(crate::listen::compile::bare(address));
        let front = Front::new(address, settings, Arc::new(Fails(false.into()))).unwrap();
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        tokio::spawn(keep(Post::new(front), socket));
        for status in ["", "HTTP/1.1 204"] {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            let read = client.read_to_string(&mut answer).await;
            assert!(
                answer.starts_with(status) && answer.is_empty() == status.is_empty(),
                "{read:?} {answer}"
            );
        }
    }

    #[tokio::test]
    async fn accepted_sockets_inherit_their_options() {
        let (socket, address) = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (accepted, _) = socket.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    }
}
