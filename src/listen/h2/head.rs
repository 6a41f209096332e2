//! A request's head over HTTP/2: in, the parts that the `h2` crate made; out, a checked `Head`.

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderValue};

use crate::base::denial::{self, Denial};
use crate::base::head::{Head, Version};
use crate::listen::h1::authority::authority;
use crate::listen::h1::head::{MAX_FIELDS, MAX_LINE};

/// The same rules as for HTTP/1.1, as far as the frames' own do not cover them (RFC 9113 §8); one field may be as
/// long as all of them.
pub(super) fn head(parts: http::request::Parts) -> Result<Head, Denial> {
    let malformed = |code, message| Denial::new(denial::Reason::Malformed, code, message);
    let mut headers = parts.headers;
    if headers.len() > MAX_FIELDS {
        let many = "There are too many header fields";
        return Err(Denial::new(denial::Reason::HeadTooLarge, "h2.fields", many));
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(malformed("h2.hosts", "There is more than one Host")),
        (Some(host), None) => {
            Some(authority(host.to_str().map_err(|_| malformed("h2.host", "Host is malformed"))?)?)
        }
        (None, None) => None,
    };
    let named = parts.uri.authority().map(|a| authority(a.as_str())).transpose()?;
    let authority = match (named, host) {
        (Some(named), Some(host)) if named != host => {
            return Err(malformed("h2.host_differs", "Host differs from :authority"));
        }
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => return Err(malformed("h2.no_host", "Host is missing")),
    };
    headers.remove(HOST);
    join_cookies(&mut headers);
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    if target.len() > MAX_LINE {
        let long = "The request target is too long";
        return Err(Denial::new(denial::Reason::UriTooLong, "h2.target", long));
    }
    if !target.bytes().all(|b| b.is_ascii_graphic()) || target.contains('#') {
        return Err(malformed("h2.target", "The request target has a forbidden character"));
    }
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(malformed("h2.lengths", "There is more than one Content-Length"));
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.to_owned(), None),
    };
    Ok(Head {
        method: parts.method,
        path,
        query,
        authority,
        headers,
        version: Version::H2,
        websocket: false,
    })
}

/// HTTP/2 may split Cookie; HTTP/1.1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}
