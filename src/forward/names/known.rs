//! What a name has led to so far: in, answers; out, servers, of which those that are missing drain first.
//!
//! A name server may give another part of a long list each time, and an answer may be wrong for a moment: so a
//! replica that is missing keeps its sessions until it is missing for the third time in a row, and only gets nothing
//! new. An answer without anybody drains nobody, or nothing at all would be served; the third one leaves nobody.

use std::net::{IpAddr, SocketAddr};

use super::Question;
use super::resolve::{Answer, Record};
use crate::balance::lookup::{Ask, Found, Lookup};
use crate::balance::settings::ServerSettings;

/// Answers in a row that a replica is missing from when it is gone.
const GONE: u32 = 3;
/// Most replicas of one name.
pub(super) const MOST: usize = 256;
/// The largest weight, as in configs.
const MOST_WEIGHT: u16 = 1000;

/// The servers of one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    /// Whether there ever was an answer.
    pub(super) answered: bool,
    kept: Kept,
    /// Answers in a row that named nobody.
    empty: u32,
}

#[derive(Debug, Clone, PartialEq)]
enum Kept {
    /// One server, at the first of these that can be reached.
    One(Vec<SocketAddr>),
    /// A server each, with the number of answers that it is missing from.
    Each(Vec<(ServerSettings, u32)>),
}

impl Known {
    /// Nothing yet.
    pub(super) fn new(question: &Question) -> Self {
        let kept = match question {
            Question::Server(_) => Kept::One(Vec::new()),
            Question::Lookup(_) => Kept::Each(Vec::new()),
        };
        Self { answered: false, kept, empty: 0 }
    }

    /// Takes an answer to that question.
    pub(super) fn learn(&mut self, question: &Question, answer: &Answer) {
        self.answered = true;
        self.empty = if answer.records.is_empty() { self.empty + 1 } else { 0 };
        match (&mut self.kept, question) {
            (Kept::One(addresses), _) if self.empty == 0 => follow(addresses, answer),
            (Kept::One(addresses), _) if self.empty >= GONE => addresses.clear(),
            (Kept::Each(servers), Question::Lookup(lookup)) => learn(servers, lookup, answer),
            (Kept::One(_) | Kept::Each(_), _) => {}
        }
    }

    /// How many servers, or addresses of one, there are.
    pub(super) fn len(&self) -> usize {
        match &self.kept {
            Kept::One(addresses) => addresses.len(),
            Kept::Each(servers) => servers.len(),
        }
    }

    /// The servers as they are to be used.
    pub(super) fn servers(&self, question: &Question) -> Vec<ServerSettings> {
        match (&self.kept, question) {
            (Kept::One(addresses), Question::Server(server)) if !addresses.is_empty() => {
                let host = server.authority.clone();
                let found = Some(Found { addresses: addresses.clone(), host });
                vec![ServerSettings { found, ..server.clone() }]
            }
            (Kept::One(_), _) => Vec::new(),
            (Kept::Each(servers), _) => {
                let leaves = |missing: u32| missing > 0 && self.empty == 0;
                let used = servers.iter().map(|(server, missing)| ServerSettings {
                    drain: server.drain || leaves(*missing),
                    ..server.clone()
                });
                used.collect()
            }
        }
    }
}

/// Addresses that stay keep their places: whoever is connected there has no reason to go.
fn follow(addresses: &mut Vec<SocketAddr>, answer: &Answer) {
    let is_told = |address: &SocketAddr| answer.records.iter().any(|r| r.address == *address);
    addresses.retain(|address| is_told(address) || !answer.covers(address.ip()));
    for record in &answer.records {
        if !addresses.contains(&record.address) && addresses.len() < MOST {
            addresses.push(record.address);
        }
    }
}

fn learn(servers: &mut Vec<(ServerSettings, u32)>, lookup: &Lookup, answer: &Answer) {
    let told = told(lookup, &answer.records);
    for (server, missing) in &mut *servers {
        let covered = server.found.iter().flat_map(|f| &f.addresses).any(|a| answer.covers(a.ip()));
        match told.iter().find(|other| other.authority == server.authority) {
            Some(told) => (*server, *missing) = (told.clone(), 0),
            None if covered => *missing += 1,
            None => {}
        }
    }
    servers.retain(|(_, missing)| *missing < GONE);
    for server in told {
        let known = servers.iter().any(|(other, _)| other.authority == server.authority);
        if !known && servers.len() < MOST {
            servers.push((server, 0));
        }
    }
}

/// A server for each record. Of services the smallest priority counts as 0, the next as 1: what stands beside them in
/// the config counts so, too.
fn told(lookup: &Lookup, records: &[Record]) -> Vec<ServerSettings> {
    let mut priorities: Vec<u16> = records.iter().map(|record| record.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let server = |record: &Record| match &lookup.ask {
        Ask::Host(..) => lookup.server(record.address, lookup.weight, lookup.priority),
        Ask::Service(_) => {
            let place = priorities.iter().take_while(|p| **p < record.priority).count();
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            let weight = u32::from(record.weight.clamp(1, MOST_WEIGHT));
            lookup.server(record.address, weight, lookup.priority.saturating_add(place))
        }
    };
    records.iter().map(server).collect()
}

impl Answer {
    /// Whether it says all that there is of addresses like that.
    fn covers(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::compile::from_origin;
    use crate::base::url::origin;
    use std::time::Duration;

    fn lookup(ask: Ask) -> Question {
        let every = Duration::from_secs(1);
        Question::Lookup(Lookup { ask, https: false, every, weight: 3, priority: 0, drain: false })
    }

    fn host() -> Question {
        lookup(Ask::Host("svc.test".into(), 80))
    }

    fn answer(addresses: &[&str]) -> Answer {
        let record = |text: &&str| Record {
            address: SocketAddr::new(text.parse().unwrap(), 80),
            priority: 0,
            weight: 0,
        };
        let (v4, v6, good_for) = (true, true, Duration::ZERO);
        Answer { records: addresses.iter().map(record).collect(), v4, v6, good_for }
    }

    fn v4(n: usize) -> String {
        format!("10.0.{}.{}", n / 256, n % 256)
    }

    /// Names, a `-` before those that drain.
    fn shown(known: &Known, question: &Question) -> Vec<String> {
        let one = |s: &ServerSettings| format!("{}{}", if s.drain { "-" } else { "" }, s.authority);
        known.servers(question).iter().map(one).collect()
    }

    #[test]
    fn who_is_missing_drains_and_is_gone_the_third_time() {
        let (question, [a, b, c]) = (host(), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let mut known = Known::new(&question);
        assert!(!known.answered);
        let mut then = |told: &[&str]| {
            known.learn(&question, &answer(told));
            assert!(known.answered);
            shown(&known, &question)
        };
        assert_eq!(then(&[a, b]), [a, b]);
        assert_eq!(then(&[c, b]), [&format!("-{a}"), b, c]);
        assert_eq!(then(&[c, a]), [a, &format!("-{b}"), c], "who comes back is as before");
        then(&[c]);
        assert_eq!(then(&[c]), [&format!("-{a}"), c]);
        assert_eq!(then(&[c]), [c]);
    }

    #[test]
    fn nobody_drains_nobody_at_first() {
        let (question, a) = (host(), "10.0.0.1");
        let mut known = Known::new(&question);
        for told in [&[a][..], &[], &[]] {
            known.learn(&question, &answer(told));
            assert_eq!(shown(&known, &question), [a]);
        }
        known.learn(&question, &answer(&[]));
        assert!(known.servers(&question).is_empty() && known.answered);
    }

    #[test]
    fn half_an_answer_takes_nobody_away_whom_it_could_not_name() {
        let (question, four, six) = (host(), "10.0.0.1", "::1");
        let mut known = Known::new(&question);
        known.learn(&question, &answer(&[four, six]));
        for _ in 0..5 {
            known.learn(&question, &Answer { v6: false, ..answer(&["10.0.0.2"]) });
        }
        assert_eq!(shown(&known, &question), ["[::1]", "10.0.0.2"]);
    }

    #[test]
    fn the_number_is_bounded() {
        let question = host();
        let mut known = Known::new(&question);
        let all: Vec<String> = (0..2 * MOST).map(v4).collect();
        known.learn(&question, &answer(&all.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!((known.servers(&question).len(), known.len()), (MOST, MOST));
    }

    #[test]
    fn services_say_weights_and_priorities() {
        let question = lookup(Ask::Service("_mcp._tcp.svc.test".into()));
        let mut known = Known::new(&question);
        let mut told = answer(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        for (record, (priority, weight)) in
            told.records.iter_mut().zip([(20, 5), (10, 0), (20, 9999)])
        {
            (record.priority, record.weight) = (priority, weight);
        }
        known.learn(&question, &told);
        let all: Vec<_> = known.servers(&question).iter().map(|s| (s.priority, s.weight)).collect();
        assert_eq!(all, [(1, 5), (0, 1), (1, 1000)]);
        let host = known.servers(&question)[0].host_field().to_owned();
        assert_eq!(host, "svc.test");
    }

    #[test]
    fn one_server_stays_where_it_is_for_as_long_as_it_is_told() {
        let server = from_origin(&origin("http://tools:80").unwrap()).unwrap().servers.remove(0);
        let question = Question::Server(server);
        let mut known = Known::new(&question);
        let mut then = |told: &[&str]| {
            known.learn(&question, &answer(told));
            let servers = known.servers(&question);
            assert!(servers.iter().all(|s| s.authority == "tools"));
            let all = servers.first().and_then(|s| s.found.clone()).map(|f| f.addresses);
            all.into_iter().flatten().map(|a| a.ip().to_string()).collect::<Vec<_>>()
        };
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        assert!(then(&[]).is_empty());
        assert_eq!(then(&[a, b]), [a, b]);
        assert_eq!(then(&[c, b, a]), [a, b, c]);
        assert_eq!(then(&[c, b]), [b, c]);
        assert_eq!(
            (then(&[]), then(&[])),
            (vec![b.to_owned(), c.to_owned()], vec![b.to_owned(), c.to_owned()])
        );
        assert!(then(&[]).is_empty());
    }
}
