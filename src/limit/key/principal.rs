//! `principal`: in, who asks; out, one for each authenticated caller. All anonymous callers are one.

use std::sync::Arc;

use super::{Key, Kind, bare, hashed};
use crate::base::compile::{Cx, Node};
use crate::base::limits::Asker;

/// The table line.
pub(super) const KIND: Kind = Kind { name: "principal", before_auth: false, compile };

fn compile(node: Option<&Node>, _: usize, cx: &mut Cx) -> Option<Arc<dyn Key>> {
    bare(KIND.name, node, cx)?;
    Some(Arc::new(Caller))
}

#[derive(Debug)]
struct Caller;

impl Key for Caller {
    fn of(&self, asker: &Asker<'_>) -> u128 {
        // by what sessions are bound to
        hashed(asker.principal.map(|p| (p.method, &p.issuer, &p.subject)))
    }

    fn name(&self) -> &str {
        KIND.name
    }
}
