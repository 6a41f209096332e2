//! The `endpoint` event of the old HTTP+SSE transport (MCP 2024-11-05). In: a backend's bytes,
//! however split; out: the same bytes, with the data of a first `endpoint` event replaced.
//!
//! Comments go on at once; only the lines of the first event are held back until it is complete.

use memchr::{memchr, memchr2};

use super::held::Held;

/// Longest first event, in bytes with its line ends. A longer one passes as it is.
const MAX_EVENT: usize = 16 * 1024;

/// The first event cannot be mapped: the stream must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// Rewrites the first event of one stream.
#[derive(Debug)]
pub struct EndpointRewriter {
    held: Held,
    /// Whether bytes of the stream have gone on: a byte order mark can no longer follow.
    begun: bool,
    done: bool,
}

impl EndpointRewriter {
    /// At the start of a stream.
    pub const fn new() -> Self {
        Self { held: Held::new(), begun: false, done: false }
    }

    /// Takes the next bytes and appends to `out` what may go on. `map` gets the data of the
    /// `endpoint` event and gives the new one.
    ///
    /// # Errors
    /// [`Refused`] when `map` gives `None` or more than a line, or the data is no single line of
    /// UTF-8.
    pub fn push(
        &mut self,
        chunk: &[u8],
        out: &mut Vec<u8>,
        map: &mut dyn FnMut(&str) -> Option<String>,
    ) -> Result<(), Refused> {
        let mut rest = chunk;
        while !self.done && !rest.is_empty() {
            rest = self.step(rest, out, map)?;
        }
        out.extend_from_slice(rest);
        Ok(())
    }

    /// Whether all that comes goes on as it is: from now on, bytes need not pass through here.
    pub fn done(&self) -> bool {
        self.done
    }

    /// The stream has ended: appends what was held back, an event that is not complete.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held.take());
        self.done = true;
    }

    /// Takes one line, or what there is of it, and returns what follows.
    fn step<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
        map: &mut dyn FnMut(&str) -> Option<String>,
    ) -> Result<&'a [u8], Refused> {
        let before = out.len();
        let (rest, complete) = self.held.line(bytes, out);
        self.begun |= out.len() > before;
        if self.held.len() > MAX_EVENT {
            self.finish(out);
        } else if complete {
            self.end_event(out, map)?;
        }
        Ok(rest)
    }

    fn end_event(
        &mut self,
        out: &mut Vec<u8>,
        map: &mut dyn FnMut(&str) -> Option<String>,
    ) -> Result<(), Refused> {
        let held = self.held.take();
        let (mut event, mut data) = (&b""[..], None);
        let mut lines = 0;
        let first = !std::mem::replace(&mut self.begun, true);
        for field in Fields::of(&held, first) {
            match field.name {
                b"event" => event = field.value,
                b"data" => {
                    lines += 1;
                    data = Some(field);
                }
                _ => {}
            }
        }
        // Without data there is no event (WHATWG HTML §9.2.6): the first is still to come.
        let Some(data) = data else {
            out.extend_from_slice(&held);
            return Ok(());
        };
        self.done = true;
        if event != b"endpoint" {
            out.extend_from_slice(&held);
            return Ok(());
        }
        let text = std::str::from_utf8(data.value).map_err(|_| Refused)?;
        let new =
            map(text).filter(|new| lines == 1 && !new.contains(['\n', '\r'])).ok_or(Refused)?;
        out.extend_from_slice(data.before);
        if !data.before.ends_with(b":") && !data.before.ends_with(b" ") {
            out.push(b':');
        }
        out.extend_from_slice(new.as_bytes());
        out.extend_from_slice(data.after);
        Ok(())
    }
}

impl Default for EndpointRewriter {
    fn default() -> Self {
        Self::new()
    }
}

/// A field of an event, and what stands before and after its value.
struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
    before: &'a [u8],
    after: &'a [u8],
}

/// The fields of complete lines.
struct Fields<'a> {
    event: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// A byte order mark means nothing at the very start of a stream, and is part of a name elsewhere.
    fn of(event: &'a [u8], first: bool) -> Self {
        let at = if first && event.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
        Self { event, at }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = self.event.get(self.at..)?;
        let len = memchr2(b'\n', b'\r', rest)?;
        let line = rest.get(..len)?;
        let colon = memchr(b':', line);
        let name = line.get(..colon.unwrap_or(len))?;
        let mut value = colon.map_or(len, |colon| colon + 1);
        if line.get(value) == Some(&b' ') {
            value += 1;
        }
        let (before, after) = self.event.split_at_checked(self.at + value)?;
        let (value, after) = after.split_at_checked(len - value)?;
        // The two bytes of `\r\n` make an empty line between them here, which has no name.
        self.at += len + 1;
        Some(Field { name, value, before, after })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sse::tests::{chunks, parse, streams};
    use super::*;

    fn run(chunks: &[&[u8]]) -> Result<(String, Vec<String>), Refused> {
        let (mut rewriter, mut out, mut asked) = (EndpointRewriter::new(), Vec::new(), Vec::new());
        for chunk in chunks {
            rewriter.push(chunk, &mut out, &mut |text| {
                asked.push(text.to_owned());
                (text != "/no").then(|| format!("<{text}>"))
            })?;
        }
        rewriter.finish(&mut out);
        Ok((String::from_utf8_lossy(&out).into_owned(), asked))
    }

    fn whole(stream: &str) -> Result<String, Refused> {
        run(&[stream.as_bytes()]).map(|(out, _)| out)
    }

    #[test]
    fn the_forms_of_the_sdks() {
        // TypeScript 1.32 and Python 2.3, as captured.
        let ts = "event: endpoint\ndata: /messages?sessionId=01e0802e-8dce\n\n";
        assert_eq!(
            whole(ts).unwrap(),
            "event: endpoint\ndata: </messages?sessionId=01e0802e-8dce>\n\n"
        );
        let py = "event: endpoint\r\ndata: /messages/?session_id=a963\r\n\r\n: ping\r\n\r\n";
        assert_eq!(
            whole(py).unwrap(),
            "event: endpoint\r\ndata: </messages/?session_id=a963>\r\n\r\n: ping\r\n\r\n"
        );
    }

    #[test]
    fn a_mark_is_a_mark_only_at_the_very_start() {
        let marked = "\u{feff}data: /x\nevent: endpoint\n\n";
        assert_eq!(whole(marked).unwrap(), "\u{feff}data: </x>\nevent: endpoint\n\n");
        for before in ["\n", ": a\n", "id: 1\n\n"] {
            let stream = format!("{before}{marked}");
            assert_eq!(whole(&stream).unwrap(), stream, "no parser sees data there");
        }
    }

    #[test]
    fn other_forms() {
        for (stream, expected) in [
            ("data:/m\revent:endpoint\r\r", "data:</m>\revent:endpoint\r\r"),
            ("\u{feff}event: endpoint\ndata: /m\n\n", "\u{feff}event: endpoint\ndata: </m>\n\n"),
            (
                ": a\n\nretry: 5\n\nevent: endpoint\ndata: /m\n\n",
                ": a\n\nretry: 5\n\nevent: endpoint\ndata: </m>\n\n",
            ),
            (
                "event: x\nevent: endpoint\nid: 1\ndata: /m\n: c\n\n",
                "event: x\nevent: endpoint\nid: 1\ndata: </m>\n: c\n\n",
            ),
            ("event: endpoint\ndata\n\n", "event: endpoint\ndata:<>\n\n"),
            ("event: endpoint\ndata:\n\n", "event: endpoint\ndata:<>\n\n"),
        ] {
            assert_eq!(whole(stream).unwrap(), expected);
        }
    }

    #[test]
    fn other_first_events_pass_and_end_the_search() {
        for stream in [
            "data: x\n\nevent: endpoint\ndata: /m\n\n",
            "event: endpoint\nevent: message\ndata: /m\n\nevent: endpoint\ndata: /m\n\n",
            "event: Endpoint\ndata: /m\n\n",
            "event: endpoint\ndata: /m\n",
            "event: endpoint\nDATA: /m\n\n",
        ] {
            assert_eq!(whole(stream).unwrap(), stream);
        }
    }

    #[test]
    fn only_the_first_is_rewritten() {
        let stream = "event: endpoint\ndata: /m\n\n";
        assert_eq!(
            whole(&stream.repeat(2)).unwrap(),
            format!("event: endpoint\ndata: </m>\n\n{stream}")
        );
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        assert_eq!(whole("event: endpoint\ndata: /no\n\n"), Err(Refused));
        assert_eq!(whole("event: endpoint\ndata: /a\ndata: /b\n\n"), Err(Refused));
        assert_eq!(run(&[b"event: endpoint\ndata: /\xff\n\n"]), Err(Refused));
        let mut split = |_: &str| Some("/a\n\ndata: x".to_owned());
        let got = EndpointRewriter::new().push(
            b"event: endpoint\ndata: /a\n\n",
            &mut Vec::new(),
            &mut split,
        );
        assert_eq!(got, Err(Refused));
    }

    #[test]
    fn comments_go_on_at_once_and_events_when_complete() {
        let (mut rewriter, mut out) = (EndpointRewriter::new(), Vec::new());
        let mut map = |text: &str| Some(text.to_uppercase());
        for (chunk, after) in [
            (": pi", ": pi"),
            ("ng\n\n", ": ping\n\n"),
            ("event: endpo", ": ping\n\n"),
            ("int\ndata: /m\n", ": ping\n\n"),
            ("\n", ": ping\n\nevent: endpoint\ndata: /M\n\n"),
            ("da", ": ping\n\nevent: endpoint\ndata: /M\n\nda"),
        ] {
            assert!(!rewriter.done() || chunk == "da");
            rewriter.push(chunk.as_bytes(), &mut out, &mut map).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), after);
        }
        assert!(rewriter.done());
    }

    #[test]
    fn a_long_first_event_passes() {
        let of = |len: usize| {
            let head = "event: endpoint\ndata: ";
            format!("{head}{}\n\n", "x".repeat(len - head.len() - 2))
        };
        let (fits, long) = (of(MAX_EVENT), of(MAX_EVENT + 1));
        for size in [1, 1000, 20_000] {
            let split =
                |stream: &str| run(&stream.as_bytes().chunks(size).collect::<Vec<_>>()).unwrap().0;
            assert_ne!(split(&fits), fits, "{size}");
            assert_eq!(split(&long), long, "{size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn chunks_do_not_matter(stream in streams(), cuts in proptest::collection::vec(0usize..200, 0..12)) {
            prop_assert_eq!(run(&chunks(&stream, &cuts)), run(&[&stream]));
        }

        #[test]
        fn the_first_endpoint_is_mapped_and_nothing_else(stream in streams()) {
            let (before, _) = parse(&stream, false);
            let is_endpoint = before.first().is_some_and(|first| first.0 == "endpoint");
            match run(&[&stream]) {
                Err(Refused) => prop_assert!(is_endpoint && before[0].1.contains('\n')),
                Ok((out, asked)) => {
                    let mut expected = before;
                    if is_endpoint {
                        prop_assert_eq!(&asked, &[expected[0].1.clone()]);
                        expected[0].1 = format!("<{}>", expected[0].1);
                    } else {
                        prop_assert_eq!(out.as_bytes(), &stream[..]);
                    }
                    prop_assert_eq!(parse(out.as_bytes(), false).0, expected);
                }
            }
        }
    }
}
