//! What a limited client is told: in, the limit and the time to wait; out, a `Denial` with the fields of
//! draft-ietf-httpapi-ratelimit-headers-10.

use http::{HeaderName, HeaderValue};

use super::rules::{Gate, Rule};
use crate::base::denial::{Denial, Reason};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A policy as §3 of the draft writes it.
pub(super) fn policy(name: &str, gate: &Gate) -> String {
    match gate {
        Gate::Rate(buckets) => {
            let rate = buckets.rate();
            format!("\"{name}\";q={};w={}", rate.count, rate.period.as_secs())
        }
        Gate::InFlight(counts) | Gate::Streams(counts) => {
            format!("\"{name}\";q={};qu=\"concurrent-requests\"", counts.most())
        }
    }
}

/// 429 with the seconds to wait, in words that a model understands.
pub(super) fn refusal(rule: &Rule, seconds: u32, policies: &str) -> Denial {
    let plural = if seconds == 1 { "" } else { "s" };
    let what = match rule.gate {
        Gate::Rate(_) => "Too many requests",
        Gate::InFlight(_) => "Too many requests at once",
        Gate::Streams(_) => "Too many open streams",
    };
    let message = format!("{what}: wait {seconds} second{plural}, then try again");
    let mut denial = Denial::new(Reason::Limited, rule.gate.code(), message)
        .retry_after(seconds)
        .detail(rule.name.clone());
    let state = format!("\"{}\";r=0;t={seconds}", rule.name);
    for (name, value) in [(RATE_LIMIT, state.as_str()), (RATE_LIMIT_POLICY, policies)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            denial = denial.field(name, value);
        }
    }
    denial
}
