//! May they? In: a principal; then its call, and how its body was read; out: a `Granted`, or a `Denial`.
//!
//! Every rule of the route is asked, those of its `auth` chain (scopes) first: whether the caller may use
//! the route (`require`), and for `tools/call` whether it may call the tool (`tools`). One that refuses is
//! enough. What is not known of a caller fits no condition, and what no rule of `tools` allows is refused.
//!
//! # What counts as calling a tool
//!
//! `tools/call` alone, as a request or a notification, with or without `task`: in the servers of the
//! Python (1.x, 2.x), TypeScript (1.x, 2.x) and Rust SDKs no other method leads to a tool. `tasks/get`,
//! `tasks/result`, `tasks/update`, `tasks/cancel` and `tasks/list` are about calls that were judged when
//! they were made; `completion/complete`, `prompts/get` and `resources/read` run functions of their own;
//! a retry with `requestState` (2026-07-28) is a `tools/call` with its name again. Methods that are not
//! MCP's pass: what they do is between the server and whoever wrote it. And a tool that calls others by
//! a name in its arguments is one tool here: who may call it may call them all.

mod compile;
mod facts;
mod rules;

use std::sync::Arc;

pub use compile::rules;

use crate::base::denial::{Denial, Reason};
use crate::base::principal::Principal;
use crate::base::rules::Rule;
use crate::base::ruling::Ruling;
use crate::inspect::strict::Seen;
use crate::inspect::{Call, TOOLS_CALL};

/// A call that its caller may make. Only [`authorize`] makes one.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Who calls.
    pub principal: Arc<Principal>,
    /// What for.
    pub call: Call,
    /// The last rule that has allowed it; absent where none was asked.
    pub rule: Option<Ruling>,
    #[allow(dead_code, reason = "its type is the point")]
    proof: Proof,
}

/// Nobody else can name it, so nobody else can make a [`Granted`].
#[derive(Debug, Clone)]
struct Proof;

/// A caller that may use the route, whatever for. Only [`enter`] makes one.
#[derive(Debug, Clone)]
pub struct Entered {
    principal: Arc<Principal>,
    rule: Option<Ruling>,
}

/// Asks every rule about the caller: before the body is read, so that it takes no room for nothing.
///
/// # Errors
/// 403 of the first rule that does not let it in.
pub fn enter(rules: &[Arc<dyn Rule>], principal: Arc<Principal>) -> Result<Entered, Denial> {
    let mut by = None;
    for rule in rules {
        by = rule.caller(&principal)?.or(by);
    }
    Ok(Entered { principal, rule: by })
}

/// Asks every rule about the call.
///
/// # Errors
/// 403 of the first rule that forbids it; 500 where a rule is about tools and the body was not read
/// strictly, which would be our fault.
pub fn authorize(
    rules: &[Arc<dyn Rule>],
    entered: Entered,
    call: Call,
    seen: Seen,
) -> Result<Granted, Denial> {
    let Entered { principal, mut rule } = entered;
    if rules.iter().any(|rule| rule.has_tools()) {
        rule = check_tool(rules, &principal, &call, seen)?.or(rule);
    }
    Ok(Granted { principal, call, rule, proof: Proof })
}

/// Whether a list of tools names this one to the caller.
pub fn shows(rules: &[Arc<dyn Rule>], principal: &Principal, tool: &str) -> bool {
    rules.iter().all(|rule| rule.shows(principal, tool))
}

fn check_tool(
    rules: &[Arc<dyn Rule>],
    principal: &Principal,
    call: &Call,
    seen: Seen,
) -> Result<Option<Ruling>, Denial> {
    if !seen.is_all() {
        return Err(Denial::new(Reason::Internal, "authz.unread", "Internal error"));
    }
    if call.rpc_method.as_deref() != Some(TOOLS_CALL) {
        return Ok(None);
    }
    let nameless = || rules::not_allowed("authz.nameless");
    let tool = call.name.as_deref().ok_or_else(nameless)?;
    let mut by = None;
    for rule in rules {
        by = rule.tool(principal, tool)?.or(by);
    }
    Ok(by)
}

#[cfg(test)]
mod tests;
