//! One question to DNS: in, a name; out, the addresses that it stands for, and how long that is good.
//!
//! `/etc/hosts` goes first, and `localhost` needs nobody. Names are completed by the system's search list only where
//! the system's DNS servers are asked.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup as Found;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, Resolver, TokioResolver};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Question;
use super::known::MOST;
use crate::balance::lookup::{Ask, DnsSettings};
use crate::base::url;

/// For all that a question takes.
const WHOLE: Duration = Duration::from_secs(10);
/// Names that an SRV answer leads to and that are asked for at once.
const AT_ONCE: usize = 16;
/// How long an answer is good that the system gave: it does not say.
const BY_SYSTEM: Duration = Duration::from_secs(30);
/// How long it is good that nobody is there, where no server says.
const NOBODY: Duration = Duration::from_secs(5);

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Answer {
    /// None of them twice; none at all where the name is not there.
    pub(super) records: Vec<Record>,
    /// Whether A was answered for all names, so that who is missing is missing.
    pub(super) v4: bool,
    /// Whether AAAA was.
    pub(super) v6: bool,
    /// The shortest time to live.
    pub(super) good_for: Duration,
}

/// One address of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) address: SocketAddr,
    /// Of the SRV record.
    pub(super) priority: u16,
    /// Likewise.
    pub(super) weight: u16,
}

/// The addresses of one host.
#[derive(Debug, Clone)]
struct Ips {
    all: Vec<IpAddr>,
    v4: bool,
    v6: bool,
    until: Instant,
}

/// Asks, for a bounded time. A name that is not there is an answer, of nobody.
///
/// # Errors
/// A sentence that says why there is no answer.
pub(super) async fn resolve(question: &Question, dns: &DnsSettings) -> Result<Answer, String> {
    let late = |_| Err("there was no answer in time".to_owned());
    timeout(WHOLE, ask(question, dns)).await.unwrap_or_else(late)
}

async fn ask(question: &Question, dns: &DnsSettings) -> Result<Answer, String> {
    match question {
        Question::Server(server) => {
            let ips = match of_host(&server.host, dns).await {
                Ok(ips) if ips.all.is_empty() => by_system(&server.host, dns).await.unwrap_or(ips),
                Ok(ips) => ips,
                Err(e) if read_system_conf().is_err() => {
                    by_system(&server.host, dns).await.ok_or(e)?
                }
                Err(e) => return Err(e),
            };
            Ok(ips.at(server.port))
        }
        Question::Lookup(lookup) => match &lookup.ask {
            Ask::Host(host, port) => Ok(of_host(host, dns).await?.at(*port)),
            Ask::Service(name) => of_service(name, dns).await,
        },
    }
}

impl Ips {
    fn at(self, port: u16) -> Answer {
        let record =
            |ip: &IpAddr| Record { address: SocketAddr::new(*ip, port), priority: 0, weight: 0 };
        let records = self.all.iter().take(2 * MOST).map(record).collect();
        Answer { records, v4: self.v4, v6: self.v6, good_for: left(self.until) }
    }

    fn known(all: Vec<IpAddr>) -> Self {
        Self { all, v4: true, v6: true, until: Instant::now() + BY_SYSTEM }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn of_host(host: &str, dns: &DnsSettings) -> Result<Ips, String> {
    match in_hosts(host) {
        Some(ips) => Ok(ips),
        None => Asker::new(dns)?.ips(host).await,
    }
}

/// What needs no DNS server.
fn in_hosts(host: &str) -> Option<Ips> {
    let hosts = Hosts::from_system().unwrap_or_default();
    let mut all = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let found = hosts.lookup_static_host(&Query::query(name(host).ok()?, kind));
        all.extend(found.iter().flat_map(|f| f.answers()).filter_map(|r| r.data.ip_addr()));
    }
    if all.is_empty() && url::is_loopback_name(host) {
        // RFC 6761 §6.3
        all = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    (!all.is_empty()).then(|| Ips::known(all))
}

/// What the system knows by other means than DNS, such as mDNS; where nobody else is to be asked.
async fn by_system(host: &str, dns: &DnsSettings) -> Option<Ips> {
    if !dns.servers.is_empty() {
        return None;
    }
    let found = tokio::net::lookup_host((host, 0)).await.ok()?;
    let mut all: Vec<IpAddr> = Vec::new();
    for address in found {
        if !all.contains(&address.ip()) {
            all.push(address.ip());
        }
    }
    (!all.is_empty()).then(|| Ips::known(all))
}

async fn of_service(service: &str, dns: &DnsSettings) -> Result<Answer, String> {
    let asker = Arc::new(Asker::new(dns)?);
    let (records, mut until) = asker.services(service).await?;
    let mut targets: Vec<String> = Vec::new();
    for record in &records {
        let target = host_of(record);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let (found, failed) = hosts(&asker, &targets).await;
    let (mut all, mut v4, mut v6) = (Vec::new(), failed.is_none(), failed.is_none());
    for record in &records {
        let Some(ips) = found.get(&host_of(record)) else { continue };
        (v4, v6, until) = (v4 && ips.v4, v6 && ips.v6, until.min(ips.until));
        for ip in &ips.all {
            let address = SocketAddr::new(*ip, record.port);
            if !all.iter().any(|other: &Record| other.address == address) && all.len() < 2 * MOST {
                all.push(Record { address, priority: record.priority, weight: record.weight });
            }
        }
    }
    match failed {
        Some(e) if all.is_empty() => Err(e),
        _ => Ok(Answer { records: all, v4, v6, good_for: left(until) }),
    }
}

/// The addresses of each host that could be asked for, and why one could not.
async fn hosts(asker: &Arc<Asker>, targets: &[String]) -> (HashMap<String, Ips>, Option<String>) {
    let (mut found, mut failed) = (HashMap::new(), None);
    for some in targets.chunks(AT_ONCE) {
        let mut asked = JoinSet::new();
        for target in some {
            let (asker, target, by_hosts) = (asker.clone(), target.clone(), in_hosts(target));
            asked.spawn(async move {
                let ips = match by_hosts {
                    Some(ips) => Ok(ips),
                    None => asker.ips(&format!("{target}.")).await,
                };
                (target, ips)
            });
        }
        while let Some(done) = asked.join_next().await {
            match done {
                Ok((target, Ok(ips))) => drop(found.insert(target, ips)),
                Ok((target, Err(e))) => failed = Some(format!("{target}: {e}")),
                Err(e) => failed = Some(e.to_string()),
            }
        }
    }
    (found, failed)
}

fn host_of(record: &SRV) -> String {
    record.target.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// Made for each question: what the system says of its DNS servers may change.
struct Asker {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl Asker {
    fn new(dns: &DnsSettings) -> Result<Self, String> {
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
    async fn ips(&self, host: &str) -> Result<Ips, String> {
        let mut until = Instant::now() + NOBODY;
        for name in self.candidates(host)? {
            let (a, aaaa) = tokio::join!(
                self.resolver.lookup(name.clone(), RecordType::A),
                self.resolver.lookup(name, RecordType::AAAA)
            );
            let (a, aaaa) = (ips(a), ips(aaaa));
            let (v4, v6) = (a.is_ok(), aaaa.is_ok());
            let mut all = Vec::new();
            let (mut both_until, mut failed): (Option<Instant>, _) = (None, None);
            for answer in [a, aaaa] {
                match answer {
                    Err(e) => failed = Some(e),
                    Ok((some, good)) if some.is_empty() => until = until.min(good),
                    Ok((some, good)) => {
                        all.extend(some);
                        both_until = Some(both_until.map_or(good, |other| other.min(good)));
                    }
                }
            }
            if let Some(until) = both_until {
                return Ok(Ips { all, v4, v6, until });
            }
            if let Some(e) = failed {
                return Err(e);
            }
        }
        Ok(Ips { all: Vec::new(), v4: true, v6: true, until })
    }

    /// The SRV records of the first candidate that has any; as for [`Asker::ips`], one that is in doubt ends it.
    async fn services(&self, service: &str) -> Result<(Vec<SRV>, Instant), String> {
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

fn name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|e| e.to_string())?;
    name.set_fqdn(true);
    Ok(name)
}

fn ips(answer: Result<Found, NetError>) -> Result<(Vec<IpAddr>, Instant), String> {
    let (records, until) = records(answer)?;
    let mut all: Vec<IpAddr> = Vec::new();
    for ip in records.iter().filter_map(RData::ip_addr) {
        if !all.contains(&ip) {
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

    /// Answers 192.0.2.1 for every A, but fails (RFC 1035 §4.1.1: 2) or denies (3) whatever begins with `own.test`.
    async fn server(code: u8) -> SocketAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut question).await {
                let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 5;
                let own = question[12..].starts_with(b"\x03own\x04test\x00");
                let has = !own && question[end - 3] == 1;
                let mut answer = question[..end].to_vec();
                answer[2..12].copy_from_slice(&[
                    0x81,
                    0x80 | if own { code } else { 0 },
                    0,
                    1,
                    0,
                    has.into(),
                    0,
                    0,
                    0,
                    0,
                ]);
                if has {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
                }
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_name_in_doubt_does_not_lead_to_another_ones_wildcard() {
        let denied = asker_of(server(3).await, &["corp.example"], 1).ips("own.test").await.unwrap();
        assert_eq!(denied.all, [Ipv4Addr::new(192, 0, 2, 1)], "the next candidate's");
        let failing = asker_of(server(2).await, &["corp.example"], 1);
        assert!(failing.ips("own.test").await.is_err());
        assert!(failing.ips("other.test").await.is_ok());
    }

    #[tokio::test]
    async fn localhost_needs_no_dns_server() {
        let servers = vec!["127.0.0.1:1".parse().unwrap()];
        let dns = DnsSettings { servers, ..DnsSettings::default() };
        for host in ["localhost", "mcp.localhost"] {
            let ips = of_host(host, &dns).await.unwrap();
            assert!(ips.all.contains(&Ipv4Addr::LOCALHOST.into()), "{host}: {ips:?}");
        }
        assert!(of_host("elsewhere.test", &dns).await.is_err(), "nobody answers");
    }
}
