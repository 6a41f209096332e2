//! When is a certificate renewed? In: what is held and what is wanted; out, how long to wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A certificate on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Its DNS names.
    pub names: Vec<String>,
    /// Valid from, in seconds since 1970.
    pub from: i64,
    /// Valid until, in seconds since 1970.
    pub until: i64,
    /// Made by the edge itself, until the real one is there.
    pub placeholder: bool,
}

/// Zero when a new one is due: none is held, it lacks a name, or two thirds of its life are over
/// (30 days before the end of one of 90; a `jitter` of 0 to 1 makes it up to a twentieth earlier, so
/// that edges and certificates do not all come at once).
pub(super) fn wait(
    held: Option<&Held>,
    wanted: &[String],
    now: SystemTime,
    jitter: f64,
) -> Duration {
    let Some(held) = held.filter(|held| !held.placeholder) else { return Duration::ZERO };
    if wanted.iter().any(|name| !held.names.contains(name)) {
        return Duration::ZERO;
    }
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let (from, until) = (time(held.from), time(held.until));
    let life = until.duration_since(from).unwrap_or_default();
    let at = from + life.mul_f64(2.0 / 3.0 - jitter / 20.0);
    at.duration_since(now).unwrap_or_default()
}

/// From 0 to 1; where the system has no randomness, the middle.
pub(super) fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn held() -> Held {
        let until = i64::try_from(90 * DAY).unwrap();
        Held { names: vec!["a.example".into()], from: 0, until, placeholder: false }
    }

    fn days(held: Option<&Held>, wanted: &[&str], day: u64, jitter: f64) -> u64 {
        let wanted: Vec<String> = wanted.iter().map(|&n| n.to_owned()).collect();
        let now = UNIX_EPOCH + Duration::from_secs(day * DAY);
        (wait(held, &wanted, now, jitter).as_secs() + DAY / 2) / DAY
    }

    #[test]
    fn a_third_of_its_life_before_the_end() {
        let held = held();
        assert_eq!(days(Some(&held), &["a.example"], 0, 0.0), 60);
        assert_eq!(days(Some(&held), &["a.example"], 59, 0.0), 1);
        assert_eq!(days(Some(&held), &["a.example"], 60, 0.0), 0);
        assert_eq!(days(Some(&held), &["a.example"], 100, 0.0), 0);
        assert_eq!(days(Some(&held), &["a.example"], 0, 0.5), 58, "2.25 days earlier");
    }

    #[test]
    fn at_once_when_there_is_none_or_a_name_is_missing() {
        let held = held();
        assert_eq!(days(None, &["a.example"], 1, 0.0), 0);
        assert_eq!(days(Some(&held), &["a.example", "b.example"], 1, 0.0), 0);
        let placeholder = Held { placeholder: true, ..held.clone() };
        assert_eq!(days(Some(&placeholder), &["a.example"], 1, 0.0), 0);
        let more = Held { names: vec!["b.example".into(), "a.example".into()], ..held };
        assert_eq!(days(Some(&more), &["a.example"], 1, 0.0), 59);
    }
}
