//! The way of a request, in its order: in, a wire and a head; out, an answer on that wire, and what was seen of
//! it.
//!
//! A request is admitted, exchanged with a backend, and answered; the rest of a long answer, or of a
//! WebSocket, is a [`Tail`].

pub mod admit;
pub mod alive;
pub mod answer;
mod begin;
mod begun;
mod body;
mod challenge;
mod endpoint;
pub mod exchange;
mod left;
mod limited;
mod listed;
pub mod metadata;
mod noted;
pub mod redirect;
pub mod respond;
mod rest;
pub mod runtime;
pub mod standing;

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::base::caller::Client;
use crate::base::denial::Denial;
use crate::base::head::Head;
use crate::base::life::{Life, Phase};
use crate::base::memory;
use crate::client;
use crate::listen::wire::{Payload, Wire};
use crate::listen::{ConnCx, Serve};
use crate::observe::Observer;
use crate::observe::metrics::Open;
use crate::observe::record::Record;
use alive::Alive;
use answer::{At, Body, Rest};
use begin::begin;
use begun::{Begun, Going};
use exchange::Failure;
use rest::{Ended, note_end, tunnel};
use runtime::Runtime;
use standing::{Entry, Gone};

/// So many streams are looked at again at once.
const FEW_STREAMS: usize = 500;
/// More of them within this time, in milliseconds.
const SPREAD: u64 = 1000;

/// The proxy.
pub struct Edge {
    /// The generation of the config that is at work.
    runtime: ArcSwap<Runtime>,
    observer: Observer,
    life: Arc<Life>,
    /// Grows whenever who was let in may be let in no more.
    epoch: AtomicU64,
    /// The same for those who wait for it: streams.
    news: watch::Sender<u64>,
    /// Connections, and listeners that accept more.
    pub alive: Alive,
}

/// What is left of a long answer.
pub struct Tail {
    rest: Rest,
    record: Box<Record>,
    entry: Box<Entry>,
    /// Counts it as open.
    open: Open,
}

impl Edge {
    /// An edge at work on a runtime.
    pub fn new(runtime: Arc<Runtime>, observer: Observer, life: Arc<Life>) -> Self {
        Self {
            runtime: ArcSwap::new(runtime),
            observer,
            life,
            epoch: AtomicU64::new(0),
            news: watch::Sender::new(0),
            alive: Alive::default(),
        }
    }

    /// The generation of the config that is at work.
    pub fn runtime(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    /// Another generation goes to work: every request from now on is served by it. [`Edge::look_again`] is to
    /// follow, when all else is in place.
    pub fn renew(&self, runtime: Arc<Runtime>) {
        self.runtime.store(runtime);
    }

    /// Something that says who may come in has changed: connections and streams are looked at again.
    pub fn look_again(&self) {
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        // two at once may come here in any order
        self.news.send_modify(|news| *news = epoch.max(*news));
        // what was replaced leaves memory behind, too
        memory::changed();
    }

    /// The client must not send its next request into a connection that we close. It is told so early, before
    /// listeners close: who asks again within `shutdown.delay` never meets the end of a connection by surprise.
    fn close_if_stopping<W: Wire>(&self, wire: &mut W, cx: &ConnCx) {
        if cx.is_draining() || self.life.phase() == Phase::Stopping {
            wire.close_after();
        }
    }

    async fn serve<W: Wire>(
        &self,
        wire: &mut W,
        head: &Head,
        client: Result<Client, Box<Denial>>,
        cx: &ConnCx,
        record: &mut Record,
    ) -> Result<Option<(Rest, Box<Entry>)>, Failure> {
        // before the config at work: what changes in between is looked at once too often, and not never
        let epoch = self.epoch();
        if cx.looked_at.load(Ordering::Relaxed) != epoch || standing::may_have_expired(cx) {
            standing::connection(cx)?;
            standing::looked_at(cx);
            cx.looked_at.store(epoch, Ordering::Relaxed);
        }
        let rt = &self.runtime();
        if cx.listener.answers_itself()
            && let Some(answer) = Box::pin(redirect::answer(rt, head, cx)).await?
        {
            self.close_if_stopping(wire, cx);
            respond::show(wire, head, answer, cx, record).await;
            return Ok(None);
        }
        if let Some(metadata) = &rt.metadata
            && let Some(answer) =
                Box::pin(metadata.answer(&rt.routes, head, cx.listener.address)).await?
        {
            self.close_if_stopping(wire, cx);
            respond::show(wire, head, answer, cx, record).await;
            return Ok(None);
        }
        let client = client.map_err(|denial| Failure::Denied(denial, None))?;
        let mut rpc_id = None;
        // results are matched in place: one with a name would be held, too, until the answer is out
        let admitted = admit::admit(rt, wire, head, client, cx, record, &mut rpc_id).await;
        let mut admitted = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => return Err(failure.with_id(rpc_id.as_deref())),
        };
        if record.audit.is_some()
            && let Err(denial) = Box::pin(self.observer.call(record, admitted.granted.rule)).await
        {
            return Err(Failure::from(denial).with_id(rpc_id.as_deref()));
        }
        let exchanged = match exchange::exchange(&mut admitted, wire, head, cx, record).await {
            Ok(exchanged) => exchanged,
            Err(failure) => return Err(failure.with_id(rpc_id.as_deref())),
        };
        self.close_if_stopping(wire, cx);
        let at = At { rt, observer: &self.observer, cx };
        match answer::answer(&at, &mut admitted, exchanged, wire, head, record).await {
            Ok(Some(mut rest)) => {
                rest.permits = admitted.permits.held;
                let chain = &admitted.routed.route.auth;
                Ok(Some((rest, Entry::new(epoch, head, &admitted.client, chain))))
            }
            Ok(None) => Ok(None),
            Err(failure) => Err(failure.with_id(rpc_id.as_deref())),
        }
    }

    /// Ends when a stream has to, and has noted why.
    async fn revoked(&self, entry: &Entry, record: &mut Record, cx: &ConnCx) {
        let (mut news, mut seen) = (self.news.subscribe(), entry.epoch);
        let mut told = true;
        let mut end = standing::next_end(record, cx, UNIX_EPOCH);
        loop {
            let epoch = tokio::select! {
                epoch = news.wait_for(|epoch| *epoch != seen) => epoch.map(|epoch| *epoch),
                () = async { standing::again().await }, if !told => Ok(seen),
                () = async { standing::until(end).await }, if end.is_some() => Ok(seen),
            };
            match epoch {
                Ok(epoch) => seen = epoch,
                // whoever could tell is gone
                Err(_) => return std::future::pending().await,
            }
            // boxed: it is there for a moment, and a silent stream for hours
            match Box::pin(self.look(entry, record, cx)).await {
                Ok(sure) => {
                    told = sure;
                    end = standing::next_end(record, cx, SystemTime::now());
                }
                Err(gone) => {
                    record.end = Some(gone.end);
                    record.detail = gone.code.to_owned();
                    return;
                }
            }
        }
    }

    /// Looks at a stream; where there are many, not at all of them at once.
    async fn look(&self, entry: &Entry, record: &mut Record, cx: &ConnCx) -> Result<bool, Gone> {
        if self.news.receiver_count() > FEW_STREAMS {
            let after = RandomState::new().hash_one(&record.request_id) % SPREAD;
            tokio::time::sleep(Duration::from_millis(after)).await;
        }
        standing::stream(&self.runtime(), entry, record, cx).await
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
            let begun = Begun::new(&self.observer, wire, &mut record);
            let long = {
                let (wire, record) = (&mut *begun.wire, &mut *begun.record);
                if cx.listener.health_path.as_deref() == Some(head.path.as_str()) {
                    respond::health(wire, &head, self.life.phase(), cx, record).await;
                    None
                } else {
                    match self.serve(wire, &head, client, cx, record).await {
                        Ok(long) => long,
                        Err(failure) => {
                            self.close_if_stopping(wire, cx);
                            respond::fail(wire, &head, failure, cx, record).await;
                            None
                        }
                    }
                }
            };
            begun.over();
            match long {
                None => {
                    self.finish(wire, &mut record);
                    None
                }
                Some((rest, entry)) => {
                    memory::changed();
                    (record.bytes_in, record.bytes_out) = wire.counts();
                    let open = self.observer.begun(&record);
                    Some(Tail { rest, record, entry, open })
                }
            }
        }
    }

    async fn tail<W: Wire>(
        &self,
        tail: &mut Tail,
        wire: &mut W,
        cx: &ConnCx,
        mut draining: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) {
        let going = Going::new(&self.observer, wire, tail);
        let ended = {
            let (wire, tail) = (&mut *going.wire, &mut *going.tail);
            let Tail { rest, record, entry, open } = tail;
            let mut revoked = std::pin::pin!(self.revoked(entry, record, cx));
            match &mut rest.body {
                Body::Flow(flow) => {
                    let passed = open.passed();
                    Ended::Flow(flow.run(wire, passed, draining.as_mut(), revoked.as_mut()).await)
                }
                Body::Tunnel(conn) => {
                    let joined = tunnel(wire, conn, draining, rest.until, revoked.as_mut());
                    Ended::Tunnel(Box::pin(joined).await)
                }
                Body::Over => Ended::Already,
            }
        };
        going.over();
        let Tail { rest, record, open, .. } = tail;
        let complete = note_end(record, ended, cx.place.now().is_some());
        if let Body::Flow(flow) = std::mem::replace(&mut rest.body, Body::Over)
            && complete
        {
            rest.carrier.give_back(flow.conn, &rest.replica, Instant::now());
        }
        (record.bytes_in, record.bytes_out) = wire.counts();
        self.observer.ended(open, record);
    }

    async fn refuse<W: Wire>(&self, wire: &mut W, denial: Denial, cx: &ConnCx) {
        let head = Head::unread();
        let mut record = begin(&head, cx.peer.ip());
        let begun = Begun::new(&self.observer, wire, &mut record);
        respond::refuse(begun.wire, &head, &denial, None, cx, begun.record).await;
        begun.over();
        self.finish(wire, &mut record);
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn accepting(&self, begun: bool) {
        self.alive.listener(begun);
    }

    fn connection(&self, opened: bool) {
        self.alive.connection(opened);
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
