//! One question of a check: in, a request; out, a bounded answer. Each has a connection of its own, so that none
//! is ever sent twice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tokio::time::timeout;

use super::message::{Events, Response, response};
use crate::balance::Replica;
use crate::balance::settings::{HostHeader, UpstreamSettings};
use crate::forward::carrier;
use crate::forward::conn::{BackendConn, NoAnswer};
use crate::forward::head::ResponseHead;

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// For a connection and an answer's head, and again for its body. Longer than a check may take: an answer that
/// comes late may name a session that must be ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer that has said what was asked may take to end by itself.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How a replica is asked.
#[derive(Debug)]
pub(super) struct Line {
    replica: Arc<Replica>,
    host: String,
    credential: Option<(HeaderName, HeaderValue)>,
}

/// A request: method, path, fields and body.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) body: Option<&'a [u8]>,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) head: ResponseHead,
    conn: BackendConn,
}

impl Line {
    pub(super) fn new(replica: Arc<Replica>, settings: &UpstreamSettings) -> Self {
        let host = match &settings.host {
            HostHeader::Fixed(host) => host.clone(),
            // there is no client whose Host could be shown
            HostHeader::Server | HostHeader::Client => replica.server.host_field().to_owned(),
        };
        Self { replica, host, credential: settings.credential.clone() }
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&self) -> Result<BackendConn, String> {
        let target = carrier::target(&self.replica).ok_or("it has no address")?;
        let stream = target.connect().await.map_err(|e| format!("cannot connect: {e}"))?;
        Ok(BackendConn::new(stream.into(), false))
    }

    /// Asks.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Reply, String> {
        let exchange = async {
            let mut conn = self.connect().await?;
            let sent = conn.send(&self.bytes(question)).await;
            // what has answered early may have closed
            match (conn.head(&question.method).await, sent) {
                (Ok(head), _) => Ok(Reply { head, conn }),
                (Err(_), Err(e)) => Err(format!("cannot send: {e}")),
                (Err(none), Ok(())) => Err(words(&none)),
            }
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("there was no answer".into()))
    }

    fn bytes(&self, question: &Question<'_>) -> Vec<u8> {
        let Question { method, path, fields, body } = question;
        let mut bytes = Vec::with_capacity(512 + body.map_or(0, <[u8]>::len));
        let mut put = |name: &[u8], value: &[u8]| {
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        };
        put(format!("{method} {path} HTTP/1.1").as_bytes(), b"");
        put(b"Host: ", self.host.as_bytes());
        put(b"User-Agent: mcp-edge-health\r\nConnection: close", b"");
        if let Some((name, value)) = &self.credential {
            put(format!("{name}: ").as_bytes(), value.as_bytes());
        }
        for (name, value) in *fields {
            put(format!("{name}: ").as_bytes(), value.as_bytes());
        }
        if let Some(body) = body {
            put(b"Content-Type: application/json", b"");
            put(format!("Content-Length: {}", body.len()).as_bytes(), b"");
        }
        put(b"", b"");
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }
}

impl Reply {
    /// The session that it names.
    pub(super) fn session(&self) -> Option<String> {
        let (_, value) = self.head.fields.iter().find(|(name, _)| name == "mcp-session-id")?;
        value.to_str().ok().filter(|id| !id.is_empty()).map(str::to_owned)
    }

    /// The JSON-RPC response with this id; `None` where the body has none.
    ///
    /// # Errors
    /// The connection failed, or the body takes too long.
    pub(super) async fn response(mut self, id: u64) -> Result<Option<Response>, String> {
        let (mut events, mut whole) = (Events::default(), Vec::new());
        let streamed = self.head.is_event_stream();
        let read = async {
            let mut size = 0;
            while let Some(piece) = self.conn.body().await.map_err(|e| e.to_string())? {
                size += piece.len();
                if size > MAX_ANSWER {
                    return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
                }
                if !streamed {
                    whole.extend_from_slice(&piece);
                    continue;
                }
                let found = events.take(&piece).iter().find_map(|data| response(data, id));
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(response(&whole, id))
        };
        let found = timeout(PATIENCE, read).await.map_err(|_| "the answer did not end")??;
        if streamed {
            self.end().await;
        }
        Ok(found)
    }

    /// Up to so many bytes of the body.
    ///
    /// # Errors
    /// The connection failed, or the body takes too long.
    pub(super) async fn beginning(mut self, most: usize) -> Result<Vec<u8>, String> {
        let read = async {
            let mut whole = Vec::new();
            while let Some(piece) = self.conn.body().await.map_err(|e| e.to_string())? {
                whole.extend_from_slice(&piece);
                if whole.len() >= most {
                    whole.truncate(most);
                    break;
                }
            }
            Ok(whole)
        };
        timeout(PATIENCE, read).await.map_err(|_| "the answer did not end")?
    }

    /// Lets the server end its answer: some log an error when they cannot.
    pub(super) async fn end(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.conn.body().await {} };
        if timeout(LAST_WORDS, rest).await.is_err() {
            log::debug!("an answer to a check did not end by itself");
        }
    }
}

fn words(none: &NoAnswer) -> String {
    match none {
        NoAnswer::Closed => "closed without an answer".to_owned(),
        NoAnswer::Broken(e) => io_words(e),
        NoAnswer::Rubbish(why) => (*why).to_owned(),
        NoAnswer::Late => "there was no answer".to_owned(),
    }
}

fn io_words(e: &io::Error) -> String {
    format!("the connection failed: {e}")
}
