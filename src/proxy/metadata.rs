//! What OAuth clients ask an origin for: in, a head; out, the metadata of a protected resource
//! (RFC 9728), of its authorization server for old clients, a refusal, or nothing where the path is
//! a route's own business.
//!
//! All of it comes from the config: neither a backend nor a header of the request has a say. What a
//! route without OAuth serves at these paths is left alone: its backend may be a protected resource
//! itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CACHE_CONTROL, CONTENT_TYPE,
};
use http::{HeaderName, HeaderValue, Method};

use super::exchange::Failure;
use crate::base::caller::Resource;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::listen::wire::Answer;
use crate::route::Routes;
use crate::route::path;
use crate::route::settings::{PathMatch, RouteSettings};
use crate::route::table::host_of;

/// RFC 9728 §3: metadata of a protected resource, its path behind.
const RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// RFC 8414 §3 and OpenID Connect Discovery §4: metadata of an authorization server. Clients of MCP
/// 2025-03-26 look for them at the resource's origin.
const SERVER: [&str; 2] =
    ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];
/// Where these clients go without metadata (MCP 2025-03-26, authorization §2.3.3).
const ENDPOINTS: [&str; 3] = ["/register", "/authorize", "/token"];
/// Longest list of header names that a preflight is answered with, in bytes.
const MAX_NAMES: usize = 2048;

/// The protected resources of a config.
#[derive(Debug, Default)]
pub struct Metadata {
    documents: HashMap<String, Bytes>,
    by_host: HashMap<String, Vec<Served>>,
    any_host: Vec<Served>,
}

/// A resource and the listeners that its route serves.
#[derive(Debug)]
struct Served {
    resource: Arc<Resource>,
    listeners: Option<Vec<SocketAddr>>,
}

impl Metadata {
    /// All that the routes know of; `None` where no route takes tokens.
    pub fn new(routes: &[RouteSettings]) -> Option<Self> {
        let mut all = Self::default();
        for route in routes {
            let Some(resource) = &route.auth.resource else { continue };
            all.documents.insert(resource.url.clone(), document(resource));
            let of_host = match &route.host {
                Some(host) => all.by_host.entry(host.clone()).or_default(),
                None => &mut all.any_host,
            };
            let (resource, listeners) = (resource.clone(), route.listeners.clone());
            of_host.push(Served { resource, listeners });
        }
        (!all.documents.is_empty()).then_some(all)
    }

    /// Whether a request for metadata is answered here, as far as nobody else has to be asked.
    ///
    /// # Errors
    /// As [`Metadata::answer`], without 503.
    pub fn answers(
        &self,
        routes: &Routes,
        head: &Head,
        listener: SocketAddr,
    ) -> Result<bool, Failure> {
        self.found(routes, head, listener).map(|found| found.is_some())
    }

    /// The answer to a request for metadata; `None` where it is something else.
    ///
    /// # Errors
    /// 404 for what a protected route does not have, 405, 400 for a path that can be read in two ways;
    /// 503 where an authorization server's own metadata cannot be had. The answer to a preflight.
    pub async fn answer(
        &self,
        routes: &Routes,
        head: &Head,
        listener: SocketAddr,
    ) -> Result<Option<(Answer, Bytes)>, Failure> {
        let Some((asked, resource)) = self.found(routes, head, listener)? else { return Ok(None) };
        let body = match (&asked, &resource.server) {
            (Asked::Server(_), Some(server)) => server.document().await.map_err(readable)?,
            _ => self.documents.get(&resource.url).cloned().unwrap_or_default(),
        };
        let fields = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
            (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        ];
        Ok(Some((Answer { status: 200, fields }, body)))
    }

    /// What is asked for, and of which resource.
    fn found<'h>(
        &self,
        routes: &Routes,
        head: &'h Head,
        listener: SocketAddr,
    ) -> Result<Option<(Asked<'h>, Arc<Resource>)>, Failure> {
        let Some(asked) = Asked::of(&head.path) else { return Ok(None) };
        path::check(&head.path)?;
        let owner = routes.whose(listener, &head.authority, &head.path);
        let is_protected = owner.is_some_and(|route| route.auth.resource.is_some());
        let found = match asked {
            Asked::Endpoint if is_protected && owner.is_some_and(is_everything) => None,
            Asked::Endpoint => return Ok(None),
            Asked::Resource(rest) => self.resource(routes, head, listener, rest),
            Asked::Server(rest) => {
                self.resource(routes, head, listener, rest).filter(|found| found.server.is_some())
            }
        };
        let Some(resource) = found else {
            return if is_protected { Err(unknown().into()) } else { Ok(None) };
        };
        check_method(head)?;
        Ok(Some((asked, resource)))
    }

    /// The resource at a path of this origin, as the edge has it or as clients type it; at no path, the
    /// one that owns the origin.
    fn resource(
        &self,
        routes: &Routes,
        head: &Head,
        listener: SocketAddr,
        rest: &str,
    ) -> Option<Arc<Resource>> {
        let at = if rest.is_empty() { "/" } else { rest };
        if let Some(route) = routes.whose(listener, &head.authority, at) {
            return route.auth.resource.clone();
        }
        let mut known = self.known(head, listener);
        if rest.is_empty() {
            let only = known.next()?;
            return known.all(|other| other.url == only.url).then(|| only.clone());
        }
        // a proxy before us may have cut a part of the path off
        let typed = |url: &str| url.split_once(RESOURCE).is_some_and(|(_, path)| path == rest);
        known.find(|resource| typed(&resource.metadata_url)).cloned()
    }

    fn known(&self, head: &Head, listener: SocketAddr) -> impl Iterator<Item = &Arc<Resource>> {
        let own = self.by_host.get(host_of(&head.authority)).into_iter().flatten();
        let here = move |served: &&Served| {
            served.listeners.as_ref().is_none_or(|all| all.contains(&listener))
        };
        own.chain(&self.any_host).filter(here).map(|served| &served.resource)
    }
}

/// What a path asks for; with the part of it that names a resource.
enum Asked<'a> {
    Resource(&'a str),
    Server(&'a str),
    Endpoint,
}

impl<'a> Asked<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if ENDPOINTS.contains(&path) {
            return Some(Self::Endpoint);
        }
        let behind = |known: &str| {
            let rest = path.strip_prefix(known)?;
            let ends = rest.is_empty() || rest.starts_with('/');
            ends.then(|| rest.strip_suffix('/').unwrap_or(rest))
        };
        let server = || SERVER.into_iter().find_map(behind).map(Self::Server);
        behind(RESOURCE).map(Self::Resource).or_else(server)
    }
}

/// A route that happens to have these paths, because it has all of them.
fn is_everything(route: &Arc<RouteSettings>) -> bool {
    matches!(&route.path, PathMatch::Prefix(path) if path == "/")
}

/// RFC 9728 §2.
fn document(resource: &Resource) -> Bytes {
    let mut document = serde_json::Map::new();
    document.insert("resource".into(), resource.url.as_str().into());
    // an empty list would say that nobody issues tokens
    if !resource.authorization_servers.is_empty() {
        document
            .insert("authorization_servers".into(), resource.authorization_servers.clone().into());
    }
    if !resource.scopes.is_empty() {
        document.insert("scopes_supported".into(), resource.scopes.clone().into());
    }
    document.insert("bearer_methods_supported".into(), vec!["header"].into());
    serde_json::Value::from(document).to_string().into()
}

/// GET and HEAD; OPTIONS is answered for pages of every origin: there is nothing secret here.
fn check_method(head: &Head) -> Result<(), Failure> {
    const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
    if head.method == Method::GET || head.method == Method::HEAD {
        return Ok(());
    }
    if head.method != Method::OPTIONS {
        let not_served = "This method is not served";
        let denial = Denial::new(Reason::MethodNotAllowed, "metadata.method", not_served);
        return Err(denial.field(ALLOW, METHODS).into());
    }
    let mut fields = vec![
        (ALLOW, METHODS),
        (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
    ];
    let names = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let names = names.filter(|names| names.len() <= MAX_NAMES).cloned();
    fields.extend(names.map(|names| (ACCESS_CONTROL_ALLOW_HEADERS, names)));
    Err(Failure::Settled(Box::new(Answer { status: 204, fields })))
}

fn unknown() -> Denial {
    readable(Denial::new(Reason::NoRoute, "metadata.unknown", "There are no such metadata here"))
}

/// A client in a browser must see that there is nothing, and go on.
fn readable(denial: Denial) -> Denial {
    let name: HeaderName = ACCESS_CONTROL_ALLOW_ORIGIN;
    denial.field(name, HeaderValue::from_static("*"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::caller::Chain;
    use crate::base::head::Version;
    use crate::route::methods::Methods;
    use crate::route::settings::{Origins, PublicUrl};

    fn route(host: Option<&str>, path: &str, resource: Option<&str>) -> RouteSettings {
        let resource = resource.map(|url| {
            let (origin, path) = url.split_at(url.find(".example").unwrap() + ".example".len());
            Arc::new(Resource {
                url: url.to_owned(),
                authorization_servers: vec!["https://login.example".to_owned()],
                scopes: vec!["mcp:read".to_owned()],
                metadata_url: format!("{origin}{RESOURCE}{path}"),
                server: None,
            })
        });
        let authority = "a.example".to_owned();
        RouteSettings {
            label: path.to_owned(),
            listeners: None,
            host: host.map(str::to_owned),
            path: PathMatch::Prefix(path.to_owned()),
            public_url: PublicUrl { scheme: "https", authority, path: path.to_owned() },
            upstream: "u".to_owned(),
            rewrite: None,
            access: Default::default(),
            limits: None,
            auth: Chain { resource, ..Chain::default() },
            rules: Vec::new(),
            outgoing: None,
            methods: Methods::default(),
            origins: Origins::Any,
            cors: None,
            answer_edits: Default::default(),
            body_limit: 1,
            keepalive: None,
            counts: Default::default(),
            audit: None,
            traces: None,
        }
    }

    fn ask(routes: &[RouteSettings], method: Method, host: &str, path: &str) -> String {
        let table = Routes::new(routes.iter().cloned().map(Arc::new));
        let metadata = Metadata::new(routes).unwrap();
        let head = Head {
            method,
            path: path.to_owned(),
            query: None,
            authority: host.to_owned(),
            headers: http::HeaderMap::new(),
            version: Version::H11,
            websocket: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        match runtime.block_on(metadata.answer(&table, &head, "127.0.0.1:1".parse().unwrap())) {
            Ok(None) => "passed on".to_owned(),
            Ok(Some((_, body))) => {
                let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(document["authorization_servers"][0], "https://login.example");
                assert_eq!(document["bearer_methods_supported"][0], "header");
                assert_eq!(document["scopes_supported"][0], "mcp:read");
                document["resource"].as_str().unwrap().to_owned()
            }
            Err(Failure::Denied(denial, _)) => denial.code.to_owned(),
            Err(Failure::Settled(answer)) => answer.status.to_string(),
            Err(Failure::ClientGone) => "gone".to_owned(),
        }
    }

    const PATH: &str = "/.well-known/oauth-protected-resource";

    #[test]
    fn each_resource_has_its_document_and_the_only_one_the_root() {
        let routes =
            [route(None, "/mcp", Some("https://a.example/mcp")), route(None, "/open", None)];
        let get = |path: &str| ask(&routes, Method::GET, "a.example", path);
        assert_eq!(get(&format!("{PATH}/mcp")), "https://a.example/mcp");
        assert_eq!(get(&format!("{PATH}/mcp/")), "https://a.example/mcp");
        assert_eq!(get(&format!("{PATH}/mcp/below")), "https://a.example/mcp");
        assert_eq!(get(PATH), "https://a.example/mcp");
        assert_eq!(get(&format!("{PATH}/")), "https://a.example/mcp");
        for other in [
            &format!("{PATH}/open"),
            &format!("{PATH}/mcpx"),
            &format!("{PATH}x"),
            "/register",
            "/token",
            "/.well-known/oauth-authorization-server",
            "/.well-known/openid-configuration/mcp",
            "/mcp",
        ] {
            assert_eq!(get(other), "passed on", "{other}");
        }
        assert_eq!(get(&format!("{PATH}/../mcp")), "path.dots");
    }

    #[test]
    fn who_has_everything_has_these_paths_too() {
        let routes = [route(None, "/", Some("https://a.example")), route(None, "/open", None)];
        let get = |path: &str| ask(&routes, Method::GET, "a.example", path);
        assert_eq!(get(PATH), "https://a.example");
        assert_eq!(get(&format!("{PATH}/any/path")), "https://a.example");
        // never from the backend, and never what another route is
        assert_eq!(get(&format!("{PATH}/open")), "metadata.unknown");
        for path in ENDPOINTS.into_iter().chain(SERVER) {
            assert_eq!(get(path), "metadata.unknown", "{path}");
        }
        let own = [route(None, "/", Some("https://a.example")), route(None, "/token", None)];
        assert_eq!(ask(&own, Method::POST, "a.example", "/token"), "passed on");
    }

    #[test]
    fn several_resources_share_no_root() {
        let routes = [
            route(Some("a.example"), "/x", Some("https://a.example/x")),
            route(Some("a.example"), "/y", Some("https://a.example/y")),
            route(Some("b.example"), "/x", Some("https://b.example/x")),
            route(None, "/cut", Some("https://c.example/before/cut")),
        ];
        let get = |host, path: &str| ask(&routes, Method::GET, host, path);
        assert_eq!(get("a.example", PATH), "passed on");
        assert_eq!(get("a.example:8443", &format!("{PATH}/y")), "https://a.example/y");
        assert_eq!(get("b.example", &format!("{PATH}/x")), "https://b.example/x");
        assert_eq!(get("b.example", &format!("{PATH}/y")), "passed on");
        assert_eq!(get("c.example", PATH), "https://c.example/before/cut");
        assert_eq!(get("c.example", &format!("{PATH}/before/cut")), "https://c.example/before/cut");
        assert_eq!(get("c.example", &format!("{PATH}/cut")), "https://c.example/before/cut");
    }

    #[test]
    fn methods_are_those_of_documents() {
        let routes = [route(None, "/", Some("https://a.example"))];
        let asked = |method| ask(&routes, method, "a.example", PATH);
        assert_eq!(asked(Method::HEAD), "https://a.example");
        assert_eq!(asked(Method::OPTIONS), "204");
        assert_eq!(asked(Method::POST), "metadata.method");
        assert_eq!(asked(Method::DELETE), "metadata.method");
    }
}
