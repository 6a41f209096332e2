//! Which public path is a backend's path? In: a URL that a backend wrote and the route it was
//! asked through; out: a path that the client can use, always without an origin.
//!
//! It undoes a route's `rewrite`, for the `endpoint` event of the old HTTP+SSE transport and for
//! the `Location` of redirects, and carries the routing token of the former in the query.

use std::borrow::Cow;

use crate::route::settings::PathMatch;

/// The query parameter that carries the routing token.
const TOKEN: &str = "mcp-edge=";

/// How a backend and its route are called.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Authorities that stand for the backend: its own, and the `Host` that it was sent.
    pub hosts: &'a [&'a str],
    /// The authority of the public URL. Lower case, like all here.
    pub public: &'a str,
    /// The paths of the route.
    pub path: &'a PathMatch,
    /// What the route's prefix becomes upstream.
    pub rewrite: Option<&'a str>,
    /// The path of the request as the backend saw it; relative references start there.
    pub request_path: &'a str,
}

/// Where an `endpoint` event points. Both hold a path, and a query where there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// A public path below the route; the ticket's `inner` stays empty.
    Public(String),
    /// A path of the backend that no public path stands for: it goes into the ticket's `inner`,
    /// and the client is pointed at the stream's own public path.
    Sealed(String),
}

/// Maps the data of an `endpoint` event. `None`: not a URL that the backend may send clients to
/// (a foreign origin, bytes that URLs cannot have); the stream must be refused.
pub fn map_endpoint(text: &str, site: &Site<'_>) -> Option<Mapped> {
    let target = Target::resolve(text, site)?;
    let public = match target.origin {
        Origin::Foreign => return None,
        Origin::Public if site.is_public(&target.path) => Some(target.path.clone()),
        _ => site.to_public(&target.path),
    };
    Some(match public.filter(|path| crate::route::path::check(path).is_ok()) {
        Some(path) => Mapped::Public(path + target.query),
        None => Mapped::Sealed(target.path + target.query),
    })
}

/// Maps the `Location` of a redirect (RFC 9110 §10.2.2). `None`: it stays as it is, because it
/// leads elsewhere or is right already.
pub fn map_location(location: &str, site: &Site<'_>) -> Option<String> {
    let target = Target::resolve(location, site)?;
    let path = match target.origin {
        Origin::Foreign => return None,
        Origin::Public if site.is_public(&target.path) => return None,
        // Without a public path it leads nowhere, but it names no inner address.
        Origin::Backend => site.to_public(&target.path).unwrap_or(target.path),
        _ => site.to_public(&target.path)?,
    };
    // Without its origin, `//x` would name the host x.
    (!path.starts_with("//")).then(|| path + target.query + target.fragment)
}

/// Appends the routing token to the query of a path.
pub fn with_token(path_and_query: &str, token: &str) -> String {
    let mark = if path_and_query.contains('?') { '&' } else { '?' };
    format!("{path_and_query}{mark}{TOKEN}{token}")
}

/// Takes the routing token out of a query: the token, and the query as the backend wrote it, byte
/// for byte; `None` in its place where there was none. Of several the last is ours.
pub fn take_token(query: &str) -> Option<(&str, Option<Cow<'_, str>>)> {
    let start = match query.rfind("&mcp-edge=") {
        Some(at) => at + 1,
        None => query.starts_with(TOKEN).then_some(0)?,
    };
    let (before, ours) = query.split_at_checked(start)?;
    let ours = ours.strip_prefix(TOKEN)?;
    let before = before.strip_suffix('&');
    let (token, after) =
        ours.split_once('&').map_or((ours, None), |(token, rest)| (token, Some(rest)));
    let rest = match (before, after) {
        (Some(before), Some(after)) => Some(Cow::Owned(format!("{before}&{after}"))),
        (one, other) => one.or(other).map(Cow::Borrowed),
    };
    Some((token, rest))
}

impl Site<'_> {
    /// The public path for a backend's one; `None` when it is not below the rewritten prefix.
    fn to_public(self, path: &str) -> Option<String> {
        match self.path {
            PathMatch::Exact(public) => {
                (path == self.rewrite.unwrap_or(public)).then(|| public.clone())
            }
            PathMatch::Letters(public) if self.rewrite.is_none() => {
                path.starts_with(public.as_str()).then(|| path.to_owned())
            }
            PathMatch::Prefix(public) | PathMatch::Letters(public) => {
                let rest = below(path, self.rewrite.unwrap_or(public))?;
                let mapped = format!("{}{rest}", without_slash(public));
                Some(if mapped.is_empty() { "/".to_owned() } else { mapped })
            }
        }
    }

    fn is_public(self, path: &str) -> bool {
        match self.path {
            PathMatch::Exact(public) => path == public,
            PathMatch::Letters(public) => path.starts_with(public.as_str()),
            PathMatch::Prefix(public) => below(path, public).is_some(),
        }
    }
}

/// What follows a prefix, on a segment border: empty, or starting with `/`.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(without_slash(prefix))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn without_slash(prefix: &str) -> &str {
    if prefix == "/" { "" } else { prefix }
}

struct Target<'a> {
    origin: Origin,
    /// Without dot segments.
    path: String,
    /// Empty, or starting with `?`.
    query: &'a str,
    /// Empty, or starting with `#`.
    fragment: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Spelled out as the backend's.
    Backend,
    /// Spelled out as the public one.
    Public,
    /// A path alone.
    Same,
    Foreign,
}

impl<'a> Target<'a> {
    /// Resolves a reference (RFC 3986 §5.2). `None` for bytes that no URL has, and for what
    /// WHATWG parsers read in another way.
    fn resolve(reference: &'a str, site: &Site<'_>) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>');
        if !reference.bytes().all(plain) {
            return None;
        }
        let (rest, fragment) = split_before(reference, '#');
        let (rest, query) = split_before(rest, '?');
        let (origin, path) = split_origin(rest, site)?;
        let absolute = if origin != Origin::Same || path.starts_with('/') {
            Cow::Borrowed(path)
        } else if path.is_empty() {
            Cow::Borrowed(site.request_path)
        } else {
            let (folder, _) = site.request_path.rsplit_once('/')?;
            Cow::Owned(format!("{folder}/{path}"))
        };
        Some(Self { origin, path: without_dots(&absolute)?, query, fragment })
    }
}

/// Tells the origin from the path. The scheme does not matter: a backend behind TLS that ends
/// here writes `http` and our own host.
fn split_origin<'a>(text: &'a str, site: &Site<'_>) -> Option<(Origin, &'a str)> {
    let colon = text.find(':').filter(|at| !text.get(..*at).is_none_or(|s| s.contains('/')));
    let (scheme, rest) = match colon {
        Some(at) => (text.get(..at)?.to_ascii_lowercase(), text.get(at + 1..)?),
        None => (String::new(), text),
    };
    let port = match scheme.as_str() {
        "" => "",
        "http" => ":80",
        "https" => ":443",
        _ => return Some((Origin::Foreign, "/")),
    };
    let Some(rest) = rest.strip_prefix("//") else {
        // `http:path` has two readings.
        return colon.is_none().then_some((Origin::Same, text));
    };
    let (authority, path) = split_before(rest, '/');
    let authority = authority.to_ascii_lowercase();
    let bare = authority.strip_suffix(port).unwrap_or(&authority);
    let is = |host: &str| host == authority || host == bare;
    // A backend that is sent the public host is still the backend where the path is not public.
    let origin = match (is(site.public), site.hosts.iter().any(|host| is(host))) {
        (true, _) => Origin::Public,
        (false, true) => Origin::Backend,
        (false, false) => Origin::Foreign,
    };
    Some((origin, if path.is_empty() { "/" } else { path }))
}

fn split_before(text: &str, mark: char) -> (&str, &str) {
    text.split_at_checked(text.find(mark).unwrap_or(text.len())).unwrap_or((text, ""))
}

/// Removes dot segments (RFC 3986 §5.2.4). `None` when one is spelled with `%2e`.
fn without_dots(path: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ if is_hidden_dots(segment) => return None,
            _ => kept.push(segment),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

fn is_hidden_dots(segment: &str) -> bool {
    segment.contains('%')
        && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOSTS: &[&str] = &["127.0.0.1:8000"];

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    fn site<'a>(path: &'a PathMatch, rewrite: Option<&'a str>) -> Site<'a> {
        Site { hosts: HOSTS, public: "mcp.example.com", path, rewrite, request_path: "/mcp/sse" }
    }

    fn public(path: &str) -> Option<Mapped> {
        Some(Mapped::Public(path.into()))
    }

    fn sealed(path: &str) -> Option<Mapped> {
        Some(Mapped::Sealed(path.into()))
    }

    #[test]
    fn endpoints_below_the_rewrite_are_mapped_back() {
        for (text, route, rewrite, expected) in [
            (
                "/mcp/messages?sessionId=1",
                "/aws",
                Some("/mcp"),
                public("/aws/messages?sessionId=1"),
            ),
            ("/mcp/messages/?session_id=a", "/", Some("/mcp"), public("/messages/?session_id=a")),
            ("/messages?x", "/aws", Some("/"), public("/aws/messages?x")),
            ("/messages?x", "/", None, public("/messages?x")),
            ("/aws/m", "/aws", None, public("/aws/m")),
            ("/mcp", "/aws", Some("/mcp"), public("/aws")),
            ("/mcp", "/", Some("/mcp"), public("/")),
            ("/mcp/", "/aws", Some("/mcp"), public("/aws/")),
            ("messages?x=1#f", "/aws", Some("/mcp"), public("/aws/messages?x=1")),
            ("../mcp/./m", "/aws", Some("/mcp"), public("/aws/m")),
            ("?x", "/aws", Some("/mcp"), public("/aws/sse?x")),
            ("http://127.0.0.1:8000/mcp/m", "/aws", Some("/mcp"), public("/aws/m")),
            ("HTTPS://MCP.example.com:443/aws/m?x", "/aws", Some("/mcp"), public("/aws/m?x")),
            ("http://mcp.example.com/mcp/m?x", "/aws", Some("/mcp"), public("/aws/m?x")),
            ("//127.0.0.1:8000/mcp/m", "/aws", Some("/mcp"), public("/aws/m")),
            (
                "/mcp/m?u=http://a/../b//c",
                "/aws",
                Some("/mcp"),
                public("/aws/m?u=http://a/../b//c"),
            ),
        ] {
            assert_eq!(map_endpoint(text, &site(&prefix(route), rewrite)), expected, "{text}");
        }
    }

    #[test]
    fn endpoints_elsewhere_are_sealed() {
        for (text, rewrite) in [
            ("/messages?s=1", Some("/mcp")),
            ("/mcpx/m", Some("/mcp")),
            ("/messages", None),
            ("/mcp/a//b", Some("/mcp")),
            ("/mcp/a%2Fb", Some("/mcp")),
            // what the edge refuses on the way in, clients are not sent to
            ("/mcp/%7Eann", Some("/mcp")),
            ("/mcp/a%25b", Some("/mcp")),
            ("/mcp/a%3Bb", Some("/mcp")),
        ] {
            assert_eq!(map_endpoint(text, &site(&prefix("/aws"), rewrite)), sealed(text), "{text}");
        }
        let exact = PathMatch::Exact("/sse".into());
        assert_eq!(map_endpoint("/messages?s=1", &site(&exact, None)), sealed("/messages?s=1"));
        assert_eq!(map_endpoint("/sse?s=1", &site(&exact, None)), public("/sse?s=1"));
        assert_eq!(map_endpoint("/up?s", &site(&exact, Some("/up"))), public("/sse?s"));
        assert_eq!(map_endpoint("http://127.0.0.1:8000", &site(&exact, None)), sealed("/"));
    }

    #[test]
    fn foreign_and_odd_endpoints_are_refused() {
        for text in [
            "http://evil.example/mcp/m",
            "//evil.example/mcp/m",
            "http://127.0.0.1:8001/mcp/m",
            "http://127.0.0.1/mcp/m",
            "http://user@127.0.0.1:8000/mcp/m",
            "http://127.0.0.1:8000@evil.example/mcp",
            "http:///mcp/m",
            "http:/mcp/m",
            "javascript:alert(1)",
            "ftp://127.0.0.1:8000/mcp",
            r"/\evil.example/m",
            "/mcp/ü",
            "/mcp/a b",
            "/mcp/a\tb",
            "/mcp/%2e%2E/m",
            "/mcp/.%2e/m",
        ] {
            assert_eq!(map_endpoint(text, &site(&prefix("/aws"), Some("/mcp"))), None, "{text}");
        }
    }

    #[test]
    fn redirects_of_the_backend_are_mapped_back() {
        for (location, rewrite, expected) in [
            // Starlette's redirect between `/mcp` and `/mcp/`.
            ("http://127.0.0.1:8000/mcp/", Some("/mcp"), Some("/aws-pricing/")),
            ("http://127.0.0.1:8000/mcp", Some("/mcp"), Some("/aws-pricing")),
            ("http://mcp.example.com/mcp/?a=b#c", Some("/mcp"), Some("/aws-pricing/?a=b#c")),
            ("https://mcp.example.com/aws-pricing/x", Some("/mcp"), None),
            ("https://mcp.example.com/aws-pricing/x", Some("/"), None),
            ("https://mcp.example.com/other", Some("/mcp"), None),
            ("/mcp/x", Some("/mcp"), Some("/aws-pricing/x")),
            ("x/", Some("/mcp"), Some("/aws-pricing/x/")),
            ("/login", Some("/mcp"), None),
            ("/login", Some("/"), Some("/aws-pricing/login")),
            ("http://127.0.0.1:8000/login?x", Some("/mcp"), Some("/login?x")),
            ("https://idp.example/authorize?x", Some("/mcp"), None),
            ("http://127.0.0.1:80001/mcp", Some("/mcp"), None),
            ("http://127.0.0.1:8000//evil.example/", Some("/mcp"), None),
            ("http://127.0.0.1:8000/mcp/..//evil.example/", Some("/mcp"), None),
            ("not a url", Some("/mcp"), None),
        ] {
            let got = map_location(location, &site(&prefix("/aws-pricing"), rewrite));
            assert_eq!(got.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn a_token_comes_out_of_where_it_was_put() {
        for (path, query) in [
            ("/m", None),
            ("/m?", Some("")),
            ("/m?s=1", Some("s=1")),
            ("/m?a&&b=?", Some("a&&b=?")),
        ] {
            let with = with_token(path, "e1.Az-_");
            let (_, sent) = with.split_once('?').unwrap();
            assert_eq!(take_token(sent), Some(("e1.Az-_", query.map(Cow::Borrowed))), "{path}");
        }
        for (query, token, rest) in [
            ("mcp-edge=t&s=1", "t", Some("s=1")),
            ("a=1&mcp-edge=t&s=1", "t", Some("a=1&s=1")),
            ("mcp-edge=x&mcp-edge=t", "t", Some("mcp-edge=x")),
            ("mcp-edge=", "", None),
        ] {
            assert_eq!(take_token(query), Some((token, rest.map(Cow::from))), "{query}");
        }
        for query in ["", "a=1", "xmcp-edge=1", "a=mcp-edge=1", "mcp-edge", "Mcp-Edge=1"] {
            assert_eq!(take_token(query), None, "{query}");
        }
    }

    proptest! {
        #[test]
        fn a_rewritten_path_maps_back(
            route in "(/[a-c]{1,2}){0,2}", rewrite in "(/[a-c]{1,2}){0,2}", rest in "(/[a-c]{1,2}){0,2}/?",
        ) {
            let or_root = |path: &str| if path.is_empty() { "/".to_owned() } else { path.to_owned() };
            let (prefix, target) = (prefix(&or_root(&route)), or_root(&rewrite));
            let (client, backend) = (or_root(&format!("{route}{rest}")), or_root(&format!("{rewrite}{rest}")));
            let got = map_endpoint(&backend, &site(&prefix, Some(&target)));
            // `/` and nothing are one path, once there is a prefix to put them behind.
            let same = |a: &str, b: &str| a.trim_end_matches('/') == b.trim_end_matches('/');
            match got {
                Some(Mapped::Public(path)) if backend == "/" => prop_assert!(same(&path, &client)),
                got => prop_assert_eq!(got, Some(Mapped::Public(client))),
            }
        }

        #[test]
        fn any_text_is_taken(text in "[/.?#:%a@2e\\\\]{0,12}", route in "/[a]{0,1}") {
            let prefix = prefix(&route);
            let site = site(&prefix, Some("/mcp"));
            if let Some(Mapped::Public(path)) = map_endpoint(&text, &site) {
                prop_assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
                prop_assert!(!path.contains("/../"), "{path}");
            }
            if let Some(path) = map_location(&text, &site) {
                prop_assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
            }
            let _ = take_token(&text);
        }
    }
}
