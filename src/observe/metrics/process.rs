//! What the system knows of the process: in, `/proc/self`; out, the metrics that every exporter has.
//!
//! The library has such a collector, too; it counts processor time in whole seconds, which makes rates of
//! an idle edge jump, and needs a crate for each file.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::sample::{described, family, gauge, sum};

const CPU: (&str, &str) = ("process_cpu_seconds_total", "Processor time used, in seconds.");
const RESIDENT: (&str, &str) = ("process_resident_memory_bytes", "Memory in use, in bytes.");
const VIRTUAL: (&str, &str) = ("process_virtual_memory_bytes", "Address space in use, in bytes.");
const THREADS: (&str, &str) = ("process_threads", "Threads.");
const OPEN: (&str, &str) = ("process_open_fds", "Open file descriptors.");
const MOST: (&str, &str) = ("process_max_fds", "Most file descriptors that may be open.");
const START: (&str, &str) =
    ("process_start_time_seconds", "When the process began, in seconds since 1970.");

/// Reads it when somebody asks.
pub(super) struct Process {
    /// Since 1970.
    started: Duration,
    described: Vec<Desc>,
}

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Stat {
    /// User and system time, in ticks.
    cpu: u64,
    threads: u64,
    /// Bytes.
    address_space: u64,
    /// Pages.
    resident: u64,
}

impl Process {
    /// Begins now.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let all = [CPU, RESIDENT, VIRTUAL, THREADS, OPEN, MOST, START];
        let described = all.iter().map(|(name, help)| described(name, help));
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { started, described: described.collect::<Result<_, _>>()? })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    /// What cannot be read is left out.
    fn collect(&self) -> Vec<MetricFamily> {
        let one = |(name, help): (&str, &str), value: f64| {
            family(name, help, MetricType::GAUGE, vec![gauge(value, Vec::new())])
        };
        let mut all = vec![one(START, self.started.as_secs_f64())];
        let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(stat) = Stat::parse(&text) {
            let cpu = stat.cpu as f64 / clock_ticks_per_second() as f64;
            all.push(family(CPU.0, CPU.1, MetricType::COUNTER, vec![sum(cpu, Vec::new())]));
            all.push(one(RESIDENT, stat.resident as f64 * page_size() as f64));
            all.push(one(VIRTUAL, stat.address_space as f64));
            all.push(one(THREADS, stat.threads as f64));
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // one of them is this look
            all.push(one(OPEN, entries.count().saturating_sub(1) as f64));
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            all.push(one(MOST, most as f64));
        }
        all
    }
}

impl Stat {
    /// Fields by their numbers in `proc_pid_stat(5)`. The second is a name in parentheses, in which anything
    /// may stand.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: field(14)?.checked_add(field(15)?)?,
            threads: field(20)?,
            address_space: field(23)?,
            resident: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let text =
            "1234 (a) b (x) S 1 2 3 4 5 6 7 8 9 10 41 42 13 14 15 16 17 18 19 20480 21 22 23\n";
        let stat = Stat { cpu: 83, threads: 17, address_space: 20480, resident: 21 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("1234 (a) S 1 2 3"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_is_found() {
        let read = |name: &str| {
            let all = Process::new().unwrap().collect();
            let found = all.iter().find(|family| family.name() == name).expect(name).clone();
            let metric = &found.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        for name in [CPU, RESIDENT, VIRTUAL, THREADS, OPEN, MOST].map(|(name, _)| name) {
            assert!(read(name) >= if name == CPU.0 { 0.0 } else { 1.0 }, "{name}");
        }
        let (open, files) = (read(OPEN.0), [(); 20].map(|()| fs::File::open("/dev/null").unwrap()));
        assert!(read(OPEN.0) >= open + 10.0, "others of this process open and close some, too");
        drop(files);
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((read(START.0) - age).abs() < 60.0);
        assert!(read(RESIDENT.0) > 1e6 && read(RESIDENT.0) < read(VIRTUAL.0));
    }
}
