//! Patterns of names: in, nodes of the config; out, whether a text is as one of them says.
//!
//! `*` stands for any text, also none, and `?` for one character; upper and lower case differ. There is
//! no way to mean the signs themselves.

use wildmatch::WildMatch;

use super::compile::{Cx, Node};

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;

/// A list of patterns. An empty one fits nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Globs(Vec<WildMatch>);

impl Globs {
    /// These patterns.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Self {
        Self(patterns.into_iter().map(WildMatch::new).collect())
    }

    /// Reads a list that is not empty and holds no pattern twice.
    pub fn compile(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut seen: Vec<String> = Vec::new();
        let patterns = cx.filled_list(node, |node, cx| {
            let pattern = cx.parse(node, "a text", pattern)?;
            if seen.contains(&pattern) {
                cx.error(node, format!("`{pattern}` stands in this list already"));
            }
            seen.push(pattern.clone());
            Some(WildMatch::new(&pattern))
        });
        patterns.map(Self)
    }

    /// Whether one of the patterns fits the whole text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(text))
    }

    /// Whether every text fits.
    pub fn takes_all(&self) -> bool {
        self.0.iter().any(|glob| glob.pattern_chars() == ['*'])
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(WildMatch::pattern)
    }

    /// Whether whatever fits this pattern surely fits one of the list. A pattern without `?` that fits
    /// another one's text takes each sign of it as any other character.
    pub fn cover(&self, pattern: &str) -> bool {
        self.0.iter().any(|glob| {
            glob.pattern_chars() == ['*']
                || glob.pattern() == pattern
                || !glob.pattern_chars().contains(&'?') && glob.matches(pattern)
        })
    }
}

/// Checks one pattern.
fn pattern(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("an empty text is nothing: leave it out".to_owned()),
        1..=MAX_PATTERN => Ok(text.to_owned()),
        _ => Err(format!("at most {MAX_PATTERN} bytes are possible")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule itself, as slow as it is short.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                fits(rest, text) || matches!(text, [_, more @ ..] if fits(pattern, more))
            }
            ([p, rest @ ..], [t, more @ ..]) => (*p == '?' || p == t) && fits(rest, more),
            _ => false,
        }
    }

    #[test]
    fn patterns_are_whole_and_exact() {
        let globs = Globs::new(["get_*", "a?c", "x"]);
        for yes in ["get_", "get_x", "abc", "aéc", "x"] {
            assert!(globs.matches(yes), "{yes}");
        }
        for no in ["", "Get_x", "forget_x", "ac", "abbc", "xx", "X"] {
            assert!(!globs.matches(no), "{no}");
        }
        assert!(!Globs::default().matches("") && !Globs::default().takes_all());
        assert!(Globs::new(["a", "**"]).takes_all() && !Globs::new(["?*"]).takes_all());
    }

    proptest! {
        #[test]
        fn it_is_the_rule(pattern in "[ab*?é]{0,7}", text in "[abé*]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Globs::new([pattern.as_str()]).matches(&text), fits(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn what_is_covered_fits(wide in "[ab*?]{1,4}", narrow in "[ab*?]{1,4}", text in "[ab]{0,6}") {
            let wide = Globs::new([wide.as_str()]);
            if wide.cover(&narrow) && Globs::new([narrow.as_str()]).matches(&text) {
                prop_assert!(wide.matches(&text));
            }
        }
    }
}
