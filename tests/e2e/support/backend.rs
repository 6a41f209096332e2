//! In: a script, one closure per request; out: a real HTTP/1.1 server on a port of its own that records every byte.
//!
//! A reader thread per connection notes what arrives at the moment it arrives, so a test can see half
//! a body, or that the edge hung up, while the script is still busy.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::wait::Watched;

/// Starts a backend that runs `script` once for each request head.
pub(crate) fn backend(script: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Backend {
    backend_on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
}

/// The same on a socket of the caller's.
pub(crate) fn backend_on(
    listener: TcpListener,
    script: impl Fn(&mut Exchange) + Send + Sync + 'static,
) -> Backend {
    let address = listener.local_addr().unwrap();
    let record = Arc::new(Watched::new(Record::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let script: Arc<Script> = Arc::new(script);
    thread::spawn({
        let (record, stop) = (record.clone(), stop.clone());
        move || accept(&listener, &record, &stop, &script)
    });
    Backend { address, record, stop }
}

/// A backend that answers every request with `200` and a small JSON object.
pub(crate) fn plain() -> Backend {
    backend(|x| {
        if x.body().is_some() {
            x.json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        }
    })
}

/// An address that refuses connections for as long as the value lives: bound, never listening.
pub(crate) struct Refusing(
    SocketAddr,
    #[allow(dead_code, reason = "keeps the port")] tokio::net::TcpSocket,
);

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket.local_addr().unwrap(), socket)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

/// The answer to a WebSocket handshake with the key of RFC 6455 §1.3.
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An address at which whoever connects waits for as long as the value lives: its system has no room for more, as
/// where a machine has gone from the network.
pub(crate) struct Silent {
    #[allow(dead_code, reason = "keeps the port")]
    listener: tokio::net::TcpListener,
    #[allow(dead_code, reason = "they have taken all room")]
    clients: Vec<TcpStream>,
}

impl Silent {
    /// Where somebody has listened before.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket.listen(1).unwrap()
        });
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let clients: Vec<TcpStream> = std::iter::from_fn(connect).take(64).collect();
        assert!((1..64).contains(&clients.len()), "{} have connected", clients.len());
        Self { listener, clients }
    }
}

type Script = dyn Fn(&mut Exchange) + Send + Sync;

/// A running backend. Stops to accept when dropped.
pub(crate) struct Backend {
    address: SocketAddr,
    record: Arc<Watched<Record>>,
    stop: Arc<AtomicBool>,
}

/// All that a backend has received.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) connections: Vec<Connection>,
    pub(crate) requests: Vec<Seen>,
}

/// One connection, as received.
#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) bytes: Vec<u8>,
    /// How many of the bytes belonged to complete requests.
    pub(crate) parsed: usize,
    /// The peer sent FIN or RST.
    pub(crate) closed: bool,
    /// Our script is done and our FIN is out.
    pub(crate) ended: bool,
    /// How many response bytes the socket took.
    pub(crate) written: usize,
}

/// One request, as received so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) complete: bool,
}

impl Seen {
    /// The values of a header, joined as RFC 9110 §5.3 allows.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let all: Vec<_> = self.all(name);
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Each value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let same = |n: &str| n.eq_ignore_ascii_case(name);
        self.headers.iter().filter(|(n, _)| same(n)).map(|(_, v)| v.as_str()).collect()
    }
}

impl Backend {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// All requests whose head has arrived.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.record.look(|r| r.requests.clone())
    }

    pub(crate) fn last(&self) -> Seen {
        self.requests().pop().expect("the backend got no request")
    }

    pub(crate) fn count(&self) -> usize {
        self.record.look(|r| r.requests.len())
    }

    /// Waits for a state of the record.
    pub(crate) fn wait<R>(&self, what: &str, f: impl Fn(&Record) -> Option<R>) -> R {
        self.record.wait(what, f)
    }

    /// Waits for the nth request's head, counted from 0.
    pub(crate) fn wait_request(&self, nth: usize) -> Seen {
        self.wait(&format!("request {nth} reaches the backend"), |r| r.requests.get(nth).cloned())
    }

    /// Waits until the peer has closed the connection that carried the nth request.
    pub(crate) fn wait_closed(&self, nth: usize) {
        self.wait("the edge closes its connection to the backend", |r| {
            let seen = r.requests.get(nth)?;
            r.connections.get(seen.connection)?.closed.then_some(())
        });
    }

    pub(crate) fn record(&self) -> Arc<Watched<Record>> {
        self.record.clone()
    }
}

impl Backend {
    /// Stops for good: returns when its port refuses connections.
    pub(crate) fn shut(self) {
        let address = self.address;
        drop(self);
        let refused = (0..100_000).any(|_| TcpStream::connect(address).is_err());
        assert!(refused, "the backend's port still accepts");
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn accept(
    listener: &TcpListener,
    record: &Arc<Watched<Record>>,
    stop: &AtomicBool,
    script: &Arc<Script>,
) {
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { return };
        stream.set_nodelay(true).unwrap();
        let connection = record.update(|r| {
            r.connections.push(Connection::default());
            r.connections.len() - 1
        });
        let reading = stream.try_clone().unwrap();
        thread::spawn({
            let record = record.clone();
            move || read_all(reading, connection, &record)
        });
        let (record, script) = (record.clone(), script.clone());
        thread::spawn(move || serve(stream, connection, &record, &script));
    }
}

fn read_all(mut stream: TcpStream, connection: usize, record: &Watched<Record>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = stream.read(&mut buffer).unwrap_or(0);
        record.update(|r| {
            let mine = &mut r.connections[connection];
            mine.bytes.extend_from_slice(&buffer[..n]);
            mine.closed = n == 0;
        });
        if n == 0 {
            return;
        }
    }
}

fn serve(
    stream: TcpStream,
    connection: usize,
    record: &Arc<Watched<Record>>,
    script: &Arc<Script>,
) {
    let mut at = 0;
    while let Some(head) = until(record, connection, at, b"\r\n\r\n") {
        at += head.len();
        let seen = parse_head(&head, connection);
        let index = record.update(|r| {
            r.requests.push(seen.clone());
            r.requests.len() - 1
        });
        let mut x = Exchange {
            request: seen,
            record: record.clone(),
            stream: stream.try_clone().unwrap(),
            index,
            at,
            body: None,
            close: false,
        };
        script(&mut x);
        if x.close || x.body().is_none() {
            break;
        }
        at = x.at;
        record.update(|r| r.connections[connection].parsed = at);
    }
    // The reader goes on until the peer hangs up; we only stop to answer.
    drop(stream.shutdown(Shutdown::Write));
    record.update(|r| r.connections[connection].ended = true);
}

fn parse_head(head: &[u8], connection: usize) -> Seen {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
    let mut word = || first.next().unwrap_or_default();
    let (method, target, version) = (word(), word(), word());
    let headers = lines
        .take_while(|l| !l.is_empty())
        .map(|l| l.split_once(':').unwrap_or((l, "")))
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect();
    Seen { connection, method, target, version, headers, ..Seen::default() }
}

/// The bytes from `at` up to and with `mark`; `None` when the peer closes first.
fn until(record: &Watched<Record>, connection: usize, at: usize, mark: &[u8]) -> Option<Vec<u8>> {
    let found = |r: &Record| {
        let mine = &r.connections[connection];
        let rest = &mine.bytes[at..];
        match rest.windows(mark.len()).position(|w| w == mark) {
            Some(p) => Some(Some(rest[..p + mark.len()].to_vec())),
            None if mine.closed => Some(None),
            None => None,
        }
    };
    // Idle connections of a pool wait long; the process ends them.
    loop {
        if let Some(out) = record.wait_for(super::wait::DEADLINE, found) {
            return out;
        }
    }
}

/// One request that is being answered. What a script does with it.
pub(crate) struct Exchange {
    pub(crate) request: Seen,
    record: Arc<Watched<Record>>,
    stream: TcpStream,
    index: usize,
    at: usize,
    body: Option<Option<Vec<u8>>>,
    close: bool,
}

impl Exchange {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.request.header(name)
    }

    /// Reads the body to its end; `None` when the peer closed before.
    pub(crate) fn body(&mut self) -> Option<Vec<u8>> {
        if let Some(known) = &self.body {
            return known.clone();
        }
        let chunked =
            self.header("transfer-encoding").is_some_and(|v| v.to_lowercase().contains("chunked"));
        let length = self.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        let ended = if chunked { self.chunks() } else { self.take(length) };
        let body = ended.map(|()| self.so_far());
        if body.is_some() {
            self.record.update(|r| r.requests[self.index].complete = true);
        }
        self.body = Some(body.clone());
        body
    }

    /// Writes bytes exactly as they are. Whether the peer still took them.
    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.write(bytes.as_ref()).is_ok()
    }

    /// A whole answer with `Content-Length`.
    pub(crate) fn answer(&mut self, status: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut out = format!("HTTP/1.1 {status}\r\n");
        for (name, value) in headers {
            out += &format!("{name}: {value}\r\n");
        }
        out += &format!("content-length: {}\r\n\r\n", body.len());
        let mut out = out.into_bytes();
        out.extend_from_slice(body);
        self.raw(out);
    }

    pub(crate) fn json(&mut self, body: &str) {
        self.answer("200 OK", &[("content-type", "application/json")], body.as_bytes());
    }

    /// Begins a chunked event stream.
    pub(crate) fn sse(&mut self, extra: &[(&str, &str)]) {
        let mut out =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
                .to_owned();
        for (name, value) in extra {
            out += &format!("{name}: {value}\r\n");
        }
        self.raw(out + "\r\n");
    }

    pub(crate) fn chunk(&mut self, data: impl AsRef<[u8]>) -> bool {
        let data = data.as_ref();
        let mut out = format!("{:x}\r\n", data.len()).into_bytes();
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
        self.raw(out)
    }

    pub(crate) fn end_chunks(&mut self) {
        self.raw("0\r\n\r\n");
    }

    /// Writes each part of `source` as a chunk until the test drops its feed, then the final chunk.
    pub(crate) fn play(&mut self, source: &Source) {
        while let Some(part) = source.next() {
            self.chunk(part);
        }
        self.end_chunks();
    }

    /// No further request on this connection; the write side closes when the script returns.
    pub(crate) fn close(&mut self) {
        self.close = true;
    }

    /// Blocks until the peer hangs up.
    pub(crate) fn wait_closed(&mut self) {
        self.close = true;
        let connection = self.request.connection;
        while self
            .record
            .wait_for(super::wait::DEADLINE, |r| r.connections[connection].closed.then_some(()))
            .is_none()
        {}
    }

    /// Echoes all further bytes until the peer hangs up: what a WebSocket server looks like from the wire.
    pub(crate) fn echo(&mut self) {
        self.close = true;
        let connection = self.request.connection;
        loop {
            let at = self.at;
            // a test may take its time before it sends more
            let Some(more) = self.record.wait_for(super::wait::DEADLINE, |r| {
                let mine = &r.connections[connection];
                (mine.bytes.len() > at || mine.closed).then(|| mine.bytes[at..].to_vec())
            }) else {
                continue;
            };
            if more.is_empty() || !self.raw(&more) {
                return;
            }
            self.at += more.len();
        }
    }

    /// Where the peer asks for a WebSocket, opens it and echoes, as [`Exchange::echo`]. Whether it does.
    pub(crate) fn upgraded(&mut self) -> bool {
        let asked = self.header("upgrade").is_some();
        if asked {
            self.raw(SWITCHING);
            self.echo();
        }
        asked
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(64 * 1024) {
            self.stream.write_all(part)?;
            let connection = self.request.connection;
            self.record.update(|r| r.connections[connection].written += part.len());
        }
        Ok(())
    }

    fn so_far(&self) -> Vec<u8> {
        self.record.look(|r| r.requests[self.index].body.clone())
    }

    fn chunks(&mut self) -> Option<()> {
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).ok()?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Some(());
            }
            self.take(size)?;
            self.line()?;
        }
    }

    fn line(&mut self) -> Option<String> {
        let line = until(&self.record, self.request.connection, self.at, b"\r\n")?;
        self.at += line.len();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Moves `n` body bytes into the record as they come.
    fn take(&mut self, mut n: usize) -> Option<()> {
        let connection = self.request.connection;
        while n > 0 {
            let (at, most) = (self.at, n);
            let got = self.record.wait("body bytes at the backend", |r| {
                let mine = &r.connections[connection];
                let have = mine.bytes.len().saturating_sub(at).min(most);
                (have > 0 || mine.closed).then(|| mine.bytes[at..at + have].to_vec())
            });
            if got.is_empty() {
                return None;
            }
            n -= got.len();
            self.at += got.len();
            self.record.update(|r| r.requests[self.index].body.extend_from_slice(&got));
        }
        Some(())
    }
}

/// The test's end of a stream that a backend plays.
pub(crate) struct Feed(Sender<Vec<u8>>);

/// The backend's end.
pub(crate) struct Source(Mutex<Receiver<Vec<u8>>>);

/// A pair: what the test pushes, the backend sends.
pub(crate) fn feed() -> (Feed, Source) {
    let (tx, rx) = channel();
    (Feed(tx), Source(Mutex::new(rx)))
}

impl Feed {
    pub(crate) fn push(&self, part: impl AsRef<[u8]>) {
        self.0.send(part.as_ref().to_vec()).expect("the backend's script has ended");
    }
}

impl Source {
    /// The next part; `None` when the test dropped its feed.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).recv().ok()
    }
}
