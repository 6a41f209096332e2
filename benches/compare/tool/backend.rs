//! A stand-in for an MCP server: in, HTTP/1.1 on keep-alive connections; out, fixed answers, event
//! streams, floods and WebSockets. One thread.
//!
//! `POST /mcp` 300 B, `POST /mcp/16k` 16 KiB (`initialize` gives a session id), `GET /sse?rate=N`
//! N time-stamped events a second after a first one at once (0: none), `GET /big` 1 MiB,
//! `GET /flood` events without end, as fast as they are taken, `GET /ws` a WebSocket that echoes.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::frames;
use crate::options::monotonic;

static SESSIONS: AtomicU64 = AtomicU64::new(1);
static STREAMS: AtomicU64 = AtomicU64::new(0);
static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Serves on all addresses, forever.
pub(crate) async fn serve(addresses: &[String]) {
    let mut tasks = Vec::new();
    for address in addresses {
        let listener = listen(address);
        println!("listening on {}", listener.local_addr().unwrap());
        tasks.push(tokio::spawn(accept(listener)));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

fn listen(address: &str) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address.parse().expect("an address")).expect("a free port");
    socket.listen(16_384).unwrap()
}

async fn accept(listener: TcpListener) {
    let small: &'static [u8] = answer(300, None).leak();
    let large: &'static [u8] = answer(16 * 1024, None).leak();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        socket.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            // The peer may leave at any time: that ends the connection and nothing else.
            drop(connection(socket, small, large).await);
        });
    }
}

/// A whole response whose body has `size` bytes of JSON-RPC.
fn answer(size: usize, session: Option<&str>) -> Vec<u8> {
    let (head, tail) = (
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""#,
        r#""}],"isError":false}}"#,
    );
    let body = format!("{head}{}{tail}", "x".repeat(size - head.len() - tail.len()));
    let session = session.map_or(String::new(), |id| format!("mcp-session-id: {id}\r\n"));
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{session}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn connection(mut socket: TcpStream, small: &[u8], large: &[u8]) -> std::io::Result<()> {
    let mut buf = Vec::with_capacity(2048);
    loop {
        let Some((head_len, body_len)) = read_head(&mut socket, &mut buf).await? else {
            return Ok(());
        };
        let initialize = read_body(&mut socket, &mut buf, head_len, body_len).await?;
        let line = &buf[..buf.iter().position(|b| *b == b'\r').unwrap_or(0)];
        match line {
            line if line.starts_with(b"GET /sse") => {
                let rate = rate_of(line);
                return events(socket, rate).await;
            }
            line if line.starts_with(b"GET /flood") => return flood(socket).await,
            line if line.starts_with(b"GET /ws") => {
                let head = String::from_utf8_lossy(&buf[..head_len]).into_owned();
                return echo(socket, &head, buf.split_off(head_len)).await;
            }
            line if line.starts_with(b"GET /big") => {
                socket.write_all(&answer(1024 * 1024, None)).await?;
            }
            _ if initialize => {
                let n = SESSIONS.fetch_add(1, Ordering::Relaxed);
                let id = format!("6f1c9d1e-7b1a-4f3e-9d59-{n:012x}");
                socket.write_all(&answer(300, Some(&id))).await?;
            }
            line if line.starts_with(b"POST /mcp/16k") => socket.write_all(large).await?,
            _ => socket.write_all(small).await?,
        }
        buf.drain(..(head_len + body_len).min(buf.len()));
    }
}

/// Lengths of the next head and of its body; `None` at a clean end.
async fn read_head(
    socket: &mut TcpStream,
    buf: &mut Vec<u8>,
) -> std::io::Result<Option<(usize, usize)>> {
    loop {
        if let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") {
            return Ok(Some((end + 4, content_length(&buf[..end + 2]))));
        }
        if socket.read_buf(buf).await? == 0 {
            return Ok(None);
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    for line in head.split(|b| *b == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            return std::str::from_utf8(&line[colon + 1..]).unwrap().trim().parse().unwrap();
        }
    }
    0
}

/// Reads the body after the head; large ones are thrown away. Whether it says `initialize`.
async fn read_body(
    socket: &mut TcpStream,
    buf: &mut Vec<u8>,
    head_len: usize,
    body_len: usize,
) -> std::io::Result<bool> {
    let wanted = head_len + body_len.min(64 * 1024);
    while buf.len() < wanted {
        if socket.read_buf(buf).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let (mut left, mut sink) = ((head_len + body_len).saturating_sub(buf.len()), vec![0; 65_536]);
    while left > 0 {
        let want = left.min(sink.len());
        match socket.read(&mut sink[..want]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => left -= n,
        }
    }
    let body = &buf[head_len..];
    Ok(memchr::memmem::find(&body[..body.len().min(200)], b"\"initialize\"").is_some())
}

fn rate_of(line: &[u8]) -> u64 {
    let line = std::str::from_utf8(line).unwrap_or_default();
    let rate = line.split_once("rate=").map(|(_, rest)| rest);
    rate.and_then(|r| r.split([' ', '&']).next()?.parse().ok()).unwrap_or(0)
}

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

async fn events(mut socket: TcpStream, rate: u64) -> std::io::Result<()> {
    let mut out = STREAM_HEAD.to_vec();
    out.extend(event());
    socket.write_all(&out).await?;
    if rate == 0 {
        // until the other side leaves
        while socket.read(&mut [0; 16]).await? > 0 {}
        return Ok(());
    }
    let mut ticks = interval_at(turn(rate), Duration::from_nanos(1_000_000_000 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        socket.write_all(&event()).await?;
    }
}

/// When a new stream's first tick is due: streams tick in turn, a millisecond (the timer's step) after one another, up to a
/// period. However fast a proxy opens them, as many of them as of another's tick at one moment, and so wake it as often.
fn turn(rate: u64) -> Instant {
    let steps = (1000 / rate).max(1);
    let step = STREAMS.fetch_add(1, Ordering::Relaxed) % steps;
    let gone = CLOCK.elapsed().as_millis() as u64;
    let period_ends = gone + steps - gone % steps;
    *CLOCK + Duration::from_millis(period_ends + step)
}

/// One event in a chunk of its own: when it was written, and text up to 150 bytes.
fn event() -> Vec<u8> {
    let data = format!(
        "event: message\ndata: {{\"t\":{},\"pad\":\"{}\"}}\n\n",
        monotonic(),
        "x".repeat(96)
    );
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

async fn flood(mut socket: TcpStream) -> std::io::Result<()> {
    socket.write_all(STREAM_HEAD).await?;
    let many: Vec<u8> = (0..64).flat_map(|_| event()).collect();
    loop {
        socket.write_all(&many).await?;
    }
}

/// Sends every message back as it came, but unmasked.
async fn echo(mut socket: TcpStream, head: &str, mut buf: Vec<u8>) -> std::io::Result<()> {
    assert!(frames::is_request(head), "no WebSocket is asked for: {head}");
    socket.write_all(frames::answer().as_bytes()).await?;
    let mut out = Vec::new();
    loop {
        while let Some((message, masked)) = frames::take(&mut buf) {
            assert!(masked, "a client's frames are masked");
            frames::write(&message, None, &mut out);
        }
        if !out.is_empty() {
            socket.write_all(&out).await?;
            out.clear();
        }
        if socket.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
}
