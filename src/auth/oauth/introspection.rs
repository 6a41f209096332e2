//! Tokens that only their issuer can read (RFC 7662): in, a token; out, what its issuer says of it.
//!
//! Answers are remembered for a short time, good and bad ones apart, so that made-up tokens push out no
//! good ones. A token is asked for once, however many requests bring it at the same time. There
//! is a bound on questions at once and on their rate; beyond it, and when the issuer does not answer,
//! nobody knows whether a token is good: that is a 503 and never a 401. Tokens that were good when they were
//! last asked for have places of their own: a flood of made-up ones does not keep them out.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Uri};
use lru::LruCache;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::cache::Sum;
use super::outage::Outage;
use super::{strict, weight};
use crate::base::fetch::{self, Fetch};
use crate::base::rate::Buckets;

/// Most good answers that are remembered, and what they may weigh, in bytes.
const MAX_ACTIVE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
const MAX_WEIGHT: usize = 16 << 20;
/// Most bad ones, some 60 bytes each.
const MAX_INACTIVE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// What asks one issuer.
pub(super) struct Introspection(Arc<Inner>);

/// How it is asked.
pub(super) struct Settings {
    /// Where.
    pub(super) url: Uri,
    /// As whom: `Basic` (RFC 6749 §2.3.1).
    pub(super) authorization: HeaderValue,
    /// How long good answers are remembered.
    pub(super) cache: Duration,
    /// How long bad ones are.
    pub(super) negative_cache: Duration,
    /// Most questions at once: about tokens that nobody has seen, and as many about others.
    pub(super) concurrency: usize,
    /// Most questions per time about tokens that nobody has seen.
    pub(super) rate: Buckets<()>,
    pub(super) fetch: Fetch,
}

/// What an issuer says of a token.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// It is good, says this, and need not be asked for again before that time.
    Active(Arc<Map<String, Value>>, Instant),
    /// It is not.
    Inactive,
    /// Nobody knows; a retry makes sense after so many seconds.
    Unknown(u32),
}

struct Inner {
    issuer: String,
    settings: Settings,
    memory: Mutex<Memory>,
    outage: Outage,
}

struct Memory {
    active: LruCache<Sum, Good>,
    /// What all of these weigh.
    weight: usize,
    inactive: LruCache<Sum, Instant>,
    under_way: HashMap<Sum, Question>,
}

/// A token that was good when it was last asked for.
struct Good {
    /// What was said of it, for a while.
    claims: Option<(Arc<Map<String, Value>>, Instant)>,
    weight: usize,
}

/// A question that is under way.
struct Question {
    /// About a token that was good before.
    familiar: bool,
    answer: watch::Receiver<Option<Outcome>>,
}

impl Introspection {
    pub(super) fn new(issuer: &str, settings: Settings) -> Self {
        let memory = Mutex::new(Memory {
            active: LruCache::new(MAX_ACTIVE),
            weight: 0,
            inactive: LruCache::new(MAX_INACTIVE),
            under_way: HashMap::new(),
        });
        let (issuer, outage) = (issuer.to_owned(), Outage::default());
        Self(Arc::new(Inner { issuer, settings, memory, outage }))
    }

    /// What is known of a token already: of one that was asked for a moment ago.
    pub(super) fn known(&self, sum: &Sum, now: Instant) -> Option<Outcome> {
        self.0.lock().known(sum, now)
    }

    /// What the issuer says of a token.
    pub(super) async fn ask(&self, sum: Sum, token: &str, now: Instant) -> Outcome {
        let mut answer = match self.begin(sum, token, now) {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        // whoever drops the sender has failed
        let answer = answer.wait_for(Option::is_some).await;
        answer.ok().and_then(|answer| answer.clone()).unwrap_or(Outcome::Unknown(1))
    }

    /// The question that is under way, or a new one.
    fn begin(
        &self,
        sum: Sum,
        token: &str,
        now: Instant,
    ) -> Result<watch::Receiver<Option<Outcome>>, Outcome> {
        let mut memory = self.0.lock();
        if let Some(outcome) = memory.known(&sum, now) {
            return Err(outcome);
        }
        if let Some(question) = memory.under_way.get(&sum) {
            return Ok(question.answer.clone());
        }
        let familiar = memory.active.contains(&sum);
        let same = memory.under_way.values().filter(|question| question.familiar == familiar);
        if same.count() >= self.0.settings.concurrency {
            return Err(Outcome::Unknown(1));
        }
        // a token that was good is asked for once in `cache` at most
        if !familiar && let Err(wait) = self.0.settings.rate.take(&()) {
            return Err(Outcome::Unknown(wait.seconds()));
        }
        let (sender, answer) = watch::channel(None);
        let (inner, form) = (self.0.clone(), form(token));
        let work = async move {
            let question = {
                let inner = inner.clone();
                async move { inner.ask(form).await }
            };
            // a panic must end this question, not leave it under way for ever
            let answer = tokio::spawn(question).await.unwrap_or_else(|e| Err(e.to_string()));
            let outcome = inner.take(sum, answer, now);
            sender.send_replace(Some(outcome));
        };
        if let Err(problem) = fetch::spawn(work) {
            log::error!("{problem}");
            return Err(Outcome::Unknown(1));
        }
        memory.under_way.insert(sum, Question { familiar, answer: answer.clone() });
        Ok(answer)
    }
}

impl Memory {
    fn known(&mut self, sum: &Sum, now: Instant) -> Option<Outcome> {
        if let Some(good) = self.active.get_mut(sum) {
            match &good.claims {
                Some((claims, until)) if now < *until => {
                    return Some(Outcome::Active(claims.clone(), *until));
                }
                Some(_) => {
                    good.claims = None;
                    self.weight -= std::mem::take(&mut good.weight);
                }
                None => {}
            }
        }
        if let Some(until) = self.inactive.get(sum) {
            if now < *until {
                return Some(Outcome::Inactive);
            }
            self.inactive.pop(sum);
        }
        None
    }
}

impl Memory {
    fn keep(&mut self, sum: Sum, claims: Arc<Map<String, Value>>, until: Instant) {
        self.forget(&sum);
        let weight = weight::of(&claims);
        self.weight += weight;
        let good = Good { claims: Some((claims, until)), weight };
        if let Some((_, pushed)) = self.active.push(sum, good) {
            self.weight -= pushed.weight;
        }
        while self.weight > MAX_WEIGHT {
            let Some((_, pushed)) = self.active.pop_lru() else { return };
            self.weight -= pushed.weight;
        }
    }

    fn forget(&mut self, sum: &Sum) {
        if let Some(good) = self.active.pop(sum) {
            self.weight -= good.weight;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, form: String) -> Result<Option<Map<String, Value>>, String> {
        let Settings { url, authorization, fetch, .. } = &self.settings;
        match fetch.post(url, authorization, form).await? {
            Ok(answer) => read(&answer),
            // a kind of token that it cannot look up, such as its own JWTs: nothing is wrong with us
            Err(refusal) if is_no_token(&refusal) => Ok(None),
            Err(_) => Err(format!("{url}: answered 400")),
        }
    }

    /// Remembers an answer to a question of that time.
    fn take(
        &self,
        sum: Sum,
        answer: Result<Option<Map<String, Value>>, String>,
        asked: Instant,
    ) -> Outcome {
        let what = format!("introspection by {}", self.issuer);
        let then = "its tokens get 503 until then";
        let went = answer.as_ref().map(|_| ()).map_err(String::as_str);
        self.outage.note(&what, went, then);
        let mut memory = self.lock();
        memory.under_way.remove(&sum);
        match answer {
            Ok(Some(claims)) => {
                let (claims, until) = (Arc::new(claims), asked + self.settings.cache);
                memory.keep(sum, claims.clone(), until);
                Outcome::Active(claims, until)
            }
            Ok(None) => {
                memory.forget(&sum);
                memory.inactive.put(sum, asked + self.settings.negative_cache);
                Outcome::Inactive
            }
            Err(_) => Outcome::Unknown(1),
        }
    }
}

/// The question's form (RFC 7662 §2.1).
fn form(token: &str) -> String {
    format!("token={}&token_type_hint=access_token", encoded(token))
}

/// The name and the secret of a client (RFC 6749 §2.3.1): encoded as in a form before they are joined.
pub(super) fn basic(client: &str, secret: &str) -> Option<HeaderValue> {
    use base64::Engine;
    let both = format!("{}:{}", encoded(client), encoded(secret));
    let both = base64::prelude::BASE64_STANDARD.encode(both);
    let mut value = HeaderValue::try_from(format!("Basic {both}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `application/x-www-form-urlencoded` (WHATWG URL §5.2).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Reads an answer (RFC 7662 §2.2): the claims of a token that is active, nothing for any other.
///
/// # Errors
/// It says neither.
pub fn read(bytes: &[u8]) -> Result<Option<Map<String, Value>>, String> {
    let answer = strict::object(bytes).ok_or("the answer is not a JSON object")?;
    match answer.get("active") {
        Some(Value::Bool(true)) => Ok(Some(answer)),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err("the answer does not say whether the token is `active`".to_owned()),
    }
}

/// Whether a 400 is about the token (RFC 7009 §2.2.1, RFC 6750 §3.1), and not about who asks.
fn is_no_token(refusal: &[u8]) -> bool {
    let error = strict::object(refusal).and_then(|refusal| refusal.get("error").cloned());
    matches!(&error, Some(Value::String(error)) if error == "unsupported_token_type" || error == "invalid_token")
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection").field("issuer", &self.0.issuer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rate::Rate;
    use std::net::TcpListener;
    use std::sync::LazyLock;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Connections are made and nothing is answered: questions stay under way.
    static SILENT: LazyLock<TcpListener> =
        LazyLock::new(|| TcpListener::bind("127.0.0.1:0").unwrap());

    fn asks() -> Introspection {
        let settings = Settings {
            url: format!("http://{}/", SILENT.local_addr().unwrap()).parse().unwrap(),
            authorization: basic("a", "b").unwrap(),
            cache: MINUTE,
            negative_cache: MINUTE / 6,
            concurrency: 2,
            rate: Buckets::new(Rate::parse("3/h").unwrap(), 1),
            fetch: Fetch::new(None, MINUTE).unwrap(),
        };
        Introspection::new("https://a", settings)
    }

    fn name(outcome: Option<Outcome>) -> &'static str {
        match outcome {
            Some(Outcome::Active(..)) => "active",
            Some(Outcome::Inactive) => "inactive",
            Some(Outcome::Unknown(_)) => "unknown",
            None => "",
        }
    }

    #[test]
    fn answers_are_remembered_for_their_time() {
        let (asks, now) = (asks(), Instant::now());
        let take = |n, answer| name(Some(asks.0.take([n; 16], answer, now)));
        assert_eq!(take(1, Ok(Some(Map::new()))), "active");
        assert_eq!(take(2, Ok(None)), "inactive");
        assert_eq!(take(3, Err("gone".into())), "unknown");
        let known = |n, after| name(asks.known(&[n; 16], now + after));
        let moment = Duration::from_nanos(1);
        assert_eq!(
            (known(1, MINUTE - moment), known(1, MINUTE), known(1, Duration::ZERO)),
            ("active", "", "")
        );
        let ten = MINUTE / 6;
        assert_eq!(
            (known(2, ten - moment), known(2, ten), known(2, Duration::ZERO)),
            ("inactive", "", "")
        );
        assert_eq!(known(3, Duration::ZERO), "", "that nobody answered is not remembered");
    }

    #[test]
    fn a_flood_of_bad_ones_pushes_out_no_good_one() {
        let (asks, now) = (asks(), Instant::now());
        asks.0.take([255; 16], Ok(Some(Map::new())), now);
        for n in 0..20_000u32 {
            let mut sum = [0; 16];
            sum[..4].copy_from_slice(&n.to_be_bytes());
            asks.0.take(sum, Ok(None), now);
        }
        assert_eq!(name(asks.known(&[255; 16], now)), "active");
        assert_eq!(asks.0.lock().inactive.len(), MAX_INACTIVE.get());
    }

    #[test]
    fn questions_are_bounded_at_once_and_per_time() {
        let (asks, now) = (asks(), Instant::now());
        let begin = |n| asks.begin([n; 16], "t", now);
        let (first, second) = (begin(1).unwrap(), begin(2).unwrap());
        assert!(begin(1).is_ok(), "the same is no further question");
        assert!(matches!(begin(3), Err(Outcome::Unknown(1))), "two at once");
        asks.0.take([1; 16], Ok(None), now);
        let third = begin(3).unwrap();
        asks.0.take([2; 16], Ok(None), now);
        let Err(Outcome::Unknown(seconds)) = begin(4) else { panic!("three per hour") };
        assert!(seconds > 60, "{seconds}");
        drop((first, second, third));
    }

    #[test]
    fn a_flood_of_new_ones_keeps_out_no_token_that_was_good() {
        let (asks, now) = (asks(), Instant::now());
        let stale = now + MINUTE;
        asks.0.take([9; 16], Ok(Some(Map::new())), now);
        asks.0.take([8; 16], Ok(Some(Map::new())), now);
        let _busy = (asks.begin([1; 16], "t", stale), asks.begin([2; 16], "t", stale));
        assert!(asks.begin([3; 16], "t", stale).is_err(), "no place for a new one");
        let good = asks.begin([9; 16], "t", stale);
        assert!(good.is_ok(), "its own place");
        for n in [1, 2] {
            asks.0.take([n; 16], Ok(None), stale);
        }
        let _third = asks.begin([4; 16], "t", stale).unwrap();
        assert!(asks.begin([5; 16], "t", stale).is_err(), "three per hour");
        assert!(asks.begin([8; 16], "t", stale).is_ok(), "not of the rate of new ones");
        asks.0.take([9; 16], Ok(None), stale);
        let later = stale + MINUTE;
        assert!(asks.begin([9; 16], "t", later).is_err(), "it is like any other now");
    }

    #[test]
    fn good_answers_are_bounded_by_what_they_weigh() {
        let (asks, now) = (asks(), Instant::now());
        let claims = |len| Map::from_iter([("x".to_owned(), Value::from("y".repeat(len)))]);
        for n in 0..40u8 {
            asks.0.take([n; 16], Ok(Some(claims(1 << 20))), now);
            let memory = asks.0.lock();
            let all: usize = memory.active.iter().map(|(_, good)| good.weight).sum();
            assert!(memory.weight == all && all <= MAX_WEIGHT, "{all}");
        }
        assert_eq!(name(asks.known(&[39; 16], now)), "active");
        assert_eq!(name(asks.known(&[0; 16], now)), "");
        asks.known(&[39; 16], now + MINUTE);
        asks.0.take([39; 16], Ok(Some(claims(1))), now);
        let memory = asks.0.lock();
        assert_eq!(memory.weight, memory.active.iter().map(|(_, good)| good.weight).sum::<usize>());
    }

    #[test]
    fn forms_and_names_are_encoded() {
        assert_eq!(form("a b~+/="), "token=a+b%7E%2B%2F%3D&token_type_hint=access_token");
        // RFC 6749 §2.3.1 has no example; "a:b" and "c d" by hand
        assert_eq!(basic("a:b", "c d").unwrap(), "Basic YSUzQWI6Yytk");
        assert!(basic("a", "b").unwrap().is_sensitive());
    }

    #[test]
    fn answers_say_yes_or_no() {
        assert!(read(br#"{"active":true,"sub":"a"}"#).unwrap().is_some());
        assert!(read(br#"{"active":false,"sub":"a"}"#).unwrap().is_none());
        for bad in ["", "{}", "[]", r#"{"active":"true"}"#, r#"{"active":true,"active":true}"#] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
