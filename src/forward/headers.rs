//! What a request carries to a backend, and an answer to a client: one path, whatever carries the bytes.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use crate::base::head::Head;
use crate::base::text::{push_ip, push_number};
use crate::listen::wire::BodySize;

/// The session header of the legacy era.
pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Set on requests to backends and on every answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
    /// The body that will follow.
    pub body: BodySize,
}

/// Gives every field of the request to a backend to `emit`, Host first.
///
/// Hop-by-hop fields (RFC 9110 §7.6.1), framing, and what a client says about who it is
/// (`Forwarded`, `X-Forwarded-*`) stay behind. What `Connection` nominates is gone since the head
/// was read.
pub fn request(out: &Outgoing<'_>, emit: &mut dyn FnMut(&str, &[u8])) {
    emit("host", out.host.as_bytes());
    let headers = &out.head.headers;
    let events = accepts_events(headers);
    for (name, value) in headers {
        let coding = events && name == header::ACCEPT_ENCODING;
        if !coding && !is_own(name) {
            emit(name.as_str(), value.as_bytes());
        }
    }
    if let Some(session) = out.session {
        emit(SESSION.as_str(), session.as_bytes());
    }
    forwarded(out, emit);
    emit(REQUEST_ID.as_str(), out.request_id.as_bytes());
    if out.head.websocket {
        emit("connection", b"Upgrade");
        emit("upgrade", b"websocket");
    }
    match out.body {
        BodySize::Known(n) => {
            let mut digits = Vec::with_capacity(20);
            push_number(n, &mut digits);
            emit("content-length", &digits);
        }
        BodySize::Unknown => emit("transfer-encoding", b"chunked"),
        // RFC 9110 §8.6: methods that expect content announce that there is none
        BodySize::None if matches!(out.head.method, Method::POST | Method::PUT | Method::PATCH) => {
            emit("content-length", b"0");
        }
        BodySize::None => {}
    }
}

/// Writes the whole head of an HTTP/1.1 request.
pub fn write_request(out: &Outgoing<'_>, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(out.head.method.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(out.target.as_bytes());
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    request(out, &mut |name, value| {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    });
    bytes.extend_from_slice(b"\r\n");
}

fn forwarded(out: &Outgoing<'_>, emit: &mut dyn FnMut(&str, &[u8])) {
    let proto: &[u8] = if out.tls { b"https" } else { b"http" };
    let host = out.head.authority.as_bytes();
    let mut client = Vec::with_capacity(48);
    push_ip(out.client, &mut client);
    emit("x-forwarded-for", &client);
    emit("x-forwarded-proto", proto);
    emit("x-forwarded-host", host);
    // RFC 7239 §4, §6: IPv6 in brackets and quotes, and a host with a port in quotes
    let (open, close): (&[u8], &[u8]) =
        if out.client.is_ipv6() { (b"\"[", b"]\"") } else { (b"", b"") };
    let parts = [b"for=", open, &client, close, b";host=\"", host, b"\";proto=", proto];
    emit("forwarded", &parts.concat());
}

/// Fields that never go from a client to a backend as they are.
fn is_own(name: &HeaderName) -> bool {
    // CGI-like servers (RFC 3875 §4.1.18) read `X_Forwarded_For` as `X-Forwarded-For`
    if name.as_str().contains('_') {
        return is_own_name(&name.as_str().replace('_', "-"));
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
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|kind| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    })
}

/// Drops what a client must not get from a backend's answer: hop-by-hop and nominated fields,
/// framing (the wire writes its own), and ids that are replaced.
pub fn response(fields: &mut Vec<(HeaderName, HeaderValue)>) {
    let nominated: Vec<String> = fields
        .iter()
        .filter(|(name, _)| name == header::CONNECTION)
        .filter_map(|(_, value)| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .collect();
    fields.retain(|(name, _)| {
        !is_hop_by_hop(name.as_str())
            && *name != header::CONTENT_LENGTH
            && *name != REQUEST_ID
            && !nominated.iter().any(|n| n == name.as_str())
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
            body,
        };
        let mut got = Vec::new();
        request(&out, &mut |n, v| got.push((n.to_owned(), String::from_utf8(v.to_vec()).unwrap())));
        got
    }

    #[test]
    fn only_end_to_end_fields_travel() {
        let got = sent(
            &[
                ("connection", "close"),
                ("x-forwarded-user", "root"),
                ("x_original_url", "/admin"),
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
