//! Who is it? In: a head and a client; out: a `Principal` or a `Denial`.
//!
//! A method is one folder and one line in [`METHODS`]. A route's methods run in the order of its
//! config; the first that finds a credential of its own shape decides, refusal included.

mod anonymous;
pub mod compile;

use std::sync::Arc;

use crate::base::caller::{Authenticate, Client};
use crate::base::compile::{Cx, Node};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::principal::Principal;

/// Every method that a route's `auth` list may name.
pub const METHODS: &[Method] = &[anonymous::METHOD];

/// A method's entry in the table.
pub struct Method {
    /// As configs write it.
    pub name: &'static str,
    /// Makes the method from what stands below its name (`None` when written as a bare word).
    pub compile: Compile,
}

/// Makes a method from its settings; what is wrong is noted in the context.
pub type Compile = fn(Option<&Node>, &mut Cx) -> Option<Arc<dyn Authenticate>>;

/// Runs a route's methods in order.
///
/// # Errors
/// 401 when no method found a credential, or the refusal of the one that did.
pub async fn authenticate(
    methods: &[Arc<dyn Authenticate>],
    head: &Head,
    client: &Client,
) -> Result<Principal, Denial> {
    for method in methods {
        if let Some(principal) = method.authenticate(head, client).await? {
            return Ok(principal);
        }
    }
    Err(Denial::new(Reason::Unauthenticated, "auth.none", "Authentication is required"))
}
