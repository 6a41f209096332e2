//! How much? In: what a request wants; out, permits that it holds until it is over, or a `Denial`.
//!
//! A limit says at which point it acts: before auth (addresses), after it (callers), or while a body
//! is read ([`buffer`]). So far there is the last one.

pub mod buffer;
