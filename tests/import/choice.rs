//! Who is let in at a path, by nginx and by what an import makes of it. In: small servers with locations of all
//! kinds, each with its own guard and server behind it. Out: nowhere does the edge let in whom nginx keeps out,
//! and where nothing is said to refuse, requests go where they went.
//!
//! What nginx does is a model here, which `choice.golden` writes down for some servers: `tests/peers/test_nginx.py`
//! asks nginx itself for the same, and the edge.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, Method};
use mcp_edge::base::head::{Head, Version};
use mcp_edge::config::{Mode, load_text};
use mcp_edge::import::{self, Options, nginx};
use mcp_edge::route::table::Routes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, RngSeed, TestRng, TestRunner};

/// Prefixes of locations, outermost first.
const PREFIXES: &[&str] = &["/", "/a", "/a/", "/ab", "/a/b", "/a/b/", "/b", "/b/"];

/// Regular expressions, and what they match.
type Regex = (&'static str, fn(&str) -> bool);
const REGEXES: &[Regex] = &[
    ("^/a", |p| p.starts_with("/a")),
    ("^/a/", |p| p.starts_with("/a/")),
    ("^/a$", |p| p == "/a"),
    ("^/a/?$", |p| p == "/a" || p == "/a/"),
    ("^/a(/|$)", |p| p == "/a" || p.starts_with("/a/")),
    ("^/a/b", |p| p.starts_with("/a/b")),
    ("^/a/b/.*$", |p| p.starts_with("/a/b/")),
    ("^/(a|b)/", |p| p.starts_with("/a/") || p.starts_with("/b/")),
    ("b", |p| p.contains('b')),
    ("b$", |p| p.ends_with('b')),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain(usize),
    First(usize),
    Exact(usize),
    Regex(usize),
}

#[derive(Debug, Clone)]
struct Location {
    kind: Kind,
    /// Let in: everybody, `127.N.0.0/16` alone, or nobody.
    guard: u8,
    proxied: bool,
    within: Vec<Location>,
    number: u16,
}

impl Location {
    fn prefix(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Plain(n) | Kind::First(n) | Kind::Exact(n) => Some(PREFIXES[n]),
            Kind::Regex(_) => None,
        }
    }

    fn text(&self) -> String {
        let place = match self.kind {
            Kind::Plain(n) => PREFIXES[n].to_owned(),
            Kind::First(n) => format!("^~ {}", PREFIXES[n]),
            Kind::Exact(n) => format!("= {}", PREFIXES[n]),
            Kind::Regex(n) => format!("~ {}", REGEXES[n].0),
        };
        let guard = match self.guard {
            0 => "allow all;".to_owned(),
            3 => "deny all;".to_owned(),
            n => format!("allow 127.{n}.0.0/16; deny all;"),
        };
        let pass = match self.proxied {
            true => format!("proxy_pass http://127.0.0.1:{};", 9000 + self.number),
            false => format!("root /srv/{};", self.number),
        };
        let within: String = self.within.iter().map(Location::text).collect();
        format!("location {place} {{ {guard} {pass} {within} }}\n")
    }

    fn admits(&self, who: u8) -> bool {
        self.guard == 0 || self.guard == who
    }
}

/// Whether it has a server, and all within it have.
fn whole(location: &Location) -> bool {
    location.proxied && location.within.iter().all(whole)
}

/// What nginx does with a path (`ngx_http_core_find_location`).
#[derive(Debug, PartialEq, Eq)]
enum Found<'l> {
    /// This one, and none further out is asked.
    Ends(&'l Location),
    /// This one, unless a regular expression further out has it.
    Prefix(&'l Location),
    /// A redirect to the same path with a slash.
    Slash,
    Nothing,
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Location {}

fn find<'l>(locations: &'l [Location], path: &str) -> Found<'l> {
    let with = |kind: fn(&Kind) -> bool| locations.iter().filter(move |l| kind(&l.kind));
    let exact = |kind: &Kind| matches!(kind, Kind::Exact(_));
    let inclusive = |kind: &Kind| matches!(kind, Kind::Plain(_) | Kind::First(_));
    if let Some(found) = with(exact).find(|l| l.prefix() == Some(path)) {
        return Found::Ends(found);
    }
    // `= /a/` leads there, too
    let slash = format!("{path}/");
    if locations.iter().any(|l| l.prefix() == Some(slash.as_str()) && l.proxied)
        && !with(inclusive).any(|l| l.prefix() == Some(path))
    {
        return Found::Slash;
    }
    let longest = with(inclusive)
        .filter(|l| path.starts_with(l.prefix().unwrap()))
        .max_by_key(|l| l.prefix().unwrap().len());
    let mut found = Found::Nothing;
    if let Some(longest) = longest {
        found = match find(&longest.within, path) {
            Found::Nothing => Found::Prefix(longest),
            Found::Prefix(inner) => Found::Prefix(inner),
            ends => return ends,
        };
        if matches!(longest.kind, Kind::First(_)) {
            return found;
        }
    }
    let regex = locations.iter().find(|l| match l.kind {
        Kind::Regex(n) => REGEXES[n].1(path),
        _ => false,
    });
    match regex {
        Some(regex) => Found::Ends(regex),
        None => found,
    }
}

/// The paths that are asked for.
fn paths() -> Vec<String> {
    let words = ["a", "b", "ab", "c"];
    let mut paths = vec!["/".to_owned()];
    for one in words {
        paths.extend([format!("/{one}"), format!("/{one}/")]);
        for two in words {
            paths.extend([format!("/{one}/{two}"), format!("/{one}/{two}/")]);
            paths.extend(words.map(|three| format!("/{one}/{two}/{three}")));
        }
    }
    paths
}

fn kinds() -> impl Strategy<Value = Kind> {
    let (prefix, regex) = (0..PREFIXES.len(), 0..REGEXES.len());
    prop_oneof![
        3 => prefix.clone().prop_map(Kind::Plain),
        1 => prefix.clone().prop_map(Kind::First),
        1 => prefix.prop_map(Kind::Exact),
        3 => regex.prop_map(Kind::Regex),
    ]
}

fn location(within: BoxedStrategy<Vec<Location>>) -> impl Strategy<Value = Location> {
    (kinds(), 0..4u8, prop::bool::weighted(0.8), within).prop_map(
        |(kind, guard, proxied, within)| Location { kind, guard, proxied, within, number: 0 },
    )
}

/// Servers that nginx takes.
fn servers() -> impl Strategy<Value = Vec<Location>> {
    let leaf = location(Just(Vec::new()).boxed());
    let within = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(leaf, 1..3)];
    prop::collection::vec(location(within.boxed()), 1..5).prop_map(|mut locations| {
        taken(&mut locations, "/");
        let mut number = 0;
        renumber(&mut locations, &mut number);
        locations
    })
}

/// Takes out what nginx would not: a name twice, and what is outside of the location around it.
fn taken(locations: &mut Vec<Location>, around: &str) {
    let mut seen: Vec<(bool, Option<&str>, Option<usize>)> = Vec::new();
    locations.retain(|location| {
        let exact = matches!(location.kind, Kind::Exact(_));
        let regex = match location.kind {
            Kind::Regex(n) => Some(n),
            _ => None,
        };
        let name = (exact, location.prefix(), regex);
        let inside = location.prefix().is_none_or(|own| own.starts_with(around));
        let new = regex.is_some() || !seen.contains(&name);
        seen.push(name);
        inside && new
    });
    for location in locations {
        let proxied = location.proxied;
        match location.prefix() {
            Some(own) if !matches!(location.kind, Kind::Exact(_)) => {
                taken(&mut location.within, own);
                // nginx has nobody for what leaves the slash of both out, the edge has the one within
                location.within.retain(|inner| proxied || inner.prefix() != Some(own));
            }
            _ => location.within.clear(),
        }
    }
}

fn renumber(locations: &mut [Location], number: &mut u16) {
    for location in locations {
        *number += 1;
        location.number = *number;
        renumber(&mut location.within, number);
    }
}

/// What the edge does: the port of the server behind, for each of three callers.
fn edge(routes: &Routes, path: &str) -> [Option<u16>; 3] {
    let head = Head {
        method: Method::POST,
        path: path.into(),
        query: None,
        authority: "h.example".into(),
        headers: HeaderMap::new(),
        version: Version::H11,
        websocket: false,
    };
    let listener: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    [0, 1, 2].map(|who| {
        let routed = routes.find(&head, listener).ok()?;
        let port = routed.route.upstream.rsplit_once('-')?.1.parse().ok();
        assert_eq!(routed.backend_path, path);
        let address: IpAddr = caller(who).parse().unwrap();
        routed.route.access.admits(address).then_some(port)?
    })
}

fn caller(who: u8) -> &'static str {
    ["127.0.0.1", "127.1.0.1", "127.2.0.1"][usize::from(who)]
}

fn judge(locations: &[Location]) -> Result<(), TestCaseError> {
    let inner: String = locations.iter().map(Location::text).collect();
    let conf = format!("server {{ listen 127.0.0.1:8080; server_name h.example;\n{inner}}}");
    let tree = nginx::read_text(conf.as_bytes(), "n.conf").unwrap();
    let options = Options { letsencrypt: Some("/nonexistent".into()), webroot: None };
    // nothing in it is proxied
    let Ok(imported) = import::from_tree(&tree, &options) else { return Ok(()) };
    let loaded = load_text(&imported.yaml, Path::new("/nonexistent"), &|_| None, Mode::Check);
    let settings = loaded.map_err(|e| TestCaseError::fail(format!("{e:?}\n{}", imported.yaml)))?;
    let routes = Routes::new(settings.routes.into_iter().map(Arc::new));
    for path in paths() {
        let found = find(locations, &path);
        let here = match &found {
            Found::Ends(found) | Found::Prefix(found) => Some(*found),
            // whoever the redirect led there is whom the edge may let in without it, and to the same server
            Found::Slash => match find(locations, &format!("{path}/")) {
                Found::Ends(found) | Found::Prefix(found) => Some(found),
                _ => None,
            },
            Found::Nothing => None,
        };
        for (who, got) in [0, 1, 2].into_iter().zip(edge(&routes, &path)) {
            let wanted = here.filter(|here| here.proxied && here.admits(who));
            let say =
                || format!("{path} for {}: nginx {here:?}\n{conf}\n{}", caller(who), imported.yaml);
            prop_assert!(got.is_none() || here.is_some_and(|h| h.admits(who)), "open: {}", say());
            // the edge serves no files: a regular expression for them takes nothing from others
            let files = here.is_some_and(|h| !h.proxied && matches!(h.kind, Kind::Regex(_)));
            // what nginx sends to the slash may go there at once, or nowhere
            let sent = found == Found::Slash && got.is_none();
            prop_assert!(
                files
                    || sent
                    || imported.refuses()
                    || got.is_none() && !locations.iter().all(whole)
                    || got == wanted.map(|here| 9000 + here.number),
                "another: {got:?}, {}",
                say()
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn nobody_comes_in_whom_nginx_keeps_out(locations in servers()) {
        judge(&locations)?;
    }
}

/// What a longer look for differences has found, one by one.
#[test]
fn what_was_found_before_is_not_found_again() {
    use Kind::{Exact, First, Plain, Regex};
    let at = |kind, guard, proxied, within: &[Location]| {
        let within = within.to_vec();
        Location { kind, guard, proxied, within, number: 0 }
    };
    let place = |path: &str| PREFIXES.iter().position(|prefix| *prefix == path).unwrap();
    let spelled = |regex: &str| REGEXES.iter().position(|(own, _)| *own == regex).unwrap();
    let [root, b, b_, ab, ab_, a_] = ["/", "/b", "/b/", "/a/b", "/a/b/", "/a/"].map(place);
    for mut locations in [
        vec![at(Plain(root), 0, true, &[]), at(Exact(ab_), 1, true, &[])],
        vec![at(Plain(b), 0, true, &[at(Plain(b_), 1, true, &[])])],
        vec![at(Plain(b), 0, true, &[at(Exact(b_), 1, true, &[])])],
        vec![at(First(a_), 1, true, &[]), at(Regex(spelled("^/a$")), 0, true, &[])],
        vec![at(Plain(a_), 0, true, &[]), at(Regex(spelled("^/a/?$")), 1, true, &[])],
        vec![
            at(Plain(ab_), 1, true, &[]),
            at(Plain(root), 0, false, &[at(Plain(ab), 0, true, &[])]),
        ],
        vec![
            at(Exact(ab_), 1, true, &[]),
            at(Plain(root), 0, false, &[at(Exact(ab), 0, true, &[])]),
        ],
        vec![at(First(b_), 1, false, &[]), at(Plain(b), 0, true, &[at(Plain(b_), 0, true, &[])])],
    ] {
        renumber(&mut locations, &mut 0);
        judge(&locations).unwrap();
    }
}

const GOLDEN: &str = "tests/import/choice.golden";

/// Servers and what the model says of some paths at each: the location's number, `/` for a redirect to the slash,
/// `-` for nothing.
fn written() -> String {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let short = |path: &String| path.split('/').filter(|word| !word.is_empty()).count() < 3;
    let paths: Vec<String> = paths().into_iter().filter(short).collect();
    let mut out = format!("paths {}\n", paths.join(" "));
    for _ in 0..60 {
        let locations = servers().new_tree(&mut runner).unwrap().current();
        let inner: String = locations.iter().map(Location::text).collect();
        let chosen = paths.iter().map(|path| match find(&locations, path) {
            Found::Ends(found) | Found::Prefix(found) => found.number.to_string(),
            Found::Slash => "/".to_owned(),
            Found::Nothing => "-".to_owned(),
        });
        let chosen: Vec<String> = chosen.collect();
        write!(out, "\nserver\n{inner}chosen {}\n", chosen.join(" ")).unwrap();
    }
    out
}

/// The model stands in a file, for nginx itself to be held against: `BLESS=1` writes it anew.
#[test]
fn what_the_model_says_is_written_down() {
    let written = written();
    if std::env::var_os("BLESS").is_some() {
        fs::write(GOLDEN, &written).unwrap();
    }
    let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(golden == written, "{GOLDEN} is not what the model says:\n{written}");
}
