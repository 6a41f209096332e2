//! New files of the audit log: in, how large and how old one may become; out, the old one under another name.
//!
//! Names carry the time at which a file was full. No file is ever written over, and none is removed but by
//! `keep`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::base::text::push_time;
use crate::observe::sink::Sink;

/// When a file could not be renamed, it is tried again after this time.
const PAUSE: Duration = Duration::from_secs(60);
/// Most files of one moment.
const MOST: usize = 1000;

/// When a new file is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Before a file would grow beyond so many bytes.
    pub size: Option<u64>,
    /// When it is as old as this, and there is a line to write.
    pub age: Option<Duration>,
    /// How many old ones are kept; all where absent.
    pub keep: Option<usize>,
}

/// Turns files.
#[derive(Debug)]
pub(super) struct Turner {
    rotation: Rotation,
    path: PathBuf,
    failed: Option<Instant>,
    /// The moment of the last one, and how many there were in it.
    last: (String, usize),
}

impl Turner {
    pub(super) fn new(rotation: Rotation, path: PathBuf) -> Self {
        Self { rotation, path, failed: None, last: Default::default() }
    }

    /// Renames the file that is open where it is time to; whether it did.
    pub(super) fn turn(&mut self, sink: &Sink) -> bool {
        if self.failed.is_some_and(|at| at.elapsed() < PAUSE) || !self.is_due(sink) {
            return false;
        }
        if !self.is_ours(sink) {
            // another process of this edge has turned it: its new file is not to be renamed
            return true;
        }
        match self.rename() {
            Ok(old) => {
                log::info!(
                    "the audit log goes on in a new file; the old one is `{}`",
                    old.display()
                );
                self.failed = None;
                self.prune();
                true
            }
            Err(e) => {
                let path = self.path.display();
                log::error!("the audit log `{path}` cannot be renamed, and grows on: {e}");
                self.failed = Some(Instant::now());
                false
            }
        }
    }

    /// Whether the file that is open is the one at the path.
    fn is_ours(&self, sink: &Sink) -> bool {
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let there = fs::metadata(&self.path).ok().map(id);
        there.is_some() && there == sink.metadata().map(id)
    }

    fn is_due(&self, sink: &Sink) -> bool {
        let Some(meta) = sink.metadata().filter(|meta| meta.is_file() && meta.len() > 0) else {
            return false;
        };
        let large = self.rotation.size.is_some_and(|most| meta.len() >= most);
        // file systems without a time of birth: never too early
        let born = meta.created().or_else(|_| meta.modified()).ok();
        let age = born.and_then(|born| SystemTime::now().duration_since(born).ok());
        large || self.rotation.age.zip(age).is_some_and(|(most, age)| age >= most)
    }

    /// Gives it the name of a file that is not there.
    fn rename(&mut self) -> io::Result<PathBuf> {
        let mut time = Vec::new();
        push_time(SystemTime::now(), &mut time);
        let time: String = String::from_utf8_lossy(&time).replace(['-', ':'], "");
        // the first of them may be gone by now, and its name would be in the wrong place
        let first = if self.last.0 == time { self.last.1 } else { 0 };
        for nth in first..MOST {
            let more = if nth == 0 { String::new() } else { format!("-{nth:03}") };
            let to = named(&self.path, &format!("{time}{more}"));
            // one process writes a log: nobody takes the name in between
            if !to.try_exists()? {
                fs::rename(&self.path, &to)?;
                self.last = (time, nth + 1);
                return Ok(to);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes the oldest beyond those that are kept.
    fn prune(&self) {
        let Some(keep) = self.rotation.keep else { return };
        let old = turned(&self.path);
        for path in old.iter().take(old.len().saturating_sub(keep)) {
            if let Err(e) = fs::remove_file(path) {
                log::error!("the old audit log `{}` cannot be removed: {e}", path.display());
            }
        }
    }
}

fn named(path: &Path, time: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(time);
    name.into()
}

/// The files that were turned, the oldest first: their names are in the order of time.
fn turned(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let ours = |entry: &fs::DirEntry| {
        let other = entry.file_name();
        let rest = other.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.'));
        rest.is_some_and(is_time)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.filter(ours).map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// `20261121T030405.678Z`, with a number behind it or not.
fn is_time(text: &str) -> bool {
    let shape = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
    };
    matches!(shape(text).as_str(), "00000000T000000.000Z" | "00000000T000000.000Z-000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sink::Place;

    #[test]
    fn only_files_that_were_turned_are_removed_and_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let others = [
            "audit.log",
            "audit.log.1",
            "audit.log.20261121T000000.000Z.gz",
            "x.20261121T000000.000Z",
        ];
        let old = ["20251121T000000.000Z", "20261121T000000.000Z", "20261121T000000.000Z-001"];
        for name in others {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        for time in old {
            fs::write(named(&path, time), "x").unwrap();
        }
        let rotation = Rotation { size: Some(1), age: None, keep: Some(1) };
        Turner::new(rotation, path.clone()).prune();
        assert_eq!(turned(&path), [named(&path, old[2])]);
        for name in others {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_file_that_another_process_has_turned_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let open = || Sink::open(Place::File(path.clone()), "audit log").unwrap();
        let rotation = Rotation { size: Some(1), age: None, keep: Some(1) };
        let mut sinks = [open(), open()];
        let mut turners = [(); 2].map(|()| Turner::new(rotation.clone(), path.clone()));
        assert_eq!(sinks[0].write(b"one\n"), 0);
        assert!(turners[0].turn(&sinks[0]));
        sinks[0].reopen();
        assert_eq!(sinks[0].write(b"two\n"), 0);
        assert!(turners[1].turn(&sinks[1]), "it is to open the new one");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(turned(&path).len(), 1);
    }

    #[test]
    fn no_file_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let rotation = Rotation { size: Some(1), age: None, keep: None };
        let mut turner = Turner::new(rotation, path.clone());
        for n in 0..50 {
            fs::write(&path, n.to_string()).unwrap();
            turner.rename().unwrap();
        }
        let all: Vec<String> =
            turned(&path).iter().map(|p| fs::read_to_string(p).unwrap()).collect();
        let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        assert_eq!(all, expected, "in order, and none missing");
        assert!(turner.rename().is_err(), "nothing is there");
    }
}
