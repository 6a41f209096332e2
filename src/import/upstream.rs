//! Servers behind: in, `proxy_pass` and `upstream`; out, the edge's upstreams, each once for all settings
//! that locations use it with, and what a prefix becomes there.

use std::collections::HashMap;

use super::headers;
use super::nginx::Directive;
use super::note::Notes;
use super::plan::Item;
use super::scope::Scope;
use super::values::{period, scalar};
use crate::base::url;

/// Where a `proxy_pass` leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    https: bool,
    /// `host[:port]`, or the name of an `upstream`.
    authority: String,
    /// What stands behind it; empty means that paths stay as they are.
    pub(super) path: String,
}

/// Reads a `proxy_pass`.
///
/// # Errors
/// A sentence that says why it cannot be carried.
pub(super) fn target(directive: &Directive, scope: &Scope<'_>) -> Result<Target, String> {
    let text = constants(directive.arg(0), scope);
    let (https, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("the edge speaks http and https to servers".to_owned()),
    };
    if rest.starts_with("unix:") {
        return Err("the edge speaks to servers over TCP".to_owned());
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '$']).unwrap_or(rest.len()));
    // `http://x$request_uri` says at length what no path says
    let path = if path == "$request_uri" || path == "$uri$is_args$args" { "" } else { path };
    if authority.is_empty() || path.contains(['$', '?', '#']) {
        return Err("the server must not hang on variables of the request".to_owned());
    }
    Ok(Target { https, authority: authority.to_owned(), path: path.to_owned() })
}

/// `$name` by what a `set` around it says, where that is a constant.
fn constants(text: &str, scope: &Scope<'_>) -> String {
    let mut text = text.to_owned();
    for set in scope.all("set") {
        let (name, value) = (set.arg(0).trim_start_matches('$'), set.arg(1));
        if name.is_empty() || value.contains('$') {
            continue;
        }
        text = text.replace(&format!("${{{name}}}"), value);
        if let Some((before, after)) = text.split_once(&format!("${name}"))
            && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        {
            text = format!("{before}{value}{after}");
        }
    }
    text
}

/// All upstreams so far.
#[derive(Debug, Default)]
pub(super) struct Upstreams<'t> {
    groups: HashMap<&'t str, &'t Directive>,
    made: Vec<(String, Item)>,
}

impl<'t> Upstreams<'t> {
    pub(super) fn new(http: &'t [Directive]) -> Self {
        let groups = http.iter().filter(|d| d.name == "upstream").map(|d| (d.arg(0), d)).collect();
        Self { groups, made: Vec::new() }
    }

    /// The items, in the order of their first use.
    pub(super) fn items(self) -> Vec<Item> {
        self.made.into_iter().map(|(_, item)| item).collect()
    }

    /// The upstream for a location; `Err` where there is none, which is noted.
    pub(super) fn of(
        &mut self,
        target: &Target,
        pass: &Directive,
        scope: &Scope<'_>,
        notes: &mut Notes,
    ) -> Result<String, ()> {
        let mut item = Item::default();
        let wanted = match self.groups.get(target.authority.as_str()).copied() {
            Some(group) => {
                item.head.push(group.at.to_string());
                self::group(group, target.https, &mut item, notes)?;
                target.authority.clone()
            }
            None => {
                let scheme = if target.https { "https" } else { "http" };
                let text = format!("{scheme}://{}", target.authority);
                let origin = url::origin(&text).map_err(|why| notes.refused(pass, why))?;
                item.head.push(pass.at.to_string());
                item.key("servers", format!("[ {} ]", scalar(&text)), "");
                format!("{}-{}", origin.host, origin.port)
            }
        };
        settings(target, pass, scope, &mut item, notes);
        Ok(self.name(&wanted, item))
    }

    /// The name of the upstream that has just these settings.
    fn name(&mut self, wanted: &str, item: Item) -> String {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let base: String = wanted.chars().map(|c| if good(c) { c } else { '-' }).take(56).collect();
        let body = |item: &Item| -> Vec<_> {
            item.lines
                .iter()
                .filter(|l| l.key != "name")
                .map(|l| (l.key.clone(), l.value.clone()))
                .collect()
        };
        let mut name = base.clone();
        let mut n = 1;
        while let Some((_, other)) = self.made.iter().find(|(other, _)| *other == name) {
            if body(other) == body(&item) {
                return name;
            }
            n += 1;
            name = format!("{base}-{n}");
        }
        let mut whole = Item { head: item.head, lines: Vec::new() };
        whole.key("name", scalar(&name), "");
        whole.lines.extend(item.lines);
        self.made.push((name.clone(), whole));
        name
    }
}

/// The replicas of an `upstream` and how new sessions are spread among them.
fn group(group: &Directive, https: bool, item: &mut Item, notes: &mut Notes) -> Result<(), ()> {
    let mut policy = None;
    let mut replicas = Vec::new();
    for directive in group.inner() {
        match directive.name.as_str() {
            "server" => replicas.extend(replica(directive, https, notes)),
            "least_conn" | "least_time" => policy = Some(("least_requests", directive)),
            "ip_hash" | "hash" | "sticky" => {
                notes.dropped(directive, "sessions stay on their replica by themselves");
            }
            "random" => notes.differs(directive, "new sessions take turns"),
            "keepalive_timeout" => match period(directive.arg(0)).filter(|text| text != "0s") {
                Some(text) => item.from("idle_timeout", text, &directive.at),
                None => notes.dropped(directive, "unused connections are closed after 4 s"),
            },
            "keepalive" | "keepalive_requests" | "keepalive_time" | "zone" | "ntlm" | "queue"
            | "state" | "resolver" | "resolver_timeout" => {
                notes.dropped(directive, "connections to servers are kept by themselves");
            }
            _ => {
                notes.refused(directive, "not known here, and so it may be a restriction");
                return Err(());
            }
        }
    }
    // without others, those for emergencies would wait for nobody
    if replicas.iter().all(|replica| replica.backup) {
        replicas.iter_mut().for_each(|replica| replica.backup = false);
    }
    if replicas.is_empty() {
        notes.refused(group, "it has no server that could be used");
        return Err(());
    }
    let servers = replicas.iter().map(|replica| {
        let url = scalar(&replica.url);
        let weight = match replica.weight {
            1 => String::new(),
            weight => format!(", weight: {weight}"),
        };
        let priority = if replica.backup { ", priority: secondary" } else { "" };
        let value = match (weight.as_str(), priority) {
            ("", "") => url,
            _ => format!("{{ url: {url}{weight}{priority} }}"),
        };
        (value, replica.from.at.to_string())
    });
    item.list("servers", servers.collect());
    if let Some((name, directive)) = policy {
        item.from("balance", name, &directive.at);
        // nginx knows no callers without sessions that would stay together
        item.from("affinity", "none", &directive.at);
    }
    Ok(())
}

struct Replica<'t> {
    url: String,
    weight: u32,
    backup: bool,
    from: &'t Directive,
}

fn replica<'t>(directive: &'t Directive, https: bool, notes: &mut Notes) -> Option<Replica<'t>> {
    let words: Vec<&str> = directive.args.iter().skip(1).map(String::as_str).collect();
    if words.contains(&"down") {
        notes.dropped(directive, "it is marked as down");
        return None;
    }
    let mut weight = 1;
    for word in &words {
        match word.split_once('=') {
            Some(("weight", n)) => {
                weight = n.parse().ok().filter(|n| (1..=1000).contains(n)).unwrap_or_else(|| {
                    notes.differs(directive, "a weight is 1 to 1000");
                    1
                });
            }
            Some(("max_fails" | "fail_timeout" | "slow_start" | "route" | "service", _)) => {}
            Some(("max_conns", _)) => {
                notes.differs(directive, "connections to a server are not limited")
            }
            None if matches!(*word, "backup" | "resolve" | "drain") => {}
            _ => notes.differs(directive, format!("`{word}` is not known here")),
        }
    }
    // nginx's default port, for TLS too
    let authority = directive.arg(0);
    let with_port = match url::host_port(authority) {
        Ok((_, Some(_))) => authority.to_owned(),
        Ok((host, None)) => format!("{}:80", url::bracketed(&host)),
        Err(why) => {
            notes.differs(directive, format!("it is left out: {why}"));
            return None;
        }
    };
    let scheme = if https { "https" } else { "http" };
    let url = format!("{scheme}://{with_port}");
    Some(Replica { url, weight, backup: words.contains(&"backup"), from: directive })
}

/// What the location says about how its servers are spoken to.
fn settings(
    target: &Target,
    pass: &Directive,
    scope: &Scope<'_>,
    item: &mut Item,
    notes: &mut Notes,
) {
    if let Some((host, directive)) = headers::host(scope, notes) {
        item.from("host", host, &directive.at);
    }
    if let Some((credentials, directive)) = headers::credentials(scope, notes) {
        item.from("credentials", credentials, &directive.at);
    }
    for (name, key) in
        [("proxy_connect_timeout", "connect_timeout"), ("proxy_read_timeout", "first_byte_timeout")]
    {
        let Some(directive) = scope.last(name) else { continue };
        match period(directive.arg(0)).filter(|text| text != "0s") {
            Some(text) => item.from(key, text, &directive.at),
            None => {
                notes.differs(directive, "this time cannot be carried; the edge's default holds")
            }
        }
    }
    if target.https {
        tls(pass, scope, item, notes);
    }
}

fn tls(pass: &Directive, scope: &Scope<'_>, item: &mut Item, notes: &mut Notes) {
    let mut parts = Vec::new();
    let mut from = None;
    let words = [("proxy_ssl_trusted_certificate", "ca"), ("proxy_ssl_name", "server_name")];
    for (name, key) in words {
        match scope.last(name) {
            Some(d) if d.arg(0).contains('$') => {
                notes.differs(d, "the server's own name is checked")
            }
            Some(d) => {
                let value = if key == "ca" { scope.path(d.arg(0)) } else { d.arg(0).to_owned() };
                parts.push(format!("{key}: {}", scalar(&value)));
                from = Some(d);
            }
            None => {}
        }
    }
    let pair = (scope.last("proxy_ssl_certificate"), scope.last("proxy_ssl_certificate_key"));
    if let (Some(cert), Some(key)) = pair {
        let (cert_path, key_path) =
            (scalar(&scope.path(cert.arg(0))), scalar(&scope.path(key.arg(0))));
        parts.push(format!("client_certificate: {{ cert: {cert_path}, key: {key_path} }}"));
        from = Some(cert);
    }
    if let Some(directive) = from {
        item.from("tls", format!("{{ {} }}", parts.join(", ")), &directive.at);
    }
    if !scope.is_on("proxy_ssl_verify") {
        let directive = scope.last("proxy_ssl_verify").unwrap_or(pass);
        notes.differs(directive, "the server's certificate is checked, which nginx did not");
    }
}

/// What a prefix becomes at the server: nginx puts `path` in place of just these letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// Paths stay as they are.
    None,
    /// As the edge does it, too.
    Same(String),
    /// As the edge does it, but nginx glued what followed to it without a slash.
    Glued(String),
    /// The edge cannot say this.
    Impossible,
}

/// `exact`: the location is for this one path.
pub(super) fn rewrite(location: &str, path: &str, exact: bool) -> Rewrite {
    if path.is_empty() || path == location {
        return Rewrite::None;
    }
    let trimmed = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    if url::prefix(trimmed).is_err() {
        return Rewrite::Impossible;
    }
    if exact {
        // the edge writes no slash at the end of a rewritten path
        return if trimmed == path {
            Rewrite::Same(path.to_owned())
        } else {
            Rewrite::Glued(trimmed.to_owned())
        };
    }
    let same = location.ends_with('/') == path.ends_with('/');
    if same { Rewrite::Same(trimmed.to_owned()) } else { Rewrite::Glued(trimmed.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::super::nginx::read_text;
    use super::*;

    #[test]
    fn a_uri_takes_the_prefix_s_place() {
        let same = |text: &str| Rewrite::Same(text.into());
        let glued = |text: &str| Rewrite::Glued(text.into());
        for (location, path, expected) in [
            ("/", "", Rewrite::None),
            ("/", "/", Rewrite::None),
            ("/api/", "", Rewrite::None),
            ("/api/", "/api/", Rewrite::None),
            ("/api/", "/", same("/")),
            ("/api", "/mcp", same("/mcp")),
            ("/api/", "/mcp/", same("/mcp")),
            ("/", "/mcp/", same("/mcp")),
            ("/api/", "/mcp", glued("/mcp")),
            ("/api", "/", glued("/")),
            ("/", "/mcp", glued("/mcp")),
            ("/api", "/a%20b", Rewrite::Impossible),
            ("/api", "/../x", Rewrite::Impossible),
        ] {
            assert_eq!(rewrite(location, path, false), expected, "{location} {path}");
        }
        assert_eq!(rewrite("/a", "/b", true), same("/b"));
        assert_eq!(rewrite("/a", "/b/", true), glued("/b"));
    }

    #[test]
    fn targets_hang_on_constants_at_most() {
        let tree = read_text(
            b"set $b 127.0.0.1; set $long x; set $v $host; proxy_pass http://$b:8000/x/;
              proxy_pass https://${b}; proxy_pass http://u$request_uri; proxy_pass http://$longer;
              proxy_pass http://$v; proxy_pass http://unix:/run/x; proxy_pass u; proxy_pass http://a/$1;",
            "n",
        )
        .unwrap();
        let scope = Scope::default().inside(&tree.directives);
        let read = |n: usize| target(scope.all("proxy_pass")[n], &scope);
        let good = |https, authority: &str, path: &str| {
            Ok(Target { https, authority: authority.into(), path: path.into() })
        };
        assert_eq!(read(0), good(false, "127.0.0.1:8000", "/x/"));
        assert_eq!(read(1), good(true, "127.0.0.1", ""));
        assert_eq!(read(2), good(false, "u", ""));
        for n in 3..8 {
            assert!(read(n).is_err(), "{n}");
        }
    }
}
