//! The routing table: in, listener, host and path; out, the route whose path is the longest match.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use memchr::{memchr, memrchr};

use super::methods::Methods;
use super::settings::{PathMatch, RouteSettings};
use super::{origin, path};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::table::Table;

/// All routes, looked up in time that does not grow with their number.
#[derive(Debug, Default)]
pub struct Routes {
    /// Of the listeners that no route names: the routes that name none.
    common: Hosts,
    /// Of those that are named, few as they are; empty in most configs.
    named: Vec<(SocketAddr, Arc<Hosts>)>,
}

/// The routes of a listener.
#[derive(Debug, Default)]
struct Hosts {
    by_host: Table<Paths>,
    any_host: Paths,
}

#[derive(Debug, Default)]
struct Paths {
    exact: Table<Arc<RouteSettings>>,
    prefix: Table<Arc<RouteSettings>>,
    letters: Table<Arc<RouteSettings>>,
    /// Of the letters, each once, the longest first; empty in most configs.
    lengths: Vec<usize>,
}

/// A request that belongs to a route. Only [`Routes::find`] makes one.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The route.
    pub route: Arc<RouteSettings>,
    /// The path that the backend gets.
    pub backend_path: String,
}

impl Routes {
    /// Builds the tables.
    pub fn new(routes: impl IntoIterator<Item = Arc<RouteSettings>>) -> Self {
        let routes: Vec<Arc<RouteSettings>> = routes.into_iter().collect();
        let mut addresses: Vec<SocketAddr> =
            routes.iter().flat_map(|route| route.listeners.iter().flatten().copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        // listeners with the same routes, such as one for each IP version, share their table
        let mut built: Vec<(Vec<bool>, Arc<Hosts>)> = Vec::new();
        let mut named = Vec::new();
        for address in addresses {
            let served: Vec<bool> =
                routes.iter().map(|route| route.is_served_at(address)).collect();
            let known = built.iter().find(|(other, _)| *other == served);
            let table = known.map(|(_, table)| table.clone()).unwrap_or_else(|| {
                let here = routes.iter().zip(&served).filter(|(_, served)| **served);
                Arc::new(Hosts::new(here.map(|(route, _)| route)))
            });
            built.push((served, table.clone()));
            named.push((address, table));
        }
        let common = Hosts::new(routes.iter().filter(|route| route.listeners.is_none()));
        Self { common, named }
    }

    /// Finds the route of a request that came in on a listener; checks its path, Host and Origin on the way.
    ///
    /// # Errors
    /// 400 for a path that can be read in two ways, 405 for TRACE and CONNECT, 421 for a host that
    /// is not served, 404 for a path that is not, 403 for a foreign Origin.
    pub fn find(&self, head: &Head, listener: SocketAddr) -> Result<Routed, Denial> {
        if head.method == Method::TRACE || head.method == Method::CONNECT {
            return Err(Methods::default().refusal());
        }
        path::check(&head.path)?;
        let host = host_of(&head.authority);
        let hosts = self.at(listener);
        let Some(route) = hosts.lookup(host, &head.path) else { return Err(hosts.nothing(host)) };
        hosts.check_escapes(host, &head.path, route)?;
        hosts.check_parameters(host, &head.path, route)?;
        let local = listener.ip().to_canonical().is_loopback();
        origin::check(route, head, host, local)?;
        let backend_path = backend_path(route, &head.path);
        if matches!(route.path, PathMatch::Letters(_)) && route.rewrite.is_some() {
            // behind letters, `..` can begin a segment of its own
            path::check(&backend_path)?;
        }
        Ok(Routed { route: route.clone(), backend_path })
    }

    /// Whether a request belongs to a route that names this listener.
    pub fn named(&self, head: &Head, listener: SocketAddr) -> bool {
        let found = self.at(listener).lookup(host_of(&head.authority), &head.path);
        found.is_some_and(|route| route.names(listener))
    }

    /// The route of a path of this authority on this listener, whoever asks.
    pub fn whose(
        &self,
        listener: SocketAddr,
        authority: &str,
        path: &str,
    ) -> Option<&Arc<RouteSettings>> {
        self.at(listener).lookup(host_of(authority), path)
    }

    /// Whether a path (a query may follow) of this authority belongs, on this listener, to this very route.
    pub fn leads_to(
        &self,
        listener: SocketAddr,
        authority: &str,
        path: &str,
        route: &Arc<RouteSettings>,
    ) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        let found = self.at(listener).lookup(host_of(authority), path);
        found.is_some_and(|found| Arc::ptr_eq(found, route))
    }

    fn at(&self, listener: SocketAddr) -> &Hosts {
        let own = self.named.iter().find(|(address, _)| *address == listener);
        own.map_or(&self.common, |(_, hosts)| hosts)
    }
}

impl Hosts {
    fn new<'r>(routes: impl Iterator<Item = &'r Arc<RouteSettings>>) -> Self {
        let mut table = Self::default();
        for route in routes {
            let paths = match &route.host {
                Some(host) => table.by_host.entry(host.clone()).or_default(),
                None => &mut table.any_host,
            };
            match &route.path {
                PathMatch::Exact(path) => paths.exact.insert(path.clone(), route.clone()),
                PathMatch::Letters(path) => {
                    if !paths.lengths.contains(&path.len()) {
                        paths.lengths.push(path.len());
                        paths.lengths.sort_unstable_by(|a, b| b.cmp(a));
                    }
                    paths.letters.insert(path.clone(), route.clone())
                }
                PathMatch::Prefix(path) => paths.prefix.insert(path.clone(), route.clone()),
            };
        }
        table
    }

    fn lookup(&self, host: &str, path: &str) -> Option<&Arc<RouteSettings>> {
        let own = self.by_host.get(host).and_then(|paths| paths.find(path));
        own.or_else(|| self.any_host.find(path))
    }

    /// `%40` is another letter than `@` in a URL (RFC 3986 §2.2), and yet many servers take it for the same:
    /// where that would lead to another route, nobody may go.
    fn check_escapes(
        &self,
        host: &str,
        path: &str,
        route: &Arc<RouteSettings>,
    ) -> Result<(), Denial> {
        if memchr(b'%', path.as_bytes()).is_none() {
            return Ok(());
        }
        let decoded = path::decoded(path);
        match self.lookup(host, &decoded) {
            Some(found) if Arc::ptr_eq(found, route) => {
                self.check_parameters(host, &decoded, route)
            }
            _ => Err(Denial::new(
                Reason::Malformed,
                "path.encoded",
                "The path encodes a character that hides another path",
            )),
        }
    }

    /// Servlet containers cut `;x` off a segment before they look: where that would lead to another
    /// route, nobody may go.
    fn check_parameters(
        &self,
        host: &str,
        path: &str,
        route: &Arc<RouteSettings>,
    ) -> Result<(), Denial> {
        if memchr(b';', path.as_bytes()).is_none() {
            return Ok(());
        }
        let names = path.split('/').map(|s| s.split(';').next().unwrap_or_default());
        let cut = names.collect::<Vec<_>>().join("/");
        match self.lookup(host, &cut) {
            Some(found) if Arc::ptr_eq(found, route) => Ok(()),
            _ => Err(Denial::new(
                Reason::Malformed,
                "path.parameter",
                "The path has a parameter that hides another path",
            )),
        }
    }

    fn nothing(&self, host: &str) -> Denial {
        let known = self.by_host.contains_key(host);
        if known || !self.any_host.is_empty() {
            Denial::new(Reason::NoRoute, "route.no_path", "Nothing is served at this path")
        } else {
            Denial::new(Reason::WrongHost, "route.no_host", "This host is not served here")
        }
    }
}

impl Paths {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.letters.is_empty()
    }

    fn find(&self, path: &str) -> Option<&Arc<RouteSettings>> {
        if let Some(route) = self.exact.get(path) {
            return Some(route);
        }
        let below = self.below(path);
        let shortest = below.map_or(0, |(length, _)| length);
        // of the same length, that which ends at a segment says more
        let mut longer = self.lengths.iter().filter(|length| **length > shortest);
        let starts = longer.find_map(|length| self.letters.get(path.get(..*length)?));
        starts.or_else(|| below.map(|(_, route)| route))
    }

    /// The longest prefix that ends at a segment, and its length.
    fn below(&self, path: &str) -> Option<(usize, &Arc<RouteSettings>)> {
        let mut rest = path;
        loop {
            if let Some(route) = self.prefix.get(rest) {
                return Some((rest.len(), route));
            }
            match memrchr(b'/', rest.as_bytes()) {
                Some(0) | None => return self.prefix.get("/").map(|route| (1, route)),
                Some(at) => rest = rest.get(..at)?,
            }
        }
    }
}

/// The path that a route's backend gets for a path of the route.
pub fn backend_path(route: &RouteSettings, path: &str) -> String {
    let mapped = match (&route.path, &route.rewrite) {
        (_, None) => None,
        (PathMatch::Exact(_), Some(to)) => Some(to.clone()),
        (PathMatch::Prefix(from), Some(to)) => path::replace_prefix(path, from, to),
        (PathMatch::Letters(from), Some(to)) => path::replace_letters(path, from, to),
    };
    mapped.unwrap_or_else(|| path.to_owned())
}

/// An authority without its port.
pub fn host_of(authority: &str) -> &str {
    // short: a loop is over before a search has begun
    let end = match authority.bytes().rposition(|b| b == b']') {
        // `[::1].example.com` is no address
        Some(bracket) if matches!(authority.as_bytes().get(bracket + 1), None | Some(b':')) => {
            bracket + 1
        }
        Some(_) => authority.len(),
        None => authority.bytes().position(|b| b == b':').unwrap_or(authority.len()),
    };
    authority.get(..end).unwrap_or(authority)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::edits::Edits;
    use crate::base::head::Version;
    use crate::route::cors::Cors;
    use crate::route::settings::{Origins, PublicUrl};
    use http::HeaderMap;
    use std::net::{Ipv4Addr, SocketAddrV4};
    use std::time::Duration;

    /// A listener that others reach.
    const OPEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 443));

    pub(in crate::route) fn route(
        host: Option<&str>,
        path: PathMatch,
        upstream: &str,
    ) -> RouteSettings {
        RouteSettings {
            label: String::new(),
            listeners: None,
            host: host.map(str::to_owned),
            path,
            public_url: PublicUrl {
                scheme: "https",
                authority: "mcp.example.com".into(),
                path: "/".into(),
            },
            upstream: upstream.into(),
            rewrite: None,
            access: Default::default(),
            limits: None,
            rules: Vec::new(),
            auth: Default::default(),
            outgoing: None,
            methods: Methods::default(),
            origins: Origins::Listed(Vec::new()),
            cors: Some(Cors::default()),
            answer_edits: Edits::default(),
            body_limit: 4 << 20,
            keepalive: Some(Duration::from_secs(15)),
            counts: Default::default(),
            audit: None,
            traces: None,
        }
    }

    pub(in crate::route) fn head(authority: &str, path: &str) -> Head {
        Head {
            method: Method::POST,
            path: path.into(),
            query: None,
            authority: authority.into(),
            headers: HeaderMap::new(),
            version: Version::H11,
            websocket: false,
        }
    }

    fn table() -> Routes {
        let prefix = |p: &str| PathMatch::Prefix(p.into());
        let mut aws = route(None, prefix("/aws"), "aws");
        aws.rewrite = Some("/mcp".into());
        let routes = [
            route(None, prefix("/"), "root"),
            aws,
            route(None, PathMatch::Exact("/aws/admin".into()), "admin"),
            route(Some("a.example"), prefix("/aws"), "named"),
        ];
        Routes::new(routes.map(Arc::new))
    }

    #[test]
    fn a_host_ends_before_its_port() {
        for (authority, host) in [
            ("a.example", "a.example"),
            ("a.example:8443", "a.example"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("[::1].example.com", "[::1].example.com"),
            ("", ""),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }

    #[test]
    fn the_longest_path_wins_and_a_named_host_goes_first() {
        let table = table();
        for (host, path, upstream, backend) in [
            ("x.example", "/", "root", "/"),
            ("x.example", "/other/aws", "root", "/other/aws"),
            ("x.example", "/aws", "aws", "/mcp"),
            ("x.example", "/aws/", "aws", "/mcp/"),
            ("x.example", "/aws/deep/er", "aws", "/mcp/deep/er"),
            ("x.example", "/aws-pricing", "root", "/aws-pricing"),
            ("x.example", "/aws/admin", "admin", "/aws/admin"),
            ("x.example", "/aws/admin/", "aws", "/mcp/admin/"),
            ("a.example:8443", "/aws/admin", "named", "/aws/admin"),
            ("a.example", "/x", "root", "/x"),
        ] {
            let found = table.find(&head(host, path), OPEN).unwrap();
            assert_eq!(
                (found.route.upstream.as_str(), found.backend_path.as_str()),
                (upstream, backend),
                "{host}{path}"
            );
        }
    }

    #[test]
    fn parameters_lead_to_no_other_route() {
        let table = table();
        for path in ["/aws;x=1", "/aws;/tool", "/other/;x/aws/admin", "/aws/admin;x"] {
            let verdict =
                table.find(&head("x.example", path), OPEN).map(|r| r.route.upstream.clone());
            let expected = if path.starts_with("/other") {
                Ok("root".to_owned())
            } else {
                Err("path.parameter")
            };
            assert_eq!(verdict.map_err(|d| d.code), expected, "{path}");
        }
        assert!(table.find(&head("x.example", "/aws/x;v=1"), OPEN).is_ok());
    }

    #[test]
    fn escapes_lead_to_no_other_route() {
        let prefix = |p: &str| PathMatch::Prefix(p.into());
        let routes = [
            route(None, prefix("/"), "root"),
            route(None, prefix("/@admin"), "admin"),
            route(None, PathMatch::Exact("/a,b".into()), "exact"),
        ];
        let table = Routes::new(routes.map(Arc::new));
        let found = |path: &str| {
            let found = table.find(&head("x.example", path), OPEN);
            found.map(|routed| routed.route.upstream.clone()).map_err(|denial| denial.code)
        };
        for hidden in ["/%40admin", "/%40admin/x", "/a%2cb", "/a%2Cb", "/%40admin;x/%41"] {
            assert_eq!(found(hidden), Err("path.encoded"), "{hidden}");
        }
        for (open, upstream) in [
            ("/%40other", "root"),
            ("/@admin/%2C", "admin"),
            ("/a,b/%40", "root"),
            ("/a%20b/%C3%A9", "root"),
        ] {
            assert_eq!(found(open), Ok(upstream.to_owned()), "{open}");
        }
    }

    #[test]
    fn letters_match_what_starts_with_them() {
        let prefix = |p: &str| PathMatch::Prefix(p.into());
        let letters = |p: &str| PathMatch::Letters(p.into());
        let with = |path: PathMatch, upstream: &str, rewrite: Option<&str>| {
            let mut route = route(None, path, upstream);
            route.rewrite = rewrite.map(str::to_owned);
            Arc::new(route)
        };
        let table = Routes::new([
            with(prefix("/"), "root", None),
            with(letters("/admin"), "admin", None),
            with(letters("/admin/pub"), "public", None),
            with(prefix("/both"), "below", None),
            with(letters("/both"), "starts", None),
            with(PathMatch::Exact("/adminx".into()), "exact", None),
            with(letters("/c"), "c", Some("/x")),
            with(letters("/to"), "to", Some("/")),
            with(letters("/@"), "at", None),
        ]);
        let found = |path: &str| {
            let found = table.find(&head("x.example", path), OPEN);
            found
                .map(|routed| (routed.route.upstream.clone(), routed.backend_path))
                .map_err(|denial| denial.code)
        };
        let ok = |upstream: &str, path: &str| Ok((upstream.to_owned(), path.to_owned()));
        for (path, upstream, backend) in [
            ("/admin", "admin", "/admin"),
            ("/administrator/x", "admin", "/administrator/x"),
            ("/admin/x", "admin", "/admin/x"),
            ("/admin%20", "admin", "/admin%20"),
            ("/admin/public/x", "public", "/admin/public/x"),
            ("/adminx", "exact", "/adminx"),
            ("/adminx/y", "admin", "/adminx/y"),
            ("/Admin", "root", "/Admin"),
            ("/admi", "root", "/admi"),
            ("/x/admin", "root", "/x/admin"),
            ("/both", "below", "/both"),
            ("/both/x", "below", "/both/x"),
            ("/bothx", "starts", "/bothx"),
            ("/c", "c", "/x"),
            ("/cd/e", "c", "/xd/e"),
            ("/c/d", "c", "/x/d"),
            ("/c../d", "c", "/x../d"),
            ("/to", "to", "/"),
            ("/to/x", "to", "/x"),
            ("/tox", "to", "/x"),
        ] {
            assert_eq!(found(path), ok(upstream, backend), "{path}");
        }
        assert_eq!(found("/to../x"), Err("path.dots"));
        assert_eq!(found("/to%2e./x"), Err("path.encoded"));
        assert_eq!(found("/%40home"), Err("path.encoded"));
    }

    #[test]
    fn says_what_is_missing() {
        let table = Routes::new([Arc::new(route(
            Some("a.example"),
            PathMatch::Prefix("/mcp".into()),
            "a",
        ))]);
        assert_eq!(
            table.find(&head("b.example", "/mcp"), OPEN).unwrap_err().reason,
            Reason::WrongHost
        );
        assert_eq!(table.find(&head("a.example", "/x"), OPEN).unwrap_err().reason, Reason::NoRoute);
        let mut trace = head("a.example", "/mcp");
        trace.method = Method::TRACE;
        assert_eq!(table.find(&trace, OPEN).unwrap_err().reason, Reason::MethodNotAllowed);
    }

    #[test]
    fn a_listener_has_its_own_routes_and_those_of_all() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let on = |listeners: &[&str], host, path: &str, upstream| {
            let mut route = route(host, PathMatch::Prefix(path.into()), upstream);
            if !listeners.is_empty() {
                route.listeners = Some(listeners.iter().map(|text| at(text)).collect());
            }
            Arc::new(route)
        };
        let (v4, v6, inner) = ("0.0.0.0:443", "[::]:443", "10.0.0.1:8081");
        let table = Routes::new([
            on(&[v4, v6], Some("a.example"), "/mcp", "outer"),
            on(&[inner], Some("a.example"), "/mcp", "inner"),
            on(&[inner], Some("b.example"), "/", "inner"),
            on(&[], Some("a.example"), "/all", "all"),
        ]);
        let found = |listener: &str, host: &str, path: &str| {
            let found = table.find(&head(host, path), at(listener));
            found.map(|routed| routed.route.upstream.clone()).map_err(|denial| denial.reason)
        };
        for listener in [v4, v6] {
            assert_eq!(found(listener, "a.example", "/mcp"), Ok("outer".into()));
            assert_eq!(found(listener, "a.example", "/all"), Ok("all".into()));
            assert_eq!(found(listener, "b.example", "/"), Err(Reason::WrongHost));
        }
        assert_eq!(found(inner, "a.example", "/mcp"), Ok("inner".into()));
        assert_eq!(found(inner, "b.example", "/"), Ok("inner".into()));
        assert_eq!(found(inner, "a.example", "/all"), Ok("all".into()));
        // a listener that no route names has the routes that name none
        assert_eq!(found(OPEN_TOO, "a.example", "/all"), Ok("all".into()));
        assert_eq!(found(OPEN_TOO, "a.example", "/mcp"), Err(Reason::NoRoute));
        assert!(Arc::ptr_eq(&table.named[0].1, &table.named[2].1), "one table for both");
        let outer = table.find(&head("a.example", "/mcp"), at(v4)).unwrap().route;
        assert!(table.leads_to(at(v6), "a.example", "/mcp/x?y", &outer));
        assert!(!table.leads_to(at(inner), "a.example", "/mcp/x?y", &outer));
    }

    const OPEN_TOO: &str = "0.0.0.0:8443";
}
