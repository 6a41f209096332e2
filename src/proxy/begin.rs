//! A request's beginning: in, its head; out, a record with an id.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use crate::base::head::{Head, Version};
use crate::base::random;
use crate::base::text::push_hex;
use crate::observe::record::Record;

/// A record of a request that has just come in.
pub(crate) fn begin(head: &Head, client: IpAddr) -> Record {
    Record {
        request_id: request_id(),
        http: match head.version {
            Version::H10 => "1.0",
            Version::H11 => "1.1",
            Version::H2 => "2",
        },
        path: head.path.clone(),
        ..Record::begin(Instant::now(), SystemTime::now(), client, head.method.clone())
    }
}

/// 128 bits in hex: 64 that are random for the process, and a counter that is spread over 64 more.
/// Unique and of no pattern, but no secret; and no system call per request.
fn request_id() -> String {
    let mut id = Vec::with_capacity(32);
    push_hex(random::process(), &mut id);
    push_hex(random::next(), &mut id);
    String::from_utf8(id).unwrap_or_default()
}
