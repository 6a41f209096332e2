//! The whole admission of a request without a network: in, a head and a body in memory; out, a replica
//! chosen. Route, authentication, body, scan, classification, authorization and plan, as the proxy
//! does them, on a wire that has everything already. A `Bed` is an edge of any size.

use std::fmt::Write;
use std::future::Future;
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::HeaderValue;
use mcp_edge::balance::session::{Kind, Owner, Ticket};
use mcp_edge::base::caller::Client;
use mcp_edge::base::head::Head;
use mcp_edge::base::principal::Principal;
use mcp_edge::config::{Mode, load_text};
use mcp_edge::listen::ConnCx;
use mcp_edge::listen::h1::head as request;
use mcp_edge::listen::place::Place;
use mcp_edge::listen::wire::{Answer, BodyError, BodySize, Payload, Wire};
use mcp_edge::observe::record::Record;
use mcp_edge::proxy::admit::admit;
use mcp_edge::proxy::runtime::Runtime;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{CALL, NOW, Once, head_bytes};

const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
const MODERN: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_weather","arguments":{"city":"Reykjavik","units":"metric","days":3},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

/// An edge without sockets.
pub(crate) struct Bed {
    runtime: Runtime,
    cx: ConnCx,
    route: String,
}

impl Bed {
    /// An edge with so many routes and, behind the one that is asked for, so many replicas.
    pub(crate) fn new(routes: usize, replicas: usize, policy: &str) -> Self {
        enter_clock();
        let text = config(routes, replicas, policy);
        let settings = load_text(&text, Path::new("/"), &|_| None, Mode::Run)
            .unwrap_or_else(|all| panic!("{all:?}"));
        let listener = Arc::new(settings.listeners[0].clone());
        let route = settings.routes.iter().find(|r| r.upstream == "mcp").unwrap().label.clone();
        let peer = "127.0.0.1:50000".parse().unwrap();
        // nobody will stop it: the sender may go
        let (_, shutdown) = tokio::sync::watch::channel(false);
        let place = Place::new(listener.clone());
        let cx = ConnCx {
            peer,
            may_forward: true,
            certificate: None,
            shown: Vec::new(),
            good_until: 0.into(),
            listener,
            place,
            looked_at: AtomicU64::new(0),
            shutdown,
        };
        Self { runtime: Runtime::new(&settings).unwrap(), cx, route }
    }

    /// The id of the `n`-th session, as a client has it.
    pub(crate) fn id(&self, n: usize) -> String {
        let members = self.runtime.carriers["mcp"].upstream.members();
        let replicas = &members.replicas;
        let ticket = Ticket {
            kind: Kind::Session,
            upstream: "mcp".into(),
            authority: replicas[n % replicas.len()].server.authority.clone(),
            inner: format!("6f1c9d1e7b1a4f3e9d59{n:012x}"),
            issued: NOW,
        };
        let owner = Owner { principal: &Principal::anonymous(), route: &self.route };
        self.runtime.keys.keys.seal(&ticket, owner).unwrap()
    }

    /// Takes one request through; it must be admitted, and to as many replicas as is said.
    pub(crate) fn admit(&self, head: &Head, body: &Bytes, record: &mut Record, choices: usize) {
        let mut wire = Memory { body: Some(body.clone()), size: body.len() as u64 };
        let mut id = None;
        let admitted = {
            let client =
                Client { address: self.cx.peer.ip(), hidden: false, tls: false, certificate: None };
            let future =
                pin!(admit(&self.runtime, &mut wire, head, client, &self.cx, record, &mut id));
            match future.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(admitted) => admitted.unwrap(),
                Poll::Pending => panic!("nothing here has to wait"),
            }
        };
        assert_eq!(admitted.plan.ticket.is_some(), choices == 0);
        black_box(admitted);
    }

    /// A call in a session, again and again.
    pub(crate) fn in_session(self) -> Once {
        let head = head(&self.id(7));
        self.repeat(head, CALL, 0)
    }

    /// The beginning of a session.
    pub(crate) fn initialize(self) -> Once {
        let mut head = head("-");
        head.headers.remove("mcp-session-id");
        self.repeat(head, INITIALIZE, 1)
    }

    /// A call of the era without sessions, which goes by its caller.
    pub(crate) fn by_caller(self) -> Once {
        let mut head = head("-");
        head.headers.remove("mcp-session-id");
        for (name, value) in [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "get_weather"),
        ] {
            head.headers.insert(name, HeaderValue::from_static(value));
        }
        self.repeat(head, MODERN, 1)
    }

    fn repeat(self, head: Head, body: &'static [u8], choices: usize) -> Once {
        let (body, mut record) = (Bytes::from_static(body), record());
        Box::new(move || self.admit(black_box(&head), &body, &mut record, choices))
    }
}

/// Timeouts need a clock to hang on to, although none of them gets to run.
fn enter_clock() {
    static CLOCK: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let make = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // for as long as the program runs
    std::mem::forget(CLOCK.get_or_init(make).enter());
}

fn config(routes: usize, replicas: usize, policy: &str) -> String {
    let mut text = format!(
        "admin: off\naccess_log: off\nlisteners: [ {{ address: \"127.0.0.1:8080\" }} ]\n\
         sessions: {{ keys: [ \"a key that is only used to measure\" ] }}\n\
         upstreams:\n  - name: mcp\n    balance: {policy}\n    servers:\n"
    );
    for n in 0..replicas {
        writeln!(text, "      - http://10.0.{}.{}:8000", n / 200, n % 200 + 1).unwrap();
    }
    text.push_str("  - { name: other, servers: [ \"http://10.1.0.1:8000\" ] }\nroutes:\n");
    text.push_str("  - { path: /aws-pricing, rewrite: /, upstream: mcp, auth: [ anonymous ] }\n");
    for n in 1..routes {
        writeln!(text, "  - {{ path: /server-{n}, upstream: other, auth: [ anonymous ] }}")
            .unwrap();
    }
    text
}

/// The head of a call in a session.
pub(crate) fn head(session: &str) -> Head {
    request::parse(&head_bytes(session)).unwrap().head
}

/// What is noted of a request, at its beginning.
pub(crate) fn record() -> Record {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Record {
        request_id: "0123456789abcdef0123456789abcdef".into(),
        path: "/aws-pricing/mcp".into(),
        ..Record::begin(Instant::now(), SystemTime::now(), client, http::Method::POST)
    }
}

/// A client whose request is here and who will never get an answer.
struct Memory {
    body: Option<Bytes>,
    size: u64,
}

impl Wire for Memory {
    fn body_size(&self) -> BodySize {
        BodySize::Known(self.size)
    }

    fn limit_body(&mut self, bytes: u64) {
        assert!(self.size <= bytes);
    }

    async fn body(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(self.body.take())
    }

    async fn gone(&mut self) {
        std::future::pending().await
    }

    async fn answer(&mut self, _: Answer, _: Payload) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn data(&mut self, _: Bytes, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn abort(&mut self) {}

    async fn splice<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &mut self,
        _: &mut S,
        _: impl Future<Output = u16> + Send,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_after(&mut self) {}

    fn counts(&self) -> (u64, u64) {
        (self.size, 0)
    }
}
