//! The admin listener: in, a request from this machine; out, `/metrics` or `/healthz`.
//!
//! Carried by `pingora-proxy`, every request answered in its request filter: nothing is forwarded.

pub mod probe;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::http::ResponseHeader;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy};

use crate::observe::metrics::Metrics;
use crate::route::origin::is_local;
use crate::route::table::host_of;

/// Answers on the admin listener.
pub struct Admin {
    metrics: Arc<Metrics>,
    refresh: Refresh,
}

/// Brings the gauges up to date that are kept elsewhere.
pub type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// The admin application over these metrics.
pub fn app(metrics: Arc<Metrics>, refresh: Refresh) -> HttpProxy<Admin> {
    http_proxy(&Arc::new(ServerConf::default()), Admin { metrics, refresh })
}

impl Admin {
    fn answer(&self, session: &Session) -> (u16, String) {
        let head = session.req_header();
        let host = head.headers.get(http::header::HOST).and_then(|h| h.to_str().ok());
        // a browser that was lured to this port by a foreign name gets nothing
        if !host.is_some_and(|host| is_local(&host_of(host).to_ascii_lowercase())) {
            return (421, "this host is not served here\n".into());
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return (405, "only GET\n".into());
        }
        match head.uri.path() {
            "/metrics" => {
                (self.refresh)(&self.metrics);
                (200, self.metrics.text())
            }
            "/healthz" => (200, "ok\n".into()),
            _ => (404, "see /metrics and /healthz\n".into()),
        }
    }
}

#[async_trait]
impl ProxyHttp for Admin {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
        let (status, text) = self.answer(session);
        let mut header = ResponseHeader::build(status, Some(3))?;
        header.insert_header("content-type", "text/plain; version=0.0.4; charset=utf-8")?;
        header.insert_header("content-length", text.len())?;
        let body = (session.req_header().method != Method::HEAD).then(|| Bytes::from(text));
        session.write_response_header(Box::new(header), body.is_none()).await?;
        if body.is_some() {
            session.write_response_body(body, true).await?;
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Err(Error::explain(ErrorType::InternalError, "the admin listener forwards nothing"))
    }
}
