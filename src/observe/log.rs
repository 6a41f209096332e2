//! The access log: in, lines; out, the same lines in a file or on standard output, off the request's way.
//!
//! Lines are appended to a buffer; a thread takes it whole and writes it. It is woken for the first
//! line only and then lets lines gather for a moment, so that a busy edge pays no wake-up per line.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

use super::sink::{Place, Sink};

/// Bytes that may wait to be written; further lines are lost and counted.
const WAITING: usize = 8 << 20;
/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(50);

/// Hands lines to a thread that writes them.
#[derive(Debug)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or somebody waits for it.
    work: Condvar,
    /// Everything that was there has been written.
    written: Condvar,
    /// Lines that were not written.
    lost: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// The file is to be opened anew before anything else is written.
    reopen: bool,
    /// The writer has bytes of its own.
    writing: bool,
    /// How many wait in [`AccessLog::flush`].
    flushing: usize,
}

impl AccessLog {
    /// Writes to standard output; what is lost is counted in `lost`.
    ///
    /// # Errors
    /// No thread could be started, or standard output is closed.
    pub fn stdout(lost: IntCounter) -> io::Result<Self> {
        Self::start(Sink::open(Place::Stdout, "access log")?, lost)
    }

    /// Appends to a file; what is lost is counted in `lost`.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread could be started.
    pub fn file(path: &Path, lost: IntCounter) -> io::Result<Self> {
        Self::start(Sink::open(Place::File(path.to_owned()), "access log")?, lost)
    }

    fn start(sink: Sink, lost: IntCounter) -> io::Result<Self> {
        let (state, work, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, work, written, lost });
        let writer = shared.clone();
        thread::Builder::new().name("access-log".into()).spawn(move || writer.write_to(sink))?;
        Ok(Self(shared))
    }

    /// Hands over a line, which `line` appends to the buffer that it is given.
    pub fn write(&self, line: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        if state.buffer.len() >= WAITING {
            self.0.lost.inc();
            return;
        }
        let first = state.buffer.is_empty();
        line(&mut state.buffer);
        drop(state);
        if first {
            self.0.work.notify_one();
        }
    }

    /// Has the file opened anew by its path: it may have been renamed. Lines go on in the old one until
    /// that is done, and where it fails.
    pub fn reopen(&self) {
        self.0.lock().reopen = true;
        self.0.work.notify_one();
    }

    /// Waits until all lines so far are written, for `limit` at most: whoever should read them may
    /// have stopped.
    pub fn flush(&self, limit: Duration) {
        let mut state = self.0.lock();
        state.flushing += 1;
        self.0.work.notify_one();
        let busy = |s: &mut State| !s.buffer.is_empty() || s.writing || s.reopen;
        let waited = self.0.written.wait_timeout_while(state, limit, busy);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.flushing -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut sink: Sink) {
        let mut lines = Vec::new();
        loop {
            if self.next(&mut lines) {
                sink.reopen();
            }
            self.lost.inc_by(sink.write(&lines));
            lines.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }

    /// Waits for lines, lets them gather, and takes them all; whether the file is to be opened anew.
    fn next(&self, lines: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        while state.buffer.is_empty() && !state.reopen {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.flushing == 0 && !state.reopen {
            let waits = |s: &mut State| s.flushing == 0 && !s.reopen;
            let gathered = self.work.wait_timeout_while(state, GATHER, waits);
            state = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut state.buffer, lines);
        state.writing = true;
        std::mem::take(&mut state.reopen)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn counter() -> IntCounter {
        IntCounter::new("lost", "lost").unwrap()
    }

    #[test]
    fn lines_arrive_in_order_and_whole_also_when_the_file_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let lost = counter();
        let log = AccessLog::file(&path, lost.clone()).unwrap();
        for n in 0..100 {
            log.write(|out| out.extend_from_slice(format!("{n}\n").as_bytes()));
            if n % 30 == 0 {
                log.flush(LONG);
                fs::rename(&path, dir.path().join(format!("access.{n:02}"))).unwrap();
                log.reopen();
            }
        }
        log.flush(LONG);
        let mut files: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 5);
        let text: String = files.iter().map(|f| fs::read_to_string(f).unwrap()).collect();
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(text, expected);
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn what_cannot_be_written_in_time_is_lost_and_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lost = counter();
        let log =
            AccessLog::start(Sink::of(std::os::fd::OwnedFd::from(writer).into()), lost.clone());
        let log = log.unwrap();
        let line = format!("{}\n", "x".repeat((1 << 20) - 1));
        // a pipe holds little, at most one buffer is with the writer, and one waits
        let written = (1..=40u64).find(|_| {
            log.write(|out| out.extend_from_slice(line.as_bytes()));
            lost.get() > 0
        });
        let written = written.unwrap();
        let read = thread::spawn(move || {
            let mut all = Vec::new();
            reader.by_ref().take((written - 1) << 20).read_to_end(&mut all).unwrap();
            all.len() as u64
        });
        log.flush(LONG);
        assert_eq!(read.join().unwrap(), (written - 1) << 20);
        // nobody reads any more
        log.write(|out| out.extend_from_slice(b"one\ntwo\n"));
        log.flush(LONG);
        assert_eq!(lost.get(), 3);
    }
}
