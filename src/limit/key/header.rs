//! `{ header: NAME }`: in, a request; out, one for each value of a header. All requests without it are one, so
//! that nobody escapes by leaving it out.
//!
//! A client may send any value: such a limit divides what a trusted sender tells apart, such as tenants. It
//! does not hold off strangers; for these put a limit by address or principal beside it.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::{Key, Kind, hashed};
use crate::base::compile::{Cx, Node};
use crate::base::limits::Asker;

/// The table line.
pub(super) const KIND: Kind = Kind { name: "header", before_auth: false, compile };

fn compile(node: Option<&Node>, line: usize, cx: &mut Cx) -> Option<Arc<dyn Key>> {
    let Some(node) = node else {
        let problem = "which header? Write one such as `{ header: X-Tenant-ID }`";
        cx.error_at(line, problem);
        return None;
    };
    let name = cx.parse(node, "the name of a header", |text| {
        HeaderName::try_from(text).map_err(|_| format!("`{text}` is not the name of a header"))
    })?;
    let policy = format!("{}-{name}", KIND.name);
    Some(Arc::new(Header { name, policy }))
}

#[derive(Debug)]
struct Header {
    name: HeaderName,
    policy: String,
}

impl Key for Header {
    fn of(&self, asker: &Asker<'_>) -> u128 {
        // none at all is a value, too
        let values = asker.head.headers.get_all(&self.name).iter().map(HeaderValue::as_bytes);
        hashed(values.collect::<Vec<_>>())
    }

    fn name(&self) -> &str {
        &self.policy
    }
}
