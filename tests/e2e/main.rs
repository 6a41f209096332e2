//! In: the real binary over real loopback sockets; out: what clients, backends and operators see of it.
//!
//! Nothing here looks inside: every rule is checked on the wire. `MCP_EDGE_BIN` names another build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]

mod support;

mod addresses;
mod admin;
mod audit;
mod auth;
mod authz;
mod browsers;
mod control;
mod counting;
mod deployed;
mod draining;
mod forward;
mod hostile;
mod limits;
mod malformed;
mod oauth;
mod operate;
mod paths;
mod reload;
mod run;
mod secrets;
mod seeing;
mod slow;
mod sse;
mod sticky;
mod tls;
mod upgrade;
mod traces;
