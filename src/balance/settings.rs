//! What an upstream is told: in, the config; out, checked values.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::health::settings::{EjectSettings, HealthSettings};
use super::lookup::{DnsSettings, Found, Lookup};
use super::policy::Kind;
use crate::base::defaults;
use crate::base::kept::Sum;

/// A group of replicas of one MCP server.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// A sum of all that the config and the files that it names say of it: while it stays the same over a reload,
    /// so does what is at work.
    pub fingerprint: Sum,
    /// The same of what connections are made by.
    pub wire: Sum,
    /// Its name; for a URL written into a route, that URL's origin.
    pub name: String,
    /// The replicas that the config names, in its order; authorities are unique.
    pub servers: Vec<ServerSettings>,
    /// The replicas that DNS names; never empty together with `servers`.
    pub lookups: Vec<Lookup>,
    /// Whom to ask for those, and for names of `servers`.
    pub dns: DnsSettings,
    /// How new sessions and session-less requests are spread.
    pub policy: &'static Kind,
    /// What of a request goes before the policy.
    pub hash: Option<HashBy>,
    /// What keeps requests of the 2026-07-28 era together.
    pub affinity: Affinity,
    /// The Host that backends see.
    pub host: HostHeader,
    /// What the edge shows to the servers of itself, in place of what a client sends.
    pub credential: Option<(HeaderName, HeaderValue)>,
    /// For `https` servers; ignored by `http` ones.
    pub tls: UpstreamTls,
    /// What is done when a replica cannot be connected to.
    pub retry: Retry,
    /// How much at once; absent, any.
    pub circuit: Option<Circuit>,
    /// Time for a TCP connect, shared by the addresses of one name, and again for a TLS handshake. Default 5 s.
    pub connect_timeout: Duration,
    /// Time from the end of the request to the response head. Default 10 min.
    pub first_byte_timeout: Duration,
    /// How long an unused connection is kept. Default 4 s: uvicorn and Node close after 5.
    pub idle_timeout: Duration,
    /// How replicas are checked; absent: they are not.
    pub health: Option<HealthSettings>,
    /// When failing requests take a replica out; absent: never.
    pub eject: Option<EjectSettings>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Whether it is spoken to over TLS.
    pub https: bool,
    /// Host name or address, lower case, without brackets.
    pub host: String,
    /// The port, explicit or the scheme's.
    pub port: u16,
    /// `host:port`, brackets around IPv6; the port is left out where it is the scheme's default.
    pub authority: String,
    /// Share of new sessions, 1 to 1000. Default 1.
    pub weight: u32,
    /// Those of the smallest number get all that is new, for as long as one of them is up. Default 0.
    pub priority: u32,
    /// Its sessions go on; it gets nothing new.
    pub drain: bool,
    /// Where its name has led; absent in a config, and for an address.
    pub found: Option<Found>,
}

/// What makes requests go to one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The principal, or the client's address when anonymous.
    Principal,
    /// The value of this field; where it is absent, as `Principal`.
    Header(HeaderName),
}

/// Connects that are tried again. Nothing of a request has gone out then, so it may be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How many more connects there may be than requests, in percent, 0 to 100. Default 20.
    pub budget: u32,
    /// Before the second retry of a request; doubled before each further one. Default 25 ms.
    pub backoff: Duration,
    /// Retries of one request. Default 3; 0 for none.
    pub most: u32,
}

impl Default for Retry {
    fn default() -> Self {
        let (budget, backoff) = (defaults::RETRY_BUDGET, defaults::RETRY_BACKOFF);
        Self { budget, backoff, most: defaults::RETRY_MOST }
    }
}

/// How much an upstream gets at once, and how much may wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circuit {
    /// Requests under way, 1 to 1,000,000; streams that a GET has begun do not count.
    pub in_flight: usize,
    /// Requests that wait, 0 to 1,000,000. Default 1024.
    pub pending: usize,
    /// How long each waits at most. Default 5 s.
    pub wait: Duration,
}

/// What keeps requests of the 2026-07-28 era on one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// The principal, or the client's address when anonymous.
    Principal,
    /// Nothing: the servers share all state.
    None,
}

/// The Host header that backends see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// The replica's own authority. The default: Python and rmcp servers refuse others.
    Server,
    /// What the client sent.
    Client,
    /// This one.
    Fixed(String),
}

/// TLS towards the servers.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTls {
    /// PEM file with the CAs to trust instead of the system's.
    pub ca: Option<std::path::PathBuf>,
    /// The name to ask for and to check instead of the server's host.
    pub server_name: Option<String>,
    /// PEM files of a client certificate and its key.
    pub client_certificate: Option<(std::path::PathBuf, std::path::PathBuf)>,
    /// Development only: any certificate is taken.
    pub insecure_skip_verify: bool,
}

impl ServerSettings {
    /// Whether DNS has to say where it is.
    pub fn is_named(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// What it calls itself, for the Host field.
    pub fn host_field(&self) -> &str {
        self.found.as_ref().map_or(&self.authority, |found| &found.host)
    }
}

impl UpstreamSettings {
    /// Takes who is asked for names: what it means for this upstream is a part of what the config says of it.
    pub fn ask_by(&mut self, dns: &DnsSettings) {
        self.dns = dns.clone();
        if !self.lookups.is_empty() || self.servers.iter().any(ServerSettings::is_named) {
            self.fingerprint = self.fingerprint.and(&format!("{dns:?}"));
        }
    }

    /// How new sessions are spread, in the words of the config.
    pub fn balance(&self) -> String {
        match &self.hash {
            None => self.policy.name.to_owned(),
            Some(HashBy::Principal) => "hash of principal".to_owned(),
            Some(HashBy::Header(name)) => format!("hash of {name}"),
        }
    }
}
