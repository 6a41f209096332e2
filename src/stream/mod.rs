//! What goes back? In: a backend's response; out: what the client may see of it, at once.

pub mod endpoint;
pub mod endpoint_url;
pub mod sse;
