//! Text without `std::fmt`: in, numbers, addresses, times and strangers' words; out, their text. What is written by
//! every request is appended to a buffer: `std::fmt` takes ten times as long, and there are a dozen of them.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// U+FEFF in UTF-8, a byte order mark: most readers drop it, but only as the first thing of a text or a stream.
pub const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// A number in decimal.
pub fn push_number(mut n: u64, out: &mut Vec<u8>) {
    if n < 1000 {
        return push_small(n, out);
    }
    let mut digits = [0; 20];
    let mut from = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = ascii_digit(n);
        n /= 10;
        from -= 1;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Up to three digits: most numbers that are written.
#[inline]
fn push_small(n: u64, out: &mut Vec<u8>) {
    let (hundreds, tens, ones) = (ascii_digit(n / 100), ascii_digit(n / 10), ascii_digit(n));
    if n >= 100 {
        out.extend_from_slice(&[hundreds, tens, ones]);
    } else if n >= 10 {
        out.extend_from_slice(&[tens, ones]);
    } else {
        out.push(ones);
    }
}

/// The last digit of a number.
fn ascii_digit(n: u64) -> u8 {
    b'0' + u8::try_from(n % 10).unwrap_or(0)
}

/// A number as 16 hex digits.
pub fn push_hex(n: u64, out: &mut Vec<u8>) {
    let mut text = [0; 16];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(n.to_be_bytes()) {
        *pair = hex_digits(byte);
    }
    out.extend_from_slice(&text);
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| hex_digits(*byte)).map(char::from).collect()
}

fn hex_digits(byte: u8) -> [u8; 2] {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' - 10 + n };
    [digit(byte >> 4), digit(byte & 15)]
}

/// An address as RFC 791 and RFC 5952 write it.
pub fn push_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => {
            for (n, octet) in v4.octets().into_iter().enumerate() {
                if n > 0 {
                    out.push(b'.');
                }
                push_small(u64::from(octet), out);
            }
        }
        IpAddr::V6(v6) => out.extend_from_slice(v6.to_string().as_bytes()),
    }
}

/// Milliseconds with three decimals.
pub fn push_millis(period: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
    push_number(micros / 1000, out);
    out.push(b'.');
    push_padded(micros % 1000, 3, out);
}

/// `2026-11-21T03:04:05.678Z` (RFC 3339).
pub fn push_time(at: SystemTime, out: &mut Vec<u8>) {
    thread_local! {
        // one second's text, which stays the same for thousands of lines
        static SECOND: Cell<(u64, [u8; 20])> = const { Cell::new((u64::MAX, [0; 20])) };
    }
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = SECOND.get();
    if second != since.as_secs() {
        second = since.as_secs();
        text = second_text(second);
        SECOND.set((second, text));
    }
    out.extend_from_slice(&text);
    push_padded(u64::from(since.subsec_millis()), 3, out);
    out.push(b'Z');
}

/// `2026-11-21T03:04:05.`
fn second_text(since_1970: u64) -> [u8; 20] {
    let (days, seconds) = (since_1970 / 86_400, since_1970 % 86_400);
    let (year, month, day) = civil(days);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (seconds / 3600, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
    ];
    let mut out = Vec::with_capacity(20);
    for (n, width, end) in parts {
        push_padded(n, width, &mut out);
        out.push(end);
    }
    let mut text = [0; 20];
    text.iter_mut().zip(out).for_each(|(to, from)| *to = from);
    text
}

/// A JSON string (RFC 8259 §7).
pub fn push_json(text: &str, out: &mut Vec<u8>) {
    if plain_prefix(text.as_bytes()) == text.len() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if serde_json::to_writer(&mut *out, text).is_err() {
        // writing into memory does not fail
        out.extend_from_slice(b"\"\"");
    }
}

/// Words of others for a line of text: what would start another line, steer a terminal, turn the direction of the
/// text or hide in it is shown as an escape.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Control characters; separators of lines; and signs that have no width, or turn the direction (UAX #9).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// How many bytes stand before the first quote, backslash or control character: what a JSON string
/// (RFC 8259 §7) can have as it is. Eight bytes at a time.
pub fn plain_prefix(text: &[u8]) -> usize {
    let mut rest = text;
    while let Some((block, after)) = rest.split_first_chunk::<8>() {
        let found = specials(u64::from_le_bytes(*block));
        if found != 0 {
            return text.len() - rest.len() + found.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    let special = |b: &u8| matches!(b, 0..b' ' | b'"' | b'\\');
    text.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

/// The top bit of each byte that is a quote, a backslash or a control character. A subtraction may borrow
/// from the byte above, so that only the lowest bit that is set is certain.
fn specials(block: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below = |n: u64, bytes: u64| bytes.wrapping_sub(ONES * n) & !bytes;
    let is = |byte: u8| below(1, block ^ (ONES * u64::from(byte)));
    (below(0x20, block) | is(b'"') | is(b'\\')) & (ONES << 7)
}

/// A number with leading zeros.
fn push_padded(n: u64, width: u32, out: &mut Vec<u8>) {
    if width == 3 {
        return out.extend_from_slice(&[ascii_digit(n / 100), ascii_digit(n / 10), ascii_digit(n)]);
    }
    for place in (0..width).rev() {
        out.push(ascii_digit(n / 10u64.pow(place)));
    }
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = |ms| text(|out| push_time(UNIX_EPOCH + Duration::from_millis(ms), out));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(999), "1970-01-01T00:00:00.999Z");
        assert_eq!(at(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(at(1_795_233_599_999), "2026-11-21T03:59:59.999Z");
    }

    #[test]
    fn periods_have_three_decimals() {
        assert_eq!(text(|out| push_millis(Duration::from_micros(12_034), out)), "12.034");
        assert_eq!(text(|out| push_millis(Duration::from_nanos(900), out)), "0.000");
    }

    #[test]
    fn nobodys_words_steer_a_terminal() {
        let text = one_line("a\u{1b}[2Jb\nc\u{202e}d\u{2028}e\u{200b}\u{feff} \"é\"");
        assert_eq!(text, "a\\u{1b}[2Jb\\nc\\u{202e}d\\u{2028}e\\u{200b}\\u{feff} \"é\"");
    }

    proptest! {
        #[test]
        fn the_plain_prefix_is_found(text in proptest::collection::vec(prop_oneof![
            any::<u8>(), Just(b'"'), Just(b'\\'), 30u8..36, Just(b'a'), Just(0xa2), Just(0x80),
        ], 0..40)) {
            let special = |b: &u8| *b < b' ' || *b == b'"' || *b == b'\\';
            let expected = text.iter().position(special).unwrap_or(text.len());
            prop_assert_eq!(plain_prefix(&text), expected);
            let plain: Vec<u8> = text.into_iter().filter(|b| !special(b)).collect();
            prop_assert_eq!(plain_prefix(&plain), plain.len());
        }

        #[test]
        fn as_the_standard_library_writes_them(n: u64, four: [u8; 4], six: [u8; 16], s: String) {
            prop_assert_eq!(text(|out| push_number(n, out)), n.to_string());
            prop_assert_eq!(text(|out| push_number(n % 1100, out)), (n % 1100).to_string());
            prop_assert_eq!(text(|out| push_hex(n, out)), format!("{n:016x}"));
            prop_assert_eq!(hex(&n.to_be_bytes()), format!("{n:016x}"));
            for ip in [IpAddr::from(four), IpAddr::from(six)] {
                prop_assert_eq!(text(|out| push_ip(ip, out)), ip.to_string());
            }
            let json = text(|out| push_json(&s, out));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), s);
        }
    }
}
