//! Loading: in, a file or its text; out, `Settings`, or every error with its line and path.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::acme;
use super::admin::{AdminSettings, admin};
use super::place::{self, Fixed};
use super::session_keys;
use super::shutdown::{Shutdown, shutdown};
use super::substitute::{Env, substitute};
use super::yaml;
use super::{AccessLog, Settings};
use crate::auth;
use crate::authz;
use crate::balance::compile as balance;
use crate::balance::dns;
use crate::balance::lookup::DnsSettings;
use crate::balance::settings::UpstreamSettings;
use crate::base::compile::{ConfigError, Cx, Node};
use crate::base::fields::Fields;
use crate::base::kept::Kept;
use crate::base::{defaults, files, url};
use crate::limit::compile as limit;
use crate::listen::compile as listen;
use crate::listen::door;
use crate::listen::settings::ListenerSettings;
use crate::observe::audit::To;
use crate::observe::audit::compile::{self as audit, Audit};
use crate::observe::traces::compile::{self as traces, Traces};
use crate::route::compile::{self as route, Around};
use crate::route::listeners::Listener;
use crate::route::settings::RouteSettings;

/// What the config is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing on disk is changed.
    Check,
    /// Missing session keys are generated and kept.
    Run,
}

/// Loads a file; relative paths in it are relative to its folder.
///
/// # Errors
/// Every mistake in it, in the order of its lines.
pub fn load(path: &Path, env: Env<'_>, mode: Mode) -> Result<Settings, Vec<ConfigError>> {
    let text = files::read_text_from_anywhere(path, yaml::MAX_TEXT)
        .map_err(|problem| vec![placeless(problem)])?;
    load_text(&text, folder(path), env, mode)
}

/// Loads a file for an edge that runs: what remembers goes on where its part of the config says the same. Only a
/// regular file is read: nobody sees that a reload waits. What `refuse` says of the keys that a process keeps is an
/// error, before anything is written.
///
/// # Errors
/// Every mistake in it, in the order of its lines.
pub fn load_again(
    path: &Path,
    env: Env<'_>,
    before: Kept,
    refuse: &dyn Fn(&[Fixed]) -> Vec<String>,
) -> Result<Settings, Vec<ConfigError>> {
    let text = files::read_up_to(path, yaml::MAX_TEXT)
        .and_then(|bytes| files::text(bytes, path))
        .map_err(|problem| vec![placeless(problem)])?;
    load_with(&text, folder(path), env, Mode::Run, before, refuse)
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Loads a text.
///
/// # Errors
/// Every mistake in it, in the order of its lines.
pub fn load_text(
    text: &str,
    base_dir: &Path,
    env: Env<'_>,
    mode: Mode,
) -> Result<Settings, Vec<ConfigError>> {
    load_with(text, base_dir, env, mode, Kept::default(), &|_| Vec::new())
}

fn load_with(
    text: &str,
    base_dir: &Path,
    env: Env<'_>,
    mode: Mode,
    before: Kept,
    refuse: &dyn Fn(&[Fixed]) -> Vec<String>,
) -> Result<Settings, Vec<ConfigError>> {
    let mut root = yaml::parse(text).map_err(|e| vec![e])?;
    let mut cx = Cx::new(base_dir);
    cx.checking = mode == Mode::Check;
    cx.before = before;
    substitute(&mut root, env, &mut cx);
    let parts = match compile(&root, env, &mut cx) {
        Some(parts) if cx.errors.is_empty() => parts,
        _ => return Err(sorted(cx.errors)),
    };
    let fixed = place::fixed(&root);
    let refused = refuse(&fixed);
    if !refused.is_empty() {
        return Err(refused.into_iter().map(placeless).collect());
    }
    // from here on files are written
    finish(parts, mode, &mut cx).map(|settings| Settings { fixed, ..settings }).map_err(|e| {
        let problem = cx.masks.apply(e.problem);
        vec![ConfigError { problem, ..e }]
    })
}

/// All of the settings but the session keys, which may have to be generated.
struct Parts {
    state_dir: PathBuf,
    threads: usize,
    admin: Option<AdminSettings>,
    access_log: AccessLog,
    shutdown: Shutdown,
    seen: Seen,
    buffer_budget: u64,
    listeners: Vec<ListenerSettings>,
    upstreams: Vec<UpstreamSettings>,
    routes: Vec<RouteSettings>,
    sessions: Sessions,
}

/// What is told elsewhere of requests.
struct Seen {
    audit: Option<Audit>,
    traces: Option<Traces>,
}

#[derive(Default)]
struct Sessions {
    keys: Option<Vec<String>>,
    max_age: Option<Duration>,
}

fn compile(root: &Node, env: Env<'_>, cx: &mut Cx) -> Option<Parts> {
    let mut fields = cx.map(root)?;
    let state_dir = fields.optional(cx, "state_dir", |n, cx| cx.file(n));
    let threads = fields
        .optional(cx, "threads", |n, cx| cx.integer(n, 1..=1024))
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or_else(cores);
    let admin_node = fields.take("admin");
    let admin = admin(admin_node, cx);
    let access_log = fields.or(cx, "access_log", AccessLog::Stdout, access_log);
    let shutdown = fields.or(cx, "shutdown", Shutdown::default(), shutdown);
    let audit_node = fields.take("audit");
    let audit = audit_node.and_then(|n| cx.in_key("audit", |cx| audit::audit(n, cx)));
    apart_from(audit_node, audit.as_ref(), &access_log, cx);
    let seen = Seen { audit, traces: fields.optional(cx, "traces", traces::traces) };
    let dns = fields.or(cx, "dns", DnsSettings::default(), dns::dns);
    let buffer_budget = fields.or(cx, "buffer_budget", defaults::BUFFER_BUDGET, budget);
    let proxies = door::proxies(&mut fields, cx);
    let listeners = fields.required(cx, "listeners", |n, cx| listen::listeners(n, &proxies, cx));
    let (upstreams, routes) =
        compile_routes(&mut fields, listeners.as_deref(), buffer_budget, &seen, cx);
    let sessions = fields.or(cx, "sessions", Sessions::default(), sessions);
    fields.finish(cx);
    let listeners = listeners?;
    apart(admin_node, admin.as_ref().map(|admin| admin.listener.address), &listeners, cx);
    let mut upstreams = upstreams?;
    let routes = routes?;
    add_written_upstreams(&routes, &mut upstreams);
    upstreams.iter_mut().for_each(|upstream| upstream.ask_by(&dns));
    Some(Parts {
        state_dir: state_dir.unwrap_or_else(|| cx.base_dir.join(default_state_dir(env))),
        threads,
        admin,
        access_log,
        shutdown,
        seen,
        buffer_budget,
        listeners,
        upstreams,
        routes,
        sessions,
    })
}

fn compile_routes(
    fields: &mut Fields<'_>,
    listeners: Option<&[ListenerSettings]>,
    buffer_budget: u64,
    seen: &Seen,
    cx: &mut Cx,
) -> (Option<Vec<UpstreamSettings>>, Option<Vec<RouteSettings>>) {
    let node = fields.take("upstreams");
    let upstreams = match node {
        None => Some(Vec::new()),
        Some(node) => cx.in_key("upstreams", |cx| balance::upstreams(node, cx)),
    };
    let known = |listener: &ListenerSettings| Listener {
        address: listener.address,
        https: listener.tls.is_some(),
        redirects: listener.redirect.is_some(),
        plaintext: listener.plaintext,
        certificates: listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some()),
    };
    let around = Around {
        listeners: listeners.unwrap_or_default().iter().map(known).collect(),
        upstreams: node.map(balance::names).unwrap_or_default(),
        buffer_budget,
        audit: seen.audit.as_ref().map(|audit| audit.disclosure.clone()),
        traces: seen.traces.as_ref().map(|traces| traces.tracing.clone()),
        auth: auth::compile::chain,
        limits: limit::limits,
        rules: authz::rules,
    };
    let routes = fields.required(cx, "routes", |n, cx| route::routes(n, &around, cx));
    (upstreams, routes)
}

/// Upstreams that routes name by URL, each once.
fn add_written_upstreams(routes: &[RouteSettings], upstreams: &mut Vec<UpstreamSettings>) {
    for route in routes {
        if upstreams.iter().any(|upstream| upstream.name == route.upstream) {
            continue;
        }
        let origin = url::origin(&route.upstream).ok();
        upstreams.extend(origin.as_ref().and_then(balance::from_origin));
    }
}

/// The admin listener may not take the place of another.
fn apart(node: Option<&Node>, admin: Option<SocketAddr>, all: &[ListenerSettings], cx: &mut Cx) {
    let Some(admin) = admin else { return };
    if let Some(other) = all.iter().find(|l| listen::collide(l.address, admin)) {
        let default = if node.is_none() { "the default " } else { "" };
        let problem = format!("{default}`{admin}` collides with the listener `{}`", other.address);
        cx.in_key("admin", |cx| cx.error_at(node.map_or(0, |n| n.line), problem));
    }
}

fn budget(node: &Node, cx: &mut Cx) -> Option<u64> {
    let bytes = cx.byte_size(node)?;
    if bytes < defaults::LEAST_BUDGET {
        cx.error(node, "must be 128KiB at least: one body that streams may take as much");
        return None;
    }
    Some(bytes)
}

fn access_log(node: &Node, cx: &mut Cx) -> Option<AccessLog> {
    match node.text() {
        Some("stdout") => return Some(AccessLog::Stdout),
        Some("off") => return Some(AccessLog::Off),
        _ => {}
    }
    let path = cx.file(node)?;
    if let Err(problem) = files::place_for(&path) {
        cx.error(node, problem);
    }
    Some(AccessLog::File(path))
}

/// Two logs in one file would tear each other's lines.
fn apart_from(node: Option<&Node>, audit: Option<&Audit>, log: &AccessLog, cx: &mut Cx) {
    let (Some(node), Some(Audit { settings, .. })) = (node, audit) else { return };
    if let (To::File(one), AccessLog::File(other)) = (&settings.to, log)
        && one == other
    {
        cx.in_key("audit", |cx| cx.error(node, "`to` is the access log's file"));
    }
}

fn sessions(node: &Node, cx: &mut Cx) -> Option<Sessions> {
    let mut fields = cx.map(node)?;
    let keys = fields.optional(cx, "keys", session_keys::texts);
    let max_age = fields.optional(cx, "max_age", |n, cx| cx.period(n));
    fields.finish(cx);
    Some(Sessions { keys, max_age })
}

fn finish(mut parts: Parts, mode: Mode, cx: &mut Cx) -> Result<Settings, ConfigError> {
    let at = |problem| ConfigError { path: "listeners".to_owned(), ..placeless(problem) };
    acme::attach(&mut parts.listeners, &parts.state_dir, mode, cx).map_err(at)?;
    let acme = acme::wanted(&parts.listeners).map_err(at)?;
    let keys = session_keys::keys(parts.sessions.keys, &parts.state_dir, mode);
    let (session_keys, session_keys_from) = keys.map_err(|problem| ConfigError {
        path: "sessions.keys".to_owned(),
        ..placeless(problem)
    })?;
    Ok(Settings {
        acme,
        state_dir: parts.state_dir,
        threads: parts.threads,
        admin: parts.admin,
        access_log: parts.access_log,
        shutdown: parts.shutdown,
        audit: parts.seen.audit.map(|audit| audit.settings),
        traces: parts.seen.traces.map(|traces| traces.settings),
        buffer_budget: parts.buffer_budget,
        listeners: parts.listeners,
        upstreams: parts.upstreams,
        routes: parts.routes,
        session_keys,
        session_keys_from,
        session_max_age: parts.sessions.max_age,
        fixed: Vec::new(),
        watched: std::mem::take(&mut cx.watched),
        kept: std::mem::take(&mut cx.kept),
        warnings: sorted(std::mem::take(&mut cx.warnings)),
        masks: cx.masks.clone(),
    })
}

/// `$XDG_STATE_HOME/mcp-edge` (relative values are void by the XDG base directory specification),
/// else `state`, which like all paths is relative to the config's folder, where there is one.
pub fn default_state_dir(env: Env<'_>) -> PathBuf {
    let home = env("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    home.map_or_else(|| PathBuf::from("state"), |path| path.join("mcp-edge"))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn placeless(problem: String) -> ConfigError {
    ConfigError { line: 0, path: String::new(), problem }
}

fn sorted(mut errors: Vec<ConfigError>) -> Vec<ConfigError> {
    errors.sort_by_key(|error| error.line);
    errors
}
