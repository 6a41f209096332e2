//! Limits as the proxy sees them: in, who asks; out, permits that are held until the request is over.
//!
//! The kinds of limits and keys are in `limit`; these words are here because a route carries its limits.

use std::fmt;
use std::sync::Arc;

use super::caller::Client;
use super::denial::Denial;
use super::head::Head;
use super::principal::Principal;
use super::rate::{Buckets, Permit, Room};

/// All limits of a route.
pub trait Limits: fmt::Debug + Send + Sync {
    /// Asks the limits that act before anybody is authenticated.
    ///
    /// # Errors
    /// 429 where one has no room; then nothing is taken from any.
    fn before_auth(&self, asker: &Asker<'_>, permits: &mut Permits) -> Result<(), Denial>;

    /// Asks all others but those of streams.
    ///
    /// # Errors
    /// As [`Limits::before_auth`]; what that one took is given back.
    fn after_auth(&self, asker: &Asker<'_>, permits: &mut Permits) -> Result<(), Denial>;

    /// Asks the limits of streams, for what stays open.
    ///
    /// # Errors
    /// As [`Limits::before_auth`]; what the others took is given back.
    fn stream(&self, asker: &Asker<'_>, permits: &mut Permits) -> Result<(), Denial>;

    /// Counts an answer that has turned out to be a stream: its call was made, so it is let through even
    /// where there is no room for another.
    fn count_stream(&self, asker: &Asker<'_>, permits: &mut Permits);

    /// Drops what needs no memory any more.
    fn sweep(&self);

    /// Each limit in words, and whether it acts before anybody is authenticated.
    fn described(&self) -> Vec<(bool, String)>;
}

/// Who asks, as far as it is known. Keys of sessions and tools will need more fields.
#[derive(Debug)]
pub struct Asker<'a> {
    /// The request.
    pub head: &'a Head,
    /// Where it comes from.
    pub client: &'a Client,
    /// Who sent it; absent before that is known.
    pub principal: Option<&'a Principal>,
}

/// What a request has taken. Places among so many at once are free again when it is dropped.
#[derive(Debug, Default)]
pub struct Permits {
    /// Limits that had no room: at most one list for a request, and nearly always empty.
    pub limited: Vec<Limited>,
    /// Places that are taken.
    pub held: Vec<Permit>,
    /// What may have to be given back.
    taken: Vec<Taken>,
}

/// A limit that had no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// The kind of its key.
    pub key: &'static str,
    /// `rate`, `in_flight` or `streams`.
    pub what: &'static str,
    /// Whether the request was let through all the same.
    pub dry_run: bool,
}

#[derive(Debug)]
struct Taken {
    buckets: Arc<Buckets<u128>>,
    key: u128,
    room: Room,
}

impl Permits {
    /// Notes what was taken from a bucket, in case that a later limit refuses.
    pub fn took(&mut self, buckets: &Arc<Buckets<u128>>, key: u128, room: Room) {
        self.taken.push(Taken { buckets: buckets.clone(), key, room });
    }

    /// Gives back what was taken so far, places too.
    pub fn undo(&mut self) {
        for taken in self.taken.drain(..) {
            taken.buckets.give_back(&taken.key, taken.room);
        }
        self.held.clear();
    }

    /// Nothing will be given back any more.
    pub fn settle(&mut self) {
        self.taken = Vec::new();
    }
}
