//! Routes of the config: in, the `routes` node and what the listeners and upstreams are; out,
//! checked settings.

use std::collections::HashMap;
use std::sync::Arc;

use super::cors::Cors;
use super::listeners::{self, Listener};
use super::methods::{self, Methods};
use super::outgoing::outgoing;
use super::settings::{Origins, PathMatch, PublicUrl, RouteSettings};
use crate::base::caller::Chain;
use crate::base::cidr::Access;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::disclose::Disclosure;
use crate::base::edits::{self, Edits};
use crate::base::fields::Fields;
use crate::base::limits::Limits;
use crate::base::rules::Rule;
use crate::base::trace::Tracing;
use crate::base::{defaults, fields, url};

/// What routes must know of the rest of the config.
#[derive(Debug)]
pub struct Around {
    /// All listeners; empty where they are wrong, which is said already.
    pub listeners: Vec<Listener>,
    /// Names of the upstreams.
    pub upstreams: Vec<String>,
    /// Bytes of bodies that may be held at once.
    pub buffer_budget: u64,
    /// What an audit log tells of calls; absent where there is none.
    pub audit: Option<Arc<Disclosure>>,
    /// How requests are traced; absent where they are not.
    pub traces: Option<Arc<Tracing>>,
    /// Compiles an `auth` list: the methods are a later stage's.
    pub auth: CompileAuth,
    /// Compiles a `limits` list, likewise.
    pub limits: CompileLimits,
    /// Takes a route's rules for callers, likewise.
    pub rules: TakeRules,
}

/// Compiles an `auth` list; what is wrong is noted in the context.
pub type CompileAuth = fn(&Node, &mut Cx) -> Option<Chain>;

/// Compiles a `limits` list; what is wrong is noted in the context.
pub type CompileLimits = fn(&Node, &mut Cx) -> Option<Arc<dyn Limits>>;

/// Takes the keys that say what callers may do, where a chain has let them in; what is wrong is noted in
/// the context.
pub type TakeRules = fn(&mut Fields<'_>, Option<&Chain>, &mut Cx) -> Vec<Arc<dyn Rule>>;

/// Compiles the list; what is wrong is noted in `cx`. A route whose upstream is a URL carries that
/// URL's origin as the upstream's name.
pub fn routes(node: &Node, around: &Around, cx: &mut Cx) -> Option<Vec<RouteSettings>> {
    let mut seen: HashMap<Place, Vec<(Served, usize)>> = HashMap::new();
    let mut routes = cx.filled_list(node, |node, cx| {
        let route = route(node, around, cx)?;
        let same = seen.entry((route.host.clone(), route.path.clone())).or_default();
        let other =
            same.iter().find(|(at, _)| listeners::meet(at.as_deref(), route.listeners.as_deref()));
        if let Some((_, line)) = other {
            cx.error(node, format!("the route of line {line} has the same host and path"));
        }
        same.push((route.listeners.clone(), node.line));
        Some(route)
    })?;
    listeners::tell_apart(&mut routes);
    Some(routes)
}

type Place = (Option<String>, PathMatch);
type Served = Option<Vec<std::net::SocketAddr>>;

fn route(node: &Node, around: &Around, cx: &mut Cx) -> Option<RouteSettings> {
    let mut fields = cx.map(node)?;
    let spot = Spot::take(&mut fields, around, cx);
    let upstream = fields.required(cx, "upstream", |n, cx| upstream(n, &around.upstreams, cx));
    let rewrite = fields.optional(cx, "rewrite", |n, cx| cx.parse(n, "a path", url::prefix));
    let auth = fields.required(cx, "auth", |n, cx| callers(n, &spot.here, around, cx));
    let mut rules = auth.as_ref().map_or_else(Vec::new, |chain| chain.rules.clone());
    rules.extend((around.rules)(&mut fields, auth.as_ref(), cx));
    let access = Access::take(&mut fields, cx);
    let limits = fields.optional(cx, "limits", around.limits);
    let outgoing = outgoing(&mut fields, auth.as_ref(), cx);
    let methods = fields.or(cx, "methods", Methods::default(), methods);
    let (origins, cors) = pages(node, &mut fields, auth.as_ref(), cx);
    let answer_edits = fields.or(cx, "response_headers", Edits::default(), edits::edits);
    let body_limit = fields.or(cx, "body_limit", defaults::BODY_LIMIT, |n, cx| cx.byte_size(n));
    if body_limit > around.buffer_budget {
        cx.error(node, "`body_limit` (default 4MiB) may not be larger than `buffer_budget`");
    }
    let keepalive = fields.or(cx, "keepalive", Some(defaults::KEEPALIVE), |n, cx| {
        if n.text() == Some("off") { Some(None) } else { cx.period(n).map(Some) }
    });
    let audit = unless_off(&mut fields, cx, "audit", around.audit.as_ref());
    let traces = unless_off(&mut fields, cx, "traces", around.traces.as_ref());
    fields.finish(cx);
    Some(RouteSettings {
        label: spot.label()?,
        public_url: spot.public_url?,
        listeners: spot.listeners?,
        host: spot.host,
        path: spot.path?,
        upstream: upstream?,
        rewrite,
        auth: auth?,
        rules,
        access,
        limits,
        outgoing,
        methods,
        cors,
        origins,
        answer_edits,
        body_limit,
        keepalive,
        counts: Default::default(),
        audit,
        traces,
    })
}

/// Where a route is served.
struct Spot<'a> {
    /// `Some(None)`: nothing is said. What is wrong must not become all listeners.
    listeners: Option<Served>,
    here: Here<'a>,
    host: Option<String>,
    path: Option<PathMatch>,
    public_url: Option<PublicUrl>,
}

impl<'a> Spot<'a> {
    fn take(fields: &mut Fields<'_>, around: &'a Around, cx: &mut Cx) -> Self {
        let listed = fields
            .take("listeners")
            .map(|n| cx.in_key("listeners", |cx| listeners::listeners(n, &around.listeners, cx)));
        let here = Here::new(listed.as_ref().and_then(|all| all.as_deref()), &around.listeners);
        let host = fields.optional(cx, "host", |n, cx| {
            cx.parse(n, "a host name", |text| url::host(text).map(|host| url::bracketed(&host)))
        });
        let path = match fields.take("path") {
            None => Some(PathMatch::Prefix(defaults::PATH.to_owned())),
            Some(node) => cx.in_key("path", |cx| path_match(node, cx)),
        };
        let said = fields.optional(cx, "public_url", |n, cx| cx.parse(n, "a URL", public_url));
        let public_url =
            said.or_else(|| Some(default_url(host.as_deref(), path.as_ref()?, here.first)));
        let bound = public_url.as_ref().filter(|url| !url.authority.ends_with(":0"));
        cx.public_url = bound.map(PublicUrl::whole);
        cx.place = format!("{listed:?} {host:?} {path:?}");
        let listeners = match listed {
            None => Some(None),
            Some(listed) => listed.map(Some),
        };
        Self { listeners, here, host, path, public_url }
    }

    /// Sessions are bound to it: one of `/a` is not one of what starts with `/a`.
    fn label(&self) -> Option<String> {
        let path = self.path.as_ref()?;
        let any = if matches!(path, PathMatch::Letters(_)) { "*" } else { "" };
        Some(format!("{}{}{any}", self.host.as_deref().unwrap_or("*"), path.text()))
    }
}

/// Who may come in.
fn callers(node: &Node, here: &Here<'_>, around: &Around, cx: &mut Cx) -> Option<Chain> {
    let chain = (around.auth)(node, cx)?;
    let only_certificates = chain.methods.iter().all(|method| method.needs_certificate());
    if !here.certificates && only_certificates && !chain.methods.is_empty() {
        let whose = here.whose;
        let problem =
            format!("nobody could come in: no listener {whose}asks for `client_certificates`");
        cx.error(node, problem);
    }
    Some(chain)
}

/// Which pages may call, and what their browsers are told.
fn pages(
    route: &Node,
    fields: &mut Fields<'_>,
    auth: Option<&Chain>,
    cx: &mut Cx,
) -> (Origins, Option<Cors>) {
    let origins = fields.or(cx, "origins", Origins::Listed(Vec::new()), origins);
    let node = fields.take("cors");
    let mut cors = node.map_or(Some(Cors::default()), |n| cx.in_key("cors", |cx| cors(n, cx)));
    if let (Some(cors), Some(chain)) = (&mut cors, auth) {
        // a page must be able to send what it is asked for
        cors.headers.extend(chain.headers.iter().cloned());
    }
    // credentials for any page at all would let every web site act as its visitor
    if origins == Origins::Any && cors.as_ref().is_some_and(|cors| cors.credentials) {
        let problem = "`credentials: true` needs a list of `origins`, not `any`";
        cx.error(node.unwrap_or(route), problem);
    }
    (origins, cors)
}

/// What holds for all routes, but for one that says `off`.
fn unless_off<T>(
    fields: &mut Fields<'_>,
    cx: &mut Cx,
    key: &'static str,
    all: Option<&Arc<T>>,
) -> Option<Arc<T>> {
    let off = fields.optional(cx, key, |n, cx| {
        cx.parse(n, "`off`", |text| match text {
            "off" => Ok(()),
            _ => Err(format!("expected `off`, found `{text}`: the rest stands at the top")),
        })
    });
    if off.is_some() { None } else { all.cloned() }
}

/// What a route must know of its own listeners.
struct Here<'a> {
    /// The first that serves: public URLs name it.
    first: Option<&'a Listener>,
    /// Whether one asks clients for certificates; where listeners are wrong, that is said already.
    certificates: bool,
    /// For messages.
    whose: &'static str,
}

impl<'a> Here<'a> {
    fn new(own: Option<&[std::net::SocketAddr]>, all: &'a [Listener]) -> Self {
        // one that redirects serves no route but those that name it
        let mut serving = all.iter().filter(|l| {
            (!l.redirects || own.is_some()) && own.is_none_or(|own| own.contains(&l.address))
        });
        Self {
            first: serving.clone().next(),
            certificates: all.is_empty() || serving.any(|l| l.certificates),
            whose: if own.is_some() { "of this route " } else { "" },
        }
    }
}

fn path_match(node: &Node, cx: &mut Cx) -> Option<PathMatch> {
    if !matches!(node.kind, NodeKind::Map(_)) {
        return cx.parse(node, "a path", url::prefix).map(PathMatch::Prefix);
    }
    let mut fields = cx.map(node)?;
    let letters = fields.take("starts_with");
    if let Some(node) = letters {
        fields.finish(cx);
        let text = cx.in_key("starts_with", |cx| cx.parse(node, "a path", url::prefix));
        return text.map(PathMatch::Letters);
    }
    let exact = fields.required(cx, "exact", |n, cx| cx.parse(n, "a path", url::path));
    fields.finish(cx);
    exact.map(PathMatch::Exact)
}

fn public_url(text: &str) -> Result<PublicUrl, String> {
    let (origin, rest) = url::split(text)?;
    if rest.contains(['?', '#']) {
        return Err(format!("`{text}`: a public URL has no query and no fragment"));
    }
    let path = if rest.is_empty() { "/".to_owned() } else { url::path(rest)? };
    Ok(PublicUrl { scheme: origin.scheme(), authority: origin.authority(), path })
}

/// What clients type where nothing else is said. A port 0 stays 0: who binds it puts the real one in.
fn default_url(host: Option<&str>, path: &PathMatch, first: Option<&Listener>) -> PublicUrl {
    let (address, https) = first.map_or((defaults::LISTEN, false), |l| (l.address, l.https));
    let ip = address.ip();
    let host = match host {
        Some(host) => host.trim_matches(['[', ']']).to_owned(),
        None if ip.is_unspecified() => "localhost".to_owned(),
        None => ip.to_string(),
    };
    PublicUrl {
        scheme: if https { "https" } else { "http" },
        authority: url::authority(https, &host, address.port()),
        path: path.text().to_owned(),
    }
}

/// A known name, or a URL, which becomes its origin.
fn upstream(node: &Node, names: &[String], cx: &mut Cx) -> Option<String> {
    cx.parse(node, "the name of an upstream or a URL", |text| {
        if text.contains("://") {
            let origin = url::origin(text).map_err(|problem| {
                let more = "; the path that the server sees is the route's `rewrite`";
                problem + if text.matches('/').count() > 2 { more } else { "" }
            })?;
            return Ok(format!("{}://{}", origin.scheme(), origin.authority()));
        }
        if names.iter().any(|name| name == text) {
            return Ok(text.to_owned());
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Err(format!("there is no upstream `{text}`{}", fields::hint(text, &names)))
    })
}

fn methods(node: &Node, cx: &mut Cx) -> Option<Methods> {
    if node.text() == Some("any") {
        return Some(Methods::any());
    }
    let list = cx.filled_list(node, |n, cx| {
        cx.parse(n, "a method", |text| match text {
            "any" => Err("`any` is not one of a list: write `methods: any`".to_owned()),
            text => methods::method(text),
        })
    })?;
    Some(Methods::only(list))
}

fn origins(node: &Node, cx: &mut Cx) -> Option<Origins> {
    if node.text() == Some("any") {
        return Some(Origins::Any);
    }
    let list =
        cx.list(node, |n, cx| cx.parse(n, "an origin like https://app.example.com", origin))?;
    Some(Origins::Listed(list))
}

fn cors(node: &Node, cx: &mut Cx) -> Option<Cors> {
    match node.text() {
        Some("off") => return None,
        Some("on") => return Some(Cors::default()),
        _ => {}
    }
    let mut fields = cx.map(node)?;
    let headers = fields.or(cx, "headers", Vec::new(), |n, cx| cx.list(n, edits::name));
    let expose = fields.or(cx, "expose", Vec::new(), |n, cx| cx.list(n, edits::name));
    let max_age = fields.optional(cx, "max_age", |n, cx| cx.period(n));
    let credentials = fields.or(cx, "credentials", false, |n, cx| cx.boolean(n));
    fields.finish(cx);
    let mut cors = Cors { headers, credentials, ..Cors::default() };
    cors.expose_also(&expose);
    if let Some(max_age) = max_age {
        cors.max_age = max_age.as_secs().into();
    }
    Some(cors)
}

/// An origin as browsers send it (RFC 6454 §6.2): lower case, without the scheme's default port.
/// Other schemes than http and https are those of extensions and desktop apps.
fn origin(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        let origin = url::origin(text)?;
        return Ok(format!("{}://{}", origin.scheme(), origin.authority()));
    }
    let bad = || format!("`{text}` is not an origin: write one like `https://app.example.com`");
    let (scheme, host) = lower.split_once("://").ok_or_else(bad)?;
    let mut letters = scheme.bytes();
    let scheme_good = letters.next().is_some_and(|b| b.is_ascii_lowercase())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let host_good =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if scheme_good && host_good { Ok(lower) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_url_follows_host_listener_and_path() {
        let url = |host, path: &str, address: &str, https| {
            let (redirects, plaintext, certificates) = (false, false, false);
            let first = Listener {
                address: address.parse().unwrap(),
                https,
                redirects,
                plaintext,
                certificates,
            };
            let url = default_url(host, &PathMatch::Prefix(path.into()), Some(&first));
            format!("{}{}", url.origin(), url.path)
        };
        assert_eq!(url(None, "/", "127.0.0.1:8080", false), "http://127.0.0.1:8080/");
        assert_eq!(url(None, "/a", "0.0.0.0:443", true), "https://localhost/a");
        assert_eq!(url(Some("h.example"), "/a", "0.0.0.0:443", true), "https://h.example/a");
        assert_eq!(url(Some("h.example"), "/", "[::]:443", false), "http://h.example:443/");
        assert_eq!(url(None, "/", "[::1]:8080", false), "http://[::1]:8080/");
        assert_eq!(url(Some("[::1]"), "/", "[::1]:80", false), "http://[::1]/");
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        assert_eq!(origin("https://App.example.com:443").unwrap(), "https://app.example.com");
        assert_eq!(origin("vscode-webview://abc").unwrap(), "vscode-webview://abc");
        for bad in
            ["*", "null", "app.example.com", "https://a/x", "file://", "://a", "x://a/b", "1x://a"]
        {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
