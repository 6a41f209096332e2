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

/// What is known of one upstream.
#[derive(Debug, Default)]
pub(super) struct Minted {
    any: AtomicBool,
    places: ArcSwap<Vec<Place>>,
}

/// A path, or all below it where it ends with a slash and so many were met there that they must be made up.
#[derive(Debug, Clone)]
struct Place {
    path: String,
    below: bool,
    since: Instant,
}

impl Place {
    fn holds(&self, path: &str) -> bool {
        self.path == path || self.below && path.starts_with(&self.path)
    }
}

impl Minted {
    /// A request without a session was refused at `path`, and its answer named a session.
    pub(super) fn note(&self, path: &str, now: Instant) {
        self.places.rcu(|known| {
            let fresh = |place: &&Place| now.saturating_duration_since(place.since) < KEPT;
            let mut places: Vec<Place> = known.iter().filter(fresh).cloned().collect();
            let mut place = match places.iter().find(|place| place.holds(path)) {
                Some(known) => known.clone(),
                None => Place { path: path.to_owned(), below: false, since: now },
            };
            if places.len() >= MOST && !places.iter().any(|known| known.holds(path)) {
                let shared = places.iter().map(|known| folder(&known.path, path));
                let longest = shared.max_by_key(|shared| shared.len()).unwrap_or("/");
                place = Place { path: longest.to_owned(), below: true, since: now };
            }
            place.since = now;
            places.retain(|known| !place.holds(&known.path));
            places.push(place);
            places
        });
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether requests without a session are kept from the server at `path`.
    pub(super) fn is_at(&self, path: &str, now: Instant) -> bool {
        let fresh = |place: &Place| now.saturating_duration_since(place.since) < KEPT;
        self.any.load(Ordering::Relaxed)
            && self.places.load().iter().any(|place| place.holds(path) && fresh(place))
    }
}

/// What two paths have in common, up to a slash.
fn folder<'p>(one: &str, other: &'p str) -> &'p str {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let shared = other.as_bytes().get(..same).unwrap_or_default();
    let end = memchr::memrchr(b'/', shared).map_or(0, |at| at + 1);
    other.get(..end).unwrap_or_default()
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
        let later = start + KEPT;
        for n in 0..2 * MOST {
            minted.note(&format!("/mcp/{n}"), later);
            assert!(minted.places.load().len() <= MOST);
        }
        assert!(minted.is_at("/mcp/0", later));
        assert!(minted.is_at("/mcp/another", later), "made-up paths hide none");
        assert!(!minted.is_at("/sse", later), "nor do they shut others");
        assert!(!minted.is_at("/mcp/0", later + KEPT));
    }
}
