//! Small files: in, a path; out, its content, bounded, or a sentence that names it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Longer files are refused, in bytes: certificates and secrets are small.
pub const MAX_FILE: u64 = 1 << 20;

/// Reads a whole file.
///
/// # Errors
/// A sentence that names the file.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_up_to(path, MAX_FILE)
}

/// The same for files that may be larger than most; `limit` in whole MiB.
///
/// # Errors
/// A sentence that names the file.
pub fn read_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    read_some(open(path)?.ok_or_else(|| failed(path, &not_found()))?, path, limit)
}

/// Text of at most `limit` bytes, in whole MiB, from wherever an operator points to on a command line, such as a pipe:
/// whoever waits there sees it.
///
/// # Errors
/// A sentence that names the file.
pub fn read_text_from_anywhere(path: &Path, limit: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|e| failed(path, &e))?;
    text(read_some(file, path, limit)?, path)
}

/// Opens a regular file; `None` where there is nothing. Whatever else has come into its place is not
/// waited for: a pipe that nobody writes into would hold up the thread for ever.
///
/// # Errors
/// A sentence that names the file.
pub fn open(path: &Path) -> Result<Option<File>, String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(failed(path, &e.into())),
    };
    // asked of the open file, so that nothing can be put in its place in between
    let meta = file.metadata().map_err(|e| failed(path, &e))?;
    if !meta.is_file() {
        return Err(format!("`{}` is not a regular file", path.display()));
    }
    Ok(Some(file))
}

fn not_found() -> io::Error {
    rustix::io::Errno::NOENT.into()
}

/// The same for UTF-8 text.
///
/// # Errors
/// A sentence that names the file.
pub fn read_text(path: &Path) -> Result<String, String> {
    text(read(path)?, path)
}

/// Reads what is left of an open file.
///
/// # Errors
/// A sentence that names the file.
pub fn read_open(file: File, path: &Path) -> Result<Vec<u8>, String> {
    read_some(file, path, MAX_FILE)
}

fn read_some(file: File, path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| failed(path, &e))?;
    if bytes.len() as u64 > limit {
        return Err(format!("`{}` has more than {} MiB", path.display(), limit >> 20));
    }
    Ok(bytes)
}

/// Bytes of a file as UTF-8.
///
/// # Errors
/// A sentence that names the file.
pub fn text(bytes: Vec<u8>, path: &Path) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8 text", path.display()))
}

/// How messages say that a file cannot be read.
pub fn failed(path: &Path, error: &io::Error) -> String {
    format!("cannot read `{}`: {error}", path.display())
}

/// Whether a file could stand at `path`: its folder is there, and it is none itself.
///
/// # Errors
/// A sentence.
pub fn place_for(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(format!("there is no folder `{}`", folder.display()));
    }
    if path.is_dir() { Err(format!("`{}` is a folder", path.display())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::from_bits_truncate(0o600)).unwrap();
        for path in [fifo.as_path(), dir.path(), Path::new("/dev/null")] {
            let problem = read(path).unwrap_err();
            assert_eq!(problem, format!("`{}` is not a regular file", path.display()));
        }
        let gone = read(&dir.path().join("gone")).unwrap_err();
        assert!(gone.ends_with("gone`: No such file or directory (os error 2)"), "{gone}");
        let file = dir.path().join("file");
        std::fs::write(&file, "some").unwrap();
        assert_eq!(read(&file).unwrap(), b"some");
        assert_eq!(read_text_from_anywhere(&file, MAX_FILE).unwrap(), "some");
    }
}
