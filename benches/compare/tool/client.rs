//! Connections to a proxy: in, a URL and options; out, request and answer over HTTP/1.1, TLS or HTTP/2.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};

use crate::options::Options;

/// Either kind of connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Where to, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) session: Option<String>,
    /// Bytes of the socket's receive buffer, 0 for the system's choice.
    pub(crate) receive_buffer: u32,
}

impl Target {
    /// From `--to URL`, `--ca FILE`, `--session ID`, `--resume no` and `--alpn h2`.
    pub(crate) fn new(options: &Options) -> Self {
        let (scheme, rest) = options.text("to").split_once("://").expect("a URL");
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        let tls = (scheme == "https").then(|| TlsConnector::from(Arc::new(config(options))));
        Self {
            tls,
            authority: authority.to_owned(),
            path: if path.is_empty() { "/".into() } else { path.into() },
            session: options.get("session").map(str::to_owned),
            receive_buffer: 0,
        }
    }

    /// A new connection, and whether its TLS session was resumed.
    pub(crate) async fn connect(&self) -> std::io::Result<(Box<dyn Io>, bool)> {
        let socket = TcpSocket::new_v4()?;
        if self.receive_buffer > 0 {
            socket.set_recv_buffer_size(self.receive_buffer)?;
        }
        let stream = socket.connect(self.authority.parse().expect("ip:port")).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok((Box::new(stream), false)) };
        let name = ServerName::try_from("localhost").unwrap();
        let stream: TlsStream<_> = tls.connect(name, stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((Box::new(stream), resumed))
    }

    /// The bytes of a GET for events.
    pub(crate) fn get(&self) -> Vec<u8> {
        format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n{}\r\n",
            self.path,
            self.authority,
            self.session_line()
        )
        .into_bytes()
    }

    /// The bytes of a GET for a WebSocket.
    pub(crate) fn upgrade(&self) -> Vec<u8> {
        format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\n{}{}\r\n",
            self.path,
            self.authority,
            crate::frames::request_lines(),
            self.session_line()
        )
        .into_bytes()
    }

    /// The bytes of a POST.
    pub(crate) fn post(&self, body: &str) -> Vec<u8> {
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n{}content-length: {}\r\n\r\n{body}",
            self.path,
            self.authority,
            self.session_line(),
            body.len()
        )
        .into_bytes()
    }

    fn session_line(&self) -> String {
        self.session.as_ref().map_or(String::new(), |id| {
            format!("mcp-session-id: {id}\r\nmcp-protocol-version: 2025-06-18\r\n")
        })
    }
}

fn config(options: &Options) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(options.text("ca")).expect("a certificate")).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    if options.get("resume") == Some("no") {
        config.resumption = Resumption::disabled();
    }
    if let Some(alpn) = options.get("alpn") {
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    }
    config
}

/// Sends a request and reads the whole answer; its head. The answer must say its length.
pub(crate) async fn exchange(io: &mut dyn Io, request: &[u8]) -> std::io::Result<String> {
    io.write_all(request).await?;
    io.flush().await?;
    let mut buf = Vec::with_capacity(4096);
    let (head, end) = read_head(io, &mut buf).await?;
    let length = header(&head, "content-length").expect("a length").parse::<usize>().unwrap();
    let mut left = (end + length).saturating_sub(buf.len());
    let mut sink = vec![0; 65_536.min(left.max(1))];
    while left > 0 {
        let n = io.read(&mut sink).await?;
        assert!(n > 0, "the answer was cut");
        left = left.saturating_sub(n);
    }
    Ok(head)
}

/// Reads up to the end of a head with status 200; the head and its length. The rest stays in `buf`.
pub(crate) async fn read_head(
    io: &mut dyn Io,
    buf: &mut Vec<u8>,
) -> std::io::Result<(String, usize)> {
    let (head, end) = read_any_head(io, buf).await?;
    assert!(head.starts_with("HTTP/1.1 200"), "refused: {head}");
    Ok((head, end))
}

/// The same with any status.
pub(crate) async fn read_any_head(
    io: &mut dyn Io,
    buf: &mut Vec<u8>,
) -> std::io::Result<(String, usize)> {
    loop {
        if let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buf[..end]).into_owned();
            return Ok((head, end + 4));
        }
        if io.read_buf(buf).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A header's value.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value.trim()))
}
