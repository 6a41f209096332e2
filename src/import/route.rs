//! Routes: in, what a server does at a path and why it must not; out, the edge's route as it is written.

use super::access::Access;
use super::entry::{Content, Entry};
use super::guard::Guard;
use super::headers::Answers;
use super::nginx::At;
use super::plan::Item;
use super::values::{list, scalar};
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
    pub(super) fn text(&self) -> &str {
        let (Self::Exact(path) | Self::Prefix(path) | Self::Letters(path)) = self;
        path
    }

    /// Whether a path, not this one itself, would come here without a route of its own.
    pub(super) fn is_around(&self, other: &Self) -> bool {
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
    /// What the path becomes, where it is not what the entry says.
    pub(super) rewrite: Option<String>,
    /// Why it refuses.
    pub(super) refusing: Vec<At>,
    /// Whether nginx has nothing at this path: it is here so that no other route takes it.
    pub(super) gap: bool,
    /// The letters of nginx's prefix, and its rank: regular expressions are asked before plain prefixes.
    pub(super) letters: String,
    pub(super) rank: Rank,
    /// Its place in the file.
    pub(super) number: usize,
}

/// Which of two that both match a path nginx prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Exact,
    /// `^~`
    First,
    /// Regular expressions, in their order.
    Regex(usize),
    Plain,
}

impl Route<'_, '_> {
    pub(super) fn strictness(&self) -> Guard {
        if self.refusing.is_empty() && !self.gap {
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
        let proxy = match &self.entry.content {
            Content::Proxy(proxy) if !self.gap => proxy,
            _ => return self.nothing(item, &refusing),
        };
        item.key("upstream", scalar(&proxy.upstream), "");
        if let Some(rewrite) = self.rewrite.as_ref().or(proxy.rewrite.as_ref()) {
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

    /// Nobody comes in.
    fn nothing(&self, mut item: Item, refusing: &[At]) -> Item {
        if self.gap {
            item.head = vec![format!(
                "nginx has nothing at this path, which the prefix of {} would take along",
                self.entry.place.directive.at
            )];
        }
        item.key("upstream", scalar(NOWHERE), "nothing is served here");
        refuse(&mut item, refusing);
        item.key("auth", "[ anonymous ]", "");
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
