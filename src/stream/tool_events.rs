//! Lists of tools in event streams. In: a server's bytes, however split; out: the same bytes, with events
//! that hold a list written anew.
//!
//! An event is held until it is complete; comments and empty lines between events go on at once.

use memchr::memchr2;

use super::held::Held;
use super::tools::{Refused, Shows, cut, may_be_list};
use crate::base::text::BOM;
use crate::limit::buffer::{Budget, Share};

/// Events up to this size are not counted into the buffer budget, in bytes.
const FREE: usize = 64 * 1024;

/// Cuts the lists of one stream.
pub struct ListFilter {
    shows: Shows,
    /// Largest event, in bytes with its line ends.
    limit: usize,
    budget: Budget,
    share: Share,
    held: Held,
    /// How much of a byte order mark has come; `None` when it can no longer come.
    mark: Option<usize>,
}

impl ListFilter {
    /// At the start of a stream.
    pub fn new(shows: Shows, limit: usize, budget: Budget) -> Self {
        let (share, held) = (Share::default(), Held::new());
        Self { shows, limit, budget, share, held, mark: Some(0) }
    }

    /// Takes the next bytes and appends to `out` what may go on.
    ///
    /// # Errors
    /// The stream must not go on.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        let mut rest = chunk;
        if let Some(seen) = self.mark {
            rest = self.begin(seen, rest, out);
        }
        while !rest.is_empty() {
            rest = self.step(rest, out)?;
        }
        if self.held.len() > FREE {
            let held = self.held.len() as u64;
            self.budget.grow(&mut self.share, held).map_err(|_| Refused::Full)?;
        }
        Ok(())
    }

    /// The stream has ended. An event that is not complete is none, but there are parsers that take it
    /// for one.
    ///
    /// # Errors
    /// As [`ListFilter::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Refused> {
        if let Some(seen) = self.mark.take() {
            self.held.hold(BOM.get(..seen).unwrap_or_default());
        }
        self.end_event(out)
    }

    /// Lets a byte order mark pass, of which so much has been seen.
    fn begin<'a>(&mut self, seen: usize, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let wanted = BOM.get(seen..).unwrap_or_default();
        let same = wanted.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        if same == wanted.len() {
            out.extend_from_slice(&BOM);
            self.mark = None;
        } else if same == bytes.len() {
            self.mark = Some(seen + same);
        } else {
            // another's first bytes
            self.held.hold(BOM.get(..seen + same).unwrap_or_default());
            self.mark = None;
        }
        bytes.get(same..).unwrap_or_default()
    }

    /// Takes one line, or what there is of it, and returns what follows.
    fn step<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Refused> {
        let (rest, complete) = self.held.line(bytes, out);
        if self.held.len() > self.limit {
            return Err(Refused::TooLarge);
        }
        if complete {
            self.end_event(out)?;
        }
        Ok(rest)
    }

    /// Lets the event go that is held.
    fn end_event(&mut self, out: &mut Vec<u8>) -> Result<(), Refused> {
        let held = self.held.take();
        match rewritten(&held, &*self.shows)? {
            Some(new) => out.extend_from_slice(&new),
            None => out.extend_from_slice(&held),
        }
        self.share = Share::default();
        Ok(())
    }
}

/// An event with the list in it cut; `None` where it can go on as it is.
fn rewritten(event: &[u8], shows: &dyn Fn(&str) -> bool) -> Result<Option<Vec<u8>>, Refused> {
    // no text of JSON goes over a line's end, so that a key stands in one line
    if !may_be_list(event) {
        return Ok(None);
    }
    let values: Vec<&[u8]> = lines(event).filter_map(|line| data(line.text)).collect();
    let Some(new) = cut(&values.join(&b'\n'), shows)? else { return Ok(None) };
    let (mut out, mut written) = (Vec::with_capacity(event.len()), false);
    for line in lines(event) {
        if data(line.text).is_none() {
            // where a line before this one is gone, another's CR must not make one end of the two
            if line.text.is_empty() && line.end == b"\n" && out.last() == Some(&b'\r') {
                out.push(b'\n');
            }
            out.extend_from_slice(line.text);
            out.extend_from_slice(line.end);
        } else if !std::mem::replace(&mut written, true) {
            for part in new.split(|b| *b == b'\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(part);
                out.extend_from_slice(if line.end.is_empty() { b"\n" } else { line.end });
            }
        }
    }
    Ok(Some(out))
}

/// A line and what ends it: nothing, where the stream ends in it.
struct Line<'a> {
    text: &'a [u8],
    end: &'a [u8],
}

fn lines(event: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = event;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (text, more) = rest.split_at(memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()));
        let end = match more {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let (end, after) = more.split_at(end);
        rest = after;
        Some(Line { text, end })
    })
}

/// The value of a `data` field (WHATWG HTML §9.2.6); `None` for all other lines.
fn data(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::sse::tests::{chunks, parse, streams};
    use super::super::tools::tests::{answers, model, shows};
    use super::*;

    fn filter(limit: usize) -> ListFilter {
        ListFilter::new(Box::new(shows), limit, Budget::new(1 << 20))
    }

    fn run(chunks: &[&[u8]]) -> Result<Vec<u8>, Refused> {
        let (mut filter, mut out) = (filter(1 << 20), Vec::new());
        for chunk in chunks {
            filter.push(chunk, &mut out)?;
        }
        filter.finish(&mut out)?;
        Ok(out)
    }

    fn whole(stream: &str) -> String {
        String::from_utf8(run(&[stream.as_bytes()]).unwrap()).unwrap()
    }

    const LIST: &str = r#"{"id":1,"result":{"tools":[{"name":"drop"},{"name":"get_a"}]}}"#;
    const CUT: &str = r#"{"id":1,"result":{"tools":[{"name":"get_a"}]}}"#;

    #[test]
    fn events_with_lists_are_written_anew() {
        for (event, expected) in [
            (format!("data: {LIST}\n\n"), format!("data: {CUT}\n\n")),
            (format!("data:{LIST}\r\n\r\n"), format!("data: {CUT}\r\n\r\n")),
            (format!("data: {LIST}\r\r"), format!("data: {CUT}\r\r")),
            (
                format!(": a\nid: 7\nevent: message\ndata: {LIST}\nretry: 5\n: b\n\n: c\n\n"),
                format!(": a\nid: 7\nevent: message\ndata: {CUT}\nretry: 5\n: b\n\n: c\n\n"),
            ),
            (format!("\u{feff}data: {LIST}\n\n"), format!("\u{feff}data: {CUT}\n\n")),
            (
                format!("data: x\n\ndata: {LIST}\n\ndata: y\n\n"),
                format!("data: x\n\ndata: {CUT}\n\ndata: y\n\n"),
            ),
            // several lines: what was between them stays a line's end
            (
                "data: {\"result\":\r\nid: 1\r\ndata: {\"tools\":[{\"name\":\"drop\"}],\r\ndata: \"x\":1}}\r\n\r\n".into(),
                "data: {\"result\":\r\ndata: {\"tools\":[],\r\ndata: \"x\":1}}\r\nid: 1\r\n\r\n".into(),
            ),
            (
                "data: {\"result\":{\"tools\":\ndata: [{\"name\":\ndata: \"drop\"}]}}\n\n".into(),
                "data: {\"result\":{\"tools\":\ndata: []}}\n\n".into(),
            ),
            // no event for most parsers, but for some
            (format!("data: {LIST}"), format!("data: {CUT}\n")),
            (format!("data: {LIST}\n"), format!("data: {CUT}\n")),
            (format!("data: {LIST}\r"), format!("data: {CUT}\r")),
        ] {
            assert_eq!(whole(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn what_is_no_data_stays() {
        for same in [
            format!("event: {LIST}\n\n"),
            format!("Data: {LIST}\n\n"),
            format!(" data: {LIST}\n\n"),
            format!(": data: {LIST}\n\n"),
            format!("\n\u{feff}data: {LIST}\n\n"),
            format!("data: {CUT}\n\n"),
            format!("data:{CUT}\r\n\r\n: x\r\n\r\n"),
            "event: endpoint\ndata: /messages?sessionId=1\n\n".into(),
            "data\n\nid\n\n\n\n: ping\n\ndata: {\"tools".into(),
        ] {
            assert_eq!(whole(&same), same);
        }
    }

    #[test]
    fn whatever_could_be_a_list_ends_the_stream() {
        for bad in ["data: {\"tools\"\n\n", "data: \"tools\": [\ndata: x\n\n", "data: {\"tools\""] {
            assert_eq!(run(&[bad.as_bytes()]), Err(Refused::Unreadable), "{bad}");
        }
    }

    #[test]
    fn events_go_when_complete_and_the_rest_at_once() {
        let (mut filter, mut out) = (filter(1000), Vec::new());
        for (chunk, after) in [
            ("\u{feff}", "\u{feff}"),
            (": pi", "\u{feff}: pi"),
            ("ng\n", "\u{feff}: ping\n"),
            ("\n", "\u{feff}: ping\n\n"),
            ("data: x\n", "\u{feff}: ping\n\n"),
            ("\n: c", "\u{feff}: ping\n\ndata: x\n\n: c"),
        ] {
            filter.push(chunk.as_bytes(), &mut out).unwrap();
            assert_eq!(String::from_utf8_lossy(&out), after);
        }
    }

    #[test]
    fn two_ends_of_lines_do_not_become_one() {
        let out = whole(&format!("data:\nevent: message\rdata: {LIST}\n\n"));
        assert_eq!(out, format!("data: \ndata: {CUT}\nevent: message\r\n\n"));
        let out = whole(&format!("data: {LIST}\rid: 1\rdata:\n\n"));
        assert_eq!(parse(out.as_bytes(), false).0.len(), 1, "{out:?}");
    }

    #[test]
    fn an_event_is_bounded_and_a_stream_is_not() {
        let event = |len: usize| format!("data: {}\n\n", "x".repeat(len - 8));
        let mut out = Vec::new();
        let mut small = filter(100);
        for _ in 0..1000 {
            small.push(event(100).as_bytes(), &mut out).unwrap();
            small.push(format!(": {}\n\n", "c".repeat(500)).as_bytes(), &mut out).unwrap();
        }
        assert_eq!(out.len(), 1000 * (100 + 504));
        assert_eq!(small.push(event(101).as_bytes(), &mut out), Err(Refused::TooLarge));
        let mut endless = filter(100);
        let fed = (0..101).find_map(|_| endless.push(b"x", &mut out).err());
        assert_eq!(fed, Some(Refused::TooLarge));
    }

    #[test]
    fn large_events_take_their_share_of_the_budget() {
        let budget = Budget::new(100_000);
        let new = || ListFilter::new(Box::new(shows), 1 << 20, budget.clone());
        let (mut one, mut two, mut out) = (new(), new(), Vec::new());
        let large = vec![b'x'; 70_000];
        one.push(&large, &mut out).unwrap();
        assert_eq!(two.push(&large, &mut out), Err(Refused::Full));
        one.push(b"\n\n", &mut out).unwrap();
        assert_eq!(out.len(), 70_002);
        assert_eq!(new().push(&large, &mut out), Ok(()), "given back");
    }

    /// Streams with lists among the events, in all framings.
    fn with_lists() -> impl Strategy<Value = Vec<u8>> {
        let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
        let event =
            (answers(), any::<bool>(), end, any::<bool>()).prop_map(|(answer, pretty, end, id)| {
                let text = if pretty {
                    serde_json::to_string_pretty(&answer)
                } else {
                    serde_json::to_string(&answer)
                };
                let id = if id { format!("id: 5{end}") } else { String::new() };
                let data: String =
                    text.unwrap().split('\n').map(|line| format!("data: {line}{end}")).collect();
                format!("{id}{data}{end}").into_bytes()
            });
        proptest::collection::vec(prop_oneof![2 => event, 1 => streams()], 0..5)
            .prop_map(|all| all.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn chunks_do_not_matter(stream in with_lists(), cuts in proptest::collection::vec(0usize..2000, 0..12)) {
            prop_assert_eq!(run(&chunks(&stream, &cuts)), run(&[&stream]));
        }

        #[test]
        fn other_streams_stay_as_they_are(stream in streams(), cuts in proptest::collection::vec(0usize..200, 0..12)) {
            prop_assert_eq!(run(&chunks(&stream, &cuts)), Ok(stream));
        }

        #[test]
        fn parsers_see_what_the_caller_may(stream in with_lists()) {
            let Ok(out) = run(&[&stream]) else {
                // glued to garbage, a list can no longer be read
                prop_assert!(super::super::tools::may_be_list(&stream));
                return Ok(());
            };
            let (before, after) = (parse(&stream, false), parse(&out, false));
            prop_assert_eq!(before.1, after.1);
            prop_assert_eq!(before.0.len(), after.0.len());
            for (was, is) in before.0.iter().zip(&after.0) {
                prop_assert_eq!((&was.0, &was.2), (&is.0, &is.2));
                // clients that take a text from bytes drop the mark, so the filter reads behind it
                let bare = |text: &str| text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
                let Ok(mut expected) = serde_json::from_str::<Value>(&bare(&was.1)) else {
                    prop_assert_eq!(&was.1, &is.1);
                    continue;
                };
                let untouched = expected.clone();
                model(&mut expected);
                prop_assert_eq!(&serde_json::from_str::<Value>(&bare(&is.1)).unwrap(), &expected);
                prop_assert!(expected != untouched || was.1 == is.1);
            }
        }
    }
}
