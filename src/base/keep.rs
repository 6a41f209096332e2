//! Files of our own in the state folder: in, a name and its content; out, a private file, whole or not at all.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::files;

/// Reads a file that only its owner can read; `None` where there is none.
///
/// # Errors
/// A sentence that names the file.
pub fn read_private(path: &Path) -> Result<Option<String>, String> {
    let Some(file) = files::open(path)? else { return Ok(None) };
    let meta = file.metadata().map_err(|e| files::failed(path, &e))?;
    let mode = meta.permissions().mode() & 0o777;
    let shown = path.display();
    if mode & 0o077 != 0 {
        return Err(format!("`{shown}` can be read by others (mode {mode:04o}): set it to 0600"));
    }
    files::text(files::read_open(file, path)?, path).map(Some)
}

/// Creates a private file, unless it is there already: whoever comes second changes nothing.
///
/// # Errors
/// A sentence that names the file.
pub fn create_private(path: &Path, content: &str) -> Result<(), String> {
    let linked = with_draft(path, content, |draft| match fs::hard_link(draft, path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    linked.map_err(|e| format!("cannot create `{}`: {e}", path.display()))
}

/// Creates a private file or puts it in the place of what was there.
///
/// # Errors
/// A sentence that names the file.
pub fn replace_private(path: &Path, content: &str) -> Result<(), String> {
    with_draft(path, content, |draft| fs::rename(draft, path))
        .map_err(|e| format!("cannot write `{}`: {e}", path.display()))
}

/// Writes the content to a new file beside `path`, then lets `place` put it there in one step.
fn with_draft(
    path: &Path,
    content: &str,
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = draft_name(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    // a strange umask must not make it unreadable for ourselves
    let written = file
        .set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(content.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| place(&draft));
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != ErrorKind::NotFound => written.and(Err(e)),
        _ => written,
    }
}

fn draft_name(path: &Path) -> io::Result<PathBuf> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{random:016x}.new"));
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state/key");
        assert_eq!(read_private(&path).unwrap(), None);
        create_private(&path, "one").unwrap();
        create_private(&path, "two").unwrap();
        assert_eq!(read_private(&path).unwrap().as_deref(), Some("one"));
        replace_private(&path, "three").unwrap();
        assert_eq!(read_private(&path).unwrap().as_deref(), Some("three"));
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_private(&path, "one").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(read_private(&path).unwrap_err().contains("mode 0640"));
    }
}
