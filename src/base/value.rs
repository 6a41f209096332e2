//! Small values that configs and stages share: in, checked texts and numbers; out, periods, sizes, and secrets that
//! do not print.

use std::fmt;
use std::time::Duration;

/// A secret string: prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Parses a duration with its unit: `250ms`, `15s`, `10m`, `1h`, `2d`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn period(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split_unit(text);
    let n: u64 = digits.parse().map_err(|_| expected_period(text))?;
    let millis = match unit {
        "ms" => Some(n),
        "s" => n.checked_mul(1_000),
        "m" => n.checked_mul(60_000),
        "h" => n.checked_mul(3_600_000),
        "d" => n.checked_mul(86_400_000),
        _ => return Err(expected_period(text)),
    };
    millis.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

/// Parses a size in bytes with its unit: `512B`, `64KiB`, `4MiB`, `1GiB`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn byte_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split_unit(text);
    let n: u64 = digits.parse().map_err(|_| expected_size(text))?;
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(expected_size(text)),
    };
    n.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large"))
}

/// Parses a share in whole percent: `50%`.
///
/// # Errors
/// A sentence that says what is expected; less than `least` is not.
pub fn percent(text: &str, least: u8) -> Result<u8, String> {
    let (digits, unit) = split_unit(text);
    let share = digits.parse().ok().filter(|share| unit == "%" && (least..=100).contains(share));
    share.ok_or_else(|| format!("`{text}` is not a share from `{least}%` to `100%`"))
}

fn split_unit(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    (digits, unit.trim_start())
}

fn expected_period(text: &str) -> String {
    format!("`{text}` is not a duration: write a number and ms, s, m, h or d, such as `15s`")
}

fn expected_size(text: &str) -> String {
    format!("`{text}` is not a size: write a number and B, KiB, MiB or GiB, such as `4MiB`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_need_a_unit() {
        assert_eq!(period("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(period("10 m"), Ok(Duration::from_secs(600)));
        assert_eq!(period("250ms"), Ok(Duration::from_millis(250)));
        for bad in
            ["15", "", "s", "-1s", "1.5s", "1w", "99999999999999999999s", "9999999999999999d"]
        {
            assert!(period(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_in_percent() {
        assert_eq!(percent("50%", 0), Ok(50));
        assert_eq!(percent("100 %", 1), Ok(100));
        assert_eq!((percent("0%", 0), percent("0%", 1).is_err()), (Ok(0), true));
        for bad in ["50", "%", "", "-1%", "+1%", "1.5%", "101%", "300%", "5%%", "5% x"] {
            assert!(percent(bad, 0).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(byte_size("4MiB"), Ok(4 << 20));
        assert_eq!(byte_size("512B"), Ok(512));
        for bad in ["4", "4MB", "MiB", "4mib", "99999999999GiB0"] {
            assert!(byte_size(bad).is_err(), "{bad}");
        }
    }
}
