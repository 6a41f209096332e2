//! One replica's health: in, what became of its requests and checks; out, whether it gets new work.
//!
//! A request reads two atomics before it is sent and two when it is answered; all else is behind a lock that only
//! changes take, and [`Health::tick`] once a second. Nothing here reads a clock: callers give the time.

pub mod compile;
mod group;
mod outcome;
pub mod settings;
mod story;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use outcome::Counts;
use settings::{Check, EjectSettings, HealthSettings};
use story::{Ejected, Story};

use super::view::State;

pub use outcome::{Cause, Change, Totals};
pub use story::Problem;

/// All of a replica's share of new work.
pub const FULL: u32 = 1024;
/// With this much of it a slow start begins.
const FIRST: u32 = FULL / 10;
/// The longest ejection, in multiples of the first.
const MOST_TIMES: u32 = 10;
/// How long nothing more is told of one that fails now and then, from when it was told last.
const QUIET: Duration = Duration::from_secs(30);

/// An answer in `latency`.
const ONE: u64 = 1 << 32;

/// Bit of `away`: its checks fail.
const DOWN: u8 = 1;
/// Bit of `away`: its requests failed.
const EJECTED: u8 = 2;

/// What is known of one replica. Outlives configs that keep the replica.
#[derive(Debug)]
pub struct Health {
    /// Why it gets no new work; 0: it does.
    away: AtomicU8,
    /// How much of its share it gets, of [`FULL`].
    share: AtomicU32,
    /// Requests in a row that failed.
    streak: AtomicU32,
    /// Whether that were too many, and none has been answered since.
    failing: AtomicBool,
    /// Time to the first byte in microseconds, a moving average; 0: never measured. Above it, in multiples of
    /// [`ONE`], how many answers there were: one store for both.
    latency: AtomicU64,
    /// New work that it was asked to take during a slow start.
    asked: AtomicU32,
    counts: Counts,
    story: Mutex<Story>,
}

impl Health {
    /// Of a replica that is taken for good until something speaks against it.
    pub fn new() -> Self {
        Self {
            away: AtomicU8::new(0),
            share: AtomicU32::new(FULL),
            streak: AtomicU32::new(0),
            failing: AtomicBool::new(false),
            latency: AtomicU64::new(0),
            asked: AtomicU32::new(0),
            counts: Counts::default(),
            story: Mutex::new(Story::new()),
        }
    }

    /// Of one that joined others at work: where checks are made, it gets nothing before the first good one.
    pub fn joined(checks: bool) -> Self {
        let health = Self::new();
        health.away.store(if checks { DOWN } else { 0 }, Ordering::Relaxed);
        health
    }

    /// Whether it gets new work at all.
    pub fn is_open(&self) -> bool {
        self.away.load(Ordering::Relaxed) == 0
    }

    /// Whether its checks fail.
    pub fn is_down(&self) -> bool {
        self.away.load(Ordering::Relaxed) & DOWN != 0
    }

    /// The same, and not only because none has come to its end yet.
    pub fn is_found_down(&self) -> bool {
        self.is_down() && self.story.lock().unwrap_or_else(PoisonError::into_inner).checked
    }

    /// How much of its share it gets, of [`FULL`].
    pub fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// Whether it takes a piece of new work whose turn it is: during a slow start, it takes its share of them
    /// in even steps.
    pub fn takes(&self) -> bool {
        let share = self.share();
        share >= FULL || self.takes_turn(share)
    }

    fn takes_turn(&self, share: u32) -> bool {
        let turn = u64::from(self.asked.fetch_add(1, Ordering::Relaxed));
        let given = |turn: u64| turn * u64::from(share) / u64::from(FULL);
        given(turn) != given(turn + 1)
    }

    /// The same for work that comes back to its place on a ring: callers come over one by one, and stay.
    pub fn takes_place(&self, place: u64) -> bool {
        let share = self.share();
        share >= FULL || place % u64::from(FULL) < u64::from(share)
    }

    /// Whether its last requests have failed, too many in a row, and none was answered since.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// A request was answered with a status that speaks for it.
    pub fn answered(&self) -> Option<Change> {
        // most of the time there is nothing to forget, and a cache line that is only read stays with all cores
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
        if self.is_failing() { self.proved(&mut self.lock()) } else { None }
    }

    /// Something that had failed has succeeded.
    fn proved(&self, story: &mut Story) -> Option<Change> {
        self.streak.store(0, Ordering::Relaxed);
        self.failing.store(false, Ordering::Relaxed);
        story.failing.take()?;
        if !self.is_open() {
            // what is shown is why it is away
            return None;
        }
        (story.since, story.problem) = (SystemTime::now(), None);
        std::mem::take(&mut story.to_tell).then_some(Change::Up)
    }

    /// The time to an answer's first byte. Of two that come at once one may be lost.
    pub fn took(&self, time: Duration) {
        let new = u64::from(u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1));
        let both = self.latency.load(Ordering::Relaxed);
        let old = both % ONE;
        let mean = if old == 0 { new } else { old - old / 8 + new / 8 };
        self.latency.store((both - old).wrapping_add(ONE) | mean.max(1), Ordering::Relaxed);
    }

    /// A number that is another one as soon as it has answered anybody, a request or a check.
    pub fn answers(&self) -> u64 {
        self.latency.load(Ordering::Relaxed) / ONE
    }

    /// A request failed by its fault; gives how many in a row.
    pub fn failed(&self) -> u32 {
        self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// They are too many, and it gets new work all the same: `streak` in a row. That is told when it begins, and
    /// not again of one that fails on and off.
    pub(super) fn fails(&self, cause: Cause, streak: u32, now: Instant) -> Option<Change> {
        let mut story = self.lock();
        let began = story.failing.replace(cause).is_none();
        self.failing.store(true, Ordering::Relaxed);
        if !self.is_open() {
            return None;
        }
        story.problem = Some(Problem::of(cause));
        if !began {
            return None;
        }
        (story.since, story.good) = (SystemTime::now(), 0);
        if story.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET) {
            return None;
        }
        (story.told, story.to_tell) = (Some(now), true);
        Some(Change::Failing(cause, streak))
    }

    /// Takes it out because of its requests. The caller has seen to it that enough others are left.
    pub(super) fn eject(&self, cause: Cause, settings: &EjectSettings, now: Instant) -> Change {
        let mut story = self.lock();
        let soon = story.back.is_some_and(|back| now.duration_since(back) < settings.period);
        story.times = if soon { (story.times + 1).min(MOST_TIMES) } else { 1 };
        let period = settings.period.saturating_mul(story.times);
        story.ejected = Some(Ejected { cause, until: now + period });
        story.good = 0;
        story.problem = Some(Problem::of(cause));
        story.failing = Some(cause);
        self.failing.store(true, Ordering::Relaxed);
        self.streak.store(0, Ordering::Relaxed);
        self.counts.ejected(cause);
        self.leave(EJECTED, &mut story);
        Change::Ejected(cause, period)
    }

    /// A check has come to its end.
    pub fn checked(
        &self,
        result: Result<(), String>,
        settings: &HealthSettings,
        now: Instant,
    ) -> Option<Change> {
        self.counts.checked(result.is_ok());
        if result.is_ok() && settings.check != Check::Tcp {
            // a system takes connections for a process that hangs, too
            self.latency.fetch_add(ONE, Ordering::Relaxed);
        }
        let mut story = self.lock();
        let first = !std::mem::replace(&mut story.checked, true);
        let good = result.is_ok();
        story.good = if good { story.good + 1 } else { 0 };
        let mut change = None;
        if good == self.is_down() {
            story.against += 1;
            let enough = if good { settings.up_after } else { settings.down_after };
            // what it was before anybody looked was a guess
            if first || story.against >= enough {
                story.against = 0;
                if good {
                    // whatever has failed meanwhile, it was made to see whether that is over
                    if story.ejected.is_none() {
                        self.proved(&mut story);
                    }
                    change = self.come_back(DOWN, settings.slow_start, &mut story, now);
                } else {
                    self.leave(DOWN, &mut story);
                    change = Some(Change::Down);
                }
            }
        } else {
            story.against = 0;
        }
        match result {
            Err(problem) => story.problem = Some(Problem::now(problem)),
            Ok(()) if self.is_open() && story.failing.is_none() => story.problem = None,
            Ok(()) => {}
        }
        // that it can be reached is just what was in doubt
        if story.unreachable() && story.good >= settings.up_after {
            change = change.or(self.forgive(settings.slow_start, &mut story, now));
        }
        change
    }

    /// A connection could be made to one that gets no work, or fails, because none could.
    pub fn reached(&self, slow_start: Duration, now: Instant) -> Option<Change> {
        let mut story = self.lock();
        if !story.unreachable() {
            return None;
        }
        self.forgive(slow_start, &mut story, now)
    }

    /// What was in doubt is so.
    fn forgive(&self, slow_start: Duration, story: &mut Story, now: Instant) -> Option<Change> {
        let change = self.proved(story);
        if story.ejected.is_some() { self.pardon(slow_start, story, now) } else { change }
    }

    /// It is checked no more: what the last checks said is forgotten.
    pub(super) fn unchecked(&self, now: Instant) -> Option<Change> {
        if !self.is_down() {
            return None;
        }
        let mut story = self.lock();
        story.checked = false;
        self.come_back(DOWN, Duration::ZERO, &mut story, now)
    }

    /// Whether nobody could connect to it, which may be over at any moment.
    pub fn is_unreachable(&self) -> bool {
        (!self.is_open() || self.is_failing()) && self.lock().unreachable()
    }

    /// Whether the last check spoke against the state that it is in: the next one is worth having soon.
    pub fn in_doubt(&self) -> bool {
        self.lock().against > 0
    }

    /// Ends ejections that are over, and lets slow starts go on. To be called once a second.
    pub fn tick(&self, slow_start: Duration, now: Instant) -> Option<Change> {
        let mut story = self.lock();
        if let Some((began, whole)) = story.warming {
            let share = share_after(now.saturating_duration_since(began), whole);
            self.share.store(share, Ordering::Relaxed);
            if share >= FULL {
                story.warming = None;
                story.since = SystemTime::now();
            }
        }
        if story.ejected?.until > now {
            return None;
        }
        self.pardon(slow_start, &mut story, now)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        let away = self.away.load(Ordering::Relaxed);
        match away {
            _ if away & DOWN != 0 => State::Down,
            _ if away & EJECTED != 0 => State::Ejected,
            _ if self.is_failing() => State::Failing,
            _ if self.share() < FULL => State::Starting,
            _ => State::Up,
        }
    }

    /// Since when, and what went wrong last, while that has not turned out well since.
    pub fn story(&self) -> (SystemTime, Option<Problem>) {
        let story = self.lock();
        (story.since, story.problem.clone())
    }

    /// Time to the first byte, a moving average.
    pub fn latency(&self) -> Option<Duration> {
        let micros = self.latency.load(Ordering::Relaxed) % ONE;
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Checks and ejections so far.
    pub fn totals(&self) -> Totals {
        self.counts.totals()
    }

    fn pardon(&self, slow_start: Duration, story: &mut Story, now: Instant) -> Option<Change> {
        story.ejected = None;
        story.back = Some(now);
        self.come_back(EJECTED, slow_start, story, now)
    }

    fn leave(&self, bit: u8, story: &mut Story) {
        self.away.fetch_or(bit, Ordering::Relaxed);
        story.since = SystemTime::now();
        story.warming = None;
        self.share.store(FULL, Ordering::Relaxed);
    }

    fn come_back(
        &self,
        bit: u8,
        slow_start: Duration,
        story: &mut Story,
        now: Instant,
    ) -> Option<Change> {
        story.since = SystemTime::now();
        // before the bit goes: nobody may see it open with a full share
        if slow_start > Duration::ZERO {
            story.warming = Some((now, slow_start));
            self.share.store(FIRST, Ordering::Relaxed);
        }
        self.streak.store(0, Ordering::Relaxed);
        let before = self.away.fetch_and(!bit, Ordering::Release);
        if before & !bit != 0 {
            return None;
        }
        if story.failing.is_some() {
            // its first answer is to be told of, too
            story.to_tell = true;
            return Some(Change::Tried);
        }
        story.problem = None;
        Some(Change::Up)
    }

    fn lock(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// A straight line from [`FIRST`] to [`FULL`].
fn share_after(elapsed: Duration, whole: Duration) -> u32 {
    let done = elapsed.as_millis() * u128::from(FULL - FIRST) / whole.as_millis().max(1);
    FIRST + u32::try_from(done).unwrap_or(FULL).min(FULL - FIRST)
}

/// Whether one more of a group may be taken out: `away` of `all` already are.
pub(super) fn may_eject(away: usize, all: usize, at_most: u8) -> bool {
    (away + 1) * 100 <= all * usize::from(at_most)
}

#[cfg(test)]
mod tests;
