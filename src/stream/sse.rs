//! Where an event stream may be spoken into. In: a backend's bytes, however split; out: whether
//! we are between two events, and the comment that fits there.
//!
//! Lines end with `\n`, `\r\n` or `\r`, an empty line ends an event, and a line that starts with
//! `:` means nothing (WHATWG HTML §9.2.5, "Parsing an event stream").

use memchr::memchr2;

use crate::base::text::BOM;

/// What keeps an idle stream alive, at a place where [`Scanner::comment`] gives it.
///
/// It is one line and no empty line: an empty line ends an event for some widely used parsers
/// (httpx-sse of the Python SDK) even when there was no data, once an id has been seen.
pub const COMMENT: &[u8] = b": keepalive\n";
/// The same after a `\r`: should the backend's next byte be the `\n` that belongs to it, that one
/// then ends this line, and does not make an empty one.
const COMMENT_AFTER_CR: &[u8] = b": keepalive\r";

/// Follows the lines of one event stream: give it every byte that goes to the client, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanner {
    started: bool,
    at_line_start: bool,
    /// Only comments since the last empty line.
    between_events: bool,
    /// The last byte is a `\r`; a `\n` now would belong to it.
    after_cr: bool,
    events: u64,
}

impl Scanner {
    /// At the start of a stream.
    pub const fn new() -> Self {
        Self {
            started: false,
            at_line_start: true,
            between_events: true,
            after_cr: false,
            events: 0,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        let Some(first) = chunk.first() else { return };
        self.started = true;
        let mut rest = chunk;
        if std::mem::take(&mut self.after_cr) && *first == b'\n' {
            rest = chunk.get(1..).unwrap_or_default();
        }
        while !rest.is_empty() {
            rest = self.line(rest);
        }
    }

    /// Whether a line of ours would stand between events: at the very start, after the empty line
    /// that ends an event, and after comments there.
    pub fn at_boundary(&self) -> bool {
        self.at_line_start && self.between_events
    }

    /// What to send now to keep the stream alive; `None` inside an event. It changes nothing that
    /// a parser hands on, and is not to be pushed into this scanner.
    pub fn comment(&self) -> Option<&'static [u8]> {
        let comment = if self.after_cr { COMMENT_AFTER_CR } else { COMMENT };
        self.at_boundary().then_some(comment)
    }

    /// Whether a byte of the backend has gone out. A comment sent before that takes the place
    /// where a byte order mark may stand: see [`LeadingBom`].
    pub fn started(&self) -> bool {
        self.started
    }

    /// Events that have ended so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Takes one line, or what there is of it, and returns what follows.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr2(b'\n', b'\r', bytes);
        let (content, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if let Some(first) = content.first() {
            self.between_events &= !self.at_line_start || *first == b':';
            self.at_line_start = false;
        }
        match rest {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => self.end_line(rest),
            [b'\r', rest @ ..] => {
                self.after_cr = rest.is_empty();
                self.end_line(rest)
            }
            _ => rest,
        }
    }

    fn end_line<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        if self.at_line_start && !self.between_events {
            self.between_events = true;
            self.events += 1;
        }
        self.at_line_start = true;
        rest
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

/// Drops a byte order mark at the start of a backend's stream: needed once a comment of ours has
/// gone out before it, as the mark would then spoil the first line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeadingBom {
    /// How many bytes of the mark are held back.
    held: usize,
    done: bool,
}

impl LeadingBom {
    /// Takes the next bytes of the stream; the two parts returned go on, in this order.
    pub fn strip<'a>(&mut self, chunk: &'a [u8]) -> (&'static [u8], &'a [u8]) {
        let mut rest = chunk;
        while !self.done {
            let Some((first, after)) = rest.split_first() else { return (&[], rest) };
            if BOM.get(self.held) != Some(first) {
                return (self.finish(), rest);
            }
            rest = after;
            self.held += 1;
            self.done = self.held == BOM.len();
        }
        (&[], rest)
    }

    /// What is still held back when the stream ends.
    pub fn finish(&mut self) -> &'static [u8] {
        let held = if self.done { 0 } else { self.held };
        self.done = true;
        const HELD: &[u8] = &BOM;
        HELD.get(..held).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a parser hands on: event type, data, last event id; and the retry times it was told.
    pub(in crate::stream) type Seen = (Vec<(String, String, String)>, Vec<String>);

    /// WHATWG HTML §9.2.6, written from its text and on whole streams, to check against.
    /// `keen` also dispatches without data once an id is known, as httpx-sse does.
    pub(in crate::stream) fn parse(stream: &[u8], keen: bool) -> Seen {
        let text = String::from_utf8_lossy(stream).into_owned();
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let (mut seen, mut event, mut data, mut id) =
            (Seen::default(), String::new(), None::<String>, String::new());
        // What follows the last line end is no line.
        let Some((lines, _)) = text.rsplit_once('\n') else { return seen };
        for line in lines.split('\n') {
            if line.is_empty() {
                if data.is_some() || keen && !id.is_empty() {
                    seen.0.push((event.clone(), data.clone().unwrap_or_default(), id.clone()));
                }
                event.clear();
                data = None;
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => event = value.into(),
                "data" => data = Some(data.map_or_else(|| value.into(), |d| d + "\n" + value)),
                "id" if !value.contains('\0') => id = value.into(),
                "retry" => seen.1.push(value.into()),
                _ => {}
            }
        }
        seen
    }

    /// Streams of all the shapes that matter, and the broken ones between.
    pub(in crate::stream) fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => Just("\n"), 3 => Just("\r\n"), 3 => Just("\r"),
            3 => Just("data: x"), 1 => Just("data:"), 1 => Just("data"), 1 => Just("event: endpoint"),
            1 => Just("event:message"), 1 => Just("id: 7"), 1 => Just("retry: 5"), 2 => Just(": hi"),
            1 => Just(":"), 1 => Just(" "), 1 => Just("\u{feff}"), 1 => Just("ü"), 1 => Just("data: /m?s=1"),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
    }

    pub(in crate::stream) fn chunks<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
    }

    fn boundary(stream: &str) -> bool {
        let mut scanner = Scanner::new();
        scanner.push(stream.as_bytes());
        scanner.at_boundary()
    }

    #[test]
    fn boundaries() {
        for yes in [
            "",
            "\n",
            "\r",
            "\r\n",
            "data: x\n\n",
            "data: x\r\n\r\n",
            "data: x\r\r",
            "data: x\n\r\n",
            "data: x\r\n\r",
            ": hi\n",
            ": hi\r\n\r\n",
            "data: x\n\n: ping\n",
            "data: x\n\n: ping\r",
        ] {
            assert!(boundary(yes), "{yes:?}");
        }
        for no in [
            "d",
            "data: x",
            "data: x\n",
            "data: x\r\n",
            "data: x\r",
            ":",
            ": hi",
            "data: x\n\n:",
            "data: x\n: hi\n",
            "retry: 5\n",
            "data: x\r\n\r\ndata: y",
            "\u{feff}",
            "\u{feff}data: x\n",
        ] {
            assert!(!boundary(no), "{no:?}");
        }
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Scanner>() <= 16);
    }

    #[test]
    fn a_comment_after_cr_eats_its_line_feed() {
        let mut scanner = Scanner::new();
        scanner.push(b"data: x\r\n\r");
        assert_eq!(scanner.comment(), Some(COMMENT_AFTER_CR));
        scanner.push(b"\n");
        assert_eq!(scanner.comment(), Some(COMMENT));
        scanner.push(b"\n");
        assert!(scanner.at_boundary());
    }

    #[test]
    fn started_means_bytes() {
        let mut scanner = Scanner::new();
        scanner.push(b"");
        assert!(!scanner.started());
        scanner.push(b"x");
        assert!(scanner.started());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn comments_change_nothing(
            stream in streams(), cuts in proptest::collection::vec(0usize..200, 0..12), keen in any::<bool>(),
        ) {
            let (mut scanner, mut bom, mut out) = (Scanner::new(), None::<LeadingBom>, Vec::new());
            let say = |scanner: &Scanner, out: &mut Vec<u8>| match scanner.comment() {
                Some(comment) => {
                    out.extend_from_slice(comment);
                    true
                }
                None => false,
            };
            for chunk in chunks(&stream, &cuts) {
                if say(&scanner, &mut out) && !scanner.started() && bom.is_none() {
                    bom = Some(LeadingBom::default());
                }
                let (held, chunk) = bom.as_mut().map_or((&[][..], chunk), |bom| bom.strip(chunk));
                for part in [held, chunk] {
                    scanner.push(part);
                    out.extend_from_slice(part);
                }
            }
            out.extend_from_slice(bom.map_or(&[][..], |mut bom| bom.finish()));
            say(&scanner, &mut out);
            prop_assert_eq!(parse(&out, keen), parse(&stream, keen), "{:?}", String::from_utf8_lossy(&out));
        }

        #[test]
        fn never_inside_an_event_and_always_after_one(stream in streams(), cuts in proptest::collection::vec(0usize..200, 0..12)) {
            let mut scanner = Scanner::new();
            let mut sent = Vec::new();
            for chunk in chunks(&stream, &cuts) {
                scanner.push(chunk);
                sent.extend_from_slice(chunk);
                // An event is under way if ending it here hands on something.
                let ended = [&sent[..], b"\n\n"].concat();
                let open = parse(&ended, false) != parse(&sent, false);
                prop_assert!(!(open && scanner.at_boundary()), "{:?}", String::from_utf8_lossy(&sent));
                let over = ["\n\n", "\r\r", "\r\n\r\n"].iter().any(|end| sent.ends_with(end.as_bytes()));
                prop_assert!(!over || scanner.at_boundary(), "{:?}", String::from_utf8_lossy(&sent));
            }
        }

        #[test]
        fn chunks_do_not_matter(stream in streams(), cuts in proptest::collection::vec(0usize..200, 0..12)) {
            let (mut whole, mut parts) = (Scanner::new(), Scanner::new());
            whole.push(&stream);
            chunks(&stream, &cuts).into_iter().for_each(|chunk| parts.push(chunk));
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn a_leading_mark_is_dropped_and_nothing_else(
            stream in "(\u{feff}){0,2}[\\x00-\u{fff}]{0,5}", cut in 0usize..3,
            cuts in proptest::collection::vec(0usize..20, 0..5),
        ) {
            // Also starts that are only a part of the mark.
            let mut stream = stream.into_bytes();
            stream.drain(..cut.min(stream.len()));
            let (mut bom, mut out) = (LeadingBom::default(), Vec::new());
            for chunk in chunks(&stream, &cuts) {
                let (held, rest) = bom.strip(chunk);
                out.extend_from_slice(held);
                out.extend_from_slice(rest);
            }
            out.extend_from_slice(bom.finish());
            prop_assert_eq!(&out[..], stream.strip_prefix(&BOM).unwrap_or(&stream));
        }
    }
}
