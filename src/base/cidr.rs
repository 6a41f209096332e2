//! Networks: in, addresses; out, whether a list holds them, and who they are counted as.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::compile::{Cx, Node, NodeKind};
use super::fields::Fields;
use super::files;
use super::watch::Watched;

/// Largest file of networks, in bytes: some 800,000 of them.
const MAX_FILE: u64 = 16 << 20;

/// One number for each IPv4 address and each IPv6 /64: what one subscriber has (RFC 6177).
pub fn subscriber(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()) | 1 << 32,
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// Reads a network, or an address, which is the smallest network. IPv4-mapped ones are IPv4.
///
/// # Errors
/// A sentence that says what is expected.
pub fn network(text: &str) -> Result<IpNet, String> {
    let bad = || format!("`{text}` is neither an address nor a network such as `192.0.2.0/24`");
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| bad())?,
    };
    if net.trunc() != net {
        return Err(format!("`{text}` has bits beyond its prefix: write `{}`", net.trunc()));
    }
    let IpNet::V6(six) = net else { return Ok(net) };
    match (six.addr().to_ipv4_mapped(), six.prefix_len().checked_sub(96)) {
        (Some(four), Some(length)) => Ipv4Net::new(four, length).map(IpNet::V4).map_err(|_| bad()),
        _ => Ok(net),
    }
}

/// A fixed set of networks, as sorted ranges that do not touch: a look-up is a search by halves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    four: Vec<(u32, u32)>,
    six: Vec<(u128, u128)>,
}

impl Ranges {
    /// Sorts and joins networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(n) => four.push((n.network().to_bits(), n.broadcast().to_bits())),
                IpNet::V6(n) => six.push((n.network().to_bits(), n.broadcast().to_bits())),
            }
        }
        // only neighbours by one more can be joined, and none is beyond the last address
        Self { four: joined(four, |n| n.checked_add(1)), six: joined(six, |n| n.checked_add(1)) }
    }

    /// Whether one of the networks holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.four, &address.to_bits()),
            IpAddr::V6(address) => holds(&self.six, &address.to_bits()),
        }
    }
}

fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::new();
    for (from, to) in ranges {
        match out.last_mut() {
            Some((_, end)) if after(*end).is_none_or(|next| from <= next) => *end = to.max(*end),
            _ => out.push((from, to)),
        }
    }
    out.shrink_to_fit();
    out
}

fn holds<T: Ord>(ranges: &[(T, T)], address: &T) -> bool {
    let after = ranges.partition_point(|(from, _)| from <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, to)| address <= to)
}

/// A list of the config: networks that it names, and files of networks that are read again when they
/// change.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    named: Ranges,
    files: Vec<Arc<Watched<Ranges>>>,
}

impl Networks {
    /// Whether it never holds anything: it was not configured.
    pub fn is_empty(&self) -> bool {
        self.named == Ranges::default() && self.files.is_empty()
    }

    /// Whether one of the networks holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.named.contains(address)
            || self.files.iter().any(|file| file.current().contains(address))
    }
}

/// Compiles a list of networks and `{ file: path }`, or one of them alone.
pub fn networks(node: &Node, cx: &mut Cx) -> Option<Networks> {
    let mut files = Vec::new();
    let mut item = |node: &Node, cx: &mut Cx| match &node.kind {
        NodeKind::Map(_) => {
            files.extend(file(node, cx));
            None
        }
        _ => cx.parse(node, "an address, a network or `{ file: path }`", network),
    };
    let named = match &node.kind {
        NodeKind::Seq(_) => cx.filled_list(node, item)?,
        _ => item(node, cx).into_iter().collect(),
    };
    Some(Networks { named: Ranges::new(named), files })
}

fn file(node: &Node, cx: &mut Cx) -> Option<Arc<Watched<Ranges>>> {
    let mut fields = cx.map(node)?;
    let path = fields.required(cx, "file", |n, cx| cx.file(n));
    fields.finish(cx);
    cx.watch(node, vec![path?], "", read)
}

/// One network a line; `#` begins a comment.
fn read(paths: &[PathBuf]) -> Result<Ranges, String> {
    let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let text = files::text(files::read_up_to(path, MAX_FILE)?, path)?;
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            // not its text: who names the wrong file may have named one of secrets
            let wrong = |_| {
                let (path, number) = (path.display(), number + 1);
                format!("`{path}`: line {number} is no network such as `192.0.2.0/24`")
            };
            all.push(network(line).map_err(wrong)?);
        }
    }
    Ok(Ranges::new(all))
}

/// Who may come in: all but the denied, or the allowed but for the denied.
#[derive(Debug, Clone, Default)]
pub struct Access {
    allow: Option<Networks>,
    deny: Option<Networks>,
}

impl Access {
    /// Takes `allow` and `deny` of a map.
    pub fn take(fields: &mut Fields<'_>, cx: &mut Cx) -> Self {
        let allow = fields.optional(cx, "allow", networks);
        let deny = fields.optional(cx, "deny", networks);
        Self { allow, deny }
    }

    /// Whether it is not all the same who comes.
    pub fn asks(&self) -> bool {
        self.allow.is_some() || self.deny.is_some()
    }

    /// Whether this address may come in.
    pub fn admits(&self, address: IpAddr) -> bool {
        !self.deny.as_ref().is_some_and(|list| list.contains(address))
            && self.allow.as_ref().is_none_or(|list| list.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::cmp::Ordering;

    use crate::base::watch::Refresh;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ranges(all: &[&str]) -> Ranges {
        Ranges::new(all.iter().map(|text| network(text).unwrap()))
    }

    #[test]
    fn a_subscriber_has_one_address_or_one_prefix() {
        let who = |text: &str| subscriber(ip(text));
        assert_eq!(who("192.0.2.1"), who("::ffff:192.0.2.1"));
        assert_ne!(who("192.0.2.1"), who("192.0.2.2"));
        assert_eq!(who("2001:db8::1"), who("2001:db8::ffff:0:0:1"));
        assert_ne!(who("2001:db8::1"), who("2001:db8:0:1::1"));
        assert_ne!(who("0.0.0.0"), who("::"));
    }

    #[test]
    fn networks_are_read() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), shown);
        }
        assert!(network("10.1.0.0/8").unwrap_err().contains("write `10.0.0.0/8`"));
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "example.com",
            "::1/129",
            "1",
            "fe80::1%eth0",
            " 10.0.0.1",
        ] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_hold_what_their_networks_hold() {
        let list = ranges(&[
            "10.0.0.0/9",
            "10.128.0.0/9",
            "192.0.2.7",
            "10.1.0.0/16",
            "255.255.255.255",
            "2001:db8::/32",
        ]);
        assert_eq!(list.four.len(), 3, "neighbours are joined: {list:?}");
        for inside in [
            "10.0.0.0",
            "10.255.255.255",
            "192.0.2.7",
            "::ffff:10.2.3.4",
            "255.255.255.255",
            "2001:db8:ffff::",
        ] {
            assert!(list.contains(ip(inside)), "{inside}");
        }
        for outside in [
            "9.255.255.255",
            "11.0.0.0",
            "192.0.2.6",
            "192.0.2.8",
            "0.0.0.0",
            "2001:db9::",
            "::",
            "::10.0.0.1",
        ] {
            assert!(!list.contains(ip(outside)), "{outside}");
        }
        assert!(!Ranges::default().contains(ip("10.0.0.1")));
        assert!(ranges(&["::/0"]).contains(ip("2001:db8::1")));
        assert!(!ranges(&["::/0"]).contains(ip("::ffff:10.0.0.1")), "IPv4 is no IPv6");
        assert!(ranges(&["0.0.0.0/0"]).contains(ip("::ffff:10.0.0.1")));
    }

    /// What one look-up costs, in comparisons.
    fn comparisons(entries: u32) -> usize {
        #[derive(Clone, Copy, PartialEq, Eq)]
        struct Counted<'a>(u32, &'a Cell<usize>);
        impl PartialOrd for Counted<'_> {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for Counted<'_> {
            fn cmp(&self, other: &Self) -> Ordering {
                self.1.set(self.1.get() + 1);
                self.0.cmp(&other.0)
            }
        }
        let count = Cell::new(0);
        let all: Vec<_> = (0..entries)
            .map(|n| (Counted(n * 1_000, &count), Counted(n * 1_000 + 9, &count)))
            .collect();
        let most = (0..entries).step_by(7).map(|n| {
            count.set(0);
            assert!(holds(&all, &Counted(n * 1_000 + 5, &count)));
            count.get()
        });
        most.max().unwrap()
    }

    #[test]
    fn a_hundred_thousand_entries_cost_a_few_comparisons() {
        assert!(comparisons(10) <= 6, "{}", comparisons(10));
        assert!(comparisons(100_000) <= 19, "{}", comparisons(100_000));
    }

    #[test]
    fn a_file_is_read_again_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("# ours\n10.0.0.0/8  # inside\r\n\n2001:db8::/32\n");
        let watched = Watched::load(vec![path.clone()], read).unwrap();
        let list = Networks { named: ranges(&["192.0.2.1"]), files: vec![watched.clone()] };
        assert!(list.contains(ip("10.1.1.1")) && list.contains(ip("192.0.2.1")));
        write("10.0.0.0/8\nnonsense\n");
        watched.fresh();
        assert!(list.contains(ip("10.1.1.1")));
        assert!(watched.problem().unwrap().contains("line 2 is no network"));
        write("172.16.0.0/12\n");
        watched.fresh();
        assert!(!list.contains(ip("10.1.1.1")) && list.contains(ip("172.16.0.1")));
    }

    #[test]
    fn deny_wins_over_allow() {
        let list = |all: &[&str]| Some(Networks { named: ranges(all), files: vec![] });
        let open = Access::default();
        assert!(open.admits(ip("192.0.2.1")));
        let access = Access { allow: list(&["192.0.2.0/24"]), deny: list(&["192.0.2.66"]) };
        assert!(access.admits(ip("192.0.2.1")));
        assert!(!access.admits(ip("192.0.2.66")) && !access.admits(ip("192.0.3.1")));
        assert!(Access { allow: None, deny: list(&["::/0"]) }.admits(ip("192.0.2.1")));
    }

    proptest::proptest! {
        #[test]
        fn a_list_says_what_its_networks_say(
            networks in proptest::collection::vec((0u32..4096, 18u8..=32), 0..40),
            asked in proptest::collection::vec(0u32..5000, 20),
        ) {
            let nets: Vec<Ipv4Net> =
                networks.iter().map(|(a, l)| Ipv4Net::new((*a).into(), *l).unwrap().trunc()).collect();
            let list = Ranges::new(nets.iter().copied().map(IpNet::V4));
            for address in asked {
                let address = std::net::Ipv4Addr::from_bits(address);
                let one = nets.iter().any(|net| net.contains(&address));
                proptest::prop_assert_eq!(list.contains(address.into()), one);
            }
        }
    }
}
