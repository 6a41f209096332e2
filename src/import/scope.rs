//! Inheritance: in, the levels around a place, outermost first; out, what holds there.
//!
//! nginx's rule for lists (`add_header`, `proxy_set_header`, `allow` …): the nearest level that has one of them
//! gives them all. For single values that is the same rule.

use std::path::{Path, PathBuf};

use super::nginx::Directive;
use super::note::Notes;
use super::words::{Class, class};

/// The levels around a place: `http`, `server`, `location` and locations within it.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope<'t> {
    levels: Vec<&'t [Directive]>,
    /// What relative paths are relative to.
    folder: PathBuf,
}

impl<'t> Scope<'t> {
    /// One level further in.
    pub(super) fn inside(&self, level: &'t [Directive]) -> Self {
        let mut levels = self.levels.clone();
        levels.push(level);
        Self { levels, folder: self.folder.clone() }
    }

    /// No level yet; relative paths are relative to `folder`.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { levels: Vec::new(), folder: folder.to_owned() }
    }

    /// A path of nginx's config as the edge's config has to write it.
    pub(super) fn path(&self, text: &str) -> String {
        self.folder.join(text).display().to_string()
    }

    /// The last directive of this name on the nearest level that has one.
    pub(super) fn last(&self, name: &str) -> Option<&'t Directive> {
        self.all(name).last().copied()
    }

    /// All directives of this name on the nearest level that has one.
    pub(super) fn all(&self, name: &str) -> Vec<&'t Directive> {
        self.any(&[name])
    }

    /// The same for lists that several names make, in their order.
    pub(super) fn any(&self, names: &[&str]) -> Vec<&'t Directive> {
        let of = |level: &&'t [Directive]| -> Vec<&'t Directive> {
            level.iter().filter(|d| names.contains(&d.name.as_str())).collect()
        };
        self.levels.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The innermost level.
    pub(super) fn own(&self) -> &'t [Directive] {
        self.levels.last().copied().unwrap_or_default()
    }

    /// Whether the word of a switch is `on`.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|d| d.arg(0) == "on")
    }

    /// What stands over this place, restricts, and cannot be carried.
    pub(super) fn refusals(&self) -> Vec<&'t Directive> {
        let all = self.levels.iter().flat_map(|level| level.iter());
        all.filter(|directive| match class(&directive.name) {
            Class::Carried | Class::Harmless(_) => false,
            Class::Restricting { off, .. } => {
                let near = self.last(&directive.name);
                near.is_some_and(|near| std::ptr::eq(near, *directive))
                    && (off.is_empty() || directive.arg(0) != off)
            }
            Class::Unknown => true,
        })
        .collect()
    }
}

/// Notes everything below these directives that no converter reads.
pub(super) fn audit(directives: &[Directive], notes: &mut Notes) {
    for directive in directives {
        match class(&directive.name) {
            Class::Carried
                if matches!(directive.name.as_str(), "http" | "events" | "server" | "location") =>
            {
                audit(directive.inner(), notes);
            }
            Class::Carried => {}
            Class::Harmless(why) => notes.dropped(directive, why),
            Class::Restricting { off, .. } if directive.arg(0) == off && !off.is_empty() => {}
            Class::Restricting { why, .. } => notes.refused(directive, why),
            Class::Unknown if matches!(directive.name.as_str(), "stream" | "mail") => {
                notes.dropped(directive, "the edge speaks HTTP only");
            }
            Class::Unknown => {
                notes.refused(directive, "not known here, and so it may be a restriction");
            }
        }
    }
}
