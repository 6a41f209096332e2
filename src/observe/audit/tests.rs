//! The audit log's writer. In: calls, and disks that fail; out: lines in order and with numbers, refusals, and
//! files that are turned.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Instant, SystemTime};

use http::Method;
use serde_json::Value;

use super::*;
use crate::base::principal::Principal;

const LONG: Duration = Duration::from_secs(10);

fn counters() -> Counters {
    let counter = |name: &str| IntCounter::new(name, name).unwrap();
    Counters {
        written: counter("written"),
        lost: counter("lost"),
        failing: IntGauge::new("failing", "failing").unwrap(),
    }
}

fn record(id: &str, code: Option<&'static str>) -> Record {
    let audited = Audited {
        method: "tools/call",
        target: Some("add".into()),
        arguments: Some(r#"["a","b"]"#.into()),
        rule: None,
        begun: false,
    };
    Record {
        request_id: id.to_owned(),
        principal: Some(Arc::new(Principal::new("basic", "", "ann"))),
        code,
        status: if code.is_some() { 403 } else { 200 },
        audit: Some(Box::new(audited)),
        ..Record::begin(
            Instant::now(),
            SystemTime::now(),
            IpAddr::from([127, 0, 0, 1]),
            Method::POST,
        )
    }
}

fn log(path: &Path, full: Full, rotation: Option<Rotation>) -> (AuditLog, Counters) {
    let counters = counters();
    let settings = AuditSettings { to: To::File(path.to_owned()), full, rotation };
    (AuditLog::start(&settings, counters.clone()).unwrap(), counters)
}

fn lines(paths: &[std::path::PathBuf]) -> Vec<Value> {
    let texts = paths.iter().map(|path| fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<_>>())
        .collect()
}

/// All files of a log, the oldest first.
fn files(path: &Path) -> Vec<std::path::PathBuf> {
    let dir = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut all: Vec<_> = dir.map(|e| e.unwrap().path()).filter(|other| other != path).collect();
    all.sort();
    all.push(path.to_owned());
    all
}

#[tokio::test]
async fn a_call_stands_there_before_it_goes_on_and_its_end_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let (log, counters) = log(&path, Full::Refuse, None);
    let mut allowed = record("one", None);
    log.begin(&mut allowed, None).await.unwrap();
    let seen = lines(std::slice::from_ref(&path));
    assert_eq!(seen.len(), 1, "no waiting: it is there when `begin` has ended");
    for (key, value) in [
        ("event", "call"),
        ("request_id", "one"),
        ("principal", "ann"),
        ("auth", "basic"),
        ("tool", "add"),
        ("outcome", "allowed"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(seen[0][key], value, "{key}");
    }
    assert_eq!(seen[0]["arguments"], serde_json::json!(["a", "b"]));
    log.end(&allowed);
    log.end(&record("two", Some("authz.tool")));
    // nobody is known: the access log has it
    log.end(&Record { principal: None, ..record("three", Some("auth.none")) });
    log.flush(LONG);
    let seen = lines(&[path]);
    let told: Vec<_> =
        seen.iter().map(|l| (l["event"].as_str().unwrap(), l["seq"].as_u64().unwrap())).collect();
    assert_eq!(told, [("call", 1), ("answer", 2), ("call", 3)]);
    assert_eq!((&seen[1]["request_id"], &seen[1]["status"]), (&"one".into(), &200.into()));
    let refused = (&seen[2]["outcome"], &seen[2]["code"], &seen[2]["status"]);
    assert_eq!(refused, (&"refused".into(), &"authz.tool".into(), &403.into()));
    assert_eq!((counters.written.get(), counters.lost.get()), (3, 0));
}

#[tokio::test]
async fn a_full_disk_refuses_calls_or_lets_them_go_on() {
    let (refusing, counters) = log(Path::new("/dev/full"), Full::Refuse, None);
    let denial = refusing.begin(&mut record("one", None), None).await.unwrap_err();
    assert_eq!((denial.code, denial.reason.status()), ("audit.unwritable", 503));
    assert!(denial.retry_after.is_some());
    assert_eq!((counters.lost.get(), counters.failing.get()), (1, 1));
    let (lenient, counters) = log(Path::new("/dev/full"), Full::GoOn, None);
    lenient.begin(&mut record("one", None), None).await.unwrap();
    lenient.flush(LONG);
    assert_eq!((counters.lost.get(), counters.written.get()), (1, 0));
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_bits_truncate(0o600))
        .unwrap();
    let (log, counters) = log(&path, Full::GoOn, None);
    let mut long = record("one", None);
    long.audit.as_mut().unwrap().arguments = Some(format!("\"{}\"", "x".repeat(1 << 20)).into());
    // nobody reads: the pipe is full at once, one batch is with the writer, and one waits
    let lost = (0..40).any(|_| {
        log.push(None, |seq, out| line::call(&long, seq, line::ALLOWED, out));
        counters.lost.get() > 0
    });
    assert!(lost);
}

#[tokio::test]
async fn files_are_turned_by_size_and_no_line_is_lost_or_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let rotation = Rotation { size: Some(2000), age: None, keep: None };
    let (log, _) = log(&path, Full::Refuse, Some(rotation));
    for n in 0..100 {
        log.begin(&mut record(&n.to_string(), None), None).await.unwrap();
    }
    let files = files(&path);
    assert!(files.len() > 5, "{files:?}");
    assert!(
        files.iter().all(|file| fs::metadata(file).unwrap().len() < 2400),
        "one line more at most"
    );
    let seen: Vec<u64> = lines(&files).iter().map(|l| l["seq"].as_u64().unwrap()).collect();
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn files_are_turned_by_age_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let rotation = Rotation { size: None, age: Some(Duration::from_nanos(1)), keep: Some(2) };
    let (log, _) = log(&path, Full::Refuse, Some(rotation));
    for n in 0..5 {
        log.begin(&mut record(&n.to_string(), None), None).await.unwrap();
    }
    let seen: Vec<u64> = lines(&files(&path)).iter().map(|l| l["seq"].as_u64().unwrap()).collect();
    assert_eq!(seen, [3, 4, 5], "two old ones and the last");
}

#[tokio::test]
async fn a_renamed_file_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("audit.log"), dir.path().join("old"));
    let (log, _) = log(&path, Full::Refuse, None);
    log.begin(&mut record("one", None), None).await.unwrap();
    fs::rename(&path, &old).unwrap();
    log.reopen();
    log.begin(&mut record("two", None), None).await.unwrap();
    assert_eq!((lines(&[old]).len(), lines(&[path]).len()), (1, 1));
}
