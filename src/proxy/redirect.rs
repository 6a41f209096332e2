//! What a listener answers before any route: in, a head; out, an ACME challenge's answer, the way to
//! https, or nothing.

use std::collections::HashSet;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderValue, Method};

use super::challenge;
use super::runtime::Runtime;
use crate::base::defaults;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::config::Settings;
use crate::listen::ConnCx;
use crate::listen::settings::{ListenerSettings, TlsSettings};
use crate::listen::wire::Answer;
use crate::route::settings::RouteSettings;
use crate::route::table::host_of;

/// What the listener itself has to say to this request, if anything.
///
/// # Errors
/// 404 for an unknown challenge, 405, 421 for a host that is not ours.
pub async fn answer(
    rt: &Runtime,
    head: &Head,
    cx: &ConnCx,
) -> Result<Option<(Answer, Bytes)>, Denial> {
    let token = head.path.strip_prefix(challenge::PATH);
    let (status, field, body) = match (token, cx.listener.redirect) {
        (Some(token), _) if !cx.listener.acme_webroots.is_empty() => {
            let body = challenge::answer(&cx.listener.acme_webroots, token, &head.method).await?;
            (200, (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")), body)
        }
        (_, Some(_)) if rt.routes.named(head, cx.listener.address) => return Ok(None),
        (_, Some(port)) => (308, (LOCATION, location(&rt.hosts, head, port)?), Bytes::new()),
        _ => return Ok(None),
    };
    let fields = vec![field, (NO_SNIFF, HeaderValue::from_static("nosniff"))];
    Ok(Some((Answer { status, fields }, body)))
}

/// What was found is not to be taken for anything else.
const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Where a listener of these settings that leads to https at `port` leads a request to.
///
/// # Errors
/// 405, 421 for a host that is not ours.
pub fn to(settings: &Settings, head: &Head, port: u16) -> Result<HeaderValue, Denial> {
    location(&Hosts::new(settings), head, port)
}

/// The same path and query at https. Never at a host that is not ours: who makes a victim ask for
/// another (or poisons a cache with it) gains nothing.
fn location(hosts: &Hosts, head: &Head, port: u16) -> Result<HeaderValue, Denial> {
    if head.method == Method::TRACE || head.method == Method::CONNECT {
        let not_served = "This method is not served";
        return Err(Denial::new(Reason::MethodNotAllowed, "redirect.method", not_served));
    }
    let host = host_of(&head.authority);
    if !hosts.know(host) {
        let unknown = "This host is not served here";
        return Err(Denial::new(Reason::WrongHost, "redirect.unknown_host", unknown));
    }
    // `*` is no path
    let path = if head.path.starts_with('/') { &head.path } else { "/" };
    let mut to = format!("https://{host}");
    if port != defaults::HTTPS {
        to += &format!(":{port}");
    }
    to += path;
    if let Some(query) = &head.query {
        to += "?";
        to += query;
    }
    HeaderValue::from_str(&to)
        .map_err(|_| Denial::new(Reason::Malformed, "redirect.uri", "The URI is malformed"))
}

/// The hosts that are ours: of routes, of public URLs, and of certificates. Routes that are served in plain
/// alone have nothing at https.
#[derive(Debug, Default)]
pub struct Hosts {
    named: HashSet<String>,
    certified: Vec<TlsSettings>,
}

impl Hosts {
    /// All that the settings know of.
    pub(super) fn new(settings: &Settings) -> Self {
        let served = |route: &&RouteSettings, l: &ListenerSettings| {
            l.tls.is_some() && route.is_served_at(l.address)
        };
        let secure = |route: &&RouteSettings| {
            route.listeners.is_none()
                || route.public_url.scheme == "https"
                || settings.listeners.iter().any(|l| served(route, l))
        };
        let routes = settings.routes.iter().filter(secure);
        let named = routes.flat_map(|route| {
            let public = host_of(&route.public_url.authority).to_owned();
            route.host.clone().into_iter().chain([public])
        });
        let certified = settings.listeners.iter().filter_map(|l| l.tls.clone());
        Self { named: named.collect(), certified: certified.collect() }
    }

    /// Whether this is one of them; lower case, IPv6 in brackets.
    fn know(&self, host: &str) -> bool {
        self.named.contains(host) || self.is_certified(host)
    }

    /// Asked of the certificates that are there now: a renewal may bring names.
    fn is_certified(&self, host: &str) -> bool {
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty());
        self.certified.iter().flat_map(TlsSettings::current).any(|certificate| {
            address.is_some_and(|address| certificate.addresses.contains(&address))
                || certificate.names.iter().any(|name| match name.strip_prefix("*.") {
                    Some(domain) => parent.is_some_and(|(_, parent)| parent == domain),
                    None => name == host,
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::head::Version;

    fn led(authority: &str, path: &str, query: Option<&str>, port: u16) -> Result<String, u16> {
        let hosts = Hosts {
            named: ["a.example", "[::1]"].map(str::to_owned).into(),
            certified: Vec::new(),
        };
        let head = Head {
            method: Method::POST,
            path: path.into(),
            query: query.map(str::to_owned),
            authority: authority.into(),
            headers: http::HeaderMap::new(),
            version: Version::H11,
            websocket: false,
        };
        let to = location(&hosts, &head, port).map_err(|denial| denial.reason.status())?;
        Ok(to.to_str().unwrap().to_owned())
    }

    #[test]
    fn path_and_query_are_kept_and_foreign_hosts_refused() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(led("a.example", "/", None, 443), ok("https://a.example/"));
        assert_eq!(
            led("a.example:80", "/x/%2F", Some("a=b&c"), 443),
            ok("https://a.example/x/%2F?a=b&c")
        );
        assert_eq!(led("a.example:8080", "/", Some(""), 8443), ok("https://a.example:8443/?"));
        assert_eq!(led("[::1]:80", "//b.example", None, 443), ok("https://[::1]//b.example"));
        assert_eq!(led("a.example", "*", None, 443), ok("https://a.example/"));
        for foreign in ["b.example", "x.a.example", "a.example.", "", "a.example@b.example", "::1"]
        {
            assert_eq!(led(foreign, "/", None, 443), Err(421), "{foreign}");
        }
    }
}
