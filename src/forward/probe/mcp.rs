//! Asks a replica what an MCP client asks first: in, a path and the tools that must be there; out, whether the
//! server is good.
//!
//! A check must leave nothing behind. So a server of the 2026-07-28 era is asked for `server/discover`, which
//! opens no session. Of an older one, a session is opened, used and ended by DELETE; but first DELETE is asked to
//! end one that nobody has: a server that answers 405 would keep what is opened, and is asked without a session
//! for good. A session that could not be ended is owed: none other is opened before it is. And an answer that
//! comes too late for the check is still read, for the session that it may name.

use http::Method;
use serde_json::{Value, json};

use super::ask::{Line, Question, Reply};
use super::message::Response;
use super::open::Held;
use crate::balance::health::settings::McpCheck;

/// The newest revision without sessions that we speak.
const MODERN: &str = "2026-07-28";
/// The newest one with them.
const LEGACY: &str = "2025-11-25";
/// A session that nobody has.
const NOBODYS: &str = "mcp-edge-health-no-session";
/// JSON-RPC: the server does not know the method.
const NO_METHOD: i64 = -32601;
/// MCP: the server does not speak the revision, but a later one.
const OTHER_VERSION: i64 = -32022;
/// Most pages of a list of tools.
const MAX_PAGES: usize = 100;
/// Fields of every POST.
const ACCEPT: (&str, &str) = ("Accept", "application/json, text/event-stream");

/// One server, and what was learnt about it.
#[derive(Debug)]
pub(super) struct Mcp {
    /// For the log.
    name: String,
    line: Line,
    check: McpCheck,
    /// Whether it has sessions, as far as is known.
    legacy: bool,
    ends: Ends,
    /// A session that is still to be ended.
    owed: Option<Session>,
    /// An answer to `initialize` was lost: nobody knows whether there is a session.
    doubt: bool,
    /// Without a session it answers nothing: it is not asked for messages any more.
    mute: bool,
}

/// Whether a server ends sessions when it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Unknown,
    /// Nothing speaks against it.
    Yes,
    /// It does not. That is never forgotten.
    No,
}

#[derive(Debug, Clone)]
struct Session {
    id: String,
    version: String,
    /// Opened by a good `initialize` just now; else it may be gone already.
    fresh: bool,
}

impl Mcp {
    pub(super) fn new(name: String, line: Line, check: McpCheck) -> Self {
        let (legacy, ends, owed) = (false, Ends::Unknown, None);
        Self { name, line, check, legacy, ends, owed, doubt: false, mute: false }
    }

    /// Whether the server is good.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub(super) async fn check(&mut self) -> Result<(), String> {
        self.settle().await?;
        if !self.legacy {
            if self.discover().await? {
                return self.tools(&Talk::Modern).await;
            }
            self.legacy = true;
            self.settle().await?;
        }
        if self.ends == Ends::Unknown || self.doubt {
            self.learn_ends().await?;
        }
        match self.ends {
            Ends::No => self.without_session().await,
            Ends::Yes | Ends::Unknown => self.with_session().await,
        }
    }

    /// Whether it speaks the era without sessions.
    async fn discover(&mut self) -> Result<bool, String> {
        let reply = self.post(&Talk::Modern, Some(1), "server/discover", json!({})).await?;
        self.note_session(&reply, false);
        match reply.head.status {
            status @ (401 | 403 | 408 | 429 | 500..) => Err(answered("server/discover", status)),
            _ => Ok(match reply.response(1).await? {
                Some(Response::Result(result)) => {
                    result.get("supportedVersions").is_some_and(Value::is_array)
                }
                Some(Response::Error(code)) => code == OTHER_VERSION,
                None => false,
            }),
        }
    }

    /// Asks for the end of a session that nobody has.
    async fn learn_ends(&mut self) -> Result<(), String> {
        match self.delete(NOBODYS, LEGACY).await? {
            405 | 501 => self.ends = Ends::No,
            status @ 500.. => return Err(answered("DELETE", status)),
            _ if self.ends == Ends::Unknown => self.ends = Ends::Yes,
            _ => {}
        }
        self.doubt = false;
        Ok(())
    }

    async fn with_session(&mut self) -> Result<(), String> {
        let _held = Held::begin().await;
        self.doubt = true;
        let params = json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": us() });
        let reply = self.post(&Talk::Start, Some(1), "initialize", params).await?;
        self.doubt = false;
        self.note_session(&reply, true);
        let said = self.converse(reply).await;
        let settled = self.settle().await;
        said.and(settled)
    }

    /// What comes after `initialize`; the caller ends the session.
    async fn converse(&mut self, reply: Reply) -> Result<(), String> {
        if reply.head.status != 200 {
            // another era or another server may be there by now
            self.legacy = !(400..500).contains(&reply.head.status);
            return Err(answered("initialize", reply.head.status));
        }
        let Some(Response::Result(result)) = reply.response(1).await? else {
            return Err("initialize: the answer is no result".to_owned());
        };
        let version = result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
        if !is_version(version) {
            return Err("initialize: the answer names no protocol version".to_owned());
        }
        if let Some(owed) = &mut self.owed {
            version.clone_into(&mut owed.version);
        }
        let id = self.owed.as_ref().map(|owed| owed.id.clone());
        let talk = Talk::Session { id, version: version.to_owned() };
        let mut noted = self.post(&talk, None, "notifications/initialized", json!({})).await?;
        if !(200..300).contains(&noted.head.status) {
            return Err(answered("notifications/initialized", noted.head.status));
        }
        noted.end().await;
        let reply = self.post(&talk, Some(2), "ping", json!({})).await?;
        match reply.head.status {
            200 => pong(reply.response(2).await?)?,
            status => return Err(answered("ping", status)),
        }
        self.tools(&talk).await
    }

    /// A server without sessions, or one that would keep them.
    async fn without_session(&mut self) -> Result<(), String> {
        if self.mute {
            return match self.delete(NOBODYS, LEGACY).await? {
                501 => Ok(()),
                status @ (401 | 403 | 500..) => Err(answered("DELETE", status)),
                _ => Ok(()),
            };
        }
        let reply = self.post(&Talk::Start, Some(2), "ping", json!({})).await?;
        self.note_session(&reply, false);
        match reply.head.status {
            // it opens a session for whatever comes
            _ if self.owed.is_some() => self.fall_silent().await,
            200 => {
                pong(reply.response(2).await?)?;
                self.tools(&Talk::Start).await
            }
            status @ (401 | 403 | 408 | 429 | 500..) => Err(answered("ping", status)),
            _ => self.fall_silent().await,
        }
    }

    /// From now on, all that is asked is whether it answers at all.
    async fn fall_silent(&mut self) -> Result<(), String> {
        self.mute = true;
        log::warn!(
            "{}: it ends no sessions and answers nothing without one: checks ask only whether it answers{}",
            self.name,
            if self.check.tools.is_empty() { "" } else { ", and do not look for tools" },
        );
        self.settle().await
    }

    /// Looks for the tools that must be there.
    async fn tools(&mut self, talk: &Talk) -> Result<(), String> {
        let mut missing = self.check.tools.clone();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            if missing.is_empty() {
                return Ok(());
            }
            let params = cursor.take().map_or(json!({}), |cursor| json!({ "cursor": cursor }));
            let reply = self.post(talk, Some(3), "tools/list", params).await?;
            if reply.head.status != 200 {
                return Err(answered("tools/list", reply.head.status));
            }
            let Some(Response::Result(page)) = reply.response(3).await? else {
                return Err("tools/list: the answer is no result".to_owned());
            };
            let named = page.get("tools").and_then(Value::as_array).into_iter().flatten();
            let named: Vec<_> = named.filter_map(|tool| tool.get("name")?.as_str()).collect();
            missing.retain(|tool| !named.contains(&tool.as_str()));
            cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("tools/list: no `{}`", missing.join("`, `")))
    }

    /// Ends the session that is owed.
    async fn settle(&mut self) -> Result<(), String> {
        let Some(session) = self.owed.clone() else { return Ok(()) };
        let status = self.delete(&session.id, &session.version).await;
        if let Some(owed) = &mut self.owed {
            // when it is asked again, it may be gone
            owed.fresh = false;
        }
        match status? {
            200..300 => {}
            status @ (405 | 501) => self.learn_never(status),
            status @ 400..500 if session.fresh => self.learn_never(status),
            status @ 500.. => return Err(answered("DELETE", status)),
            _ => {}
        }
        self.owed = None;
        Ok(())
    }

    fn learn_never(&mut self, status: u16) {
        if self.ends != Ends::No {
            let name = &self.name;
            log::warn!("{name}: it ends no sessions (DELETE: {status}): checks open no other");
        }
        self.ends = Ends::No;
    }

    fn note_session(&mut self, reply: &Reply, opened: bool) {
        if let Some(id) = reply.session() {
            let fresh = opened && reply.head.status == 200;
            self.owed = Some(Session { id, version: LEGACY.to_owned(), fresh });
        }
    }

    async fn post(
        &self,
        talk: &Talk,
        id: Option<u64>,
        method: &str,
        mut params: Value,
    ) -> Result<Reply, String> {
        let mut fields = vec![ACCEPT];
        match talk {
            Talk::Modern => {
                if let Some(params) = params.as_object_mut() {
                    params.insert("_meta".to_owned(), meta());
                }
                fields.extend([("MCP-Protocol-Version", MODERN), ("Mcp-Method", method)]);
            }
            Talk::Start => {}
            Talk::Session { id, version } => {
                fields.push(("MCP-Protocol-Version", version));
                fields.extend(id.as_deref().map(|id| ("Mcp-Session-Id", id)));
            }
        }
        let mut message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        if let (Some(id), Some(message)) = (id, message.as_object_mut()) {
            message.insert("id".to_owned(), id.into());
        }
        let body = message.to_string();
        let question = Question {
            method: Method::POST,
            path: &self.check.path,
            fields: &fields,
            body: Some(body.as_bytes()),
        };
        self.line.ask(&question).await.map_err(|problem| format!("{method}: {problem}"))
    }

    /// The status of the answer.
    async fn delete(&self, session: &str, version: &str) -> Result<u16, String> {
        let fields = [ACCEPT, ("Mcp-Session-Id", session), ("MCP-Protocol-Version", version)];
        let (method, path) = (Method::DELETE, self.check.path.as_str());
        let question = Question { method, path, fields: &fields, body: None };
        let asked = self.line.ask(&question).await;
        let mut reply = asked.map_err(|problem| format!("DELETE: {problem}"))?;
        reply.end().await;
        Ok(reply.head.status)
    }
}

/// What kind of conversation a message belongs to.
#[derive(Debug)]
enum Talk {
    /// The era without sessions.
    Modern,
    /// None that has begun.
    Start,
    /// One that has; a server may do without an id.
    Session { id: Option<String>, version: String },
}

fn us() -> Value {
    json!({ "name": "mcp-edge-health", "version": env!("CARGO_PKG_VERSION") })
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": us(),
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// A server that does not know `ping` has at least read it.
fn pong(response: Option<Response>) -> Result<(), String> {
    match response {
        Some(Response::Result(_) | Response::Error(NO_METHOD)) => Ok(()),
        Some(Response::Error(code)) => Err(format!("ping: error {code}")),
        None => Err("ping: the answer is no result".to_owned()),
    }
}

/// A version goes back into a field.
fn is_version(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn answered(method: &str, status: u16) -> String {
    format!("{method}: answered {status}")
}

#[cfg(test)]
mod tests;
