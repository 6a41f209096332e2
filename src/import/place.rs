//! Locations: in, those of a server; out, the paths that the edge can match, in nginx's order of preference.

use super::nginx::Directive;
use super::scope::Scope;

/// One location.
#[derive(Debug)]
pub(super) struct Place<'t> {
    pub(super) directive: &'t Directive,
    pub(super) scope: Scope<'t>,
    pub(super) matches: Matches,
    /// The same as it is written, whoever else takes those paths.
    pub(super) written: Matches,
    /// How many locations it stands within.
    pub(super) depth: usize,
}

/// Which paths a location is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matches {
    /// `= /x`
    Exact(String),
    /// `/x` or `^~ /x`: every path that starts with these letters. `first`: no regular expression is
    /// asked before it.
    Prefix { path: String, first: bool },
    /// A regular expression that means no more than these paths.
    Paths(Vec<Simple>),
    /// Any other regular expression.
    Regex,
    /// `@name`, which only nginx itself goes to, and what stands within a location of whose paths another
    /// one takes those.
    Named,
}

/// A path that a regular expression spells out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Simple {
    Exact(String),
    /// With or without a slash at its end, as nginx's prefixes.
    Prefix(String),
}

/// All locations of a server, those within others too. A server without any is one for all paths.
pub(super) fn places<'t>(block: &'t Directive, server: &Scope<'t>) -> Vec<Place<'t>> {
    let mut out = Vec::new();
    collect(server, &[], &mut out);
    if out.is_empty() {
        let matches = Matches::Prefix { path: "/".to_owned(), first: false };
        let written = matches.clone();
        out.push(Place { directive: block, scope: server.clone(), matches, written, depth: 0 });
    }
    out
}

fn collect<'t>(around: &Scope<'t>, within: &[Level], out: &mut Vec<Place<'t>>) {
    let here: Vec<_> = around.own().iter().filter(|d| d.name == "location").collect();
    let all: Vec<Matches> = here.iter().map(|directive| matches(directive)).collect();
    for (n, directive) in here.into_iter().enumerate() {
        let Some((before, behind)) = all.split_at_checked(n) else { continue };
        let Some((own, behind)) = behind.split_first() else { continue };
        let scope = around.inside(directive.inner());
        let depth = within.len();
        let matches = nested(own, within);
        let written = own.clone();
        out.push(Place { directive, scope: scope.clone(), matches, written, depth });
        let beside = before.iter().chain(behind).cloned().collect();
        let level = Level { own: own.clone(), beside };
        collect(&scope, &[within, &[level]].concat(), out);
    }
}

/// A location around others, and those beside it.
#[derive(Debug, Clone)]
struct Level {
    own: Matches,
    beside: Vec<Matches>,
}

/// What a location within others is for. nginx comes to it only where it has chosen those around it, and
/// whether regular expressions are asked before it, the outermost says.
fn nested(own: &Matches, within: &[Level]) -> Matches {
    let Some(outermost) = within.first() else { return own.clone() };
    let (path, exact) = match own {
        Matches::Exact(path) => (path, true),
        Matches::Prefix { path, .. } => (path, false),
        // it is asked for the paths around it alone, before others: no path of ours says that
        Matches::Paths(_) | Matches::Regex => return Matches::Regex,
        Matches::Named => return Matches::Named,
    };
    let taken = within.iter().any(|level| {
        let Matches::Prefix { path: around, .. } = &level.own else { return false };
        level.beside.iter().any(|beside| match beside {
            Matches::Prefix { path: other, .. } => {
                other.len() > around.len() && path.starts_with(other.as_str())
            }
            Matches::Exact(other) => exact && other == path,
            _ => false,
        })
    });
    match own {
        _ if taken => Matches::Named,
        Matches::Prefix { path, .. } => {
            let first = matches!(outermost.own, Matches::Prefix { first: true, .. });
            Matches::Prefix { path: path.clone(), first }
        }
        _ => own.clone(),
    }
}

fn matches(directive: &Directive) -> Matches {
    let (modifier, path) = match directive.args.as_slice() {
        [path] => ("", path.as_str()),
        [modifier, path] => (modifier.as_str(), path.as_str()),
        _ => return Matches::Regex,
    };
    // nginx takes them without a space, too
    let (modifier, path) = match modifier {
        "" => ["=", "^~", "~*", "~"]
            .iter()
            .find_map(|word| Some((*word, path.strip_prefix(word)?)))
            .unwrap_or(("", path)),
        _ => (modifier, path),
    };
    match modifier {
        "" if path.starts_with('@') => Matches::Named,
        "" => Matches::Prefix { path: path.to_owned(), first: false },
        "=" => Matches::Exact(path.to_owned()),
        "^~" => Matches::Prefix { path: path.to_owned(), first: true },
        "~" => simple(path).map_or(Matches::Regex, Matches::Paths),
        _ => Matches::Regex,
    }
}

/// `^/x$`, `^/x/`, `^/x(/|$)`, `^/(a|b)(/|$)` and their like, where letters mean themselves.
fn simple(regex: &str) -> Option<Vec<Simple>> {
    let rest = regex.strip_prefix("^/")?;
    let ends: [(&str, End); 10] = [
        ("(/.*)?$", End::Whole),
        ("(?:/|$)", End::Whole),
        ("($|/)", End::Whole),
        ("(/|$)", End::Whole),
        ("/?$", End::Either),
        ("/(.*)$", End::Slash),
        ("/.*$", End::Slash),
        ("/.*", End::Slash),
        ("/", End::Slash),
        ("$", End::Exact),
    ];
    let (body, end) = ends
        .into_iter()
        .find_map(|(text, end)| Some((rest.strip_suffix(text)?, end)))
        .unwrap_or((rest.strip_suffix(".*").unwrap_or(rest), End::Open));
    let mut out = Vec::new();
    for path in words(body)? {
        let path = format!("/{path}");
        match end {
            End::Whole => {
                out.extend([Simple::Exact(path.clone()), Simple::Prefix(format!("{path}/"))])
            }
            End::Either => {
                out.extend([Simple::Exact(path.clone()), Simple::Exact(format!("{path}/"))])
            }
            End::Slash => out.push(Simple::Prefix(format!("{path}/"))),
            End::Exact => out.push(Simple::Exact(path)),
            End::Open => out.push(Simple::Prefix(path)),
        }
    }
    Some(out)
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Either,
    Slash,
    Exact,
    Open,
}

/// Letters that mean themselves, or one `(a|b)` of such.
fn words(body: &str) -> Option<Vec<String>> {
    let inner = body.strip_prefix('(').and_then(|body| body.strip_suffix(')'));
    let inner = inner.map(|inner| inner.strip_prefix("?:").unwrap_or(inner));
    let alternatives: Vec<&str> =
        inner.map_or_else(|| vec![body], |inner| inner.split('|').collect());
    alternatives.into_iter().map(literal).collect()
}

fn literal(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '-' | '_' => out.push(c),
            '\\' => out.push(letters.next().filter(|c| matches!(c, '.' | '-' | '/'))?),
            _ => return None,
        }
    }
    (!out.is_empty()).then_some(out)
}

/// A prefix of nginx as the edge's, which end at segment borders: `None` where no request can have
/// such a path.
pub(super) fn edge_prefix(path: &str) -> Option<String> {
    let trimmed = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    crate::base::url::prefix(trimmed).ok()
}

#[cfg(test)]
mod tests {
    use super::super::nginx::read_text;
    use super::*;

    fn of(text: &str) -> Matches {
        matches(&read_text(format!("location {text} {{}}").as_bytes(), "n").unwrap().directives[0])
    }

    #[test]
    fn modifiers_are_known_with_and_without_a_space() {
        assert_eq!(of("= /a"), Matches::Exact("/a".into()));
        assert_eq!(of("=/a"), Matches::Exact("/a".into()));
        assert_eq!(of("^~ /a/"), Matches::Prefix { path: "/a/".into(), first: true });
        assert_eq!(of("/a"), Matches::Prefix { path: "/a".into(), first: false });
        assert_eq!(of("@a"), Matches::Named);
        assert_eq!(of("~* \\.js$"), Matches::Regex);
        assert_eq!(of("~ \\.php$"), Matches::Regex);
    }

    #[test]
    fn plain_regular_expressions_are_paths() {
        let exact = |p: &str| Simple::Exact(p.into());
        let prefix = |p: &str| Simple::Prefix(p.into());
        for (regex, expected) in [
            ("^/a$", vec![exact("/a")]),
            ("^/a\\.b/c$", vec![exact("/a.b/c")]),
            ("^/a/?$", vec![exact("/a"), exact("/a/")]),
            ("^/a/", vec![prefix("/a/")]),
            ("^/a/.*$", vec![prefix("/a/")]),
            ("^/a", vec![prefix("/a")]),
            ("^/a(/|$)", vec![exact("/a"), prefix("/a/")]),
            (
                "^/(sse|mcp)(/|$)",
                vec![exact("/sse"), prefix("/sse/"), exact("/mcp"), prefix("/mcp/")],
            ),
        ] {
            assert_eq!(simple(regex), Some(expected), "{regex}");
        }
        for hard in
            ["/a", "\\.php$", "^/a.b$", "^/[ab]/", "^/(a|b)c/", "^/a+$", "^/", "^/(a|)$", "^/a|b"]
        {
            assert_eq!(simple(hard), None, "{hard}");
        }
    }
}
