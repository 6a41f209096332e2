//! May they? In: a principal and its call; out: a `Granted`, or a `Denial`.
//!
//! Nothing is forbidden yet to a caller whom `auth` has let in; scopes and tool rules come here.
//! The proof type stands already, so that nothing can be forwarded around this stage.

use std::sync::Arc;

use crate::base::denial::Denial;
use crate::base::principal::Principal;
use crate::inspect::Call;

/// A call that its caller may make. Only [`authorize`] makes one.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Who calls.
    pub principal: Arc<Principal>,
    /// What for.
    pub call: Call,
    #[allow(dead_code, reason = "its type is the point")]
    proof: Proof,
}

/// Nobody else can name it, so nobody else can make a [`Granted`].
#[derive(Debug, Clone)]
struct Proof;

/// Asks every rule.
///
/// # Errors
/// The first rule's that forbids the call.
pub fn authorize(principal: Arc<Principal>, call: Call) -> Result<Granted, Denial> {
    Ok(Granted { principal, call, proof: Proof })
}
