//! `allow` and `deny`: in, nginx's rules, of which the first that matches decides; out, two sets of which
//! deny wins, that let exactly the same addresses in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// More networks than this are no list that anybody would want to read; they are reported instead.
const MOST: usize = 2048;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) nets: Nets,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nets {
    /// `all`
    All,
    /// `unix:`; the edge has no such listeners, so that it matches nothing.
    Unix,
    /// An address or a network, as it was written.
    One { text: String, range: Range },
}

/// The addresses of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    v6: bool,
    first: u128,
    last: u128,
}

/// A route's lists; empty lists are left out of a config, where an absent `allow` means everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
}

impl Access {
    /// Lets nobody in.
    pub(super) fn nobody() -> Self {
        Self { allow: Vec::new(), deny: EVERYBODY.map(str::to_owned).to_vec() }
    }

    /// Whether nobody is let in.
    pub(super) fn is_nobody(&self) -> bool {
        self.deny == EVERYBODY
    }
}

const EVERYBODY: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Reads what stands behind `allow` or `deny`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn nets(text: &str) -> Result<Nets, String> {
    match text {
        "all" => Ok(Nets::All),
        "unix:" => Ok(Nets::Unix),
        _ => {
            let range = range(text).ok_or_else(|| format!("`{text}` is no address or network"))?;
            Ok(Nets::One { text: text.to_owned(), range })
        }
    }
}

/// An address, or one with a prefix length; host bits are cut off as nginx does.
fn range(text: &str) -> Option<Range> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let (v6, bits, value): (bool, u32, u128) = match address.parse().ok()? {
        IpAddr::V4(ip) => (false, 32, u128::from(ip.to_bits())),
        IpAddr::V6(ip) => (true, 128, ip.to_bits()),
    };
    let length = match length {
        None => bits,
        Some(length) if length.bytes().all(|b| b.is_ascii_digit()) => length.parse().ok()?,
        Some(_) => return None,
    };
    let host = host_bits(bits.checked_sub(length)?);
    Some(Range { v6, first: value & !host, last: value | host })
}

/// That many ones at the low end.
fn host_bits(n: u32) -> u128 {
    1_u128.checked_shl(n).map_or(u128::MAX, |bit| bit - 1)
}

/// The same decisions as two lists.
///
/// # Errors
/// A sentence, where that would take more than 2,048 networks.
pub(super) fn convert(rules: &[Rule]) -> Result<Access, String> {
    // what stands behind a rule for all is never reached
    let end = rules.iter().position(|rule| rule.nets == Nets::All);
    let (before, default_allow) =
        match end.and_then(|end| Some((rules.get(..end)?, rules.get(end)?))) {
            Some((before, all)) => (before, all.allow),
            None => (rules, true),
        };
    Ok(as_written(before, default_allow)
        .map_or_else(|| computed(before, default_allow), Ok)?
        .closed())
}

impl Access {
    /// An empty `allow` would let everybody in: what allows nothing denies everything.
    fn closed(self) -> Self {
        if self.allow == [NOTHING] { Self::nobody() } else { self }
    }
}

/// Stands for an `allow` list of nothing while the lists are made.
const NOTHING: &str = "nothing";

/// The two orders that mean the same as "deny wins" keep their own words.
fn as_written(rules: &[Rule], default_allow: bool) -> Option<Access> {
    let split = rules.iter().position(|rule| rule.allow).unwrap_or(rules.len());
    let (denies, allows) = rules.split_at_checked(split)?;
    if allows.iter().any(|rule| !rule.allow) {
        return None;
    }
    let (deny, allow) = (texts(denies), texts(allows));
    match (default_allow, allow.is_empty()) {
        // the allows change nothing when everybody else may come in as well
        (true, _) => Some(Access { allow: Vec::new(), deny }),
        (false, true) => Some(Access { allow: vec![NOTHING.to_owned()], deny: Vec::new() }),
        (false, false) => Some(Access { allow, deny }),
    }
}

fn texts(rules: &[Rule]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for rule in rules {
        if let Nets::One { text, .. } = &rule.nets
            && !out.contains(text)
        {
            out.push(text.clone());
        }
    }
    out
}

/// Any other order: the set of all who may come in, or of all who may not, whichever is shorter.
fn computed(rules: &[Rule], default_allow: bool) -> Result<Access, String> {
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for v6 in [false, true] {
        let last = if v6 { u128::MAX } else { u128::from(u32::MAX) };
        let mut rest = vec![Range { v6, first: 0, last }];
        for rule in rules {
            let Nets::One { range, .. } = &rule.nets else { continue };
            let to = if rule.allow { &mut allowed } else { &mut denied };
            take(&mut rest, *range, to);
            if rest.len() > MOST {
                return Err(too_many());
            }
        }
        if default_allow { &mut allowed } else { &mut denied }.extend(rest);
    }
    let (allow, deny) = (networks(allowed), networks(denied));
    match (allow, deny) {
        (Some(allow), _) if allow.is_empty() => {
            Ok(Access { allow: vec![NOTHING.to_owned()], deny: Vec::new() })
        }
        (allow, Some(deny)) if allow.as_ref().is_none_or(|allow| deny.len() <= allow.len()) => {
            Ok(Access { allow: Vec::new(), deny })
        }
        (Some(allow), _) => Ok(Access { allow, deny: Vec::new() }),
        (None, _) => Err(too_many()),
    }
}

fn too_many() -> String {
    format!("as lists of which deny wins, this takes more than {MOST} networks")
}

/// Moves what `range` covers from `rest` into `to`.
fn take(rest: &mut Vec<Range>, range: Range, to: &mut Vec<Range>) {
    let mut left = Vec::with_capacity(rest.len() + 1);
    for part in rest.drain(..) {
        let first = part.first.max(range.first);
        let last = part.last.min(range.last);
        if part.v6 != range.v6 || first > last {
            left.push(part);
            continue;
        }
        to.push(Range { first, last, ..part });
        if part.first < first {
            left.push(Range { last: first - 1, ..part });
        }
        if last < part.last {
            left.push(Range { first: last + 1, ..part });
        }
    }
    *rest = left;
}

/// The fewest networks that cover exactly these ranges; `None` when there are too many.
fn networks(mut ranges: Vec<Range>) -> Option<Vec<String>> {
    ranges.sort_by_key(|range| (range.v6, range.first));
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(before)
                if before.v6 == range.v6 && before.last.checked_add(1) == Some(range.first) =>
            {
                before.last = range.last;
            }
            _ => merged.push(range),
        }
    }
    let mut out = Vec::new();
    for range in merged {
        let mut first = range.first;
        loop {
            let bits = if range.v6 { 128 } else { 32 };
            // as large as its start is aligned for and as there is room
            let mut free = first.trailing_zeros().min(bits);
            while free > 0 && (range.last - first) < host_bits(free) {
                free -= 1;
            }
            out.push(network(range.v6, first, bits - free));
            if out.len() > MOST {
                return None;
            }
            match first.checked_add(host_bits(free)).and_then(|last| last.checked_add(1)) {
                Some(next) if next <= range.last => first = next,
                _ => break,
            }
        }
    }
    Some(out)
}

fn network(v6: bool, first: u128, length: u32) -> String {
    let address = if v6 {
        IpAddr::V6(Ipv6Addr::from_bits(first))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(first).unwrap_or(u32::MAX)))
    };
    let whole = if v6 { 128 } else { 32 };
    if length == whole { address.to_string() } else { format!("{address}/{length}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> Vec<Rule> {
        let rule = |line: &str| {
            let (word, what) = line.trim().split_once(' ').unwrap();
            Rule { allow: word == "allow", nets: nets(what).unwrap() }
        };
        text.split(';').filter(|line| !line.trim().is_empty()).map(rule).collect()
    }

    fn lists(text: &str) -> (String, String) {
        let access = convert(&rules(text)).unwrap();
        (access.allow.join(" "), access.deny.join(" "))
    }

    fn inside(list: &[String], address: IpAddr) -> bool {
        list.iter().any(|text| {
            let (range, one) = (range(text).unwrap(), range(&address.to_string()).unwrap());
            range.v6 == one.v6 && range.first <= one.first && one.last <= range.last
        })
    }

    /// nginx: the first rule that matches decides, and where none does, the address may come in.
    fn nginx(rules: &[Rule], address: IpAddr) -> bool {
        let matches = |rule: &&Rule| match &rule.nets {
            Nets::All => true,
            Nets::Unix => false,
            Nets::One { text, .. } => inside(std::slice::from_ref(text), address),
        };
        rules.iter().find(matches).is_none_or(|rule| rule.allow)
    }

    fn edge(access: &Access, address: IpAddr) -> bool {
        !inside(&access.deny, address)
            && (access.allow.is_empty() || inside(&access.allow, address))
    }

    #[test]
    fn usual_orders_keep_their_words() {
        let pair = |allow: &str, deny: &str| (allow.to_owned(), deny.to_owned());
        assert_eq!(lists("allow 10.0.0.0/8; allow ::1; deny all"), pair("10.0.0.0/8 ::1", ""));
        assert_eq!(
            lists("deny 10.0.0.5; allow 10.0.0.0/8; deny all"),
            pair("10.0.0.0/8", "10.0.0.5")
        );
        assert_eq!(lists("deny 10.0.0.5; deny ::1"), pair("", "10.0.0.5 ::1"));
        assert_eq!(lists("deny 10.0.0.5; allow all; deny all"), pair("", "10.0.0.5"));
        assert_eq!(lists("deny all; allow 10.0.0.1"), pair("", "0.0.0.0/0 ::/0"));
        assert_eq!(lists("allow unix:; deny all"), pair("", "0.0.0.0/0 ::/0"));
        assert_eq!(lists("allow all"), pair("", ""));
        assert_eq!(lists(""), pair("", ""));
    }

    #[test]
    fn other_orders_are_computed() {
        let (allow, deny) = lists("allow 10.0.0.1; deny 10.0.0.0/30; allow 10.0.0.0/29; deny all");
        assert_eq!((allow.as_str(), deny.as_str()), ("10.0.0.1 10.0.0.4/30", ""));
        let (allow, deny) = lists("allow 10.0.0.1; deny 10.0.0.0/31");
        assert_eq!((allow.as_str(), deny.as_str()), ("", "10.0.0.0"));
        assert_eq!(
            lists("allow 10.0.0.0/8; deny 10.0.0.0/9; deny 0.0.0.0/0; deny ::/0").0,
            "10.0.0.0/8"
        );
        let (allow, deny) = lists("deny 0.0.0.0/1; allow 0.0.0.0/0; deny 128.0.0.0/1; deny ::/0");
        assert_eq!((allow.as_str(), deny.as_str()), ("128.0.0.0/1", ""));
        let nobody = "deny 10.0.0.0/8; allow 10.0.0.1; deny 0.0.0.0/0; deny ::/0";
        assert!(convert(&rules(nobody)).unwrap().is_nobody());
    }

    #[test]
    fn what_would_be_endless_is_reported() {
        let mut text = String::new();
        for n in 0..4000 {
            text += &format!("allow 10.{}.{}.1; ", n / 256, n % 256);
        }
        assert!(convert(&rules(&format!("{text} deny 10.0.0.0/8"))).is_err());
    }

    #[test]
    fn words_that_are_no_networks_are_refused() {
        for bad in
            ["", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "::/129", "localhost", "10.0.0.0/", "/8"]
        {
            assert!(nets(bad).is_err(), "{bad}");
        }
        assert!(nets("10.1.2.3/8").is_ok());
    }

    fn any_rule() -> impl Strategy<Value = (bool, bool, u8, u32)> {
        // few addresses and many lengths, so that rules cut each other
        (any::<bool>(), any::<bool>(), 0..64u8, 24..=33u32)
    }

    proptest! {
        #[test]
        fn the_same_addresses_come_in(list in proptest::collection::vec(any_rule(), 0..12)) {
            let rules: Vec<Rule> = list.iter().map(|&(allow, v6, low, length)| {
                let text = match (length, v6) {
                    (33, _) => "all".to_owned(),
                    (n, false) => format!("10.0.0.{low}/{n}"),
                    (n, true) => format!("fd00::{low:x}/{}", n + 96),
                };
                Rule { allow, nets: nets(&text).unwrap() }
            }).collect();
            let access = convert(&rules).unwrap();
            for low in 0..80u8 {
                for text in [format!("10.0.0.{low}"), format!("fd00::{low:x}")] {
                    let address: IpAddr = text.parse().unwrap();
                    prop_assert_eq!(nginx(&rules, address), edge(&access, address), "{} {:?}", text, access);
                }
            }
            for text in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
                let address: IpAddr = text.parse().unwrap();
                prop_assert_eq!(nginx(&rules, address), edge(&access, address), "{}", text);
            }
        }
    }
}
