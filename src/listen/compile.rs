//! Listeners of the config: in, the `listeners` node; out, checked settings with loaded certificates.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};

use super::certificate;
use super::door::{Door, Proxies};
use super::settings::{Certificate, ListenerSettings, TlsSettings};
use crate::base::compile::{Cx, Node};
use crate::base::fields::Fields;
use crate::base::{defaults, edits, url};

/// More connections than this need more file descriptors than systems give.
const MOST_CONNECTIONS: u64 = 1_000_000;

/// Compiles the list; what is wrong is noted in `cx`.
pub fn listeners(
    node: &Node,
    proxies: &Arc<Proxies>,
    cx: &mut Cx,
) -> Option<Vec<ListenerSettings>> {
    let mut seen: Vec<(SocketAddr, usize)> = Vec::new();
    cx.filled_list(node, |node, cx| {
        let listener = listener(node, proxies, cx)?;
        let address = listener.address;
        if let Some((other, line)) = seen.iter().find(|(other, _)| collide(*other, address)) {
            cx.error(node, format!("`{address}` collides with `{other}` of line {line}"));
        }
        seen.push((address, node.line));
        Some(listener)
    })
}

/// Whether two listeners cannot both be bound.
pub fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let one_is_any = a.ip().is_unspecified() || b.ip().is_unspecified();
    let same_ip = a.ip() == b.ip() || (one_is_any && a.is_ipv4() == b.is_ipv4());
    a.port() != 0 && a.port() == b.port() && same_ip
}

fn listener(node: &Node, proxies: &Arc<Proxies>, cx: &mut Cx) -> Option<ListenerSettings> {
    let mut fields = cx.map(node)?;
    let address = fields.required(cx, "address", |n, cx| cx.address(n));
    let tls_node = fields.take("tls");
    let tls = tls_node.and_then(|n| cx.in_key("tls", |cx| tls(n, cx)));
    let plaintext = fields.or(cx, "plaintext", false, |n, cx| cx.boolean(n));
    let health_path = fields.optional(cx, "health_path", |n, cx| cx.parse(n, "a path", url::path));
    let header_timeout =
        fields.or(cx, "header_timeout", defaults::HEADER_TIMEOUT, |n, cx| cx.period(n));
    let body_timeout = fields.or(cx, "body_timeout", defaults::BODY_TIMEOUT, |n, cx| cx.period(n));
    let idle_timeout = fields.or(cx, "idle_timeout", defaults::IDLE_TIMEOUT, |n, cx| cx.period(n));
    let send_timeout = fields.or(cx, "send_timeout", defaults::SEND_TIMEOUT, |n, cx| cx.period(n));
    let max_connections = fields.optional(cx, "max_connections", |n, cx| {
        cx.integer(n, 1..=MOST_CONNECTIONS).and_then(|n| usize::try_from(n).ok())
    });
    let door = Door::take(&mut fields, proxies, cx);
    let headers = headers(&mut fields, tls_node.is_some(), cx);
    fields.finish(cx);
    let address = address?;
    if tls_node.is_some() && plaintext {
        cx.error(node, "`tls` and `plaintext: true` contradict each other");
    }
    if tls_node.is_none() && !plaintext && !address.ip().to_canonical().is_loopback() {
        let problem = format!(
            "`{address}` can be reached from elsewhere and has no `tls`: \
             add it, or say `plaintext: true`"
        );
        cx.error(node, problem);
    }
    Some(ListenerSettings {
        address,
        tls,
        health_path,
        header_timeout,
        body_timeout,
        idle_timeout,
        send_timeout,
        max_connections: max_connections.unwrap_or(defaults::MAX_CONNECTIONS),
        door,
        headers,
    })
}

/// One year (RFC 6797 §6.1.1).
const HSTS: &str = "max-age=31536000";
/// Answers are what they say they are, are framed by no other site, and tell no other site's server
/// where they were asked for.
const SECURITY: [(&str, &str); 3] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "no-referrer"),
];

/// `hsts` and `security_headers`: on by default with TLS.
fn headers(fields: &mut Fields<'_>, tls: bool, cx: &mut Cx) -> Vec<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_static;
    let usual = SECURITY.map(|(name, text)| (HeaderName::from_static(name), value(text)));
    let usual = if tls { usual.to_vec() } else { Vec::new() };
    let hsts = fields.or(cx, "hsts", tls.then_some(value(HSTS)), |n, cx| {
        if n.text() == Some("off") { Some(None) } else { hsts(n, cx).map(Some) }
    });
    let mut headers = fields.or(cx, "security_headers", usual, |n, cx| {
        if n.text() == Some("off") { Some(Vec::new()) } else { edits::values(n, cx) }
    });
    headers.extend(hsts.map(|value| (STRICT_TRANSPORT_SECURITY, value)));
    headers
}

/// `max-age=SECONDS` and what may follow it.
fn hsts(node: &Node, cx: &mut Cx) -> Option<HeaderValue> {
    let what = "`off` or a value such as `max-age=31536000; includeSubDomains`";
    cx.parse(node, what, |text| {
        let wrong = || format!("expected {what}, found `{text}`");
        let mut parts = text.split(';').map(str::trim);
        let age = parts.next().and_then(|age| age.strip_prefix("max-age=")).ok_or_else(wrong)?;
        age.parse::<u32>().map_err(|_| wrong())?;
        let known = |part: &str| part == "includeSubDomains" || part == "preload";
        if !parts.all(known) {
            return Err(wrong());
        }
        HeaderValue::from_str(text).map_err(|_| wrong())
    })
}

fn tls(node: &Node, cx: &mut Cx) -> Option<TlsSettings> {
    let mut fields = cx.map(node)?;
    let certificates =
        fields.required(cx, "certificates", |n, cx| cx.filled_list(n, certificate_pair));
    fields.finish(cx);
    Some(TlsSettings { certificates: certificates? })
}

fn certificate_pair(node: &Node, cx: &mut Cx) -> Option<Certificate> {
    let mut fields = cx.map(node)?;
    let cert = fields.required(cx, "cert", |n, cx| cx.file(n));
    let key = fields.required(cx, "key", |n, cx| cx.file(n));
    fields.finish(cx);
    match certificate::load(&cert?, &key?) {
        Ok(certificate) => Some(certificate),
        Err(problem) => {
            cx.error(node, problem);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_collide_with_what_they_cover() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("127.0.0.1:80", "127.0.0.1:80"));
        assert!(collide("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!collide("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!collide("0.0.0.0:80", "[::1]:80"));
    }
}
