//! The request that is explained: in, words of a command line; out, a head as a wire would give it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::base::head::{Head, Version};
use crate::base::url::{self, Origin};

/// What the command line says.
#[derive(Debug)]
pub struct Request<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// What the client types.
    pub url: &'a str,
    /// `Name: value`.
    pub headers: &'a [String],
    /// The client's address.
    pub from: IpAddr,
    /// The tool that is called.
    pub tool: Option<&'a str>,
    /// Where it comes in; absent, where the URL leads.
    pub listener: Option<SocketAddr>,
}

/// The same, read.
#[derive(Debug)]
pub struct Asked {
    /// As the stages see it.
    pub(super) head: Head,
    /// Where the URL leads.
    pub(super) origin: Origin,
    pub(super) from: IpAddr,
    pub(super) tool: Option<String>,
    pub(super) listener: Option<SocketAddr>,
}

impl Request<'_> {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence that says what cannot be read.
    pub fn read(&self) -> Result<Asked, String> {
        let method = Method::from_bytes(self.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| format!("`{}` is not a method", self.method))?;
        let (origin, rest) = url::split(self.url)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (path, query) = match rest.split_once('?') {
            None => (rest, None),
            Some((path, query)) => (path, Some(query.to_owned())),
        };
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        let mut headers = fields(self.headers)?;
        let host = headers.remove(http::header::HOST);
        let host = host.and_then(|host| host.to_str().ok().map(str::to_ascii_lowercase));
        let authority = host.unwrap_or_else(|| origin.authority());
        let version = Version::H11;
        let head = Head { method, path, query, authority, headers, version, websocket: false };
        let (from, tool) = (self.from, self.tool.map(str::to_owned));
        Ok(Asked { head, origin, from, tool, listener: self.listener })
    }
}

/// `Name: value` of each.
///
/// # Errors
/// A sentence that names the one that is none; never its value, which may be a credential.
pub fn fields(texts: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for text in texts {
        let (name, value) = text.split_once(':').ok_or("a header is written `Name: value`")?;
        let bad = |what: &str| format!("the {what} of the header `{}` is not one", name.trim());
        let read = HeaderName::try_from(name.trim()).map_err(|_| bad("name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| bad("value"))?;
        headers.append(read, value);
    }
    Ok(headers)
}
