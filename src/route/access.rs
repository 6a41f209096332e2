//! A route's address lists: in, a client; out, nothing, or the refusal of one that is not allowed.

use super::settings::RouteSettings;
use crate::base::caller::Client;
use crate::base::denial::{Denial, Reason};

/// Looks a client up in a route's lists. Who has no address is in no list, and could be in each.
///
/// # Errors
/// 403.
pub fn check(route: &RouteSettings, client: &Client) -> Result<(), Denial> {
    if !route.access.asks() || (!client.hidden && route.access.admits(client.address)) {
        return Ok(());
    }
    Err(Denial::new(Reason::Forbidden, "route.address", "This address is not allowed here"))
}
