//! Revocation lists that get old: in, listeners' TLS; out, a warning in good time and one when it is
//! too late, each once, and when that is.
//!
//! A list past its day lets nobody in who has a certificate, and says nothing: the file has not changed.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::trust::Days;
use crate::listen::certificate::{now, time_text};
use crate::listen::settings::TlsSettings;

/// The last part of its life in which a list should have been renewed.
const LAST: i64 = 10;

/// The revocation lists of all listeners.
pub struct Lists {
    all: Vec<TlsSettings>,
    /// What was told of a file: its day, and how late it was.
    told: Mutex<HashMap<PathBuf, (i64, Age)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Good,
    /// The next one is due soon.
    Late,
    TooOld,
}

impl Lists {
    /// Of which nothing is told yet.
    pub fn new(all: Vec<TlsSettings>) -> Self {
        Self { all, told: Mutex::default() }
    }

    /// Every file, and when it is too old, in seconds since 1970.
    pub fn expiries(&self) -> impl Iterator<Item = (String, i64)> {
        self.days().map(|days| (days.file.display().to_string(), days.due))
    }

    /// Warns of what has become late or too old since the last look.
    pub fn look(&self) {
        self.news(now()).iter().for_each(|news| log::warn!("{news}"));
    }

    fn news(&self, now: i64) -> Vec<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.days().filter_map(|days| news(&mut told, days, now)).collect()
    }

    fn days(&self) -> impl Iterator<Item = Days> {
        let clients = self.all.iter().filter_map(|tls| tls.clients.as_ref());
        let dated = |days: &Days| days.due < i64::MAX;
        clients.filter_map(|clients| clients.trust.current().revocations.clone()).filter(dated)
    }
}

impl fmt::Debug for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lists").finish_non_exhaustive()
    }
}

fn news(told: &mut HashMap<PathBuf, (i64, Age)>, days: Days, now: i64) -> Option<String> {
    let age = age(&days, now);
    let before = told.get(&days.file).filter(|(due, _)| *due == days.due);
    if before.map_or(Age::Good, |(_, age)| *age) >= age {
        return None;
    }
    let words = if age == Age::TooOld {
        format!("{}; no client certificate is taken until it is renewed", days.too_old())
    } else {
        let (file, on) = (days.file.display(), time_text(days.due));
        format!(
            "the revocation list `{file}` was not renewed: after {on} no client certificate is taken"
        )
    };
    told.insert(days.file, (days.due, age));
    Some(words)
}

fn age(days: &Days, now: i64) -> Age {
    let (life, left) = (days.due.saturating_sub(days.from), days.due.saturating_sub(now));
    match left {
        ..=0 => Age::TooOld,
        _ if left < life / LAST => Age::Late,
        _ => Age::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_told_to_be_late_once_and_too_old_once() {
        let mut told = HashMap::new();
        let mut look = |due: i64, now: i64| {
            let days = Days { file: "crl.pem".into(), from: due - 1000, due };
            news(&mut told, days, now).map_or("", |words| {
                if words.contains("too old since") { "too old" } else { "late" }
            })
        };
        assert_eq!([1000, 1899, 1900, 1901].map(|now| look(2000, now)), ["", "", "", "late"]);
        assert_eq!([1950, 1999, 2000, 2001].map(|now| look(2000, now)), ["", "", "too old", ""]);
        assert_eq!([2001, 2950, 2951].map(|now| look(3000, now)), ["", "late", ""], "another");
        assert_eq!(look(1500, 3000), "too old", "from the start");
    }
}
