//! In: a DNS server that says what a test wants, and one config after another; out: what is made of that.

use std::net::SocketAddr;

use hickory_resolver::proto::rr::RecordType;

use super::resolve::{Gap, LATE, Record, of_service};
use super::*;
use crate::balance::compile::from_origin;
use crate::balance::lookup::Ask;
use crate::base::url::origin;

/// What a server says of a name, as it is on the wire (RFC 1035 §3.1), and a kind of records: a code (§4.1.1)
/// and data; absent: it is silent.
pub(super) type Says = Option<(u8, Vec<Vec<u8>>)>;

pub(super) const FAILURE: u8 = 2;
pub(super) const NO_SUCH_NAME: u8 = 3;
const A: u8 = 1;
const SERVICE: u8 = 33;

pub(super) async fn server(says: impl Fn(&[u8], u8) -> Says + Send + 'static) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut question).await {
            let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 5;
            let kind = question[end - 3];
            let Some((code, records)) = says(&question[12..end - 4], kind) else { continue };
            let count = u8::try_from(records.len()).unwrap();
            let mut answer = question[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
            for data in records {
                let length = u8::try_from(data.len()).unwrap();
                answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, length]);
                answer.extend(data);
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

/// 192.0.2.`last` for A, nothing for AAAA.
pub(super) fn address(kind: u8, last: u8) -> Says {
    Some((0, if kind == A { vec![vec![192, 0, 2, last]] } else { vec![] }))
}

/// A service at two hosts: of `bad`, what `bad` says of its addresses, and of `far`, which has one and two ports.
async fn of_two_hosts(
    bad: impl Fn(u8) -> Says + Send + 'static,
    dns_timeout: Duration,
    most: Duration,
) -> Answer {
    let record = |port: u8, host: &[u8]| [&[0, 0, 0, 1, 0, port][..], host, b"\x00"].concat();
    let server = server(move |name, kind| match (name, kind) {
        (_, SERVICE) => {
            let of = [(1, b"\x03bad"), (2, b"\x03far"), (3, b"\x03far"), (3, b"\x03far")];
            Some((0, of.iter().map(|(port, host)| record(*port, *host)).collect()))
        }
        (b"\x03bad\x00", _) => bad(kind),
        _ => address(kind, 7),
    })
    .await;
    let dns = DnsSettings { servers: vec![server], timeout: dns_timeout };
    of_service("_mcp._tcp.svc.test", &dns, Instant::now() + most).await.unwrap()
}

fn assert_only_far(answer: &Answer) {
    let record = |port| Record {
        address: SocketAddr::from(([192, 0, 2, 7], port)),
        hosts: vec!["far".into()],
        priority: 0,
        weight: 1,
    };
    assert_eq!(answer.records, [record(2), record(3)]);
}

#[tokio::test]
async fn a_host_that_cannot_be_resolved_is_a_gap_and_the_others_are_told() {
    let long = Duration::from_secs(30);
    let answer = of_two_hosts(|_| Some((FAILURE, vec![])), long, long).await;
    assert_only_far(&answer);
    let [gap] = answer.gaps.as_slice() else { panic!("{:?}", answer.gaps) };
    assert_eq!((&*gap.host, gap.port, gap.half), ("bad", 1, None));
    assert!(!gap.why.is_empty() && gap.why != LATE, "{}", gap.why);
    let told = of_two_hosts(|_| Some((NO_SUCH_NAME, vec![])), long, long).await;
    assert_only_far(&told);
    assert!(told.gaps.is_empty(), "that nobody is there is an answer");
}

#[tokio::test]
async fn a_host_that_is_silent_does_not_keep_the_others_from_being_told() {
    let most = Duration::from_secs(2);
    let answer = of_two_hosts(|_| None, Duration::from_secs(30), most).await;
    assert_only_far(&answer);
    let gap = Gap { host: "bad".into(), port: 1, priority: 0, half: None, why: LATE.to_owned() };
    assert_eq!(answer.gaps, [gap]);
}

#[tokio::test]
async fn half_of_a_host_is_half_a_gap() {
    let long = Duration::from_secs(30);
    let half = |kind| if kind == A { address(A, 9) } else { Some((FAILURE, vec![])) };
    let answer = of_two_hosts(half, long, long).await;
    let halves: Vec<_> = answer.gaps.iter().map(|gap| (&*gap.host, gap.half)).collect();
    assert_eq!(halves, [("bad", Some(RecordType::AAAA))]);
    let gap = &answer.gaps[0];
    let may_have = |text: &str| gap.may_have(text.parse().unwrap());
    assert!(may_have("[::1]:1") && !may_have("[::1]:2") && !may_have("192.0.2.9:1"));
    assert_eq!(answer.records.len(), 3);
}

/// An upstream of those servers, all with names.
fn upstream(servers: &[&str], lookups: Vec<Lookup>) -> UpstreamSettings {
    let of = |url: &str| from_origin(&origin(url).unwrap()).unwrap();
    let named = servers.iter().flat_map(|url| of(url).servers).collect();
    let dns = DnsSettings { servers: vec!["127.0.0.1:1".parse().unwrap()], ..Default::default() };
    UpstreamSettings { name: "some".into(), servers: named, lookups, dns, ..of("http://some") }
}

fn lookup(ask: Ask) -> Lookup {
    let every = Duration::from_secs(3600);
    Lookup { ask, https: false, every, weight: 1, priority: 0, drain: false }
}

fn answer(host: &str, addresses: &[&str], gaps: Vec<Gap>) -> Answer {
    let record = |text: &&str| Record {
        address: SocketAddr::new(text.parse().unwrap(), 80),
        hosts: vec![host.into()],
        priority: 0,
        weight: 1,
    };
    let records = addresses.iter().map(record).collect();
    Answer { records, gaps, good_for: Duration::from_secs(3600) }
}

#[test]
fn what_a_name_led_to_stays_over_a_reload_that_says_something_else_of_it() {
    let ask = || Ask::Host("svc.test".into(), 80);
    let before = Names::new(&upstream(&["http://tools"], vec![lookup(ask())]), None);
    before.learn(0, &Ok(answer("tools", &["10.0.0.1"], vec![])));
    before.learn(1, &Ok(answer("svc.test", &["10.0.0.2", "10.0.0.3"], vec![])));
    // asked for again at once, that is no other answer
    for _ in 0..3 {
        before.learn(1, &Ok(answer("svc.test", &["10.0.0.2"], vec![])));
    }

    let every = Duration::from_secs(1);
    let changed = Lookup { every, weight: 7, priority: 1, https: true, ..lookup(ask()) };
    let mut settings = upstream(&["http://tools"], vec![changed]);
    (settings.servers[0].weight, settings.servers[0].drain) = (9, true);
    let after = Names::new(&settings, Some(&before));
    let shares = |names: &Names| -> Vec<_> {
        let servers = names.servers(&settings.servers);
        let all = servers.iter().map(|s| {
            let found = s.found.as_ref().unwrap();
            (found.addresses[0].ip().to_string(), s.weight, s.priority, s.drain, s.https)
        });
        all.collect()
    };
    let share =
        |ip: &str, weight, priority, drain, https| (ip.to_owned(), weight, priority, drain, https);
    let expected = [
        share("10.0.0.1", 9, 0, true, false),
        share("10.0.0.2", 7, 1, false, true),
        share("10.0.0.3", 7, 1, true, true),
    ];
    assert_eq!(shares(&after), expected);
    assert!(after.are_settled());
    assert!(
        after.due(1).unwrap() <= Instant::now() + every,
        "it is asked for as often as is said now"
    );
    let views = after.views();
    let [tools, service] = views.as_slice() else { panic!("{views:?}") };
    assert_eq!((tools.name.as_str(), tools.found), ("http://tools", 1));
    assert_eq!((service.name.as_str(), service.found), ("https://svc.test:80 (dns)", 2));
    assert_eq!((service.counts, service.problem.as_deref()), ([4, 0, 0], None));

    // other DNS servers are asked at once, and nobody goes before they have answered
    settings.dns.servers[0].set_port(2);
    let elsewhere = Names::new(&settings, Some(&after));
    assert_eq!(shares(&elsewhere), expected);
    assert!(elsewhere.due(0).unwrap() <= Instant::now());
}

#[test]
fn another_name_is_found_anew() {
    let host = |name: &str, port| lookup(Ask::Host(name.into(), port));
    let before = Names::new(&upstream(&["http://tools"], vec![host("svc.test", 80)]), None);
    before.learn(0, &Ok(answer("tools", &["10.0.0.1"], vec![])));
    before.learn(1, &Ok(answer("svc.test", &["10.0.0.2"], vec![])));
    let service = lookup(Ask::Service("svc.test".into()));
    let others = vec![host("svc.test", 81), host("tools", 80), host("other.test", 80), service];
    let settings = upstream(&["http://tools:81", "http://other"], others);
    let after = Names::new(&settings, Some(&before));
    assert_eq!(after.views().iter().map(|view| view.found).collect::<Vec<_>>(), [0; 6]);
    assert!(after.servers(&settings.servers).is_empty() && !after.are_settled());
}

/// What is told of the one name of an upstream after such answers, and how often each came of them.
fn told(results: Vec<Result<Answer, String>>) -> (Option<String>, [u64; 3], Names) {
    let ask = Ask::Service("_mcp._tcp.svc.test".into());
    let names = Names::new(&upstream(&[], vec![lookup(ask)]), None);
    for result in results {
        names.learn(0, &result);
    }
    let view = names.views().remove(0);
    (view.problem, view.counts, names)
}

fn gap(host: &str, half: Option<RecordType>) -> Gap {
    Gap { host: host.into(), port: 80, priority: 0, half, why: "no".to_owned() }
}

#[test]
fn an_answer_that_is_not_whole_is_told_and_asked_for_again_soon() {
    let one = |gaps| Ok(answer("one", &["10.0.0.1"], gaps));
    let (problem, counts, names) = told(vec![one(vec![gap("two", None)])]);
    assert_eq!((problem.as_deref(), counts), (Some("two: no"), [0, 0, 1]));
    assert!(!names.are_settled(), "a session's replica may be at the other");
    assert!(names.due(0).unwrap() <= Instant::now() + LEAST);

    let two = Ok(answer("two", &["10.0.0.1", "10.0.0.2"], vec![]));
    let gaps = vec![gap("one", Some(RecordType::AAAA)), gap("two", None), gap("three", None)];
    let (problem, counts, names) = told(vec![two, one(gaps)]);
    let expected = "two (and others): no; who was found there stays";
    assert_eq!((problem.as_deref(), counts), (Some(expected), [1, 0, 1]));
    assert!(names.are_settled());
    let (problem, counts, names) = told(vec![one(vec![gap("two", None)]), one(vec![])]);
    assert_eq!((problem, counts), (None, [1, 0, 1]));
    assert!(names.are_settled() && names.due(0).unwrap() > Instant::now() + MOST_PAUSE);
}

#[test]
fn half_an_answer_is_told_where_somebody_is_missed() {
    let four = || Ok(answer("one", &["10.0.0.1"], vec![gap("one", Some(RecordType::AAAA))]));
    let (problem, counts, names) = told(vec![four()]);
    assert_eq!((problem, counts), (None, [1, 0, 0]));
    assert!(names.are_settled());
    let (problem, counts, _) = told(vec![Ok(answer("one", &["::1"], vec![])), four()]);
    assert_eq!(
        (problem.as_deref(), counts),
        (Some("one: no; who was found there stays"), [1, 0, 1])
    );
}

#[test]
fn nobody_and_too_many_are_told() {
    let (problem, counts, _) = told(vec![Ok(answer("one", &[], vec![]))]);
    assert_eq!((problem.as_deref(), counts), (Some("DNS says that nobody is there"), [0, 1, 0]));
    let all: Vec<String> = (0..=MOST).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (problem, counts, _) = told(vec![Ok(answer("one", &all, vec![]))]);
    let expected = "only 256 of its 257 addresses are used";
    assert_eq!((problem.as_deref(), counts), (Some(expected), [1, 0, 0]));
}
