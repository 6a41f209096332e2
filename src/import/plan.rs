//! The config that an import writes: in, keys with the places they come from; out, YAML with comments.

use std::fmt::Write;

use super::nginx::At;
use super::note::Note;
use crate::base::text::one_line;

/// One key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) value: Value,
    /// Where it comes from, or what there is to know.
    pub(super) comment: String,
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// YAML that fits on the key's line.
    Flow(String),
    /// A list of such, each on its own line with its comment.
    List(Vec<(String, String)>),
}

/// One listener, upstream or route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Item {
    /// Comments above it.
    pub(super) head: Vec<String>,
    pub(super) lines: Vec<Line>,
}

impl Item {
    /// Adds a key.
    pub(super) fn key(&mut self, key: &str, value: impl Into<String>, comment: impl Into<String>) {
        let (value, comment) = (Value::Flow(value.into()), comment.into());
        self.lines.push(Line { key: key.to_owned(), value, comment });
    }

    /// Adds a key that comes from a directive.
    pub(super) fn from(&mut self, key: &str, value: impl Into<String>, at: &At) {
        self.key(key, value, at.to_string());
    }

    /// Adds a list; nothing where it is empty.
    pub(super) fn list(&mut self, key: &str, entries: Vec<(String, String)>) {
        if !entries.is_empty() {
            let value = Value::List(entries);
            self.lines.push(Line { key: key.to_owned(), value, comment: String::new() });
        }
    }
}

/// The whole config.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) head: Vec<String>,
    pub(super) top: Item,
    pub(super) listeners: Vec<Item>,
    pub(super) upstreams: Vec<Item>,
    pub(super) routes: Vec<Item>,
}

impl Plan {
    /// Where the first listener that does answers ACME's challenges from.
    pub(super) fn webroot(&self) -> Option<String> {
        let mut lines = self.listeners.iter().flat_map(|item| &item.lines);
        match &lines.find(|line| line.key == "acme_webroot")?.value {
            Value::Flow(text) => Some(text.trim_matches('"').to_owned()),
            Value::List(_) => None,
        }
    }

    /// The YAML, the notes as comments at its end.
    pub(super) fn write(&self, notes: &[Note], last: &[String]) -> String {
        let mut out = String::new();
        for line in &self.head {
            comment(&mut out, 0, line);
        }
        if !self.top.lines.is_empty() {
            out.push('\n');
            keys(&mut out, &self.top, "");
        }
        let parts = [
            ("listeners", &self.listeners),
            ("upstreams", &self.upstreams),
            ("routes", &self.routes),
        ];
        for (name, items) in parts {
            if items.is_empty() {
                continue;
            }
            push(&mut out, &format!("\n{name}:"));
            for item in items {
                for line in &item.head {
                    comment(&mut out, 2, line);
                }
                keys(&mut out, item, "  - ");
            }
        }
        if !notes.is_empty() {
            out.push('\n');
            comment(&mut out, 0, "Not carried to the letter:");
            for note in notes {
                comment(&mut out, 0, &format!("  {note}"));
            }
        }
        if !last.is_empty() {
            out.push('\n');
            for line in last {
                comment(&mut out, 0, line);
            }
        }
        out
    }
}

/// The keys of a map, the first behind `first`.
fn keys(out: &mut String, item: &Item, first: &str) {
    let indent = " ".repeat(first.len());
    for (n, line) in item.lines.iter().enumerate() {
        let before = if n == 0 { first } else { &indent };
        match &line.value {
            Value::Flow(value) => {
                push(out, &with(&format!("{before}{}: {value}", line.key), &line.comment));
            }
            Value::List(entries) => {
                push(out, &format!("{before}{}:", line.key));
                for (value, comment) in entries {
                    push(out, &with(&format!("{indent}  - {value}"), comment));
                }
            }
        }
    }
}

fn with(text: &str, comment: &str) -> String {
    if comment.is_empty() { text.to_owned() } else { format!("{text}  # {}", within(comment)) }
}

fn comment(out: &mut String, indent: usize, text: &str) {
    let text = within(text);
    let hash = if text.is_empty() { "#" } else { "# " };
    push(out, &format!("{}{hash}{text}", " ".repeat(indent)));
}

/// A comment ends with its line, and what nginx's file says must not end it.
fn within(text: &str) -> String {
    one_line(&text.replace(char::is_whitespace, " "))
}

fn push(out: &mut String, line: &str) {
    // writing into memory does not fail
    let _ignored = writeln!(out, "{line}");
}
