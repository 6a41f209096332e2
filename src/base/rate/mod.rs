//! Rates: in, a rate and keys; out, whether a key has room for one more, or how long it has to wait.

mod buckets;
mod counts;

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

pub use buckets::{Buckets, Clock, Held, Room, Wait};
pub use counts::{Counts, HeldCount, Permit};

/// The longest time in which a bucket may fill up, in days: times fit in nanoseconds many times over.
const MOST_DAYS: u64 = 3650;

/// How many per time, and how many at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Per [`Rate::period`].
    pub count: NonZeroU32,
    /// One second, minute, hour or day.
    pub period: Duration,
    /// How many may come at once after a time of silence. Default: `count`.
    pub burst: NonZeroU32,
    quota: Quota,
    /// Nanoseconds in which one more comes in, rounded up: never above the rate.
    each: u64,
}

impl Rate {
    /// Parses `60/m burst 20`, `5/s`, `1000/h`, `1/d`.
    ///
    /// # Errors
    /// A sentence that says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let (rate, rest) = (words.next().unwrap_or_default(), (words.next(), words.next()));
        let (count, unit) = rate.split_once('/').ok_or_else(|| expected(text))?;
        let count: NonZeroU32 = number(count).ok_or_else(|| expected(text))?;
        let burst = match rest {
            (None, _) => count,
            (Some("burst"), Some(burst)) => number(burst).ok_or_else(|| expected(text))?,
            _ => return Err(expected(text)),
        };
        let period = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(expected(text)),
        };
        if words.next().is_some() {
            return Err(expected(text));
        }
        Self::new(count, period, burst).ok_or_else(|| {
            format!("`{text}` is too much: a full burst must come back within {MOST_DAYS} days")
        })
    }

    fn new(count: NonZeroU32, period: Duration, burst: NonZeroU32) -> Option<Self> {
        let nanos = u64::try_from(period.as_nanos()).ok()?;
        let each = nanos.div_ceil(u64::from(count.get()));
        let full = each.checked_mul(u64::from(burst.get()))?;
        let most = Duration::from_secs(MOST_DAYS * 86_400);
        if Duration::from_nanos(full) > most {
            return None;
        }
        let quota = Quota::with_period(Duration::from_nanos(each))?.allow_burst(burst);
        Some(Self { count, period, burst, quota, each })
    }
}

/// As in a config.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "m",
            3_600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit} burst {}", self.count, self.burst)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Digits alone: `+5` is no number here.
fn number(text: &str) -> Option<NonZeroU32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn expected(text: &str) -> String {
    format!("`{text}` is not a rate: write one such as `60/m burst 20`, with s, m, h or d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, shown) in [
            ("60/m burst 20", "60/m burst 20"),
            ("5/s", "5/s burst 5"),
            ("1000/h  burst 50", "1000/h burst 50"),
            (" 1/d", "1/d burst 1"),
        ] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "60",
            "60/m burst",
            "60/m burst 0",
            "0/s",
            "60/w",
            "60/m 20",
            "-1/s",
            "+1/s",
            "/s",
            "1.5/s",
            "60/m burst 20 30",
            "60/m bursts 20",
            "5 /s",
            "99999999999/s",
            "1/d burst 4000000",
        ] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
        // 7 do not divide a second: rounded so that eight never fit
        assert!(Rate::parse("7/s").unwrap().each * 7 >= 1_000_000_000);
    }
}
