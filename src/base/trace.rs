//! Trace contexts (W3C Trace Context): in, the headers of a caller; out, what a request is known by in
//! traces, and the headers for the server.
//!
//! A caller that is not trusted begins no trace of ours and decides nothing about sampling: it gets a new
//! one, which names the caller's own as a link.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::random;
use super::text::push_hex;

/// The header that names trace and span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header for what vendors say besides.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on, in bytes: what W3C asks for at least (§3.3.1.5).
const MAX_STATE: usize = 512;
/// Most members of it (W3C Trace Context §3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// The trace is recorded (W3C Trace Context §3.2.2.5.1).
const SAMPLED: u8 = 1;
/// The last seven bytes of the trace id are random (W3C Trace Context, level 2).
const RANDOM: u8 = 2;
/// One more than the largest number of those seven bytes.
const RANGE: u64 = 1 << 56;

/// How a route's requests are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracing {
    /// Whose traces go on here.
    pub trust: Trust,
    /// Which share of new traces is recorded.
    pub share: Share,
}

/// Whose traces go on here. Each takes in those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Everybody gets a new one.
    Nobody,
    /// Trusted proxies, by their headers.
    Proxies,
    /// Callers that have shown who they are.
    Callers,
    /// Everybody's.
    Anybody,
}

/// A share of all traces, decided by their ids, so that every edge decides alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(RANGE);

    /// Reads `10%` or `0.1%`.
    ///
    /// # Errors
    /// A sentence that says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a share: write one from 0% to 100%, such as `10%`");
        let number = text.strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return Err(wrong());
        }
        let millionths: u64 = format!("{whole}{part:0<6}").parse().map_err(|_| wrong())?;
        if millionths > 100_000_000 {
            return Err(wrong());
        }
        let scaled = u128::from(RANGE) * u128::from(millionths) / 100_000_000;
        u64::try_from(scaled).map(Self).map_err(|_| wrong())
    }

    fn takes(self, trace: u128) -> bool {
        // the low seven bytes; the mask keeps the conversion exact
        u64::try_from(trace & u128::from(RANGE - 1)).is_ok_and(|low| low < self.0)
    }
}

/// What a caller says of the trace that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: u128,
    /// The caller's own span.
    pub span: u64,
    flags: u8,
}

impl Parent {
    /// Reads a `traceparent` (W3C Trace Context §3.2); of versions to come, the part that is known.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (head, rest) = bytes.split_at_checked(55)?;
        let [version @ .., b'-'] = head.get(..3)? else { return None };
        let version = hex(version)?;
        if version == 0xff || version == 0 && !rest.is_empty() {
            return None;
        }
        if rest.first().is_some_and(|next| *next != b'-') {
            return None;
        }
        let dashes = head.get(35) == Some(&b'-') && head.get(52) == Some(&b'-');
        let trace = hex(head.get(3..35)?)?;
        let span = u64::try_from(hex(head.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(head.get(53..55)?)?).ok()? & (SAMPLED | RANDOM);
        (dashes && trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// What the headers say; nothing where `traceparent` does not stand once.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let first = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(first.to_str().ok()?)
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// What a request is known by in traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: u128,
    /// The request's span in it.
    pub span: u64,
    /// The caller's span, where its trace goes on here.
    pub parent: Option<u64>,
    /// The caller's, where its trace does not go on here.
    pub link: Option<Parent>,
    flags: u8,
    state: Option<Box<str>>,
}

impl Trace {
    /// A trace that begins here, whatever the caller is in.
    pub fn begin(share: Share, link: Option<Parent>) -> Self {
        let id = (u128::from(random::mixed()) << 64 | u128::from(random::mixed())).max(1);
        let flags = if share.takes(id) { SAMPLED | RANDOM } else { RANDOM };
        Self { id, span: span(), parent: None, link, flags, state: None }
    }

    /// A trace that goes on; whether it is recorded is the caller's word.
    pub fn go_on(parent: Parent, state: Option<Box<str>>) -> Self {
        let (id, flags) = (parent.trace, parent.flags);
        Self { id, span: span(), parent: Some(parent.span), link: None, flags, state }
    }

    /// Whether it is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Appends both headers as HTTP/1.1 has them, with this request as the parent.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"traceparent: 00-");
        push_id(self.id, out);
        out.push(b'-');
        push_hex(self.span, out);
        let flags: &[u8] = match self.flags & (SAMPLED | RANDOM) {
            0 => b"-00\r\n",
            SAMPLED => b"-01\r\n",
            RANDOM => b"-02\r\n",
            _ => b"-03\r\n",
        };
        out.extend_from_slice(flags);
        if let Some(state) = &self.state {
            out.extend_from_slice(b"tracestate: ");
            out.extend_from_slice(state.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a trace's id, 32 hex digits.
pub fn push_id(id: u128, out: &mut Vec<u8>) {
    let low = id & u128::from(u64::MAX);
    for half in [id >> 64, low] {
        push_hex(u64::try_from(half).unwrap_or_default(), out);
    }
}

/// All of a `tracestate`, where it is small and looks like one; else it is dropped (W3C Trace Context
/// §3.3.1.1 leaves that to who reads it).
pub fn state<'v>(values: impl Iterator<Item = &'v str>) -> Option<Box<str>> {
    let mut joined = String::new();
    for value in values {
        if joined.len() + value.len() >= MAX_STATE {
            return None;
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
    }
    let members = || joined.split(',').map(str::trim).filter(|member| !member.is_empty());
    let visible = joined.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    let named = |member: &str| member.split_once('=').is_some_and(|(key, _)| !key.is_empty());
    let good = visible && members().count() <= MAX_MEMBERS && members().all(named);
    (good && members().next().is_some()).then(|| joined.into())
}

/// The `tracestate` of a head.
pub fn state_of(headers: &HeaderMap) -> Option<Box<str>> {
    let mut texts = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        texts.push(HeaderValue::to_str(value).ok()?);
    }
    state(texts.into_iter())
}

/// Lower-case hex digits alone (W3C Trace Context §3.2.2); 32 at most.
fn hex(digits: &[u8]) -> Option<u128> {
    let digit = |n: u128, byte: &u8| {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u128::from(value))
    };
    digits.iter().try_fold(0, digit)
}

fn span() -> u64 {
    random::mixed().max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_as_w3c_says() {
        let parent = Parent::parse(GOOD).unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span, parent.is_sampled()), (0x00f0_67aa_0ba9_02b7, true));
        let later = format!("cc{}-what", &GOOD[2..]);
        assert_eq!(Parent::parse(&later), Some(parent), "a version to come");
        assert!(!Parent::parse(&GOOD.replace("-01", "-08")).unwrap().is_sampled());
        for bad in [
            "",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("cc{}x", &GOOD[2..]),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("-01", "-0g"),
            &GOOD.replace("736-00f", "736_00f"),
            &GOOD.replacen("00-", "00_", 1),
            &GOOD.replace("b7-01", "b7_01"),
            "00-4bf92f3577b34da6a3ce929d0e0e473ü-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_parent_that_stands_twice_is_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Parent::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Parent::of(&headers).is_none());
    }

    fn written(trace: &Trace) -> String {
        let mut out = Vec::new();
        trace.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_goes_on_keeps_trace_decision_and_state() {
        let trace = Trace::go_on(Parent::parse(GOOD).unwrap(), state(["a=1", "b=2"].into_iter()));
        let span = format!("{:016x}", trace.span);
        let expected = format!(
            "traceparent: {}\r\ntracestate: a=1,b=2\r\n",
            GOOD.replace("00f067aa0ba902b7", &span)
        );
        assert_eq!(written(&trace), expected);
        assert_eq!(trace.parent, Some(0x00f0_67aa_0ba9_02b7));
        let off = Parent::parse(&GOOD.replace("-01", "-00")).unwrap();
        assert!(!Trace::go_on(off, None).is_sampled(), "the caller's word");
    }

    #[test]
    fn a_new_one_is_new_and_readable() {
        let link = Parent::parse(GOOD);
        let (one, two) = (Trace::begin(Share::ALL, link), Trace::begin(Share::ALL, link));
        assert!(one.id != two.id && one.span != two.span && one.id != link.unwrap().trace);
        let text = written(&one);
        let text = text.strip_prefix("traceparent: ").unwrap().trim_end();
        let read = Parent::parse(text).unwrap();
        assert_eq!((read.trace, read.span, read.is_sampled()), (one.id, one.span, true));
    }

    #[test]
    fn shares_are_exact_and_kept() {
        for bad in ["10", "", "%", "-1%", "101%", "100.1%", "1e1%", "0.0000001%", ".5%", "5.%"] {
            assert!(Share::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Share::parse("100%"), Ok(Share::ALL));
        assert_eq!(Share::parse("0.5%"), Share::parse("0.500 %"));
        let taken = |share: &str| {
            let share = Share::parse(share).unwrap();
            (0..20_000).filter(|_| Trace::begin(share, None).is_sampled()).count()
        };
        assert_eq!((taken("0%"), taken("100%")), (0, 20_000));
        let tenth = taken("10%");
        assert!((1700..2300).contains(&tenth), "{tenth} of 20000");
    }

    #[test]
    fn states_are_bounded() {
        let of = |text: &str| state([text].into_iter()).as_deref().map(str::to_owned);
        assert_eq!(of("a=1, b@c=x y"), Some("a=1, b@c=x y".into()));
        let many = vec!["k=v"; 33].join(",");
        for bad in ["", " ", ",", "novalue", "=x", "a=1\r\nx: y", "a=ü", &many, &"a=".repeat(300)]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(state(["a=1"; 200].into_iter()), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "\\PC{0,70}", hexes in "[0-9a-f-]{50,60}") {
            let _ = (Parent::parse(&text), Parent::parse(&hexes));
        }
    }
}
