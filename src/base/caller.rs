//! Who is on the other end, and how one finds out: the types that routes, auth and balance share.

use std::fmt;
use std::net::IpAddr;

use async_trait::async_trait;

use super::denial::Denial;
use super::head::Head;
use super::principal::Principal;

/// The other end, as far as addresses tell. Only `client` makes one.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS to us.
    pub tls: bool,
}

/// One way to say who a caller is. The methods are in `auth`.
#[async_trait]
pub trait Authenticate: Send + Sync + fmt::Debug {
    /// The method's name in configs and logs.
    fn name(&self) -> &'static str;

    /// `Ok(None)`: no credential of mine here. `Err`: mine, and bad; the chain stops.
    ///
    /// # Errors
    /// The refusal of a credential of this method's own shape.
    async fn authenticate(&self, head: &Head, client: &Client)
    -> Result<Option<Principal>, Denial>;
}
