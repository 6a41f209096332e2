//! Locations one by one: in, a location; out, what the edge does at its path, and who may come in.

use super::condition::{self, If, Return};
use super::guard::{self, Guard, Zones};
use super::headers::{self, Answers, Requests};
use super::nginx::{At, Directive};
use super::note::Notes;
use super::place::{Matches, Place};
use super::site::Does;
use super::upstream::{Rewrite, Upstreams, rewrite, target};
use super::values::{bytes, size};

/// What the edge does at a location's path.
#[derive(Debug)]
pub(super) struct Entry<'t> {
    pub(super) place: Place<'t>,
    pub(super) content: Content<'t>,
    /// `None` where a restriction cannot be carried.
    pub(super) guard: Option<Guard>,
    pub(super) answers: Answers,
    /// Why it refuses, beyond its guard.
    pub(super) refusing: Vec<At>,
}

/// What stands at a path.
#[derive(Debug)]
pub(super) enum Content<'t> {
    Proxy(Box<Proxy>),
    /// All of it goes to https.
    ToHttps(&'t Directive),
    /// `return 200 …` at one path.
    Well,
    /// The folder with the answers to ACME's challenges.
    Acme(String),
    /// `return 403` and its like: nginx let nobody in. And servers that cannot be carried.
    Closed,
    /// Something that the edge does not serve.
    Nothing,
}

/// Requests go to servers.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) upstream: String,
    pub(super) rewrite: Option<String>,
    pub(super) requests: Requests,
    pub(super) body_limit: (String, String),
}

impl Entry<'_> {
    /// What restricts here: nobody comes in where something could not be carried.
    pub(super) fn strictness(&self) -> Guard {
        let nobody = Guard { access: super::access::Access::nobody(), ..Guard::default() };
        match (&self.content, &self.guard) {
            (Content::Closed, _) | (_, None) => nobody,
            (_, Some(_)) if !self.refusing.is_empty() => nobody,
            (_, Some(guard)) => guard.clone(),
        }
    }

    pub(super) fn is_proxy(&self) -> bool {
        matches!(self.content, Content::Proxy(_))
    }
}

/// Reads a location of a server that does `does` before.
pub(super) fn entry<'t>(
    place: Place<'t>,
    does: &Does<'t>,
    zones: &Zones<'t>,
    upstreams: &mut Upstreams<'t>,
    notes: &mut Notes,
) -> Entry<'t> {
    let mut keys = does.keys.clone();
    let mut refusing: Vec<At> = does.refusals.iter().map(|d| d.at.clone()).collect();
    refusing.extend(place.scope.refusals().iter().map(|d| d.at.clone()));
    let mut step = Step::default();
    // a server without locations is its own location: its level has been gone through
    if place.directive.name == "location" {
        step = steps(&place, &mut keys, &mut refusing, notes);
    }
    let guard = guard::guard(&place.scope, zones, &keys, notes).ok();
    if guard.is_none() {
        refusing.push(place.directive.at.clone());
    }
    let content = match step.content {
        Some(content) => content,
        None => content(&place, step.path, guard.as_ref(), upstreams, notes),
    };
    let answers = headers::to_clients(&place.scope, notes);
    Entry { place, content, guard, answers, refusing }
}

/// What `if`, `return` and `rewrite` of a location come to.
#[derive(Default)]
struct Step<'t> {
    content: Option<Content<'t>>,
    /// What a `rewrite … break` makes of the location's prefix.
    path: Option<String>,
}

fn steps<'t>(
    place: &Place<'t>,
    keys: &mut Vec<(condition::ApiKey, &'t Directive)>,
    refusing: &mut Vec<At>,
    notes: &mut Notes,
) -> Step<'t> {
    let mut step = Step::default();
    for directive in place.scope.own() {
        match directive.name.as_str() {
            "if" => match condition::condition(directive) {
                If::ApiKey(key) => keys.push((key, directive)),
                If::Preflight => {
                    notes.dropped(directive, "the edge answers preflights by itself: `cors`")
                }
                _ => {
                    notes.refused(directive, "the edge has no conditions");
                    refusing.push(directive.at.clone());
                }
            },
            "return" => {
                step.content = Some(returned(place, directive, notes));
                return step;
            }
            "rewrite" => match (condition::rewrites(directive), prefix_rewrite(place, directive)) {
                (Some(_), _) => {
                    step.content = Some(Content::ToHttps(directive));
                    return step;
                }
                (None, Some(path)) => {
                    if !matches!(&place.matches, Matches::Prefix { path, .. } if path.ends_with('/'))
                    {
                        let why = "nginx leaves what does not match as it is; the edge rewrites all of this location";
                        notes.differs(directive, why);
                    }
                    step.path = Some(path);
                }
                (None, None) => {
                    notes.refused(directive, "the edge rewrites prefixes of routes only");
                    refusing.push(directive.at.clone());
                }
            },
            _ => {}
        }
    }
    step
}

fn returned<'t>(place: &Place<'t>, directive: &'t Directive, notes: &mut Notes) -> Content<'t> {
    match condition::returns(directive) {
        Some(Return::ToHttps(_)) => Content::ToHttps(directive),
        Some(Return::Status { well: true }) if matches!(place.matches, Matches::Exact(_)) => {
            Content::Well
        }
        Some(Return::Status { well: false }) => Content::Closed,
        Some(Return::Status { well: true } | Return::Redirect) => {
            notes.dropped(directive, "the edge answers nothing by itself here");
            Content::Nothing
        }
        None => {
            notes.refused(directive, "this is none of nginx's forms");
            Content::Closed
        }
    }
}

/// `rewrite ^/api/(.*)$ /$1 break;` in `location /api/`: what the prefix becomes.
fn prefix_rewrite(place: &Place<'_>, directive: &Directive) -> Option<String> {
    let Matches::Prefix { path: location, .. } = &place.matches else { return None };
    let [pattern, to, flag] = directive.args.as_slice() else { return None };
    let pattern = pattern.strip_prefix('^')?;
    let ends = [
        ("/(.*)$", "/$1"),
        ("/(.*)", "/$1"),
        ("(/.*)$", "$1"),
        ("(/.*)", "$1"),
        ("/?(.*)$", "/$1"),
    ];
    let bare = location.trim_end_matches('/');
    ends.into_iter().filter(|_| flag == "break").find_map(|(end, group)| {
        let before = pattern.strip_suffix(end)?;
        let to = to.strip_suffix(group)?;
        (before == bare).then(|| if to.is_empty() { "/".to_owned() } else { to.to_owned() })
    })
}

fn content<'t>(
    place: &Place<'t>,
    rewritten: Option<String>,
    guard: Option<&Guard>,
    upstreams: &mut Upstreams<'t>,
    notes: &mut Notes,
) -> Content<'t> {
    let own = place.scope.own();
    let handler = own.iter().find(|d| d.name.ends_with("_pass") && d.name != "proxy_pass");
    if let Some(handler) = handler {
        notes.refused(handler, "the edge speaks HTTP to servers");
        return Content::Nothing;
    }
    let fallback = own.iter().find(|d| d.name == "try_files");
    if let Some(fallback) = fallback.filter(|d| d.args.iter().any(|arg| arg.starts_with('@'))) {
        let why = "the edge serves no files: write the `proxy_pass` of the named location here, and import again";
        notes.refused(fallback, why);
        return Content::Nothing;
    }
    let Some(pass) = own.iter().find(|d| d.name == "proxy_pass") else {
        return folder(place, notes);
    };
    let known = guard.is_some_and(Guard::has_user);
    proxy(place, pass, rewritten, known, upstreams, notes).unwrap_or(Content::Closed)
}

fn proxy<'t>(
    place: &Place<'t>,
    pass: &Directive,
    rewritten: Option<String>,
    known: bool,
    upstreams: &mut Upstreams<'t>,
    notes: &mut Notes,
) -> Result<Content<'t>, ()> {
    let target = target(pass, &place.scope).map_err(|why| notes.refused(pass, why))?;
    let mapped = match (&rewritten, &place.matches) {
        (Some(to), _) => Rewrite::Same(to.clone()),
        (None, Matches::Exact(path)) => rewrite(path, &target.path, true),
        (None, Matches::Prefix { path, .. }) => rewrite(path, &target.path, false),
        // nginx allows no path behind regular expressions
        (None, _) => Rewrite::None,
    };
    let rewrite = match mapped {
        Rewrite::None => None,
        Rewrite::Same(to) => Some(to),
        Rewrite::Glued(to) => {
            let why = "nginx glues what follows the location's path to this; the edge puts one `/` between";
            notes.differs(pass, why);
            Some(to)
        }
        Rewrite::Impossible => {
            notes.refused(pass, "the edge cannot write this path");
            return Err(());
        }
    };
    let upstream = upstreams.of(&target, pass, &place.scope, notes)?;
    let requests = headers::to_servers(&place.scope, known, notes);
    let body_limit = body_limit(place, notes);
    Ok(Content::Proxy(Box::new(Proxy { upstream, rewrite, requests, body_limit })))
}

/// The largest body and where that stands. nginx has a limit even where nobody says one.
fn body_limit(place: &Place<'_>, notes: &mut Notes) -> (String, String) {
    const BUDGET: u64 = crate::base::defaults::BUFFER_BUDGET;
    let Some(directive) = place.scope.last("client_max_body_size") else {
        return ("1MiB".to_owned(), "nginx's default".to_owned());
    };
    match size(directive.arg(0)) {
        Some(n) if (1..=BUDGET).contains(&n) => (bytes(n), directive.at.to_string()),
        Some(_) => {
            notes.differs(directive, "JSON bodies are held in memory, so that there is a limit");
            (bytes(BUDGET), directive.at.to_string())
        }
        None => {
            notes.differs(directive, "this is no size");
            ("1MiB".to_owned(), "nginx's default".to_owned())
        }
    }
}

/// A location with files: ACME's, or others, which the edge does not serve.
fn folder<'t>(place: &Place<'t>, notes: &mut Notes) -> Content<'t> {
    const CHALLENGES: &str = "/.well-known/acme-challenge";
    let path = match &place.matches {
        Matches::Exact(path) | Matches::Prefix { path, .. } => path.as_str(),
        _ => "",
    };
    let bare = path.trim_end_matches('/');
    let for_acme = bare == CHALLENGES || bare == "/.well-known";
    match (place.scope.last("root"), place.scope.own().iter().find(|d| d.name == "alias")) {
        (_, Some(alias)) if for_acme => {
            let folder = alias.arg(0).trim_end_matches('/');
            match folder.strip_suffix(bare) {
                Some(root) => return Content::Acme(place.scope.path(root)),
                None => notes.dropped(
                    alias,
                    "a folder for `acme_webroot` has `.well-known/acme-challenge` in it",
                ),
            }
        }
        (Some(root), None) if for_acme && !root.arg(0).contains('$') => {
            return Content::Acme(place.scope.path(root.arg(0)));
        }
        _ if place.directive.name == "location" && !path.is_empty() => {
            notes.dropped(place.directive, "the edge serves no files");
        }
        _ => {}
    }
    Content::Nothing
}
