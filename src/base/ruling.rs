//! Which rule of the config has decided on a caller or a call: in, where it stands; out, the words that an operator
//! finds it by.

use std::fmt;

/// A rule that has let somebody pass, or has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    key: Key,
    line: u32,
}

/// The key of the config that it stands under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Scopes of tokens; the line is that of their method.
    OAuth,
    /// Conditions on callers.
    Require,
    /// A list of tools; the line is that of the one that fits, or of the list where none does.
    Tools,
}

impl Ruling {
    /// Of the rule in that line.
    pub fn new(key: Key, line: usize) -> Self {
        Self { key, line: u32::try_from(line).unwrap_or(u32::MAX) }
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.key {
            Key::OAuth => "oauth",
            Key::Require => "require",
            Key::Tools => "tools",
        };
        write!(f, "{key}, line {}", self.line)
    }
}
