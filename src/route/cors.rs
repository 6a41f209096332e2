//! Web pages of other origins (Fetch standard, "CORS protocol"): in, a request whose Origin its route
//! allows; out, the answer to a preflight, or the fields that let the page read an answer.
//!
//! Who may call is the route's `origins`; nothing here lets anybody in.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method};

use super::settings::RouteSettings;
use crate::base::head::Head;
use crate::base::names::{ascii, list};

/// What pages of other origins may send and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Request headers besides those of MCP.
    pub headers: Vec<HeaderName>,
    /// The value of `Access-Control-Expose-Headers`.
    pub expose: HeaderValue,
    /// The value of `Access-Control-Max-Age`, in seconds.
    pub max_age: HeaderValue,
    /// Whether browsers may send what they keep for us: passwords, client certificates.
    pub credentials: bool,
}

/// Request headers that MCP clients in browsers send (MCP transports; W3C Trace Context).
const REQUEST: &[&str] = &[
    "accept",
    "authorization",
    "cache-control",
    "content-type",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "traceparent",
    "tracestate",
    "x-api-key",
];
/// MCP 2026-07-28: arguments that a tool wants mirrored.
const MIRRORED: &[u8] = b"mcp-param-";
/// Answer headers that MCP clients have to read.
const EXPOSED: &str = "mcp-session-id, mcp-protocol-version, www-authenticate, \
    retry-after, ratelimit, ratelimit-policy, x-request-id";
/// Most names in a preflight that are answered.
const MOST_NAMES: usize = 64;

type Fields = Vec<(HeaderName, HeaderValue)>;

impl Default for Cors {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            expose: HeaderValue::from_static(EXPOSED),
            max_age: HeaderValue::from_static("7200"),
            credentials: false,
        }
    }
}

/// The answer to a preflight, which comes without credentials: 204 with these fields.
pub fn preflight(route: &RouteSettings, head: &Head) -> Option<Fields> {
    let cors = route.cors.as_ref().filter(|_| head.method == Method::OPTIONS)?;
    let origin = head.headers.get(ORIGIN)?;
    head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut fields = vec![
        (ACCESS_CONTROL_ALLOW_METHODS, route.methods.allow.clone()),
        (ACCESS_CONTROL_MAX_AGE, cors.max_age.clone()),
        (VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers")),
    ];
    fields.extend(cors.wanted(head).map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
    cors.admit(origin, &mut fields);
    Some(fields)
}

/// Puts in what lets the page that asked read the answer, in place of what the backend says of it.
pub fn open(route: &RouteSettings, head: &Head, fields: &mut Fields) {
    let Some(cors) = &route.cors else { return };
    let Some(origin) = head.headers.get(ORIGIN) else { return };
    fields.retain(|(name, _)| !name.as_str().starts_with("access-control-"));
    cors.admit(origin, fields);
    fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose.clone()));
    fields.push((VARY, HeaderValue::from_static("Origin")));
}

impl Cors {
    /// Lets pages read these fields of answers, too.
    pub fn expose_also(&mut self, names: &[HeaderName]) {
        let mut text = EXPOSED.to_owned();
        for name in names {
            text.push_str(", ");
            text.push_str(name.as_str());
        }
        if let Ok(value) = HeaderValue::from_str(&text) {
            self.expose = value;
        }
    }

    fn admit(&self, origin: &HeaderValue, fields: &mut Fields) {
        fields.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        if self.credentials {
            fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
    }

    /// Of the headers that a preflight asks for, those that may be sent.
    fn wanted(&self, head: &Head) -> Option<HeaderValue> {
        let asked = head.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS);
        let asked = asked.iter().filter_map(ascii).flat_map(list);
        let mut names: Vec<u8> = Vec::new();
        for name in asked.take(MOST_NAMES).filter(|name| self.allows(name)) {
            if !names.is_empty() {
                names.extend_from_slice(b", ");
            }
            names.extend(name.to_ascii_lowercase());
        }
        HeaderValue::from_maybe_shared(names).ok().filter(|names| !names.is_empty())
    }

    fn allows(&self, name: &[u8]) -> bool {
        let Ok(name) = HeaderName::from_bytes(name) else { return false };
        let text = name.as_str();
        REQUEST.contains(&text)
            || text.as_bytes().starts_with(MIRRORED)
            || self.headers.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::PathMatch;
    use super::super::table::tests::{head, route};
    use super::*;

    fn asked(fields: &[(&str, &str)]) -> Head {
        let mut head = head("mcp.example.com", "/mcp");
        head.method = Method::OPTIONS;
        for (name, value) in fields {
            head.headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        head
    }

    fn get<'a>(fields: &'a Fields, name: &HeaderName) -> Option<&'a str> {
        fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap())
    }

    #[test]
    fn a_preflight_is_told_what_may_be_sent() {
        let route = route(None, PathMatch::Prefix("/".into()), "u");
        let asked = asked(&[
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "Authorization, X-Evil,Mcp-Param-Region , cookie"),
        ]);
        let fields = preflight(&route, &asked).unwrap();
        assert_eq!(get(&fields, &ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://app.example"));
        assert_eq!(
            get(&fields, &ACCESS_CONTROL_ALLOW_HEADERS),
            Some("authorization, mcp-param-region")
        );
        assert_eq!(
            get(&fields, &ACCESS_CONTROL_ALLOW_METHODS),
            Some("GET, HEAD, POST, DELETE, OPTIONS")
        );
        assert_eq!(get(&fields, &ACCESS_CONTROL_ALLOW_CREDENTIALS), None);
    }

    #[test]
    fn what_is_no_preflight_is_not_answered() {
        let route = route(None, PathMatch::Prefix("/".into()), "u");
        let method = ("access-control-request-method", "POST");
        assert_eq!(preflight(&route, &asked(&[method])), None);
        assert_eq!(preflight(&route, &asked(&[("origin", "https://a.example")])), None);
        let mut post = asked(&[("origin", "https://a.example"), method]);
        post.method = Method::POST;
        assert_eq!(preflight(&route, &post), None);
    }

    #[test]
    fn answers_say_who_may_read_them_and_backends_do_not() {
        let mut route = route(None, PathMatch::Prefix("/".into()), "u");
        let asked = asked(&[("origin", "https://app.example")]);
        let theirs = || vec![(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))];
        let mut fields = theirs();
        open(&route, &asked, &mut fields);
        assert_eq!(get(&fields, &ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://app.example"));
        assert!(get(&fields, &ACCESS_CONTROL_EXPOSE_HEADERS).unwrap().contains("mcp-session-id"));
        route.cors = None;
        let mut fields = theirs();
        open(&route, &asked, &mut fields);
        assert_eq!(fields, theirs());
    }
}
