//! What `check` prints: in, settings or errors; out, text for people, in YAML where it is settings.

use std::path::PathBuf;

use serde::Serialize;

use super::admin::AdminSettings;
use super::{AccessLog, KeysFrom, Settings};
use crate::balance::lookup::Lookup;
use crate::balance::settings::{ServerSettings, UpstreamSettings};
use crate::base::compile::ConfigError;
use crate::base::text::one_line;
use crate::listen::settings::{Certificate, ListenerSettings};
use crate::observe::audit::{AuditSettings, Full, To};
use crate::route::settings::{PathMatch, RouteSettings};

/// One line per error: `conf/x.yaml:12: routes[2].auth: what is wrong`.
pub fn errors(source: &str, errors: &[ConfigError]) -> String {
    let line = |error: &ConfigError| {
        let space = if error.line == 0 { " " } else { "" };
        one_line(&format!("{source}:{space}{error}")) + "\n"
    };
    errors.iter().map(line).collect()
}

/// The same of what is no error, one sentence each.
pub fn warnings(source: &str, settings: &Settings) -> Vec<String> {
    errors(source, &settings.warnings).lines().map(str::to_owned).collect()
}

/// What would run, without secrets.
///
/// # Errors
/// None in practice: what the writer says.
pub fn effective(settings: &Settings) -> Result<String, String> {
    let report = Report {
        state_dir: settings.state_dir.display().to_string(),
        threads: settings.threads,
        admin: settings.admin.as_ref().map_or_else(|| "off".to_owned(), admin),
        access_log: match &settings.access_log {
            AccessLog::Stdout => "stdout".to_owned(),
            AccessLog::Off => "off".to_owned(),
            AccessLog::File(path) => path.display().to_string(),
        },
        audit: settings.audit.as_ref().map(audit),
        traces: settings.traces.as_ref().map(|traces| traces.endpoint.to_string()),
        listeners: settings.listeners.iter().map(Listener::new).collect(),
        routes: settings.routes.iter().map(|r| Route::new(r, &settings.upstreams)).collect(),
        session_keys: session_keys(settings),
    };
    serde_yaml::to_string(&report).map_err(|e| e.to_string())
}

fn admin(admin: &AdminSettings) -> String {
    let Some(chain) = &admin.auth else { return admin.url() };
    let methods: Vec<String> = chain.methods.iter().map(|method| method.described()).collect();
    format!("{} ({})", admin.url(), methods.join(", "))
}

/// The certificates' files of all listeners.
pub fn certificate_files(settings: &Settings) -> Vec<PathBuf> {
    let tls = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    tls.flat_map(|tls| tls.current()).map(|certificate| certificate.source.clone().into()).collect()
}

#[derive(Serialize)]
struct Report {
    state_dir: String,
    threads: usize,
    admin: String,
    access_log: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traces: Option<String>,
    listeners: Vec<Listener>,
    routes: Vec<Route>,
    session_keys: Vec<String>,
}

#[derive(Serialize)]
struct Listener {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<CertificateLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificates: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    acme_webroot: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acme: Option<String>,
}

#[derive(Serialize)]
struct CertificateLine {
    file: String,
    names: Vec<String>,
    expires: String,
}

#[derive(Serialize)]
struct Route {
    public_url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_with: Option<bool>,
    upstream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrite: Option<String>,
    balance: String,
    servers: Vec<String>,
    auth: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

impl Listener {
    fn new(listener: &ListenerSettings) -> Self {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        let clients = listener.tls.as_ref().and_then(|tls| tls.clients.as_ref());
        let certificates = listener.tls.iter().flat_map(|tls| tls.current());
        Self {
            url: format!("{scheme}://{}", listener.address),
            health_path: listener.health_path.clone(),
            certificates: certificates.map(|c| CertificateLine::new(&c)).collect(),
            client_certificates: clients.map(|c| if c.required { "required" } else { "optional" }),
            redirect: listener.redirect.map(|port| format!("https, port {port}")),
            acme_webroot: listener.acme_webroots.iter().map(|p| p.display().to_string()).collect(),
            acme: listener
                .tls
                .iter()
                .find_map(|tls| tls.acme.as_ref())
                .map(|acme| format!("{} from {}", acme.domains.join(", "), acme.directory)),
        }
    }
}

impl CertificateLine {
    fn new(certificate: &Certificate) -> Self {
        Self {
            file: certificate.source.clone(),
            names: certificate.all_names(),
            expires: certificate.expires_text(),
        }
    }
}

impl Route {
    fn new(route: &RouteSettings, upstreams: &[UpstreamSettings]) -> Self {
        let upstream = upstreams.iter().find(|u| u.name == route.upstream);
        let servers = upstream.iter().flat_map(|u| &u.servers).map(server);
        let lookups = upstream.iter().flat_map(|u| &u.lookups).map(lookup);
        let insecure = upstream.is_some_and(|u| u.tls.insecure_skip_verify);
        Self {
            public_url: format!("{}{}", route.public_url.origin(), route.public_url.path),
            listeners: route.listeners.iter().flatten().map(ToString::to_string).collect(),
            exact: matches!(route.path, PathMatch::Exact(_)).then_some(true),
            starts_with: matches!(route.path, PathMatch::Letters(_)).then_some(true),
            upstream: route.upstream.clone(),
            rewrite: route.rewrite.clone(),
            balance: upstream.map(|u| u.balance()).unwrap_or_default(),
            servers: servers.chain(lookups).collect(),
            auth: route.auth.methods.iter().map(|method| method.described()).collect(),
            rules: route.rules.iter().filter_map(|rule| rule.described()).collect(),
            warning: insecure.then_some("the servers' certificates are not checked"),
        }
    }
}

fn server(server: &ServerSettings) -> String {
    let scheme = if server.https { "https" } else { "http" };
    let words = share(server.weight, server.priority, server.drain);
    format!("{scheme}://{}{words}", server.authority)
}

fn lookup(lookup: &Lookup) -> String {
    format!("{lookup}{}", share(lookup.weight, lookup.priority, lookup.drain))
}

/// What is not as usual.
fn share(weight: u32, priority: u32, drain: bool) -> String {
    let weight = (weight != 1).then(|| format!("weight {weight}"));
    let priority = (priority != 0).then(|| "secondary".to_owned());
    let drain = drain.then(|| "draining".to_owned());
    let words: Vec<String> = [weight, priority, drain].into_iter().flatten().collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn audit(audit: &AuditSettings) -> String {
    let to = match &audit.to {
        To::Stdout => "stdout".to_owned(),
        To::File(path) => path.display().to_string(),
    };
    match audit.full {
        Full::Refuse => format!("{to}; calls that cannot be recorded are refused"),
        Full::GoOn => format!("{to}; calls that cannot be recorded go on"),
    }
}

fn session_keys(settings: &Settings) -> Vec<String> {
    let from = match &settings.session_keys_from {
        KeysFrom::Config => String::new(),
        KeysFrom::File(path) => format!(" ({})", path.display()),
        KeysFrom::NotYet(path) => {
            return vec![format!("generated into {} by the first run", path.display())];
        }
    };
    settings.session_keys.fingerprints().iter().map(|print| format!("{print}{from}")).collect()
}
