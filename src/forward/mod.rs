//! To the backend: in, a checked request and a `Plan`; out, the backend's answer head and a
//! connection that its body comes from.
//!
//! Our own HTTP/1.1 client on tokio and `httparse`: Pingora's connector costs 8.8 KiB of future and a
//! 64 KiB buffer per stream and flushes the head apart from the body. What a request carries to a
//! backend is decided in one place, [`headers`], whatever carries the bytes.

mod budget;
pub mod carrier;
pub mod conn;
pub mod connect;
pub mod counts;
mod gate;
pub mod head;
pub mod headers;
pub mod names;
pub mod pool;
pub mod probe;
pub mod tls;
