//! A small stateful MCP server: in, a bound listener and a name; out, an MCP endpoint at `/mcp`.
//!
//! It speaks Streamable HTTP in both eras: with sessions up to 2025-11-25, without them from
//! 2026-07-28 on. Its sessions live in this process only, as those of most MCP servers do, so that
//! a request which meets the wrong replica fails visibly.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rmcp::handler::server::tool::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    Implementation, ProgressNotificationParam, RequestMetaObject, ServerCapabilities, ServerConfig,
};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, Peer, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The path of the MCP endpoint; every other one is 404.
pub const PATH: &str = "/mcp";

/// Serves MCP on `listener` until the future is dropped; `name` is what `whoami` answers.
///
/// # Errors
/// When the listener cannot be made non-blocking or is not usable by the runtime, or nothing can be accepted.
pub async fn serve(listener: std::net::TcpListener, name: &str) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let service = service(name);
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => drop(open.spawn(converse(stream, service.clone()))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // out of file descriptors: one of ours has to end first
            Err(error) if open.is_empty() => return Err(error),
            Err(_) => drop(open.join_next().await),
        }
    }
}

type Service = Arc<StreamableHttpService<Handler, LocalSessionManager>>;

/// Answers on one connection until it ends.
async fn converse(stream: TcpStream, service: Service) {
    if let Err(error) = stream.set_nodelay(true) {
        log::debug!("demo server: {error}");
    }
    let answer = service_fn(move |request| answer(service.clone(), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        log::debug!("demo server: {error}");
    }
}

/// One handler per session in the old era, one per request in the new one; the totals are shared.
fn service(name: &str) -> Service {
    let name: Arc<str> = name.into();
    let total = Arc::new(AtomicU64::new(0));
    Arc::new(StreamableHttpService::new(
        move || Ok(Handler { name: name.clone(), here: AtomicU64::new(0), total: total.clone() }),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    ))
}

async fn answer(
    service: Service,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.uri().path() == PATH {
        return Ok(service.handle(request).await);
    }
    let mut missing = Response::new(Empty::new().boxed());
    *missing.status_mut() = StatusCode::NOT_FOUND;
    Ok(missing)
}

struct Handler {
    name: Arc<str>,
    /// Calls of `count` in this session.
    here: AtomicU64,
    /// Calls of `count` in this process.
    total: Arc<AtomicU64>,
}

#[derive(Deserialize, JsonSchema)]
struct Echo {
    /// What comes back.
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct Slow {
    /// How many progress notifications to send, 1 to 1000.
    #[serde(default = "five")]
    n: u32,
    /// Milliseconds between them, at most 60000.
    #[serde(default = "two_hundred")]
    interval_ms: u64,
}

fn five() -> u32 {
    5
}

fn two_hundred() -> u64 {
    200
}

#[tool_router]
impl Handler {
    #[tool(
        description = "Counts its calls: in this session, or, for clients of the era without sessions, in this replica"
    )]
    async fn count(&self, Extension(head): Extension<http::request::Parts>) -> String {
        let here = self.here.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        let count = if head.headers.contains_key("mcp-session-id") { here } else { total };
        count.to_string()
    }

    #[tool(description = "Says which replica answers")]
    async fn whoami(&self) -> String {
        self.name.to_string()
    }

    #[tool(description = "Answers with its argument")]
    async fn echo(&self, Parameters(Echo { message }): Parameters<Echo>) -> String {
        message
    }

    #[tool(description = "Sends progress notifications, one after another, then answers")]
    async fn slow(
        &self,
        Parameters(Slow { n, interval_ms }): Parameters<Slow>,
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
    ) -> Result<String, ErrorData> {
        let (n, pause) = (n.clamp(1, 1000), Duration::from_millis(interval_ms.min(60_000)));
        for step in 1..=n {
            tokio::time::sleep(pause).await;
            let Some(token) = meta.get_progress_token() else { continue };
            let progress = ProgressNotificationParam::new(token, f64::from(step))
                .with_total(f64::from(n))
                .with_message(format!("{step} of {n}"));
            client
                .notify_progress(progress)
                .await
                .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        }
        Ok(format!("{n} steps done by {}", self.name))
    }
}

#[tool_handler]
impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("mcp-edge-demo", env!("CARGO_PKG_VERSION")))
    }
}
