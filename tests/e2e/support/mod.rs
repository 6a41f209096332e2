//! What all e2e tests stand on. In: what a test asks for; out: a real edge, real backends, real clients; waits
//! on conditions only.

pub(crate) mod backend;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod edge;
pub(crate) mod h2;
pub(crate) mod mcp;
pub(crate) mod provider;
pub(crate) mod signer;
pub(crate) mod wait;
