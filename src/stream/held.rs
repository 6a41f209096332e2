//! An event that is not yet complete. In: a stream's bytes, however split; out: comments and the empty lines
//! between events at once, events when they are complete.

use memchr::memchr2;

/// What is held back of a stream.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// Where the current line starts in `bytes`; empty lines end the event.
    line: usize,
    in_comment: bool,
    after_cr: bool,
}

impl Held {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), line: 0, in_comment: false, after_cr: false }
    }

    /// How much is held, in bytes.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Holds bytes that begin an event.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Gives up what is held: an event that is complete, or will not be.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.line = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Takes one line, or what there is of it; gives what follows it, and whether the event is complete: then
    /// it is to be taken before the next line.
    pub(super) fn line<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> (&'a [u8], bool) {
        if std::mem::take(&mut self.after_cr)
            && let Some(rest) = bytes.strip_prefix(b"\n")
        {
            self.keep(b"\n", out);
            self.line = self.bytes.len();
            return (rest, false);
        }
        if self.bytes.is_empty() && bytes.first() == Some(&b':') {
            self.in_comment = true;
        }
        let end = memchr2(b'\n', b'\r', bytes);
        let (taken, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        let is_blank = end == Some(0) && self.bytes.len() == self.line;
        self.keep(taken, out);
        if end.is_some() {
            self.in_comment = false;
            self.after_cr = taken.last() == Some(&b'\r');
            self.line = self.bytes.len();
        }
        (rest, is_blank)
    }

    /// What stands before an event goes on.
    fn keep(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let between = self.bytes.is_empty() && matches!(bytes, [b'\n' | b'\r', ..]);
        let to = if self.in_comment || between { out } else { &mut self.bytes };
        to.extend_from_slice(bytes);
    }
}
