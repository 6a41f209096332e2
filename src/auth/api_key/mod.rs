//! `api_key`: in, a secret in a header of choice, or as a Bearer token (RFC 6750 §2.1); out, the caller that
//! the key is for.
//!
//! Kept are SHA-256 sums alone, also of keys that the config takes from a file or the environment.
//! A plain sum is enough for what [`key`] makes (238 random bits): nobody tries those out. What is
//! looked up is the sum of what the client sent, in a table with a secret hash, and compared in
//! constant time: time says nothing of the sums, which shorter keys would be found by.

mod compile;
pub mod key;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Method, authorization};
use crate::base::caller::{Authenticate, Client, Shape, Verdict};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::principal::Principal;

/// Its name in configs.
const NAME: &str = "api_key";
/// The table line.
pub(super) const METHOD: Method = Method { name: NAME, compile: compile::compile };

/// Longest key, in bytes.
const MAX_KEY: usize = 1024;

/// The keys of one route and where they stand.
#[derive(Debug)]
struct ApiKeys {
    header: HeaderName,
    /// What every key begins with; may be empty.
    prefix: String,
    challenge: HeaderValue,
    /// Whose they are; they are good before the [`Principal::until`] of that.
    keys: HashMap<Sum, Arc<Principal>>,
}

/// The SHA-256 sum of a key.
#[derive(Clone, Copy, Eq)]
struct Sum([u8; 32]);

impl Sum {
    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for Sum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Authenticate for ApiKeys {
    fn name(&self) -> &'static str {
        NAME
    }

    fn shapes(&self) -> Vec<Shape> {
        let scheme = (self.header == AUTHORIZATION).then_some("bearer");
        vec![Shape { header: self.header.clone(), scheme, prefix: self.prefix.clone() }]
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        vec![self.challenge.clone()]
    }

    fn authenticate<'a>(&'a self, head: &'a Head, _: &'a Client) -> Verdict<'a> {
        let key = if self.header == AUTHORIZATION {
            authorization(head, "bearer")
        } else {
            head.headers.get(&self.header).map(HeaderValue::as_bytes)
        };
        match key.filter(|key| key.starts_with(self.prefix.as_bytes())) {
            None => Verdict::Absent,
            Some(key) => self.verify(key),
        }
    }
}

impl ApiKeys {
    fn verify(&self, sent: &[u8]) -> Verdict<'static> {
        let refused = |code, message| Denial::new(Reason::Unauthenticated, code, message);
        let known = if sent.len() > MAX_KEY { None } else { self.keys.get(&Sum::of(sent)) };
        match known {
            None => Verdict::Refused(refused("auth.api_key.unknown", "The API key is not known")),
            Some(owner) if owner.until.is_some_and(|end| SystemTime::now() >= end) => {
                let expired = refused("auth.api_key.expired", "The API key has expired");
                Verdict::Refused(expired.detail(format!("key `{}`", owner.subject)))
            }
            Some(owner) => Verdict::Known(owner.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;
    use std::time::Duration;

    fn keys(header: &'static str, prefix: &str) -> ApiKeys {
        let key = |name: &str, seconds: i64| {
            let day = Duration::from_secs(seconds.unsigned_abs());
            let now = SystemTime::now();
            let expires = if seconds < 0 { now - day } else { now + day };
            let until = (seconds != 0).then_some(expires);
            Arc::new(Principal { until, ..Principal::new(NAME, "", name) })
        };
        let all = [("k_one", key("one", 0)), ("k_two", key("two", 60)), ("k_old", key("old", -1))];
        ApiKeys {
            header: HeaderName::from_static(header),
            prefix: prefix.to_owned(),
            challenge: HeaderValue::from_static("Bearer"),
            keys: all.into_iter().map(|(text, key)| (Sum::of(text.as_bytes()), key)).collect(),
        }
    }

    fn ask(keys: &ApiKeys, fields: &[(&str, &str)]) -> String {
        let client = Client {
            address: "127.0.0.1".parse().unwrap(),
            hidden: false,
            tls: false,
            certificate: None,
        };
        match keys.authenticate(&head(fields), &client) {
            Verdict::Absent => "absent".to_owned(),
            Verdict::Known(who) => who.subject.clone(),
            Verdict::Refused(denial) => denial.code.to_owned(),
            Verdict::Later(_) => "later".to_owned(),
        }
    }

    #[test]
    fn keys_are_known_unknown_or_expired() {
        let keys = keys("x-api-key", "");
        assert_eq!(ask(&keys, &[("x-api-key", "k_one")]), "one");
        assert_eq!(ask(&keys, &[("x-api-key", "k_two")]), "two");
        assert_eq!(ask(&keys, &[("x-api-key", "k_old")]), "auth.api_key.expired");
        for bad in ["", "k_On", "k_onE", "k_one2", "Bearer k_one"] {
            assert_eq!(ask(&keys, &[("x-api-key", bad)]), "auth.api_key.unknown", "{bad}");
        }
        assert_eq!(ask(&keys, &[("authorization", "Bearer k_one")]), "absent");
    }

    #[test]
    fn a_prefix_tells_whose_key_it_is() {
        let keys = keys("authorization", "k_");
        assert_eq!(ask(&keys, &[("authorization", "bearer k_one")]), "one");
        assert_eq!(ask(&keys, &[("authorization", "Bearer eyJhb.x.y")]), "absent");
        assert_eq!(ask(&keys, &[("authorization", "Basic k_one")]), "absent");
        assert_eq!(ask(&keys, &[("authorization", "Bearer k_none")]), "auth.api_key.unknown");
    }
}
