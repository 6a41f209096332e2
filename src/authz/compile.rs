//! `require` and `tools` of a route: in, nodes of the config; out, rules, or what is wrong with them.

use std::sync::Arc;

use super::facts::{Fact, OF_ALL};
use super::rules::{Condition, Conditions, Require, ToolRule, Tools};
use crate::auth::METHODS;
use crate::base::caller::Chain;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::fields::{Fields, hint};
use crate::base::globs::Globs;
use crate::base::rules::Rule;

/// Takes `require` and `tools`; what is wrong is noted in `cx`.
pub fn rules(fields: &mut Fields<'_>, chain: Option<&Chain>, cx: &mut Cx) -> Vec<Arc<dyn Rule>> {
    let mut rules: Vec<Arc<dyn Rule>> = Vec::new();
    let require = fields.optional(cx, "require", |n, cx| {
        Some(Require { conditions: conditions(n, chain, cx)?, line: n.line })
    });
    if let Some(require) = require {
        rules.push(Arc::new(require));
    }
    if let Some(tools) = fields.optional(cx, "tools", |n, cx| tools(n, chain, cx)) {
        rules.push(Arc::new(tools));
    }
    rules
}

/// A map from names to what they may be.
fn conditions(node: &Node, chain: Option<&Chain>, cx: &mut Cx) -> Option<Conditions> {
    // every key is good, but none may stand twice
    let _keys = cx.map(node)?;
    let NodeKind::Map(entries) = &node.kind else { return None };
    if entries.is_empty() {
        cx.error(node, "the map is empty: at least one condition is needed");
        return None;
    }
    let mut out = Vec::with_capacity(entries.len());
    for (name, line, node) in entries {
        let condition = cx.in_key(name, |cx| condition(name, *line, node, chain, cx));
        out.extend(condition);
    }
    Some(Conditions(out))
}

fn condition(
    name: &str,
    line: usize,
    node: &Node,
    chain: Option<&Chain>,
    cx: &mut Cx,
) -> Option<Condition> {
    let values = Globs::compile(node, cx);
    let fact = match Fact::parse(name) {
        Ok(fact) => fact,
        Err(problem) => {
            cx.error_at(line, problem);
            return None;
        }
    };
    let tokens = chain.is_none_or(|chain| chain.resource.is_some());
    if fact.needs_token() && !tokens {
        let near = hint(name, &OF_ALL);
        let problem = format!("only tokens say this, and no method of `auth` takes them{near}");
        cx.error_at(line, problem);
    }
    let values = values?;
    if fact == Fact::Method {
        check_methods(&values, node, cx);
    }
    Some(Condition { fact, name: name.to_owned(), values })
}

/// A pattern that no method's name fits is a typing error.
fn check_methods(values: &Globs, node: &Node, cx: &mut Cx) {
    // who comes in by `all` has come in by the first of its methods
    let names: Vec<&str> = METHODS.iter().map(|m| m.name).filter(|name| *name != "all").collect();
    for pattern in values.patterns() {
        let glob = Globs::new([pattern.as_str()]);
        if !names.iter().any(|name| glob.matches(name)) {
            let names = names.join(", ");
            cx.error(node, format!("no method is called `{pattern}`; the methods are: {names}"));
        }
    }
}

fn tools(node: &Node, chain: Option<&Chain>, cx: &mut Cx) -> Option<Tools> {
    let mut rules: Vec<ToolRule> = Vec::new();
    cx.filled_list(node, |node, cx| {
        let rule = tool_rule(node, chain, cx)?;
        if let Some(lines) = hidden_by(&rule, &rules) {
            cx.error(
                node,
                format!("this is never asked: all of it is decided before, in line {lines}"),
            );
        }
        rules.push(rule);
        Some(())
    })?;
    let closed = |rule: &ToolRule| !rule.allow && rule.tools.takes_all();
    if !rules.is_empty() && !rules.iter().any(|rule| rule.allow || closed(rule)) {
        let more = "write what is allowed, or `deny: [ \"*\" ]` if that is meant";
        cx.error(node, format!("no tool would be left: what no rule allows is refused; {more}"));
    }
    Some(Tools { rules, line: node.line })
}

fn tool_rule(node: &Node, chain: Option<&Chain>, cx: &mut Cx) -> Option<ToolRule> {
    let mut fields = cx.map(node)?;
    let given = (fields.take("allow"), fields.take("deny"));
    let when = fields.take("when");
    fields.finish(cx);
    let (allow, key, tools) = match given {
        (Some(tools), None) => (true, "allow", tools),
        (None, Some(tools)) => (false, "deny", tools),
        _ => {
            cx.error(node, "a rule has either `allow` or `deny`");
            return None;
        }
    };
    let tools = cx.in_key(key, |cx| Globs::compile(tools, cx));
    let when = match when {
        None => Some(Conditions(Vec::new())),
        Some(when) => cx.in_key("when", |cx| conditions(when, chain, cx)),
    };
    Some(ToolRule { allow, tools: tools?, when: when?, line: node.line })
}

/// The lines of rules before this one that leave it nothing: each of its patterns is covered by a rule
/// that is for everybody, or for the same callers.
fn hidden_by(rule: &ToolRule, before: &[ToolRule]) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    for pattern in rule.tools.patterns() {
        let mut wide =
            before.iter().filter(|wide| wide.when.0.is_empty() || wide.when == rule.when);
        let line = wide.find(|wide| wide.tools.cover(&pattern))?.line.to_string();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Some(lines.join(" and "))
}
