//! A listener for this machine alone: in, requests without bodies; out, whole pages.
//!
//! Carried by `pingora-proxy`, every request answered in its request filter: nothing is forwarded. It knows no
//! TLS, certificates or credentials; a listener that needs them is carried as the edge's own are.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora::http::ResponseHeader;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service as ServiceTrait;
use pingora::services::listening::Service;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy};

use crate::base::head::{Head, Version};

/// What answers there.
pub trait Pages: Send + Sync + 'static {
    /// The page that a head asks for; for HEAD as for GET.
    fn page(&self, head: &Head) -> impl Future<Output = Page> + Send;
}

/// A whole answer.
#[derive(Debug)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// All fields but the length.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// A listener that serves until the process is gone, with work that goes on beside it.
pub struct Local<P> {
    inner: Service<HttpProxy<Carrier<P>>>,
    socket: Option<(String, TcpListener)>,
    beside: Option<Beside>,
    stop: ShutdownWatch,
}

type Beside = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Who brings the pages.
pub struct Carrier<P>(Arc<P>);

impl<P: Pages> Local<P> {
    /// A service on one thread. `stop` is said where another process has taken over.
    pub fn new(
        (socket, bound): (TcpListener, SocketAddr),
        pages: Arc<P>,
        beside: impl Future<Output = ()> + Send + Sync + 'static,
        stop: ShutdownWatch,
    ) -> Self {
        let proxy = http_proxy(&Arc::new(ServerConf::default()), Carrier(pages));
        let mut inner = Service::new("admin".to_owned(), proxy);
        inner.threads = Some(1);
        let listener = ListenerConfig::tcp(bound.to_string());
        inner.add_listener(listener.l4_buffer(L4BufferSettings::unbuffered()));
        let socket = Some((bound.to_string(), socket));
        Self { inner, socket, beside: Some(Box::pin(beside)), stop }
    }
}

#[async_trait]
impl<P: Pages> ServiceTrait for Local<P> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, per_fd: usize) {
        // Pingora binds inside its runtime and panics when a port is taken: it finds the socket in its table of
        // inherited ones
        if let (Some((name, socket)), Some(fds)) = (self.socket.take(), &fds) {
            fds.lock().add(name, socket.into_raw_fd());
        }
        if let Some(work) = self.beside.take() {
            drop(tokio::spawn(work));
        }
        self.inner.start_service(fds, self.stop.clone(), per_fd).await;
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }
}

#[async_trait]
impl<P: Pages> ProxyHttp for Carrier<P> {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
        let head = head(session);
        let Page { status, fields, body } = self.0.page(&head).await;
        let mut header = ResponseHeader::build(status, Some(fields.len() + 1))?;
        for (name, value) in fields {
            header.append_header(name, value)?;
        }
        header.insert_header(CONTENT_LENGTH, body.len())?;
        let body = (head.method != Method::HEAD).then_some(body);
        session.write_response_header(Box::new(header), body.is_none()).await?;
        if body.is_some() {
            session.write_response_body(body, true).await?;
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Err(Error::explain(ErrorType::InternalError, "this listener forwards nothing"))
    }
}

fn head(session: &Session) -> Head {
    let request = session.req_header();
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for (name, value) in &request.headers {
        headers.append(name, value.clone());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri.authority().map(http::uri::Authority::as_str).or(host);
    Head {
        method: request.method.clone(),
        path: request.uri.path().to_owned(),
        query: request.uri.query().map(str::to_owned),
        authority: authority.unwrap_or_default().to_ascii_lowercase(),
        headers,
        version: Version::H11,
        websocket: false,
    }
}
