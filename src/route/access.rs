//! A route's address lists: in, a client's address; out, nothing, or the refusal of one that is not allowed.

use std::net::IpAddr;

use super::settings::RouteSettings;
use crate::base::denial::{Denial, Reason};

/// Looks an address up in a route's lists.
///
/// # Errors
/// 403.
pub fn check(route: &RouteSettings, address: IpAddr) -> Result<(), Denial> {
    if route.access.admits(address) {
        return Ok(());
    }
    Err(Denial::new(Reason::Forbidden, "route.address", "This address is not allowed here"))
}
