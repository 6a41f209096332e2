//! In: `--key value` pairs; out: checked options that all clients share.

use std::collections::HashMap;
use std::io::BufRead;
use std::time::Duration;

/// What a client is told.
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    /// Reads pairs; anything else ends the program.
    pub(crate) fn read(args: Vec<String>) -> Self {
        let mut pairs = HashMap::new();
        let mut args = args.into_iter();
        while let Some(key) = args.next() {
            let key = key.strip_prefix("--").expect("--key value").to_owned();
            pairs.insert(key, args.next().expect("a value"));
        }
        Self(pairs)
    }

    /// A text, if it was given.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// A text that must be there.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_else(|| panic!("--{key} is needed"))
    }

    /// A number, or its default.
    pub(crate) fn number(&self, key: &str, default: u64) -> u64 {
        self.get(key).map_or(default, |text| text.parse().expect("a number"))
    }

    /// Seconds, or their default.
    pub(crate) fn seconds(&self, key: &str, default: f64) -> Duration {
        Duration::from_secs_f64(
            self.get(key).map_or(default, |text| text.parse().expect("seconds")),
        )
    }
}

/// Waits for a line on standard input; `None` at its end, which means: stop.
pub(crate) async fn next_line() -> Option<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let bytes = std::io::stdin().lock().read_line(&mut line).unwrap_or(0);
        (bytes > 0).then(|| line.trim().to_owned())
    });
    read.await.unwrap()
}

/// Nanoseconds of the clock that all processes of this machine share and nobody sets.
pub(crate) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Prints how many there are and their percentiles in microseconds, and further figures.
pub(crate) fn print_times(nanos: &mut [u64], more: &[(&str, u64)]) {
    nanos.sort_unstable();
    let at = |share| percentile(nanos, share) as f64 / 1e3;
    let more: String = more.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
    println!(
        "{{\"count\":{},\"p50_us\":{:.1},\"p90_us\":{:.1},\"p99_us\":{:.1},\"max_us\":{:.1}{more}}}",
        nanos.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

/// The value below which `share` of the sorted values are.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(0)
}
