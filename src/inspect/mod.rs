//! What does it ask for? In: a head and a whole JSON body; out: a [`Call`], or a `Denial`.
//!
//! [`scan`] reads a body once and copies out only what routing, refusals and logs need. [`classify`]
//! holds that against the head and says which era of MCP the request belongs to. Bodies that are
//! not JSON-RPC pass, but not where something is enforced per tool: there, [`strict`] refuses what it
//! cannot read.

pub mod arguments;
pub mod envelope;
pub mod error;
pub mod look;
pub mod mcp;
pub mod methods;
pub(crate) mod read;
pub mod strict;

pub use envelope::{Batch, CALLS, Kind, Message, Scan, TOOLS_CALL, scan, scan_strictly};
pub use mcp::{Call, Era, classify, is_json};
