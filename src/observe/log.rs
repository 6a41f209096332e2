//! The access log: in, lines; out, the same lines in a file or on standard output, off the request's way.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Lines that may wait; further ones are lost and counted.
const WAITING: usize = 8192;

/// Hands lines to a thread that writes them.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
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
        let (lines, messages) = sync_channel(WAITING);
        thread::Builder::new().name("access-log".into()).spawn(move || write(&messages, sink))?;
        Ok(Self { lines })
    }

    /// Hands over a line; `false` when it was lost.
    pub fn write(&self, line: Vec<u8>) -> bool {
        self.lines.try_send(Message::Line(line)).is_ok()
    }

    /// Waits until all lines so far are written.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.send(Message::Flush(done)).is_ok() && wait.recv().is_err() {
            log::warn!("the access log ended early");
        }
    }
}

fn write(messages: &Receiver<Message>, sink: impl Write) {
    let mut out = BufWriter::with_capacity(64 * 1024, sink);
    let mut failing = false;
    while let Ok(first) = messages.recv() {
        let mut result = handle(first, &mut out);
        while let Ok(more) = messages.try_recv() {
            result = result.and(handle(more, &mut out));
        }
        // nothing waits: whoever reads along sees the line now
        result = result.and(out.flush());
        if let Err(e) = &result
            && !failing
        {
            log::error!("cannot write the access log: {e}");
        }
        failing = result.is_err();
    }
}

fn handle(message: Message, out: &mut impl Write) -> io::Result<()> {
    match message {
        Message::Line(line) => out.write_all(&line),
        Message::Flush(done) => {
            let flushed = out.flush();
            if done.send(()).is_err() {
                log::debug!("nobody waits for the flush");
            }
            flushed
        }
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
            assert!(log.write(format!("{n}\n").into_bytes()));
        }
        log.flush();
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
