//! The hot pieces of a request, each as a closure that does it once. In: nothing; out: names and
//! closures, for the clock (`benches/pieces.rs`) and for counting instructions (`benches/hot/count.rs`).
//! Only public functions, with inputs as clients send them.

#[path = "admission.rs"]
pub(crate) mod admission;
#[path = "tokens.rs"]
mod tokens;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use mcp_edge::balance::Replica;
use mcp_edge::balance::session::{Kind, Owner, SessionKeys, Ticket};
use mcp_edge::balance::settings::ServerSettings;
use mcp_edge::base::edits::Edits;
use mcp_edge::base::principal::Principal;
use mcp_edge::forward::head as answer;
use mcp_edge::inspect::{envelope, mcp};
use mcp_edge::listen::h1::head as request;
use mcp_edge::observe::Observer;
use mcp_edge::observe::metrics::Metrics;
use mcp_edge::observe::record::Record;
use mcp_edge::route::cors::Cors;
use mcp_edge::route::methods::Methods;
use mcp_edge::route::settings::{Origins, PathMatch, PublicUrl, RouteSettings};
use mcp_edge::route::table::Routes;
use mcp_edge::stream::sse::Scanner;

use admission::Bed;

/// Does a piece once.
pub(crate) type Once = Box<dyn FnMut()>;
/// A piece: its name, and what does it once.
pub(crate) type Piece = (&'static str, Once);

pub(crate) const CALL: &[u8] = include_bytes!("../compare/call.json");
const LOOPBACK: std::net::SocketAddr =
    std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 8080));
const NOW: u64 = 1_795_233_600;

/// All pieces.
pub(crate) fn pieces() -> Vec<Piece> {
    let mut all = vec![request_head(), answer_head()];
    all.extend([
        route_match("route match, 1 route", 1),
        route_match("route match, 10000 routes", 10_000),
    ]);
    all.extend([envelope_scan("envelope scan, 137 B", CALL.to_vec())]);
    all.extend([envelope_scan("envelope scan, 64 KiB", large_call()), classify()]);
    all.extend([seal(), open(), open_forged(), sse("SSE scan, 4 KiB", 4096)]);
    all.extend([
        log_line(),
        counted("metrics of a request", 200),
        counted("metrics, refused", 429),
    ]);
    all.extend([
        ("admission, call in a session", bed().in_session()),
        ("admission, initialize", bed().initialize()),
        ("admission, 2026-07-28", bed().by_caller()),
    ]);
    all.extend(tokens::pieces());
    all
}

/// A request head as the TypeScript SDK sends it.
fn head_bytes(session: &str) -> Bytes {
    format!(
        "POST /aws-pricing/mcp HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nconnection: keep-alive\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2025-06-18\r\nmcp-session-id: {session}\r\naccept-language: *\r\n\
         sec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\n\
         content-length: {}\r\n\r\n",
        CALL.len()
    )
    .into()
}

fn bed() -> Bed {
    Bed::new(1, 2, "round_robin")
}

fn request_head() -> Piece {
    let bytes = head_bytes(&sealed());
    let once = move || {
        let mut seen = 0;
        let end = request::find_end(black_box(&bytes), &mut seen).unwrap().unwrap();
        black_box(request::parse(&bytes.slice(..end)).unwrap());
    };
    ("request head parse", Box::new(once))
}

fn answer_head() -> Piece {
    let bytes = Bytes::from_static(
        b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 04:00:00 GMT\r\nserver: uvicorn\r\n\
          content-type: application/json\r\nmcp-session-id: 6f1c9d1e7b1a4f3e9d59000000000001\r\n\
          content-length: 300\r\n\r\n",
    );
    let once = move || {
        let end = answer::find_end(black_box(&bytes), &mut 0).unwrap().unwrap();
        black_box(answer::parse(&bytes.slice(..end), &Method::POST).unwrap());
    };
    ("answer head parse", Box::new(once))
}

fn route_match(name: &'static str, routes: usize) -> Piece {
    let own = route("/aws-pricing".into());
    let others = (1..routes).map(|n| Arc::new(route(format!("/server-{n}"))));
    let table = Routes::new(others.chain([Arc::new(own)]));
    let head = request::parse(&head_bytes(&sealed())).unwrap().head;
    let once = move || {
        black_box(table.find(black_box(&head), LOOPBACK).unwrap());
    };
    (name, Box::new(once))
}

fn route(path: String) -> RouteSettings {
    RouteSettings {
        label: format!("*{path}"),
        listeners: None,
        host: None,
        path: PathMatch::Prefix(path.clone()),
        public_url: PublicUrl { scheme: "http", authority: "127.0.0.1:8080".into(), path },
        upstream: "mcp".into(),
        rewrite: Some("/".into()),
        auth: Default::default(),
        outgoing: None,
        methods: Methods::default(),
        origins: Origins::Listed(Vec::new()),
        cors: Some(Cors::default()),
        access: Default::default(),
        limits: None,
        rules: Vec::new(),
        answer_edits: Edits::default(),
        body_limit: 4 << 20,
        keepalive: None,
        counts: Default::default(),
        audit: None,
        traces: None,
    }
}

fn envelope_scan(name: &'static str, body: Vec<u8>) -> Piece {
    let once = move || {
        black_box(envelope::scan(black_box(&body)));
    };
    (name, Box::new(once))
}

/// A call with a document of 64 KiB among its arguments, quotes and escapes included.
fn large_call() -> Vec<u8> {
    let document = r#"She said \"no\".\n"#.repeat(64 * 1024 / 18);
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"write","arguments":{{"text":"{document}"}}}}}}"#
    )
    .into_bytes()
}

fn classify() -> Piece {
    let head = request::parse(&head_bytes(&sealed())).unwrap().head;
    let scan = envelope::scan(CALL);
    let once = move || {
        black_box(mcp::classify(black_box(&head), Some(&scan)).unwrap());
    };
    ("classify", Box::new(once))
}

fn keys() -> SessionKeys {
    SessionKeys::from_texts(&["a key that is only used to measure".into()]).unwrap()
}

fn ticket() -> Ticket {
    Ticket {
        kind: Kind::Session,
        upstream: "aws-pricing".into(),
        authority: "10.0.1.10:8000".into(),
        inner: "6f1c9d1e7b1a4f3e9d59000000000001".into(),
        issued: NOW,
    }
}

fn owner(principal: &Principal) -> Owner<'_> {
    Owner { principal, route: "*/aws-pricing" }
}

fn sealed() -> String {
    keys().seal(&ticket(), owner(&Principal::anonymous())).unwrap()
}

fn seal() -> Piece {
    let (keys, ticket, principal) = (keys(), ticket(), Principal::anonymous());
    let once = move || {
        black_box(keys.seal(black_box(&ticket), owner(&principal)).unwrap());
    };
    ("session seal", Box::new(once))
}

fn open() -> Piece {
    let (keys, text, principal) = (keys(), sealed(), Principal::anonymous());
    let once = move || {
        black_box(
            keys.open(Kind::Session, black_box(&text), owner(&principal), NOW, None).unwrap(),
        );
    };
    ("session open", Box::new(once))
}

fn open_forged() -> Piece {
    let (keys, principal) = (keys(), Principal::anonymous());
    let text = sealed().replace("e1.", "e1.AAAA");
    let once = move || {
        black_box(
            keys.open(Kind::Session, black_box(&text), owner(&principal), NOW, None).unwrap_err(),
        );
    };
    ("session open, forged", Box::new(once))
}

fn sse(name: &'static str, size: usize) -> Piece {
    let event = "event: message\r\nid: 17\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\
                 \"params\":{\"progressToken\":1,\"progress\":50,\"total\":100}}\r\n\r\n";
    let bytes: Vec<u8> = event.bytes().cycle().take(size).collect();
    let once = move || {
        let mut scanner = Scanner::new();
        scanner.push(black_box(&bytes));
        black_box(scanner.events());
    };
    (name, Box::new(once))
}

fn replica() -> Replica {
    let (host, authority) = ("10.0.1.10".into(), "10.0.1.10:8000".into());
    let (weight, priority, drain, found) = (1, 0, false, None);
    Replica::new(ServerSettings {
        https: false,
        host,
        port: 8000,
        authority,
        weight,
        priority,
        drain,
        found,
    })
}

/// A call as it is when it has been answered.
fn answered() -> Record {
    let now = Instant::now();
    Record {
        route: Some(Arc::new(route("/aws-pricing".into()))),
        replica: Some(Arc::new(replica())),
        era: "legacy",
        rpc_method: Some("tools/call".into()),
        tool: Some("get_weather".into()),
        status: 200,
        bytes_in: 139,
        bytes_out: 300,
        first_byte: Some(now),
        ..admission::record()
    }
}

/// What is counted of a request, without a line in the log.
fn counted(name: &'static str, status: u16) -> Piece {
    let observer = Observer::new(Arc::new(Metrics::new().unwrap()), None);
    let code = (status == 429).then_some("limit.rate");
    let record = Record { status, code, ..answered() };
    let once = move || observer.request(black_box(&record));
    (name, Box::new(once))
}

fn log_line() -> Piece {
    let record = answered();
    let now = Instant::now();
    let mut out = Vec::new();
    let once = move || {
        out.clear();
        black_box(&record).line("request", now, &mut out);
        black_box(&out);
    };
    ("access log line", Box::new(once))
}
