//! What does it ask for? In: a head and a whole JSON body; out: a [`Call`], or a `Denial`.
//!
//! [`scan`] reads a body once and copies out only what routing, refusals and logs need. [`classify`]
//! holds that against the head and says which era of MCP the request belongs to. Bodies that are
//! not JSON-RPC pass: a later stage that enforces something per tool must itself refuse what it
//! cannot read.

pub mod envelope;
pub mod mcp;
pub mod methods;

pub use envelope::{Batch, Kind, Message, Scan, scan};
pub use mcp::{Call, Era, classify, is_json};
