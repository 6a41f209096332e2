//! Servers of an upstream's config: in, the `servers` node; out, checked settings.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::lookup::{Ask, Lookup};
use super::settings::ServerSettings;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::defaults;
use crate::base::fields::{self, Fields};
use crate::base::url::{self, Origin};

/// The largest `weight`.
const MOST_WEIGHT: u64 = 1000;
/// What `priority` may be, the first first.
const PRIORITIES: &[&str] = &["primary", "secondary"];
/// What `every` may be: nobody is asked more often, and nothing is believed for longer.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// An item of the list.
enum Item {
    Server(ServerSettings),
    Lookup(Lookup),
}

/// Compiles the list; what is wrong is noted in `cx`.
pub(super) fn servers(node: &Node, cx: &mut Cx) -> Option<(Vec<ServerSettings>, Vec<Lookup>)> {
    let mut seen: Vec<(String, usize)> = Vec::new();
    let items = cx.filled_list(node, |node, cx| {
        let item = item(node, cx)?;
        let name = match &item {
            Item::Server(server) => server.authority.clone(),
            Item::Lookup(lookup) => lookup.to_string(),
        };
        if let Some((_, line)) = seen.iter().find(|(other, _)| *other == name) {
            // not its name, which may be a part of what was substituted
            cx.error(node, format!("this server stands already in line {line}"));
        }
        seen.push((name, node.line));
        Some(item)
    })?;
    let (mut servers, mut lookups) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Server(server) => servers.push(server),
            Item::Lookup(lookup) => lookups.push(lookup),
        }
    }
    Some((servers, lookups))
}

/// A server of which nothing but the URL is said.
pub(super) fn of(origin: &Origin) -> ServerSettings {
    ServerSettings {
        https: origin.https,
        host: origin.host.clone(),
        port: origin.port,
        authority: origin.authority(),
        weight: defaults::WEIGHT,
        priority: 0,
        drain: false,
        found: None,
    }
}

fn item(node: &Node, cx: &mut Cx) -> Option<Item> {
    let NodeKind::Map(entries) = &node.kind else {
        return Some(Item::Server(of(&origin(node, cx)?)));
    };
    let has = |key: &str| entries.iter().any(|(name, ..)| name == key);
    if has("dns") || has("srv") {
        return lookup(node, has("srv"), cx).map(Item::Lookup);
    }
    let mut fields = cx.map(node)?;
    let origin = fields.required(cx, "url", origin);
    let (weight, priority, drain) = share(&mut fields, cx);
    fields.finish(cx);
    Some(Item::Server(ServerSettings { weight, priority, drain, ..of(&origin?) }))
}

fn lookup(node: &Node, service: bool, cx: &mut Cx) -> Option<Lookup> {
    let mut fields = cx.map(node)?;
    let asked = match service {
        true => fields.required(cx, "srv", |n, cx| {
            cx.parse(n, "a name like http://_mcp._tcp.example.com", service_name)
        }),
        false => fields.required(cx, "dns", |n, cx| {
            let origin = origin(n, cx)?;
            if origin.host.parse::<IpAddr>().is_ok() {
                cx.error(n, "an address needs no DNS: write it as `url`");
                return None;
            }
            Some((Ask::Host(origin.host, origin.port), origin.https))
        }),
    };
    let every = fields.or(cx, "every", defaults::LOOKUP_EVERY, every);
    let (weight, priority, drain) = share(&mut fields, cx);
    fields.finish(cx);
    let (ask, https) = asked?;
    Some(Lookup { ask, https, every, weight, priority, drain })
}

fn origin(node: &Node, cx: &mut Cx) -> Option<Origin> {
    cx.parse(node, "a URL like http://10.0.1.10:8000", url::origin)
}

/// `http://_mcp._tcp.example.com`; records say the port.
fn service_name(text: &str) -> Result<(Ask, bool), String> {
    let (https, name) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(name), _) => (true, name),
        (_, Some(name)) => (false, name),
        _ => return Err(format!("`{text}` must start with http:// or https://")),
    };
    let labels: Vec<&str> = name.splitn(3, '.').collect();
    let good = match labels.as_slice() {
        [service, protocol, domain] => {
            service.starts_with('_') && protocol.starts_with('_') && !domain.starts_with('_')
        }
        _ => false,
    };
    if !good || name.contains(['/', ':']) {
        return Err(format!(
            "`{text}` is not a service: write `http://_mcp._tcp.example.com`, without a port"
        ));
    }
    Ok((Ask::Service(url::host(name)?), https))
}

fn every(node: &Node, cx: &mut Cx) -> Option<Duration> {
    let period = cx.period(node)?;
    if EVERY.contains(&period) {
        return Some(period);
    }
    cx.error(node, "must be from `1s` to `1h`");
    None
}

/// Weight, priority, and whether it drains.
fn share(fields: &mut Fields<'_>, cx: &mut Cx) -> (u32, u32, bool) {
    let weight = fields.or(cx, "weight", defaults::WEIGHT, |n, cx| {
        cx.integer(n, 1..=MOST_WEIGHT).and_then(|n| u32::try_from(n).ok())
    });
    let priority = fields.or(cx, "priority", 0, priority);
    let drain = fields.or(cx, "drain", false, |n, cx| cx.boolean(n));
    (weight, priority, drain)
}

fn priority(node: &Node, cx: &mut Cx) -> Option<u32> {
    cx.parse(node, "`primary` or `secondary`", |text| {
        let place = PRIORITIES.iter().position(|name| *name == text);
        place
            .and_then(|place| u32::try_from(place).ok())
            .ok_or_else(|| format!("unknown priority `{text}`{}", fields::hint(text, PRIORITIES)))
    })
}
