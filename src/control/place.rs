//! The control socket's place: in, a state folder; out, a socket that was bound there for its owner alone, or who has
//! it already.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

/// The socket's name in a draft's folder.
const DRAFT: &str = "s";

/// Where a socket was bound, as long as nobody else takes the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl Place {
    /// Binds a socket at `path`, in the place of one that nobody answers on.
    pub(super) async fn take(path: PathBuf) -> Result<(net::UnixListener, Self), String> {
        let named = |e: io::Error| format!("`{}` cannot be made: {e}", path.display());
        match UnixStream::connect(&path).await {
            Ok(other) => return Err(taken(&path, &other)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(e) => return Err(format!("`{}` cannot be asked: {e}", path.display())),
        }
        let to = path.clone();
        let bound = tokio::task::spawn_blocking(move || bind(&to)).await;
        let (socket, id) = bound.map_err(io::Error::other).flatten().map_err(named)?;
        Ok((socket, Self { path, id }))
    }

    /// Whether who asks there comes to us. Blocks its thread.
    pub(super) fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| id(&meta) == self.id)
    }
}

/// Who answers.
fn taken(path: &Path, other: &UnixStream) -> String {
    let pid = other.peer_cred().ok().and_then(|who| who.pid()).filter(|pid| *pid > 0);
    // 0: of another container, where its number says nothing
    let who = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    format!(
        "another edge{who} answers on `{}`; each needs a `state_dir` of its own",
        path.display()
    )
}

fn id(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Binds in a folder of our own, whose name is no longer than the socket's, and moves it from there: nobody else can
/// reach it before its mode is right.
fn bind(path: &Path) -> io::Result<(net::UnixListener, (u64, u64))> {
    let folder = path.with_file_name(format!(".{}", std::process::id()));
    let draft = folder.join(DRAFT);
    let clear = || match fs::remove_file(&draft).and_then(|()| fs::remove_dir(&folder)) {
        Err(e) if e.kind() == ErrorKind::NotFound => match fs::remove_dir(&folder) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        },
        cleared => cleared,
    };
    // where nothing else has to be kept, nobody has made it
    if let Some(state) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    }
    // of a process that had our number, and died at it
    clear()?;
    DirBuilder::new().mode(0o700).create(&folder)?;
    let bound = net::UnixListener::bind(&draft).and_then(|socket| {
        fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        let id = id(&fs::symlink_metadata(&draft)?);
        fs::rename(&draft, path)?;
        Ok((socket, id))
    });
    let cleared = clear();
    let bound = bound?;
    cleared.map(|()| bound)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn nobody_else_can_reach_it_at_any_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let drafts = folder.path().join(format!(".{}", std::process::id()));
        let mode =
            |path: &Path| Some(fs::symlink_metadata(path).ok()?.permissions().mode() & 0o777);
        let (done, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut open = Vec::new();
                while !done.load(Ordering::Acquire) {
                    let Some(draft) = mode(&drafts.join(DRAFT)) else { continue };
                    seen.fetch_add(1, Ordering::AcqRel);
                    // it may have moved on by now
                    let closed = mode(&drafts).is_none_or(|mode| mode & 0o077 == 0);
                    if draft != 0o600 && !closed {
                        open.push(draft);
                    }
                }
                open
            });
            while seen.load(Ordering::Acquire) < 500 {
                bind(&path).unwrap();
                assert_eq!(mode(&path), Some(0o600));
            }
            done.store(true, Ordering::Release);
            assert_eq!(looking.join().unwrap(), Vec::<u32>::new());
        });
    }

    #[test]
    fn what_a_dead_process_has_left_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let left = folder.path().join(format!(".{}", std::process::id()));
        for with_socket in [true, false] {
            fs::create_dir(&left).unwrap();
            if with_socket {
                fs::write(left.join(DRAFT), "").unwrap();
            }
            bind(&path).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no drafts are left");
        }
    }
}
