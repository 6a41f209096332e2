//! The admin listener: in, a request from this machine; out, `/metrics` or `/healthz`.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::observe::metrics::Metrics;

/// Answers on the admin listener.
pub struct Admin {
    metrics: Arc<Metrics>,
}

impl Admin {
    /// An admin page over these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let host = head.headers.get(http::header::HOST).and_then(|h| h.to_str().ok());
        // a browser that was lured to this port by a foreign name gets nothing
        if !host.is_some_and(is_local) {
            return text(StatusCode::MISDIRECTED_REQUEST, "this host is not served here\n".into());
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match head.uri.path() {
            "/metrics" => text(StatusCode::OK, self.metrics.text()),
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            _ => text(StatusCode::NOT_FOUND, "see /metrics and /healthz\n".into()),
        }
    }
}

fn is_local(authority: &str) -> bool {
    let host = crate::route::table::host_of(authority);
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback())
}

fn text(status: StatusCode, body: String) -> Response<Vec<u8>> {
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    let length = http::HeaderValue::from(response.body().len());
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    response
}
