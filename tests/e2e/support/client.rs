//! In: exact bytes; out: exact answers, over plain TCP or TLS. Every read has a deadline.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use super::wait::DEADLINE;

/// A connection that sends what it is told.
pub(crate) struct Client {
    wire: Wire,
    /// Read, not yet consumed.
    buffer: Vec<u8>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) version: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body ended as its framing says (for a close-delimited one: the peer closed).
    pub(crate) complete: bool,
    /// 1xx answers that came before.
    pub(crate) interim: Vec<u16>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// Why this is not a refusal as the edge writes them.
    pub(crate) fn not_a_refusal(&self) -> Option<String> {
        if self.header("content-type") != Some("application/json") {
            return Some(format!("content-type is {:?}", self.header("content-type")));
        }
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else {
            return Some(format!("body is not JSON: {:?}", self.text()));
        };
        let code = body["error"]["code"].is_i64();
        let message = body["error"]["message"].as_str().is_some_and(|m| !m.is_empty());
        let id = body.get("id").is_some();
        let version = body["jsonrpc"] == "2.0";
        (!(code && message && id && version)).then(|| format!("not a JSON-RPC error: {body}"))
    }

    /// A refusal with this status, or the test fails.
    pub(crate) fn assert_refused(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.not_a_refusal(), None);
        self.json()
    }
}

/// A response without its body.
pub(crate) type Start = Response;

impl Client {
    pub(crate) fn plain(to: SocketAddr) -> Self {
        Self { wire: Wire::Plain(connect(to)), buffer: Vec::new() }
    }

    /// From another loopback address, so that the edge sees another client.
    pub(crate) fn from(source: IpAddr, to: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(source, 0)).unwrap();
            socket.connect(to).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self { wire: Wire::Plain(settle(stream)), buffer: Vec::new() }
    }

    /// The handshake is done at the first write or read.
    pub(crate) fn tls(to: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(config, name).unwrap();
        let stream = StreamOwned::new(session, connect(to));
        Self { wire: Wire::Tls(Box::new(stream)), buffer: Vec::new() }
    }

    /// The same behind a PROXY protocol header, which leaves together with the first bytes of TLS.
    pub(crate) fn tls_behind(
        header: &[u8],
        to: SocketAddr,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = ClientConnection::new(config, name).unwrap();
        let mut first = header.to_vec();
        session.write_tls(&mut first).unwrap();
        let mut stream = connect(to);
        stream.write_all(&first).unwrap();
        Self { wire: Wire::Tls(Box::new(StreamOwned::new(session, stream))), buffer: Vec::new() }
    }

    /// Sends bytes. An edge that has already hung up is no failure here: the answer is what counts.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.writer().write_all(bytes.as_ref()).and_then(|()| self.writer().flush());
        sent.is_ok()
    }

    /// Sends a request and reads its whole answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        let head = request.as_ref().starts_with(b"HEAD ");
        self.send(request);
        if head { self.start() } else { self.response() }
    }

    /// Reads a whole answer that has a body.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().expect("an answer before the connection ends")
    }

    /// A whole answer; `None` when the connection ends without one.
    pub(crate) fn try_response(&mut self) -> Option<Response> {
        let mut start = self.try_start()?;
        if start.status == 204 || start.status == 304 {
            return Some(start);
        }
        let (body, complete) = self.body(&start);
        (start.body, start.complete) = (body, complete);
        Some(start)
    }

    /// Reads the head of an answer; its body can then be read piece by piece.
    pub(crate) fn start(&mut self) -> Start {
        self.try_start().expect("an answer before the connection ends")
    }

    /// The head of the final answer; `None` when the connection ends without one.
    pub(crate) fn try_start(&mut self) -> Option<Start> {
        let mut interim = Vec::new();
        loop {
            let head = self.head()?;
            if head.status >= 200 || head.status == 101 {
                return Some(Response { interim, ..head });
            }
            interim.push(head.status);
            assert!(interim.len() < 10_000, "interim answers without end");
        }
    }

    /// The next head, 1xx or final.
    pub(crate) fn head(&mut self) -> Option<Start> {
        let head = self.until(b"\r\n\r\n")?;
        let text = String::from_utf8(head).expect("an ASCII head");
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default();
        let mut words = first.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words
            .next()
            .and_then(|w| w.parse().ok())
            .unwrap_or_else(|| panic!("bad status line {first:?}"));
        let headers = lines
            .map(|l| l.split_once(':').unwrap_or_else(|| panic!("bad header line {l:?}")))
            .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
            .collect();
        Some(Response {
            status,
            version,
            headers,
            body: Vec::new(),
            complete: true,
            interim: Vec::new(),
        })
    }

    /// Reads a body by its framing; whether it ended as the framing says.
    pub(crate) fn body(&mut self, start: &Start) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        if start.header("transfer-encoding").is_some() {
            loop {
                match self.chunk() {
                    Some(part) if part.is_empty() => return (body, true),
                    Some(part) => body.extend_from_slice(&part),
                    None => return (body, false),
                }
            }
        }
        match start.header("content-length") {
            Some(length) => {
                let length: usize = length.parse().expect("a content-length");
                while self.buffer.len() < length {
                    if !self.more() {
                        return (std::mem::take(&mut self.buffer), false);
                    }
                }
                (self.buffer.drain(..length).collect(), true)
            }
            None => {
                while self.more() {}
                (std::mem::take(&mut self.buffer), true)
            }
        }
    }

    /// The next chunk of a chunked body: empty for the last one, `None` when the connection ends first.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.until(b"\r\n")?;
        let digits = String::from_utf8_lossy(&line);
        let digits = digits.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16)
            .unwrap_or_else(|_| panic!("bad chunk size {digits:?}"));
        if size == 0 {
            while self.until(b"\r\n")? != b"\r\n" {}
            return Some(Vec::new());
        }
        while self.buffer.len() < size + 2 {
            if !self.more() {
                return None;
            }
        }
        let mut data: Vec<u8> = self.buffer.drain(..size + 2).collect();
        assert_eq!(data.split_off(size), b"\r\n", "a chunk ends with CRLF");
        Some(data)
    }

    /// Chunks until `n` bytes are together; fails when the stream ends before.
    pub(crate) fn chunks(&mut self, n: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < n {
            match self.chunk() {
                Some(part) if !part.is_empty() => data.extend_from_slice(&part),
                end => {
                    panic!("the stream ended ({end:?}) after {:?}", String::from_utf8_lossy(&data))
                }
            }
        }
        data
    }

    /// Raw bytes, exactly `n`, for upgraded connections.
    pub(crate) fn exact(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            assert!(self.more(), "the connection ended after {:?}", self.buffer);
        }
        self.buffer.drain(..n).collect()
    }

    /// Takes no more than so many bytes off the wire; how many, 0 at its end.
    pub(crate) fn sip(&mut self, most: usize) -> usize {
        let mut part = vec![0; most];
        let read = match &mut self.wire {
            Wire::Plain(s) => s.read(&mut part),
            Wire::Tls(s) => s.read(&mut part),
        };
        read.unwrap_or(0)
    }

    /// Waits for the end of the connection; whatever came before it.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }

    /// Sends `bytes` one at a time, listening for `pause` after each; how many went out before the edge
    /// said or did something, `None` when it never did.
    pub(crate) fn drip(&mut self, bytes: &[u8], pause: Duration) -> Option<usize> {
        self.socket().set_read_timeout(Some(pause)).unwrap();
        let heard = bytes.iter().enumerate().find_map(|(n, b)| {
            let sent = self.send([*b]);
            (!sent || self.hears_something()).then_some(n + 1)
        });
        self.socket().set_read_timeout(Some(DEADLINE)).unwrap();
        heard
    }

    /// Whether bytes or the end of the connection came within the read timeout.
    fn hears_something(&mut self) -> bool {
        let mut part = [0; 4096];
        let read = match &mut self.wire {
            Wire::Plain(s) => s.read(&mut part),
            Wire::Tls(s) => s.read(&mut part),
        };
        match read {
            Ok(n) => {
                self.buffer.extend_from_slice(&part[..n]);
                true
            }
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Closes our sending side only.
    pub(crate) fn half_close(&mut self) {
        if let Wire::Tls(tls) = &mut self.wire {
            tls.conn.send_close_notify();
            drop(tls.flush());
        }
        drop(self.socket().shutdown(Shutdown::Write));
    }

    fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(p) = self.buffer.windows(mark.len()).position(|w| w == mark) {
                return Some(self.buffer.drain(..p + mark.len()).collect());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads once; `false` at the end of the connection (FIN or reset).
    fn more(&mut self) -> bool {
        let mut part = [0; 16 * 1024];
        let read = match &mut self.wire {
            Wire::Plain(s) => s.read(&mut part),
            Wire::Tls(s) => s.read(&mut part),
        };
        match read {
            Ok(n) => {
                self.buffer.extend_from_slice(&part[..n]);
                n > 0
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!(
                    "silence for {DEADLINE:?}; unread: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
            Err(_) => false,
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.wire {
            Wire::Plain(s) => s,
            Wire::Tls(s) => s,
        }
    }

    fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(s) => s,
            Wire::Tls(s) => &s.sock,
        }
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    settle(TcpStream::connect_timeout(&to, DEADLINE).unwrap())
}

fn settle(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// `GET path` for `host`, keep-alive.
pub(crate) fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// `GET path` as an MCP client opens an event stream.
pub(crate) fn get_events(host: &str, path: &str, extra: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n{extra}\r\n")
}

/// A WebSocket handshake, with the key of RFC 6455 §1.3.
pub(crate) fn websocket(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// `POST path` with a JSON body; `extra` are whole header lines.
pub(crate) fn post(host: &str, path: &str, extra: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{extra}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
