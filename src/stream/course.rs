//! How far a relay has come, and what ends it besides its two sides: in, times, and what is told meanwhile; out, why it
//! ends, and when to look again.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::pump::End;
use crate::base::io::reached;

/// So long an answer that always has bytes may keep whatever else ends it from being looked at.
const TURN: Duration = Duration::from_millis(100);
/// How long an event may take to end where the stream should have ended already.
pub(super) const UNTIL_BORDER: Duration = Duration::from_secs(5);
/// The same where the caller may not go on: with the time until that is noticed, no more than 5 s in all.
pub(super) const REVOKED_BORDER: Duration = Duration::from_secs(3);

/// How far a relay has come. A silent stream holds it for hours.
#[derive(Debug)]
pub(super) struct Course {
    /// When it was last heard of: a piece has passed, or a comment was put in.
    pub(super) last: Instant,
    /// When whoever may end it was last asked, though there were pieces.
    asked: Instant,
    /// When there is something to do though nothing has happened.
    pub(super) wake: Option<Instant>,
    /// Why it ends between two events.
    pub(super) expired: Option<End>,
    /// Whether the edge stops, or need not tell it.
    pub(super) stopping: bool,
    /// Whether the system probes the backend.
    pub(super) probed: bool,
}

impl Course {
    pub(super) fn new(wake: Option<Instant>, stopping: bool, probed: bool, now: Instant) -> Self {
        Self { last: now, asked: now, wake, expired: None, stopping, probed }
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.expired == Some(End::Revoked)
    }

    /// Whether it is time to ask others than the backend: while there is always a piece nobody else would be, which
    /// is what it costs to ask with each.
    pub(super) fn takes_turn(&mut self) -> bool {
        let turn = self.last.duration_since(self.asked) > TURN;
        if turn {
            self.asked = self.last;
        }
        turn
    }

    /// Sets the timer to where it is to wake, if that has moved.
    pub(super) fn set(&self, timer: Pin<&mut Sleep>) {
        if let Some(wake) = self.wake.filter(|wake| *wake != timer.deadline()) {
            timer.reset(wake);
        }
    }

    /// For how long a client may take a piece, of an answer that ends then.
    pub(super) fn bounds(&self, end: Option<Instant>) -> Bounds {
        Bounds { by: end.map(|end| end + UNTIL_BORDER), expired: self.expired }
    }
}

/// For how long a client may take a piece.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Then the answer is over, whoever takes it; absent, the wire's own bound is the only one.
    by: Option<Instant>,
    /// Why it is, as far as that is known.
    expired: Option<End>,
}

impl Bounds {
    /// Has a piece taken: how that ended, if it was the end, and since when its caller may not go on, if that was
    /// told meanwhile.
    pub(super) async fn keep(
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use super::*;

    fn course(wake: Option<Instant>) -> Course {
        Course::new(wake, false, true, Instant::now())
    }

    #[test]
    fn others_are_asked_once_a_turn() {
        let mut course = course(None);
        course.last += TURN;
        assert!(!course.takes_turn());
        course.last += Duration::from_millis(1);
        assert!(course.takes_turn() && !course.takes_turn());
        course.last += TURN * 2;
        assert!(course.takes_turn());
    }

    #[tokio::test]
    async fn the_timer_is_where_it_is_to_wake() {
        let later = Instant::now() + TURN;
        let mut timer = pin!(tokio::time::sleep_until(later));
        for (wake, at) in [(None, later), (Some(later + TURN), later + TURN), (Some(later), later)]
        {
            course(wake).set(timer.as_mut());
            assert_eq!(timer.deadline(), at);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_is_not_taken_is_waited_for_as_long_as_it_may() {
        for (by, is_revoked, ended, seconds) in [
            (Some(1), false, End::Expired, 1),
            (Some(1), true, End::Revoked, 1),
            (Some(9), true, End::Revoked, 3),
            (None, true, End::Revoked, 3),
        ] {
            let begun = Instant::now();
            let end = by.map(|by| begun + Duration::from_secs(by) - UNTIL_BORDER);
            let revoked =
                pin!(async { if is_revoked { ready(()).await } else { pending().await } });
            let kept = course(None).bounds(end).keep(pending(), revoked).await;
            assert_eq!(kept, (Some(ended), is_revoked.then_some(begun)));
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
        let kept = course(None).bounds(None).keep(ready(None), pin!(pending())).await;
        assert_eq!(kept, (None, None));
    }
}
