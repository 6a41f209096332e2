//! What callers may do, as `authz` asks it: in, a principal and a tool; out, a refusal, or which rule allows it.
//!
//! The rules are made in `auth` (scopes of tokens) and in `authz` (conditions, lists of tools); these
//! words are here because a route carries its rules.

use std::fmt;

use super::denial::Denial;
use super::principal::Principal;
use super::ruling::Ruling;

/// Something that may forbid a call.
pub trait Rule: fmt::Debug + Send + Sync {
    /// Whether the caller may use the route at all; nothing where that is not asked.
    ///
    /// # Errors
    /// 403.
    fn caller(&self, _: &Principal) -> Result<Option<Ruling>, Denial> {
        Ok(None)
    }

    /// Whether the caller may call this tool; nothing where that is not asked.
    ///
    /// # Errors
    /// 403.
    fn tool(&self, principal: &Principal, tool: &str) -> Result<Option<Ruling>, Denial>;

    /// Whether lists of tools name this one to the caller: as a rule, what it may call.
    fn shows(&self, principal: &Principal, tool: &str) -> bool {
        self.tool(principal, tool).is_ok()
    }

    /// All that it says, wherever in the config it stands: two that say the same decide the same.
    fn says(&self) -> String;

    /// What it is made of, for `check`; `None` where the method that it belongs to says enough.
    fn described(&self) -> Option<String> {
        None
    }

    /// Whether it has anything to say about tools. Where no rule has, bodies need no strict reading
    /// and answers no filter.
    fn has_tools(&self) -> bool {
        true
    }
}
