//! WebSocket upgrades, carried by `pingora-proxy`: in, a stream that begins with the request; out,
//! two streams joined, or a refusal.
//!
//! Its phases run our admission and our header path; only the bytes are its business.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::apps::ServerApp;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use pingora::proxy::{ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::admit::{Admitted, admit_head};
use super::respond;
use super::runtime::Runtime;
use super::upgrade_peer::PeerTls;
use crate::balance::{InFlight, Replica};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::forward::headers::{self, Outgoing, REQUEST_ID};
use crate::listen::ConnCx;
use crate::listen::wire::BodySize;
use crate::observe::Observer;
use crate::observe::record::Record;

/// What carries upgrades.
pub struct Upgrades {
    conf: Arc<ServerConf>,
    runtime: Arc<Runtime>,
    observer: Observer,
    tls: Arc<HashMap<String, PeerTls>>,
}

impl Upgrades {
    /// Prepares what every upgrade needs.
    pub fn new(runtime: Arc<Runtime>, observer: Observer) -> Self {
        let tls = runtime
            .carriers
            .iter()
            .map(|(name, carrier)| (name.clone(), PeerTls::new(&carrier.upstream.settings.tls)));
        let tls = Arc::new(tls.collect());
        Self { conf: Arc::new(ServerConf::default()), runtime, observer, tls }
    }

    /// Serves the request that `stream` begins with, and then the other protocol.
    pub async fn serve(&self, stream: Stream, head: Head, cx: &ConnCx) {
        let upgrade = Upgrade {
            runtime: self.runtime.clone(),
            observer: self.observer.clone(),
            tls: self.tls.clone(),
            head,
            cx: cx.clone(),
        };
        let proxy = Arc::new(http_proxy(&self.conf, upgrade));
        // one request per stream: nothing comes back to be served again
        if proxy.process_new(stream, &cx.shutdown).await.is_some() {
            log::debug!("a stream outlived its upgrade");
        }
    }
}

/// One upgrade.
struct Upgrade {
    runtime: Arc<Runtime>,
    observer: Observer,
    tls: Arc<HashMap<String, PeerTls>>,
    head: Head,
    cx: ConnCx,
}

/// What its phases tell each other.
struct Ctx {
    record: Record,
    admitted: Option<Admitted>,
    attempt: usize,
    chosen: Option<(Arc<Replica>, InFlight)>,
    refused: bool,
}

impl Upgrade {
    async fn refuse(&self, session: &mut Session, denial: &Denial, ctx: &mut Ctx) -> Result<()> {
        let (answer, text) = respond::refusal(denial, None, &ctx.record.request_id);
        respond::note(&mut ctx.record, denial);
        ctx.refused = true;
        let mut header = ResponseHeader::build(answer.status, Some(answer.fields.len() + 1))?;
        for (name, value) in answer.fields {
            header.append_header(name, value)?;
        }
        header.insert_header("content-length", text.len())?;
        session.set_keepalive(None);
        session.write_response_header(Box::new(header), false).await?;
        session.write_response_body(Some(Bytes::from(text)), true).await
    }
}

#[async_trait]
impl ProxyHttp for Upgrade {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let record = super::begin(&self.head, &self.cx);
        Ctx { record, admitted: None, attempt: 0, chosen: None, refused: false }
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        session.set_keepalive(None);
        match admit_head(&self.runtime, &self.head, &self.cx, &mut ctx.record).await {
            Ok(admitted) => {
                ctx.admitted = Some(admitted);
                Ok(false)
            }
            Err(denial) => {
                self.refuse(session, &denial, ctx).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let missing = || Error::explain(ErrorType::InternalError, "nothing was admitted");
        let admitted = ctx.admitted.as_ref().ok_or_else(missing)?;
        let upstream = &admitted.carrier.upstream;
        let index = admitted.plan.order.get(ctx.attempt).copied();
        let replica = index.and_then(|i| upstream.replicas.get(i)).ok_or_else(missing)?;
        let target = admitted.carrier.target(replica.index).ok_or_else(missing)?;
        let tls = self.tls.get(&upstream.settings.name).ok_or_else(missing)?;
        let peer = tls.peer(target, &replica.server).ok_or_else(missing)?;
        ctx.record.replica = Some(replica.server.authority.clone());
        ctx.chosen = Some((replica.clone(), replica.begin()));
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        mut e: Box<Error>,
    ) -> Box<Error> {
        ctx.attempt += 1;
        let more = ctx.admitted.as_ref().is_some_and(|a| ctx.attempt < a.plan.order.len());
        e.set_retry(more);
        e
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let missing = || Error::explain(ErrorType::InternalError, "nothing was admitted");
        let admitted = ctx.admitted.as_ref().ok_or_else(missing)?;
        let (replica, _) = ctx.chosen.as_ref().ok_or_else(missing)?;
        let host = admitted.carrier.upstream.settings.host.of(replica, &self.head);
        let outgoing = Outgoing {
            head: &self.head,
            target: &admitted.target,
            host,
            session: None,
            client: admitted.client.address,
            tls: admitted.client.tls,
            request_id: &ctx.record.request_id,
            body: BodySize::None,
        };
        let mut clean = RequestHeader::build(Method::GET, admitted.target.as_bytes(), None)?;
        let mut failed = None;
        headers::request(&outgoing, &mut |name, value| {
            if let Err(e) = clean.append_header(name.to_owned(), value) {
                failed = Some(e);
            }
        });
        clean.insert_header("connection", "Upgrade")?;
        clean.insert_header("upgrade", "websocket")?;
        *request = clean;
        failed.map_or(Ok(()), Err)
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.record.status = response.status.as_u16();
        ctx.record.first_byte = Some(Instant::now());
        response.insert_header(REQUEST_ID, &ctx.record.request_id)?;
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        e: &Error,
        ctx: &mut Ctx,
    ) -> pingora::proxy::FailToProxy {
        let denial = if session.response_written().is_some() {
            ctx.record.code = Some("forward.broke_off");
            None
        } else if ctx.chosen.is_some() && matches!(e.esource(), pingora::ErrorSource::Upstream) {
            let unreachable = "No server can be reached";
            Some(Denial::new(Reason::NoBackend, "forward.no_backend", unreachable).retry_after(1))
        } else {
            Some(Denial::new(
                Reason::UpstreamFailed,
                "forward.failed",
                "The server failed to answer",
            ))
        };
        if let Some(denial) = denial {
            if let Err(e) = self.refuse(session, &denial.detail(e.to_string()), ctx).await {
                log::debug!("a refusal could not be sent: {e}");
            }
        }
        pingora::proxy::FailToProxy { error_code: ctx.record.status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Ctx) {
        ctx.record.bytes_in = session.body_bytes_read() as u64;
        ctx.record.bytes_out = session.body_bytes_sent() as u64;
        self.observer.request(&ctx.record);
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }
}
