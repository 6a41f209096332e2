//! Files that are read again when they change: in, paths and a reader; out, the value of the last
//! content that was good.
//!
//! What becomes of a content that is bad is the reader's to say ([`Found`]); most let the value before it
//! stay. The problem is told once in the log and for as long as it lasts by [`Refresh::problem`]. Nothing is watched by the kernel: a
//! stat finds what was renamed over, linked anew (certbot) or mounted anew (Kubernetes) just the same.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The value of some files, as of their last good content.
pub struct Watched<T> {
    name: String,
    paths: Vec<PathBuf>,
    read: Box<Read<T>>,
    value: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
    generation: AtomicU64,
}

type Read<T> = dyn Fn(&[PathBuf]) -> Found<T> + Send + Sync;

/// What a reader makes of files.
pub enum Found<T> {
    /// All of it is good.
    Good(T),
    /// This, but for what is wrong with the content; the same content would give the same.
    InPart(T, Vec<String>),
    /// This, for as long as there is nothing to be read.
    Meanwhile(T, String),
    /// Nothing: the value before it stays.
    Bad(String),
}

impl<T> Found<T> {
    /// The same with other words for what is wrong.
    pub fn map_problems(self, words: impl Fn(String) -> String) -> Self {
        match self {
            Self::Good(value) => Self::Good(value),
            Self::InPart(value, all) => Self::InPart(value, all.into_iter().map(words).collect()),
            Self::Meanwhile(value, problem) => Self::Meanwhile(value, words(problem)),
            Self::Bad(problem) => Self::Bad(words(problem)),
        }
    }
}

impl<T> From<Result<T, String>> for Found<T> {
    fn from(read: Result<T, String>) -> Self {
        read.map_or_else(Self::Bad, Self::Good)
    }
}

struct Seen {
    stamps: Stamps,
    problem: Option<String>,
    /// The problem may pass without a change of the files.
    passing: bool,
}

/// What a stat tells of each file; `None` where there is none. The status time also moves when a
/// file is put back with its old time, as `cp -p` and `rsync` do.
type Stamps = Vec<Option<[i128; 5]>>;

/// Something that is read again when it changes. All of them are asked once a second and on SIGHUP.
pub trait Refresh: Send + Sync + fmt::Debug {
    /// Looks, and reads again what has changed.
    fn refresh(&self);
    /// What is wrong with the files as they are now, where the value is an older one.
    fn problem(&self) -> Option<String>;
    /// The files' names.
    fn name(&self) -> String;
    /// Grows with every content that was taken.
    fn generation(&self) -> u64;
}

impl<T> Watched<T> {
    /// Reads the files now, and again by the same closure whenever one of them has changed.
    ///
    /// # Errors
    /// The reader's.
    pub fn load(
        paths: Vec<PathBuf>,
        read: impl Fn(&[PathBuf]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        let read = move |paths: &[PathBuf]| read(paths).into();
        Self::named(named(&paths), paths, read).map_err(|all| all.join("; "))
    }

    /// [`Watched::load`] by a name that may be shown, and with a reader that says what becomes of bad
    /// contents. At first only a good one is taken.
    ///
    /// # Errors
    /// All that the reader finds wrong.
    pub fn named(
        name: String,
        paths: Vec<PathBuf>,
        read: impl Fn(&[PathBuf]) -> Found<T> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Vec<String>> {
        // first the stamps: what changes while it is read is read again
        let stamps = stamps(&paths);
        let value = match read(&paths) {
            Found::Good(value) => RwLock::new(Arc::new(value)),
            Found::InPart(_, problems) => return Err(problems),
            Found::Meanwhile(_, problem) | Found::Bad(problem) => return Err(vec![problem]),
        };
        let seen = Mutex::new(Seen { stamps, problem: None, passing: false });
        Ok(Arc::new(Self { name, paths, read: Box::new(read), value, seen, generation: 0.into() }))
    }

    /// The value, without a look at the files.
    pub fn current(&self) -> Arc<T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The value of the files as they are at this moment, by one stat for each: for what must hold
    /// from the very next request on.
    pub fn fresh(&self) -> Arc<T> {
        self.look(false);
        self.current()
    }

    /// Grows with every content that was taken.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// `again`: what was bad is read again though it has not changed. The cause may be elsewhere (no
    /// file descriptor was free) or pass with time (a certificate that is not valid yet).
    fn look(&self, again: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.paths);
        if now == seen.stamps && !(again && seen.passing) {
            return;
        }
        seen.stamps = now;
        let (value, problem) = match (self.read)(&self.paths) {
            Found::Good(value) => (Some(value), None),
            Found::InPart(value, all) => (Some(value), Some((all.join("; "), false))),
            Found::Meanwhile(value, problem) => (Some(value), Some((problem, true))),
            Found::Bad(problem) => (None, Some((problem, true))),
        };
        self.tell(&seen, value.is_some(), problem.as_ref().map(|(words, _)| words));
        seen.passing = problem.as_ref().is_some_and(|(_, passing)| *passing);
        seen.problem = problem.map(|(words, _)| words);
        if let Some(value) = value {
            *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Says what has come of a look; the same problem once.
    fn tell(&self, seen: &Seen, taken: bool, problem: Option<&String>) {
        match problem {
            None if seen.problem.is_some() => log::info!("{} is good again, and read", self.name),
            None => log::info!("{} read again", self.name),
            Some(problem) if seen.problem.as_ref() == Some(problem) => {}
            Some(problem) if taken => log::warn!("{problem}"),
            Some(problem) => log::warn!("{problem}; what was read before stays in force"),
        }
    }
}

impl<T: Send + Sync> Refresh for Watched<T> {
    fn refresh(&self) {
        self.look(true);
    }

    fn problem(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).problem.clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn generation(&self) -> u64 {
        Self::generation(self)
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn named(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    let stamp = |path: &PathBuf| {
        let meta = fs::metadata(path).ok()?;
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
        Some([meta.dev().into(), meta.ino().into(), meta.size().into(), modified, changed])
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::files;

    fn number(path: &Path) -> Arc<Watched<u32>> {
        let read = |paths: &[PathBuf]| {
            let text = files::read_text(&paths[0])?;
            text.trim().parse().map_err(|e| format!("`{}`: {e}", paths[0].display()))
        };
        Watched::load(vec![path.to_owned()], read).unwrap()
    }

    #[test]
    fn changes_are_taken_and_bad_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "1").unwrap();
        let watched = number(&path);
        assert_eq!((*watched.current(), watched.generation()), (1, 0));

        fs::write(&path, "2").unwrap();
        assert_eq!(*watched.current(), 1, "nobody has looked");
        assert_eq!((*watched.fresh(), watched.generation()), (2, 1));

        fs::write(&path, "x").unwrap();
        watched.refresh();
        assert_eq!(*watched.current(), 2);
        assert!(watched.problem().unwrap().contains("invalid digit"));

        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.fresh(), 2);
        assert!(watched.problem().unwrap().contains("cannot read"));

        fs::write(&path, "3").unwrap();
        assert_eq!((*watched.fresh(), watched.problem()), (3, None));
        assert_eq!(watched.generation(), 2);
    }

    #[test]
    fn what_was_bad_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "1").unwrap();
        let fails = Arc::new(AtomicU64::new(0));
        let now = fails.clone();
        let read = move |_: &[PathBuf]| match now.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err("no time".to_owned()),
        };
        let watched = Watched::load(vec![path.clone()], read).unwrap();
        fs::write(&path, "22").unwrap();
        fails.store(1, Ordering::SeqCst);
        watched.refresh();
        assert_eq!((watched.problem().is_some(), watched.generation()), (true, 0));
        fails.store(0, Ordering::SeqCst);
        watched.fresh();
        assert_eq!(watched.generation(), 0, "not for every request");
        watched.refresh();
        assert_eq!((watched.problem(), watched.generation()), (None, 1));
    }

    #[test]
    fn a_reader_may_go_without_what_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "1").unwrap();
        let reads = Arc::new(AtomicU64::new(0));
        let count = reads.clone();
        let read = move |paths: &[PathBuf]| {
            count.fetch_add(1, Ordering::SeqCst);
            match files::read_text(&paths[0]) {
                Err(problem) => Found::Meanwhile(0, problem),
                Ok(text) if text == "1" => Found::Good(1),
                Ok(_) => Found::InPart(7, vec!["one".to_owned(), "two".to_owned()]),
            }
        };
        let watched = Watched::named("n".to_owned(), vec![path.clone()], read).unwrap();
        fs::write(&path, "22").unwrap();
        assert_eq!((*watched.fresh(), watched.problem().unwrap().as_str()), (7, "one; two"));
        watched.refresh();
        assert_eq!(reads.load(Ordering::SeqCst), 2, "the same content gives the same");
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.fresh(), 0);
        watched.refresh();
        assert_eq!(reads.load(Ordering::SeqCst), 4, "it may come back unseen");
        fs::write(&path, "1").unwrap();
        assert_eq!((*watched.fresh(), watched.problem()), (1, None));
    }

    #[test]
    fn a_link_that_is_swapped_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = |n: &str| folder.path().join(n);
        fs::write(file("one"), "1").unwrap();
        fs::write(file("two"), "2").unwrap();
        std::os::unix::fs::symlink("one", file("live")).unwrap();
        let watched = number(&file("live"));
        std::os::unix::fs::symlink("two", file("next")).unwrap();
        fs::rename(file("next"), file("live")).unwrap();
        assert_eq!(*watched.fresh(), 2);
    }

    #[test]
    fn a_value_is_read_once_for_all_who_ask() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "1").unwrap();
        let reads = Arc::new(AtomicU64::new(0));
        let count = reads.clone();
        let read = move |_: &[PathBuf]| Ok(count.fetch_add(1, Ordering::SeqCst));
        let watched = Watched::load(vec![path.clone()], read).unwrap();
        fs::write(&path, "22").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(*watched.fresh(), 1));
            }
        });
        assert_eq!(reads.load(Ordering::SeqCst), 2);
    }
}
