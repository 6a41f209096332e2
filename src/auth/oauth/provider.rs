//! What an issuer publishes: in, a way to ask for it; out, its keys and metadata as of the last good
//! answer.
//!
//! Keys are asked for soon after the start, in the background when they are old, and when a token names
//! one that is not known: in all at most once in [`PAUSE`], however many tokens are made up, and by one
//! question at a time. What was good last goes on for a stated time when the provider does not answer.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::jwks::KeySet;
use super::outage::Outage;
use super::unavailable;
use crate::base::caller::{Document, ServerMetadata};
use crate::base::fetch;
use crate::base::watch::Refresh;

/// Between two questions; less where `refresh` is shorter.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// The same in seconds, for whoever is to come again.
pub(super) const RETRY: u32 = 10;
/// Most requests that wait for an answer.
const MAX_WAITING: usize = 512;

/// One issuer's keys, or its metadata alone.
pub(super) struct Provider(Arc<Inner>);

/// What an issuer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Its keys, and its metadata where they are served.
    Keys,
    /// Its metadata alone: it verifies tokens itself.
    Metadata,
}

/// A question, and its answer that is still to come.
pub(super) type Ask =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<Published, String>> + Send>> + Send + Sync;

/// What an issuer publishes.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The keys.
    pub(super) keys: KeySet,
    /// The document that they are from: other bytes are other keys.
    pub(super) keys_document: Bytes,
    /// The metadata, where they were asked for.
    pub(super) metadata: Option<Bytes>,
}

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Older keys are fetched anew.
    pub(super) refresh: Duration,
    /// Older keys verify nothing.
    pub(super) keep: Duration,
}

/// The provider did not say what has to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Down;

struct Inner {
    issuer: String,
    what: What,
    ask: Box<Ask>,
    times: Times,
    state: Mutex<State>,
    /// Counts the questions that have ended; whoever waits for one looks at it.
    ended: watch::Sender<u64>,
    outage: Outage,
    // what the cache of tokens asks at every request, without a lock
    start: Instant,
    generation: AtomicU64,
    /// Milliseconds after `start` until which the keys are good.
    good_until: AtomicU64,
}

#[derive(Default)]
struct State {
    published: Option<Arc<Published>>,
    /// When that was asked for.
    as_of: Option<Instant>,
    /// When the last question began.
    begun: Option<Instant>,
    running: bool,
    failed: bool,
}

impl Provider {
    pub(super) fn new(issuer: &str, what: What, times: Times, ask: Box<Ask>) -> Self {
        Self(Arc::new(Inner {
            issuer: issuer.to_owned(),
            what,
            ask,
            times,
            state: Mutex::default(),
            ended: watch::Sender::new(0),
            outage: Outage::default(),
            start: Instant::now(),
            generation: 0.into(),
            good_until: 0.into(),
        }))
    }

    /// The last good keys with their generation, while they may be used.
    pub(super) fn current(&self, now: Instant) -> Option<(Arc<Published>, u64)> {
        self.0.current(&self.0.lock(), now)
    }

    /// Whether the keys of this generation are still those of the issuer.
    pub(super) fn holds(&self, generation: u64, now: Instant) -> bool {
        self.0.generation.load(Ordering::Acquire) == generation
            && self.0.millis(now) < self.0.good_until.load(Ordering::Acquire)
    }

    /// What the issuer publishes now: the answer to the question that is under way or is begun here, or
    /// the last one where that is young.
    pub(super) async fn ask(&self, now: Instant) -> Result<(Arc<Published>, u64), Down> {
        let mut ended = {
            let mut state = self.0.lock();
            if !state.running {
                if !state.may_begin(now, self.0.times) {
                    let failed = state.failed;
                    return self.0.current(&state, now).filter(|_| !failed).ok_or(Down);
                }
                Inner::begin(&self.0, &mut state, now);
                if !state.running {
                    // it could not be asked: nobody would tell of an end
                    return Err(Down);
                }
            }
            if self.0.ended.receiver_count() >= MAX_WAITING {
                return Err(Down);
            }
            self.0.ended.subscribe()
        };
        if ended.changed().await.is_err() {
            return Err(Down);
        }
        let state = self.0.lock();
        self.0.current(&state, now).filter(|_| !state.failed).ok_or(Down)
    }

    fn refresh_at(&self, now: Instant) {
        let mut state = self.0.lock();
        let old = state.as_of.is_none_or(|at| now.duration_since(at) >= self.0.times.refresh);
        if old && !state.running && state.may_begin(now, self.0.times) {
            Inner::begin(&self.0, &mut state, now);
        }
    }
}

impl State {
    fn may_begin(&self, now: Instant, times: Times) -> bool {
        let pause = PAUSE.min(times.refresh);
        self.begun.is_none_or(|begun| now.duration_since(begun) >= pause)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    fn current(&self, state: &State, now: Instant) -> Option<(Arc<Published>, u64)> {
        let published = state.published.clone()?;
        let generation = self.generation.load(Ordering::Acquire);
        (self.millis(now) < self.good_until.load(Ordering::Acquire))
            .then_some((published, generation))
    }

    fn begin(this: &Arc<Self>, state: &mut State, now: Instant) {
        state.running = true;
        state.begun = Some(now);
        let inner = this.clone();
        let work = async move {
            // a panic must end this question, not all that come after it
            let answer = tokio::spawn((inner.ask)()).await;
            inner.end(answer.unwrap_or_else(|e| Err(e.to_string())), now);
        };
        if let Err(problem) = fetch::spawn(work) {
            log::error!("{problem}");
            state.running = false;
            state.failed = true;
        }
    }

    /// What messages and alarms call it.
    fn name(&self) -> String {
        match self.what {
            What::Keys => format!("keys of {}", self.issuer),
            What::Metadata => format!("metadata of {}", self.issuer),
        }
    }

    /// What follows while it does not answer.
    fn without(&self, any: bool) -> &'static str {
        match (any, self.what) {
            (true, _) => "those that were good last stay",
            (false, What::Keys) => "its tokens get 503 until then",
            (false, What::Metadata) => "who asks for them gets 503 until then",
        }
    }

    /// Takes an answer to a question of that time.
    fn end(&self, answer: Result<Published, String>, asked: Instant) {
        let name = self.name();
        let mut state = self.lock();
        state.running = false;
        state.failed = answer.is_err();
        match answer {
            Ok(published) => {
                let before = state.published.as_ref();
                if before.is_none_or(|before| before.keys_document != published.keys_document) {
                    self.generation.fetch_add(1, Ordering::AcqRel);
                    let (level, words) = found(self.what, &published.keys);
                    log::log!(level, "{name}: {words}");
                }
                let until = self.millis(asked + self.times.keep);
                self.good_until.store(until, Ordering::Release);
                state.published = Some(Arc::new(published));
                state.as_of = Some(asked);
                self.outage.note(&name, Ok(()), "");
            }
            Err(why) => {
                self.outage.note(&name, Err(&why), self.without(state.published.is_some()));
            }
        }
        drop(state);
        self.ended.send_modify(|n| *n += 1);
    }
}

/// What is said of an answer that is another than the one before.
fn found(what: What, keys: &KeySet) -> (log::Level, String) {
    let (count, left_out) = (keys.len(), keys.left_out);
    match what {
        What::Metadata => (log::Level::Info, "read".to_owned()),
        What::Keys if keys.is_empty() => {
            let none = "there is none that could verify a token";
            (log::Level::Warn, format!("{none} ({left_out} for something else)"))
        }
        What::Keys => (log::Level::Info, format!("{count} read, {left_out} for something else")),
    }
}

/// Asked once a second: this is what fetches keys before the first caller needs them, and when they
/// are old.
impl Refresh for Provider {
    fn refresh(&self) {
        self.refresh_at(Instant::now());
    }

    fn problem(&self) -> Option<String> {
        self.0.outage.problem()
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }
}

impl ServerMetadata for Provider {
    fn document(&self) -> Document<'_> {
        Box::pin(async {
            let now = Instant::now();
            let published = match self.current(now) {
                Some((published, _)) => published,
                None => self.ask(now).await.map_err(|Down| unavailable(RETRY))?.0,
            };
            published.metadata.clone().ok_or_else(|| unavailable(RETRY))
        })
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("issuer", &self.0.issuer)
            .field("times", &self.0.times)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A provider whose answers a test gives one by one.
    struct Fixture {
        provider: Arc<Provider>,
        asked: Arc<AtomicUsize>,
        answers: mpsc::Sender<Result<&'static [u8], String>>,
        start: Instant,
    }

    fn fixture() -> Fixture {
        fixture_of(What::Keys)
    }

    fn fixture_of(what: What) -> Fixture {
        let (answers, given) = mpsc::channel::<Result<&'static [u8], String>>();
        let given = Arc::new(Mutex::new(given));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let ask = Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let given = given.clone();
            Box::pin(async move {
                let wait = move || given.lock().unwrap().recv_timeout(MINUTE / 6);
                let keys = tokio::task::spawn_blocking(wait).await.unwrap().unwrap()?;
                if keys == b"panic" {
                    panic!("on purpose");
                }
                let keys_document = Bytes::from_static(keys);
                Ok(Published { keys_document, ..Published::default() })
            }) as _
        });
        let times = Times { refresh: 10 * MINUTE, keep: 60 * MINUTE };
        let provider = Arc::new(Provider::new("https://a", what, times, ask));
        Fixture { provider, asked, answers, start: Instant::now() }
    }

    impl Fixture {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        fn ask(&self, after: Duration) -> Result<u64, Down> {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let asked = runtime.block_on(self.provider.ask(self.start + after));
            asked.map(|(_, generation)| generation)
        }

        fn current(&self, after: Duration) -> Option<u64> {
            self.provider.current(self.start + after).map(|(_, generation)| generation)
        }

        /// The background's look; waits until what it begins has ended.
        fn refresh(&self, after: Duration) {
            let before = *self.provider.0.ended.borrow();
            self.provider.refresh_at(self.start + after);
            if self.provider.0.lock().running {
                let mut ended = self.provider.0.ended.subscribe();
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(ended.wait_for(|n| *n > before)).unwrap();
            }
        }
    }

    #[test]
    fn keys_are_fetched_anew_when_they_are_old_and_no_sooner() {
        let f = fixture();
        assert_eq!(f.current(Duration::ZERO), None);
        f.answers.send(Ok(b"one")).unwrap();
        f.refresh(Duration::ZERO);
        assert_eq!((f.asked(), f.current(Duration::ZERO)), (1, Some(1)));
        f.refresh(9 * MINUTE);
        assert_eq!(f.asked(), 1);
        f.answers.send(Ok(b"one")).unwrap();
        f.refresh(10 * MINUTE);
        assert_eq!((f.asked(), f.current(10 * MINUTE)), (2, Some(1)), "the same are the same");
        f.answers.send(Ok(b"two")).unwrap();
        f.refresh(20 * MINUTE);
        assert_eq!(f.current(20 * MINUTE), Some(2));
        let at = |after| f.start + after;
        assert!(f.provider.holds(2, at(20 * MINUTE)) && !f.provider.holds(1, at(20 * MINUTE)));
    }

    #[test]
    fn who_has_metadata_alone_is_not_said_to_lack_keys() {
        let said = |what| found(what, &KeySet::default());
        let (level, words) = said(What::Keys);
        assert!(level == log::Level::Warn && words.contains("none that could verify a token"));
        assert_eq!(said(What::Metadata), (log::Level::Info, "read".to_owned()));
        for (what, name, then) in [
            (What::Keys, "keys of https://a", "tokens get 503"),
            (What::Metadata, "metadata of https://a", "who asks for them gets 503"),
        ] {
            let f = fixture_of(what);
            assert_eq!(f.provider.name(), name, "the alarm's name");
            assert!(f.provider.0.without(false).contains(then));
            f.answers.send(Ok(b"")).unwrap();
            f.refresh(Duration::ZERO);
            assert_eq!(f.current(Duration::ZERO), Some(1));
        }
    }

    #[test]
    fn the_last_good_keys_go_on_for_a_stated_time() {
        let f = fixture();
        f.answers.send(Ok(b"one")).unwrap();
        f.refresh(Duration::ZERO);
        for minute in [10, 20, 30] {
            f.answers.send(Err("gone".into())).unwrap();
            f.refresh(minute * MINUTE);
        }
        assert_eq!(f.provider.problem().as_deref(), Some("gone"));
        let nearly = 60 * MINUTE - Duration::from_millis(1);
        assert_eq!((f.current(nearly), f.current(60 * MINUTE)), (Some(1), None));
        assert!(
            f.provider.holds(1, f.start + nearly) && !f.provider.holds(1, f.start + 60 * MINUTE)
        );
        // who asks for a key that is not known gets no answer meanwhile, and no question is asked
        assert_eq!((f.ask(30 * MINUTE + Duration::from_secs(9)), f.asked()), (Err(Down), 4));
        f.answers.send(Ok(b"one")).unwrap();
        f.refresh(61 * MINUTE);
        assert_eq!((f.current(61 * MINUTE), f.provider.problem()), (Some(1), None));
    }

    #[test]
    fn unknown_keys_are_asked_for_once_in_ten_seconds() {
        let f = fixture();
        f.answers.send(Ok(b"one")).unwrap();
        assert_eq!((f.ask(Duration::ZERO), f.asked()), (Ok(1), 1));
        for millis in [0, 1, 5000, 9999] {
            assert_eq!((f.ask(Duration::from_millis(millis)), f.asked()), (Ok(1), 1));
        }
        f.answers.send(Ok(b"two")).unwrap();
        assert_eq!((f.ask(PAUSE), f.asked()), (Ok(2), 2));
        f.answers.send(Err("gone".into())).unwrap();
        assert_eq!((f.ask(PAUSE * 2), f.asked()), (Err(Down), 3));
        assert_eq!((f.ask(PAUSE * 2), f.asked()), (Err(Down), 3));
        assert_eq!(f.current(PAUSE * 2), Some(2), "known keys go on");
    }

    #[test]
    fn all_who_wait_get_the_answer_to_one_question() {
        let f = fixture();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (provider, start) = (f.provider.clone(), f.start);
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(provider.ask(start)).map(|(_, generation)| generation)
                })
            })
            .collect();
        while f.provider.0.ended.receiver_count() < 8 {
            std::thread::yield_now();
        }
        f.answers.send(Ok(b"one")).unwrap();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == Ok(1)));
        assert_eq!(f.asked(), 1);
    }

    #[test]
    fn a_panic_ends_one_question() {
        let f = fixture();
        f.answers.send(Ok(b"panic")).unwrap();
        assert_eq!(f.ask(Duration::ZERO), Err(Down));
        f.answers.send(Ok(b"one")).unwrap();
        assert_eq!(f.ask(PAUSE), Ok(1));
    }

    #[test]
    fn who_would_wait_with_too_many_is_sent_away() {
        let f = fixture();
        let waiting: Vec<_> = (0..MAX_WAITING).map(|_| f.provider.0.ended.subscribe()).collect();
        assert_eq!(f.ask(Duration::ZERO), Err(Down));
        drop(waiting);
        f.answers.send(Ok(b"one")).unwrap();
        assert_eq!(f.ask(Duration::ZERO), Ok(1));
    }
}
