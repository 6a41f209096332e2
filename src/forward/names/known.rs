//! What a name has led to so far: in, answers; out, servers, of which those that are missing drain first.
//!
//! A name server may give another part of a long list each time, and an answer may be wrong for a moment: so a
//! replica that is missing keeps its sessions until it is missing for the third time in a row, and only gets nothing
//! new. An answer without anybody drains nobody, or nothing at all would be served; the third one leaves nobody.
//! Nobody is missing whose host was not answered.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Question;
use super::resolve::{Answer, Gap, Record};
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
    /// Whether there ever was an answer for all of its hosts.
    pub(super) answered: bool,
    kept: Kept,
    /// Answers in a row that named nobody.
    empty: u32,
}

#[derive(Debug, Clone, PartialEq)]
enum Kept {
    /// One server, at the first of these that can be reached.
    One(Vec<SocketAddr>),
    /// A server each.
    Each(Vec<Each>),
}

/// One of the servers; what the config says of it is asked of the config, which may change.
#[derive(Debug, Clone, PartialEq)]
struct Each {
    address: SocketAddr,
    /// The hosts that it was found at.
    hosts: Vec<Arc<str>>,
    /// Of the SRV record; else the config's.
    weight: Option<u32>,
    /// Behind the config's priority.
    place: u32,
    /// Answers in a row that it is missing from.
    missing: u32,
}

/// What an answer leaves to be told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Left {
    /// How many stay though it does not have them, since it is not whole.
    pub(super) kept: usize,
    /// How many it has that there was no room for.
    pub(super) out: usize,
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

    /// Takes an answer to that question; whether it comes `again`, before the time of the last one was over: a DNS
    /// server that keeps answers may just have repeated it.
    pub(super) fn learn(&mut self, question: &Question, answer: &Answer, again: bool) -> Left {
        self.answered |= answer.gaps.iter().all(|gap| gap.half.is_some());
        self.empty = if answer.records.is_empty() { self.empty.saturating_add(1) } else { 0 };
        match (&mut self.kept, question) {
            (Kept::One(addresses), _) if self.empty == 0 => return follow(addresses, answer),
            (Kept::One(addresses), _) if self.empty >= GONE => addresses.clear(),
            (Kept::Each(all), Question::Lookup(lookup)) => {
                return follow_each(all, lookup, answer, again);
            }
            (Kept::One(_) | Kept::Each(_), _) => {}
        }
        Left::default()
    }

    /// How many servers, or addresses of one, there are.
    pub(super) fn len(&self) -> usize {
        match &self.kept {
            Kept::One(addresses) => addresses.len(),
            Kept::Each(all) => all.len(),
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
            (Kept::Each(all), Question::Lookup(lookup)) => {
                let somebody = all.iter().any(|each| each.missing == 0);
                let server = |each: &Each| {
                    let server = each.server(lookup);
                    let drain = server.drain || (each.missing > 0 && somebody);
                    ServerSettings { drain, ..server }
                };
                all.iter().map(server).collect()
            }
            (Kept::One(_) | Kept::Each(_), _) => Vec::new(),
        }
    }
}

/// Addresses that stay keep their places: whoever is connected there has no reason to go.
fn follow(addresses: &mut Vec<SocketAddr>, answer: &Answer) -> Left {
    let mut left = Left::default();
    addresses.retain(|address| {
        let is_told = answer.records.iter().any(|record| record.address == *address);
        let is_kept = !is_told && answer.gaps.iter().any(|gap| gap.may_have(*address));
        left.kept += usize::from(is_kept);
        is_told || is_kept
    });
    for record in &answer.records {
        match addresses.contains(&record.address) {
            false if addresses.len() < MOST => addresses.push(record.address),
            false => left.out += 1,
            true => {}
        }
    }
    left
}

fn follow_each(all: &mut Vec<Each>, lookup: &Lookup, answer: &Answer, again: bool) -> Left {
    let (mut told, mut left) = (told(lookup, answer), Left::default());
    let mut next = all.clone();
    for each in &mut next {
        let in_doubt = each.in_doubt(&answer.gaps);
        match told.iter().position(|other| other.address == each.address) {
            Some(place) => {
                let known = std::mem::replace(each, told.remove(place));
                let more = known.hosts.into_iter().filter(|host| in_doubt.contains(host));
                let more: Vec<_> = more.filter(|host| !each.hosts.contains(host)).collect();
                each.hosts.extend(more);
            }
            None if in_doubt.is_empty() => each.missing += u32::from(!again || each.missing == 0),
            None => left.kept += 1,
        }
    }
    let somebody = !told.is_empty() || next.iter().any(|each| each.missing == 0);
    if !somebody && !answer.gaps.is_empty() {
        // who is there now is not known: that leaves nobody without anybody
        return Left { kept: all.len(), out: 0 };
    }
    next.retain(|each| each.missing < GONE);
    for new in told {
        if next.len() >= MOST && !make_room(&mut next) {
            left.out += 1;
        } else {
            next.push(new);
        }
    }
    *all = next;
    left
}

/// Who has been missing for the longest goes, whatever sessions it has: those who are there would wait for it.
fn make_room(all: &mut Vec<Each>) -> bool {
    let missing = all.iter().enumerate().filter(|(_, each)| each.missing > 0);
    let longest = missing.max_by_key(|(_, each)| each.missing).map(|(place, _)| place);
    longest.map(|place| all.remove(place)).is_some()
}

/// A server for each record. Of services the smallest priority counts as 0, the next as 1: what stands beside them in
/// the config counts so, too. Hosts that cannot be resolved have theirs still.
fn told(lookup: &Lookup, answer: &Answer) -> Vec<Each> {
    let of_gaps = answer.gaps.iter().map(|gap| gap.priority);
    let of_records = answer.records.iter().map(|record| record.priority);
    let mut priorities: Vec<u16> = of_records.chain(of_gaps).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let each = |record: &Record| {
        let (weight, place) = match &lookup.ask {
            Ask::Host(..) => (None, 0),
            Ask::Service(_) => {
                let place = priorities.iter().take_while(|p| **p < record.priority).count();
                (Some(record.weight.clamp(1, MOST_WEIGHT).into()), place)
            }
        };
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Each { address: record.address, hosts: record.hosts.clone(), weight, place, missing: 0 }
    };
    answer.records.iter().map(each).collect()
}

impl Each {
    fn server(&self, lookup: &Lookup) -> ServerSettings {
        let weight = self.weight.unwrap_or(lookup.weight);
        lookup.server(self.address, weight, lookup.priority.saturating_add(self.place))
    }

    /// Those of its hosts that may have it though the answer does not say so.
    fn in_doubt(&self, gaps: &[Gap]) -> Vec<Arc<str>> {
        let may_be = gaps.iter().filter(|gap| gap.may_have(self.address));
        let hosts = may_be.map(|gap| &gap.host).filter(|host| self.hosts.contains(host));
        hosts.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::compile::from_origin;
    use crate::base::url::origin;
    use hickory_resolver::proto::rr::RecordType;
    use std::time::Duration;

    fn lookup(ask: Ask) -> Question {
        let every = Duration::from_secs(1);
        Question::Lookup(Lookup { ask, https: false, every, weight: 3, priority: 0, drain: false })
    }

    fn learn(known: &mut Known, question: &Question, answer: &Answer) -> Left {
        known.learn(question, answer, false)
    }

    fn host() -> Question {
        lookup(Ask::Host("svc.test".into(), 80))
    }

    fn at(address: &str, hosts: &[&str]) -> Record {
        Record {
            address: SocketAddr::new(address.parse().unwrap(), 80),
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            priority: 0,
            weight: 0,
        }
    }

    fn answer(addresses: &[&str]) -> Answer {
        let records = addresses.iter().map(|address| at(address, &["svc.test"])).collect();
        Answer { records, gaps: Vec::new(), good_for: Duration::ZERO }
    }

    fn gap(host: &str, half: Option<RecordType>) -> Gap {
        Gap { host: host.into(), port: 80, priority: 0, half, why: "no".to_owned() }
    }

    /// An answer to a service, of addresses with their hosts, and the hosts that could not be resolved.
    fn service(told: &[(&str, &[&str])], failed: &[&str]) -> Answer {
        let records = told.iter().map(|(address, hosts)| at(address, hosts)).collect();
        let gaps = failed.iter().map(|host| gap(host, None)).collect();
        Answer { records, gaps, good_for: Duration::ZERO }
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
            learn(&mut known, &question, &answer(told));
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
    fn who_is_asked_for_again_too_soon_is_not_missing_once_more() {
        let (question, [a, b]) = (host(), ["10.0.0.1", "10.0.0.2"]);
        let mut known = Known::new(&question);
        learn(&mut known, &question, &answer(&[a, b]));
        for _ in 0..2 * GONE {
            known.learn(&question, &answer(&[a]), true);
            assert_eq!(shown(&known, &question), [a, &format!("-{b}")], "it gets nothing new");
        }
        for _ in 1..GONE {
            learn(&mut known, &question, &answer(&[a]));
        }
        assert_eq!(shown(&known, &question), [a]);
    }

    #[test]
    fn nobody_drains_nobody_at_first() {
        let (question, a) = (host(), "10.0.0.1");
        let mut known = Known::new(&question);
        for told in [&[a][..], &[], &[]] {
            learn(&mut known, &question, &answer(told));
            assert_eq!(shown(&known, &question), [a]);
        }
        learn(&mut known, &question, &answer(&[]));
        assert!(known.servers(&question).is_empty() && known.answered);
    }

    #[test]
    fn half_an_answer_takes_nobody_away_whom_it_could_not_name() {
        let (question, four, six) = (host(), "10.0.0.1", "::1");
        let mut known = Known::new(&question);
        learn(&mut known, &question, &answer(&[four, six]));
        for _ in 0..5 {
            let gaps = vec![gap("svc.test", Some(RecordType::AAAA))];
            let left = learn(&mut known, &question, &Answer { gaps, ..answer(&["10.0.0.2"]) });
            assert_eq!(left, Left { kept: 1, out: 0 });
        }
        assert_eq!(shown(&known, &question), ["[::1]", "10.0.0.2"]);
    }

    /// Three hosts, of which one after another cannot be resolved any more.
    #[test]
    fn a_host_that_fails_keeps_its_own_and_nobody_else() {
        let question = lookup(Ask::Service("_mcp._tcp.svc.test".into()));
        let mut known = Known::new(&question);
        let [a, b, c, d] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let mut then = |told: &[(&str, &[&str])], failed: &[&str]| {
            let kept = learn(&mut known, &question, &service(told, failed)).kept;
            (shown(&known, &question), kept)
        };
        let one: (&str, &[&str]) = (a, &["one"]);
        then(&[one, (b, &["two"]), (c, &["two"]), (d, &["three"])], &[]);
        // of `two` one replica has left, `three` has left the answer, and `one` does not answer
        let two: (&str, &[&str]) = (b, &["two"]);
        let expected = [a.to_owned(), b.to_owned(), format!("-{c}"), format!("-{d}")];
        assert_eq!(then(&[two], &["one"]), (expected.to_vec(), 1));
        then(&[two], &["one"]);
        assert_eq!(then(&[two], &["one"]), (vec![a.to_owned(), b.to_owned()], 1));
        // it answers
        assert_eq!(then(&[two], &[]), (vec![format!("-{a}"), b.to_owned()], 0));
    }

    #[test]
    fn who_is_at_two_hosts_is_not_missing_while_one_of_them_fails() {
        let question = lookup(Ask::Service("_mcp._tcp.svc.test".into()));
        let mut known = Known::new(&question);
        let (a, b) = ("10.0.0.1", "10.0.0.2");
        let other: (&str, &[&str]) = (b, &["two"]);
        learn(&mut known, &question, &service(&[(a, &["one", "two"]), other], &[]));
        // it is told by the other one alone, which then has it no more
        learn(&mut known, &question, &service(&[(a, &["two"]), other], &["one"]));
        for _ in 0..GONE {
            learn(&mut known, &question, &service(&[other], &["one"]));
            assert_eq!(shown(&known, &question), [a, b]);
        }
        learn(&mut known, &question, &service(&[other], &[]));
        assert_eq!(shown(&known, &question), [&format!("-{a}"), b]);
    }

    #[test]
    fn another_port_of_a_host_that_fails_is_missing() {
        let question = lookup(Ask::Service("_mcp._tcp.svc.test".into()));
        let mut known = Known::new(&question);
        learn(
            &mut known,
            &question,
            &service(&[("10.0.0.1", &["one"]), ("10.0.0.2", &["two"])], &[]),
        );
        let mut told = service(&[("10.0.0.2", &["two"])], &["one"]);
        told.gaps[0].port = 81;
        learn(&mut known, &question, &told);
        assert_eq!(shown(&known, &question), ["-10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn all_stay_while_only_hosts_that_fail_are_left() {
        let question = lookup(Ask::Service("_mcp._tcp.svc.test".into()));
        let mut known = Known::new(&question);
        let first = learn(&mut known, &question, &service(&[], &["new"]));
        assert_eq!((first, known.answered, known.len()), (Left::default(), false, 0));
        learn(&mut known, &question, &service(&[("10.0.0.1", &["old"])], &["new"]));
        assert!(!known.answered, "there may be others");
        for _ in 0..2 * GONE {
            let left = learn(&mut known, &question, &service(&[], &["new"]));
            assert_eq!(
                (left, shown(&known, &question)),
                (Left { kept: 1, out: 0 }, vec!["10.0.0.1".into()])
            );
        }
        learn(&mut known, &question, &service(&[("10.0.0.2", &["new"])], &[]));
        assert!(known.answered);
        assert_eq!(shown(&known, &question), ["-10.0.0.1", "10.0.0.2"]);
    }

    fn many(numbers: std::ops::Range<usize>) -> Answer {
        let all: Vec<String> = numbers.map(v4).collect();
        answer(&all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn the_number_is_bounded() {
        let question = host();
        let mut known = Known::new(&question);
        let left = learn(&mut known, &question, &many(0..2 * MOST));
        assert_eq!(left, Left { kept: 0, out: MOST });
        assert_eq!((known.servers(&question).len(), known.len()), (MOST, MOST));
        let first = shown(&known, &question);
        learn(&mut known, &question, &many(0..2 * MOST));
        assert_eq!(shown(&known, &question), first, "nobody who is there goes for another");
    }

    #[test]
    fn where_there_is_no_room_who_has_been_missing_for_longest_goes_first() {
        let question = host();
        let mut known = Known::new(&question);
        learn(&mut known, &question, &many(0..MOST));
        learn(&mut known, &question, &many(1..MOST));
        // the first is missing for the second time, and the second for the first
        let left = learn(&mut known, &question, &many(2..MOST + 1));
        assert_eq!(left, Left::default());
        let now = shown(&known, &question);
        assert_eq!((&now[0], &now[MOST - 1]), (&format!("-{}", v4(1)), &v4(MOST)));
        assert_eq!(now.len(), MOST);
    }

    #[test]
    fn when_all_change_those_who_are_there_are_used_at_once() {
        let question = host();
        let mut known = Known::new(&question);
        learn(&mut known, &question, &many(0..MOST));
        assert_eq!(learn(&mut known, &question, &many(MOST..2 * MOST)), Left::default());
        let expected: Vec<String> = (MOST..2 * MOST).map(v4).collect();
        assert_eq!(shown(&known, &question), expected);
        // with some room the others keep their sessions
        let mut known = Known::new(&question);
        learn(&mut known, &question, &many(0..MOST));
        learn(&mut known, &question, &many(MOST..MOST + 6));
        let now = shown(&known, &question);
        let draining = now.iter().filter(|name| name.starts_with('-')).count();
        assert_eq!((draining, now.len()), (MOST - 6, MOST));
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
        learn(&mut known, &question, &told);
        let all: Vec<_> = known.servers(&question).iter().map(|s| (s.priority, s.weight)).collect();
        assert_eq!(all, [(1, 5), (0, 1), (1, 1000)]);
        // the first ones' host fails: the others stay the second
        told.records.remove(1);
        told.gaps.push(Gap { priority: 10, ..gap("svc.test", None) });
        learn(&mut known, &question, &told);
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
            learn(&mut known, &question, &answer(told));
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
