//! Values as nginx writes them: in, words; out, values as the edge's config writes them.

use std::fmt::Write;

/// A time such as `60`, `60s`, `1m30s` or `500ms` (nginx, "Configuration file measurement units") as
/// the edge writes it; `None` for what is no time, or longer than the edge takes.
pub(super) fn period(text: &str) -> Option<String> {
    let millis = millis(text)?;
    if millis > 3650 * 86_400_000 {
        return None;
    }
    let text = match millis {
        n if n % 86_400_000 == 0 && n > 0 => format!("{}d", n / 86_400_000),
        n if n % 3_600_000 == 0 && n > 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 && n > 0 => format!("{}m", n / 60_000),
        n if n % 1000 == 0 => format!("{}s", n / 1000),
        n => format!("{n}ms"),
    };
    Some(text)
}

fn millis(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at_checked(at)?;
        let n: u64 = digits.parse().ok()?;
        let units = [
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
            ("w", 7 * 86_400_000),
            ("M", 30 * 86_400_000),
            ("y", 365 * 86_400_000),
        ];
        // without a unit: seconds
        let (factor, after) = units
            .iter()
            .find_map(|(unit, factor)| Some((*factor, after.strip_prefix(unit)?)))
            .or_else(|| after.is_empty().then_some((1000, "")))?;
        total = total.checked_add(n.checked_mul(factor)?)?;
        rest = after.trim_start();
    }
    Some(total)
}

/// A size such as `10m`, `512k` or `1024` in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (text.get(..at)?, 1 << 10),
        (at, 'm' | 'M') => (text.get(..at)?, 1 << 20),
        (at, 'g' | 'G') => (text.get(..at)?, 1 << 30),
        _ => (text, 1),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Bytes as the edge writes them.
pub(super) fn bytes(n: u64) -> String {
    match n {
        n if n > 0 && n % (1 << 30) == 0 => format!("{}GiB", n >> 30),
        n if n > 0 && n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
        n if n > 0 && n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
        n => format!("{n}B"),
    }
}

/// A text as YAML that can stand anywhere, in which the edge substitutes nothing.
pub(super) fn scalar(text: &str) -> String {
    let text = text.replace("${", "$${");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./-".contains(&b);
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'/');
    let lower = text.to_ascii_lowercase();
    // YAML 1.1 reads more words as booleans than 1.2, and other readers may see the file, too
    let word = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan"];
    let number = lower.starts_with("0x") || lower.starts_with("0o") || lower.parse::<f64>().is_ok();
    if starts && text.bytes().all(plain) && !number && !word.contains(&lower.as_str()) {
        return text;
    }
    quoted(&text)
}

/// Double quotes (YAML 1.2.2 §7.3.1); everything but plain ASCII is escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let escaped = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\t' => out.write_str("\\t"),
            '\r' => out.write_str("\\r"),
            ' '..='~' => out.write_char(c),
            c if u32::from(c) > 0xffff => write!(out, "\\U{:08x}", u32::from(c)),
            c => write!(out, "\\u{:04x}", u32::from(c)),
        };
        // writing into memory does not fail
        if escaped.is_err() {
            break;
        }
    }
    out.push('"');
    out
}

/// A flow list of texts.
pub(super) fn list<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| scalar(text.as_ref())).collect();
    if texts.is_empty() { "[]".to_owned() } else { format!("[ {} ]", texts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_nginx_s() {
        for (text, expected) in [
            ("60", "1m"),
            ("60s", "1m"),
            ("75s", "75s"),
            ("1m30s", "90s"),
            ("500ms", "500ms"),
            ("1h", "1h"),
            ("1d 12h", "36h"),
            ("1w", "7d"),
            ("0", "0s"),
        ] {
            assert_eq!(period(text).as_deref(), Some(expected), "{text}");
        }
        for bad in ["", "x", "1x", "-1", "1.5s", "99999999999999999999", "20y", "s"] {
            assert_eq!(period(bad), None, "{bad}");
        }
        assert_eq!(size("10m").map(bytes).as_deref(), Some("10MiB"));
        assert_eq!(size("1K").map(bytes).as_deref(), Some("1KiB"));
        assert_eq!(size("100").map(bytes).as_deref(), Some("100B"));
        for bad in ["", "m", "1x", "-1", "+1", "99999999999g"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn texts_stay_texts_in_yaml() {
        for text in [
            "",
            "a",
            "off",
            "yes",
            "1",
            "1e5",
            "0x1f",
            "a b",
            "a: b",
            "- a",
            "#x",
            "\"",
            "\\",
            "é\u{1f600}",
            "a\nb",
            "\u{7f}",
            "{a}",
            "[",
            "*a",
            "&a",
            "!a",
            "%",
            "@",
            "`",
            "'",
            "::1",
            "10.0.0.0/8",
            "~",
            "null",
            "/etc/x.pem",
            ".inf",
            "-",
            "nan",
            "\u{2028}",
        ] {
            let yaml = scalar(text);
            let back: serde_yaml::Value = serde_yaml::from_str(&yaml).unwrap();
            assert_eq!(back.as_str(), Some(text), "{yaml}");
            let flow: Vec<serde_yaml::Value> = serde_yaml::from_str(&list([text, "x"])).unwrap();
            assert_eq!(flow[0].as_str(), Some(text), "{yaml}");
        }
        assert_eq!(scalar("${env:HOME}"), "\"$${env:HOME}\"");
        assert_eq!(scalar("/etc/nginx/.htpasswd"), "/etc/nginx/.htpasswd");
    }
}
