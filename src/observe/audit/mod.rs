//! The audit log: in, calls as they are decided and as they end; out, one line for each, in order, in a file of
//! its own.
//!
//! A `call` line says who wants to call what, and whether that is allowed; it stands in the file before the
//! server hears of the call. What became of an allowed call is in an `answer` line with the same request id.
//! Lines are numbered within a process, which each of them names: a number that is missing is a line that was lost.
//! A thread writes them; where calls may
//! not go on without theirs (`full: refuse`), they wait for it.

pub mod compile;
mod line;
mod rotation;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::record::Record;
use super::sink::{Place, Sink};
use crate::base::denial::{Denial, Reason};
use crate::base::ruling::Ruling;
use rotation::{Rotation, Turner};

/// Bytes that may wait to be written; further lines are lost.
const WAITING: usize = 8 << 20;
/// How long a call waits for its line; a disk that hangs is as bad as one that is full.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a refused call may be tried again, in seconds.
const RETRY_AFTER: u32 = 5;

/// What a config says of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// Where lines go.
    pub to: To,
    /// What happens to calls whose line cannot be written.
    pub full: Full,
    /// When a new file is begun; never where absent.
    pub rotation: Option<Rotation>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// What happens to calls whose line cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// They are refused with 503.
    Refuse,
    /// They go on.
    GoOn,
}

/// What is counted of the lines.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Lines that were written.
    pub written: IntCounter,
    /// Lines that were lost.
    pub lost: IntCounter,
    /// 1 while the last line was not written.
    pub failing: IntGauge,
}

/// Of a call that an audit log tells of, besides what every [`Record`] has.
#[derive(Debug, Clone)]
pub struct Audited {
    /// One of MCP's three.
    pub method: &'static str,
    /// The tool, the prompt, or the resource without what could be secret in its URI.
    pub target: Option<Arc<str>>,
    /// JSON: names, or names and values, as the rules say.
    pub arguments: Option<Box<str>>,
    /// Which rule has allowed or refused it, as far as one was asked.
    pub rule: Option<Ruling>,
    /// Whether its `call` line has been handed over.
    pub begun: bool,
}

/// Hands lines to a thread that writes them.
#[derive(Debug)]
pub struct AuditLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or somebody waits for it.
    work: Condvar,
    /// Everything that was there has been written, or is lost.
    written: Condvar,
    full: Full,
    counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// The number of the last line.
    seq: u64,
    reopen: bool,
    /// The writer has a batch of its own.
    writing: bool,
}

/// Lines, and who waits for which of them.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u8>,
    count: u64,
    waiting: Vec<(u64, oneshot::Sender<bool>)>,
}

impl AuditLog {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread could be started.
    pub fn start(settings: &AuditSettings, counters: Counters) -> io::Result<Self> {
        let (place, path) = match &settings.to {
            To::Stdout => (Place::Stdout, None),
            To::File(path) => (Place::File(path.clone()), Some(path.clone())),
        };
        let sink = Sink::open(place, "audit log")?;
        let turner =
            settings.rotation.clone().zip(path).map(|(rotation, path)| Turner::new(rotation, path));
        let (state, work, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, work, written, full: settings.full, counters });
        let writer = shared.clone();
        thread::Builder::new()
            .name("audit-log".into())
            .spawn(move || writer.write_to(sink, turner))?;
        Ok(Self(shared))
    }

    /// Tells of a call that is allowed, by a rule where one was asked, before the server hears of it.
    ///
    /// # Errors
    /// 503 where its line cannot be written, and calls may not go on without.
    pub async fn begin(&self, record: &mut Record, rule: Option<Ruling>) -> Result<(), Denial> {
        let Some(audited) = &mut record.audit else { return Ok(()) };
        (audited.begun, audited.rule) = (true, rule);
        match self.0.full {
            Full::GoOn => {
                self.push(None, |seq, out| line::call(record, seq, line::ALLOWED, out));
                Ok(())
            }
            Full::Refuse => {
                let (sender, written) = oneshot::channel();
                self.push(Some(sender), |seq, out| line::call(record, seq, line::ALLOWED, out));
                match timeout(PATIENCE, written).await {
                    Ok(Ok(true)) => Ok(()),
                    _ => {
                        self.stalled();
                        Err(unwritable())
                    }
                }
            }
        }
    }

    /// Tells how a call ended, or that it was refused.
    pub fn end(&self, record: &Record) {
        let Some(audited) = &record.audit else { return };
        if audited.begun {
            self.push(None, |seq, out| line::answer(record, seq, out));
        } else if record.principal.is_some() {
            // who is not known fills no disks: such refusals are in the access log
            let outcome = match record.code {
                Some(_) => line::REFUSED,
                None if line::is_cut(record) => line::BROKEN_OFF,
                None => line::GONE,
            };
            self.push(None, |seq, out| line::call(record, seq, outcome, out));
        }
    }

    fn push(&self, waiting: Option<oneshot::Sender<bool>>, line: impl FnOnce(u64, &mut Vec<u8>)) {
        let mut state = self.0.lock();
        state.seq += 1;
        let seq = state.seq;
        if state.batch.lines.len() >= WAITING {
            drop(state);
            self.0.counters.lost.inc();
            self.stalled();
            // who waits hears it by the sender's end
            return;
        }
        let first = state.batch.count == 0;
        let nth = state.batch.count;
        line(seq, &mut state.batch.lines);
        state.batch.count += 1;
        state.batch.waiting.extend(waiting.map(|sender| (nth, sender)));
        drop(state);
        if first {
            self.0.work.notify_one();
        }
    }

    /// Says once that lines are not written at all, as a disk or a reader that hangs says nothing by itself.
    fn stalled(&self) {
        if self.0.counters.failing.get() == 0 {
            self.0.counters.failing.set(1);
            log::error!("the audit log is not written in time; its lines wait, or are lost");
        }
    }

    /// Has the file opened anew by its path: it may have been renamed.
    pub fn reopen(&self) {
        self.0.lock().reopen = true;
        self.0.work.notify_one();
    }

    /// Waits until all lines so far are written or lost, for `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let state = self.0.lock();
        let busy = |s: &mut State| s.batch.count > 0 || s.writing || s.reopen;
        drop(self.0.written.wait_timeout_while(state, limit, busy));
    }
}

fn unwritable() -> Denial {
    let message = "Calls cannot be taken now: they cannot be recorded";
    Denial::new(Reason::Busy, "audit.unwritable", message).retry_after(RETRY_AFTER)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut sink: Sink, mut turner: Option<Turner>) {
        loop {
            let (batch, reopen) = self.next();
            if reopen {
                sink.reopen();
            }
            if let Some(turner) = &mut turner
                && batch.count > 0
                && turner.turn(&sink)
            {
                sink.reopen();
            }
            self.written(&mut sink, batch);
            self.lock().writing = false;
            self.written.notify_all();
        }
    }

    /// Writes a batch, and tells who waits for it.
    fn written(&self, sink: &mut Sink, batch: Batch) {
        if batch.count == 0 {
            return;
        }
        // what is lost is the end of it
        let lost = sink.write(&batch.lines).min(batch.count);
        let good = batch.count - lost;
        self.counters.written.inc_by(good);
        self.counters.lost.inc_by(lost);
        self.counters.failing.set((lost > 0).into());
        for (nth, sender) in batch.waiting {
            if sender.send(nth < good).is_err() {
                log::debug!("a call did not wait for its line any longer");
            }
        }
    }

    /// Waits for lines, and takes them all; whether the file is to be opened anew.
    fn next(&self) -> (Batch, bool) {
        let mut state = self.lock();
        while state.batch.count == 0 && !state.reopen {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        (std::mem::take(&mut state.batch), std::mem::take(&mut state.reopen))
    }
}

#[cfg(test)]
mod tests;
