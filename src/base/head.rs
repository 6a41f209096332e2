//! A request's head: in, what a wire has checked; out, what every stage sees, whatever wire it came in on.

use http::header::AsHeaderName;
use http::{HeaderMap, Method};

/// Which HTTP the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no keep-alive.
    H10,
    /// HTTP/1.1.
    H11,
    /// HTTP/2.
    H2,
}

/// The parsed head: syntax has been checked by the wire, meaning has not.
#[derive(Debug, Clone)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path exactly as it was sent, without query; starts with `/`, or is `*`.
    pub path: String,
    /// What follows `?`, exactly as it was sent.
    pub query: Option<String>,
    /// The single authority: `Host`, or `:authority` in HTTP/2. Lower case, port included if sent.
    pub authority: String,
    /// All other fields. `Host` is not among them.
    pub headers: HeaderMap,
    /// The wire's version.
    pub version: Version,
    /// Whether it asks for a WebSocket (RFC 6455 §4.1).
    pub websocket: bool,
}

impl Head {
    /// That of a request whose own could not be read: for the one who answers it all the same.
    pub fn unread() -> Self {
        Self {
            method: Method::GET,
            path: String::new(),
            query: None,
            authority: String::new(),
            headers: HeaderMap::new(),
            version: Version::H11,
            websocket: false,
        }
    }

    /// The value of a header that may stand only once; `None` when absent, doubled or not ASCII.
    pub fn single(&self, name: impl AsHeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        if values.next().is_some() {
            return None;
        }
        first.to_str().ok()
    }
}
