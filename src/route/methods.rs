//! HTTP methods of a route: in, its list; out, whether a request's is among them, and the `Allow` field.

use http::header::ALLOW;
use http::{HeaderValue, Method};

use crate::base::denial::{Denial, Reason};

/// The methods that a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Methods {
    /// Absent: all but TRACE and CONNECT.
    list: Option<Vec<Method>>,
    /// The list as the field `Allow` has it (RFC 9110 §10.2.1).
    pub allow: HeaderValue,
}

/// Both eras of MCP and the old transport, WebSocket (GET), and what browsers and monitors ask.
const OF_MCP: [Method; 5] =
    [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS];
/// The same, and what other HTTP services take.
const COMMON: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Default for Methods {
    fn default() -> Self {
        Self::only(OF_MCP.to_vec())
    }
}

impl Methods {
    /// These and no others.
    pub fn only(list: Vec<Method>) -> Self {
        let names: Vec<&str> = list.iter().map(Method::as_str).collect();
        // a method is a token, and tokens and commas make a value
        let allow = HeaderValue::from_str(&names.join(", "));
        Self { allow: allow.unwrap_or(HeaderValue::from_static("")), list: Some(list) }
    }

    /// All but TRACE and CONNECT.
    pub fn any() -> Self {
        Self { list: None, allow: HeaderValue::from_static(COMMON) }
    }

    /// Refuses what is not taken.
    ///
    /// # Errors
    /// 405 with the field `Allow`.
    pub fn check(&self, method: &Method) -> Result<(), Denial> {
        if self.takes(method) { Ok(()) } else { Err(self.refusal()) }
    }

    /// 405 with the field `Allow`.
    pub fn refusal(&self) -> Denial {
        Denial::new(Reason::MethodNotAllowed, "route.method", "This method is not served")
            .field(ALLOW, self.allow.clone())
    }

    fn takes(&self, method: &Method) -> bool {
        match &self.list {
            Some(list) => list.contains(method),
            None => !matches!(*method, Method::TRACE | Method::CONNECT),
        }
    }
}

/// Reads one that a list may name: in capitals, as they go over the wire (RFC 9110 §9.1).
///
/// # Errors
/// What is wrong with it.
pub fn method(text: &str) -> Result<Method, String> {
    if text == "TRACE" || text == "CONNECT" {
        return Err(format!("`{text}` is never served"));
    }
    let good = !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase());
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| good);
    method.ok_or_else(|| format!("`{text}` is not a method: write one in capitals, such as `POST`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_and_connect_are_never_taken() {
        for methods in [Methods::default(), Methods::any()] {
            assert!(methods.takes(&Method::POST));
            assert!(!methods.takes(&Method::TRACE) && !methods.takes(&Method::CONNECT));
        }
        assert!(!Methods::default().takes(&Method::PUT) && Methods::any().takes(&Method::PUT));
        assert!(method("TRACE").is_err() && method("get").is_err() && method("").is_err());
        assert_eq!(Methods::only(vec![method("GET").unwrap()]).allow, "GET");
    }
}
