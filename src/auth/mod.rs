//! Who is it? In: a head and a client; out: a `Principal` or a `Denial`.
//!
//! A method is one folder and one line in [`METHODS`]. A route's methods run in the order of its
//! config; the first that finds a credential of its own shape decides, refusal included.

mod anonymous;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::compile::{Cx, Node};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::principal::Principal;
use crate::client::Client;

/// Every method that a route's `auth` list may name.
pub const METHODS: &[Method] = &[anonymous::METHOD];

/// A method's entry in the table.
pub struct Method {
    /// As configs write it.
    pub name: &'static str,
    /// Makes the method from what stands below its name (`None` when written as a bare word).
    pub compile: fn(Option<&Node>, &mut Cx) -> Option<Arc<dyn Authenticate>>,
}

/// One way to say who a caller is.
#[async_trait]
pub trait Authenticate: Send + Sync + fmt::Debug {
    /// The method's name in configs and logs.
    fn name(&self) -> &'static str;

    /// `Ok(None)`: no credential of mine here. `Err`: mine, and bad; the chain stops.
    ///
    /// # Errors
    /// The refusal of a credential of this method's own shape.
    async fn authenticate(
        &self,
        head: &Head,
        client: &Client,
    ) -> Result<Option<Principal>, Denial>;
}

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
