//! Fields on their way, whatever carries the bytes: in, a request or an answer; out, what a backend gets of the
//! one, and a client of the other.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use crate::base::head::Head;
use crate::base::names::{MCP_SESSION_ID, X_REQUEST_ID, ascii, header_name, is_type, list};
use crate::base::principal::Principal;
use crate::base::text::{push_ip, push_number};
use crate::base::trace::{TRACEPARENT, TRACESTATE, Trace};
use crate::listen::wire::BodySize;
use crate::route::outgoing::{Outgoing as RouteEdits, reads_as};

/// The session header of the legacy era.
pub const SESSION: HeaderName = MCP_SESSION_ID;
/// Set on requests to backends and on every answer.
pub const REQUEST_ID: HeaderName = X_REQUEST_ID;

/// All that a request to a backend says beyond the client's own fields.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// What the client sent.
    pub head: &'a Head,
    /// Path and query for the backend.
    pub target: &'a str,
    /// The Host for the backend.
    pub host: &'a str,
    /// The backend's own session id.
    pub session: Option<&'a str>,
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client speaks TLS to us.
    pub tls: bool,
    /// The request's id.
    pub request_id: &'a str,
    /// What it is known by in traces; absent: what the client says of that goes on as it is.
    pub trace: Option<&'a Trace>,
    /// Who asks.
    pub principal: &'a Principal,
    /// What the route does to fields.
    pub route: Option<&'a RouteEdits>,
    /// What the edge shows to the backend of itself.
    pub credential: Option<&'a (HeaderName, HeaderValue)>,
    /// Whether the answer will be read on its way: it must come whole, and not coded.
    pub readable: bool,
    /// The body that will follow.
    pub body: BodySize,
}

/// Writes every field of the request to a backend, Host first.
///
/// Hop-by-hop fields (RFC 9110 §7.6.1), framing, and what a client says about who it is
/// (`Forwarded`, `X-Forwarded-*`) stay behind. What `Connection` nominates is gone since the head
/// was read.
fn request(out: &Outgoing<'_>, bytes: &mut Vec<u8>) {
    line(bytes, b"host: ", out.host.as_bytes());
    let headers = &out.head.headers;
    let configured = out.route.is_some() || out.credential.is_some();
    for (name, value) in headers {
        let coding = *name == header::ACCEPT_ENCODING && (out.readable || accepts_events(headers));
        let part = out.readable && (*name == header::RANGE || *name == header::IF_RANGE);
        let traced = out.trace.is_some() && (*name == TRACEPARENT || *name == TRACESTATE);
        let dropped =
            coding || part || traced || is_own(name) || configured && is_replaced(out, name);
        if !dropped {
            bytes.extend_from_slice(name.as_str().as_bytes());
            line(bytes, b": ", value.as_bytes());
        }
    }
    if out.readable {
        line(bytes, b"accept-encoding: ", b"identity");
    }
    if let Some(session) = out.session {
        line(bytes, b"mcp-session-id: ", session.as_bytes());
    }
    forwarded(out, bytes);
    if configured {
        replacements(out, bytes);
    }
    line(bytes, b"x-request-id: ", out.request_id.as_bytes());
    if let Some(trace) = out.trace {
        trace.write(bytes);
    }
    if out.head.websocket {
        bytes.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
    }
    match out.body {
        BodySize::Known(n) => {
            bytes.extend_from_slice(b"content-length: ");
            push_number(n, bytes);
            bytes.extend_from_slice(b"\r\n");
        }
        BodySize::Unknown => bytes.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // RFC 9110 §8.6: methods that expect content announce that there is none
        BodySize::None if matches!(out.head.method, Method::POST | Method::PUT | Method::PATCH) => {
            bytes.extend_from_slice(b"content-length: 0\r\n");
        }
        BodySize::None => {}
    }
}

/// Whether a client's field gives way to one of the config's, or is a credential that ends here.
fn is_replaced(out: &Outgoing<'_>, name: &HeaderName) -> bool {
    out.route.is_some_and(|route| route.drops(name))
        || out.credential.is_some_and(|(own, _)| reads_as(name, own))
}

/// What the config says in place of the client. A credential of the upstream goes last: what the
/// route sets by that name gives way to it.
fn replacements(out: &Outgoing<'_>, bytes: &mut Vec<u8>) {
    let credential = out.credential;
    if let Some(route) = out.route {
        route.write(out.principal, out.client, credential.map(|(name, _)| name), bytes);
    }
    if let Some((name, value)) = credential {
        bytes.extend_from_slice(name.as_str().as_bytes());
        line(bytes, b": ", value.as_bytes());
    }
}

/// Writes the whole head of an HTTP/1.1 request.
pub fn write_request(out: &Outgoing<'_>, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(out.head.method.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(out.target.as_bytes());
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    request(out, bytes);
    bytes.extend_from_slice(b"\r\n");
}

/// The end of a field: what stands before its value, the value, and CRLF.
fn line(bytes: &mut Vec<u8>, before: &[u8], value: &[u8]) {
    bytes.extend_from_slice(before);
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

fn forwarded(out: &Outgoing<'_>, bytes: &mut Vec<u8>) {
    let proto: &[u8] = if out.tls { b"https" } else { b"http" };
    let host = out.head.authority.as_bytes();
    bytes.extend_from_slice(b"x-forwarded-for: ");
    let from = bytes.len();
    push_ip(out.client, bytes);
    let client = from..bytes.len();
    line(bytes, b"\r\nx-forwarded-proto: ", proto);
    line(bytes, b"x-forwarded-host: ", host);
    // RFC 7239 §4, §6: IPv6 in brackets and quotes, and a host with a port in quotes
    let (open, close): (&[u8], &[u8]) =
        if out.client.is_ipv6() { (b"\"[", b"]\"") } else { (b"", b"") };
    bytes.extend_from_slice(b"forwarded: for=");
    bytes.extend_from_slice(open);
    bytes.extend_from_within(client);
    bytes.extend_from_slice(close);
    bytes.extend_from_slice(b";host=\"");
    bytes.extend_from_slice(host);
    line(bytes, b"\";proto=", proto);
}

/// Fields that never go from a client to a backend as they are.
fn is_own(name: &HeaderName) -> bool {
    // CGI-like servers (RFC 3875 §4.1.18) read `X_Forwarded_For` as `X-Forwarded-For`, and some any sign
    let odd = |b: char| !b.is_ascii_alphanumeric() && b != '-';
    if name.as_str().contains(odd) {
        return is_own_name(&name.as_str().replace(odd, "-"));
    }
    is_own_name(name.as_str())
}

fn is_own_name(name: &str) -> bool {
    is_hop_by_hop(name)
        || name.starts_with("x-forwarded")
        || matches!(
            name,
            "host"
                | "content-length"
                | "expect"
                | "forwarded"
                // who a client says it is, or where it says it wants to go behind our path check
                | "x-original-url"
                | "x-original-host"
                | "x-rewrite-url"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "cf-connecting-ipv6"
                | "fastly-client-ip"
                | "x-envoy-external-address"
                // httpoxy
                | "proxy"
                | "x-real-ip"
                | "x-request-id"
                | "mcp-session-id"
        )
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Whether the client takes an event stream: then a coded answer would only be in the way.
pub fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(ascii);
    values.flat_map(list).any(|kind| is_type(kind, b"text/event-stream"))
}

/// Drops what a client must not get from a backend's answer: hop-by-hop and nominated fields,
/// framing (the wire writes its own), and ids that are replaced.
pub fn response(fields: &mut Vec<(HeaderName, HeaderValue)>) {
    let nominates = |(name, _): &(HeaderName, HeaderValue)| *name == header::CONNECTION;
    let nominated: Vec<HeaderName> = fields
        .iter()
        .filter(|field| nominates(field))
        .filter_map(|(_, value)| ascii(value))
        .flat_map(list)
        .filter_map(header_name)
        .collect();
    fields.retain(|(name, _)| {
        !is_hop_by_hop(name.as_str())
            && *name != header::CONTENT_LENGTH
            && *name != REQUEST_ID
            && !nominated.contains(name)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::head::Version;

    fn sent(fields: &[(&str, &str)], body: BodySize) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let head = Head {
            method: Method::POST,
            path: "/".into(),
            query: None,
            authority: "mcp.example.com:8443".into(),
            headers,
            version: Version::H11,
            websocket: false,
        };
        let out = Outgoing {
            head: &head,
            target: "/mcp",
            host: "127.0.0.1:8000",
            session: Some("inner"),
            client: "2001:db8::1".parse().unwrap(),
            tls: true,
            request_id: "id",
            trace: None,
            principal: &Principal::anonymous(),
            route: None,
            credential: None,
            readable: false,
            body,
        };
        let mut bytes = Vec::new();
        request(&out, &mut bytes);
        let lines = std::str::from_utf8(&bytes).unwrap().strip_suffix("\r\n").unwrap();
        let fields = lines.split("\r\n").map(|line| line.split_once(": ").unwrap());
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn only_end_to_end_fields_travel() {
        let got = sent(
            &[
                ("connection", "close"),
                ("x-forwarded-user", "root"),
                ("x_original_url", "/admin"),
                ("x.forwarded.for", "6.6.6.6"),
                ("mcp.session_id", "raw"),
                ("te", "trailers"),
                ("content-length", "3"),
                ("x-forwarded-for", "6.6.6.6"),
                ("forwarded", "for=6.6.6.6"),
                ("mcp-session-id", "e1.sealed"),
                ("expect", "100-continue"),
                ("accept", "application/json, text/event-stream"),
                ("accept-encoding", "gzip"),
                ("mcp-method", "tools/call"),
            ],
            BodySize::Known(3),
        );
        let names: Vec<&str> = got.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(
            names,
            [
                "host",
                "accept",
                "mcp-method",
                "mcp-session-id",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "forwarded",
                "x-request-id",
                "content-length"
            ]
        );
        let value = |name: &str| got.iter().find(|(n, _)| n == name).unwrap().1.as_str();
        assert_eq!(value("mcp-session-id"), "inner");
        assert_eq!(value("x-forwarded-for"), "2001:db8::1");
        assert_eq!(
            value("forwarded"),
            "for=\"[2001:db8::1]\";host=\"mcp.example.com:8443\";proto=https"
        );
    }

    #[test]
    fn answers_lose_their_hops() {
        let field = |n: &'static str, v: &'static str| {
            (HeaderName::from_static(n), HeaderValue::from_static(v))
        };
        let mut fields = vec![
            field("connection", "X-Hop"),
            field("x-hop", "1"),
            field("keep-alive", "timeout=5"),
            field("transfer-encoding", "chunked"),
            field("content-type", "a/b"),
        ];
        response(&mut fields);
        assert_eq!(fields, [field("content-type", "a/b")]);
    }
}
