//! The relay of a long answer: in, a backend's connection and a client's wire; out, a `Tally`.
//!
//! Every piece leaves as it comes, and the next is read only when the wire has taken it. What waits
//! here for hours is small: two sockets, a timer and a few words of scanner.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep_until};

pub use super::events::{Events, Map};
use super::passed::Passed;
use super::tools::Refused;
use crate::base::io::reached;
use crate::forward::conn::BackendConn;
use crate::listen::wire::Wire;

/// Bytes that are joined into one write when they are here already.
const MAX_JOINED: usize = 64 * 1024;
/// Tells a client of a stream that ends with the edge to come back at once.
const RETRY: &[u8] = b"retry: 500\n\n";
/// A silence that is noticed within this time is early enough to have the system probe the backend. Not at the
/// start: it takes four system calls, and most streams are never silent so long.
const SOON: Duration = Duration::from_secs(60);
/// So long an answer that always has bytes may keep whatever else ends it from being looked at.
const TURN: Duration = Duration::from_millis(100);
/// How long an event may take to end where the stream should have ended already.
pub const UNTIL_BORDER: Duration = Duration::from_secs(5);
/// The same where the caller may not go on: with the time until that is noticed, no more than 5 s in all.
const REVOKED_BORDER: Duration = Duration::from_secs(3);

/// A long answer.
pub struct Flow {
    /// Where it comes from.
    pub conn: BackendConn,
    /// What is known of its bytes.
    pub kind: Kind,
    /// Bytes of the body that came with the head.
    pub pending: Bytes,
    /// How long a backend may be silent in a body that is no event stream.
    pub patience: Duration,
    /// When it ends whatever comes, because its caller's token has: between two events, or
    /// [`UNTIL_BORDER`] later. `None`: with the answer.
    pub until: Option<Instant>,
    /// Comments put in so far.
    pub comments: u64,
}

/// What is known of an answer's bytes.
pub enum Kind {
    /// Nothing: they pass.
    Opaque,
    /// They are an uncoded event stream.
    Events(Box<Events>),
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the end of the answer.
    Complete,
    /// The client left.
    ClientGone,
    /// The client took nothing for too long.
    ClientStalled,
    /// The backend broke off: the connection failed, ended early, or its framing is broken.
    BackendBroke(io::ErrorKind),
    /// The backend said nothing for too long.
    BackendSilent,
    /// The backend announced an endpoint that is not its own.
    BadEndpoint,
    /// A list of tools, or what could be one, cannot go on.
    BadList(Refused),
    /// The edge stops.
    Drained,
    /// The caller's token has expired.
    Expired,
    /// The caller may not go on; why is known elsewhere.
    Revoked,
}

/// What went through.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    /// How it ended.
    pub end: End,
    /// Events seen.
    pub events: u64,
    /// Comments put in.
    pub comments: u64,
    /// The code of the JSON-RPC error that the answer was, as far as it was seen.
    pub rpc_error: Option<i32>,
}

enum Happened {
    Piece(io::Result<Option<Bytes>>),
    Gone,
    Time,
    Drain,
    Revoked,
}

impl Flow {
    /// Relays to the end, and counts into `passed` what goes through. The answer's head has been sent, or waits for the first piece. What is
    /// needed only while a piece passes is boxed, so that a silent stream does not hold it.
    pub async fn run<W: Wire>(
        &mut self,
        wire: &mut W,
        passed: &Passed,
        mut draining: Pin<&mut (impl Future<Output = ()> + Send)>,
        mut revoked: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Tally {
        let period = self.silence();
        let mut last = Instant::now();
        // one timer for both: a silent stream is to be small
        let (mut expired, mut wake) = (None, self.wake(last, false));
        let mut timer = std::pin::pin!(sleep_until(wake.unwrap_or(last)));
        let (mut stopping, mut whole) = (!self.may_be_cut(), false);
        let mut probed = period.is_none_or(|period| period > SOON);
        if probed {
            self.conn.probe();
        }
        let (mut end, mut asked) = (None, last);
        while end.is_none() {
            let pending = std::mem::take(&mut self.pending);
            let mut happened = (!pending.is_empty()).then_some(Happened::Piece(Ok(Some(pending))));
            // while there is always a piece nobody else would be asked, which is what it costs to ask with each
            if happened.is_none() && last.duration_since(asked) > TURN {
                asked = last;
                happened = tokio::select! {
                    biased;
                    () = &mut revoked, if expired != Some(End::Revoked) => Some(Happened::Revoked),
                    () = &mut draining, if !stopping => Some(Happened::Drain),
                    () = &mut timer, if wake.is_some() => Some(Happened::Time),
                    () = std::future::ready(()) => None,
                };
            }
            let happened = match happened {
                Some(happened) => happened,
                None => tokio::select! {
                    biased;
                    piece = self.conn.body() => Happened::Piece(piece),
                    () = wire.gone() => Happened::Gone,
                    () = &mut timer, if wake.is_some() => Happened::Time,
                    () = &mut draining, if !stopping => Happened::Drain,
                    () = &mut revoked, if expired != Some(End::Revoked) => Happened::Revoked,
                },
            };
            match happened {
                Happened::Gone => end = Some(End::ClientGone),
                Happened::Piece(Err(e)) => end = Some(End::BackendBroke(e.kind())),
                Happened::Piece(Ok(piece)) => {
                    let bounds = Bounds { by: self.until.map(|u| u + UNTIL_BORDER), expired };
                    let taken = bounds.keep(self.pass(wire, passed, piece), revoked.as_mut());
                    let (ended, since) = Box::pin(taken).await;
                    (end, last) = (ended, Instant::now());
                    if let Some(since) = since {
                        (expired, wake) = (Some(End::Revoked), self.revoked(since, last));
                        timer.as_mut().reset(wake.unwrap_or(last));
                    }
                }
                Happened::Drain => stopping = true,
                Happened::Revoked => {
                    (expired, wake) = (Some(End::Revoked), self.revoked(Instant::now(), last));
                    timer.as_mut().reset(wake.unwrap_or(last));
                }
                Happened::Time => {
                    let now = Instant::now();
                    if !std::mem::replace(&mut probed, true) {
                        self.conn.probe();
                    }
                    let over = |after| self.until.is_some_and(|until| now >= until + after);
                    end = expired.filter(|_| over(UNTIL_BORDER));
                    if over(Duration::ZERO) {
                        expired.get_or_insert(End::Expired);
                    }
                    // the timer is not moved with every event: it is cheaper to look when it fires
                    if end.is_none() && period.is_some_and(|period| now - last >= period) {
                        end = Box::pin(self.comment(wire, passed)).await;
                        last = Instant::now();
                    }
                    wake = self.wake(last, expired.is_some());
                    timer.as_mut().reset(wake.unwrap_or(last));
                }
            }
            let drained = (stopping && self.may_be_cut()).then_some(End::Drained);
            let why = expired.or(drained);
            if let (None, Some(why), true) = (end, why, self.between_events()) {
                // whoever may not go on is not asked to come back
                let word: &[u8] = if why == End::Revoked { b"" } else { RETRY };
                let word = wire.data(Bytes::from_static(word), true);
                let by = expired.map(|_| Instant::now() + REVOKED_BORDER);
                let sent = Box::pin(async {
                    tokio::select! {
                        biased;
                        sent = word => sent,
                        () = reached(by) => Err(io::ErrorKind::TimedOut.into()),
                    }
                });
                let sent = sent.await;
                whole = sent.is_ok();
                end = Some(finish(sent, why));
            }
        }
        let end = end.unwrap_or(End::Complete);
        if !whole && end != End::Complete {
            Box::pin(wire.abort()).await;
        }
        let rpc_error = match &self.kind {
            Kind::Opaque => None,
            Kind::Events(events) => events.error,
        };
        Tally { end, events: self.events(), comments: self.comments, rpc_error }
    }

    /// Events seen so far.
    pub fn events(&self) -> u64 {
        match &self.kind {
            Kind::Opaque => 0,
            Kind::Events(events) => events.scanner.events(),
        }
    }

    /// Its caller may not go on since then; when to look next.
    fn revoked(&mut self, since: Instant, last: Instant) -> Option<Instant> {
        self.until = since.checked_sub(UNTIL_BORDER - REVOKED_BORDER).or(Some(since));
        self.wake(last, true)
    }

    /// After how long a silence something has to be done.
    fn silence(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Opaque => Some(self.patience),
            Kind::Events(events) => events.keepalive,
        }
    }

    /// When there is something to do though nothing has happened.
    fn wake(&self, last: Instant, expired: bool) -> Option<Instant> {
        let silent = self.silence().map(|period| last + period);
        let until = self.until.map(|until| if expired { until + UNTIL_BORDER } else { until });
        silent.into_iter().chain(until).min()
    }

    fn may_be_cut(&self) -> bool {
        matches!(&self.kind, Kind::Events(events) if events.cut)
    }

    fn between_events(&self) -> bool {
        matches!(&self.kind, Kind::Events(events) if events.scanner.at_boundary())
    }

    async fn comment<W: Wire>(&mut self, wire: &mut W, passed: &Passed) -> Option<End> {
        let Kind::Events(events) = &mut self.kind else { return Some(End::BackendSilent) };
        let comment = events.scanner.comment()?;
        if !events.scanner.started() {
            events.bom.get_or_insert_default();
        }
        self.comments += 1;
        passed.put_in_a_comment();
        wire.data(Bytes::from_static(comment), false).await.err().map(|e| left(&e))
    }

    /// Passes a piece on, and what is here already behind it; `Some` at the end.
    async fn pass<W: Wire>(
        &mut self,
        wire: &mut W,
        passed: &Passed,
        first: Option<Bytes>,
    ) -> Option<End> {
        let Some(first) = first else { return Some(self.complete(wire, Bytes::new()).await) };
        let (joined, last) = match self.join(first) {
            Ok(joined) => joined,
            Err(e) => return Some(End::BackendBroke(e.kind())),
        };
        let out = match &mut self.kind {
            Kind::Opaque => joined,
            Kind::Events(events) => match events.pass(joined, passed) {
                Ok(out) => out,
                Err(end) => return Some(end),
            },
        };
        if last {
            return Some(self.complete(wire, out).await);
        }
        // sent even if it is empty: the answer's head may be waiting for it
        wire.data(out, false).await.err().map(|e| left(&e))
    }

    fn join(&mut self, first: Bytes) -> io::Result<(Bytes, bool)> {
        let mut joined: Option<BytesMut> = None;
        let mut size = first.len();
        while size < MAX_JOINED {
            match self.conn.buffered()? {
                None => break,
                Some(None) => return Ok((joined.map_or(first, BytesMut::freeze), true)),
                Some(Some(more)) => {
                    size += more.len();
                    joined
                        .get_or_insert_with(|| BytesMut::from(first.as_ref()))
                        .extend_from_slice(&more);
                }
            }
        }
        Ok((joined.map_or(first, BytesMut::freeze), false))
    }

    async fn complete<W: Wire>(&mut self, wire: &mut W, rest: Bytes) -> End {
        let rest = match &mut self.kind {
            Kind::Opaque => rest,
            Kind::Events(events) => match events.finish(rest) {
                Ok(rest) => rest,
                Err(refused) => return End::BadList(refused),
            },
        };
        finish(wire.data(rest, true).await, End::Complete)
    }
}

/// For how long a client may take a piece.
struct Bounds {
    /// Then the answer is over, whoever takes it; absent, the wire's own bound is the only one.
    by: Option<Instant>,
    /// Why it is, as far as that is known.
    expired: Option<End>,
}

impl Bounds {
    /// Has a piece taken: how that ended, if it was the end, and since when its caller may not go on, if that was
    /// told meanwhile.
    async fn keep(
        mut self,
        passing: impl Future<Output = Option<End>>,
        mut revoked: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> (Option<End>, Option<Instant>) {
        let mut passing = std::pin::pin!(passing);
        let mut since = None;
        loop {
            tokio::select! {
                biased;
                end = &mut passing => return (end, since),
                () = &mut revoked, if self.expired != Some(End::Revoked) => {
                    let now = Instant::now();
                    (self.expired, since) = (Some(End::Revoked), Some(now));
                    let by = now + REVOKED_BORDER;
                    self.by = Some(self.by.map_or(by, |before| before.min(by)));
                }
                () = reached(self.by) => return (self.expired.or(Some(End::Expired)), since),
            }
        }
    }
}

fn finish(sent: io::Result<()>, end: End) -> End {
    sent.err().map_or(end, |e| left(&e))
}

fn left(e: &io::Error) -> End {
    if e.kind() == io::ErrorKind::TimedOut { End::ClientStalled } else { End::ClientGone }
}
