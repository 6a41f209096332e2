//! One exchange with a backend: in, a request's bytes; out, the answer's head and pieces of its body.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use tokio::time::Instant;

use super::connect::{self, BackendStream};
use super::head::{self, MAX_HEAD, ResponseHead, Rubbish};
use super::pool::{Stage, Unused};
use crate::base::alarm::Alarm;
use crate::base::body::{BodyReader, Buffered};
use crate::base::io::{fill, write_all};

/// Interim answers (1xx) before the final one.
const MAX_INTERIM: u32 = 16;
/// How long a backend may take nothing of a request.
const SEND_STALL: Duration = Duration::from_secs(60);

/// A connection with a request on it.
#[derive(Debug)]
pub struct BackendConn {
    stream: BackendStream,
    alarm: Alarm,
    ahead: BytesMut,
    body: BodyReader,
    keep_alive: bool,
    spoilt: bool,
    stage: Stage,
    /// Whether it carried a request before: only then can it have been closed unnoticed.
    pub reused: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The connection ended before the first byte of one.
    Closed,
    /// It ended or failed in the middle of the head.
    Broken(io::Error),
    /// The bytes are not an answer.
    Rubbish(&'static str),
    /// There was none in time.
    Late,
}

impl BackendConn {
    /// A connection that is ready for a request.
    pub fn new(unused: Unused, reused: bool) -> Self {
        let Unused { stream, alarm, stage } = unused;
        let (ahead, body) = (BytesMut::new(), BodyReader::Done);
        Self { stream, alarm, ahead, body, keep_alive: false, spoilt: false, stage, reused }
    }

    /// [`BackendConn::head`], for `limit` at most. Cancel safe.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn head_within(
        &mut self,
        method: &Method,
        limit: Duration,
    ) -> Result<ResponseHead, NoAnswer> {
        let mut alarm = std::mem::take(&mut self.alarm);
        let mut waiting = false;
        let answer = {
            let mut head = pin!(self.head(method));
            let answer = poll_fn(|cx| {
                if let Poll::Ready(answer) = head.as_mut().poll(cx) {
                    return Poll::Ready(answer);
                }
                if !std::mem::replace(&mut waiting, true) {
                    alarm.set(Instant::now() + limit);
                }
                alarm.poll(cx).map(|()| Err(NoAnswer::Late))
            });
            answer.await
        };
        self.alarm = alarm;
        answer
    }

    /// A long answer has begun: the timer goes.
    pub fn rest(&mut self) {
        self.alarm.rest();
    }

    /// Writes bytes of the request.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self.stage {
            Stage::New => {
                let sent = connect::send_at_once(&self.stream, bytes);
                bytes = bytes.get(sent..).unwrap_or_default();
                self.stage = Stage::Sent;
            }
            Stage::Sent => self.hurry()?,
            Stage::Hurried => {}
        }
        write_all(&mut self.stream, bytes, SEND_STALL).await
    }

    fn hurry(&mut self) -> io::Result<()> {
        self.stage = Stage::Hurried;
        connect::hurry(&self.stream)
    }

    /// Finds out within minutes about a backend that vanishes behind a silent answer. To be called once it has
    /// been silent: most need it never.
    pub fn probe(&self) {
        if let Err(e) = connect::probe(&self.stream) {
            log::debug!("a connection to a backend cannot be probed: {e}");
        }
    }

    /// Reads the head of the final answer, or of a 101; other interim ones are dropped. Cancel safe.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn head(&mut self, method: &Method) -> Result<ResponseHead, NoAnswer> {
        let (mut seen, mut interim) = (0, 0);
        loop {
            let found = head::find_end(&self.ahead, &mut seen);
            if let Some(end) = found.map_err(|Rubbish(why)| NoAnswer::Rubbish(why))? {
                let raw = self.ahead.split_to(end).freeze();
                let parsed =
                    head::parse(&raw, method).map_err(|Rubbish(why)| NoAnswer::Rubbish(why))?;
                if parsed.status >= 200 || parsed.status == 101 {
                    self.body = parsed.body;
                    self.keep_alive = parsed.keep_alive;
                    if self.ahead.is_empty() {
                        self.ahead = BytesMut::new();
                    }
                    return Ok(parsed);
                }
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(NoAnswer::Rubbish("there are too many interim answers"));
                }
                seen = 0;
                continue;
            }
            let empty = self.ahead.is_empty();
            if self.ahead.len() > MAX_HEAD {
                return Err(NoAnswer::Rubbish("the answer head is too large"));
            }
            match fill(&mut self.stream, &mut self.ahead).await {
                Ok(n) if n > 0 => {}
                Ok(_) if empty => return Err(NoAnswer::Closed),
                Ok(_) => return Err(NoAnswer::Broken(io::ErrorKind::UnexpectedEof.into())),
                Err(_) if empty => return Err(NoAnswer::Closed),
                Err(e) => return Err(NoAnswer::Broken(e)),
            }
        }
    }

    /// The next piece of the answer's body; `None` at its end. Cancel safe.
    ///
    /// # Errors
    /// The connection failed, ended early, or the framing is broken.
    pub async fn body(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(piece) = self.buffered()? {
                return Ok(piece);
            }
            if fill(&mut self.stream, &mut self.ahead).await? == 0 {
                if self.body.ends_with_connection() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// What is already here of the body: `Some(None)` at its end, `None` when more must be read.
    ///
    /// # Errors
    /// Broken framing.
    pub fn buffered(&mut self) -> io::Result<Option<Option<Bytes>>> {
        match self.body.next(&mut self.ahead) {
            Ok(Buffered::Piece(piece)) => Ok(Some(Some(piece))),
            Ok(Buffered::End) => Ok(Some(None)),
            Ok(Buffered::More) => Ok(None),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "broken chunked coding")),
        }
    }

    /// The backend still waits for bytes of a request: no other may follow on this connection.
    pub fn spoil(&mut self) {
        self.spoilt = true;
    }

    /// The stream, and the bytes that were read behind the head: for another protocol.
    pub fn parts(&mut self) -> (&mut BackendStream, BytesMut) {
        if let Err(e) = self.hurry() {
            log::debug!("a connection to a backend will be slow: {e}");
        }
        self.probe();
        (&mut self.stream, std::mem::take(&mut self.ahead))
    }

    /// The connection without its exchange, if it can carry another.
    pub fn into_reusable(self) -> Option<Unused> {
        (self.keep_alive && !self.spoilt && self.body.is_done() && self.ahead.is_empty())
            .then_some(Unused { stream: self.stream, alarm: self.alarm, stage: self.stage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_util::either::Either;

    use crate::forward::connect::Target;

    #[tokio::test]
    async fn a_socket_gets_its_options_when_they_matter() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![listener.local_addr().unwrap()];
        let target = Target::new(addresses, None, Duration::from_secs(10));
        let mut conn = BackendConn::new(target.connect().await.unwrap().into(), false);
        let (mut backend, _) = listener.accept().await.unwrap();
        let options = |conn: &BackendConn| {
            let Either::Left(tcp) = &conn.stream else { panic!("TLS unasked") };
            (tcp.nodelay().unwrap(), SockRef::from(tcp).keepalive().unwrap())
        };
        conn.send(b"one").await.unwrap();
        assert_eq!(options(&conn), (false, false));
        conn.send(b"two").await.unwrap();
        assert_eq!(options(&conn), (true, false));
        conn.probe();
        assert_eq!(options(&conn), (true, true));
        // more than a socket takes at once
        let large = vec![b'x'; 8 << 20];
        let mut read = vec![0; 6 + large.len()];
        conn.stage = Stage::New;
        let (sent, all) = tokio::join!(conn.send(&large), backend.read_exact(&mut read));
        sent.unwrap();
        all.unwrap();
        assert!(read.starts_with(b"onetwox") && read.ends_with(b"x"));
    }
}
