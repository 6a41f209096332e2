//! Paths at which an upstream makes a session of each request without one: in, what its answers show; out,
//! whether to ask it at all.
//!
//! Some servers (those of the Python SDK before 1.30 and 2.2) register a session even for a GET, HEAD or
//! OPTIONS that they refuse, and keep it for ever: a monitor, or anybody, fills their memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// Most paths that are kept; servers have one or two of this kind.
const MOST: usize = 16;
/// After this a path is forgotten, so that a server that was mended is asked again.
const KEPT: Duration = Duration::from_secs(600);

/// Stands for every path: none is empty.
const EVERY: &str = "";

/// What is known of one upstream.
#[derive(Debug, Default)]
pub(super) struct Minted {
    any: AtomicBool,
    paths: ArcSwap<Vec<(String, Instant)>>,
}

impl Minted {
    /// A request without a session was refused at `path`, and its answer named a session.
    pub(super) fn note(&self, path: &str, now: Instant) {
        self.paths.rcu(|known| {
            let fresh = |(other, since): &&(String, Instant)| other != path && now - *since < KEPT;
            let mut paths: Vec<_> = known.iter().filter(fresh).cloned().collect();
            // so many that they must be made up: the last place stands for all of them
            let path = if paths.len() < MOST - 1 { path } else { EVERY };
            paths.retain(|(other, _)| other != path);
            paths.push((path.to_owned(), now));
            paths
        });
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether requests without a session are kept from the server at `path`.
    pub(super) fn is_at(&self, path: &str, now: Instant) -> bool {
        self.any.load(Ordering::Relaxed)
            && self.paths.load().iter().any(|(known, since)| {
                (known == path || known == EVERY) && now.saturating_duration_since(*since) < KEPT
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_for_a_while_and_bounded() {
        let (minted, start) = (Minted::default(), Instant::now());
        assert!(!minted.is_at("/mcp", start));
        minted.note("/mcp", start);
        minted.note("/mcp", start);
        assert!(minted.is_at("/mcp", start) && !minted.is_at("/sse", start));
        assert!(!minted.is_at("/mcp", start + KEPT));
        for n in 0..2 * MOST {
            minted.note(&format!("/{n}"), start + KEPT);
        }
        assert_eq!(minted.paths.load().len(), MOST);
        assert!(minted.is_at("/0", start + KEPT));
        assert!(minted.is_at("/another", start + KEPT), "made-up paths hide none");
    }
}
