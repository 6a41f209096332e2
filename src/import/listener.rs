//! Listeners: in, a socket and its servers; out, the edge's listener.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::entry::{Content, Entry};
use super::headers::Answers;
use super::nginx::Directive;
use super::note::Notes;
use super::plan::Item;
use super::scope::Scope;
use super::site::Listen;
use super::sockets::{Server, Sockets};
use super::values::{period, scalar};

/// What the whole process says of its listeners.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// `max_connections`, and where it comes from.
    pub(super) connections: Option<(String, String)>,
    /// The answers' fields that all routes of a listener have.
    pub(super) answers: BTreeMap<SocketAddr, Answers>,
    /// Where ACME's challenges are answered from where nginx does not say it.
    pub(super) webroot: Option<(String, String)>,
}

/// Makes a listener.
pub(super) fn listener(
    socket: SocketAddr,
    servers: &[Server<'_>],
    sockets: &Sockets,
    common: &Common,
    notes: &mut Notes,
) -> Item {
    let mut here: Vec<(&Server<'_>, &Listen<'_>)> = Vec::new();
    for server in servers {
        here.extend(server.site.listens.iter().filter(|l| l.socket == socket).map(|l| (server, l)));
    }
    // the default first: its certificate is the one for unknown names, and its times hold
    here.sort_by_key(|(_, listen)| !listen.default);
    let mut item = Item::default();
    item.head.extend(here.iter().map(|(_, listen)| listen.directive.at.to_string()));
    item.head.dedup();
    item.key("address", scalar(&socket.to_string()), "");
    let loopback = socket.ip().to_canonical().is_loopback();
    let redirects = sockets.redirect.contains(&socket);
    if sockets.tls.contains(&socket) {
        tls(&here, &mut item, notes);
    } else if !loopback && (!redirects || sockets.serve.contains(&socket)) {
        item.key("plaintext", "true", "");
    }
    if redirects {
        redirect(&here, &mut item);
    }
    if !sockets.tls.contains(&socket) {
        webroot(&here, redirects, common, &mut item);
    }
    if let Some((_, listen)) = here.iter().find(|(_, listen)| listen.proxy_protocol) {
        item.from("proxy_protocol", "required", &listen.directive.at);
    }
    if !redirects || sockets.serve.contains(&socket) {
        health(&here, &mut item, notes);
        dressed(sockets.tls.contains(&socket), common.answers.get(&socket), &mut item);
    }
    if let Some((server, _)) = here.first() {
        times(&server.site.scope, &mut item, notes);
    }
    if let Some((most, from)) = &common.connections {
        item.key("max_connections", most, from);
    }
    item
}

fn tls(here: &[(&Server<'_>, &Listen<'_>)], item: &mut Item, notes: &mut Notes) {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (server, _) in here {
        let scope = &server.site.scope;
        let certs = scope.all("ssl_certificate");
        let keys = scope.all("ssl_certificate_key");
        if certs.is_empty() && !scope.is_on("ssl_reject_handshake") {
            notes.refused(server.site.block, "it has no certificate");
        }
        for (cert, key) in certs.iter().zip(keys) {
            if cert.arg(0).contains(['$', ':']) || key.arg(0).contains(['$', ':']) {
                notes.refused(cert, "certificates and keys are files");
                continue;
            }
            let (cert_path, key_path) = (scope.path(cert.arg(0)), scope.path(key.arg(0)));
            let pair = format!("{{ cert: {}, key: {} }}", scalar(&cert_path), scalar(&key_path));
            if !pairs.iter().any(|(other, _)| *other == pair) {
                pairs.push((pair, cert.at.to_string()));
            }
        }
    }
    let comment: Vec<String> = pairs.iter().map(|(_, at)| at.clone()).collect();
    let pairs: Vec<String> = pairs.into_iter().map(|(pair, _)| pair).collect();
    let mut parts = vec![format!("certificates: [ {} ]", pairs.join(", "))];
    if here.first().is_some_and(|(server, _)| server.site.scope.is_on("ssl_reject_handshake")) {
        parts.push("unknown_names: refuse".to_owned());
    }
    parts.extend(client_certificates(here));
    parts.extend(min_version(here, notes));
    item.key("tls", format!("{{ {} }}", parts.join(", ")), comment.join(", "));
}

fn client_certificates(here: &[(&Server<'_>, &Listen<'_>)]) -> Option<String> {
    let asks = |server: &Server<'_>| {
        let verify = server.site.scope.last("ssl_verify_client");
        verify.is_some_and(|verify| matches!(verify.arg(0), "on" | "optional"))
    };
    let demands = |server: &Server<'_>| {
        server.site.scope.last("ssl_verify_client").is_some_and(|verify| verify.arg(0) == "on")
    };
    let (first, _) = here.iter().find(|(server, _)| asks(server))?;
    let scope = &first.site.scope;
    let mut parts =
        vec![format!("ca: {}", scalar(&scope.path(scope.last("ssl_client_certificate")?.arg(0))))];
    if let Some(crl) = scope.last("ssl_crl") {
        parts.push(format!("crl: {}", scalar(&scope.path(crl.arg(0)))));
    }
    let required = here.iter().all(|(server, _)| demands(server));
    parts.push(format!("required: {required}"));
    Some(format!("client_certificates: {{ {} }}", parts.join(", ")))
}

/// The strictest of all servers on the socket; nginx takes the default's.
fn min_version(here: &[(&Server<'_>, &Listen<'_>)], notes: &mut Notes) -> Option<String> {
    let mut strict = false;
    let mut said = false;
    for (server, _) in here {
        let Some(protocols) = server.site.scope.last("ssl_protocols") else { continue };
        let has = |version: &str| protocols.args.iter().any(|arg| arg == version);
        said = true;
        strict |= has("TLSv1.3") && !has("TLSv1.2") && !has("TLSv1.1") && !has("TLSv1");
        if has("TLSv1") || has("TLSv1.1") || has("SSLv3") {
            notes.differs(protocols, "older versions than TLS 1.2 are not spoken");
        } else if !has("TLSv1.3") {
            notes.differs(protocols, "TLS 1.3 is spoken, too");
        }
    }
    said.then(|| format!("min_version: \"{}\"", if strict { "1.3" } else { "1.2" }))
}

fn redirect(here: &[(&Server<'_>, &Listen<'_>)], item: &mut Item) {
    let found = here.iter().find_map(|(server, _)| server.site.does.redirect.as_ref());
    match found {
        Some((to, directive)) => {
            item.from("redirect", "https", &directive.at);
            if let Some(port) = to.port {
                item.from("redirect_port", port.to_string(), &directive.at);
            }
        }
        None => item.key("redirect", "https", "nothing is served here in plain"),
    }
}

fn webroot(here: &[(&Server<'_>, &Listen<'_>)], redirects: bool, common: &Common, item: &mut Item) {
    let entries = here.iter().flat_map(|(server, _)| &server.entries);
    let found = entries.filter_map(|entry| match &entry.content {
        Content::Acme(root) => Some((root, entry.place.directive)),
        _ => None,
    });
    match (found.into_iter().next(), &common.webroot) {
        (Some((root, directive)), _) => item.from("acme_webroot", scalar(root), &directive.at),
        (None, Some((root, why)))
            if redirects || item.lines.iter().any(|l| l.key == "plaintext") =>
        {
            item.key("acme_webroot", scalar(root), why);
        }
        _ => {}
    }
}

fn health(here: &[(&Server<'_>, &Listen<'_>)], item: &mut Item, notes: &mut Notes) {
    let entries = here.iter().flat_map(|(server, _)| &server.entries);
    let well: Vec<&Entry<'_>> =
        entries.filter(|entry| matches!(entry.content, Content::Well)).collect();
    let Some((first, rest)) = well.split_first() else { return };
    let directive = first.place.directive;
    let open = first
        .guard
        .as_ref()
        .is_some_and(|guard| guard.access.allow.is_empty() && guard.access.deny.is_empty());
    // nginx returns before it asks who is there, but the edge's is for every name of the listener
    match crate::base::url::path(
        directive.args.last().map_or("", String::as_str).trim_start_matches('='),
    ) {
        Ok(path) => {
            item.from("health_path", scalar(&path), &directive.at);
            notes.differs(
                directive,
                "the edge answers with words of its own, for any name; 503 while it stops",
            );
        }
        Err(why) => notes.dropped(directive, why),
    }
    for entry in rest.iter().filter(|entry| entry.place.directive.args != directive.args || !open) {
        notes.dropped(entry.place.directive, "a listener has one health path");
    }
}

fn dressed(tls: bool, common: Option<&Answers>, item: &mut Item) {
    let at = |answers: &Answers| answers.at.as_ref().map(ToString::to_string).unwrap_or_default();
    let Some(answers) = common else {
        if tls {
            item.key("hsts", "off", "routes say it themselves");
            item.key("security_headers", "off", "");
        }
        return;
    };
    match &answers.hsts {
        Some(value) => item.key("hsts", scalar(value), at(answers)),
        None if tls => item.key("hsts", "off", "nginx sent none, and browsers keep to it for long"),
        None => {}
    }
    if !answers.set.is_empty() {
        let set =
            answers.set.iter().map(|(name, value)| format!("{}: {}", scalar(name), scalar(value)));
        let set: Vec<String> = set.collect();
        item.key("security_headers", format!("{{ {} }}", set.join(", ")), at(answers));
    }
}

fn times(scope: &Scope<'_>, item: &mut Item, notes: &mut Notes) {
    let words = [
        ("client_header_timeout", "header_timeout", ""),
        (
            "client_body_timeout",
            "body_timeout",
            "the edge counts the whole body, nginx each silence in it",
        ),
        ("keepalive_timeout", "idle_timeout", ""),
        ("send_timeout", "send_timeout", ""),
    ];
    for (name, key, differs) in words {
        let Some(directive) = scope.last(name) else { continue };
        match period(directive.arg(0)).filter(|text| text != "0s") {
            Some(text) => item.from(key, text, &directive.at),
            None => {
                notes.differs(directive, "this time cannot be carried; the edge's default holds")
            }
        }
        if !differs.is_empty() {
            notes.differs(directive, differs);
        }
    }
    if let Some(directive) = scope.last("keepalive_requests") {
        number(directive, "requests_per_connection", item, notes);
    }
}

fn number(directive: &Directive, key: &str, item: &mut Item, notes: &mut Notes) {
    match directive.arg(0).parse::<u32>() {
        Ok(n) if n > 0 => item.from(key, n.to_string(), &directive.at),
        _ => notes.differs(directive, "this number cannot be carried; the edge's default holds"),
    }
}
