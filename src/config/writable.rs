//! What the edge will have to write: in, settings; out, which of it the user who asks may not, found without writing.

use std::fs;
use std::mem;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{AccessLog, KeysFrom, Settings};
use crate::acme::store::Store;
use crate::base::compile::ConfigError;
use crate::observe::audit::{AuditSettings, To};

/// What cannot be written.
#[derive(Debug, Default)]
pub struct Unwritable {
    /// What `run` would not start without.
    pub errors: Vec<ConfigError>,
    /// What it would go without.
    pub notes: Vec<String>,
}

/// Looks at the state folder and the files of logs.
pub fn unwritable(settings: &Settings) -> Unwritable {
    let mut found = look(settings);
    let masked = |problem: &mut String| *problem = settings.masks.apply(mem::take(problem));
    found.errors.iter_mut().for_each(|error| masked(&mut error.problem));
    found.notes.iter_mut().for_each(masked);
    found
}

fn look(settings: &Settings) -> Unwritable {
    let mut found = Unwritable::default();
    if let Err(problem) = folder(&settings.state_dir) {
        if needs_state(settings) {
            found.refuse("state_dir", problem);
        } else {
            found.notes.push(format!(
                "state_dir: {problem}; the edge cannot be asked for `reload`, `upgrade` and `status`"
            ));
        }
    }
    if let AccessLog::File(path) = &settings.access_log
        && let Err(problem) = file(path)
    {
        found.refuse("access_log", problem);
    }
    if let Some(AuditSettings { to: To::File(path), .. }) = &settings.audit
        && let Err(problem) = file(path)
    {
        found.refuse("audit.to", problem);
    }
    found
}

impl Unwritable {
    fn refuse(&mut self, path: &str, problem: String) {
        self.errors.push(ConfigError { line: 0, path: path.to_owned(), problem });
    }
}

/// Whether there is something that the first start has to put into the state folder.
fn needs_state(settings: &Settings) -> bool {
    let store = Store::new(&settings.state_dir);
    let reserved = settings.acme.iter().all(|acme| store.certificate(acme.name()).exists());
    !reserved || matches!(settings.session_keys_from, KeysFrom::NotYet(_))
}

/// Whether files can be made in a folder, or where it is not there, the folder itself.
fn folder(path: &Path) -> Result<(), String> {
    let there = path.ancestors().map(or_here).find(|path| fs::symlink_metadata(path).is_ok());
    let Some(there) = there else { return Ok(()) };
    if !there.is_dir() {
        return Err(format!("`{}` is no folder", there.display()));
    }
    may(there, Access::WRITE_OK | Access::EXEC_OK)
}

/// Whether lines can be appended to a file, or where it is not there, it can be made.
fn file(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(_) => may(path, Access::WRITE_OK),
        Err(_) => folder(or_here(path.parent().unwrap_or(Path::new("")))),
    }
}

fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn may(path: &Path, access: Access) -> Result<(), String> {
    accessat(CWD, path, access, AtFlags::EACCESS).map_err(|e| {
        let uid = rustix::process::geteuid().as_raw();
        let e = std::io::Error::from(e);
        format!("`{}` cannot be written by user {uid}, who checks: {e}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_looked_at_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a-file"), "").unwrap();
        assert_eq!((folder(dir.path()), folder(&at("x/y/z"))), (Ok(()), Ok(())));
        assert_eq!((file(&at("a-file")), file(&at("none"))), (Ok(()), Ok(())));
        assert_eq!((folder(Path::new("gone")), file(Path::new("gone"))), (Ok(()), Ok(())));
        for below in ["a-file", "a-file/x", "a-file/x/y"] {
            let problem = folder(&at(below)).unwrap_err();
            assert!(problem.contains("a-file` is no folder"), "{problem}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
