//! A route's `limits` list: in, its node; out, the limits at work.

use std::sync::Arc;

use super::key;
use super::rules::{Gate, Rule, Rules};
use crate::base::compile::{Cx, Node};
use crate::base::limits::Limits;
use crate::base::rate::{Buckets, Counts, Rate};

/// Buckets that one limit keeps at most: about 5 MiB.
const MOST_KEYS: usize = 100_000;
/// More at once than this no edge carries.
const MOST_AT_ONCE: u64 = 1_000_000;

/// Compiles the list; what is wrong is noted in `cx`.
pub fn limits(node: &Node, cx: &mut Cx) -> Option<Arc<dyn Limits>> {
    let mut rules: Vec<Rule> = Vec::new();
    for entry in cx.filled_list(node, entry)? {
        for mut rule in entry {
            let same = rules.iter().filter(|other| base(&other.name) == rule.name).count();
            let twins = rules.iter().filter(|other| described(other) == described(&rule)).count();
            rule.gate = kept(&rule, twins, cx);
            if same > 0 {
                rule.name = format!("{}/{}", rule.name, same + 1);
            }
            rules.push(rule);
        }
    }
    Some(Arc::new(Rules::new(rules)))
}

/// What the generation of the config before has counted for the same limit: of the same route and key, and of
/// the same size. `nth` tells two apart that say the same.
fn kept(rule: &Rule, nth: usize, cx: &mut Cx) -> Gate {
    let key = format!("limit {} {} {nth}", cx.place, described(rule));
    match &rule.gate {
        Gate::Rate(buckets) => {
            let rate = *buckets.rate();
            let kept = cx.shared(key, |_| Some(Buckets::new(rate, MOST_KEYS)));
            Gate::Rate(kept.unwrap_or_else(|| buckets.clone()))
        }
        Gate::InFlight(counts) => Gate::InFlight(kept_counts(key, counts, cx)),
        Gate::Streams(counts) => Gate::Streams(kept_counts(key, counts, cx)),
    }
}

fn described(rule: &Rule) -> String {
    let (kind, key, gate) = (rule.kind.name, base(&rule.name), &rule.gate);
    let size = match gate {
        Gate::Rate(buckets) => buckets.rate().to_string(),
        Gate::InFlight(counts) | Gate::Streams(counts) => counts.most().to_string(),
    };
    format!("{kind} {key} {} {size}", gate.what())
}

fn kept_counts(key: String, counts: &Arc<Counts>, cx: &mut Cx) -> Arc<Counts> {
    let most = counts.most();
    cx.shared(key, |_| Some(Counts::new(most))).unwrap_or_else(|| counts.clone())
}

/// A name without the number that makes it unique.
fn base(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// One entry may hold several limits of the same key.
fn entry(node: &Node, cx: &mut Cx) -> Option<Vec<Rule>> {
    let mut fields = cx.map(node)?;
    let key = fields.required(cx, "key", key::compile);
    let named = [fields.take("rate"), fields.take("in_flight"), fields.take("streams")];
    let [rate, in_flight, streams] = named;
    let rate = rate.and_then(|n| {
        cx.in_key("rate", |cx| cx.parse(n, "a rate such as `60/m burst 20`", Rate::parse))
    });
    let in_flight = in_flight.and_then(|n| cx.in_key("in_flight", |cx| at_once(n, cx)));
    let streams = streams.and_then(|n| cx.in_key("streams", |cx| at_once(n, cx)));
    let dry_run = fields.or(cx, "dry_run", false, |n, cx| cx.boolean(n));
    fields.finish(cx);
    if named.iter().all(Option::is_none) {
        cx.error(node, "this limits nothing: add `rate`, `in_flight` or `streams`");
    }
    let (kind, key) = key?;
    let gates = [
        rate.map(|rate| ("", Gate::Rate(Arc::new(Buckets::new(rate, MOST_KEYS))))),
        in_flight.map(|most| ("-in-flight", Gate::InFlight(Arc::new(Counts::new(most))))),
        streams.map(|most| ("-streams", Gate::Streams(Arc::new(Counts::new(most))))),
    ];
    let rule = |(suffix, gate)| {
        let name = format!("{}{suffix}", key.name());
        Rule { name, kind, key: key.clone(), gate, dry_run }
    };
    Some(gates.into_iter().flatten().map(rule).collect())
}

fn at_once(node: &Node, cx: &mut Cx) -> Option<u32> {
    cx.integer(node, 1..=MOST_AT_ONCE).and_then(|n| u32::try_from(n).ok())
}
