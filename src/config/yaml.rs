//! YAML: in, a file's text; out, a tree of nodes with lines.
//!
//! A small YAML: one document, no anchors, no aliases, no tags, keys are scalars. Aliases can blow a
//! small file up without bound, and none of them helps in a file of this kind.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use crate::base::compile::{ConfigError, Node, NodeKind};

/// Deeper nesting is refused; a config needs about eight levels.
const MAX_DEPTH: usize = 32;
/// Longer texts are refused, in bytes: room for some 50,000 routes.
pub(super) const MAX_TEXT: u64 = 16 << 20;

/// Parses one document.
///
/// # Errors
/// The first thing that is not YAML, or not in the subset above, with its line.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    if text.len() as u64 > MAX_TEXT {
        return Err(problem(0, "a config has at most 16 MiB"));
    }
    read(text).map_err(|mut e| {
        // what is missing at the end is reported behind it, on a line that nobody can look at
        e.line = e.line.min(lines(text));
        e
    })
}

/// Lines of a text, as YAML ends them (YAML 1.2.2 §5.4); at least 1.
fn lines(text: &str) -> usize {
    let text = text.replace("\r\n", "\n");
    let breaks = text.bytes().filter(|b| matches!(b, b'\n' | b'\r')).count();
    (breaks + usize::from(!text.ends_with(['\n', '\r']))).max(1)
}

fn read(text: &str) -> Result<Node, ConfigError> {
    let mut reader = Reader { parser: Parser::new_from_str(text) };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => break,
            _ if root.is_some() => {
                return Err(problem(
                    line(&span),
                    "a config is one document: a second one starts here",
                ));
            }
            event => root = Some(reader.node(event, &span, 0)?),
        }
    }
    match root {
        None | Some(Node { kind: NodeKind::Null, .. }) => Err(problem(0, "the config is empty")),
        Some(node) => Ok(node),
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), ConfigError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => Err(problem(e.marker().line(), format!("not YAML: {}", e.info()))),
            None => Err(problem(0, "not YAML: it ends too early")),
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, ConfigError> {
        let line = line(span);
        if depth > MAX_DEPTH {
            return Err(problem(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (anchor, tagged) = match &event {
            Event::Alias(_) => return Err(problem(line, "aliases are not allowed here")),
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            _ => (0, false),
        };
        if anchor != 0 {
            return Err(problem(line, "anchors are not allowed here"));
        }
        if tagged {
            return Err(problem(line, "tags are not allowed here"));
        }
        let kind = match event {
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            _ => return Err(problem(line, "not YAML: a value is missing")),
        };
        Ok(Node { line, kind })
    }

    fn list(&mut self, depth: usize) -> Result<NodeKind, ConfigError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(NodeKind::Seq(items));
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<NodeKind, ConfigError> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(NodeKind::Map(entries));
            }
            let key = self.node(event, &span, depth + 1)?;
            let NodeKind::Scalar { text, .. } = key.kind else {
                return Err(problem(key.line, "a key must be a word"));
            };
            let (event, span) = self.next()?;
            let mut value = self.node(event, &span, depth + 1)?;
            // what is nothing or starts on the next line is looked for at its key
            if !matches!(value.kind, NodeKind::Scalar { .. }) {
                value.line = key.line;
            }
            entries.push((text, key.line, value));
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> NodeKind {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return NodeKind::Null;
    }
    NodeKind::Scalar { text, plain, written: None }
}

fn line(span: &Span) -> usize {
    span.start.line()
}

fn problem(line: usize, problem: impl Into<String>) -> ConfigError {
    ConfigError { line, path: String::new(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_is_missing_on_the_last_line() {
        for (text, line) in [("[", 1), ("a: [\n", 1), ("a: 1\r\nb: [\r\n", 2), ("a:\rb: {", 2)] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let node = parse("# a comment\na: 1\nb:\n  - x\n  - { c: \"2\" }\nd:\n").unwrap();
        let NodeKind::Map(entries) = node.kind else { panic!() };
        let lines: Vec<_> = entries.iter().map(|(k, l, n)| (k.as_str(), *l, n.line)).collect();
        assert_eq!(lines, [("a", 2, 2), ("b", 3, 3), ("d", 6, 6)]);
        let NodeKind::Seq(items) = &entries[1].2.kind else { panic!() };
        assert_eq!((items[0].line, items[1].line), (4, 5));
        assert_eq!(entries[2].2.kind, NodeKind::Null);
    }

    #[test]
    fn only_the_small_yaml_is_read() {
        assert_eq!(error(""), "the config is empty");
        assert_eq!(error("# only a comment\n"), "the config is empty");
        assert_eq!(error("a: &x 1\n"), "1: anchors are not allowed here");
        assert_eq!(error("a: 1\nb: *x\n"), "2: not YAML: while parsing node, found unknown anchor");
        assert_eq!(error("a: !secret 1\n"), "1: tags are not allowed here");
        assert_eq!(
            error("a: 1\n---\nb: 1\n"),
            "3: a config is one document: a second one starts here"
        );
        assert_eq!(error("? [a]\n: 1\n"), "1: a key must be a word");
        assert!(error("a: [1\n").contains("not YAML"));
        assert!(error("a: 'x\n").contains("not YAML"));
        assert!(error(&"x".repeat(MAX_TEXT as usize + 1)).contains("16 MiB"));
    }

    #[test]
    fn depth_is_bounded() {
        assert!(error(&"[".repeat(40)).contains("deeper"));
        assert!(error(&"- ".repeat(40)).contains("deeper"));
        assert!(error(&"{a: ".repeat(40)).contains("deeper"));
        for open in ["[", "- ", "{a: ", "? "] {
            assert!(parse(&open.repeat(100_000)).is_err());
        }
    }
}
