//! Tokens that only their issuer can read (RFC 7662): in, a token; out, what its issuer says of it.
//!
//! Answers are remembered for a short time, good and bad ones apart, so that made-up tokens push out no
//! good ones. A token is asked for once, however many requests bring it at the same time. In all there
//! is a bound on questions at once and on their rate; beyond it, and when the issuer does not answer,
//! nobody knows whether a token is good: that is a 503 and never a 401.

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
use super::strict;
use crate::base::fetch::{self, Fetch};
use crate::base::rate::Buckets;

/// Most good answers that are remembered.
const MAX_ACTIVE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
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
    /// Most questions at once.
    pub(super) concurrency: usize,
    /// Most questions per time.
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
    active: LruCache<Sum, (Arc<Map<String, Value>>, Instant)>,
    inactive: LruCache<Sum, Instant>,
    under_way: HashMap<Sum, watch::Receiver<Option<Outcome>>>,
}

impl Introspection {
    pub(super) fn new(issuer: &str, settings: Settings) -> Self {
        let memory = Mutex::new(Memory {
            active: LruCache::new(MAX_ACTIVE),
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
        if let Some(answer) = memory.under_way.get(&sum) {
            return Ok(answer.clone());
        }
        if memory.under_way.len() >= self.0.settings.concurrency {
            return Err(Outcome::Unknown(1));
        }
        if let Err(wait) = self.0.settings.rate.take(&()) {
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
        memory.under_way.insert(sum, answer.clone());
        Ok(answer)
    }
}

impl Memory {
    fn known(&mut self, sum: &Sum, now: Instant) -> Option<Outcome> {
        if let Some((claims, until)) = self.active.get(sum) {
            if now < *until {
                return Some(Outcome::Active(claims.clone(), *until));
            }
            self.active.pop(sum);
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
                memory.active.put(sum, (claims.clone(), until));
                Outcome::Active(claims, until)
            }
            Ok(None) => {
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

    const MINUTE: Duration = Duration::from_secs(60);

    fn asks() -> Introspection {
        let settings = Settings {
            url: Uri::from_static("http://127.0.0.1:1/"),
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
