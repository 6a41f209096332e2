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
use crate::forward::conn::BackendConn;
use crate::listen::wire::Wire;

/// Bytes that are joined into one write when they are here already.
const MAX_JOINED: usize = 64 * 1024;
/// Tells a client of a stream that ends with the edge to come back at once.
const RETRY: &[u8] = b"retry: 500\n\n";
/// A silence that is noticed within this time is early enough to have the system probe the backend. Not at the
/// start: it takes four system calls, and most streams are never silent so long.
const SOON: Duration = Duration::from_secs(60);
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
        let mut end = match std::mem::take(&mut self.pending) {
            pending if pending.is_empty() => None,
            pending => Box::pin(self.pass(wire, passed, Some(pending))).await,
        };
        while end.is_none() {
            let happened = tokio::select! {
                biased;
                piece = self.conn.body() => Happened::Piece(piece),
                () = wire.gone() => Happened::Gone,
                () = &mut timer, if wake.is_some() => Happened::Time,
                () = &mut draining, if !stopping => Happened::Drain,
                () = &mut revoked, if expired != Some(End::Revoked) => Happened::Revoked,
            };
            match happened {
                Happened::Gone => end = Some(End::ClientGone),
                Happened::Piece(Err(e)) => end = Some(End::BackendBroke(e.kind())),
                Happened::Piece(Ok(piece)) => {
                    end = Box::pin(self.pass(wire, passed, piece)).await;
                    last = Instant::now();
                }
                Happened::Drain => stopping = true,
                Happened::Revoked => {
                    expired = Some(End::Revoked);
                    let now = Instant::now();
                    self.until = now.checked_sub(UNTIL_BORDER - REVOKED_BORDER).or(Some(now));
                    wake = self.wake(last, true);
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
                let sent = Box::pin(wire.data(Bytes::from_static(RETRY), true)).await;
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

fn finish(sent: io::Result<()>, end: End) -> End {
    sent.err().map_or(end, |e| left(&e))
}

fn left(e: &io::Error) -> End {
    if e.kind() == io::ErrorKind::TimedOut { End::ClientStalled } else { End::ClientGone }
}
