//! Listeners of the config: in, the `listeners` node; out, checked settings with loaded certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};

use super::door::{Door, Proxies};
use super::settings::ListenerSettings;
use super::tls::compile::tls;
use crate::base::cidr::Access;
use crate::base::compile::{Cx, Node};
use crate::base::fields::Fields;
use crate::base::{defaults, edits, url};

/// Connections of the admin listener: a few people, and what reads metrics.
const ADMIN_CONNECTIONS: usize = 256;

/// More connections than this need more file descriptors than systems give.
const MOST_CONNECTIONS: u64 = 1_000_000;

/// Compiles the list; what is wrong is noted in `cx`.
pub fn listeners(
    node: &Node,
    proxies: &Arc<Proxies>,
    cx: &mut Cx,
) -> Option<Vec<ListenerSettings>> {
    let mut seen: Vec<(SocketAddr, usize)> = Vec::new();
    let listeners = cx.filled_list(node, |node, cx| {
        let listener = listener(node, proxies, cx)?;
        let address = listener.address;
        if let Some((other, line)) = seen.iter().find(|(other, _)| collide(*other, address)) {
            cx.error(node, format!("`{address}` collides with `{other}` of line {line}"));
        }
        seen.push((address, node.line));
        Some(listener)
    })?;
    if !listeners.is_empty() && listeners.iter().all(|l| l.redirect.is_some()) {
        cx.error(node, "all listeners redirect: there is none that serves");
    }
    Some(listeners)
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
    let redirect_node = fields.take("redirect");
    let redirect = redirect(redirect_node, &mut fields, cx);
    let acme_webroot = fields.optional(cx, "acme_webroot", folder);
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
    if redirect_node.is_some() && tls_node.is_some() {
        cx.error(node, "`redirect` and `tls` contradict each other");
    }
    // what redirects carries nothing that must not be read
    let covered = tls_node.is_some() || (redirect_node.is_some() && !plaintext);
    check_plaintext(node, address, covered, plaintext, cx);
    Some(ListenerSettings {
        address,
        tls,
        plaintext: plaintext || address.ip().to_canonical().is_loopback(),
        redirect,
        acme_webroots: acme_webroot.into_iter().collect(),
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

/// A plain listener on a loopback address, with few connections and every default.
pub fn bare(address: SocketAddr) -> ListenerSettings {
    ListenerSettings {
        address,
        tls: None,
        plaintext: true,
        redirect: None,
        acme_webroots: Vec::new(),
        health_path: None,
        header_timeout: defaults::HEADER_TIMEOUT,
        body_timeout: defaults::BODY_TIMEOUT,
        idle_timeout: defaults::IDLE_TIMEOUT,
        send_timeout: defaults::SEND_TIMEOUT,
        max_connections: ADMIN_CONNECTIONS,
        door: Door::default(),
        headers: Vec::new(),
    }
}

/// The keys of a listener that is only read from: `tls`, `plaintext`, `allow` and `deny`.
pub fn reading(
    node: &Node,
    fields: &mut Fields<'_>,
    address: SocketAddr,
    cx: &mut Cx,
) -> ListenerSettings {
    let tls_node = fields.take("tls");
    let tls = tls_node.and_then(|n| cx.in_key("tls", |cx| tls(n, cx)));
    let plaintext = fields.or(cx, "plaintext", false, |n, cx| cx.boolean(n));
    let door = Door { access: Access::take(fields, cx), ..Door::default() };
    check_plaintext(node, address, tls_node.is_some(), plaintext, cx);
    if let (Some(node), true) = (tls_node, tls.as_ref().is_some_and(|tls| tls.acme.is_some())) {
        let problem = "`acme` is for listeners: name the files of a certificate here";
        cx.in_key("tls", |cx| cx.error(node, problem));
    }
    let plaintext = plaintext || address.ip().to_canonical().is_loopback();
    ListenerSettings { tls, plaintext, door, ..bare(address) }
}

/// What others can hear has TLS, or says that it has none.
fn check_plaintext(node: &Node, address: SocketAddr, tls: bool, plaintext: bool, cx: &mut Cx) {
    if tls && plaintext {
        cx.error(node, "`tls` and `plaintext: true` contradict each other");
    }
    if !tls && !plaintext && !address.ip().to_canonical().is_loopback() {
        let problem = format!(
            "`{address}` can be reached from elsewhere and has no `tls`: \
             add it, or say `plaintext: true`"
        );
        cx.error(node, problem);
    }
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

/// The port to redirect to; 443 unless the config says another.
fn redirect(node: Option<&Node>, fields: &mut Fields<'_>, cx: &mut Cx) -> Option<u16> {
    let port = fields.optional(cx, "redirect_port", |n, cx| {
        if node.is_none() {
            cx.error(n, "`redirect_port` is nothing without `redirect: https`");
        }
        cx.integer(n, 1..=u64::from(u16::MAX)).and_then(|n| u16::try_from(n).ok())
    });
    let port = port.unwrap_or(defaults::HTTPS);
    let to_https = |text: &str| match text {
        "https" => Ok(port),
        other => Err(format!("`{other}` is not `https`, all that can be redirected to")),
    };
    node.and_then(|n| cx.in_key("redirect", |cx| cx.parse(n, "`https`", to_https)))
}

fn folder(node: &Node, cx: &mut Cx) -> Option<PathBuf> {
    let path = cx.file(node)?;
    if !path.is_dir() {
        cx.error(node, format!("there is no folder `{}`", path.display()));
    }
    Some(path)
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
