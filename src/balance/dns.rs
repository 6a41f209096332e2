//! Who is asked for names: in, the config's `dns` node; out, checked settings.

use std::net::{IpAddr, SocketAddr};

use super::lookup::DnsSettings;
use crate::base::compile::{Cx, Node};
use crate::base::defaults;

/// The port of DNS (RFC 1035 §4.2).
const PORT: u16 = 53;

/// Compiles it; what is wrong is noted in `cx`.
pub fn dns(node: &Node, cx: &mut Cx) -> Option<DnsSettings> {
    let mut fields = cx.map(node)?;
    let servers = fields.or(cx, "servers", Vec::new(), |n, cx| cx.filled_list(n, server));
    let timeout = fields.or(cx, "timeout", defaults::DNS_TIMEOUT, |n, cx| cx.period(n));
    fields.finish(cx);
    Some(DnsSettings { servers, timeout })
}

fn server(node: &Node, cx: &mut Cx) -> Option<SocketAddr> {
    cx.parse(node, "an address of a DNS server", |text| {
        let plain = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
        text.parse().or_else(|_| plain()).map_err(|_| {
            format!("`{text}` is not an IP address, with a port or without, such as `10.0.0.2`")
        })
    })
}
