//! Which replica gets it? In: an upstream and what is known of the request; out: a replica.

pub mod policy;
pub mod session;
pub mod settings;
