//! Upstreams of the config: in, the `upstreams` node; out, checked settings.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::health::settings::EjectSettings;
use super::lookup::DnsSettings;
use super::settings::{Affinity, HostHeader, Retry, UpstreamSettings, UpstreamTls};
use super::spread::{self, Balance};
use super::{credential, health, servers};
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::fields::Fields;
use crate::base::kept::{Sum, content, fingerprint};
use crate::base::url::Origin;
use crate::base::{defaults, fields, url};
use crate::listen::certificate;

/// Compiles the list; what is wrong is noted in `cx`.
pub fn upstreams(node: &Node, cx: &mut Cx) -> Option<Vec<UpstreamSettings>> {
    let mut seen: Vec<(String, usize)> = Vec::new();
    cx.list(node, |node, cx| {
        let upstream = upstream(node, cx)?;
        if let Some((_, line)) = seen.iter().find(|(name, _)| *name == upstream.name) {
            let name = &upstream.name;
            cx.error(node, format!("the upstream `{name}` stands already in line {line}"));
        }
        seen.push((upstream.name.clone(), node.line));
        Some(upstream)
    })
}

/// The names in the list, also of upstreams with mistakes, so that one mistake is reported once.
pub fn names(node: &Node) -> Vec<String> {
    let NodeKind::Seq(items) = &node.kind else { return Vec::new() };
    let name = |item: &Node| match &item.kind {
        NodeKind::Map(entries) => {
            let (.., name) = entries.iter().find(|(key, ..)| key == "name")?;
            name.text().map(str::to_owned)
        }
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

/// The upstream behind a URL that stands in a route: one server and all defaults. Its name is the
/// origin, which no named upstream can have.
pub fn from_origin(origin: &Origin) -> Option<UpstreamSettings> {
    let servers = vec![servers::of(origin)];
    Some(UpstreamSettings {
        fingerprint: Sum::default(),
        wire: Sum::default(),
        name: format!("{}://{}", origin.scheme(), origin.authority()),
        policy: spread::kind(defaults::BALANCE)?,
        hash: None,
        retry: Retry::default(),
        circuit: None,
        servers,
        lookups: Vec::new(),
        dns: DnsSettings::default(),
        affinity: Affinity::Principal,
        host: HostHeader::Server,
        credential: None,
        tls: UpstreamTls::default(),
        connect_timeout: defaults::CONNECT_TIMEOUT,
        first_byte_timeout: defaults::FIRST_BYTE_TIMEOUT,
        idle_timeout: defaults::UPSTREAM_IDLE_TIMEOUT,
        health: None,
        eject: Some(EjectSettings::default()),
    })
}

fn upstream(node: &Node, cx: &mut Cx) -> Option<UpstreamSettings> {
    let mut fields = cx.map(node)?;
    let name = fields.required(cx, "name", |n, cx| cx.parse(n, "a name", name));
    let servers = fields.required(cx, "servers", servers::servers);
    let several = servers.as_ref().is_some_and(|(s, lookups)| s.len() > 1 || !lookups.is_empty());
    let (balance, affinity) = spreading(&mut fields, several, cx);
    let host = fields.or(cx, "host", HostHeader::Server, host);
    let credential = fields.optional(cx, "credentials", credential::credential);
    let retry = fields.or(cx, "retry", Retry::default(), spread::retry);
    let circuit = fields.optional(cx, "circuit", spread::circuit);
    let tls_node = fields.take("tls");
    let tls = tls_node.and_then(|n| cx.in_key("tls", |cx| tls(n, cx)));
    let connect_timeout =
        fields.or(cx, "connect_timeout", defaults::CONNECT_TIMEOUT, |n, cx| cx.period(n));
    let first_byte_timeout =
        fields.or(cx, "first_byte_timeout", defaults::FIRST_BYTE_TIMEOUT, |n, cx| cx.period(n));
    let idle_timeout =
        fields.or(cx, "idle_timeout", defaults::UPSTREAM_IDLE_TIMEOUT, |n, cx| cx.period(n));
    let health = fields.optional(cx, "health", health::compile::health);
    let eject = fields.or(cx, "eject", Some(EjectSettings::default()), health::compile::eject);
    fields.finish(cx);
    let (name, (servers, lookups)) = (name?, servers?);
    if let Some(node) = tls_node
        && !(servers.is_empty() && lookups.is_empty())
        && !servers.iter().any(|s| s.https)
        && !lookups.iter().any(|l| l.https)
    {
        cx.in_key("tls", |cx| cx.error(node, "no server of this upstream is https"));
    }
    Some(UpstreamSettings {
        fingerprint: sum(node, tls.as_ref()).into(),
        wire: format!(
            "{connect_timeout:?} {idle_timeout:?} {:?}",
            tls_node.map(|node| sum(node, tls.as_ref()))
        )
        .into(),
        name,
        policy: spread::kind(balance.policy)?,
        hash: balance.hash,
        retry,
        circuit,
        servers,
        lookups,
        dns: DnsSettings::default(),
        affinity,
        host,
        credential,
        tls: tls.unwrap_or_default(),
        connect_timeout,
        first_byte_timeout,
        idle_timeout,
        health,
        eject,
    })
}

/// How requests are spread over `several` replicas. Warns of a policy that does not count for some of them, where
/// nobody has said that it should or should not.
fn spreading(fields: &mut Fields<'_>, several: bool, cx: &mut Cx) -> (Balance, Affinity) {
    let node = fields.take("balance");
    let balance = node.and_then(|n| cx.in_key("balance", |cx| spread::balance(n, cx)));
    let balance = balance.unwrap_or_default();
    let affinity = fields.optional(cx, "affinity", affinity);
    // turns, and shares by weight, are what callers get by their own replicas, too
    let counts = balance.hash.is_some() || balance.policy == defaults::BALANCE;
    if let Some(node) = node
        && several
        && !counts
        && affinity.is_none()
    {
        let policy = balance.policy;
        let problem = format!(
            "`{policy}` does not count for clients of MCP 2026-07-28, which have no sessions: all requests of one \
             caller go to one replica. Say `affinity: none` where the servers share all state, else \
             `affinity: principal`"
        );
        cx.in_key("balance", |cx| cx.warn(node, problem));
    }
    (balance, affinity.unwrap_or(Affinity::Principal))
}

/// What is in the TLS files counts like what is in the config.
fn sum(node: &Node, tls: Option<&UpstreamTls>) -> String {
    let pair = tls.and_then(|tls| tls.client_certificate.as_ref());
    let files = tls.and_then(|tls| tls.ca.as_ref()).into_iter();
    let files = files.chain(pair.iter().flat_map(|(cert, key)| [cert, key]));
    files.fold(fingerprint(node), |sum, file| sum + &content(file))
}

fn name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is not a name: 1 to 64 letters, digits, `-`, `_` and `.`"))
}

fn affinity(node: &Node, cx: &mut Cx) -> Option<Affinity> {
    cx.parse(node, "`principal` or `none`", |text| match text {
        "principal" => Ok(Affinity::Principal),
        "none" => Ok(Affinity::None),
        _ => {
            Err(format!("unknown affinity `{text}`{}", fields::hint(text, &["principal", "none"])))
        }
    })
}

fn host(node: &Node, cx: &mut Cx) -> Option<HostHeader> {
    if !matches!(node.kind, NodeKind::Map(_)) {
        return cx.parse(node, "`server`, `client` or `{ fixed: name }`", |text| match text {
            "server" => Ok(HostHeader::Server),
            "client" => Ok(HostHeader::Client),
            _ => Err(format!(
                "`{text}` is neither `server` nor `client`; for a name of its own \
                              write `{{ fixed: {text} }}`"
            )),
        });
    }
    let mut fields = cx.map(node)?;
    let fixed = fields.required(cx, "fixed", |n, cx| {
        cx.parse(n, "a host, with a port or without", |text| {
            let (host, port) = url::host_port(text)?;
            let host = url::bracketed(&host);
            Ok(port.map_or(host.clone(), |port| format!("{host}:{port}")))
        })
    });
    fields.finish(cx);
    fixed.map(HostHeader::Fixed)
}

fn tls(node: &Node, cx: &mut Cx) -> Option<UpstreamTls> {
    let mut fields = cx.map(node)?;
    let ca = fields.optional(cx, "ca", |n, cx| {
        let path = cx.file(n)?;
        certificate::chain(&path).map_err(|problem| cx.error(n, problem)).ok()?;
        Some(path)
    });
    let server_name = fields.optional(cx, "server_name", |n, cx| {
        cx.parse(n, "a host name", |text| {
            let host = url::host(text)?;
            ServerName::try_from(host.as_str())
                .map_err(|_| format!("`{text}` cannot stand in a certificate"))?;
            Ok(host)
        })
    });
    let client_certificate = fields.optional(cx, "client_certificate", client_certificate);
    let insecure_skip_verify = fields.or(cx, "insecure_skip_verify", false, |n, cx| cx.boolean(n));
    fields.finish(cx);
    if insecure_skip_verify && ca.is_some() {
        cx.error(node, "`insecure_skip_verify: true` makes `ca` useless: keep one of them");
    }
    Some(UpstreamTls { ca, server_name, client_certificate, insecure_skip_verify })
}

fn client_certificate(node: &Node, cx: &mut Cx) -> Option<(PathBuf, PathBuf)> {
    let mut fields = cx.map(node)?;
    let cert = fields.required(cx, "cert", |n, cx| cx.file(n));
    let key = fields.required(cx, "key", |n, cx| cx.file(n));
    fields.finish(cx);
    let (cert, key) = (cert?, key?);
    certificate::load(&cert, &key).map_err(|problem| cx.error(node, problem)).ok()?;
    Some((cert, key))
}
