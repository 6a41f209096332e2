//! Header fields: in, `proxy_set_header`, `proxy_hide_header` and `add_header`; out, the keys of a route, of its
//! upstream and of its listener.

use super::nginx::{At, Directive};
use super::note::Notes;
use super::scope::Scope;
use super::values::{list, scalar};

/// The `host` of an upstream where it is not the default, which nginx has, too: the server's own.
pub(super) fn host<'t>(scope: &Scope<'t>, notes: &mut Notes) -> Option<(String, &'t Directive)> {
    let directive = requests(scope).into_iter().find(|d| d.arg(0).eq_ignore_ascii_case("host"))?;
    let client =
        ["$host", "$http_host", "$host:$server_port", "$http_host:$server_port", "${host}"];
    match directive.arg(1) {
        "$proxy_host" => None,
        "$server_name" => {
            let first = scope.all("server_name").first().map(|names| names.arg(0));
            let fixed = first.filter(|name| crate::base::url::host(name).is_ok());
            if fixed.is_none() {
                notes.differs(
                    directive,
                    "the server has no such name; servers see their own name as Host",
                );
            }
            fixed.map(|name| (format!("{{ fixed: {} }}", scalar(name)), directive))
        }
        value if client.contains(&value) => Some(("client".to_owned(), directive)),
        value if value.contains('$') || crate::base::url::host_port(value).is_err() => {
            notes.differs(directive, "servers see their own name as Host");
            None
        }
        value => Some((format!("{{ fixed: {} }}", scalar(value)), directive)),
    }
}

/// A constant credential for the servers. The edge takes no secret that stands in its config, so that it has
/// to be put into a file first.
pub(super) fn credentials<'t>(
    scope: &Scope<'t>,
    notes: &mut Notes,
) -> Option<(String, &'t Directive)> {
    let directive = requests(scope).into_iter().find(|d| is_credential(d))?;
    let file = format!("credential-{}", directive.at.line);
    notes.differs(
        directive,
        format!("put this value into the file `{file}` beside the config, mode 0600"),
    );
    let (name, value) = (scalar(directive.arg(0)), format!("\"${{file:{file}}}\""));
    Some((format!("{{ header: {{ name: {name}, value: {value} }} }}"), directive))
}

fn is_credential(directive: &Directive) -> bool {
    let name = directive.arg(0).to_ascii_lowercase();
    matches!(name.as_str(), "authorization" | "x-api-key" | "api-key" | "x-auth-token")
        && constant(directive.arg(1)).is_some()
}

fn requests<'t>(scope: &Scope<'t>) -> Vec<&'t Directive> {
    scope.all("proxy_set_header")
}

/// A value that is the same for every request, and one that a field can have.
fn constant(value: &str) -> Option<&str> {
    let plain = value.bytes().all(|b| (b' '..=b'~').contains(&b)) && value.trim() == value;
    (!value.is_empty() && plain && !value.contains('$')).then_some(value)
}

/// What becomes of the fields of requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// `request_headers`
    pub(super) edits: Option<(String, At)>,
    /// `identity`
    pub(super) identity: Option<(String, At)>,
    /// `forward_credentials: true`
    pub(super) credentials: Option<At>,
}

/// Reads `proxy_set_header`; `known`: the route asks for a password. A field whose value cannot be carried is taken
/// out, so that no client can say in it what nginx said.
pub(super) fn to_servers(scope: &Scope<'_>, known: bool, notes: &mut Notes) -> Requests {
    let mut read = Reading::default();
    for directive in requests(scope).into_iter().filter(|d| !is_credential(d)) {
        read.take(directive, known, notes);
    }
    read.done()
}

/// What has been read of the fields of requests.
#[derive(Debug, Default)]
struct Reading {
    /// Names in lower case and with dashes.
    seen: Vec<String>,
    identity: Vec<String>,
    /// The first directive that says who asks.
    identity_at: Option<At>,
    set: Vec<String>,
    remove: Vec<String>,
    /// The last directive that edits.
    edits_at: Option<At>,
    credentials: Option<At>,
}

impl Reading {
    fn take(&mut self, directive: &Directive, known: bool, notes: &mut Notes) {
        let (name, value) = (directive.arg(0).to_ascii_lowercase(), directive.arg(1));
        let by_itself = by_itself(&name, value);
        if by_itself.is_none() && !self.is_first(&name) {
            notes.differs(directive, "the field is set twice; servers get the first");
            return;
        }
        if value == "$remote_addr" && !FORWARDED.contains(&name.as_str()) {
            return self.identify(directive, "address", notes);
        }
        match (by_itself, name.as_str(), value) {
            (Some(""), ..) => {}
            (Some(why), ..) => notes.dropped(directive, why),
            (None, "authorization", "$http_authorization") => {
                self.credentials = Some(directive.at.clone());
            }
            (None, _, "$remote_user") if known => self.identify(directive, "subject", notes),
            _ => self.edit(directive, &name, notes),
        }
    }

    fn is_first(&mut self, name: &str) -> bool {
        let same = name.replace('_', "-");
        let first = !self.seen.contains(&same);
        if first {
            self.seen.push(same);
        }
        first
    }

    /// A field that says of the caller what `part` is.
    fn identify(&mut self, directive: &Directive, part: &str, notes: &mut Notes) {
        let Some(name) = field(directive.arg(0), directive, notes) else { return };
        self.identity.push(format!("{}: {part}", scalar(&name)));
        self.identity_at.get_or_insert_with(|| directive.at.clone());
    }

    fn edit(&mut self, directive: &Directive, name: &str, notes: &mut Notes) {
        let Some(shown) = field(directive.arg(0), directive, notes) else { return };
        let value = directive.arg(1);
        match constant(value) {
            Some(value) => self.set.push(format!("{}: {}", scalar(&shown), scalar(value))),
            None if value.is_empty() => self.remove.push(shown),
            // passing on what the client sent is what happens anyway
            None if value == format!("$http_{}", name.replace('-', "_")) => return,
            None => {
                notes
                    .differs(directive, "variables are not carried; servers do not get this field");
                self.remove.push(shown);
            }
        }
        self.edits_at = Some(directive.at.clone());
    }

    fn done(self) -> Requests {
        let identity = format!("{{ {} }}", self.identity.join(", "));
        Requests {
            edits: self.edits_at.map(|at| (edits(&self.set, &self.remove), at)),
            identity: self.identity_at.map(|at| (identity, at)),
            credentials: self.credentials,
        }
    }
}

fn edits(set: &[String], remove: &[String]) -> String {
    let mut parts = Vec::new();
    if !set.is_empty() {
        parts.push(format!("set: {{ {} }}", set.join(", ")));
    }
    if !remove.is_empty() {
        parts.push(format!("remove: {}", list(remove)));
    }
    format!("{{ {} }}", parts.join(", "))
}

/// Fields about the way of a request, which the edge writes by itself.
const FORWARDED: &[&str] =
    &["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Why a field needs nothing: the edge writes it, or a like one, by itself. An empty reason needs no note.
fn by_itself(name: &str, value: &str) -> Option<&'static str> {
    match name {
        "host" => Some(""),
        name if FORWARDED.contains(&name) => {
            Some("the edge says this by itself, and keeps what clients say of it out")
        }
        "x-request-id" => Some("the edge numbers requests by itself"),
        "connection" | "upgrade" | "keep-alive" | "proxy-connection" | "te"
        | "transfer-encoding" => {
            Some("the edge writes the fields of connections by itself, for WebSocket too")
        }
        "content-length" | "trailer" | "mcp-session-id" => Some("the edge writes it by itself"),
        "accept-encoding" if value.is_empty() => None,
        _ => None,
    }
}

/// A name that the edge takes: servers read `_` as `-`, so it is written so.
fn field(name: &str, directive: &Directive, notes: &mut Notes) -> Option<String> {
    let dashed = name.replace('_', "-");
    if http::HeaderName::from_bytes(dashed.as_bytes()).is_err() {
        notes.differs(directive, "this is no name of a header field");
        return None;
    }
    if dashed != name {
        notes.differs(directive, format!("written as `{dashed}`: servers read `_` as `-`"));
    }
    Some(dashed)
}

/// Fields of answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// Strict-Transport-Security.
    pub(super) hsts: Option<String>,
    /// Others, with the names as they were written.
    pub(super) set: Vec<(String, String)>,
    /// `proxy_hide_header`
    pub(super) remove: Vec<String>,
    /// `origins`, as YAML.
    pub(super) origins: Option<String>,
    /// Whether pages may send credentials.
    pub(super) with_credentials: bool,
    pub(super) at: Option<At>,
}

/// Reads `add_header` and `proxy_hide_header`.
pub(super) fn to_clients(scope: &Scope<'_>, notes: &mut Notes) -> Answers {
    let mut out = Answers::default();
    for directive in scope.all("add_header") {
        let (name, value) = (directive.arg(0), directive.arg(1));
        let lower = name.to_ascii_lowercase();
        if value.is_empty() || lower == "x-request-id" {
            continue;
        }
        out.at = Some(directive.at.clone());
        if lower.starts_with("access-control-") {
            cors(&lower, value, directive, &mut out, notes);
            continue;
        }
        let Some(value) = constant(value) else {
            notes.differs(directive, "variables are not carried; clients do not get this field");
            continue;
        };
        if lower == "strict-transport-security" && is_hsts(value) {
            out.hsts = Some(value.trim_end_matches([';', ' ']).to_owned());
            continue;
        }
        let own =
            ["connection", "content-length", "transfer-encoding", "keep-alive", "mcp-session-id"];
        let Some(name) = field(name, directive, notes).filter(|_| !own.contains(&lower.as_str()))
        else {
            notes.dropped(directive, "the edge writes it by itself");
            continue;
        };
        match out.set.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(&name)) {
            // one field with both values is the same to whoever reads lists (RFC 9110 §5.3)
            Some((_, before)) => *before = format!("{before}, {value}"),
            None => out.set.push((name, value.to_owned())),
        }
    }
    for directive in scope.all("proxy_hide_header") {
        let name = directive.arg(0);
        let kept = out.set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name));
        if !kept && !out.remove.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            out.remove.extend(field(name, directive, notes));
        }
    }
    out
}

/// As the edge's `hsts` takes it: RFC 6797 §6.1 without quotes.
fn is_hsts(value: &str) -> bool {
    let mut parts = value.trim_end_matches([';', ' ']).split(';').map(str::trim);
    let age = parts.next().and_then(|age| age.strip_prefix("max-age="));
    age.is_some_and(|age| age.parse::<u32>().is_ok())
        && parts.all(|part| part == "includeSubDomains" || part == "preload")
}

/// The edge answers preflights and writes these fields by itself, from the route's `origins`.
fn cors(name: &str, value: &str, directive: &Directive, out: &mut Answers, notes: &mut Notes) {
    match name {
        "access-control-allow-origin" => match value {
            "*" => out.origins = Some("any".to_owned()),
            "$http_origin" => {
                out.origins = Some("any".to_owned());
                notes.differs(directive, "any page may call, but none with credentials");
            }
            origin if !origin.contains('$') && crate::base::url::origin(origin).is_ok() => {
                out.origins = Some(list([origin]));
            }
            _ => notes.differs(directive, "name the pages that may call in `origins`"),
        },
        "access-control-allow-credentials" => out.with_credentials = value == "true",
        _ => notes.dropped(directive, "the edge writes the fields of CORS by itself: `cors`"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::nginx::read_text;
    use super::*;

    fn requests_of(text: &str) -> (Requests, Option<String>) {
        let tree = read_text(text.as_bytes(), "n").unwrap();
        let scope = Scope::default().inside(&tree.directives);
        let mut notes = Notes::default();
        let host = host(&scope, &mut notes).map(|(text, _)| text);
        (to_servers(&scope, true, &mut notes), host)
    }

    #[test]
    fn hosts_are_servers_clients_or_fixed() {
        for (value, expected) in [
            ("$host", Some("client")),
            ("$http_host", Some("client")),
            ("$host:$server_port", Some("client")),
            ("$proxy_host", None),
            ("mcp.internal", Some("{ fixed: mcp.internal }")),
            ("mcp.internal:8000", Some("{ fixed: \"mcp.internal:8000\" }")),
            ("$other", None),
            ("$server_name", Some("{ fixed: first.example }")),
            ("$server_name; server_name", None),
        ] {
            let names =
                if value.contains(';') { "" } else { "server_name first.example second.example;" };
            let (_, host) = requests_of(&format!("{names} proxy_set_header Host {value};"));
            assert_eq!(host.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn what_nginx_said_can_be_said_by_no_client() {
        let (out, _) = requests_of(
            "proxy_set_header X-Verified $ssl_client_verify; proxy_set_header X-Env prod;
             proxy_set_header Accept-Encoding ''; proxy_set_header X-Tenant $http_x_tenant;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Connection upgrade;
             proxy_set_header X-User $remote_user; proxy_set_header X-Real-IP $remote_addr; proxy_set_header Authorization $http_authorization;",
        );
        let (edits, _) = out.edits.unwrap();
        assert_eq!(edits, "{ set: { X-Env: prod }, remove: [ X-Verified, Accept-Encoding ] }");
        assert_eq!(out.identity.unwrap().0, "{ X-User: subject, X-Real-IP: address }");
        assert!(out.credentials.is_some());
    }

    #[test]
    fn a_field_is_written_once() {
        let (out, _) = requests_of(
            "proxy_set_header X-User $remote_user; proxy_set_header x_user a; proxy_set_header X-A 1;
             proxy_set_header X-A $remote_addr; proxy_set_header X-Gone ''; proxy_set_header X-Gone '';",
        );
        assert_eq!(out.identity.unwrap().0, "{ X-User: subject }");
        assert_eq!(out.edits.unwrap().0, "{ set: { X-A: \"1\" }, remove: [ X-Gone ] }");
    }

    #[test]
    fn answers_have_hsts_cors_and_the_rest() {
        let tree = read_text(
            b"add_header Strict-Transport-Security 'max-age=1; includeSubDomains;' always;
              add_header X-A 1; add_header X-A 2; add_header X-B $host; add_header X-C '';
              add_header Access-Control-Allow-Origin https://a.example; proxy_hide_header X-P;",
            "n",
        )
        .unwrap();
        let scope = Scope::default().inside(&tree.directives);
        let out = to_clients(&scope, &mut Notes::default());
        assert_eq!(out.hsts.as_deref(), Some("max-age=1; includeSubDomains"));
        assert_eq!(out.set, [("X-A".to_owned(), "1, 2".to_owned())]);
        assert_eq!(out.remove, ["X-P"]);
        assert_eq!(out.origins.as_deref(), Some("[ \"https://a.example\" ]"));
        assert!(!is_hsts("max-age=x") && !is_hsts("\"max-age=1\"") && !is_hsts("max-age=1; foo"));
    }
}
