//! In: requests, or raw frames; out: what an HTTP/2 client sees, over TLS with ALPN `h2`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::client::Response;
use super::wait::DEADLINE;

/// A well-behaved HTTP/2 connection.
pub(crate) struct H2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    /// Ends when the connection does.
    closed: tokio::task::JoinHandle<()>,
}

/// An answer whose body is read piece by piece.
pub(crate) struct Open {
    pub(crate) head: Response,
    body: RecvStream,
}

impl H2 {
    /// Connects; the config must offer `h2`.
    pub(crate) fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (send, closed) = runtime.block_on(timeout_at_deadline(async {
            let tcp = tokio::net::TcpStream::connect(to).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the edge chose h2");
            let (send, connection) = h2::client::handshake(tls).await.unwrap();
            (send, tokio::spawn(async move { drop(connection.await) }))
        }));
        Self { runtime, send, closed }
    }

    /// Sends a request whose body the test goes on to write.
    pub(crate) fn begin(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = self.block(self.send.clone().ready()).unwrap();
        let guard = self.runtime.enter();
        let out = send.send_request(request, end).unwrap();
        drop(guard);
        out
    }

    /// Waits for the head of an answer.
    pub(crate) fn head(&self, response: ResponseFuture) -> Result<Open, h2::Error> {
        let (parts, body) = self.block(response)?.into_parts();
        let headers = parts
            .headers
            .iter()
            .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        let head = Response {
            status: parts.status.as_u16(),
            version: "HTTP/2".to_owned(),
            headers,
            body: Vec::new(),
            complete: false,
            interim: Vec::new(),
        };
        Ok(Open { head, body })
    }

    /// Sends a request without a body; reads the head of its answer.
    pub(crate) fn open(&mut self, request: Request<()>) -> Open {
        let (response, _) = self.begin(request, true);
        self.head(response).unwrap()
    }

    /// A whole exchange.
    pub(crate) fn ask(&mut self, request: Request<()>, body: &[u8]) -> Result<Response, h2::Error> {
        let (response, mut stream) = self.begin(request, body.is_empty());
        if !body.is_empty() && stream.send_data(Bytes::copy_from_slice(body), true).is_err() {
            // refused by its head alone: the answer is there, and is what counts
        }
        let mut open = self.head(response)?;
        while let Some(part) = self.part(&mut open)? {
            open.head.body.extend_from_slice(&part);
        }
        open.head.complete = true;
        Ok(open.head)
    }

    /// The next DATA; `None` at a clean end.
    pub(crate) fn part(&self, open: &mut Open) -> Result<Option<Bytes>, h2::Error> {
        let part = self.block(open.body.data()).transpose()?;
        if let Some(part) = &part {
            open.body.flow_control().release_capacity(part.len())?;
        }
        Ok(part)
    }

    /// DATA until `n` bytes are together.
    pub(crate) fn parts(&self, open: &mut Open, n: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < n {
            let part = self.part(open).unwrap().expect("more data before the end");
            data.extend_from_slice(&part);
        }
        data
    }

    /// Waits until the edge ends the connection; we keep our handle, so that it is not us.
    pub(crate) fn wait_closed_by_peer(&mut self) {
        let closed = &mut self.closed;
        self.runtime
            .block_on(async { timeout(DEADLINE, closed).await })
            .expect("the connection ends")
            .unwrap();
    }

    fn block<T>(&self, f: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { timeout(DEADLINE, f).await })
            .expect("an h2 event before the deadline")
    }
}

async fn timeout_at_deadline<T>(f: impl Future<Output = T>) -> T {
    timeout(DEADLINE, f).await.expect("an h2 event before the deadline")
}

/// A request for `https://localhost<path>`.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::builder().method(method).uri(format!("https://localhost{path}"));
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

/// What came back for a hand-made stream 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response with this status.
    Status(u16),
    /// RST_STREAM with this error code.
    Reset(u32),
    /// GOAWAY with this error code, or the plain end of the connection (0).
    Gone(u32),
}

/// Sends one header block of literal fields, and DATA if given, as stream 1; waits for its outcome.
pub(crate) fn raw(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    fields: &[(&str, &str)],
    data: Option<&[u8]>,
) -> Outcome {
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let session =
        ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut tls = StreamOwned::new(session, tcp);
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut out, 4, 0, 0, &[]);
    let end = if data.is_none() { 1 } else { 0 };
    frame(&mut out, 1, 4 | end, 1, &block(fields));
    if let Some(data) = data {
        frame(&mut out, 0, 1, 1, data);
    }
    tls.write_all(&out).unwrap();
    loop {
        let mut head = [0; 9];
        if tls.read_exact(&mut head).is_err() {
            return Outcome::Gone(0);
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        tls.read_exact(&mut payload).unwrap();
        match (head[3], stream) {
            (1, 1) => return Outcome::Status(status(&payload)),
            (3, 1) => return Outcome::Reset(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            (7, 0) => return Outcome::Gone(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            _ => {}
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// RFC 7541 §6.2.2: literals without indexing, new names, no Huffman; nothing that needs a table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(u8::try_from(text.len()).unwrap());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// The `:status` that begins a response's header block: indexed (RFC 7541 appendix A) or a literal of its name.
fn status(block: &[u8]) -> u16 {
    // A dynamic table size update may stand first (RFC 7541 §6.3).
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    if block[0] & 0x80 != 0 {
        return indexed[usize::from(block[0] & 0x7f) - 8];
    }
    let huffman = block[1] & 0x80 != 0;
    let text = &block[2..2 + usize::from(block[1] & 0x7f)];
    if huffman { digits(text) } else { std::str::from_utf8(text).unwrap().parse().unwrap() }
}

/// Three Huffman-coded digits (RFC 7541 appendix B): `0` to `2` have five bits, the others six.
fn digits(coded: &[u8]) -> u16 {
    let bits: Vec<u8> =
        coded.iter().flat_map(|b| (0..8).rev().map(move |i| (b >> i) & 1)).collect();
    let take =
        |at: usize, n: usize| bits[at..at + n].iter().fold(0u16, |v, b| v * 2 + u16::from(*b));
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let five = take(at, 5);
        let digit = if five < 3 { five } else { take(at, 6) - 0b01_1001 + 3 };
        at += if five < 3 { 5 } else { 6 };
        value = value * 10 + digit;
    }
    value
}
