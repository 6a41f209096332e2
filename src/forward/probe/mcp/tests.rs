//! In: servers with all the manners that have been met; out: what a check asks them, says of them and leaves behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::*;
use crate::balance::health::settings::{Check, HealthSettings};
use crate::balance::{Replica, Upstream, compile, view::State};
use crate::base::url;
use crate::forward::carrier::Carrier;
use crate::forward::names::Names;
use crate::forward::probe::{Probe, in_time};

/// An MCP server with all the manners that have been met.
#[derive(Default)]
struct Server {
    /// It speaks the era without sessions.
    modern: bool,
    /// It opens sessions.
    sessions: bool,
    /// What it says to DELETE of a session that it has, in place of ending it.
    delete: Option<u16>,
    /// What it says to DELETE of others; 0: 404.
    delete_others: u16,
    /// It answers without a session.
    stateless: bool,
    /// It opens a session for whatever comes.
    mints: bool,
    /// It answers in event streams.
    streams: bool,
    /// `initialize` is answered when there is a permit.
    gate: Option<Arc<Semaphore>>,
    /// How many answers to `initialize` are lost with their connection.
    lost: usize,
    tools: Vec<&'static str>,
    open: BTreeSet<String>,
    opened: usize,
    log: Vec<String>,
}

type Shared = Arc<Mutex<Server>>;

struct Asked {
    method: String,
    fields: HashMap<String, String>,
    rpc: Value,
}

async fn read(tcp: &mut TcpStream) -> Asked {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let first = lines.next().unwrap();
            assert!(first.ends_with(" /mcp HTTP/1.1"), "{first}");
            let pair = |l: &str| l.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
            let fields: HashMap<_, _> = lines.filter_map(pair).collect();
            let length = fields.get("content-length").map_or(0, |n| n.parse().unwrap());
            if body.len() == length {
                let method = first.split(' ').next().unwrap().to_owned();
                return Asked {
                    method,
                    fields,
                    rpc: serde_json::from_str(body).unwrap_or_default(),
                };
            }
        }
        assert!(tcp.read_buf(&mut bytes).await.unwrap() > 0, "{text}");
    }
}

impl Server {
    /// Status, session to name, and result or error.
    fn answer(&mut self, asked: &Asked) -> (u16, Option<String>, Value) {
        let known =
            asked.fields.get("mcp-session-id").filter(|id| self.open.contains(*id)).cloned();
        let error = |code: i64| json!({ "error": { "code": code, "message": "no" } });
        if asked.method == "DELETE" {
            let status = match (&known, self.delete) {
                (Some(_), Some(status)) => status,
                (Some(id), None) => {
                    self.open.remove(id);
                    200
                }
                (None, _) if self.delete_others > 0 => self.delete_others,
                (None, _) => 404,
            };
            return (status, None, Value::Null);
        }
        let modern = asked.fields.get("mcp-protocol-version").is_some_and(|v| v == MODERN);
        let method = asked.rpc["method"].as_str().unwrap();
        if modern && self.modern {
            assert_eq!(asked.fields["mcp-method"], method);
            assert_eq!(
                asked.rpc["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"],
                MODERN
            );
            return match method {
                "server/discover" => {
                    (200, None, json!({ "result": { "supportedVersions": [MODERN] } }))
                }
                _ => (200, None, self.list(asked)),
            };
        }
        if method == "initialize" && self.sessions {
            return (
                200,
                Some(self.open()),
                json!({ "result": { "protocolVersion": "2025-06-18" } }),
            );
        }
        if known.is_none() && !self.stateless {
            let minted = self.mints.then(|| self.open());
            return (400, minted, error(-32000));
        }
        if known.is_some() {
            assert_eq!(asked.fields["mcp-protocol-version"], "2025-06-18");
        }
        match method {
            "notifications/initialized" => (202, None, Value::Null),
            "initialize" => (200, None, json!({ "result": { "protocolVersion": "2025-06-18" } })),
            "ping" => (200, None, json!({ "result": {} })),
            "tools/list" => (200, None, self.list(asked)),
            _ => (200, None, error(-32601)),
        }
    }

    fn open(&mut self) -> String {
        self.opened += 1;
        let id = format!("session-{}", self.opened);
        self.open.insert(id.clone());
        id
    }

    /// A tool a page.
    fn list(&self, asked: &Asked) -> Value {
        let at = asked.rpc["params"]["cursor"].as_str().map_or(0, |c| c.parse().unwrap());
        let tools: Vec<_> =
            self.tools.iter().skip(at).take(1).map(|t| json!({ "name": t })).collect();
        let next = (at + 1 < self.tools.len()).then(|| (at + 1).to_string());
        let mut result = json!({ "tools": tools });
        if let Some(next) = next {
            result["nextCursor"] = next.into();
        }
        json!({ "result": result })
    }
}

async fn serve(listener: TcpListener, server: Shared) {
    loop {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let server = server.clone();
        tokio::spawn(async move {
            let asked = read(&mut tcp).await;
            let rpc = asked.rpc["method"].as_str().map(str::to_owned);
            let name = rpc.unwrap_or_else(|| asked.method.clone());
            let gate = server.lock().unwrap().gate.clone().filter(|_| name == "initialize");
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            let (bytes, lost) = {
                let mut server = server.lock().unwrap();
                server.log.push(name.clone());
                let (status, session, mut message) = server.answer(&asked);
                let lost = name == "initialize" && server.lost > 0;
                server.lost -= usize::from(lost);
                if !message.is_null() {
                    message["jsonrpc"] = "2.0".into();
                    message["id"] = asked.rpc["id"].clone();
                }
                let body = if message.is_null() { String::new() } else { message.to_string() };
                let named = session.map_or(String::new(), |id| format!("Mcp-Session-Id: {id}\r\n"));
                let bytes = if server.streams && !body.is_empty() {
                    let other = r#"{"jsonrpc":"2.0","method":"notifications/message"}"#;
                    let events =
                        format!("data: {other}\r\n\r\nevent: message\r\ndata: {body}\r\n\r\n");
                    format!(
                        "HTTP/1.1 {status} X\r\n{named}Content-Type: text/event-stream\r\n\r\n{events}"
                    )
                } else {
                    let length = body.len();
                    format!("HTTP/1.1 {status} X\r\n{named}Content-Length: {length}\r\n\r\n{body}")
                };
                (bytes, lost)
            };
            if !lost && tcp.write_all(bytes.as_bytes()).await.is_err() {
                // nobody waits any more
            }
        });
    }
}

/// Puts a server to work; gives how it is checked.
async fn begin(server: Server, tools: &[&str]) -> (Shared, Mcp, Arc<Upstream>, Arc<Replica>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = url::origin(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let upstream = Arc::new(Upstream::new(compile::from_origin(&origin).unwrap()));
    Carrier::new(upstream.clone(), Names::default(), None).unwrap();
    let server = Arc::new(Mutex::new(server));
    tokio::spawn(serve(listener, server.clone()));
    let replica = upstream.members().replicas[0].clone();
    let line = Line::new(replica.clone(), &upstream.settings);
    let tools = tools.iter().map(|tool| (*tool).to_owned()).collect();
    let check = McpCheck { path: "/mcp".into(), tools };
    (server, Mcp::new("one".into(), line, check), upstream, replica)
}

/// What a check says, and what the server was asked for.
async fn asked(mcp: &mut Mcp, server: &Shared) -> (Result<(), String>, String) {
    server.lock().unwrap().log.clear();
    let result = mcp.check().await;
    (result, server.lock().unwrap().log.join(" "))
}

fn open(server: &Shared) -> usize {
    server.lock().unwrap().open.len()
}

fn opened(server: &Shared) -> usize {
    server.lock().unwrap().opened
}

const SESSION: &str = "initialize notifications/initialized ping";

#[tokio::test]
async fn a_server_without_sessions_is_only_asked_to_discover() {
    for streams in [false, true] {
        let both = Server { modern: true, sessions: true, streams, ..Server::default() };
        let (server, mut mcp, ..) = begin(both, &[]).await;
        for _ in 0..3 {
            assert_eq!(asked(&mut mcp, &server).await, (Ok(()), "server/discover".into()));
        }
        // it is replaced by an older one
        server.lock().unwrap().modern = false;
        let all = format!("server/discover DELETE {SESSION} DELETE");
        assert_eq!(asked(&mut mcp, &server).await, (Ok(()), all));
        assert_eq!(open(&server), 0);
    }
}

#[tokio::test]
async fn sessions_are_opened_used_and_ended() {
    for streams in [false, true] {
        let legacy = Server { sessions: true, streams, ..Server::default() };
        let (server, mut mcp, ..) = begin(legacy, &[]).await;
        let first = format!("server/discover DELETE {SESSION} DELETE");
        assert_eq!(asked(&mut mcp, &server).await, (Ok(()), first));
        for _ in 0..3 {
            assert_eq!(asked(&mut mcp, &server).await, (Ok(()), format!("{SESSION} DELETE")));
        }
        assert_eq!((opened(&server), open(&server)), (4, 0));
    }
}

#[tokio::test]
async fn a_server_that_refuses_delete_is_never_initialized() {
    let stateless =
        Server { stateless: true, delete_others: 405, tools: vec!["a"], ..Server::default() };
    let (server, mut mcp, ..) = begin(stateless, &["a"]).await;
    let said = asked(&mut mcp, &server).await;
    assert_eq!(said, (Ok(()), "server/discover DELETE ping tools/list".into()));
    assert_eq!(asked(&mut mcp, &server).await, (Ok(()), "ping tools/list".into()));
    // the same for one that would keep what is opened: then only that it answers is asked
    let keeper =
        Server { sessions: true, delete: Some(405), delete_others: 405, ..Server::default() };
    let (server, mut mcp, ..) = begin(keeper, &[]).await;
    assert_eq!(asked(&mut mcp, &server).await, (Ok(()), "server/discover DELETE ping".into()));
    for _ in 0..3 {
        assert_eq!(asked(&mut mcp, &server).await, (Ok(()), "DELETE".into()));
    }
    server.lock().unwrap().delete_others = 500;
    assert_eq!(asked(&mut mcp, &server).await.0, Err("DELETE: answered 500".into()));
    assert_eq!(server.lock().unwrap().opened, 0);
}

#[tokio::test]
async fn a_server_that_only_seems_to_end_sessions_keeps_one() {
    for status in [404, 405] {
        let keeper = Server { sessions: true, delete: Some(status), ..Server::default() };
        let (server, mut mcp, ..) = begin(keeper, &[]).await;
        for _ in 0..5 {
            assert_eq!(asked(&mut mcp, &server).await.0, Ok(()));
        }
        assert_eq!(server.lock().unwrap().opened, 1, "{status}");
    }
}

#[tokio::test]
async fn a_session_that_could_not_be_ended_is_ended_first() {
    let busy = Server { sessions: true, delete: Some(503), ..Server::default() };
    let (server, mut mcp, ..) = begin(busy, &[]).await;
    for log in
        [format!("server/discover DELETE {SESSION} DELETE"), "DELETE".into(), "DELETE".into()]
    {
        let said = asked(&mut mcp, &server).await;
        assert_eq!(said, (Err("DELETE: answered 503".into()), log));
    }
    server.lock().unwrap().delete = None;
    assert_eq!(asked(&mut mcp, &server).await, (Ok(()), format!("DELETE {SESSION} DELETE")));
    assert_eq!((opened(&server), open(&server)), (2, 0));
    // one that the server has lost is settled, too, and speaks against nothing
    server.lock().unwrap().delete = Some(503);
    assert!(mcp.check().await.is_err());
    server.lock().unwrap().open.clear();
    server.lock().unwrap().delete = None;
    assert_eq!(asked(&mut mcp, &server).await, (Ok(()), format!("DELETE {SESSION} DELETE")));
}

#[tokio::test]
async fn sessions_that_nobody_asked_for_are_ended() {
    let old = Server { sessions: true, mints: true, ..Server::default() };
    let (server, mut mcp, ..) = begin(old, &[]).await;
    let first = format!("server/discover DELETE DELETE {SESSION} DELETE");
    assert_eq!(asked(&mut mcp, &server).await, (Ok(()), first));
    assert_eq!((opened(&server), open(&server)), (2, 0));
    assert_eq!(asked(&mut mcp, &server).await, (Ok(()), format!("{SESSION} DELETE")));
}

#[tokio::test]
async fn after_an_answer_that_was_lost_the_server_must_answer_something_else_first() {
    let (server, mut mcp, ..) =
        begin(Server { sessions: true, lost: 1, ..Server::default() }, &[]).await;
    let said = mcp.check().await;
    assert_eq!(said, Err("initialize: closed without an answer".into()));
    server.lock().unwrap().delete_others = 500;
    assert_eq!(
        asked(&mut mcp, &server).await,
        (Err("DELETE: answered 500".into()), "DELETE".into())
    );
    server.lock().unwrap().delete_others = 0;
    assert_eq!(asked(&mut mcp, &server).await, (Ok(()), format!("DELETE {SESSION} DELETE")));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_names_a_session_that_is_ended() {
    let gate = Arc::new(Semaphore::new(0));
    let slow = Server { sessions: true, gate: Some(gate.clone()), ..Server::default() };
    let (server, mcp, upstream, replica) = begin(slow, &[]).await;
    let settings = HealthSettings {
        check: Check::Tcp,
        every: Duration::from_millis(20),
        timeout: Duration::from_millis(20),
        up_after: 1,
        down_after: 2,
        slow_start: Duration::ZERO,
    };
    let mut probe = Probe::Mcp(Box::new(mcp));
    let mut check = tokio::spawn(async move {
        let result = probe.check().await;
        (probe, result)
    });
    let open_the_gate = async {
        while replica.health.totals().bad < 3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
    };
    let waited = in_time(&upstream, &replica, &settings, &mut check);
    let ((_, result), ()) = tokio::join!(async { waited.await.unwrap() }, open_the_gate);
    assert_eq!((result, replica.health.state()), (None, State::Down), "it was told before");
    assert_eq!((opened(&server), open(&server)), (1, 0));
}

#[tokio::test]
async fn tools_are_looked_for_on_all_pages() {
    for (modern, sessions) in [(true, false), (false, true)] {
        let tools = vec!["a", "b", "c"];
        let three = Server { modern, sessions, tools, ..Server::default() };
        let (server, mut mcp, ..) = begin(three, &["c", "a"]).await;
        assert_eq!(mcp.check().await, Ok(()));
        server.lock().unwrap().tools = vec!["a", "b"];
        assert_eq!(mcp.check().await, Err("tools/list: no `c`".into()));
        assert_eq!(open(&server), 0);
    }
}
