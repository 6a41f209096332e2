//! Unused connections to one replica: in, connections that could carry another request; out, one
//! that still can.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::either::Either;

use super::connect::{BackendStream, is_quiet};
use crate::base::alarm::Alarm;

/// Most unused connections kept per replica.
const MAX_IDLE: usize = 256;

/// A connection between two exchanges, and the timer of the last: the next one is glad of it.
#[derive(Debug)]
pub struct Unused {
    /// The connection.
    pub stream: BackendStream,
    /// Its timer.
    pub alarm: Alarm,
    /// What has been done to it.
    pub stage: Stage,
}

/// What has been done to a connection. Half of all streams have one of their own and send once: they need none
/// of the socket options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was sent.
    New,
    /// Something was sent: what comes next must not wait for the other side's word that it has come.
    Sent,
    /// It does not wait.
    Hurried,
}

impl From<BackendStream> for Unused {
    fn from(stream: BackendStream) -> Self {
        // a TLS handshake is several writes
        let stage = if matches!(stream, Either::Left(_)) { Stage::New } else { Stage::Hurried };
        Self { stream, alarm: Alarm::new(), stage }
    }
}

/// A replica's unused connections, the freshest last.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<VecDeque<(Unused, Instant)>>,
    keep: Duration,
    closed: AtomicBool,
}

impl Pool {
    /// Keeps connections for `keep`: less than backends do (uvicorn and Node: 5 s), or a request
    /// would meet a connection that is just being closed.
    pub fn new(keep: Duration) -> Self {
        let (idle, closed) = Default::default();
        Self { idle, keep, closed }
    }

    /// The freshest connection that is still good at `now`.
    pub fn take(&self, now: Instant) -> Option<Unused> {
        loop {
            // the lock is not held while a connection is looked at
            let (mut unused, since) = self.lock().pop_back()?;
            if now.saturating_duration_since(since) < self.keep && is_quiet(&mut unused.stream) {
                return Some(unused);
            }
        }
    }

    /// Keeps a connection, unused since `now`, for the next request.
    pub fn give(&self, unused: Unused, now: Instant) {
        let mut idle = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        if idle.len() >= MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back((unused, now));
    }

    /// Its replica is gone: what is there is closed, and nothing more is kept.
    pub fn close(&self) {
        let mut idle = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        let all = std::mem::take(&mut *idle);
        drop(idle);
        drop(all);
    }

    /// Closes what has been unused for too long.
    pub fn sweep(&self) {
        let mut old = Vec::new();
        let mut idle = self.lock();
        while idle.front().is_some_and(|(_, since)| since.elapsed() >= self.keep) {
            old.extend(idle.pop_front());
        }
        // closing is a system call each: after the lock
        drop(idle);
        drop(old);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Unused, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_pool_whose_replica_is_gone_keeps_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (pool, now) = (Pool::new(Duration::from_secs(9)), Instant::now());
        let mut far = Vec::new();
        for _ in 0..2 {
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            far.push(listener.accept().await.unwrap());
            pool.give(Unused::from(BackendStream::Left(near)), now);
        }
        let one = pool.take(now).unwrap();
        pool.close();
        assert!(pool.take(now).is_none());
        pool.give(one, now);
        assert!(pool.take(now).is_none());
    }
}
