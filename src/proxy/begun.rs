//! What was begun and must be told of: in, the record of a request or of a long answer; out, its line, also where it
//! is dropped before its end.
//!
//! That happens to what is left when the edge exits, and where its code panics.

use super::Tail;
use super::answer::Body;
use crate::listen::wire::Wire;
use crate::observe::Observer;
use crate::observe::record::{CUT, FAILED, Record};

/// A request until its answer is sent, or a long one has begun.
pub(super) struct Begun<'a, W: Wire> {
    observer: &'a Observer,
    pub(super) wire: &'a mut W,
    pub(super) record: &'a mut Record,
    over: bool,
}

impl<'a, W: Wire> Begun<'a, W> {
    pub(super) fn new(observer: &'a Observer, wire: &'a mut W, record: &'a mut Record) -> Self {
        Self { observer, wire, record, over: false }
    }

    /// It has come to its end: whoever brought it there tells of it.
    pub(super) fn over(mut self) {
        self.over = true;
    }
}

impl<W: Wire> Drop for Begun<'_, W> {
    fn drop(&mut self) {
        if !self.over {
            // its answer may have been one, but has not begun
            self.record.stream = false;
            cut(self.record, self.wire);
            self.observer.request(self.record);
        }
    }
}

/// A long answer until its end.
pub(super) struct Going<'a, W: Wire> {
    observer: &'a Observer,
    pub(super) wire: &'a mut W,
    pub(super) tail: &'a mut Tail,
    over: bool,
}

impl<'a, W: Wire> Going<'a, W> {
    pub(super) fn new(observer: &'a Observer, wire: &'a mut W, tail: &'a mut Tail) -> Self {
        Self { observer, wire, tail, over: false }
    }

    /// As [`Begun::over`].
    pub(super) fn over(mut self) {
        self.over = true;
    }
}

impl<W: Wire> Drop for Going<'_, W> {
    fn drop(&mut self) {
        if !self.over {
            let Tail { rest, record, open, .. } = &mut *self.tail;
            if let Body::Flow(flow) = &rest.body {
                (record.events, record.comments) = (flow.events(), flow.comments);
            }
            cut(record, self.wire);
            self.observer.ended(open, record);
        }
    }
}

fn cut<W: Wire>(record: &mut Record, wire: &W) {
    (record.bytes_in, record.bytes_out) = wire.counts();
    record.end = Some(if std::thread::panicking() { FAILED } else { CUT });
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::time::{Instant, SystemTime};

    use http::Method;
    use serde_json::Value;

    use super::super::body::tests::Slow;
    use super::*;
    use crate::observe::log::AccessLog;
    use crate::observe::metrics::Metrics;

    /// The lines that are written for a request of which `f` is done.
    fn lines(f: impl FnOnce(Begun<'_, Slow>)) -> Vec<Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let metrics = Arc::new(Metrics::new().unwrap());
        let log = AccessLog::file(&path, metrics.service.log_lost.clone()).unwrap();
        let observer = Observer::new(metrics, Some(Arc::new(log)));
        let mut wire = Slow::new(&[], false);
        let local = IpAddr::from([127, 0, 0, 1]);
        let mut record = Record::begin(Instant::now(), SystemTime::now(), local, Method::GET);
        record.stream = true;
        let begun = Begun::new(&observer, &mut wire, &mut record);
        let done = catch_unwind(AssertUnwindSafe(|| f(begun)));
        drop(done);
        observer.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_is_dropped_leaves_its_line_and_what_has_ended_none_from_here() {
        assert!(lines(|begun| begun.over()).is_empty());
        let cut = lines(|begun| drop(begun));
        assert_eq!(cut.len(), 1);
        assert_eq!((&cut[0]["event"], &cut[0]["end"]), (&"request".into(), &"edge.cut".into()));
        let failed = lines(|_begun| panic!("a test's"));
        assert_eq!((failed.len(), &failed[0]["end"]), (1, &"edge.failed".into()));
    }
}
