//! `route`: in, who asks; out, one for all.

use std::sync::Arc;

use super::{Key, Kind, bare};
use crate::base::compile::{Cx, Node};
use crate::base::limits::Asker;

/// The table line.
pub(super) const KIND: Kind = Kind { name: "route", before_auth: false, compile };

fn compile(node: Option<&Node>, _: usize, cx: &mut Cx) -> Option<Arc<dyn Key>> {
    bare(KIND.name, node, cx)?;
    Some(Arc::new(Route))
}

#[derive(Debug)]
struct Route;

impl Key for Route {
    fn of(&self, _: &Asker<'_>) -> u128 {
        0
    }

    fn name(&self) -> &str {
        KIND.name
    }
}
