//! `require` and `tools` at work: in, a principal and a tool; out, a refusal, or which rule allows it.

use super::facts::Fact;
use crate::base::denial::{Denial, Reason};
use crate::base::globs::Globs;
use crate::base::principal::Principal;
use crate::base::rules::Rule;
use crate::base::ruling::{Key, Ruling};

/// Conditions, each of which the caller must meet.
#[derive(Debug, PartialEq)]
pub(super) struct Conditions(pub(super) Vec<Condition>);

/// One thing that is known of a caller, and what it may be.
#[derive(Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) fact: Fact,
    /// As the config writes it.
    pub(super) name: String,
    pub(super) values: Globs,
}

impl Conditions {
    fn unmet(&self, principal: &Principal) -> Option<&Condition> {
        self.0.iter().find(|condition| !condition.fact.is(principal, &condition.values))
    }
}

/// `require`: who may use the route at all.
#[derive(Debug)]
pub(super) struct Require {
    pub(super) conditions: Conditions,
    /// Its line in the config.
    pub(super) line: usize,
}

impl Rule for Require {
    fn caller(&self, principal: &Principal) -> Result<Option<Ruling>, Denial> {
        let rule = Ruling::new(Key::Require, self.line);
        let Some(unmet) = self.conditions.unmet(principal) else { return Ok(Some(rule)) };
        let message = "This caller may not use this server";
        let detail = format!("`require` in line {}: `{}` does not fit", self.line, unmet.name);
        Err(Denial::new(Reason::Forbidden, "authz.require", message).detail(detail).by(rule))
    }

    fn tool(&self, _: &Principal, _: &str) -> Result<Option<Ruling>, Denial> {
        Ok(None)
    }

    fn says(&self) -> String {
        format!("require {:?}", self.conditions)
    }

    fn described(&self) -> Option<String> {
        let names: Vec<&str> = self.conditions.0.iter().map(|c| c.name.as_str()).collect();
        Some(format!("require {}", names.join(", ")))
    }

    fn has_tools(&self) -> bool {
        false
    }
}

/// `tools`: who may call which.
#[derive(Debug)]
pub(super) struct Tools {
    /// In the order of the config; never empty.
    pub(super) rules: Vec<ToolRule>,
    /// Its line in the config.
    pub(super) line: usize,
}

/// One rule of the list.
#[derive(Debug)]
pub(super) struct ToolRule {
    pub(super) allow: bool,
    pub(super) tools: Globs,
    /// For whom it is; empty: for everybody.
    pub(super) when: Conditions,
    /// Its line in the config.
    pub(super) line: usize,
}

impl Rule for Tools {
    fn tool(&self, principal: &Principal, tool: &str) -> Result<Option<Ruling>, Denial> {
        let fits =
            |rule: &&ToolRule| rule.tools.matches(tool) && rule.when.unmet(principal).is_none();
        let found = self.rules.iter().find(fits);
        let ruling = Ruling::new(Key::Tools, found.map_or(self.line, |rule| rule.line));
        let detail = match found {
            Some(rule) if rule.allow => return Ok(Some(ruling)),
            Some(rule) => format!("the rule in line {} denies it", rule.line),
            None => format!("no rule of `tools` in line {} allows it", self.line),
        };
        Err(not_allowed("authz.tool").detail(detail).by(ruling))
    }

    fn says(&self) -> String {
        let rule = |rule: &ToolRule| format!("{} {:?} {:?}", rule.allow, rule.tools, rule.when);
        format!("tools {:?}", self.rules.iter().map(rule).collect::<Vec<_>>())
    }

    fn described(&self) -> Option<String> {
        let all =
            if self.rules.len() == 1 { "1 rule" } else { &format!("{} rules", self.rules.len()) };
        Some(format!("tools by {all}"))
    }
}

/// The refusal of a tool: which rule it was, only the log says.
pub(super) fn not_allowed(code: &'static str) -> Denial {
    Denial::new(Reason::Forbidden, code, "This tool is not allowed")
}
