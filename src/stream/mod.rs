//! Answers on their way to the client: in, pieces from a backend; out, pieces on a wire, at once.

mod course;
pub mod endpoint;
pub mod endpoint_url;
pub mod events;
mod held;
pub mod passed;
pub mod pump;
pub mod sse;
pub mod tool_events;
pub mod tools;
