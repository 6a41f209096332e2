//! `address`: in, who asks; out, one for each IPv4 address and each IPv6 /64, which is what one subscriber has.

use std::sync::Arc;

use super::{Key, Kind, bare};
use crate::base::cidr::subscriber;
use crate::base::compile::{Cx, Node};
use crate::base::limits::Asker;

/// The table line.
pub(super) const KIND: Kind = Kind { name: "address", before_auth: true, compile };

fn compile(node: Option<&Node>, _: usize, cx: &mut Cx) -> Option<Arc<dyn Key>> {
    bare(KIND.name, node, cx)?;
    Some(Arc::new(Address))
}

#[derive(Debug)]
struct Address;

impl Key for Address {
    fn of(&self, asker: &Asker<'_>) -> u128 {
        subscriber(asker.client.address)
    }

    fn name(&self) -> &str {
        KIND.name
    }
}
