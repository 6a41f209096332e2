//! Keys: in, who asks; out, the number under which a limit counts it.
//!
//! A kind of key is one file and one line in [`KEYS`]. (`session` and `tool` will stand here.) What a
//! client chooses freely is hashed with a secret of the process: keys are small, and nobody can aim at
//! another's.

mod address;
mod header;
mod principal;
mod route;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, LazyLock};

use crate::base::compile::{Cx, Node};
use crate::base::fields;
use crate::base::limits::Asker;

/// Every kind that a limit may name.
pub const KEYS: &[Kind] = &[address::KIND, principal::KIND, route::KIND, header::KIND];

/// A kind's entry in the table.
#[derive(Debug)]
pub struct Kind {
    /// As configs and metrics write it.
    pub name: &'static str,
    /// Whether it is known before anybody is authenticated, and then is asked first.
    pub before_auth: bool,
    /// Makes the key from what stands below its name (`None` when written as a bare word).
    pub compile: Compile,
}

/// Makes a key from its settings; what is wrong is noted in the context, at the line where it stands.
pub type Compile = fn(Option<&Node>, usize, &mut Cx) -> Option<Arc<dyn Key>>;

/// Tells askers apart.
pub trait Key: fmt::Debug + Send + Sync {
    /// The same for the same asker.
    fn of(&self, asker: &Asker<'_>) -> u128;

    /// A name for the policy, in the characters of a token.
    fn name(&self) -> &str;
}

/// Reads a limit's `key`.
pub(super) fn compile(node: &Node, cx: &mut Cx) -> Option<(&'static Kind, Arc<dyn Key>)> {
    let (name, settings) = fields::named(node, "key", cx)?;
    let Some(kind) = KEYS.iter().find(|kind| kind.name == name) else {
        let known: Vec<&str> = KEYS.iter().map(|kind| kind.name).collect();
        let hint = fields::hint(name, &known);
        cx.error(node, format!("there is no key {}{hint}", node.shown()));
        return None;
    };
    let key = cx.in_key(kind.name, |cx| (kind.compile)(settings, node.line, cx))?;
    Some((kind, key))
}

/// For kinds that are written as a bare word.
fn bare(name: &str, node: Option<&Node>, cx: &mut Cx) -> Option<()> {
    match node {
        None => Some(()),
        Some(node) => {
            cx.error(node, format!("`{name}` takes no settings"));
            None
        }
    }
}

/// 128 bits that nobody outside can choose.
fn hashed(value: impl Hash) -> u128 {
    static HASHERS: LazyLock<[RandomState; 2]> =
        LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    let [high, low] = &*HASHERS;
    u128::from(high.hash_one(&value)) << 64 | u128::from(low.hash_one(&value))
}
