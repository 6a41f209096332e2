//! Config machinery shared by all stages: in, a YAML tree with lines; out, typed leaves and every error.
//!
//! An error never stops the reading: a leaf notes it in [`Cx`] and gives `None`, and the loader
//! throws all results away when there was one. So what a stage puts in place of a bad value does
//! not matter, as long as it causes no second error.

use std::any::{Any, type_name};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::config_error::ConfigError;
use super::fields::Fields;
use super::kept::Kept;
use super::masks::Masks;
use super::value;
use super::watch::{Found, Refresh, Watched};

/// A value of the config with the place it stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 1-based line.
    pub line: usize,
    /// What it is.
    pub kind: NodeKind,
}

/// The shapes of YAML that a config may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// `~`, `null` or nothing.
    Null,
    /// A scalar, `${…}` already substituted. `plain` when it stood without quotes.
    Scalar {
        /// Its text.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
        /// What stood in the file where `${…}` was substituted: messages show this, never the text.
        written: Option<String>,
    },
    /// A scalar whose `${…}` could not be substituted. That is reported; no leaf says more.
    Broken,
    /// A list.
    Seq(Vec<Node>),
    /// A map in the order of the file: key, the key's line, value.
    Map(Vec<(String, usize, Node)>),
}

/// Collects errors while a config is compiled; knows where we are.
#[derive(Debug, Default)]
pub struct Cx {
    /// All errors so far.
    pub errors: Vec<ConfigError>,
    /// What is no error, but hardly what is meant.
    pub warnings: Vec<ConfigError>,
    /// The folder that relative paths are relative to: the config file's.
    pub base_dir: PathBuf,
    /// Files that the values so far came from, and are to be read again when they change.
    pub watched: Vec<Arc<dyn Refresh>>,
    /// Nothing will be run: what a run gets by with, such as an expired certificate, is an error.
    pub checking: bool,
    /// What clients type to reach the route that is being compiled; `None` where its port is not known yet.
    pub public_url: Option<String>,
    /// What messages must not show.
    pub masks: Masks,
    /// Where the route stands that is being compiled: its host, path and listeners.
    pub place: String,
    /// What the generation of the config before this one has; empty at the start.
    pub before: Kept,
    /// What this one has, to be handed on to the next.
    pub kept: Kept,
    path: Vec<String>,
}

impl Cx {
    /// A context without errors for a file in `base_dir`.
    pub fn new(base_dir: impl Into<PathBuf>) -> Self {
        Self { base_dir: base_dir.into(), ..Self::default() }
    }

    /// Notes a mistake at `node`, unless one is noted already.
    pub fn error(&mut self, node: &Node, problem: impl Into<String>) {
        if node.kind != NodeKind::Broken {
            self.error_at(node.line, problem);
        }
    }

    /// Notes a mistake at a line (0 = no place) below the current path.
    pub fn error_at(&mut self, line: usize, problem: impl Into<String>) {
        let error = self.placed(line, problem.into());
        self.errors.push(error);
    }

    /// Notes at `node` what is taken as it stands, and is hardly what is meant.
    pub fn warn(&mut self, node: &Node, problem: impl Into<String>) {
        let warning = self.placed(node.line, problem.into());
        self.warnings.push(warning);
    }

    fn placed(&self, line: usize, problem: String) -> ConfigError {
        ConfigError { line, path: self.path.concat(), problem: self.masks.apply(problem) }
    }

    /// Runs `f` one key deeper.
    pub fn in_key<T>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let segment = if self.path.is_empty() { key.to_owned() } else { format!(".{key}") };
        self.inside(segment, f)
    }

    /// Runs `f` one list item deeper.
    pub fn in_item<T>(&mut self, index: usize, f: impl FnOnce(&mut Self) -> T) -> T {
        self.inside(format!("[{index}]"), f)
    }

    fn inside<T>(&mut self, segment: String, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(segment);
        let out = f(self);
        self.path.pop();
        out
    }

    /// Opens a map; keys that stand twice are errors.
    pub fn map<'n>(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        let NodeKind::Map(entries) = &node.kind else {
            self.expected(node, "a map of keys");
            return None;
        };
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (key, line, _) in entries {
            if let Some(first) = seen.get(key.as_str()) {
                self.error_at(*line, format!("the key `{key}` stands already in line {first}"));
            } else {
                seen.insert(key, *line);
            }
        }
        Some(Fields::new(entries, node.line))
    }

    /// Reads a list, item by item; items that are wrong are left out.
    pub fn list<T>(
        &mut self,
        node: &Node,
        mut item: impl FnMut(&Node, &mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let NodeKind::Seq(items) = &node.kind else {
            self.expected(node, "a list");
            return None;
        };
        let read = |(i, node): (usize, &Node)| self.in_item(i, |cx| item(node, cx));
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    /// The same, but the list may not be empty.
    pub fn filled_list<T>(
        &mut self,
        node: &Node,
        item: impl FnMut(&Node, &mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(&node.kind, NodeKind::Seq(items) if items.is_empty()) {
            self.error(node, "the list is empty: at least one is needed");
            return None;
        }
        self.list(node, item)
    }

    /// What several places of a config have in common, and what outlives a reload: it is made by the first
    /// that asks for it by this key, in this generation of the config or the one before. So the key must say
    /// all that it is made of, what is in files that are read once included.
    pub fn shared<T: Any + Send + Sync>(
        &mut self,
        key: String,
        make: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Arc<T>> {
        let found = self.kept.get(&key).or_else(|| self.before.get(&key));
        let value = match found {
            Some(found) => found,
            None => Arc::new(make(self)?),
        };
        self.kept.put(key, value.clone());
        Some(value)
    }

    /// Has something read again when it changes; once, however many have it in common.
    pub fn look_after(&mut self, file: Arc<dyn Refresh>) {
        let same =
            |other: &Arc<dyn Refresh>| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&file));
        if !self.watched.iter().any(same) {
            self.watched.push(file);
        }
    }

    /// Reads files, now and whenever they change; what is wrong with them is noted at `node`. `by` says what
    /// the reader goes by besides their paths. What another place or the generation before has read by the
    /// same words is taken as it is now.
    pub fn watch<T: Send + Sync + 'static>(
        &mut self,
        node: &Node,
        paths: Vec<PathBuf>,
        by: &str,
        read: impl Fn(&[PathBuf]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Option<Arc<Watched<T>>> {
        self.watch_parts(node, paths, by, move |paths| read(paths).into())
    }

    /// The same by a reader that says itself what becomes of contents that are bad later on.
    pub fn watch_parts<T: Send + Sync + 'static>(
        &mut self,
        node: &Node,
        paths: Vec<PathBuf>,
        by: &str,
        read: impl Fn(&[PathBuf]) -> Found<T> + Send + Sync + 'static,
    ) -> Option<Arc<Watched<T>>> {
        let key = format!("file {} {by:?} {paths:?}", type_name::<T>());
        if let Some(known) = self.kept.get(&key).or_else(|| self.before.get::<Watched<T>>(&key)) {
            known.refresh();
            self.kept.put(key, known.clone());
            self.look_after(known.clone());
            return Some(known);
        }
        let masks = self.masks.clone();
        let names: Vec<String> = paths.iter().map(|path| masks.path(path)).collect();
        let read =
            move |paths: &[PathBuf]| read(paths).map_problems(|problem| masks.apply(problem));
        match Watched::named(names.join(", "), paths, read) {
            Ok(watched) => {
                self.kept.put(key, watched.clone());
                self.look_after(watched.clone());
                Some(watched)
            }
            Err(problems) => {
                problems.into_iter().for_each(|problem| self.error(node, problem));
                None
            }
        }
    }

    /// A text that is not empty.
    pub fn string(&mut self, node: &Node) -> Option<String> {
        self.parse(node, "a text", |text| match text {
            "" => Err("an empty text is nothing: leave the key out".to_owned()),
            text => Ok(text.to_owned()),
        })
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node) -> Option<bool> {
        self.typed(node, "`true` or `false`")
    }

    /// A whole number in a range.
    pub fn integer(&mut self, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let n: u64 = self.typed(node, &what)?;
        if !range.contains(&n) {
            self.expected(node, &what);
            return None;
        }
        Some(n)
    }

    /// A duration above zero and at most ten years, such as `15s`.
    pub fn period(&mut self, node: &Node) -> Option<Duration> {
        self.parse(node, "a duration such as `15s`", |text| match value::period(text)? {
            Duration::ZERO => Err(format!("`{text}` is no time at all: it must be above zero")),
            long if long > MAX_PERIOD => Err(format!("`{text}` is too long: at most `3650d`")),
            period => Ok(period),
        })
    }

    /// The same, or no time at all: `0s`.
    pub fn period_or_none(&mut self, node: &Node) -> Option<Duration> {
        if node.text().is_some_and(|text| value::period(text) == Ok(Duration::ZERO)) {
            return Some(Duration::ZERO);
        }
        self.period(node)
    }

    /// A size in bytes above zero, such as `4MiB`.
    pub fn byte_size(&mut self, node: &Node) -> Option<u64> {
        self.parse(node, "a size such as `4MiB`", |text| match value::byte_size(text)? {
            0 => Err(format!("`{text}` is nothing: it must be above zero")),
            size => Ok(size),
        })
    }

    /// An IP address with a port.
    pub fn address(&mut self, node: &Node) -> Option<SocketAddr> {
        self.parse(node, "an IP address with a port", |text| {
            text.parse().map_err(|_| {
                format!("`{text}` is not an IP address with a port, such as `127.0.0.1:8080`")
            })
        })
    }

    /// A path; relative ones are relative to the config file's folder.
    pub fn file(&mut self, node: &Node) -> Option<PathBuf> {
        let text = self.string(node)?;
        let path = self.base_dir.join(text);
        if let NodeKind::Scalar { written: Some(written), .. } = &node.kind {
            self.masks.file(&path, written, &self.base_dir);
        }
        Some(path)
    }

    /// A scalar read by `parse`. Its message is shown, unless the value was substituted: then it may
    /// be a secret, and only `what` was expected is said.
    pub fn parse<T>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let NodeKind::Scalar { text, written, .. } = &node.kind else {
            self.expected(node, what);
            return None;
        };
        match (parse(text), written) {
            (Ok(value), _) => return Some(value),
            (Err(problem), None) => self.error(node, problem),
            (Err(_), Some(_)) => self.expected(node, what),
        }
        None
    }

    /// Notes that something else was expected than what stands at `node`.
    pub fn expected(&mut self, node: &Node, what: &str) {
        self.error(node, format!("expected {what}, found {}", node.shown()));
    }

    /// A plain scalar by YAML's rules. Substituted text is no YAML and is read by Rust's.
    fn typed<T>(&mut self, node: &Node, what: &str) -> Option<T>
    where
        T: serde::de::DeserializeOwned + std::str::FromStr,
    {
        let value = match &node.kind {
            NodeKind::Scalar { text, written: Some(_), .. } => text.parse().ok(),
            NodeKind::Scalar { text, plain: true, .. } => serde_yaml::from_str(text).ok(),
            _ => None,
        };
        if value.is_none() {
            self.expected(node, what);
        }
        value
    }
}

/// Longer ones are mistakes, and their sums could overflow.
const MAX_PERIOD: Duration = Duration::from_secs(3650 * 86_400);

/// Longer values are cut in messages.
const SHOWN: usize = 80;

impl Node {
    /// How a message names the value; what was substituted is shown as it was written.
    pub fn shown(&self) -> String {
        match &self.kind {
            NodeKind::Null | NodeKind::Broken => "nothing".to_owned(),
            NodeKind::Scalar { text, plain, written } => {
                let text = written.as_ref().unwrap_or(text);
                let cut: String = text.chars().take(SHOWN).collect();
                let dots = if cut.len() < text.len() { "…" } else { "" };
                let quote = if *plain || written.is_some() { "" } else { "\"" };
                format!("`{quote}{cut}{dots}{quote}`")
            }
            NodeKind::Seq(_) => "a list".to_owned(),
            NodeKind::Map(_) => "a map".to_owned(),
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str, plain: bool, written: Option<&str>) -> Node {
        let kind =
            NodeKind::Scalar { text: text.into(), plain, written: written.map(str::to_owned) };
        Node { line: 3, kind }
    }

    #[test]
    fn a_substituted_value_is_never_shown() {
        let mut cx = Cx::new(".");
        let secret = scalar("hunter2", false, Some("${env:PW}"));
        assert_eq!(cx.period(&secret), None);
        assert_eq!(cx.boolean(&secret), None);
        assert_eq!(cx.integer(&secret, 1..=2), None);
        assert_eq!(cx.address(&secret), None);
        assert_eq!(cx.errors.len(), 4);
        for error in &cx.errors {
            assert!(!error.problem.contains("hunter2"), "{error}");
            assert!(error.problem.contains("${env:PW}"), "{error}");
        }
    }

    #[test]
    fn numbers_are_plain_or_substituted() {
        let mut cx = Cx::new(".");
        assert_eq!(cx.integer(&scalar("7", true, None), 1..=9), Some(7));
        assert_eq!(cx.integer(&scalar("7", false, Some("${env:N}")), 1..=9), Some(7));
        assert_eq!(cx.integer(&scalar("7", false, None), 1..=9), None);
        assert_eq!(cx.integer(&scalar("10", true, None), 1..=9), None);
        assert_eq!(cx.errors.len(), 2);
    }

    #[test]
    fn the_path_is_tracked() {
        let mut cx = Cx::new(".");
        cx.in_key("routes", |cx| {
            cx.in_item(2, |cx| cx.in_key("auth", |cx| cx.error_at(12, "wrong")));
        });
        cx.error_at(0, "at the top");
        let texts: Vec<_> = cx.errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["12: routes[2].auth: wrong", "at the top"]);
    }
}
