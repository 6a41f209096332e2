//! Routes: in, what a server does at its paths; out, the edge's routes, those that must refuse included.

use super::access::Access;
use super::entry::{Content, Entry};
use super::guard::Guard;
use super::headers::Answers;
use super::nginx::At;
use super::note::Notes;
use super::place::{Matches, Simple, edge_prefix};
use super::plan::Item;
use super::values::{list, scalar};
use crate::base::url;
use crate::route::path::is_below;

/// A path as routes match it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    Exact(String),
    /// On segment borders.
    Prefix(String),
    /// nginx's own kind: all that starts with these letters.
    Letters(String),
}

impl Path {
    fn text(&self) -> &str {
        let (Self::Exact(path) | Self::Prefix(path) | Self::Letters(path)) = self;
        path
    }

    /// Whether a path, not this one itself, would come here without a route of its own.
    fn is_around(&self, other: &Self) -> bool {
        let inside = match self {
            Self::Exact(_) => false,
            Self::Prefix(prefix) => is_below(other.text(), prefix),
            Self::Letters(letters) => other.text().starts_with(letters.as_str()),
        };
        inside && self != other
    }
}

/// Where a route is written to.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) host: Option<&'a str>,
    /// `listeners`, where they are not all.
    pub(super) listeners: Option<String>,
    /// What clients type, without the path, where the edge would guess another.
    pub(super) public_url: Option<&'a str>,
}

/// A route before it is written: for every host of its server.
#[derive(Debug)]
pub(super) struct Route<'e, 't> {
    pub(super) path: Path,
    pub(super) entry: &'e Entry<'t>,
    /// Why it refuses.
    pub(super) refusing: Vec<At>,
    /// The letters of nginx's prefix, and its rank: regular expressions are asked before plain prefixes.
    letters: String,
    rank: Rank,
    /// Its place in the file.
    number: usize,
}

/// Which of two that both match a path nginx prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Exact,
    /// `^~`
    First,
    /// Regular expressions, in their order.
    Regex(usize),
    Plain,
}

/// The routes of a server. What the edge would let through more than nginx did is noted, and refuses.
pub(super) fn routes<'e, 't>(entries: &'e [Entry<'t>], notes: &mut Notes) -> Vec<Route<'e, 't>> {
    let mut routes: Vec<Route<'e, 't>> = Vec::new();
    let mut without: Vec<(String, &Entry<'t>)> = Vec::new();
    let slashed: Vec<String> = entries.iter().filter_map(|entry| slashed(entry)).collect();
    // exact ones first: what a prefix has beside them is not theirs
    let mut order: Vec<(usize, &'e Entry<'t>)> = entries.iter().enumerate().collect();
    order.sort_by_key(|(_, entry)| !matches!(entry.place.matches, Matches::Exact(_)));
    for (n, entry) in order {
        if matches!(entry.content, Content::Acme(_) | Content::Well) {
            continue;
        }
        for (path, letters, rank) in paths(n, entry, &slashed) {
            let Some(path) = path else {
                notes.refused(entry.place.directive, "no route can have this path");
                without.push((letters, entry));
                continue;
            };
            if routes.iter().any(|route| route.path == path) {
                continue;
            }
            let refusing = entry.refusing.clone();
            routes.push(Route { path, entry, refusing, letters, rank, number: n });
        }
    }
    regexes(entries, &mut routes, notes);
    preferences(&mut routes, notes);
    unspeakable(&without, &mut routes);
    routes.sort_by_key(|route| route.number);
    // what nobody is let into needs a route only where another one would take its paths
    let covered = |route: &Route<'_, '_>| {
        routes.iter().any(|other| other.entry.is_proxy() && other.path.is_around(&route.path))
    };
    let keep: Vec<bool> =
        routes.iter().map(|route| route.entry.is_proxy() || covered(route)).collect();
    let mut keep = keep.into_iter();
    routes.retain(|_| keep.next().unwrap_or(true));
    routes
}

/// The edge's paths for a location, with nginx's letters. `None`: no route can have it.
fn paths(n: usize, entry: &Entry<'_>, slashed: &[String]) -> Vec<(Option<Path>, String, Rank)> {
    let exact = |path: &str| url::path(path).ok().map(Path::Exact);
    let below = |path: &str, rank: Rank| {
        let mut out = vec![(below(path), path.to_owned(), rank)];
        // `location /a/` takes `/a` along here, which nginx gives to `location /a`
        if slashed.iter().any(|other| other.strip_suffix('/') == Some(path)) {
            out.push((exact(path), path.to_owned(), rank));
        }
        out
    };
    match &entry.place.matches {
        Matches::Exact(path) => vec![(exact(path), path.clone(), Rank::Exact)],
        Matches::Prefix { path, first } => {
            below(path, if *first { Rank::First } else { Rank::Plain })
        }
        Matches::Paths(simple) => {
            let each = simple.iter().flat_map(|simple| match simple {
                Simple::Exact(path) => vec![(exact(path), path.clone(), Rank::Regex(n))],
                Simple::Prefix(path) => below(path, Rank::Regex(n)),
            });
            each.collect()
        }
        Matches::Regex | Matches::Named => Vec::new(),
    }
}

/// A prefix of nginx: with a slash at its end it ends at a segment border.
fn below(path: &str) -> Option<Path> {
    let trimmed = edge_prefix(path)?;
    Some(if path.ends_with('/') { Path::Prefix(trimmed) } else { Path::Letters(trimmed) })
}

/// Regular expressions that the edge cannot match: what they kept out, the prefixes must not let in.
fn regexes(entries: &[Entry<'_>], routes: &mut [Route<'_, '_>], notes: &mut Notes) {
    for (n, entry) in entries.iter().enumerate().filter(|(_, e)| e.place.matches == Matches::Regex)
    {
        let strict = entry.strictness();
        let restricts =
            !matches!(entry.content, Content::Nothing | Content::ToHttps(_)) || !strict.is_open();
        let mut opened = false;
        for route in routes.iter_mut().filter(|route| route.rank > Rank::Regex(n)) {
            if restricts && route.entry.is_proxy() && !route.strictness().is_as_strict_as(&strict) {
                route.refusing.push(entry.place.directive.at.clone());
                opened = true;
            }
        }
        let why = "the edge matches no regular expressions; what this kept out, the other paths would let in. \
                   If it guards nothing at the servers, take it out and import again";
        match &entry.content {
            _ if opened => notes.refused(entry.place.directive, why),
            Content::Proxy(_) => {
                notes.refused(entry.place.directive, "the edge matches no regular expressions")
            }
            _ => notes.dropped(entry.place.directive, "the edge matches no regular expressions"),
        }
    }
}

/// Paths below a location that nginx would have preferred: the longer path wins here.
fn preferences(routes: &mut [Route<'_, '_>], notes: &mut Notes) {
    let preferred: Vec<(String, Rank, Guard, At)> = routes
        .iter()
        .filter(|route| {
            matches!(route.rank, Rank::Regex(_)) && !matches!(route.path, Path::Exact(_))
        })
        .map(|route| {
            (
                route.letters.clone(),
                route.rank,
                route.strictness(),
                route.entry.place.directive.at.clone(),
            )
        })
        .collect();
    for route in routes.iter_mut() {
        for (letters, rank, strict, at) in &preferred {
            let below = route.letters.starts_with(letters.as_str()) && route.letters != *letters;
            if below && route.rank > *rank && !route.strictness().is_as_strict_as(strict) {
                notes.refused(
                    route.entry.place.directive,
                    "nginx preferred a regular expression here",
                );
                route.refusing.push(at.clone());
            }
        }
    }
    let first: Vec<String> =
        routes.iter().filter(|r| r.rank == Rank::First).map(|r| r.letters.clone()).collect();
    for route in routes.iter_mut().filter(|route| matches!(route.rank, Rank::Regex(_))) {
        if first.iter().any(|letters| route.letters.starts_with(letters.as_str())) {
            let directive = route.entry.place.directive;
            notes.refused(directive, "nginx preferred a `^~` location to this one");
            route.refusing.push(directive.at.clone());
        }
    }
}

/// The letters of a prefix that ends with a slash.
fn slashed(entry: &Entry<'_>) -> Option<String> {
    match &entry.place.matches {
        Matches::Prefix { path, .. } if path.ends_with('/') => Some(path.clone()),
        _ => None,
    }
}

/// Paths that no route can have, such as `/a b`: requests for them come to the route around, which must not
/// let in whom nginx did not: it refuses.
fn unspeakable(without: &[(String, &Entry<'_>)], routes: &mut [Route<'_, '_>]) {
    for (letters, entry) in without {
        let around = routes.iter_mut().filter(|route| {
            !matches!(route.path, Path::Exact(_)) && letters.starts_with(&route.letters)
        });
        let Some(route) = around.max_by_key(|route| route.letters.len()) else { continue };
        if route.entry.is_proxy() && !route.strictness().is_as_strict_as(&entry.strictness()) {
            route.refusing.push(entry.place.directive.at.clone());
        }
    }
}

impl Route<'_, '_> {
    fn strictness(&self) -> Guard {
        if self.refusing.is_empty() {
            return self.entry.strictness();
        }
        Guard { access: Access::nobody(), ..Guard::default() }
    }

    /// The route at one place. `answers`: the fields that the listener does not add already.
    pub(super) fn item(&self, place: &Place<'_>, answers: Option<&Answers>, more: &[At]) -> Item {
        let mut item = Item::default();
        let refusing = [self.refusing.as_slice(), more].concat();
        let directive = self.entry.place.directive;
        let words = [std::slice::from_ref(&directive.name), &directive.args].concat();
        item.head.push(format!("{} {}", directive.at, words.join(" ")));
        if let Some(host) = place.host {
            item.key("host", scalar(host), "");
        }
        match &self.path {
            Path::Prefix(path) => item.key("path", scalar(path), ""),
            Path::Letters(path) => {
                item.key("path", format!("{{ starts_with: {} }}", scalar(path)), "");
            }
            Path::Exact(path) => item.key("path", format!("{{ exact: {} }}", scalar(path)), ""),
        }
        if let Some(listeners) = &place.listeners {
            item.key("listeners", listeners, "");
        }
        if let Some(url) = place.public_url {
            item.key("public_url", scalar(&format!("{url}{}", self.path.text())), "");
        }
        let Content::Proxy(proxy) = &self.entry.content else {
            item.key("upstream", scalar(NOWHERE), "nothing is served here");
            refuse(&mut item, &refusing);
            item.key("auth", "[ anonymous ]", "");
            return item;
        };
        item.key("upstream", scalar(&proxy.upstream), "");
        if let Some(rewrite) = &proxy.rewrite {
            item.key("rewrite", scalar(rewrite), "");
        }
        guard(&mut item, self.entry.guard.as_ref(), &refusing);
        if let Some((identity, at)) = &proxy.requests.identity {
            item.from("identity", identity, at);
        }
        if let Some(at) = &proxy.requests.credentials {
            item.from("forward_credentials", "true", at);
        }
        if let Some((edits, at)) = &proxy.requests.edits {
            item.from("request_headers", edits, at);
        }
        dressed(&mut item, &self.entry.answers, answers);
        item.key("body_limit", &proxy.body_limit.0, &proxy.body_limit.1);
        item
    }
}

/// An upstream for routes that let nobody through to it.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A route for everything that a host does not serve, where other routes serve any host.
pub(super) fn nothing_else(host: &str, listeners: Option<String>) -> Item {
    let mut item = Item::default();
    item.head.push(
        "nginx has nothing else for this host; without this, routes for any host would have it"
            .into(),
    );
    item.key("host", scalar(host), "");
    item.key("path", "/", "");
    if let Some(listeners) = listeners {
        item.key("listeners", listeners, "");
    }
    item.key("upstream", scalar(NOWHERE), "nothing is served here");
    refuse(&mut item, &[]);
    item.key("auth", "[ anonymous ]", "");
    item
}

/// The only route of a config whose servers could none of them be carried.
pub(super) fn nothing_left() -> Item {
    let mut item = Item::default();
    item.head.push("no server could be carried: the notes at the end say why".into());
    item.key("path", "/", "");
    item.key("upstream", scalar(NOWHERE), "nothing is served here");
    refuse(&mut item, &[]);
    item.key("auth", "[ anonymous ]", "");
    item
}

fn refuse(item: &mut Item, why: &[At]) {
    let why: Vec<String> = why.iter().map(ToString::to_string).collect();
    let comment =
        if why.is_empty() { String::new() } else { format!("refuses: {}", why.join(", ")) };
    item.key("deny", list(Access::nobody().deny), comment);
}

fn guard(item: &mut Item, guard: Option<&Guard>, refusing: &[At]) {
    let open = Guard::default();
    let known = guard.unwrap_or(&open);
    let from = known.from.access.as_ref().map(ToString::to_string).unwrap_or_default();
    if guard.is_none() || !refusing.is_empty() {
        refuse(item, refusing);
    } else {
        if !known.access.allow.is_empty() {
            item.key("allow", list(&known.access.allow), &from);
        }
        if !known.access.deny.is_empty() {
            item.key("deny", list(&known.access.deny), &from);
        }
    }
    let places: Vec<String> = known.from.methods.iter().map(ToString::to_string).collect();
    match known.methods.as_slice() {
        [] => item.key("auth", "[ anonymous ]", ""),
        [one] => item.list("auth", vec![(format!("{{ {one} }}"), places.join(", "))]),
        several => {
            let all: Vec<String> = several.iter().map(|method| format!("{{ {method} }}")).collect();
            item.list(
                "auth",
                vec![(format!("{{ all: [ {} ] }}", all.join(", ")), places.join(", "))],
            );
        }
    }
    let limits = known.limits.iter().zip(&known.from.limits);
    item.list("limits", limits.map(|(limit, at)| (limit.clone(), at.to_string())).collect());
}

fn dressed(item: &mut Item, answers: &Answers, left: Option<&Answers>) {
    let at = answers.at.as_ref().map(ToString::to_string).unwrap_or_default();
    if let Some(origins) = &answers.origins {
        item.key("origins", origins, &at);
        if answers.with_credentials && origins != "any" {
            item.key("cors", "{ credentials: true }", &at);
        }
    }
    let mut set = Vec::new();
    if let Some(left) = left {
        set.extend(
            left.hsts.iter().map(|value| ("Strict-Transport-Security".to_owned(), value.clone())),
        );
        set.extend(left.set.iter().cloned());
    }
    let mut parts = Vec::new();
    if !set.is_empty() {
        let set: Vec<String> = set
            .iter()
            .map(|(name, value)| format!("{}: {}", scalar(name), scalar(value)))
            .collect();
        parts.push(format!("set: {{ {} }}", set.join(", ")));
    }
    if !answers.remove.is_empty() {
        parts.push(format!("remove: {}", list(&answers.remove)));
    }
    if !parts.is_empty() {
        item.key("response_headers", format!("{{ {} }}", parts.join(", ")), at);
    }
}
