//! The block `oauth` of a config: in, its node; out, the method.

use std::sync::Arc;

use super::cache::Cache;
use super::challenge::Challenge;
use super::compile_issuer::{self, Around};
use super::issuer::{Issuer, Proof};
use super::scopes::{self, Scopes};
use super::{OAuth, claims};
use crate::base::caller::{Authenticate, Resource, ServerMetadata};
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::fields::Fields;
use crate::base::globs::Globs;
use crate::base::kept::fingerprint;
use crate::base::{defaults, url};

/// Longest scope, glob, or name of a claim, in bytes.
const MAX_WORD: usize = 256;
/// OpenID Connect Core §11: between clients and their authorization server; MCP asks resources not to
/// name it.
const OFFLINE: &str = "offline_access";

pub(super) fn compile(node: Option<&Node>, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    let node = node?;
    let mut fields = cx.map(node)?;
    let resource = resource(&mut fields, node, cx);
    let principal = fields.or(cx, "principal", vec!["sub".to_owned()], principal);
    let mut server: Option<Arc<dyn ServerMetadata>> = None;
    let issuers = fields.required(cx, "issuers", |n, cx| {
        issuers(
            n,
            &Around { resource: resource.as_deref(), principal: &principal },
            &mut server,
            cx,
        )
    });
    let scopes = fields.or(cx, "scopes", Vec::new(), scope_list);
    let supported = fields.optional(cx, "scopes_supported", scope_list);
    let tools = fields.or(cx, "tool_scopes", Vec::new(), |n, cx| {
        scope_map(n, cx, "a pattern such as `delete_*`", word)
    });
    let includes =
        fields.or(cx, "scope_includes", Vec::new(), |n, cx| scope_map(n, cx, "a scope", scope));
    let stream_grace = fields.or(cx, "stream_grace", Some(defaults::STREAM_GRACE), |n, cx| {
        if n.text() == Some("off") { Some(None) } else { cx.period_or_none(n).map(Some) }
    });
    fields.finish(cx);

    let (url, issuers) = (resource?, issuers?);
    let metadata_url = metadata_url(&url)?;
    let supported = supported.unwrap_or_else(|| all_scopes(&scopes, &tools));
    let resource = Resource {
        authorization_servers: authorization_servers(&issuers),
        scopes: supported,
        metadata_url: metadata_url.clone(),
        url: url.clone(),
        server,
    };
    let challenge = Challenge { scopes, metadata_url };
    let tools =
        tools.into_iter().map(|(glob, scopes)| (Globs::new([glob.as_str()]), scopes)).collect();
    let (includes, line) = (scopes::closed(&includes), node.line);
    let scopes = Arc::new(Scopes { resource: url, challenge, tools, includes, line });
    let cache = kept_cache(node, &resource, &issuers, cx)?;
    let resource = Arc::new(resource);
    Some(Arc::new(OAuth { resource, issuers, scopes, stream_grace, cache }))
}

/// The tokens that were good a moment ago, under the same words and by the same issuers: what an entry says
/// of the generation of keys is true of one provider alone.
fn kept_cache(
    node: &Node,
    resource: &Resource,
    issuers: &[Issuer],
    cx: &mut Cx,
) -> Option<Arc<Cache>> {
    let whose = |issuer: &Issuer| match &issuer.proof {
        Proof::Keys(provider) => Arc::as_ptr(provider).addr(),
        Proof::Introspection(asked) => Arc::as_ptr(asked).addr(),
        Proof::Secret(_) => 0,
    };
    let whose: Vec<usize> = issuers.iter().map(whose).collect();
    let key = format!("oauth tokens {} {:?} {whose:?}", fingerprint(node), resource.url);
    cx.shared(key, |_| Some(Cache::new()))
}

/// The canonical URL of the resource (RFC 8707 §2): https, lower-case host, no slash at the end.
fn resource(fields: &mut Fields<'_>, node: &Node, cx: &mut Cx) -> Option<String> {
    let Some(given) = fields.take("resource") else {
        let Some(url) = cx.public_url.clone() else {
            cx.error(
                node,
                "the key `resource` is missing: the route's public URL is not known yet",
            );
            return None;
        };
        return match canonical(&url) {
            Ok(url) => Some(url),
            Err(problem) => {
                cx.error(node, format!("{problem}; set `resource`, or the route's `public_url`"));
                None
            }
        };
    };
    cx.in_key("resource", |cx| cx.parse(given, "a URL", canonical))
}

fn canonical(text: &str) -> Result<String, String> {
    let (origin, path) = url::split(text)?;
    if !origin.https && !url::is_loopback_name(&origin.host) {
        return Err(format!("`{text}` is not https: tokens would be sent in the clear"));
    }
    let path = if path.is_empty() { "/".to_owned() } else { url::path(path)? };
    let path = if path == "/" { "/" } else { claims::without_slash(&path) };
    Ok(format!("{}://{}{path}", origin.scheme(), origin.authority()))
}

/// RFC 9728 §3.1: the well-known path stands between the origin and the resource's path.
fn metadata_url(resource: &str) -> Option<String> {
    let (origin, path) = url::split(resource).ok()?;
    let path = claims::without_slash(path);
    let (scheme, authority) = (origin.scheme(), origin.authority());
    Some(format!("{scheme}://{authority}/.well-known/oauth-protected-resource{path}"))
}

fn issuers(
    node: &Node,
    around: &Around<'_>,
    server: &mut Option<Arc<dyn ServerMetadata>>,
    cx: &mut Cx,
) -> Option<Vec<Issuer>> {
    let mut before: Vec<(String, bool, usize)> = Vec::new();
    let (mut reader, mut nameless) = (None, None);
    cx.filled_list(node, |node, cx| {
        let (issuer, metadata) = compile_issuer::issuer(node, around, cx)?;
        let name = issuer.checks.issuer.clone();
        let reads = matches!(issuer.proof, Proof::Introspection(_));
        if let Some((.., line)) =
            before.iter().find(|(other, by, _)| *other == name && *by == reads)
        {
            cx.error(node, format!("the issuer `{name}` stands already in line {line}"));
        }
        before.push((name, reads, node.line));
        only(
            reads,
            &mut reader,
            node,
            "of two with `introspection`, whose a token is could not be told",
            cx,
        );
        let waives = issuer.checks.waive.issuer && !reads;
        only(
            waives,
            &mut nameless,
            node,
            "of two with `waive: [ iss ]`, whose a token is could not be told",
            cx,
        );
        if metadata.is_some() && server.is_some() {
            cx.error(
                node,
                "one issuer alone can have `serve_metadata`: there is one place for them",
            );
        }
        *server = metadata.or(server.take());
        Some(issuer)
    })
}

/// Notes that something stands a second time.
fn only(here: bool, first: &mut Option<usize>, node: &Node, what: &str, cx: &mut Cx) {
    match first {
        Some(line) if here => {
            cx.error(node, format!("the issuer in line {line} has it already: {what}"))
        }
        None if here => *first = Some(node.line),
        _ => {}
    }
}

/// Issuers that clients can go to; who shares a secret with us is none.
fn authorization_servers(issuers: &[Issuer]) -> Vec<String> {
    let mut servers: Vec<String> = Vec::new();
    for issuer in issuers.iter().filter(|issuer| !matches!(issuer.proof, Proof::Secret(_))) {
        if !servers.contains(&issuer.checks.issuer) {
            servers.push(issuer.checks.issuer.clone());
        }
    }
    servers
}

fn all_scopes(route: &[String], tools: &[(String, Vec<String>)]) -> Vec<String> {
    let mut all = route.to_vec();
    for scope in tools.iter().flat_map(|(_, scopes)| scopes) {
        if !all.contains(scope) {
            all.push(scope.clone());
        }
    }
    all
}

/// One claim or several.
fn principal(node: &Node, cx: &mut Cx) -> Option<Vec<String>> {
    if matches!(node.kind, NodeKind::Seq(_)) {
        let names = cx.filled_list(node, |n, cx| cx.parse(n, "the name of a claim", word))?;
        if let Some(name) = doubled(&names) {
            cx.error(node, format!("`{name}` stands twice"));
        }
        return Some(names);
    }
    Some(vec![cx.parse(node, "the name of a claim", word)?])
}

pub(super) fn word(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_WORD if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("1 to {MAX_WORD} bytes without control characters are possible")),
    }
}

/// RFC 6749 §3.3: visible ASCII but for quotes and backslashes.
fn scope(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if text == OFFLINE {
        return Err(format!("`{OFFLINE}` is between clients and their authorization server"));
    }
    if (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is not a scope: visible ASCII without quotes and backslashes is one"))
}

fn scope_list(node: &Node, cx: &mut Cx) -> Option<Vec<String>> {
    let scopes = cx.filled_list(node, |n, cx| cx.parse(n, "a scope", scope))?;
    if let Some(name) = doubled(&scopes) {
        cx.error(node, format!("`{name}` stands twice"));
    }
    Some(scopes)
}

fn scope_map(
    node: &Node,
    cx: &mut Cx,
    what: &str,
    read: fn(&str) -> Result<String, String>,
) -> Option<Vec<(String, Vec<String>)>> {
    let NodeKind::Map(entries) = &node.kind else {
        cx.expected(node, &format!("a map: {what}, and a list of scopes"));
        return None;
    };
    let mut out: Vec<(String, Vec<String>)> = Vec::with_capacity(entries.len());
    for (key, line, value) in entries {
        if out.iter().any(|(other, _)| other == key) {
            cx.error_at(*line, format!("the key `{key}` stands twice"));
        }
        match read(key) {
            Ok(name) => {
                let scopes = cx.in_key(key, |cx| scope_list(value, cx));
                out.push((name, scopes.unwrap_or_default()));
            }
            Err(problem) => cx.error_at(*line, problem),
        }
    }
    Some(out)
}

fn doubled(names: &[String]) -> Option<&String> {
    names.iter().enumerate().find_map(|(at, name)| names.iter().take(at).find(|n| *n == name))
}
