//! In: requests and checks that end well or badly, one after another; out: what becomes of the replica.

use super::settings::HttpCheck;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const EJECT: EjectSettings = EjectSettings { failures: 5, period: SECOND, at_most: 50 };

fn settings(slow_start: u64) -> HealthSettings {
    HealthSettings {
        check: Check::Tcp,
        every: 10 * SECOND,
        timeout: SECOND,
        up_after: 2,
        down_after: 3,
        slow_start: Duration::from_secs(slow_start),
    }
}

fn bad() -> Result<(), String> {
    Err("refused".into())
}

fn problem(health: &Health) -> Option<String> {
    health.story().1.map(|problem| problem.text)
}

/// What each of some checks changes; `+` is a good one.
fn changes(health: &Health, checks: &str, now: Instant) -> Vec<Option<Change>> {
    let result = |c| if c == '+' { Ok(()) } else { bad() };
    checks.chars().map(|c| health.checked(result(c), &settings(0), now)).collect()
}

#[test]
fn it_takes_several_checks_to_change_a_state() {
    let (health, now) = (Health::new(), Instant::now());
    assert_eq!(changes(&health, "+--+--", now), [None; 6], "one good check begins the count anew");
    assert!(health.is_open() && health.in_doubt());
    assert_eq!(changes(&health, "-", now), [Some(Change::Down)]);
    assert_eq!((health.state(), health.is_open()), (State::Down, false));
    assert_eq!(problem(&health).as_deref(), Some("refused"));
    assert_eq!(changes(&health, "-+-+", now), [None; 4]);
    assert_eq!(changes(&health, "+", now), [Some(Change::Up)]);
    assert_eq!((health.state(), problem(&health)), (State::Up, None));
    assert_eq!(health.totals(), Totals { good: 5, bad: 7, ejections: [0; 4] });
}

#[test]
fn the_first_check_decides_alone() {
    let now = Instant::now();
    assert_eq!(changes(&Health::new(), "-", now), [Some(Change::Down)]);
    let joined = Health::joined(true);
    assert_eq!(joined.state(), State::Down);
    assert_eq!(changes(&joined, "+", now), [Some(Change::Up)]);
    assert_eq!(Health::joined(false).state(), State::Up);
}

#[test]
fn who_was_never_looked_at_is_not_found_down() {
    let now = Instant::now();
    let health = Health::joined(true);
    assert_eq!((health.is_down(), health.is_found_down()), (true, false));
    changes(&health, "-", now);
    assert!(health.is_found_down());
    changes(&health, "++", now);
    assert!(!health.is_found_down());
    changes(&health, "---", now);
    assert!(health.is_found_down());
    // who is ejected is not down
    let health = Health::new();
    health.eject(Cause::Connect, &EJECT, now);
    assert!(!health.is_found_down());
    // a reload has ended the checks: what they said is forgotten
    let health = Health::new();
    changes(&health, "-", now);
    assert_eq!(health.unchecked(now), Some(Change::Up));
    assert!(!health.is_found_down());
    assert_eq!(
        changes(&health, "-", now),
        [Some(Change::Down)],
        "the first of others decides alone"
    );
}

#[test]
fn failures_count_in_a_row() {
    let health = Health::new();
    assert_eq!((health.failed(), health.failed()), (1, 2));
    health.answered();
    assert_eq!(health.failed(), 1);
}

#[test]
fn an_ejection_ends_by_itself_and_the_next_is_longer() {
    let (health, mut now) = (Health::new(), Instant::now());
    let mut rests = Vec::new();
    for _ in 0..12 {
        let change = health.eject(Cause::Status, &EJECT, now);
        let Change::Ejected(Cause::Status, period) = change else { panic!("{change:?}") };
        rests.push(period.as_secs());
        assert_eq!(health.state(), State::Ejected);
        assert_eq!(health.tick(Duration::ZERO, now + period - SECOND / 2), None);
        now += period;
        assert_eq!(health.tick(Duration::ZERO, now), Some(Change::Tried), "nothing is proved yet");
        assert_eq!((health.state(), health.tick(Duration::ZERO, now)), (State::Failing, None));
        assert_eq!(problem(&health).as_deref(), Some("requests failed: status"));
        assert_eq!(health.answered(), Some(Change::Up));
        assert_eq!((health.state(), problem(&health)), (State::Up, None));
    }
    assert_eq!(rests, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]);
    let later = health.eject(Cause::Status, &EJECT, now + SECOND);
    assert_eq!(later, Change::Ejected(Cause::Status, SECOND), "it was good for long enough");
    assert_eq!(health.totals().ejections, [0, 13, 0, 0]);
}

#[test]
fn who_could_not_be_reached_is_pardoned_when_he_can() {
    let now = Instant::now();
    for (cause, pardoned) in [(Cause::Connect, true), (Cause::Broken, false)] {
        let health = Health::new();
        health.eject(cause, &EJECT, now);
        assert_eq!(health.is_unreachable(), pardoned);
        assert_eq!(health.reached(Duration::ZERO, now).is_some(), pardoned);
        assert_eq!(health.is_open(), pardoned);
        // the same by checks: as many as bring back one that is down
        let health = Health::new();
        changes(&health, "+", now);
        health.eject(cause, &EJECT, now);
        let up = pardoned.then_some(Change::Up);
        assert_eq!(changes(&health, "+-++", now), [None, None, None, up]);
    }
}

#[test]
fn who_is_down_stays_down_when_his_ejection_ends() {
    let (health, now) = (Health::new(), Instant::now());
    health.eject(Cause::Connect, &EJECT, now);
    assert_eq!(changes(&health, "-", now), [Some(Change::Down)]);
    assert_eq!(health.tick(Duration::ZERO, now + SECOND), None);
    assert_eq!(health.state(), State::Down);
    assert_eq!(changes(&health, "++", now), [None, Some(Change::Up)]);
}

#[test]
fn who_is_answered_for_during_his_rest_is_up_when_it_ends() {
    let (health, now) = (Health::new(), Instant::now());
    health.eject(Cause::Status, &EJECT, now);
    // a session's: those go on
    assert_eq!((health.answered(), health.state()), (None, State::Ejected));
    assert_eq!(problem(&health).as_deref(), Some("requests failed: status"));
    assert_eq!(health.tick(Duration::ZERO, now + SECOND), Some(Change::Up));
    assert_eq!((health.state(), problem(&health)), (State::Up, None));
}

#[test]
fn a_streak_is_told_of_when_it_begins_and_when_it_ends() {
    let (health, now) = (Health::new(), Instant::now());
    assert_eq!(health.fails(Cause::Connect, 5, now), Some(Change::Failing(Cause::Connect, 5)));
    assert_eq!((health.state(), health.is_open()), (State::Failing, true));
    let first = health.story();
    assert_eq!(health.fails(Cause::Timeout, 6, now + SECOND), None);
    let second = health.story();
    assert_eq!(second.0, first.0, "the same streak");
    let (first, second) = (first.1.unwrap(), second.1.unwrap());
    assert!(second.at >= first.at && second.text == "requests failed: timeout");
    assert_eq!((health.answered(), health.answered()), (Some(Change::Up), None));
    assert_eq!((health.state(), problem(&health)), (State::Up, None));
    // one that fails on and off does not fill the log; how it stands is shown all the same
    assert_eq!(health.fails(Cause::Status, 5, now + 29 * SECOND), None);
    assert_eq!((health.state(), health.answered()), (State::Failing, None));
    assert_eq!(health.state(), State::Up);
    let later = health.fails(Cause::Status, 5, now + 30 * SECOND);
    assert_eq!(later, Some(Change::Failing(Cause::Status, 5)));
    assert_eq!(health.answered(), Some(Change::Up));
}

#[test]
fn what_ends_a_streak_is_what_was_in_doubt() {
    let now = Instant::now();
    for (cause, ends) in [(Cause::Connect, true), (Cause::Status, false)] {
        let state = if ends { State::Up } else { State::Failing };
        let health = Health::new();
        health.fails(cause, 5, now);
        assert_eq!(health.is_unreachable(), ends);
        assert_eq!(health.reached(Duration::ZERO, now).is_some(), ends);
        assert_eq!((health.state(), problem(&health).is_none()), (state, ends));
        // checks that were good all the while say no more than before; as many as bring one back say it listens
        let health = Health::new();
        changes(&health, "+", now);
        health.fails(cause, 5, now);
        changes(&health, "+", now);
        assert_eq!(health.state(), State::Failing);
        changes(&health, "+", now);
        assert_eq!((health.state(), problem(&health).is_none()), (state, ends));
    }
    // those that were bad, too, are a trial of their own
    let health = Health::new();
    changes(&health, "-", now);
    health.fails(Cause::Status, 5, now);
    assert_eq!(health.state(), State::Down);
    assert_eq!(changes(&health, "++", now), [None, Some(Change::Up)]);
    assert_eq!((health.state(), problem(&health)), (State::Up, None));
}

#[test]
fn a_slow_start_grows_to_the_whole_share() {
    let (health, now, settings) = (Health::joined(true), Instant::now(), settings(10));
    assert_eq!(health.checked(Ok(()), &settings, now), Some(Change::Up));
    assert_eq!((health.state(), health.share()), (State::Starting, FIRST));
    let taken = |n: u32| (0..n).filter(|_| health.takes()).count();
    assert_eq!(taken(FULL * 10), FIRST as usize * 10);
    // a caller that has come over stays
    let places = || (0..10_000).filter(|place| health.takes_place(*place)).collect::<Vec<_>>();
    let first = places();
    health.tick(settings.slow_start, now + 5 * SECOND);
    assert_eq!(health.share(), FIRST + (FULL - FIRST) / 2);
    let then = places();
    assert!(then.len() > 4 * first.len() && first.iter().all(|place| then.contains(place)));
    health.tick(settings.slow_start, now + 10 * SECOND);
    assert_eq!((health.state(), taken(100), places().len()), (State::Up, 100, 10_000));
}

#[test]
fn a_slow_start_that_is_broken_off_begins_anew() {
    let (health, now, settings) = (Health::new(), Instant::now(), settings(10));
    health.eject(Cause::Status, &EJECT, now);
    health.tick(settings.slow_start, now + SECOND);
    health.answered();
    assert_eq!(health.state(), State::Starting);
    health.eject(Cause::Status, &EJECT, now + SECOND);
    // who is tried because nobody is up takes all
    assert!((0..10).all(|_| health.takes()));
    health.tick(settings.slow_start, now + 60 * SECOND);
    assert_eq!((health.state(), health.share()), (State::Failing, FIRST));
    health.answered();
    assert_eq!((health.state(), health.share()), (State::Starting, FIRST));
}

#[test]
fn the_mean_latency_moves_by_an_eighth() {
    let health = Health::new();
    assert_eq!(health.latency(), None);
    health.took(Duration::from_micros(800));
    assert_eq!(health.latency(), Some(Duration::from_micros(800)));
    health.took(Duration::from_micros(1600));
    assert_eq!(health.latency(), Some(Duration::from_micros(900)));
    for _ in 0..200 {
        health.took(Duration::from_secs(9));
    }
    assert!(health.latency().is_some_and(|mean| mean > Duration::from_secs(8)));
    for _ in 0..200 {
        health.took(Duration::MAX);
    }
    // the longest that is kept leaves the number of answers beside it alone
    assert!(health.latency().is_some_and(|mean| mean > Duration::from_secs(4000)));
    assert_eq!(health.answers(), 402);
}

#[test]
fn whoever_is_answered_is_counted_and_whoever_only_gets_a_connection_is_not() {
    let (health, now, mut settings) = (Health::new(), Instant::now(), settings(0));
    let mut counted = |result: Result<(), String>, check: Check| {
        settings.check = check;
        let before = health.answers();
        health.checked(result, &settings, now);
        health.answers() - before
    };
    let http = || Check::Http(HttpCheck { path: "/".into(), status: vec![], body: None });
    assert_eq!((counted(Ok(()), http()), counted(Err("no".into()), http())), (1, 0));
    assert_eq!(counted(Ok(()), Check::Tcp), 0);
    let before = (health.answers(), health.latency());
    health.failed();
    health.answered();
    assert_eq!((health.answers(), health.latency()), before, "`took` alone counts them");
}

#[test]
fn enough_are_left() {
    let most = |all, at_most| (0..=all).filter(|away| may_eject(*away, all, at_most)).count();
    assert_eq!([1, 2, 3, 4, 10].map(|all| most(all, 50)), [0, 1, 1, 2, 5]);
    assert_eq!([1, 2, 3].map(|all| most(all, 100)), [1, 2, 3]);
    assert_eq!(most(3, 10), 0);
}
