//! The DNS servers: in, a host or a service; out, its records, and until when they are good.
//!
//! Names are completed by the system's search list only where the system's DNS servers are asked.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup as Found;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver, TokioResolver};

use super::known::MOST;
use crate::balance::lookup::DnsSettings;

/// How long it is good that nobody is there, where no server says.
const NOBODY: Duration = Duration::from_secs(5);

/// The addresses of one host.
#[derive(Debug, Clone)]
pub(super) struct Ips {
    pub(super) all: Vec<IpAddr>,
    /// What of A and AAAA was not answered, and why.
    pub(super) failed: Option<(RecordType, String)>,
    pub(super) until: Instant,
}

/// Made for each question: what the system says of its DNS servers may change.
pub(super) struct Asker {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl Asker {
    pub(super) fn new(dns: &DnsSettings) -> Result<Self, String> {
        let (config, mut options) = match dns.servers.is_empty() {
            true => read_system_conf().map_err(|e| e.to_string())?,
            false => (configured(&dns.servers), ResolverOpts::default()),
        };
        let mut search = config.search().to_vec();
        if search.is_empty() {
            search.extend(config.domain().cloned());
        }
        let ndots = options.ndots;
        options.timeout = dns.timeout;
        options.attempts = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(|e| e.to_string())?;
        Ok(Self { resolver, search, ndots })
    }

    /// All names that one may mean, in the order in which they are asked for (resolv.conf(5)).
    fn candidates(&self, text: &str) -> Result<Vec<Name>, String> {
        let own = name(text)?;
        if text.ends_with('.') {
            return Ok(vec![own]);
        }
        let longer = self.search.iter().filter_map(|domain| {
            let mut relative = own.clone();
            relative.set_fqdn(false);
            relative.append_domain(domain).ok()
        });
        let mut all: Vec<Name> = longer.collect();
        let whole = text.matches('.').count() >= self.ndots;
        all.insert(if whole { 0 } else { all.len() }, own);
        all.iter_mut().for_each(|name| name.set_fqdn(true));
        Ok(all)
    }

    /// The addresses of the first candidate that has any. One of which nobody knows whether it is there ends the
    /// search: the next one may be somebody else's, by a wildcard such as `*.corp.example`.
    pub(super) async fn ips(&self, host: &str) -> Result<Ips, String> {
        let mut until = Instant::now() + NOBODY;
        for name in self.candidates(host)? {
            let (a, aaaa) = tokio::join!(
                self.resolver.lookup(name.clone(), RecordType::A),
                self.resolver.lookup(name, RecordType::AAAA)
            );
            let mut all = Vec::new();
            let (mut both_until, mut failed): (Option<Instant>, _) = (None, None);
            for (kind, answer) in [(RecordType::A, ips(a)), (RecordType::AAAA, ips(aaaa))] {
                match answer {
                    Err(e) => failed = Some((kind, e)),
                    Ok((some, good)) if some.is_empty() => until = until.min(good),
                    Ok((some, good)) => {
                        all.extend(some);
                        both_until = Some(both_until.map_or(good, |other| other.min(good)));
                    }
                }
            }
            if let Some(until) = both_until {
                return Ok(Ips { all, failed, until });
            }
            if let Some((_, e)) = failed {
                return Err(e);
            }
        }
        Ok(Ips { all: Vec::new(), failed: None, until })
    }

    /// The SRV records of the first candidate that has any; as for [`Asker::ips`], one that is in doubt ends it.
    pub(super) async fn services(&self, service: &str) -> Result<(Vec<SRV>, Instant), String> {
        let mut until = Instant::now() + NOBODY;
        for name in self.candidates(service)? {
            match records(self.resolver.lookup(name, RecordType::SRV).await)? {
                (some, good) if some.is_empty() => until = until.min(good),
                (some, good) => {
                    return Ok((some.iter().filter_map(srv).take(MOST).collect(), good));
                }
            }
        }
        Ok((Vec::new(), until))
    }
}

/// A lone dot as the target says that the service is not there (RFC 2782).
fn srv(data: &RData) -> Option<SRV> {
    match data {
        RData::SRV(srv) if srv.port != 0 && !srv.target.is_root() => Some(srv.clone()),
        _ => None,
    }
}

fn configured(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        server.connections.iter_mut().for_each(|connection| connection.port = address.port());
        server
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

/// A name that is whole.
///
/// # Errors
/// What is wrong with it.
pub(super) fn name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|e| e.to_string())?;
    name.set_fqdn(true);
    Ok(name)
}

fn ips(answer: Result<Found, NetError>) -> Result<(Vec<IpAddr>, Instant), String> {
    let (records, until) = records(answer)?;
    let mut all: Vec<IpAddr> = Vec::new();
    for ip in records.iter().filter_map(RData::ip_addr) {
        if all.len() < 2 * MOST && !all.contains(&ip) {
            all.push(ip);
        }
    }
    Ok((all, until))
}

/// What there is, and until when; nothing where DNS says that there is nothing.
fn records(answer: Result<Found, NetError>) -> Result<(Vec<RData>, Instant), String> {
    match answer {
        Ok(found) => {
            let data = found.answers().iter().map(|record| record.data.clone()).collect();
            Ok((data, found.valid_until()))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let good = none.negative_ttl.map_or(NOBODY, |ttl| Duration::from_secs(ttl.into()));
            Ok((Vec::new(), Instant::now() + good))
        }
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::names::tests::{FAILURE, NO_SUCH_NAME, address, server};
    use std::net::Ipv4Addr;

    fn asker(search: &[&str], ndots: usize) -> Asker {
        asker_of("127.0.0.1:1".parse().unwrap(), search, ndots)
    }

    fn asker_of(server: SocketAddr, search: &[&str], ndots: usize) -> Asker {
        let servers = vec![server];
        let asker = Asker::new(&DnsSettings { servers, ..DnsSettings::default() }).unwrap();
        let search = search.iter().map(|text| name(text).unwrap()).collect();
        Asker { search, ndots, ..asker }
    }

    #[tokio::test]
    async fn names_are_completed_as_the_system_does() {
        let all = |ndots, text: &str| -> Vec<String> {
            let asker = asker(&["ns.svc.local", "local"], ndots);
            asker.candidates(text).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(all(1, "mcp"), ["mcp.ns.svc.local.", "mcp.local.", "mcp."]);
        assert_eq!(all(1, "mcp.ns"), ["mcp.ns.", "mcp.ns.ns.svc.local.", "mcp.ns.local."]);
        assert_eq!(all(5, "a.b")[2], "a.b.");
        assert_eq!(all(5, "a.b."), ["a.b."]);
    }

    #[tokio::test]
    async fn a_name_in_doubt_does_not_lead_to_another_ones_wildcard() {
        let server = async |code| {
            server(move |name, kind| match name.starts_with(b"\x03own\x04test\x00") {
                true => Some((code, vec![])),
                false => address(kind, 1),
            })
            .await
        };
        let denied = asker_of(server(NO_SUCH_NAME).await, &["corp.example"], 1);
        let denied = denied.ips("own.test").await.unwrap();
        assert_eq!(denied.all, [Ipv4Addr::new(192, 0, 2, 1)], "the next candidate's");
        let failing = asker_of(server(FAILURE).await, &["corp.example"], 1);
        assert!(failing.ips("own.test").await.is_err());
        assert!(failing.ips("other.test").await.is_ok());
    }
}
