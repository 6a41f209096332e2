//! What `mcp-edge status` prints: in, a status; out, lines that fit in 100 columns where names do.

use super::counts::Tally;
use super::status::{Certificate, Refusal, Replica, Status, Upstream};
use crate::base::text::one_line;

const DAY: f64 = 86_400.0;

/// The page's content, top down.
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    let word = if status.ready { "ready" } else { "NOT READY" };
    let phase = if status.phase == "ready" { "" } else { status.phase.as_str() };
    line(
        &mut out,
        &format!(
            "mcp-edge {}  {word} {phase} config generation {}, up {}",
            status.version,
            status.generation,
            period(status.uptime)
        ),
    );
    for alarm in &status.alarms {
        line(&mut out, &format!("  {}: {}", alarm.level.to_uppercase(), alarm.text));
    }
    let first_byte = status.first_byte.p50_ms.zip(status.first_byte.p99_ms);
    let times = first_byte.map_or_else(String::new, |(p50, p99)| {
        format!("; first byte p50 {}, p99 {}", millis(p50), millis(p99))
    });
    line(
        &mut out,
        &format!(
            "{} requests ({}){times}",
            status.requests.values().sum::<u64>(),
            tally(&status.requests)
        ),
    );
    line(
        &mut out,
        &format!(
            "{} connections, {} streams, {} in flight, {} sessions begun",
            status.connections, status.streams, status.in_flight, status.sessions_sealed
        ),
    );
    status.upstreams.iter().for_each(|upstream| write_upstream(&mut out, upstream, status.now));
    table(&mut out, "refusals", &status.refusals, |refusal| {
        [refusal.code.clone(), refusal.count.to_string(), last(refusal, status.now)]
    });
    table(&mut out, "routes", &status.routes, |route| {
        let name = if route.route.is_empty() { "(no route)" } else { &route.route };
        [name.to_owned(), route.upstream.clone(), tally(&route.requests)]
    });
    table(&mut out, "certificates", &status.certificates, |certificate| {
        let names = certificate.names.join(", ");
        [names, expiry(certificate, status.now), certificate.file.clone()]
    });
    out
}

fn write_upstream(out: &mut String, upstream: &Upstream, now: f64) {
    let (up, all) = (upstream.available, upstream.replicas.len());
    let title = format!("upstream {}: {up} of {all} up", upstream.name);
    if upstream.replicas.is_empty() {
        out.push('\n');
        line(out, &title);
    }
    table(out, &title, &upstream.replicas, |replica| {
        let latency = replica.latency_ms.map_or_else(|| "-".to_owned(), millis);
        let flight = format!("{} in flight, {latency}", replica.in_flight);
        [replica.address.clone(), replica.state.clone(), flight + &more(replica, now)]
    });
    for name in &upstream.names {
        let answered = name.answered.map(|at| format!(", asked {} ago", period(now - at)));
        let problem = name.problem.as_ref().map(|problem| format!(": {problem}"));
        let rest = answered.unwrap_or_default() + &problem.unwrap_or_default();
        line(out, &format!("  by {}: {} found{rest}", name.name, name.found));
    }
}

fn more(replica: &Replica, now: f64) -> String {
    let since = replica.since.map(|since| format!(", for {}", period(now - since)));
    let ago = replica.problem_at.map(|at| format!(" ({} ago)", period(now - at)));
    let ago = ago.unwrap_or_default();
    let problem = replica.problem.as_ref().map(|problem| format!(": {problem}{ago}"));
    since.unwrap_or_default() + &problem.unwrap_or_default()
}

fn last(refusal: &Refusal, now: f64) -> String {
    refusal.last.as_ref().map_or_else(String::new, |last| {
        let tool = last.tool.as_ref().map(|tool| format!(" \"{tool}\"")).unwrap_or_default();
        let ago = period(now - last.time);
        format!("{ago} ago: {} {}{tool} from {}", last.status, last.request, last.client)
    })
}

fn expiry(certificate: &Certificate, now: f64) -> String {
    let left = certificate.expires as f64 - now;
    if left <= 0.0 {
        return format!("EXPIRED {} ago", period(-left));
    }
    format!("expires in {} days", (left / DAY).floor())
}

/// A title, and rows whose first two columns are as wide as their widest.
fn table<T>(out: &mut String, title: &str, rows: &[T], cells: impl Fn(&T) -> [String; 3]) {
    if rows.is_empty() {
        return;
    }
    out.push('\n');
    line(out, title);
    let rows: Vec<[String; 3]> =
        rows.iter().map(|row| cells(row).map(|cell| one_line(&cell))).collect();
    let width = |n: usize| {
        let lengths = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
        lengths.max().unwrap_or(0).min(48)
    };
    let (first, second) = (width(0), width(1));
    for [a, b, c] in &rows {
        line(out, &format!("  {a:first$}  {b:second$}  {c}"));
    }
}

fn tally(tally: &Tally) -> String {
    let all: Vec<String> = tally.iter().map(|(word, count)| format!("{word} {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Names come from clients, too: none of them steers a terminal or starts a line.
fn line(out: &mut String, text: &str) {
    out.push_str(one_line(text).trim_end());
    out.push('\n');
}

fn millis(millis: f64) -> String {
    if millis >= 1000.0 { format!("{:.1} s", millis / 1000.0) } else { format!("{millis:.1} ms") }
}

/// In its two largest units.
fn period(seconds: f64) -> String {
    // negative where a clock was set back
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_two_units() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (7260.0, "2 h 1 min"),
            (90_000.0, "1 d 1 h"),
            (-5.0, "0 s"),
        ] {
            assert_eq!(period(seconds), text);
        }
    }

    #[test]
    fn no_name_steers_a_terminal() {
        let mut out = String::new();
        line(&mut out, "a\u{1b}[2Jb\nc\u{202e}d");
        table(&mut out, "t", &["\u{2028}e\r"], |name| [(*name).into(), "".into(), "".into()]);
        assert_eq!(out, "a\\u{1b}[2Jb\\nc\\u{202e}d\n\nt\n  \\u{2028}e\\r\n");
    }
}
