//! How much? In: what a request wants; out, permits that it holds until it is over, or a `Denial`.
//!
//! A limit says at which point it acts: before auth (keys that are known by then: addresses), right after
//! it (all others), when a request is known to be for a stream (streams), or while a body is read
//! ([`buffer`]). The limits of one point are looked at together and
//! taken from together: a refusal by one takes nothing from another.
//!
//! What is counted is counted in this process. A count that several edges share (by Redis) would be one
//! more [`rules::Gate`].

pub mod buffer;
pub mod compile;
pub mod key;
mod refusal;
pub mod rules;
