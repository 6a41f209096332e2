//! `mcp-edge explain`: in, a config and a request that nobody sends; out, what it would meet, a line a stage.
//!
//! The stages themselves are asked, in their order, so that what is said is what would happen. What only a
//! running edge knows (how much of a limit is left, which replica is up) is named and not guessed, and nobody
//! else is asked: a token of OAuth is not shown to its provider.

mod request;
mod target;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use crate::auth;
use crate::authz;
use crate::base::caller::{Authenticate, Client, Shape};
use crate::base::denial::Denial;
use crate::base::head::Head;
use crate::base::principal::Principal;
use crate::base::text::one_line;
use crate::config::Settings;
use crate::listen::settings::ListenerSettings;
use crate::proxy::exchange::Failure;
use crate::proxy::metadata::Metadata;
use crate::proxy::redirect;
use crate::route::settings::{PathMatch, RouteSettings};
use crate::route::{Routed, Routes, access, cors};

pub use request::{Asked, Request, fields};

/// For a password to be looked at.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a request would meet.
#[derive(Debug, Default)]
pub struct Explained {
    /// A stage and what it says.
    lines: Vec<(&'static str, String)>,
    /// Whether it would be refused.
    pub refused: bool,
}

impl Explained {
    /// The lines, with the stages in a column.
    pub fn text(&self) -> String {
        let line = |(stage, text): &(&str, String)| format!("{stage:<10} {}\n", one_line(text));
        self.lines.iter().map(line).collect()
    }

    fn say(&mut self, stage: &'static str, text: impl Into<String>) {
        self.lines.push((stage, text.into()));
    }

    /// Says why it ends here.
    fn refuse(&mut self, stage: &'static str, denial: &Denial) {
        let detail = match denial.detail.as_ref() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        self.say(stage, format!("{}{detail}", denial.message));
        self.say("answer", format!("refused: {} `{}`", denial.reason.status(), denial.code));
        self.refused = true;
    }
}

/// The same on this thread.
///
/// # Errors
/// The system gives no timers.
pub fn explain_here(settings: &Settings, asked: &Asked) -> Result<Explained, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot start: {e}"))?;
    Ok(runtime.block_on(explain(settings, asked)))
}

/// Takes a request through the stages of a config.
pub async fn explain(settings: &Settings, asked: &Asked) -> Explained {
    let mut out = Explained::default();
    if through(settings, asked, &mut out).await.is_none() && !out.refused {
        out.say("answer", "by the edge itself");
    }
    out
}

/// `None` where a stage has had the last word.
async fn through(settings: &Settings, asked: &Asked, out: &mut Explained) -> Option<()> {
    let routes = Routes::new(settings.routes.iter().cloned().map(std::sync::Arc::new));
    let listener = target::listener(settings, &routes, asked, out)?;
    let client = come_in(listener, asked, out)?;
    answers_itself(listener, settings, &routes, asked, out)?;
    let routed = find(&routes, listener, &asked.head, out)?;
    let route = &routed.route;
    may_ask(route, asked, &client, out)?;
    limits(route, true, out);
    let caller = who(route, &asked.head, &client, out).await;
    limits(route, false, out);
    let caller = caller?;
    may_call(route, &caller, asked, out)?;
    target::upstream(settings, &routed, caller.known(), asked, unix_now(), out)?;
    out.say("answer", "what the server says");
    Some(())
}

fn come_in(listener: &ListenerSettings, asked: &Asked, out: &mut Explained) -> Option<Client> {
    let door = &listener.door;
    if door.access.asks() && !door.access.admits(asked.from) {
        out.say("client", format!("{}: the listener's lists keep it out", asked.from));
        out.say("answer", "none: the connection is closed");
        out.refused = true;
        return None;
    }
    let proxy = if door.proxies.trusted.contains(asked.from) {
        "; a trusted proxy: who stands behind it is not looked at here"
    } else {
        ""
    };
    out.say("client", format!("{}{proxy}", asked.from));
    let tls = listener.tls.is_some();
    Some(Client { address: asked.from, hidden: false, tls, certificate: None })
}

/// What never reaches a route.
fn answers_itself(
    listener: &ListenerSettings,
    settings: &Settings,
    routes: &Routes,
    asked: &Asked,
    out: &mut Explained,
) -> Option<()> {
    let path = asked.head.path.as_str();
    if listener.health_path.as_deref() == Some(path) {
        out.say("listener", "this is its `health_path`: 200, or 503 while the edge stops");
        return None;
    }
    if !listener.acme_webroots.is_empty() && path.starts_with("/.well-known/acme-challenge/") {
        out.say("listener", "answers challenges of ACME from its folders");
        return None;
    }
    if let Some(port) = listener.redirect
        && !routes.named(&asked.head, listener.address)
    {
        match redirect::to(settings, &asked.head, port) {
            Ok(_) => out.say(
                "listener",
                format!("redirects to https, port {port}: no route names it for this"),
            ),
            Err(denial) => out.refuse("listener", &denial),
        }
        return None;
    }
    let Some(metadata) = Metadata::new(&settings.routes) else { return Some(()) };
    match metadata.answers(routes, &asked.head, listener.address) {
        Ok(false) => return Some(()),
        Ok(true) => out.say("listener", "serves the metadata of an OAuth resource"),
        Err(Failure::Denied(denial, _)) => out.refuse("listener", &denial),
        Err(_) => out.say("listener", "answers a preflight for metadata of OAuth"),
    }
    None
}

fn find(
    routes: &Routes,
    listener: &ListenerSettings,
    head: &Head,
    out: &mut Explained,
) -> Option<Routed> {
    match routes.find(head, listener.address) {
        Ok(routed) => {
            out.say("route", described(&routed.route));
            Some(routed)
        }
        Err(denial) => {
            out.refuse("route", &denial);
            None
        }
    }
}

fn described(route: &RouteSettings) -> String {
    let host = route.host.as_ref().map_or_else(|| "any host".to_owned(), |h| format!("host {h}"));
    let path = match &route.path {
        PathMatch::Exact(path) => format!("exactly {path}"),
        PathMatch::Letters(path) => format!("what starts with {path}"),
        PathMatch::Prefix(path) => format!("{path} and all below it"),
    };
    format!("{}: {host}, {path}; the longest that fits", route.label)
}

fn may_ask(
    route: &RouteSettings,
    asked: &Asked,
    client: &Client,
    out: &mut Explained,
) -> Option<()> {
    if let Err(denial) = access::check(route, client) {
        out.refuse("address", &denial);
        return None;
    }
    if route.access.asks() {
        out.say("address", format!("{} is let in by the route's lists", client.address));
    }
    if cors::preflight(route, &asked.head).is_some() {
        out.say(
            "preflight",
            "a browser asks whether a page may call: 204, before anybody is asked who they are",
        );
        return None;
    }
    if let Err(denial) = route.methods.check(&asked.head.method) {
        out.refuse("method", &denial);
        return None;
    }
    Some(())
}

fn limits(route: &RouteSettings, before_auth: bool, out: &mut Explained) {
    let all = route.limits.iter().flat_map(|limits| limits.described());
    for (_, text) in all.filter(|(before, _)| *before == before_auth) {
        out.say("limit", text);
    }
}

/// Who asks.
enum Caller {
    Known(Arc<Principal>),
    /// Only the issuer of its token could tell.
    Unknown,
}

impl Caller {
    fn known(&self) -> Option<&Arc<Principal>> {
        match self {
            Self::Known(principal) => Some(principal),
            Self::Unknown => None,
        }
    }
}

async fn who(
    route: &RouteSettings,
    head: &Head,
    client: &Client,
    out: &mut Explained,
) -> Option<Caller> {
    for method in &route.auth.methods {
        let shown = if method.shapes().iter().any(|shape| shows(head, shape)) {
            ": the request shows one"
        } else if method.shapes().is_empty() {
            ""
        } else {
            ": the request shows none"
        };
        out.say("auth", format!("{}{shown}", method.described()));
    }
    if let Some(token) = unasked(route, head) {
        let who = "whether it is good would be asked of its issuer, which is not done here";
        out.say("auth", format!("a credential for `{}`: {who}; assumed good", token.name()));
        return Some(Caller::Unknown);
    }
    match timeout(PATIENCE, auth::authenticate(&route.auth, head, client)).await {
        Ok(Ok(principal)) if principal.is_anonymous() => Some(Caller::Known(principal)),
        Ok(Ok(principal)) => {
            out.say("caller", format!("{}, by {}", principal.subject, principal.method));
            Some(Caller::Known(principal))
        }
        Ok(Err(denial)) => {
            out.refuse("caller", &denial);
            None
        }
        Err(_) => {
            out.say("caller", format!("not known within {} s", PATIENCE.as_secs()));
            out.refused = true;
            None
        }
    }
}

/// The method that would decide, where it has to ask somebody else.
fn unasked<'r>(route: &'r RouteSettings, head: &Head) -> Option<&'r dyn Authenticate> {
    let takes = |method: &&std::sync::Arc<dyn Authenticate>| {
        method.shapes().iter().any(|shape| shows(head, shape))
    };
    let method = route.auth.methods.iter().find(takes)?;
    method.protects().is_some().then(|| &**method)
}

/// Whether a credential of this shape is in the request.
fn shows(head: &Head, shape: &Shape) -> bool {
    head.headers.get_all(&shape.header).iter().any(|value| {
        let Ok(text) = value.to_str() else { return false };
        let credential = match shape.scheme {
            None => Some(text),
            Some(scheme) => text.split_once(' ').and_then(|(found, rest)| {
                found.eq_ignore_ascii_case(scheme).then(|| rest.trim_start())
            }),
        };
        credential.is_some_and(|credential| credential.starts_with(&shape.prefix))
    })
}

fn may_call(
    route: &RouteSettings,
    caller: &Caller,
    asked: &Asked,
    out: &mut Explained,
) -> Option<()> {
    for rule in route.rules.iter().filter_map(|rule| rule.described()) {
        out.say("rule", rule);
    }
    let Some(principal) = caller.known() else {
        if !route.rules.is_empty() {
            out.say("rule", "what rules and scopes say depends on the token, and is not asked");
        }
        return Some(());
    };
    if let Err(denial) = authz::enter(&route.rules, principal.clone()) {
        out.refuse("rule", &denial);
        return None;
    }
    let Some(tool) = &asked.tool else {
        if route.guards_tools() {
            out.say("tool", "which may be called depends on its name: see --tool");
        }
        return Some(());
    };
    for rule in &route.rules {
        if let Err(denial) = rule.tool(principal, tool) {
            out.refuse("tool", &denial);
            return None;
        }
    }
    out.say("tool", format!("{tool} may be called"));
    Some(())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests;
