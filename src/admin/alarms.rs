//! What somebody should look at: in, the parts of a status; out, sentences, the worst first.

use super::counts::Counts;
use super::status::{Alarm, Certificate, Replica, Upstream};
use crate::base::life::Phase;

/// Renewals come a month ahead; who has not renewed by now has a problem.
const SOON: f64 = 14.0 * DAY;
const DAY: f64 = 86_400.0;

/// All alarms of one moment; `now` in seconds since 1970.
pub(super) fn alarms(
    phase: Phase,
    upstreams: &[Upstream],
    certificates: &[Certificate],
    counts: &Counts,
    now: f64,
) -> Vec<Alarm> {
    let mut all = Vec::new();
    match phase {
        Phase::Starting => all.push(warning("the edge is starting: it accepts nothing yet")),
        Phase::Stopping => {
            all.push(warning(
                "the edge is stopping: it finishes what runs and accepts nothing new",
            ));
        }
        Phase::Ready => {}
    }
    upstreams.iter().for_each(|upstream| of_upstream(upstream, &mut all));
    certificates.iter().for_each(|certificate| all.extend(of_certificate(certificate, now)));
    if counts.bad_config {
        all.push(error("the last reload of the config failed: the one before it is at work"));
    }
    if counts.bad_audit {
        all.push(error(
            "the audit log cannot be written: see `full` of `audit` for what becomes of calls",
        ));
    }
    let bad_file = |file| error(format!("the file {file}, as it is now, is not in force"));
    all.extend(counts.bad_files.iter().map(bad_file));
    let bad_acme = |name| error(format!("the last try for the certificate {name} failed"));
    all.extend(counts.bad_acme.iter().map(bad_acme));
    if counts.log_lost > 0 {
        let lost = counts.log_lost;
        all.push(warning(format!("{lost} lines of the access log could not be written")));
    }
    all.sort_by_key(|alarm| alarm.level != "error");
    all
}

fn of_upstream(upstream: &Upstream, all: &mut Vec<Alarm>) {
    let name = &upstream.name;
    if upstream.available == 0 {
        all.push(error(format!("upstream {name}: no replica is up")));
    }
    for dns in &upstream.names {
        let Some(problem) = &dns.problem else { continue };
        let text = format!("upstream {name}: {}: {problem}", dns.name);
        all.push(if dns.found == 0 { error(text) } else { warning(text) });
    }
    let gone =
        |replica: &&Replica| matches!(replica.state.as_str(), "failing" | "ejected" | "down");
    for replica in upstream.replicas.iter().filter(gone) {
        let why = replica.problem.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let text = format!("replica {} of {name} is {}{why}", replica.address, replica.state);
        all.push(if upstream.available == 0 { error(text) } else { warning(text) });
    }
}

fn of_certificate(certificate: &Certificate, now: f64) -> Option<Alarm> {
    let left = certificate.expires as f64 - now;
    let file = &certificate.file;
    if left <= 0.0 {
        return Some(error(format!("the certificate {file} has expired")));
    }
    let days = (left / DAY).floor();
    let plural = if days == 1.0 { "" } else { "s" };
    (left < SOON).then(|| warning(format!("the certificate {file} expires in {days} day{plural}")))
}

fn error(text: impl Into<String>) -> Alarm {
    Alarm { level: "error".to_owned(), text: text.into() }
}

fn warning(text: impl Into<String>) -> Alarm {
    Alarm { level: "warning".to_owned(), text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::super::status::Name;
    use super::*;

    fn upstream(states: &[&str]) -> Upstream {
        let replica = |state: &&str| Replica {
            address: "a:1".to_owned(),
            state: (*state).to_owned(),
            since: None,
            problem: (*state == "down").then(|| "refused".to_owned()),
            problem_at: None,
            in_flight: 0,
            latency_ms: None,
            weight: 1,
            priority: 0,
        };
        Upstream {
            name: "u".to_owned(),
            available: states.iter().filter(|state| **state == "up").count(),
            replicas: states.iter().map(replica).collect(),
            names: Vec::new(),
        }
    }

    fn texts(all: &[Alarm]) -> Vec<String> {
        all.iter().map(|alarm| format!("{}: {}", alarm.level, alarm.text)).collect()
    }

    #[test]
    fn replicas_that_are_gone_are_named() {
        let of = |states: &[&str]| {
            texts(&alarms(Phase::Ready, &[upstream(states)], &[], &Counts::default(), 0.0))
        };
        assert!(of(&["up", "draining", "starting"]).is_empty());
        assert_eq!(of(&["up", "down"]), ["warning: replica a:1 of u is down: refused"]);
        assert_eq!(
            of(&["failing"]),
            ["error: upstream u: no replica is up", "error: replica a:1 of u is failing"]
        );
        assert_eq!(
            of(&["down", "ejected"]),
            [
                "error: upstream u: no replica is up",
                "error: replica a:1 of u is down: refused",
                "error: replica a:1 of u is ejected"
            ]
        );
    }

    #[test]
    fn names_that_lead_nowhere_are_told() {
        let name = |found| Name {
            name: "http://x".to_owned(),
            found,
            answered: None,
            problem: Some("no answer".to_owned()),
        };
        for (found, level) in [(0, "error"), (2, "warning")] {
            let upstream = Upstream { names: vec![name(found)], ..upstream(&["up"]) };
            let all = texts(&alarms(Phase::Ready, &[upstream], &[], &Counts::default(), 0.0));
            assert_eq!(all, [format!("{level}: upstream u: http://x: no answer")]);
        }
    }

    #[test]
    fn certificates_are_told_of_in_good_time() {
        let of = |expires: i64| {
            let certificate = Certificate { file: "f".to_owned(), names: Vec::new(), expires };
            texts(&alarms(Phase::Ready, &[], &[certificate], &Counts::default(), 1000.0))
        };
        assert!(of(1000 + 20 * 86_400).is_empty());
        assert_eq!(of(1000 + 86_400), ["warning: the certificate f expires in 1 day"]);
        assert_eq!(of(1000), ["error: the certificate f has expired"]);
    }

    #[test]
    fn errors_stand_before_warnings() {
        let counts = Counts {
            log_lost: 3,
            bad_config: true,
            bad_audit: true,
            bad_files: vec!["x".to_owned()],
            bad_acme: vec!["y".to_owned()],
            ..Counts::default()
        };
        let all = texts(&alarms(Phase::Stopping, &[], &[], &counts, 0.0));
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(all[..4].iter().all(|text| text.starts_with("error: ")), "{all:?}");
        assert!(all[4].contains("stopping") && all[5].contains("3 lines"), "{all:?}");
    }
}
