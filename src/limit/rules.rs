//! A route's limits at work: in, an asker; out, permits, or the refusal of who has to wait longest.

use std::sync::Arc;

use super::key::{Key, Kind};
use super::refusal::refusal;
use crate::base::denial::Denial;
use crate::base::limits::{Asker, Limited, Limits, Permits};
use crate::base::rate::{Buckets, Counts};

/// Nobody knows when a place among so many will be free; soon enough to ask again.
const PLACE_WAIT: u32 = 1;

/// One limit.
#[derive(Debug)]
pub struct Rule {
    /// Its name in policies, unique in its route.
    pub name: String,
    /// What its key is.
    pub kind: &'static Kind,
    /// Tells askers apart.
    pub key: Arc<dyn Key>,
    /// What is counted, and where.
    pub gate: Gate,
    /// Whether it only counts.
    pub dry_run: bool,
}

/// What a limit counts.
#[derive(Debug)]
pub enum Gate {
    /// Requests per time.
    Rate(Arc<Buckets<u128>>),
    /// Requests at once, streams among them.
    InFlight(Arc<Counts>),
    /// Streams at once.
    Streams(Arc<Counts>),
}

impl Gate {
    /// As configs and metrics write it.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Rate(_) => "rate",
            Self::InFlight(_) => "in_flight",
            Self::Streams(_) => "streams",
        }
    }

    /// The refusal's code.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Rate(_) => "limit.rate",
            Self::InFlight(_) => "limit.in_flight",
            Self::Streams(_) => "limit.streams",
        }
    }
}

/// All limits of a route.
#[derive(Debug)]
pub struct Rules {
    before_auth: Vec<Rule>,
    after_auth: Vec<Rule>,
    streams: Vec<Rule>,
    /// What each point tells of its policies.
    policies: [String; 3],
}

impl Rules {
    /// Sorts rules by the point at which they act. A stream is known last, since for
    /// some it takes the request's body.
    pub fn new(rules: Vec<Rule>) -> Self {
        let (streams, rules): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| matches!(rule.gate, Gate::Streams(_)));
        let (before_auth, after_auth): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| rule.kind.before_auth);
        let policies = [&before_auth, &after_auth, &streams].map(|rules| {
            let told = rules.iter().filter(|rule| !rule.dry_run);
            let told = told.map(|rule| super::refusal::policy(&rule.name, &rule.gate));
            told.collect::<Vec<_>>().join(", ")
        });
        Self { before_auth, after_auth, streams, policies }
    }

    fn has_later(&self) -> bool {
        !(self.after_auth.is_empty() && self.streams.is_empty())
    }

    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.before_auth.iter().chain(&self.after_auth).chain(&self.streams)
    }
}

impl Limits for Rules {
    fn before_auth(&self, asker: &Asker<'_>, permits: &mut Permits) -> Result<(), Denial> {
        let mut verdict = Verdict { refused: None, may_undo: self.has_later() };
        ask(&self.before_auth, asker, &mut verdict, permits);
        verdict.told(&self.policies[0])
    }

    fn after_auth(&self, asker: &Asker<'_>, permits: &mut Permits) -> Result<(), Denial> {
        let mut verdict = Verdict { refused: None, may_undo: !self.streams.is_empty() };
        ask(&self.after_auth, asker, &mut verdict, permits);
        if verdict.refused.is_some() {
            permits.undo();
        }
        verdict.told(&self.policies[1])
    }

    fn stream(&self, asker: &Asker<'_>, permits: &mut Permits) -> Result<(), Denial> {
        let mut verdict = Verdict { refused: None, may_undo: false };
        ask(&self.streams, asker, &mut verdict, permits);
        if verdict.refused.is_some() {
            permits.undo();
        }
        verdict.told(&self.policies[2])
    }

    fn count_stream(&self, asker: &Asker<'_>, permits: &mut Permits) {
        for rule in &self.streams {
            if let Gate::Streams(counts) = &rule.gate {
                permits.held.push(counts.hold(rule.key.of(asker)).take());
            }
        }
    }

    fn sweep(&self) {
        for rule in self.all() {
            if let Gate::Rate(buckets) = &rule.gate {
                buckets.sweep();
            }
        }
    }

    fn described(&self) -> Vec<(bool, String)> {
        let early = self.before_auth.iter().map(|rule| (true, rule.described()));
        let late = self.after_auth.iter().chain(&self.streams);
        early.chain(late.map(|rule| (false, rule.described()))).collect()
    }
}

impl Rule {
    /// As a config writes it.
    fn described(&self) -> String {
        let most = match &self.gate {
            Gate::Rate(buckets) => buckets.rate().to_string(),
            Gate::InFlight(counts) | Gate::Streams(counts) => counts.most().to_string(),
        };
        let dry_run = if self.dry_run { ", only counted (dry_run)" } else { "" };
        format!("{}: {} {most}{dry_run}", self.key.name(), self.gate.what())
    }
}

/// What the rules have said so far.
struct Verdict<'a> {
    /// Who has to be waited for longest, and how many seconds.
    refused: Option<(&'a Rule, u32)>,
    /// Whether what is taken now may be given back later.
    may_undo: bool,
}

impl<'a> Verdict<'a> {
    fn no_room(&mut self, rule: &'a Rule, seconds: u32, permits: &mut Permits) {
        let Rule { kind, gate, dry_run, .. } = rule;
        permits.limited.push(Limited { key: kind.name, what: gate.what(), dry_run: *dry_run });
        if !dry_run && self.refused.is_none_or(|(_, longest)| seconds > longest) {
            self.refused = Some((rule, seconds));
        }
    }

    fn told(self, policies: &str) -> Result<(), Denial> {
        match self.refused {
            None => Ok(()),
            Some((rule, seconds)) => Err(refusal(rule, seconds, policies)),
        }
    }
}

/// Looks at all rules, each held still until all have spoken, and takes only if none refuses.
fn ask<'a>(rules: &'a [Rule], asker: &Asker<'_>, verdict: &mut Verdict<'a>, permits: &mut Permits) {
    let Some((rule, rest)) = rules.split_first() else { return };
    let key = rule.key.of(asker);
    match &rule.gate {
        Gate::Rate(buckets) => {
            let held = buckets.hold(&key);
            let room = held.room();
            if let Err(wait) = room {
                verdict.no_room(rule, wait.seconds(), permits);
            }
            ask(rest, asker, verdict, permits);
            if let (None, Ok(room)) = (verdict.refused, room) {
                held.take();
                if verdict.may_undo {
                    permits.took(buckets, key, room);
                }
            }
        }
        Gate::InFlight(counts) | Gate::Streams(counts) => {
            let held = counts.hold(key);
            let has_room = held.has_room();
            if !has_room {
                verdict.no_room(rule, PLACE_WAIT, permits);
            }
            ask(rest, asker, verdict, permits);
            if verdict.refused.is_none() && has_room {
                permits.held.push(held.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::head::Version;
    use crate::base::rate::{Clock, Rate};
    use crate::limit::key::KEYS;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A limit on the key of this name, on a clock that stands still.
    fn rule(key: &str, gate: &str) -> Rule {
        let kind = KEYS.iter().find(|kind| kind.name == key).unwrap();
        let gate = match gate.split_once(' ').unwrap() {
            ("rate", rate) => {
                let clock = Clock::Manual(Arc::new(AtomicU64::new(0)));
                let rate = Rate::parse(rate).unwrap();
                Gate::Rate(Arc::new(Buckets::with_clock(rate, 100, clock)))
            }
            ("in_flight", most) => Gate::InFlight(Arc::new(Counts::new(most.parse().unwrap()))),
            (_, most) => Gate::Streams(Arc::new(Counts::new(most.parse().unwrap()))),
        };
        let mut cx = crate::base::compile::Cx::new(".");
        let key = (kind.compile)(None, 0, &mut cx).unwrap();
        Rule { name: key.name().to_owned(), kind, key, gate, dry_run: false }
    }

    struct Scene {
        head: Head,
        client: Client,
    }

    use crate::base::caller::Client;
    use crate::base::head::Head;

    impl Scene {
        fn new(address: &str) -> Self {
            let head = Head {
                method: http::Method::POST,
                path: "/".into(),
                query: None,
                authority: String::new(),
                headers: http::HeaderMap::new(),
                version: Version::H11,
                websocket: false,
            };
            let client = Client {
                address: address.parse().unwrap(),
                hidden: false,
                tls: false,
                certificate: None,
            };
            Self { head, client }
        }

        /// All points, as a request meets them.
        fn ask(&self, rules: &Rules, stream: bool) -> Result<Permits, Denial> {
            let asker = Asker { head: &self.head, client: &self.client, principal: None };
            let mut permits = Permits::default();
            rules.before_auth(&asker, &mut permits)?;
            rules.after_auth(&asker, &mut permits)?;
            if stream {
                rules.stream(&asker, &mut permits)?;
            }
            permits.settle();
            Ok(permits)
        }
    }

    #[test]
    fn a_refusal_by_one_takes_nothing_from_another() {
        for other in ["address", "route"] {
            let rules = Rules::new(vec![rule(other, "rate 3/h"), rule("principal", "in_flight 1")]);
            let scene = Scene::new("192.0.2.1");
            let held = scene.ask(&rules, false).unwrap();
            for _ in 0..10 {
                assert_eq!(scene.ask(&rules, false).unwrap_err().code, "limit.in_flight");
            }
            drop(held);
            drop(scene.ask(&rules, false).unwrap());
            drop(scene.ask(&rules, false).unwrap());
            assert_eq!(scene.ask(&rules, false).unwrap_err().code, "limit.rate");
        }
    }

    #[test]
    fn a_refusal_of_a_stream_takes_nothing_from_a_rate() {
        let rules = Rules::new(vec![
            rule("address", "rate 3/h"),
            rule("principal", "rate 4/h"),
            rule("principal", "streams 1"),
        ]);
        let scene = Scene::new("192.0.2.1");
        let _stream = scene.ask(&rules, true).unwrap();
        for _ in 0..10 {
            assert_eq!(scene.ask(&rules, true).unwrap_err().code, "limit.streams");
        }
        drop(scene.ask(&rules, false).unwrap());
        drop(scene.ask(&rules, false).unwrap());
        assert_eq!(scene.ask(&rules, false).unwrap_err().code, "limit.rate");
    }

    #[test]
    fn places_are_free_after_a_refusal_by_a_rate() {
        let rules = Rules::new(vec![rule("address", "in_flight 1"), rule("route", "rate 1/h")]);
        let scene = Scene::new("192.0.2.1");
        drop(scene.ask(&rules, false).unwrap());
        for _ in 0..3 {
            assert_eq!(scene.ask(&rules, false).unwrap_err().code, "limit.rate");
        }
    }

    #[test]
    fn the_longest_wait_is_told() {
        let rules = vec![
            rule("route", "rate 1/m"),
            rule("principal", "rate 1/h"),
            rule("route", "in_flight 9"),
        ];
        let rules = Rules::new(rules);
        let scene = Scene::new("192.0.2.1");
        drop(scene.ask(&rules, false).unwrap());
        let denial = scene.ask(&rules, false).unwrap_err();
        assert_eq!((denial.retry_after, denial.detail.as_ref()), (Some(3600), "principal"));
        assert!(denial.message.contains("wait 3600 seconds"), "{}", denial.message);
        let fields: Vec<_> =
            denial.fields.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(
            fields,
            [
                ("ratelimit", "\"principal\";r=0;t=3600"),
                (
                    "ratelimit-policy",
                    "\"route\";q=1;w=60, \"principal\";q=1;w=3600, \"route\";q=9;qu=\"concurrent-requests\""
                ),
            ]
        );
    }

    #[test]
    fn streams_are_counted_apart_from_requests() {
        let rules = Rules::new(vec![rule("address", "streams 1")]);
        let (scene, other) = (Scene::new("2001:db8::1"), Scene::new("2001:db8:0:1::1"));
        let stream = scene.ask(&rules, true).unwrap();
        assert!(scene.ask(&rules, false).unwrap().held.is_empty());
        assert_eq!(scene.ask(&rules, true).unwrap_err().code, "limit.streams");
        drop(other.ask(&rules, true).unwrap());
        assert_eq!(Scene::new("2001:db8::2").ask(&rules, true).unwrap_err().code, "limit.streams");
        drop(stream);
        drop(scene.ask(&rules, true).unwrap());

        // one that nobody expected is let through, and counts
        let asker = Asker { head: &scene.head, client: &scene.client, principal: None };
        let mut permits = Permits::default();
        let first = scene.ask(&rules, true).unwrap();
        rules.count_stream(&asker, &mut permits);
        drop(first);
        assert!(scene.ask(&rules, true).is_err());
        drop(permits);
        assert!(scene.ask(&rules, true).is_ok());
    }

    #[test]
    fn a_dry_run_counts_and_lets_through() {
        let mut dry = rule("route", "rate 1/h");
        dry.dry_run = true;
        let rules = Rules::new(vec![dry]);
        let scene = Scene::new("192.0.2.1");
        assert!(scene.ask(&rules, false).unwrap().limited.is_empty());
        let passed = scene.ask(&rules, false).unwrap();
        assert_eq!(passed.limited, [Limited { key: "route", what: "rate", dry_run: true }]);
    }

    #[test]
    fn sixteen_threads_and_several_limits_get_no_more() {
        let rules = Rules::new(vec![
            rule("address", "rate 500/h"),
            rule("principal", "rate 400/h burst 300"),
            rule("route", "in_flight 3"),
        ]);
        let passed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let scene = Scene::new("192.0.2.1");
                    for _ in 0..400 {
                        let asked = scene.ask(&rules, false);
                        passed.fetch_add(u64::from(asked.is_ok()), Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 300);
    }
}
