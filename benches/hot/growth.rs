//! What grows with an installation, one kind at a time: in, a kind and a size; out, a closure that admits
//! one request at that size. The other sizes stay at one route and two replicas.

use bytes::Bytes;
use http::header::HeaderValue;
use mcp_edge::base::head::Head;

use super::work::admission::{Bed, head, record};
use super::work::{CALL, Once};

/// Its name, and what makes a request at a size.
type Kind = (&'static str, fn(usize) -> Once);

const KINDS: [Kind; 7] = [
    ("sessions", |n| after_sessions(Bed::new(1, 2, "round_robin"), n)),
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

/// Calls in a thousand sessions in turn, after so many other sessions were opened and used once.
fn after_sessions(bed: Bed, before: usize) -> Once {
    let (body, mut record) = (Bytes::from_static(CALL), record());
    use_sessions(&bed, before);
    let heads: Vec<Head> = (0..1000).map(|n| head(&bed.id(before + n))).collect();
    let mut turn = 0;
    Box::new(move || {
        turn = (turn + 1) % heads.len();
        bed.admit(&heads[turn], &body, &mut record, 0);
    })
}

/// Opens that many sessions and sends one call in each.
fn use_sessions(bed: &Bed, count: usize) {
    let (body, mut record, mut head) = (Bytes::from_static(CALL), record(), head("-"));
    for n in 0..count {
        head.headers.insert("mcp-session-id", HeaderValue::try_from(bed.id(n)).unwrap());
        bed.admit(&head, &body, &mut record, 0);
    }
}

/// How many KiB the process is larger after so many sessions, each opened and used once. A thousand
/// come before, so that what is allocated once does not count.
pub(crate) fn kept_kib(sessions: usize) -> i64 {
    let bed = Bed::new(1, 2, "round_robin");
    use_sessions(&bed, 1000);
    let before = resident_kib();
    use_sessions(&bed, sessions);
    resident_kib() - before
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
