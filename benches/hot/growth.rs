//! What grows with an installation, one kind at a time: in, a kind and a size; out, a closure that admits
//! one request at that size. The other sizes stay at one route and two replicas.

use super::work::Once;
use super::work::admission::Bed;

/// Every kind: its name, and what makes a bed of a size.
const KINDS: [(&str, fn(usize) -> Once); 7] = [
    ("sessions", |n| Bed::new(1, 2, "round_robin").after_sessions(n)),
    ("routes", |n| Bed::new(n, 2, "round_robin").in_session()),
    ("replicas, in a session", |n| Bed::new(1, n, "round_robin").in_session()),
    ("replicas, round_robin", |n| Bed::new(1, n, "round_robin").initialize()),
    ("replicas, least_requests", |n| Bed::new(1, n, "least_requests").initialize()),
    ("replicas, first_available", |n| Bed::new(1, n, "first_available").initialize()),
    ("replicas, by caller", |n| Bed::new(1, n, "round_robin").by_caller()),
];

/// The names of all kinds.
pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// One request at a size.
pub(crate) fn at(kind: &str, size: usize) -> Once {
    let (_, make) = KINDS.iter().find(|(name, _)| *name == kind).unwrap();
    make(size)
}

/// How many KiB the process is larger after so many sessions, each opened and used once. A thousand
/// come before, so that what is allocated once does not count.
pub(crate) fn kept_kib(sessions: usize) -> i64 {
    let bed = Bed::new(1, 2, "round_robin");
    bed.use_sessions(1000);
    let before = resident_kib();
    bed.use_sessions(sessions);
    resident_kib() - before
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
