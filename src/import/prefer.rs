//! Who has a path: in, what a server does at its locations; out, the edge's routes, those that must refuse included.
//!
//! nginx asks the longest prefix, then regular expressions in their order, and the edge the longest path: where
//! that is another location, and a more open one, its route refuses.

use super::entry::{Content, Entry};
use super::guard::Guard;
use super::nginx::At;
use super::note::Notes;
use super::place::{Matches, Simple, edge_prefix};
use super::route::{Path, Rank, Route};
use crate::base::url;
use crate::route::path::{replace_letters, replace_prefix};

/// The routes of a server. What the edge would let through more than nginx did is noted, and refuses.
pub(super) fn routes<'e, 't>(entries: &'e [Entry<'t>], notes: &mut Notes) -> Vec<Route<'e, 't>> {
    let mut without: Vec<(String, &Entry<'t>)> = Vec::new();
    let all = candidates(entries, &mut without, notes);
    let first = letters_of(&all, |rank| rank == Rank::First);
    let preferred: Vec<Preferred> = all.iter().filter_map(Preferred::of).collect();
    let mut routes: Vec<Route<'e, 't>> = Vec::new();
    for route in all {
        match routes.iter().find(|known| known.path == route.path) {
            None => routes.push(route),
            Some(known) if std::ptr::eq(known.entry, route.entry) => {}
            Some(_) if matches!(route.path, Path::Exact(_)) => {}
            Some(known) => notes.dropped(
                route.entry.place.directive,
                format!("nginx asks {} before it", known.entry.place.directive.at),
            ),
        }
    }
    regexes(entries, &mut routes, notes);
    preferences(&mut routes, &preferred, &first, notes);
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

/// What could have a path, that which nginx prefers before the others.
fn candidates<'e, 't>(
    entries: &'e [Entry<'t>],
    without: &mut Vec<(String, &'e Entry<'t>)>,
    notes: &mut Notes,
) -> Vec<Route<'e, 't>> {
    let slashed: Vec<String> = entries.iter().filter_map(|entry| slashed(entry)).collect();
    // to these nginx sends nobody who leaves the slash out
    let own = slashed.iter().filter(|path| {
        let bare = path.strip_suffix('/');
        let is = |entry: &Entry<'_>| matches!(&entry.place.matches, Matches::Prefix { path, .. } if Some(path.as_str()) == bare);
        entries.iter().any(is)
    });
    let own: Vec<String> = own.cloned().collect();
    let mut all: Vec<Route<'e, 't>> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        if matches!(entry.content, Content::Acme(_) | Content::Well) {
            continue;
        }
        let slashed = match &entry.place.matches {
            Matches::Paths(_) => own.as_slice(),
            Matches::Prefix { path, .. } if is_sent(path, entries) => &[],
            _ => slashed.as_slice(),
        };
        for (path, letters, rank) in paths(number, entry, slashed) {
            if matches!(path, Some(Path::Exact(_))) && is_sent(&letters, entries) {
                // before it asks regular expressions, or comes to what stands further in
                notes.dropped(entry.place.directive, "nginx sends this path to that with a slash");
                continue;
            }
            let Some(path) = path else {
                notes.refused(entry.place.directive, "no route can have this path");
                without.push((letters, entry));
                continue;
            };
            let (rewrite, refusing, gap) = (None, entry.refusing.clone(), false);
            all.push(Route { path, entry, rewrite, refusing, gap, letters, rank, number });
        }
    }
    all.extend(entries.iter().enumerate().flat_map(|(n, entry)| bare(n, entry, entries)));
    all.extend(redirected(entries));
    // of locations with the same letters the innermost has the paths
    all.sort_by_key(|route| (route.rank, std::cmp::Reverse(route.entry.place.depth)));
    all
}

/// Those that stand within a location.
fn inside<'e, 't>(n: usize, entries: &'e [Entry<'t>]) -> impl Iterator<Item = &'e Entry<'t>> {
    let depth = entries.get(n).map_or(usize::MAX, |entry| entry.place.depth);
    entries.iter().skip(n + 1).take_while(move |other| other.place.depth > depth)
}

/// Whether nginx redirects `/a` to `/a/`: that has a server, and before it is found, no location is for `/a` itself.
fn is_sent(path: &str, entries: &[Entry<'_>]) -> bool {
    let is_around =
        |n: usize, it: &Entry<'_>| inside(n, entries).any(|inner| std::ptr::eq(inner, it));
    // those beside the location and beside those around it are asked with it
    let beside = |n: usize, it: &Entry<'_>| {
        let depth = entries.get(n).map_or(0, |entry| entry.place.depth);
        let mut before = entries.iter().enumerate().take(n).rev();
        depth == 0
            || before.find(|(_, e)| e.place.depth < depth).is_some_and(|(m, _)| is_around(m, it))
    };
    let own = |it: &Entry<'_>| {
        entries.iter().enumerate().any(|(n, other)| match &other.place.matches {
            Matches::Exact(own) => own == path && beside(n, it),
            Matches::Prefix { path: own, .. } => own == path && beside(n, it) && !is_around(n, it),
            _ => false,
        })
    };
    let leads = |entry: &Entry<'_>| sends(entry).and_then(|to| to.strip_suffix('/')) == Some(path);
    entries.iter().any(|entry| leads(entry) && !own(entry))
}

/// `~ ^/a/` takes `/a` along here, which nginx gives to somebody else, or to nobody.
fn bare<'e, 't>(n: usize, entry: &'e Entry<'t>, entries: &'e [Entry<'t>]) -> Vec<Route<'e, 't>> {
    let Matches::Paths(simple) = &entry.place.matches else { return Vec::new() };
    let slashed = simple.iter().filter_map(|simple| match simple {
        Simple::Prefix(path) => path.strip_suffix('/'),
        Simple::Exact(_) => None,
    });
    let route = |path: &str| {
        // where nginx has its own answer at this very path, or redirects to the slash
        let own =
            |other: &Entry<'_>| matches!(&other.place.matches, Matches::Exact(own) if own == path);
        if entries.iter().any(own) || is_sent(path, entries) {
            return None;
        }
        let holder = holder(path, entries);
        let (rank, number, held) = holder.unwrap_or((Rank::Plain, n, entry));
        Some(Route {
            path: Path::Exact(url::path(path).ok()?),
            entry: held,
            rewrite: rewritten(path, held),
            refusing: if holder.is_some() { held.refusing.clone() } else { Vec::new() },
            gap: holder.is_none(),
            letters: path.to_owned(),
            rank,
            number,
        })
    };
    slashed.filter_map(route).collect()
}

/// Where nginx sends `/a` to `/a/`, and the edge would give it to another location than that which has `/a/`.
fn redirected<'e, 't>(entries: &'e [Entry<'t>]) -> Vec<Route<'e, 't>> {
    let mut slashed: Vec<&str> = entries.iter().filter_map(|entry| sends(entry)).collect();
    slashed.sort_unstable();
    slashed.dedup();
    let route = |slashed: &str| {
        let path = slashed.strip_suffix('/').filter(|path| is_sent(path, entries))?;
        let exact = |(_, entry): &(usize, &Entry<'_>)| matches!(&entry.place.matches, Matches::Exact(own) if own == slashed);
        let (rank, number, entry) = match entries.iter().enumerate().find(exact) {
            Some((n, entry)) => (Rank::Exact, n, entry),
            None => holder(slashed, entries)?,
        };
        // a prefix of the edge takes what has no slash along
        let itself = match &entry.place.matches {
            Matches::Prefix { .. } => true,
            Matches::Paths(simple) => simple.contains(&Simple::Prefix(slashed.to_owned())),
            _ => false,
        };
        if itself || matches!(entry.content, Content::Well | Content::Acme(_)) {
            return None;
        }
        Some(Route {
            path: Path::Exact(url::path(path).ok()?),
            entry,
            rewrite: None,
            refusing: entry.refusing.clone(),
            gap: false,
            letters: slashed.to_owned(),
            rank,
            number,
        })
    };
    slashed.into_iter().filter_map(route).collect()
}

/// The path with a slash at its end to which a location has nginx send those who leave that out.
fn sends<'e>(entry: &'e Entry<'_>) -> Option<&'e str> {
    match &entry.place.written {
        Matches::Exact(path) | Matches::Prefix { path, .. } => Some(path.as_str())
            .filter(|path| entry.is_proxy() && path.len() > 1 && path.ends_with('/')),
        _ => None,
    }
}

/// The location that nginx chooses for a path that no `=` has.
fn holder<'e, 't>(path: &str, entries: &'e [Entry<'t>]) -> Option<(Rank, usize, &'e Entry<'t>)> {
    let prefix = |(n, entry): (usize, &'e Entry<'t>)| match &entry.place.matches {
        Matches::Prefix { path: letters, first } if path.starts_with(letters.as_str()) => {
            let rank = if *first { Rank::First } else { Rank::Plain };
            Some(((letters.len(), entry.place.depth), (rank, n, entry)))
        }
        _ => None,
    };
    let longest = entries.iter().enumerate().filter_map(prefix).max_by_key(|(length, _)| *length);
    let longest = longest.map(|(_, found)| found);
    if longest.is_some_and(|(rank, ..)| rank == Rank::First) {
        return longest;
    }
    let spelled = |simple: &Simple| match simple {
        Simple::Exact(own) => own == path,
        Simple::Prefix(letters) => path.starts_with(letters.as_str()),
    };
    let regex = entries.iter().enumerate().find(|(_, entry)| match &entry.place.matches {
        Matches::Paths(simple) => simple.iter().any(spelled),
        _ => false,
    });
    regex.map(|(n, entry)| (Rank::Regex(n), n, entry)).or(longest)
}

/// What a path becomes by the rewrite of a prefix around it.
fn rewritten(path: &str, entry: &Entry<'_>) -> Option<String> {
    let (Content::Proxy(proxy), Matches::Prefix { path: letters, .. }) =
        (&entry.content, &entry.place.matches)
    else {
        return None;
    };
    let to = proxy.rewrite.as_ref()?;
    match below(letters)? {
        Path::Prefix(from) => replace_prefix(path, &from, to),
        Path::Letters(from) => replace_letters(path, &from, to),
        Path::Exact(_) => None,
    }
}

fn letters_of(all: &[Route<'_, '_>], wanted: impl Fn(Rank) -> bool) -> Vec<String> {
    all.iter().filter(|route| wanted(route.rank)).map(|route| route.letters.clone()).collect()
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
        // one within a location is asked before those around it, and within `^~`, too
        let after = |rank: Rank| match entry.place.depth {
            0 => rank > Rank::Regex(n),
            _ => rank != Rank::Exact,
        };
        for route in routes.iter_mut().filter(|route| after(route.rank)) {
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

/// A regular expression that spells a prefix, whether it has a route or lost its path to another one.
struct Preferred {
    letters: String,
    rank: Rank,
    strict: Guard,
    /// Where it leads, if it serves.
    upstream: Option<String>,
    at: At,
}

impl Preferred {
    fn of(route: &Route<'_, '_>) -> Option<Self> {
        let spelled = matches!(route.rank, Rank::Regex(_)) && !matches!(route.path, Path::Exact(_));
        spelled.then(|| Self {
            letters: route.letters.clone(),
            rank: route.rank,
            strict: route.strictness(),
            upstream: upstream(route.entry).map(str::to_owned),
            at: route.entry.place.directive.at.clone(),
        })
    }
}

fn upstream<'e>(entry: &'e Entry<'_>) -> Option<&'e str> {
    match &entry.content {
        Content::Proxy(proxy) => Some(&proxy.upstream),
        _ => None,
    }
}

/// Paths below a location that nginx would have preferred: the longer path wins here.
fn preferences(
    routes: &mut [Route<'_, '_>],
    preferred: &[Preferred],
    first: &[String],
    notes: &mut Notes,
) {
    for route in routes.iter_mut() {
        for Preferred { letters, rank, strict, upstream: there, at } in preferred {
            let below = route.letters.starts_with(letters.as_str()) && route.rank > *rank;
            let here = upstream(route.entry);
            let elsewhere = here.is_some() && there.is_some() && here != there.as_deref();
            if below && (elsewhere || !route.strictness().is_as_strict_as(strict)) {
                notes.refused(
                    route.entry.place.directive,
                    "nginx preferred a regular expression here",
                );
                route.refusing.push(at.clone());
            }
        }
    }
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
