//! Small files: in, a path; out, its content, bounded, or a sentence that names it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longer files are refused, in bytes: configs, certificates and secrets are small.
pub const MAX_FILE: u64 = 1 << 20;

/// Reads a whole file.
///
/// # Errors
/// A sentence that names the file.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|e| failed(path, &e))?;
    read_open(file, path)
}

/// The same for UTF-8 text.
///
/// # Errors
/// A sentence that names the file.
pub fn read_text(path: &Path) -> Result<String, String> {
    text(read(path)?, path)
}

/// The same for files that may be larger: `most` is in MiB.
///
/// # Errors
/// A sentence that names the file.
pub fn read_large_text(path: &Path, most: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|e| failed(path, &e))?;
    text(read_bounded(file, path, most)?, path)
}

/// Reads what is left of an open file.
///
/// # Errors
/// A sentence that names the file.
pub fn read_open(file: File, path: &Path) -> Result<Vec<u8>, String> {
    read_bounded(file, path, MAX_FILE >> 20)
}

fn read_bounded(file: File, path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take((most << 20) + 1).read_to_end(&mut bytes).map_err(|e| failed(path, &e))?;
    if bytes.len() as u64 > most << 20 {
        return Err(format!("`{}` has more than {most} MiB", path.display()));
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
