//! A request's body before a replica is chosen: in, a wire; out, a [`Body`], or why there is none.
//!
//! JSON is held whole, because it is read. Of all others the beginning is held, so that who sends slowly, or
//! leaves, costs the backends nothing; the rest streams.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method};
use tokio::time::Instant;

use super::exchange::Failure;
use crate::base::body::Pieces;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::io::{Late, within};
use crate::inspect;
use crate::limit::buffer::{Budget, Share};
use crate::listen::ConnCx;
use crate::listen::wire::{BodyError, BodySize, Wire};
use crate::route::Routed;

/// Of a body that streams, this much is gathered before a backend hears of it: what nginx gathers in
/// memory is less, and most bodies end within it.
const BEGINNING: usize = 64 * 1024;
/// Slower bodies than this, in bytes a second, end with the listener's `body_timeout`.
const MIN_RATE: u64 = 4096;

/// A body that is held, or the beginning of one, and its share of the buffer budget.
#[derive(Debug)]
pub struct Body {
    /// What is held.
    pub bytes: Bytes,
    /// What is not; `None` where all of it is.
    pub rest: Option<Rest>,
    _share: Share,
}

/// The part of a body that is still on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    /// The size of the whole body, with what is held.
    pub size: BodySize,
    /// How long its beginning took.
    pub spent: Duration,
}

impl Body {
    /// How it is framed for the backend.
    pub fn size(&self) -> BodySize {
        self.rest.map_or(BodySize::Known(self.bytes.len() as u64), |rest| rest.size)
    }
}

/// Reads a JSON body whole, so that a truncated one has no effect; leaves all others on the wire.
pub(super) async fn json<W: Wire>(
    wire: &mut W,
    head: &Head,
    routed: &Routed,
    cx: &ConnCx,
    budget: &Budget,
) -> Result<Option<Body>, Failure> {
    let size = wire.body_size();
    if size == BodySize::None || !is_readable(head)? {
        return Ok(None);
    }
    let limit = routed.route.body_limit;
    wire.limit_body(limit);
    if matches!(size, BodySize::Known(n) if n > limit) {
        return Err(too_large().into());
    }
    let mut held = Held::default();
    let all = async {
        while let Some(piece) = wire.body().await.map_err(unread)? {
            held.push(piece, budget)?;
        }
        Ok(())
    };
    match within(cx.listener.body_timeout, all).await {
        Ok(Ok(())) => Ok(Some(held.body(None))),
        Ok(Err(failure)) => Err(failure),
        Err(Late) => Err(too_slow().into()),
    }
}

/// Gathers the beginning of a body that streams: [`BEGINNING`], or all of it where it is no larger.
///
/// # Errors
/// The client left; 400 when its framing is broken, 408 when it is too slow, 503 when the buffer budget is
/// used up.
pub(super) async fn beginning<W: Wire>(
    wire: &mut W,
    timeout: Duration,
    budget: &Budget,
) -> Result<Body, Failure> {
    let (size, start) = (wire.body_size(), Instant::now());
    let mut held = Held::default();
    while held.pieces.len() < BEGINNING {
        let left = patience(timeout, wire).saturating_sub(start.elapsed());
        match within(left, wire.body()).await {
            Ok(Ok(Some(piece))) => held.push(piece, budget)?,
            Ok(Ok(None)) => return Ok(held.body(None)),
            Ok(Err(e)) => return Err(unread(e)),
            Err(Late) => return Err(too_slow().into()),
        }
    }
    Ok(held.body(Some(Rest { size, spent: start.elapsed() })))
}

/// The time for all of a body that streams: bounded in total, and never met by one at a bearable rate.
pub(super) fn patience<W: Wire>(timeout: Duration, wire: &W) -> Duration {
    timeout + Duration::from_secs(wire.counts().0 / MIN_RATE)
}

/// A body as it gathers, charged as it comes: a length that is only announced costs nothing.
#[derive(Default)]
struct Held {
    pieces: Pieces,
    share: Share,
}

impl Held {
    fn push(&mut self, piece: Bytes, budget: &Budget) -> Result<(), Failure> {
        let total = self.pieces.len() as u64 + piece.len() as u64;
        budget.grow(&mut self.share, total).map_err(Denial::closing)?;
        self.pieces.push(piece);
        Ok(())
    }

    fn body(self, rest: Option<Rest>) -> Body {
        Body { bytes: self.pieces.joined(), rest, _share: self.share }
    }
}

/// What the client is told of a body that could not be read, if it is there to be told.
pub(super) fn unread(error: BodyError) -> Failure {
    let denial = match error {
        BodyError::Gone => return Failure::ClientGone,
        BodyError::Malformed => {
            Denial::new(Reason::Malformed, "h1.chunked", "The chunked body is malformed")
        }
        BodyError::TooLarge => return too_large().into(),
    };
    denial.closing().into()
}

fn too_large() -> Denial {
    Denial::new(Reason::BodyTooLarge, "inspect.body_too_large", "The body is too large").closing()
}

/// 408 for a body.
pub(super) fn too_slow() -> Denial {
    Denial::new(Reason::TooSlow, "h1.slow_body", "The request body took too long").closing()
}

/// Whether the body is JSON that we can read; JSON that we cannot is refused, because a backend may.
fn is_readable(head: &Head) -> Result<bool, Denial> {
    let json = |v: &HeaderValue| v.to_str().is_ok_and(inspect::is_json);
    let types = head.headers.get_all(CONTENT_TYPE);
    // nearly every call, told in a few steps
    let mut plain = types.iter();
    if head.method == Method::POST
        && plain.next().is_some_and(|kind| kind == "application/json")
        && plain.next().is_none()
        && !head.headers.contains_key(CONTENT_ENCODING)
    {
        return Ok(true);
    }
    if head.method == Method::GET || !types.iter().any(json) {
        return Ok(false);
    }
    let unsupported = |code, message| Denial::new(Reason::Unsupported, code, message).closing();
    let coded = |v: &HeaderValue| !v.as_bytes().eq_ignore_ascii_case(b"identity");
    if head.headers.get_all(CONTENT_ENCODING).iter().any(coded) {
        return Err(unsupported("inspect.coded", "A JSON body must not be coded"));
    }
    let mut types = types.iter();
    let first = types.next().and_then(|v| v.to_str().ok()).unwrap_or_default();
    if types.next().is_some() || !is_utf8(first) {
        return Err(unsupported("inspect.charset", "A JSON body must be UTF-8"));
    }
    Ok(true)
}

fn is_utf8(content_type: &str) -> bool {
    content_type.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            ["utf-8", "utf8", "us-ascii"].iter().any(|c| value.eq_ignore_ascii_case(c))
        }
        _ => true,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::listen::wire::{Answer, Payload};
    use std::collections::VecDeque;
    use std::io;
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::time::sleep;

    /// A client that sends these many bytes, each after so many milliseconds, and then nothing.
    pub(in crate::proxy) struct Slow {
        pieces: VecDeque<(u64, Bytes)>,
        sent: u64,
        end: bool,
        leaves: Option<Duration>,
    }

    impl Slow {
        pub(in crate::proxy) fn new(pieces: &[(u64, usize)], end: bool) -> Self {
            let piece = |&(pause, size): &(u64, usize)| (pause, Bytes::from(vec![b'x'; size]));
            Self { pieces: pieces.iter().map(piece).collect(), sent: 0, end, leaves: None }
        }

        /// One that says all at once, and waits for its answer for so long.
        pub(in crate::proxy) fn leaving(body: &'static str, after: Duration) -> Self {
            let pieces = [(0, Bytes::from_static(body.as_bytes()))].into();
            Self { pieces, sent: 0, end: true, leaves: Some(after) }
        }
    }

    impl Wire for Slow {
        fn body_size(&self) -> BodySize {
            BodySize::Unknown
        }
        fn limit_body(&mut self, _: u64) {}
        async fn body(&mut self) -> Result<Option<Bytes>, BodyError> {
            let Some(&(pause, _)) = self.pieces.front() else {
                if !self.end {
                    std::future::pending::<()>().await;
                }
                return Ok(None);
            };
            sleep(Duration::from_millis(pause)).await;
            let piece = self.pieces.pop_front().map(|(_, piece)| piece).unwrap_or_default();
            self.sent += piece.len() as u64;
            Ok(Some(piece))
        }
        async fn gone(&mut self) {
            match self.leaves {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
        }
        async fn answer(&mut self, _: Answer, _: Payload) -> io::Result<()> {
            Ok(())
        }
        async fn data(&mut self, _: Bytes, _: bool) -> io::Result<()> {
            Ok(())
        }
        async fn abort(&mut self) {}
        async fn splice<S: AsyncRead + AsyncWrite + Unpin + Send>(
            &mut self,
            _: &mut S,
            _: impl Future<Output = u16> + Send,
        ) -> io::Result<()> {
            Ok(())
        }
        fn close_after(&mut self) {}
        fn counts(&self) -> (u64, u64) {
            (self.sent, 0)
        }
    }

    pub(in crate::proxy) async fn begun(wire: &mut Slow, timeout: u64) -> Result<Body, Failure> {
        beginning(wire, Duration::from_secs(timeout), &Budget::new(1 << 20)).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_is_64_kibibytes_or_all() {
        for (pieces, end, held, more) in [
            (&[][..], true, 0, false),
            (&[(0, 1), (900, 65_534)], true, 65_535, false),
            (&[(0, 1), (900, 65_535)], false, 65_536, true),
            (&[(0, 65_000), (900, 16_000), (0, 9)], false, 81_000, true),
        ] {
            let body = begun(&mut Slow::new(pieces, end), 1).await.unwrap();
            assert_eq!((body.bytes.len(), body.rest.is_some()), (held, more), "{pieces:?}");
            let size = if more { BodySize::Unknown } else { BodySize::Known(held as u64) };
            assert_eq!(body.size(), size);
            if let Some(rest) = body.rest {
                assert_eq!(rest.spent.as_millis() / 10, 90);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn its_time_is_bounded_in_total_and_grows_with_what_has_come() {
        let start = Instant::now();
        let drip = [(900, 1); 20];
        let late = begun(&mut Slow::new(&drip, true), 5).await.unwrap_err();
        assert!(matches!(late, Failure::Denied(denial, _) if denial.code == "h1.slow_body"));
        assert_eq!(start.elapsed().as_secs(), 5, "not five for each");
        let bearable = [(900, 4096); 15];
        assert!(begun(&mut Slow::new(&bearable, true), 5).await.is_ok());
    }
}
