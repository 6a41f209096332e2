//! Where a log goes: in, whole lines; out, the same in a file, or how many of them were lost.
//!
//! A line that was written in part is ended before the next one, so that a reader loses one line and
//! not two.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::Errno;

/// For its owner and a group that may read it: it tells who asked for what.
const MODE: u32 = 0o640;

/// Where lines are to go.
#[derive(Debug)]
pub(super) enum Place {
    /// Standard output.
    Stdout,
    /// A file, which is created where there is none; or a named pipe.
    File(PathBuf),
}

/// An open log.
#[derive(Debug)]
pub(super) struct Sink {
    place: Place,
    /// What messages call it.
    what: &'static str,
    file: File,
    /// The last byte is no line's end: that is to be written before the next line.
    torn: bool,
    /// Lines lost since the last write that succeeded.
    failing: Option<u64>,
}

impl Sink {
    /// Opens it; never waits for anybody.
    ///
    /// # Errors
    /// The system's; those of files name them.
    pub(super) fn open(place: Place, what: &'static str) -> io::Result<Self> {
        let (file, torn) = match &place {
            Place::Stdout => (File::from(io::stdout().as_fd().try_clone_to_owned()?), false),
            Place::File(path) => opened(path)?,
        };
        Ok(Self { place, what, file, torn, failing: None })
    }

    /// Any open file.
    #[cfg(test)]
    pub(super) fn of(file: File) -> Self {
        Self { place: Place::Stdout, what: "access log", file, torn: false, failing: None }
    }

    /// Opens the file by its path again. Where that fails, the one that is open stays.
    pub(super) fn reopen(&mut self) {
        let Place::File(path) = &self.place else { return };
        match opened(path) {
            Ok((file, torn)) => {
                // the old one may be read by others still
                if self.torn && !same(&self.file, &file) {
                    end_line(&mut self.file);
                }
                (self.file, self.torn) = (file, torn);
                log::info!("the {} `{}` is opened again", self.what, path.display());
            }
            Err(e) => log::error!("the {} goes on in the file that was open: {e}", self.what),
        }
    }

    /// What the system says of the open file.
    pub(super) fn metadata(&self) -> Option<fs::Metadata> {
        self.file.metadata().ok()
    }

    /// Writes whole lines; gives how many of them were lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        let mut left = lines;
        let result = self.write_all(&mut left);
        let lost = left.iter().filter(|&&byte| byte == b'\n').count();
        let lost = u64::try_from(lost).unwrap_or(u64::MAX);
        match (result, self.failing) {
            (Err(e), None) => {
                log::error!(
                    "cannot write the {}: {e}; its lines are lost until it can be",
                    self.what
                );
                self.failing = Some(lost);
            }
            (Err(_), Some(before)) => self.failing = Some(before.saturating_add(lost)),
            (Ok(()), Some(before)) if !lines.is_empty() => {
                log::warn!("the {} is written again; {before} lines were lost", self.what);
                self.failing = None;
            }
            (Ok(()), _) => {}
        }
        lost
    }

    /// Leaves in `left` what was not written.
    fn write_all(&mut self, left: &mut &[u8]) -> io::Result<()> {
        if self.torn && !left.is_empty() {
            some(&mut self.file, b"\n")?;
            self.torn = false;
        }
        while !left.is_empty() {
            let n = some(&mut self.file, left)?;
            let (done, rest) = left.split_at_checked(n).unwrap_or((*left, &[]));
            self.torn = !done.ends_with(b"\n");
            *left = rest;
        }
        Ok(())
    }
}

/// Ends a line that is not whole, if that is possible.
fn end_line(file: &mut File) {
    if let Err(e) = some(file, b"\n") {
        log::debug!("the last line of the log before stays torn: {e}");
    }
}

/// Writes at least a byte.
fn some(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => until_writable(file)?,
            result => return result,
        }
    }
}

/// Waits for a standard output that somebody has made non-blocking.
fn until_writable(file: &File) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A file to append to, and whether its last line is not whole.
fn opened(path: &Path) -> io::Result<(File, bool)> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let pipe = fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    // a pipe is opened for both, which waits for no reader, and outlives one; lines wait in it meanwhile
    let access = if pipe { OFlags::RDWR } else { OFlags::WRONLY | OFlags::CREATE };
    let flags = access | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::from_bits_truncate(MODE)).map_err(|e| named(e.into()))?;
    // only to be opened without waiting: the thread that writes has nothing else to do
    let flags = fcntl_getfl(&file).map_err(|e| named(e.into()))?;
    fcntl_setfl(&file, flags & !OFlags::NONBLOCK).map_err(|e| named(e.into()))?;
    let file = File::from(file);
    let torn = file.metadata().is_ok_and(|meta| meta.is_file()) && ends_torn(path);
    Ok((file, torn))
}

/// Whether a file's last line has no end: its writer may have died. Where it may not be read, nobody knows.
fn ends_torn(path: &Path) -> bool {
    let last = || -> io::Result<u8> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(u8::from_be_bytes(byte))
    };
    last().is_ok_and(|last| last != b'\n')
}

fn same(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use super::*;

    #[test]
    fn a_pipe_that_somebody_has_made_non_blocking_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        let mut pipe = Sink::of(OwnedFd::from(writer).into());
        let size = rustix::pipe::fcntl_getpipe_size(&reader).unwrap();
        let long = format!("{}\n", "a".repeat(3 * size));
        let sent = long.clone();
        let writing = thread::spawn(move || pipe.write(sent.as_bytes()));
        let mut got = String::new();
        reader.read_to_string(&mut got).unwrap();
        assert_eq!((writing.join().unwrap(), got == long), (0, true));
    }

    fn sink(path: &Path) -> Sink {
        Sink::open(Place::File(path.to_owned()), "access log").unwrap()
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "torn by a cra").unwrap();
        let mut log = sink(&path);
        assert_eq!(log.write(b"one\n"), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "torn by a cra\none\n");

        // a pipe with room for some of it, that nobody reads
        let (mut reader, writer) = io::pipe().unwrap();
        let mut pipe = Sink::of(OwnedFd::from(writer).into());
        let size = rustix::pipe::fcntl_getpipe_size(&reader).unwrap();
        let long = format!("{}\nb\n", "a".repeat(size + 9));
        let writing = thread::spawn(move || {
            let lost = pipe.write(long.as_bytes());
            (pipe, lost)
        });
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        drop(reader);
        let (pipe, lost) = writing.join().unwrap();
        assert_eq!((lost, pipe.torn, pipe.failing), (2, true, Some(2)));

        let mut log = Sink { file: File::options().append(true).open(&path).unwrap(), ..pipe };
        fs::write(&path, "aaa").unwrap();
        assert_eq!(log.write(b"c\n"), 0);
        assert_eq!((log.torn, log.failing), (false, None));
        assert_eq!(fs::read_to_string(&path).unwrap(), "aaa\nc\n");
    }

    #[test]
    fn lines_of_a_full_disk_are_counted() {
        let mut log = sink(Path::new("/dev/full"));
        assert_eq!(log.write(b"one\ntwo\n"), 2);
        assert_eq!(log.write(b"three\n"), 1);
        assert_eq!((log.torn, log.failing), (false, Some(3)));
    }

    #[test]
    fn a_renamed_file_is_left_and_one_that_cannot_be_opened_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let mut log = sink(&path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        log.write(b"one\n");
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        log.reopen();
        log.write(b"two\n");
        fs::remove_dir(&path).unwrap();
        log.torn = true;
        log.reopen();
        log.write(b"three\n");
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_pipe_waits_for_no_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_bits_truncate(0o600)).unwrap();
        let mut log = sink(&path);
        assert_eq!(log.write(b"one\n"), 0);
        let mut reader = File::open(&path).unwrap();
        let mut line = [0; 4];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"one\n");
    }
}
