//! What an import did not carry to the letter: in, directives and reasons; out, lines for people.

use std::fmt;

use super::nginx::{At, Directive};
use super::words::{Class, class};
use crate::base::text::one_line;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Restricts, or serves, and could not be carried: the routes under it refuse.
    Refused,
    /// Carried, but not to the letter.
    Differs,
    /// Left out, and nobody is let in by that.
    Dropped,
}

impl Weight {
    /// As lines show it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Differs => "differs",
            Self::Dropped => "dropped",
        }
    }
}

/// One thing that was not carried to the letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where it stands.
    pub at: At,
    /// How much it matters.
    pub weight: Weight,
    /// The directive, without what may be secret in it.
    pub what: String,
    /// Why, or what is different.
    pub why: String,
}

/// `nginx.conf:12: refused: satisfy any: why`
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.at, self.weight.word(), self.what, self.why)
    }
}

/// Collects notes; what is noted twice stands once.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    pub(super) fn refused(&mut self, directive: &Directive, why: impl Into<String>) {
        self.add(directive, Weight::Refused, why);
    }

    pub(super) fn differs(&mut self, directive: &Directive, why: impl Into<String>) {
        self.add(directive, Weight::Differs, why);
    }

    pub(super) fn dropped(&mut self, directive: &Directive, why: impl Into<String>) {
        self.add(directive, Weight::Dropped, why);
    }

    fn add(&mut self, directive: &Directive, weight: Weight, why: impl Into<String>) {
        let at = directive.at.clone();
        let note = Note { at, weight, what: shown(directive), why: why.into() };
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    /// In the order of the files.
    pub(super) fn sorted(mut self) -> Vec<Note> {
        self.0.sort();
        self.0
    }
}

/// Longer directives are cut.
const SHOWN: usize = 80;

/// A directive as notes name it. Arguments that may hold a secret are left out: conditions compare
/// with keys, and header values and variables may be credentials.
pub(super) fn shown(directive: &Directive) -> String {
    let safe = match (directive.name.as_str(), class(&directive.name)) {
        ("if" | "proxy_set_header" | "add_header" | "set" | "satisfy", _) => 1,
        (_, Class::Carried) => usize::MAX,
        (_, Class::Harmless(_)) => 3,
        (_, Class::Restricting { .. } | Class::Unknown) => 0,
    };
    let mut text = directive.name.clone();
    for arg in directive.args.iter().take(safe) {
        text.push(' ');
        text.push_str(arg);
    }
    let clean = one_line(&text.replace(char::is_whitespace, " "));
    let cut: String = clean.chars().take(SHOWN).collect();
    let dots = if cut.len() < clean.len() || safe < directive.args.len() { " …" } else { "" };
    format!("`{cut}{dots}`")
}
