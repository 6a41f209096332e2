//! What outlives a reload: in, a description of something that remembers; out, the one that was there before
//! under the same description, or a new one.
//!
//! Counters, caches and what was fetched belong to a part of the config. While that part says the same, so
//! does its description, and the next generation goes on with what the one before has.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::compile::{Node, NodeKind};
use super::text::hex;

/// Things by their descriptions; cheap to clone.
#[derive(Clone, Default)]
pub struct Kept(HashMap<String, Arc<dyn Any + Send + Sync>>);

impl Kept {
    /// What is there under a description, if it is of this type.
    pub(super) fn get<T: Any + Send + Sync>(&self, key: &str) -> Option<Arc<T>> {
        self.0.get(key)?.clone().downcast().ok()
    }

    pub(super) fn put<T: Any + Send + Sync>(&mut self, key: String, value: Arc<T>) {
        self.0.insert(key, value);
    }
}

/// Descriptions may have secrets in them.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({})", self.0.len())
    }
}

/// A sum of what something says. What is shown of it is nothing: two that say the same look the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sum(String);

impl Sum {
    /// Of this and of what else says something of the same.
    #[must_use]
    pub fn and(&self, more: &str) -> Self {
        Self(format!("{} {more}", self.0))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sum")
    }
}

impl From<String> for Sum {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A sum of what a node says after substitution, wherever it stands: equal for what means the same.
pub fn fingerprint(node: &Node) -> String {
    let mut sum = Sha256::new();
    add(node, &mut sum);
    hex(&sum.finalize())
}

/// A sum of what is in a file, for what is read once; the same for all that cannot be read.
pub fn content(path: &Path) -> String {
    let mut sum = Sha256::new();
    sum.update(super::files::read(path).unwrap_or_default());
    hex(&sum.finalize())
}

/// Lengths stand before texts, so that no two trees make the same bytes.
fn add(node: &Node, sum: &mut Sha256) {
    let mut length = |mark: u8, n: usize| {
        sum.update([mark]);
        sum.update((n as u64).to_be_bytes());
    };
    match &node.kind {
        NodeKind::Null | NodeKind::Broken => length(0, 0),
        NodeKind::Scalar { text, plain, .. } => {
            length(if *plain { 1 } else { 2 }, text.len());
            sum.update(text);
        }
        NodeKind::Seq(items) => {
            length(3, items.len());
            items.iter().for_each(|item| add(item, sum));
        }
        NodeKind::Map(entries) => {
            length(4, entries.len());
            for (key, _, value) in entries {
                sum.update((key.len() as u64).to_be_bytes());
                sum.update(key);
                add(value, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, line: usize) -> Node {
        let kind = NodeKind::Scalar { text: text.into(), plain: true, written: None };
        Node { line, kind }
    }

    #[test]
    fn a_fingerprint_is_of_what_is_said_and_not_of_where() {
        let seq = |items: Vec<Node>, line| Node { line, kind: NodeKind::Seq(items) };
        let one = seq(vec![text("a", 1), text("b", 2)], 1);
        assert_eq!(fingerprint(&one), fingerprint(&seq(vec![text("a", 7), text("b", 9)], 7)));
        for other in [
            seq(vec![text("ab", 1)], 1),
            seq(vec![text("b", 1), text("a", 2)], 1),
            seq(vec![one.clone()], 1),
            text("a", 1),
        ] {
            assert_ne!(fingerprint(&one), fingerprint(&other));
        }
    }
}
