//! DNS rebinding: in, a request and its route; out, nothing, or the refusal of a foreign Host or Origin.
//!
//! Backends check Host and Origin themselves, but see the Host that we write; so we check here
//! (MCP transports, "Security Warning": Origin must be validated, 403).

use super::settings::{Origins, RouteSettings};
use super::table::host_of;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::listen::h1::authority::authority;

/// Checks Host and Origin against a route; `local`: the request came in on a loopback listener.
///
/// # Errors
/// 421 for a Host that a loopback route does not take, 403 for a foreign Origin.
pub fn check(route: &RouteSettings, head: &Head, host: &str, local: bool) -> Result<(), Denial> {
    if host.is_empty() {
        return Err(Denial::new(Reason::Malformed, "route.host_missing", "Host is missing"));
    }
    let local = local && route.host.is_none();
    if local && !is_local(host) {
        return Err(Denial::new(
            Reason::WrongHost,
            "route.host_not_local",
            "This host is not served here",
        ));
    }
    let mut origins = head.headers.get_all(http::header::ORIGIN).iter();
    let foreign = || Denial::new(Reason::Forbidden, "route.origin", "This origin is not allowed");
    match (origins.next(), origins.next()) {
        (None, _) => Ok(()),
        (Some(_), Some(_)) => Err(foreign()),
        (Some(origin), None) => {
            let origin = origin.to_str().map_err(|_| foreign())?.to_ascii_lowercase();
            if allowed(route, &origin, local) { Ok(()) } else { Err(foreign()) }
        }
    }
}

fn allowed(route: &RouteSettings, origin: &str, local: bool) -> bool {
    let listed = match &route.origins {
        Origins::Any => return true,
        Origins::Listed(origins) => origins.iter().any(|o| o == origin),
    };
    listed
        || origin == route.public_url.origin()
        || (local && origin_host(origin).is_some_and(|host| is_local(&host)))
}

fn origin_host(origin: &str) -> Option<String> {
    let (scheme, rest) = origin.split_once("://")?;
    let authority = authority(rest).ok().filter(|_| matches!(scheme, "http" | "https"))?;
    Some(host_of(&authority).to_owned())
}

/// Names of this machine itself; none of them can be pointed at it by a foreign name server.
pub fn is_local(host: &str) -> bool {
    host == "localhost"
        || host == "127.0.0.1"
        || host == "[::1]"
        || host.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::settings::PathMatch;
    use super::super::table::tests::{head, route};
    use super::*;

    fn verdict(local: bool, authority: &str, origin: Option<&str>) -> u16 {
        let mut route = route(None, PathMatch::Prefix("/".into()), "u");
        route.origins = Origins::Listed(vec!["https://app.example".into()]);
        let mut head = head(authority, "/");
        if let Some(origin) = origin {
            head.headers.insert("origin", origin.parse().unwrap());
        }
        check(&route, &head, host_of(authority), local).map_or_else(|d| d.reason.status(), |()| 200)
    }

    #[test]
    fn loopback_takes_only_local_names() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:80"] {
            assert_eq!(verdict(true, host, None), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]",
            "10.0.0.1",
        ] {
            assert_eq!(verdict(true, host, None), 421, "{host}");
        }
        assert_eq!(verdict(true, "localhost", Some("http://localhost:3000")), 200);
        assert_eq!(verdict(true, "localhost", Some("http://evil.example")), 403);
        for origin in [
            "http://localhost@evil.example",
            "http://[::1].evil.example",
            "http://localhost:x.evil",
        ] {
            assert_eq!(verdict(true, "localhost", Some(origin)), 403, "{origin}");
        }
    }

    #[test]
    fn elsewhere_origin_is_the_public_one_or_listed() {
        let at = |origin| verdict(false, "mcp.example.com", Some(origin));
        assert_eq!(at("https://mcp.example.com"), 200);
        assert_eq!(at("https://APP.example"), 200);
        for origin in [
            "null",
            "http://mcp.example.com",
            "https://mcp.example.com:8443",
            "http://localhost",
            "*",
            "",
        ] {
            assert_eq!(at(origin), 403, "{origin}");
        }
        assert_eq!(verdict(false, "anything.example", None), 200);
    }

    #[test]
    fn any_is_any() {
        let mut route = route(None, PathMatch::Prefix("/".into()), "u");
        route.origins = Origins::Any;
        let mut head = head("localhost", "/");
        head.headers.insert("origin", "https://evil.example".parse().unwrap());
        assert!(check(&route, &head, "localhost", true).is_ok());
        // the Host is checked all the same: that is what stops rebinding
        assert!(check(&route, &head, "evil.example", true).is_err());
    }
}
