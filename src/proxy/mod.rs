//! The way of a request, from a wire to a replica and back: the table of contents.
//!
//! A request is admitted, exchanged with a backend, and answered; the rest of a long answer, or of a
//! WebSocket, is a [`Tail`].

pub mod admit;
pub mod answer;
mod body;
mod challenge;
mod endpoint;
pub mod exchange;
mod limited;
mod listed;
pub mod metadata;
mod noted;
pub mod redirect;
pub mod respond;
pub mod runtime;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::base::caller::Client;
use crate::base::denial::Denial;
use crate::base::head::{Head, Version};
use crate::base::life::Life;
use crate::base::memory;
use crate::base::text::push_hex;
use crate::client;
use crate::forward::conn::BackendConn;
use crate::listen::wire::{Payload, Wire};
use crate::listen::{ConnCx, Serve};
use crate::observe::Observer;
use crate::observe::record::Record;
use crate::stream::pump::End;
use answer::{At, Body, Rest};
use exchange::Failure;
use runtime::Runtime;

/// Why a stream ended before its time: its caller's token has expired.
const EXPIRED: &str = "auth.expired";

/// The proxy.
pub struct Edge {
    runtime: Arc<Runtime>,
    observer: Observer,
    life: Arc<Life>,
    /// Connections, and listeners that accept more.
    alive: AtomicUsize,
    /// Whether somebody waits for the last of them to go, and what is rung then.
    idle: (Mutex<bool>, Condvar),
}

/// What is left of a long answer.
pub struct Tail {
    rest: Rest,
    record: Box<Record>,
}

impl Edge {
    /// An edge at work on a runtime.
    pub fn new(runtime: Arc<Runtime>, observer: Observer, life: Arc<Life>) -> Self {
        Self { runtime, observer, life, alive: AtomicUsize::new(0), idle: Default::default() }
    }

    /// Counts what keeps a stopping edge alive.
    fn count(&self, one_more: bool) {
        if one_more {
            self.alive.fetch_add(1, Ordering::AcqRel);
        } else if self.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Under the lock, or it could ring between the look and the wait. And ringing is a system
            // call, whether anybody hears it or not.
            let awaited = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
            if *awaited {
                self.idle.1.notify_all();
            }
        }
    }

    /// Waits until nobody accepts connections and none is open, for `limit` at most; how many are left then.
    /// Blocks its thread.
    pub fn wait_until_idle(&self, limit: Duration) -> usize {
        let mut guard = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        *guard = true;
        let busy = |_: &mut bool| self.alive.load(Ordering::Acquire) > 0;
        if self.idle.1.wait_timeout_while(guard, limit, busy).is_err() {
            log::error!("a thread that closed a connection has failed");
        }
        self.alive.load(Ordering::Acquire)
    }

    async fn serve<W: Wire>(
        &self,
        wire: &mut W,
        head: &Head,
        client: Result<Client, Box<Denial>>,
        cx: &ConnCx,
        record: &mut Record,
    ) -> Result<Option<Rest>, Failure> {
        let rt = &self.runtime;
        if cx.listener.answers_itself() {
            close_if_draining(wire, cx);
            if let Some(answer) = Box::pin(redirect::answer(rt, head, cx)).await? {
                respond::show(wire, head, answer, cx, record).await;
                return Ok(None);
            }
        }
        if let Some(metadata) = &rt.metadata
            && let Some(answer) =
                Box::pin(metadata.answer(&rt.routes, head, cx.listener.address)).await?
        {
            close_if_draining(wire, cx);
            respond::show(wire, head, answer, cx, record).await;
            return Ok(None);
        }
        let client = client.map_err(|denial| Failure::Denied(denial, None))?;
        let mut rpc_id = None;
        // results are matched in place: one with a name would be held, too, until the answer is out
        let mut admitted = match admit::admit(rt, wire, head, client, cx, record, &mut rpc_id).await
        {
            Ok(admitted) => admitted,
            Err(failure) => {
                close_if_draining(wire, cx);
                return Err(failure.with_id(rpc_id.as_deref()));
            }
        };
        if record.audit.is_some()
            && let Err(denial) = Box::pin(self.observer.call(record)).await
        {
            close_if_draining(wire, cx);
            return Err(Failure::from(denial).with_id(rpc_id.as_deref()));
        }
        let exchanged = match exchange::exchange(&mut admitted, wire, head, cx, record).await {
            Ok(exchanged) => exchanged,
            Err(failure) => {
                close_if_draining(wire, cx);
                return Err(failure.with_id(rpc_id.as_deref()));
            }
        };
        close_if_draining(wire, cx);
        let at = At { rt, observer: &self.observer, cx };
        match answer::answer(&at, &mut admitted, exchanged, wire, head, record).await {
            Ok(Some(mut rest)) => {
                rest.permits = admitted.permits.held;
                Ok(Some(rest))
            }
            Ok(None) => Ok(None),
            Err(failure) => Err(failure.with_id(rpc_id.as_deref())),
        }
    }

    fn finish<W: Wire>(&self, wire: &W, record: &mut Record) {
        (record.bytes_in, record.bytes_out) = wire.counts();
        self.observer.request(record);
    }
}

impl Serve for Edge {
    type Tail = Tail;

    // no `async fn`, which would hold the head twice
    fn handle<W: Wire>(
        &self,
        wire: &mut W,
        mut head: Head,
        cx: &ConnCx,
    ) -> impl Future<Output = Option<Tail>> + Send {
        let client = client::identify(&mut head, cx);
        let mut record =
            Box::new(begin(&head, client.as_ref().map_or(cx.peer.ip(), |c| c.address)));
        async move {
            if cx.listener.health_path.as_deref() == Some(head.path.as_str()) {
                respond::health(wire, &head, self.life.phase(), cx, &mut record).await;
                self.finish(wire, &mut record);
                return None;
            }
            match self.serve(wire, &head, client, cx, &mut record).await {
                Ok(None) => {
                    self.finish(wire, &mut record);
                    None
                }
                Ok(Some(rest)) => {
                    memory::changed();
                    if record.stream {
                        self.finish(wire, &mut record);
                    }
                    Some(Tail { rest, record })
                }
                Err(failure) => {
                    // its answer may have been one, but was not sent
                    record.stream = false;
                    match failure {
                        Failure::ClientGone => {
                            record.end = Some("client.gone");
                            wire.abort().await;
                        }
                        Failure::Settled(answer) => {
                            respond::settle(wire, &head, *answer, cx, &mut record).await;
                        }
                        Failure::Denied(denial, rpc_id) => {
                            let id = rpc_id.as_deref();
                            respond::refuse(wire, &head, &denial, id, cx, &mut record).await;
                        }
                    }
                    self.finish(wire, &mut record);
                    None
                }
            }
        }
    }

    async fn tail<W: Wire>(
        &self,
        tail: &mut Tail,
        wire: &mut W,
        mut draining: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) {
        let Tail { rest, record } = tail;
        if let Body::Flow(flow) = &mut rest.body {
            let passed = self.observer.metrics.requests.passed(record);
            let tally = flow.run(wire, passed, draining.as_mut()).await;
            (record.events, record.comments) = (tally.events, tally.comments);
            record.rpc_error = tally.rpc_error.map(i64::from);
            record.end = end_code(tally.end);
            if let End::BackendBroke(kind) = tally.end {
                record.detail = kind.to_string();
            }
        }
        match std::mem::replace(&mut rest.body, Body::Over) {
            Body::Flow(flow) if record.end.is_none() => {
                rest.carrier.give_back(flow.conn, &rest.replica, Instant::now());
            }
            Body::Tunnel(conn) => {
                Box::pin(tunnel(wire, *conn, draining, rest.until, record)).await;
            }
            Body::Flow(_) | Body::Over => {}
        }
        (record.bytes_in, record.bytes_out) = wire.counts();
        if record.stream {
            self.observer.stream_end(record);
        } else {
            self.observer.request(record);
        }
    }

    async fn refuse<W: Wire>(&self, wire: &mut W, denial: Denial, cx: &ConnCx) {
        let head = Head {
            method: http::Method::GET,
            path: String::new(),
            query: None,
            authority: String::new(),
            headers: http::HeaderMap::new(),
            version: Version::H11,
            websocket: false,
        };
        let mut record = begin(&head, cx.peer.ip());
        respond::refuse(wire, &head, &denial, None, cx, &mut record).await;
        self.finish(wire, &mut record);
    }

    fn accepting(&self, begun: bool) {
        self.count(begun);
    }

    fn connection(&self, opened: bool) {
        self.count(opened);
        self.observer.metrics.service.connection(opened);
        if !opened {
            memory::changed();
        }
    }

    fn turned_away(&self, why: &'static str) {
        self.observer.metrics.service.turned_away(why);
    }

    fn handshake_failed(&self, why: &'static str) {
        self.observer.metrics.service.handshake_failed(why);
    }
}

/// The client must not send its next request into a connection that we close.
fn close_if_draining<W: Wire>(wire: &mut W, cx: &ConnCx) {
    if cx.is_draining() {
        wire.close_after();
    }
}

/// What the backend sent behind its 101, then both ways.
async fn tunnel<W: Wire>(
    wire: &mut W,
    conn: BackendConn,
    draining: Pin<&mut (impl Future<Output = ()> + Send)>,
    until: Option<tokio::time::Instant>,
    record: &mut Record,
) {
    let (mut stream, ahead) = conn.into_parts();
    let joined = async {
        if ahead.is_empty() {
            return wire.splice(&mut stream).await;
        }
        let (read, write) = tokio::io::split(&mut stream);
        wire.splice(&mut tokio::io::join(ahead.chain(read), write)).await
    };
    tokio::select! {
        ended = joined => if let Err(e) = ended {
            record.detail = e.to_string();
        },
        () = draining => record.end = Some("edge.stopping"),
        () = at(until) => record.end = Some(EXPIRED),
    }
}

/// Waits until then; for ever where there is no such time.
async fn at(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn end_code(end: End) -> Option<&'static str> {
    match end {
        End::Complete => None,
        End::ClientGone => Some("client.gone"),
        End::ClientStalled => Some("client.stalled"),
        End::BackendBroke(_) => Some("forward.broke_off"),
        End::BackendSilent => Some("forward.silent"),
        End::BadEndpoint => Some("stream.bad_endpoint"),
        End::BadList(refused) => Some(refused.code()),
        End::Drained => Some("edge.stopping"),
        End::Expired => Some(EXPIRED),
    }
}

/// A record of a request that has just come in.
pub(crate) fn begin(head: &Head, client: IpAddr) -> Record {
    Record {
        request_id: request_id(),
        http: match head.version {
            Version::H10 => "1.0",
            Version::H11 => "1.1",
            Version::H2 => "2",
        },
        path: head.path.clone(),
        ..Record::begin(Instant::now(), SystemTime::now(), client, head.method.clone())
    }
}

/// 128 bits in hex: 64 that are random for the process, and a counter that is spread over 64 more.
/// Unique and of no pattern, but no secret; and no system call per request.
fn request_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| {
        let mut bytes = [0u8; 8];
        if getrandom::fill(&mut bytes).is_err() {
            log::error!("the system's random source fails");
        }
        u64::from_ne_bytes(bytes)
    });
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // an odd factor: every counter gives another number
    let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = Vec::with_capacity(32);
    push_hex(*PROCESS, &mut id);
    push_hex(n, &mut id);
    String::from_utf8(id).unwrap_or_default()
}

/// A payload that HEAD may have: the length of a body that is not sent.
pub(crate) fn without_body(head: &Head, payload: Payload) -> Payload {
    match payload {
        Payload::Whole(body) if head.method == http::Method::HEAD => {
            Payload::Nothing(Some(body.len() as u64))
        }
        other => other,
    }
}

/// Text as a whole payload.
pub(crate) fn whole(text: String) -> Payload {
    Payload::Whole(Bytes::from(text))
}
