//! Messages without secrets: in, values that were substituted and a sentence; out, the sentence with what
//! was written in their place.
//!
//! Messages quote what they name: `` `…` ``. What stands so and came from `${env:…}` or `${file:…}`, alone or as
//! a part of a value, is named by where it came from.

use std::fmt;
use std::path::Path;

/// Shorter values are no secrets, and stand in messages by chance.
const SHORTEST: usize = 4;

/// What must not be shown, and what is shown in its place.
#[derive(Clone, Default)]
pub struct Masks {
    values: Vec<(String, String)>,
    files: Vec<(String, String)>,
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks").finish_non_exhaustive()
    }
}

impl Masks {
    /// Hides a value; `written` is what stands in the config.
    pub fn value(&mut self, value: &str, written: &str) {
        if value.len() >= SHORTEST {
            self.values.push((value.to_owned(), written.to_owned()));
        }
    }

    /// Hides a path, what is below it, and its folder, unless that is the config's own.
    pub fn file(&mut self, path: &Path, written: &str, base: &Path) {
        if let Some(folder) = path.parent().filter(|folder| *folder != base) {
            let named = match written.rsplit_once('/') {
                // a slash within `${…}` is another file's
                Some((folder, name)) if !name.contains('}') => folder.to_owned(),
                _ => format!("{written}/.."),
            };
            self.files.push((folder.display().to_string(), named));
        }
        self.files.push((path.display().to_string(), written.to_owned()));
    }

    /// The sentence as it may be shown.
    pub fn apply(&self, text: String) -> String {
        if self.values.is_empty() && self.files.is_empty() {
            return text;
        }
        let (mut out, mut rest) = (String::new(), text.as_str());
        while let Some((before, quoted)) = rest.split_once('`')
            && let Some((part, after)) = quoted.split_once('`')
        {
            out.push_str(before);
            out.push('`');
            out.push_str(self.shown(part).as_deref().unwrap_or(part));
            out.push('`');
            rest = after;
        }
        out + rest
    }

    /// A path as a message names it where it stands alone.
    pub fn path(&self, path: &Path) -> String {
        let text = path.display().to_string();
        self.shown(&text).unwrap_or(text)
    }

    /// What stands for a quoted part.
    fn shown(&self, part: &str) -> Option<String> {
        for (path, written) in self.files.iter().rev() {
            match part.strip_prefix(path.as_str()) {
                Some("") => return Some(written.clone()),
                Some(below) if below.starts_with('/') && path != "/" => {
                    return Some(format!("{written}{below}"));
                }
                _ => {}
            }
        }
        let same = |value: &str| value.eq_ignore_ascii_case(part);
        self.values.iter().find(|(value, _)| same(value)).map(|(_, written)| written.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks() -> Masks {
        let mut masks = Masks::default();
        masks.value("Hunter22", "${env:PW}");
        masks.value("abc", "${env:SHORT}");
        masks.file(Path::new("/a/hunter2/users"), "${env:DIR}/users", Path::new("/etc"));
        masks.file(Path::new("/b/users"), "${file:/x}", Path::new("/etc"));
        masks.file(Path::new("/etc/hunter3"), "${env:F}", Path::new("/etc"));
        masks
    }

    #[test]
    fn what_was_substituted_is_named_by_its_source() {
        for (text, shown) in [
            ("cannot read `/etc/hunter3`: gone", "cannot read `${env:F}`: gone"),
            ("`/a/hunter2/users`: line 3", "`${env:DIR}/users`: line 3"),
            ("no folder `/a/hunter2`", "no folder `${env:DIR}`"),
            ("no folder `/b`", "no folder `${file:/x}/..`"),
            ("`/etc/hunter3/x` is", "`${env:F}/x` is"),
            ("the name `hunter22` stands twice", "the name `${env:PW}` stands twice"),
        ] {
            assert_eq!(masks().apply(text.to_owned()), shown);
        }
        assert_eq!(masks().path(Path::new("/etc/hunter3")), "${env:F}");
        assert!(!format!("{:?}", masks()).to_lowercase().contains("hunter"));
    }

    #[test]
    fn all_else_is_left_alone() {
        for text in ["`/etc` and `/etc/hunter33`", "`abc`", "an open `quote", "Hunter22", "", "``"]
        {
            assert_eq!(masks().apply(text.to_owned()), text);
        }
    }
}
