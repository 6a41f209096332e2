//! Challenges of ACME's HTTP-01 (RFC 8555 §8.3): in, a folder and a token; out, the file's content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Method};
use rustix::fs::{Mode, OFlags, open, openat};

use crate::base::denial::{Denial, Reason};

/// What paths of challenges begin with.
pub(super) const PATH: &str = "/.well-known/acme-challenge/";
/// Longer tokens are no tokens; they have 43 characters as a rule.
const MAX_TOKEN: usize = 128;
/// Larger files are no answers to challenges: those are a token and a hash.
const MAX_FILE: u64 = 1024;

/// The answer to a challenge, as a client of ACME has put it into one of the folders.
///
/// # Errors
/// 404 where there is none, 405.
pub(super) async fn answer(
    roots: &[PathBuf],
    token: &str,
    method: &Method,
) -> Result<Bytes, Denial> {
    if method != Method::GET && method != Method::HEAD {
        let not_served = "This method is not served";
        let denial = Denial::new(Reason::MethodNotAllowed, "acme.method", not_served);
        return Err(denial.field(ALLOW, HeaderValue::from_static("GET, HEAD")));
    }
    let unknown = |why: String| {
        Denial::new(Reason::NoRoute, "acme.unknown", "There is no such challenge").detail(why)
    };
    if !is_token(token) {
        return Err(unknown("no token".to_owned()));
    }
    let (roots, token) = (roots.to_owned(), token.to_owned());
    let reading = tokio::task::spawn_blocking(move || first(&roots, &token));
    match reading.await {
        Ok(Ok(content)) => Ok(content.into()),
        Ok(Err(e)) => Err(unknown(e.to_string())),
        Err(e) => Err(unknown(e.to_string())),
    }
}

/// RFC 8555 §8.3: base64url and nothing else, so that it is one name in one folder.
fn is_token(token: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(plain)
}

fn first(roots: &[PathBuf], token: &str) -> io::Result<Vec<u8>> {
    let mut found = Err(io::Error::other("no folder"));
    for root in roots {
        found = read(root, token);
        if found.is_ok() {
            break;
        }
    }
    found
}

/// Below the root no link is followed: whoever may write there could otherwise show any file of ours.
fn read(root: &Path, token: &str) -> io::Result<Vec<u8>> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = open(root, folder, Mode::empty())?;
    for name in [".well-known", "acme-challenge"] {
        at = openat(&at, name, folder | OFlags::NOFOLLOW, Mode::empty())?;
    }
    // not blocking: a pipe would never be opened
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&at, token, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no plain file"));
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other("too large for a challenge"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_tokens_are_looked_up() {
        for good in ["a", "-_", "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0", &"a".repeat(128)] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", ".", "..", "a.txt", "a/b", "a%2e", "ä", "a b", "a\0", "*", &"a".repeat(129)]
        {
            assert!(!is_token(bad), "{bad}");
        }
    }

    #[test]
    fn plain_small_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("www");
        let folder = root.join(".well-known/acme-challenge");
        fs::create_dir_all(&folder).unwrap();
        let get = |token: &str| read(&root, token).ok();
        fs::write(folder.join("good"), "good.print").unwrap();
        fs::write(folder.join("most"), "x".repeat(1024)).unwrap();
        fs::write(folder.join("large"), "x".repeat(1025)).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("../../../secret", folder.join("out")).unwrap();
        symlink("good", folder.join("in")).unwrap();
        fs::create_dir(folder.join("folder")).unwrap();
        let _socket = UnixListener::bind(folder.join("socket")).unwrap();
        assert_eq!(get("good").unwrap(), b"good.print");
        assert_eq!(get("most").unwrap().len(), 1024);
        for bad in ["large", "out", "in", "folder", "socket", "gone"] {
            assert_eq!(get(bad), None, "{bad}");
        }
        // a folder that is a link leads nowhere, either; the root may be one
        symlink(&root, dir.path().join("link")).unwrap();
        assert!(read(&dir.path().join("link"), "good").is_ok());
        fs::rename(&folder, dir.path().join("moved")).unwrap();
        symlink(dir.path().join("moved"), &folder).unwrap();
        assert_eq!(get("good"), None);
    }
}
