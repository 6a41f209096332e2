//! Servers: in, `server` blocks; out, where they listen, which names they serve, and what they do before
//! any location is looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::condition::{self, ApiKey, If, Return, ToHttps};
use super::nginx::Directive;
use super::note::Notes;
use super::scope::Scope;
use crate::base::url;

/// One `server` block.
#[derive(Debug)]
pub(super) struct Site<'t> {
    pub(super) block: &'t Directive,
    pub(super) scope: Scope<'t>,
    pub(super) listens: Vec<Listen<'t>>,
    pub(super) names: Names<'t>,
    pub(super) does: Does<'t>,
}

/// One socket of a server.
#[derive(Debug, Clone)]
pub(super) struct Listen<'t> {
    pub(super) socket: SocketAddr,
    pub(super) directive: &'t Directive,
    pub(super) tls: bool,
    pub(super) default: bool,
    pub(super) proxy_protocol: bool,
}

/// The names of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names<'t> {
    /// As routes take them: whole names and addresses.
    pub(super) hosts: Vec<String>,
    /// Where names like `*.example.com` stand: routes have none, but a default server serves them all.
    pub(super) wild: Option<&'t Directive>,
    /// Whether a name stands there that routes cannot take.
    pub(super) odd: bool,
}

/// What the server level does with requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Does<'t> {
    /// Plain requests go to https.
    pub(super) redirect: Option<(ToHttps, &'t Directive)>,
    /// Whether locations are looked at, for what came in plain and for what came in over TLS.
    pub(super) serves_plain: bool,
    pub(super) serves_tls: bool,
    /// Keys that every request needs.
    pub(super) keys: Vec<(ApiKey, &'t Directive)>,
    /// What restricts here and cannot be carried.
    pub(super) refusals: Vec<&'t Directive>,
}

/// Reads a `server` block.
pub(super) fn site<'t>(block: &'t Directive, http: &Scope<'t>, notes: &mut Notes) -> Site<'t> {
    let scope = http.inside(block.inner());
    let ssl_on = scope.is_on("ssl");
    let mut listens = Vec::new();
    for directive in block.inner().iter().filter(|d| d.name == "listen") {
        match sockets(directive) {
            Some(sockets) => listens.extend(sockets.into_iter().map(|mut listen| {
                listen.tls |= ssl_on;
                listen
            })),
            None if directive.args.iter().any(|arg| arg == "quic") => {
                notes.dropped(directive, "HTTP/3 is not spoken");
            }
            None => notes.refused(directive, "the edge listens on addresses with ports only"),
        }
    }
    if !block.inner().iter().any(|d| d.name == "listen") {
        let socket = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
        let tls = ssl_on;
        listens.push(Listen {
            socket,
            directive: block,
            tls,
            default: false,
            proxy_protocol: false,
        });
    }
    let names = names(block, notes);
    let does = does(&scope, &names, notes);
    Site { block, scope, listens, names, does }
}

/// The sockets of a `listen`: two for `[::]:80 ipv6only=off`.
fn sockets(directive: &Directive) -> Option<Vec<Listen<'_>>> {
    let words: Vec<&str> = directive.args.iter().skip(1).map(String::as_str).collect();
    let has = |word: &str| words.contains(&word);
    if has("quic") {
        return None;
    }
    let socket = socket(directive.arg(0))?;
    let listen = |socket| Listen {
        socket,
        directive,
        tls: has("ssl"),
        default: has("default_server") || has("default"),
        proxy_protocol: has("proxy_protocol"),
    };
    let mut all = vec![listen(socket)];
    if has("ipv6only=off") && socket.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        all.push(listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, socket.port()))));
    }
    Some(all)
}

/// `80`, `*:80`, `1.2.3.4`, `[::]:80`, `localhost:80`.
fn socket(text: &str) -> Option<SocketAddr> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let port = text.parse().ok().filter(|port| *port > 0)?;
        return Some((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().ok().filter(|port| *port > 0)?)
        }
        _ => (text, 80),
    };
    let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None if host == "*" => Ipv4Addr::UNSPECIFIED.into(),
        None if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
        None => IpAddr::V4(host.parse().ok()?),
    };
    Some((ip, port).into())
}

fn names<'t>(block: &'t Directive, notes: &mut Notes) -> Names<'t> {
    let mut names = Names::default();
    for directive in block.inner().iter().filter(|d| d.name == "server_name") {
        for word in &directive.args {
            let word = word.to_ascii_lowercase();
            if word.is_empty() || word == "_" {
                continue;
            }
            let wanted = match word.strip_prefix('.') {
                Some(rest) => vec![rest.to_owned(), format!("*.{rest}")],
                None => vec![word.clone()],
            };
            for host in wanted {
                let bare = host.strip_prefix("*.").unwrap_or(&host);
                match url::host(bare) {
                    Ok(_) if host.starts_with("*.") => names.wild = Some(directive),
                    Ok(_) if names.hosts.contains(&host) => {}
                    Ok(_) => names.hosts.push(host),
                    Err(_) => {
                        names.odd = true;
                        notes.refused(directive, "routes are told apart by whole names");
                    }
                }
            }
        }
    }
    names
}

/// Goes through the server level as nginx does before it looks for a location.
fn does<'t>(scope: &Scope<'t>, names: &Names<'_>, notes: &mut Notes) -> Does<'t> {
    let mut does = Does { serves_plain: true, serves_tls: true, ..Does::default() };
    let mut sent: Vec<String> = Vec::new();
    for directive in scope.own() {
        match directive.name.as_str() {
            "if" => match condition::condition(directive) {
                If::ApiKey(key) => does.keys.push((key, directive)),
                If::PlainToHttps(to) => {
                    redirects(&mut does, to, directive, notes);
                    does.serves_plain = false;
                }
                If::HostToHttps { host, to } => {
                    redirects(&mut does, to, directive, notes);
                    sent.push(host);
                }
                If::Preflight => {
                    notes.dropped(directive, "the edge answers preflights by itself: `cors`")
                }
                If::Other => {
                    notes.refused(directive, "the edge has no conditions");
                    does.refusals.push(directive);
                }
            },
            "return" => {
                (does.serves_plain, does.serves_tls) = (false, false);
                returned(&mut does, directive, notes);
                break;
            }
            "rewrite" => {
                if let Some(to) = condition::rewrites(directive) {
                    (does.serves_plain, does.serves_tls) = (false, false);
                    redirects(&mut does, to, directive, notes);
                    break;
                }
                notes.refused(directive, "the edge rewrites prefixes of routes only");
                does.refusals.push(directive);
            }
            _ => {}
        }
    }
    if let Some((to, directive)) = &does.redirect
        && to.host.as_ref().is_some_and(|host| !names.hosts.contains(host))
    {
        notes.differs(directive, "the edge redirects to the name that was asked for");
    }
    // certbot writes one `if` per name; what is left over is not served in plain either
    if !sent.is_empty() && does.serves_plain {
        does.serves_plain = false;
        let served = names.hosts.iter().any(|host| !sent.contains(host));
        if let (true, Some((_, directive))) = (served, &does.redirect) {
            notes.differs(directive, "all names of this server are redirected, not this one alone");
        }
    }
    does
}

fn returned<'t>(does: &mut Does<'t>, directive: &'t Directive, notes: &mut Notes) {
    match condition::returns(directive) {
        Some(Return::ToHttps(to)) => redirects(does, to, directive, notes),
        Some(Return::Redirect) => {
            notes
                .dropped(directive, "the edge redirects to https only; these names are not served");
        }
        Some(Return::Status { .. }) => {
            // behind certbot's conditions this is what never happens
            if does.redirect.is_none() {
                notes.dropped(directive, "names without a route are answered 421, other paths 404");
            }
        }
        None => notes.refused(directive, "this is none of nginx's forms"),
    }
}

fn redirects<'t>(does: &mut Does<'t>, to: ToHttps, directive: &'t Directive, notes: &mut Notes) {
    if !to.keeps_path {
        notes.differs(directive, "the edge keeps path and query when it redirects");
    }
    if does.redirect.is_none() {
        does.redirect = Some((to, directive));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_as_nginx_reads_them() {
        for (text, expected) in [
            ("80", "0.0.0.0:80"),
            ("*:8080", "0.0.0.0:8080"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("127.0.0.1:81", "127.0.0.1:81"),
            ("[::]:443", "[::]:443"),
            ("[::1]", "[::1]:80"),
            ("localhost:82", "127.0.0.1:82"),
        ] {
            assert_eq!(socket(text).unwrap().to_string(), expected, "{text}");
        }
        for bad in
            ["", "unix:/run/x.sock", "0", "99999", "example.com:80", "1.2.3.4:", "[::]:0", "a"]
        {
            assert_eq!(socket(bad), None, "{bad}");
        }
    }
}
