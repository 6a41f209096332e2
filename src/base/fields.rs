//! The keys of one map: in, a map of the config; out, values by name, and an error for every other key.

use super::compile::{Cx, Node, NodeKind};

/// Takes a map's values by name; [`Fields::finish`] reports the keys that nobody took.
#[must_use]
pub struct Fields<'n> {
    entries: &'n [(String, usize, Node)],
    line: usize,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Made by [`Cx::map`].
    pub(super) fn new(entries: &'n [(String, usize, Node)], line: usize) -> Self {
        Self { entries, line, known: Vec::new() }
    }

    /// The value of a key, which is known from now on.
    pub fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        self.entries.iter().find(|(name, ..)| name == key).map(|(.., node)| node)
    }

    /// The value of a key that must be there.
    pub fn required<T>(
        &mut self,
        cx: &mut Cx,
        key: &'static str,
        read: impl FnOnce(&'n Node, &mut Cx) -> Option<T>,
    ) -> Option<T> {
        if let Some(node) = self.take(key) {
            return cx.in_key(key, |cx| read(node, cx));
        }
        cx.error_at(self.line, format!("the key `{key}` is missing"));
        None
    }

    /// The value of a key that may be absent; also `None` when it is wrong.
    pub fn optional<T>(
        &mut self,
        cx: &mut Cx,
        key: &'static str,
        read: impl FnOnce(&'n Node, &mut Cx) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(key)?;
        cx.in_key(key, |cx| read(node, cx))
    }

    /// The value of a key with a default, which also stands in for a wrong value.
    pub fn or<T>(
        &mut self,
        cx: &mut Cx,
        key: &'static str,
        default: T,
        read: impl FnOnce(&'n Node, &mut Cx) -> Option<T>,
    ) -> T {
        self.optional(cx, key, read).unwrap_or(default)
    }

    /// Reports every key that was not asked for, with the nearest that was.
    pub fn finish(self, cx: &mut Cx) {
        for (key, line, _) in self.entries {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            cx.error_at(*line, format!("unknown key `{key}`{}", hint(key, &self.known)));
        }
    }
}

/// One of several things by its name, `what` for messages: one word, or one word with its settings below.
pub fn named<'n>(node: &'n Node, what: &str, cx: &mut Cx) -> Option<(&'n str, Option<&'n Node>)> {
    match &node.kind {
        NodeKind::Scalar { text, .. } => return Some((text, None)),
        NodeKind::Map(entries) => match entries.as_slice() {
            [(name, _, settings)] => return Some((name, Some(settings))),
            _ => {
                cx.error(node, format!("a {what} is one word, or one word with its settings below"))
            }
        },
        _ => cx.expected(node, &format!("the name of a {what}")),
    }
    None
}

/// `; did you mean …?` where a name is near, else `; known are: …`.
pub fn hint(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known are: {}", known.join(", ")),
    }
}

/// The name that was probably meant.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    let distance = |name: &&str| strsim::damerau_levenshtein(&word, &name.to_lowercase());
    let near = known.iter().copied().min_by_key(distance)?;
    let allowed = 1 + near.len().min(word.len()) / 4;
    (distance(&near) <= allowed).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["listeners", "upstreams", "routes"];
        assert_eq!(nearest("listners", &known), Some("listeners"));
        assert_eq!(nearest("Routes", &known), Some("routes"));
        assert_eq!(nearest("upstream", &known), Some("upstreams"));
        assert_eq!(nearest("banana", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
