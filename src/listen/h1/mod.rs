//! HTTP/1.1 towards clients: in, a connection's bytes; out, one checked request after another.

pub mod authority;
pub mod conn;
mod frames;
pub mod head;
mod line;
mod request_line;
mod tunnel;
mod write;
