//! The admin listener: in, a request of somebody who looks after the edge; out, how it stands, and nothing is
//! changed.
//!
//! | path | what |
//! |---|---|
//! | `/` | the status page, and the three files it is made of |
//! | `/status` | the same as JSON ([`status`]) |
//! | `/status/history` | what happened in each of the last intervals ([`history`]) |
//! | `/metrics` | for Prometheus |
//! | `/healthz` | 200 while the process is at work, 503 while it stops |
//! | `/readyz` | 200 when requests should come here, else 503 |
//!
//! `pingora-proxy` carries it where it is plain and for everybody on this machine; the edge's own loop, as its
//! listeners, where there is TLS or somebody has to say who they are. On a loopback address everybody on this machine may
//! read; a browser that was lured there by a foreign name gets nothing. Elsewhere the config names who may. Probes
//! cannot show credentials: `/healthz` and `/readyz` answer everybody, with one word where details are not for all.

mod alarms;
pub mod ask;
pub mod health;
pub mod counts;
pub mod explain;
pub mod history;
mod page;
mod probe;
pub mod status;
pub mod terminal;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use serde::Serialize;

use crate::auth;
use crate::base::caller::{Chain, Client};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::life::Life;
use crate::client;
use crate::config::admin::AdminSettings;
use crate::listen::local::{Page, Pages};
use crate::listen::wire::{Answer, Payload, Wire};
use crate::listen::{ConnCx, Serve};
use crate::observe::metrics::Metrics;
use crate::observe::recent::Recent;
use crate::proxy::standing;
use crate::route::dress::dress;
use crate::route::origin::is_local;
use crate::route::table::host_of;
use counts::Counts;
use history::History;
use status::{Status, View};

/// Where what is shown comes from.
pub struct Sources {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Examples of refusals.
    pub recent: Arc<Recent>,
    /// Where the process stands.
    pub life: Arc<Life>,
    /// Brings the gauges up to date that are kept elsewhere.
    pub refresh: Box<dyn Fn(&Metrics) + Send + Sync>,
    /// Grows whenever who was let in may be let in no more.
    pub epoch: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What is at work now; asked each time, since a reload replaces it.
    pub view: Box<dyn Fn() -> View + Send + Sync>,
}

/// Answers on the admin listener.
pub struct Admin {
    sources: Sources,
    history: History,
    auth: Option<Chain>,
    hosts: Vec<String>,
    loopback: bool,
}

/// A whole answer.
struct Reply {
    status: u16,
    kind: &'static str,
    body: Bytes,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Admin {
    /// What answers on the listener of these settings; absent, by the control socket alone.
    pub fn new(sources: Sources, settings: Option<&AdminSettings>) -> Self {
        let ip = settings.map(|settings| settings.listener.address.ip().to_canonical());
        Self {
            sources,
            history: History::default(),
            auth: settings.and_then(|settings| settings.auth.clone()),
            hosts: settings.map(|settings| settings.hosts.clone()).unwrap_or_default(),
            loopback: ip.is_none_or(|ip| ip.is_loopback()),
        }
    }

    /// How the edge stands now.
    pub fn status(&self) -> Status {
        let Sources { metrics, recent, life, refresh, view, .. } = &self.sources;
        refresh(metrics);
        let counts = Counts::of(&metrics.families());
        Status::new(life, counts, view(), recent.all(), SystemTime::now())
    }

    /// Notes the counts of each interval, for as long as it is awaited.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let begun = Instant::now();
            self.note();
            tokio::time::sleep(history::pause(begun.elapsed())).await;
        }
    }

    fn note(&self) {
        let view = (self.sources.view)();
        let replicas = view.upstreams.iter().flat_map(|upstream| &upstream.replicas);
        let in_flight = replicas.map(|replica| replica.in_flight as u64).sum();
        let counts = Counts::of(&self.sources.metrics.families());
        let generation = self.sources.life.generation();
        self.history.note(counts, in_flight, generation, SystemTime::now());
    }

    /// `client`: where the listener tells who it is.
    async fn reply(&self, head: &Head, client: Option<Result<Client, Box<Denial>>>) -> Reply {
        if !self.serves(&head.authority) {
            return Reply::words(421, "this host is not served here: see `hosts` of `admin`\n");
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            let allowed = (ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Reply { fields: vec![allowed], ..Reply::words(405, "only GET\n") };
        }
        let refused = self.admit(head, client).await.err();
        match (head.path.as_str(), refused) {
            ("/healthz", _) => probe::health(self.sources.life.phase()),
            ("/readyz", refused) => self.ready(refused.is_none()),
            (_, Some(denial)) => Reply::denied(&denial),
            ("/metrics", None) => self.metrics(),
            ("/status", None) => Reply::json(&self.status()),
            ("/status/history", None) => Reply::json(&self.history_of(head.query.as_deref())),
            (path, None) => page::file(path).unwrap_or_else(|| {
                Reply::words(404, "see /, /status, /metrics, /healthz and /readyz\n")
            }),
        }
    }

    /// No page of a foreign name may read what this machine shows to itself (DNS rebinding). Elsewhere
    /// credentials decide, and a list of names where there is one; no name server can give away an address.
    fn serves(&self, authority: &str) -> bool {
        let host = host_of(authority);
        if is_local(host) || self.hosts.iter().any(|known| known == host) {
            return true;
        }
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        !self.loopback && (self.hosts.is_empty() || address)
    }

    async fn admit(
        &self,
        head: &Head,
        client: Option<Result<Client, Box<Denial>>>,
    ) -> Result<(), Denial> {
        let Some(chain) = &self.auth else { return Ok(()) };
        let unknown = || Denial::new(Reason::Internal, "admin.client", "Internal error");
        let client = client.ok_or_else(unknown)?.map_err(|denial| *denial)?;
        auth::authenticate(chain, head, &client).await.map(drop)
    }

    /// Everybody may ask: so it costs no look at what was counted.
    fn ready(&self, details: bool) -> Reply {
        let (life, view) = (&self.sources.life, (self.sources.view)());
        probe::ready(life.phase(), &status::upstreams(view.upstreams), details)
    }

    fn metrics(&self) -> Reply {
        (self.sources.refresh)(&self.sources.metrics);
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        Reply { kind, ..Reply::words(200, self.sources.metrics.text()) }
    }

    fn history_of(&self, query: Option<&str>) -> Samples {
        let after = query.and_then(|query| query.strip_prefix("after=")?.parse().ok());
        let samples = self.history.after(after.unwrap_or(0.0));
        Samples { every: history::EVERY.as_secs_f64(), samples }
    }
}

/// What `/status/history` says.
#[derive(Serialize)]
struct Samples {
    /// Seconds.
    every: f64,
    samples: Vec<history::Sample>,
}

impl Reply {
    fn words(status: u16, text: impl Into<Bytes>) -> Self {
        let kind = "text/plain; charset=utf-8";
        Self { status, kind, body: text.into(), fields: Vec::new() }
    }

    fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self { kind: "application/json", ..Self::words(200, body) },
            Err(e) => Self::words(500, format!("cannot be written: {e}\n")),
        }
    }

    fn denied(denial: &Denial) -> Self {
        let text = format!("{}\n", denial.message);
        Self { fields: denial.fields.clone(), ..Self::words(denial.reason.status(), text) }
    }

    fn fields(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields = vec![
            (CONTENT_TYPE, HeaderValue::from_static(self.kind)),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        fields.extend(page::guards());
        fields.append(&mut self.fields);
        fields
    }

    async fn send<W: Wire>(mut self, wire: &mut W, head: &Head, cx: &ConnCx) {
        let mut fields = self.fields();
        dress(&mut fields, &cx.listener, None, head);
        let payload = match head.method {
            Method::HEAD => Payload::Nothing(Some(self.body.len() as u64)),
            _ => Payload::Whole(self.body),
        };
        if wire.answer(Answer { status: self.status, fields }, payload).await.is_err() {
            wire.abort().await;
        }
    }
}

impl Pages for Admin {
    async fn page(&self, head: &Head) -> Page {
        let mut reply = self.reply(head, None).await;
        Page { status: reply.status, fields: reply.fields(), body: reply.body }
    }
}

impl Serve for Admin {
    type Tail = ();

    async fn handle<W: Wire>(&self, wire: &mut W, mut head: Head, cx: &ConnCx) -> Option<()> {
        let epoch = self.epoch();
        if cx.looked_at.load(Ordering::Relaxed) != epoch || standing::may_have_expired(cx) {
            if let Err(denial) = standing::connection(cx) {
                self.refuse(wire, denial, cx).await;
                return None;
            }
            standing::looked_at(cx);
            cx.looked_at.store(epoch, Ordering::Relaxed);
        }
        let client = client::identify(&mut head, cx);
        // boxed: passwords and pages are big, and rare
        let answer: Pin<Box<dyn Future<Output = Reply> + Send + '_>> =
            Box::pin(self.reply(&head, Some(client)));
        answer.await.send(wire, &head, cx).await;
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

    async fn refuse<W: Wire>(&self, wire: &mut W, denial: Denial, cx: &ConnCx) {
        wire.close_after();
        Reply::denied(&denial).send(wire, &Head::unread(), cx).await;
    }

    fn epoch(&self) -> u64 {
        (self.sources.epoch)()
    }

    fn accepting(&self, _: bool) {}

    fn connection(&self, _: bool) {}

    fn turned_away(&self, why: &'static str) {
        log::debug!("admin: a connection was turned away: {why}");
    }

    fn handshake_failed(&self, why: &'static str) {
        log::debug!("admin: a TLS handshake failed: {why}");
    }
}
