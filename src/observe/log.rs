//! The access log: in, lines; out, the same lines in a file or on standard output, off the request's way.
//!
//! Lines are appended to a buffer; a thread takes it whole and writes it. It is woken for the first
//! line only and then lets lines gather for a moment, so that a busy edge pays no wake-up per line.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that may wait to be written; further lines are lost and counted.
const WAITING: usize = 8 << 20;
/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(50);

/// Hands lines to a thread that writes them.
#[derive(Debug)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or somebody waits for it.
    work: Condvar,
    /// Everything that was there has been written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// The writer has bytes of its own.
    writing: bool,
    /// How many wait in [`AccessLog::flush`].
    flushing: usize,
}

impl AccessLog {
    /// Writes to standard output.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn stdout() -> io::Result<Self> {
        Self::start(io::stdout())
    }

    /// Appends to a file.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread could be started.
    pub fn file(path: &Path) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(named)?;
        Self::start(file)
    }

    fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = shared.clone();
        thread::Builder::new().name("access-log".into()).spawn(move || writer.write_to(sink))?;
        Ok(Self(shared))
    }

    /// Hands over a line, which `line` appends to the buffer that it is given; `false` when it was lost.
    pub fn write(&self, line: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.0.lock();
        if state.buffer.len() >= WAITING {
            return false;
        }
        let first = state.buffer.is_empty();
        line(&mut state.buffer);
        drop(state);
        if first {
            self.0.work.notify_one();
        }
        true
    }

    /// Waits until all lines so far are written, for `limit` at most: whoever should read them may
    /// have stopped.
    pub fn flush(&self, limit: Duration) {
        let mut state = self.0.lock();
        state.flushing += 1;
        self.0.work.notify_one();
        let busy = |s: &mut State| !s.buffer.is_empty() || s.writing;
        let waited = self.0.written.wait_timeout_while(state, limit, busy);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.flushing -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut sink: impl Write) {
        let (mut failing, mut lines) = (false, Vec::new());
        loop {
            self.next(&mut lines);
            let result = sink.write_all(&lines).and_then(|()| sink.flush());
            if let Err(e) = &result
                && !failing
            {
                log::error!("cannot write the access log: {e}");
            }
            failing = result.is_err();
            lines.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }

    /// Waits for lines, lets them gather, and takes them all.
    fn next(&self, lines: &mut Vec<u8>) {
        let mut state = self.lock();
        while state.buffer.is_empty() {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.flushing == 0 {
            let gathered = self.work.wait_timeout_while(state, GATHER, |s| s.flushing == 0);
            state = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut state.buffer, lines);
        state.writing = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::file(&path).unwrap();
        for n in 0..100 {
            assert!(log.write(|out| out.extend_from_slice(format!("{n}\n").as_bytes())));
            if n % 30 == 0 {
                log.flush(Duration::from_secs(10));
            }
        }
        log.flush(Duration::from_secs(10));
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_written_in_time_is_lost_and_said_to_be() {
        struct Stuck(Arc<Mutex<()>>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                drop(self.0.lock());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap();
        let log = AccessLog::start(Stuck(gate.clone())).unwrap();
        let megabyte = |out: &mut Vec<u8>| out.resize(out.len() + (1 << 20), b'x');
        // at most one buffer is with the writer, and one waits
        assert!((0..40).any(|_| !log.write(megabyte)));
        drop(held);
        log.flush(Duration::from_secs(10));
        assert!(log.write(megabyte));
    }
}
