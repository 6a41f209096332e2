//! The relay of a long answer: in, a backend's connection and a client's wire; out, a `Tally`.
//!
//! Every piece leaves as it comes, and the next is read only when the wire has taken it. What waits
//! here for hours is small: two sockets, a timer and a few words of scanner.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep, sleep_until};

use super::course::{Course, REVOKED_BORDER, UNTIL_BORDER};
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
    /// five seconds later. `None`: with the answer.
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
    /// Relays to the end, and counts into `passed` what goes through. The answer's head has been sent, or waits for
    /// the first piece. What is needed only while something passes is boxed, so that a silent stream does not hold it.
    pub async fn run<W: Wire>(
        &mut self,
        wire: &mut W,
        passed: &Passed,
        mut draining: Pin<&mut (impl Future<Output = ()> + Send)>,
        mut revoked: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Tally {
        let mut course = self.begin();
        let mut timer = std::pin::pin!(sleep_until(course.wake.unwrap_or(course.last)));
        let end = loop {
            if let Some(why) = self.is_over(&course) {
                match Box::pin(say_last(wire, why, course.expired.is_some())).await {
                    Ok(()) => return self.tally(why),
                    Err(e) => break left(&e),
                }
            }
            let at_hand = self.at_hand(&mut course, timer.as_mut(), &mut draining, &mut revoked);
            let happened = if let Some(happened) = at_hand.await {
                happened
            } else {
                tokio::select! {
                    biased;
                    piece = self.conn.body() => Happened::Piece(piece),
                    () = wire.gone() => Happened::Gone,
                    () = &mut timer, if course.wake.is_some() => Happened::Time,
                    () = &mut draining, if !course.stopping => Happened::Drain,
                    () = &mut revoked, if !course.is_revoked() => Happened::Revoked,
                }
            };
            let mut end = None;
            match happened {
                Happened::Gone => end = Some(End::ClientGone),
                Happened::Piece(Err(e)) => end = Some(End::BackendBroke(e.kind())),
                Happened::Piece(Ok(piece)) => {
                    let bounds = course.bounds(self.until);
                    let taken = bounds.keep(self.pass(wire, passed, piece), revoked.as_mut());
                    let (ended, since) = Box::pin(taken).await;
                    (end, course.last) = (ended, Instant::now());
                    if let Some(since) = since {
                        self.revoke(since, &mut course);
                    }
                }
                Happened::Time => end = Box::pin(self.look(wire, passed, &mut course)).await,
                Happened::Drain => course.stopping = true,
                Happened::Revoked => self.revoke(Instant::now(), &mut course),
            }
            course.set(timer.as_mut());
            if let Some(end) = end {
                break end;
            }
        };
        if end != End::Complete {
            Box::pin(wire.abort()).await;
        }
        self.tally(end)
    }

    /// It begins now. The backend is probed from the start where it is never asked for a sign of life before long.
    fn begin(&self) -> Course {
        let now = Instant::now();
        let probed = self.silence().is_none_or(|period| period > SOON);
        if probed {
            self.conn.probe();
        }
        Course::new(self.wake(now, false), !self.may_be_cut(), probed, now)
    }

    /// What has happened already: the piece that came with the head; and from time to time, while there is always
    /// a piece, what others have to say.
    async fn at_hand(
        &mut self,
        course: &mut Course,
        timer: Pin<&mut Sleep>,
        draining: &mut Pin<&mut (impl Future<Output = ()> + Send)>,
        revoked: &mut Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Option<Happened> {
        if !self.pending.is_empty() {
            return Some(Happened::Piece(Ok(Some(std::mem::take(&mut self.pending)))));
        }
        if !course.takes_turn() {
            return None;
        }
        tokio::select! {
            biased;
            () = revoked, if !course.is_revoked() => Some(Happened::Revoked),
            () = draining, if !course.stopping => Some(Happened::Drain),
            () = timer, if course.wake.is_some() => Some(Happened::Time),
            () = std::future::ready(()) => None,
        }
    }

    /// The timer has fired: does what is due, and notes when it is to fire again; `Some` at the end.
    async fn look<W: Wire>(
        &mut self,
        wire: &mut W,
        passed: &Passed,
        course: &mut Course,
    ) -> Option<End> {
        let now = Instant::now();
        if !std::mem::replace(&mut course.probed, true) {
            self.conn.probe();
        }
        let over = |after| self.until.is_some_and(|until| now >= until + after);
        let mut end = course.expired.filter(|_| over(UNTIL_BORDER));
        if over(Duration::ZERO) {
            course.expired.get_or_insert(End::Expired);
        }
        // the timer is not moved with every event: it is cheaper to look when it fires
        if end.is_none() && self.silence().is_some_and(|period| now - course.last >= period) {
            end = self.comment(wire, passed).await;
            course.last = Instant::now();
        }
        course.wake = self.wake(course.last, course.expired.is_some());
        end
    }

    /// Its caller may not go on since then.
    fn revoke(&mut self, since: Instant, course: &mut Course) {
        self.until = since.checked_sub(UNTIL_BORDER - REVOKED_BORDER).or(Some(since));
        course.expired = Some(End::Revoked);
        course.wake = self.wake(course.last, true);
    }

    /// Why it ends here: it should, and no event is under way.
    fn is_over(&self, course: &Course) -> Option<End> {
        let drained = (course.stopping && self.may_be_cut()).then_some(End::Drained);
        course.expired.or(drained).filter(|_| self.between_events())
    }

    fn tally(&self, end: End) -> Tally {
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

/// Ends a stream between two events; who may not go on is not asked to come back. The client of one that is over has
/// so long to take it.
async fn say_last<W: Wire>(wire: &mut W, why: End, over: bool) -> io::Result<()> {
    let word: &[u8] = if why == End::Revoked { b"" } else { RETRY };
    let by = over.then(|| Instant::now() + REVOKED_BORDER);
    tokio::select! {
        biased;
        sent = wire.data(Bytes::from_static(word), true) => sent,
        () = reached(by) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn finish(sent: io::Result<()>, end: End) -> End {
    sent.err().map_or(end, |e| left(&e))
}

fn left(e: &io::Error) -> End {
    if e.kind() == io::ErrorKind::TimedOut { End::ClientStalled } else { End::ClientGone }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::h1::conn::H1;
    use crate::listen::h2::H2;

    type Never = Pin<&'static mut std::future::Pending<()>>;

    /// What `run` returns for a wire, in bytes.
    fn held<W: Wire + 'static, R>(
        _: impl FnOnce(&'static mut Flow, &'static mut W, &'static Passed, Never, Never) -> R,
    ) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_silent_stream_is_small() {
        let sizes = [
            held::<H1, _>(|flow, wire, passed, one, two| flow.run(wire, passed, one, two)),
            held::<H2, _>(|flow, wire, passed, one, two| flow.run(wire, passed, one, two)),
        ];
        assert!(sizes.iter().all(|size| *size <= 512), "{sizes:?}");
    }
}
