//! One question to DNS: in, a name; out, the addresses that it stands for, and how long that is good.
//!
//! `/etc/hosts` goes first, and `localhost` needs nobody.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::system_conf::read_system_conf;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::Question;
use super::asker::{Asker, Ips, name};
use super::known::MOST;
use crate::balance::lookup::{Ask, DnsSettings, Lookup};
use crate::balance::settings::ServerSettings;
use crate::base::url;

/// Names that an SRV answer leads to and that are asked for at once.
const AT_ONCE: usize = 16;
/// What is said of who does not answer.
pub(super) const LATE: &str = "there was no answer in time";
/// How long an answer is good that the system gave: it does not say.
const BY_SYSTEM: Duration = Duration::from_secs(30);

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Answer {
    /// No address twice; none at all where the name is not there.
    pub(super) records: Vec<Record>,
    /// What could not be found out.
    pub(super) gaps: Vec<Gap>,
    /// The shortest time to live.
    pub(super) good_for: Duration,
}

/// One address of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) address: SocketAddr,
    /// The hosts that have it: several SRV records may lead there.
    pub(super) hosts: Vec<Arc<str>>,
    /// Of the SRV record.
    pub(super) priority: u16,
    /// Likewise.
    pub(super) weight: u16,
}

/// Addresses that a host may have, though the answer does not have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    /// Of the SRV record.
    pub(super) priority: u16,
    /// A or AAAA, where the other was answered.
    pub(super) half: Option<RecordType>,
    /// Why it is not known.
    pub(super) why: String,
}

/// Asks, for so long at most. A name that is not there is an answer, of nobody.
///
/// # Errors
/// A sentence that says why there is no answer.
pub(super) async fn resolve(
    question: &Question,
    dns: &DnsSettings,
    most: Duration,
) -> Result<Answer, String> {
    let by = Instant::now() + most;
    match question {
        Question::Server(server) => in_time(by, of_server(server, dns)).await,
        Question::Lookup(Lookup { ask: Ask::Host(host, port), .. }) => {
            Ok(in_time(by, of_host(host, dns)).await?.at(host, *port))
        }
        Question::Lookup(Lookup { ask: Ask::Service(name), .. }) => of_service(name, dns, by).await,
    }
}

async fn in_time<T>(
    by: Instant,
    asked: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    timeout_at(by.into(), asked).await.unwrap_or_else(|_| Err(LATE.to_owned()))
}

impl Ips {
    fn at(self, host: &str, port: u16) -> Answer {
        let host: Arc<str> = host.into();
        let record = |ip: &IpAddr| {
            let (address, hosts) = (SocketAddr::new(*ip, port), vec![host.clone()]);
            Record { address, hosts, priority: 0, weight: 0 }
        };
        let records = self.all.iter().take(2 * MOST).map(record).collect();
        let gaps = self.gap(&host, port, 0).into_iter().collect();
        Answer { records, gaps, good_for: left(self.until) }
    }

    fn gap(&self, host: &Arc<str>, port: u16, priority: u16) -> Option<Gap> {
        let (half, why) = self.failed.clone()?;
        Some(Gap { host: host.clone(), port, priority, half: Some(half), why })
    }

    fn known(all: Vec<IpAddr>) -> Self {
        Self { all, failed: None, until: Instant::now() + BY_SYSTEM }
    }
}

impl Gap {
    /// Whether that address may be one of them, if it is the host's.
    pub(super) fn may_have(&self, address: SocketAddr) -> bool {
        let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        self.port == address.port() && self.half.is_none_or(|half| half == kind)
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn of_server(server: &ServerSettings, dns: &DnsSettings) -> Result<Answer, String> {
    let ips = match of_host(&server.host, dns).await {
        Ok(ips) if ips.all.is_empty() => by_system(&server.host, dns).await.unwrap_or(ips),
        Ok(ips) => ips,
        Err(e) if read_system_conf().is_err() => by_system(&server.host, dns).await.ok_or(e)?,
        Err(e) => return Err(e),
    };
    Ok(ips.at(&server.host, server.port))
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

/// Hosts that cannot be resolved, or not in time, are gaps, and the others are told.
pub(super) async fn of_service(
    service: &str,
    dns: &DnsSettings,
    by: Instant,
) -> Result<Answer, String> {
    let asker = Arc::new(Asker::new(dns)?);
    let (records, mut until) = in_time(by, asker.services(service)).await?;
    let ends = ends(&records);
    let found = hosts(&asker, ends.iter().map(|(host, _)| host.clone()).collect(), by).await;
    let (mut all, mut gaps): (Vec<Record>, Vec<Gap>) = (Vec::new(), Vec::new());
    let mut places: HashMap<SocketAddr, usize> = HashMap::new();
    for (host, &SRV { port, priority, weight, .. }) in ends {
        let ips = match found.get(&host) {
            Some(Ok(ips)) => ips,
            failed => {
                let why = failed.and_then(|f| f.clone().err()).unwrap_or_else(|| LATE.to_owned());
                gaps.push(Gap { host, port, priority, half: None, why });
                continue;
            }
        };
        until = until.min(ips.until);
        gaps.extend(ips.gap(&host, port, priority));
        for ip in &ips.all {
            let address = SocketAddr::new(*ip, port);
            let place = places.get(&address).and_then(|place| all.get_mut(*place));
            if let Some(record) = place {
                record.hosts.push(host.clone());
            } else if all.len() < 2 * MOST {
                places.insert(address, all.len());
                all.push(Record { address, hosts: vec![host.clone()], priority, weight });
            }
        }
    }
    Ok(Answer { records: all, gaps, good_for: left(until) })
}

/// What records lead to, nothing of it twice.
fn ends(records: &[SRV]) -> Vec<(Arc<str>, &SRV)> {
    let mut ends: Vec<(Arc<str>, &SRV)> = Vec::new();
    for record in records {
        let host = record.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        if !ends.iter().any(|(other, end)| **other == host && end.port == record.port) {
            ends.push((host.into(), record));
        }
    }
    ends
}

/// The addresses of each host, or why there are none; nothing of those that were not answered in time.
async fn hosts(
    asker: &Arc<Asker>,
    mut targets: Vec<Arc<str>>,
    by: Instant,
) -> HashMap<Arc<str>, Result<Ips, String>> {
    targets.sort_unstable();
    targets.dedup();
    let (mut targets, mut asked, mut found) = (targets.into_iter(), JoinSet::new(), HashMap::new());
    loop {
        for target in targets.by_ref().take(AT_ONCE.saturating_sub(asked.len())) {
            let (asker, by_hosts) = (asker.clone(), in_hosts(&target));
            asked.spawn(async move {
                let ips = match by_hosts {
                    Some(ips) => Ok(ips),
                    None => asker.ips(&format!("{target}.")).await,
                };
                (target, ips)
            });
        }
        match timeout_at(by.into(), asked.join_next()).await {
            Ok(Some(Ok((target, ips)))) => drop(found.insert(target, ips)),
            Ok(Some(Err(e))) => log::error!("a name could not be asked for: {e}"),
            Ok(None) | Err(_) => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
