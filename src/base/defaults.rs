//! Every default of the config in one place: in, nothing; out, what an absent key means.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// `admin.address`.
pub const ADMIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9900));
/// `run --listen`.
pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));
/// `shutdown.grace`: half a minute, as service managers and Kubernetes give.
pub const GRACE: Duration = Duration::from_secs(30);
/// `buffer_budget`, in bytes.
pub const BUFFER_BUDGET: u64 = 256 << 20;
/// The smallest `buffer_budget`, in bytes: the beginning of one body that streams must always fit.
pub const LEAST_BUDGET: u64 = 128 << 10;

/// `listeners[].redirect_port`.
pub const HTTPS: u16 = 443;
/// `listeners[].header_timeout`.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// `listeners[].body_timeout`.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// `listeners[].idle_timeout`.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// `listeners[].send_timeout`.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// `listeners[].max_connections`.
pub const MAX_CONNECTIONS: usize = 16_384;

/// `upstreams[].balance`.
pub const BALANCE: &str = "round_robin";
/// `upstreams[].servers[].weight`.
pub const WEIGHT: u32 = 1;
/// `upstreams[].servers[].every`.
pub const LOOKUP_EVERY: Duration = Duration::from_secs(60);
/// `dns.timeout`.
pub const DNS_TIMEOUT: Duration = Duration::from_secs(2);
/// `upstreams[].retry.budget`, in percent.
pub const RETRY_BUDGET: u32 = 20;
/// `upstreams[].retry.backoff`.
pub const RETRY_BACKOFF: Duration = Duration::from_millis(25);
/// `upstreams[].retry.most`.
pub const RETRY_MOST: u32 = 3;
/// `upstreams[].circuit.pending`.
pub const CIRCUIT_PENDING: u64 = 1024;
/// `upstreams[].circuit.wait`.
pub const CIRCUIT_WAIT: Duration = Duration::from_secs(5);
/// `upstreams[].connect_timeout`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `upstreams[].first_byte_timeout`: tools may think for long.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(600);
/// `upstreams[].idle_timeout`: below the 5 s after which uvicorn and Node close.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// `upstreams[].health.every`.
pub const HEALTH_EVERY: Duration = Duration::from_secs(10);
/// `upstreams[].health.timeout`.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
/// `upstreams[].health.up_after`.
pub const HEALTH_UP_AFTER: u32 = 2;
/// `upstreams[].health.down_after`.
pub const HEALTH_DOWN_AFTER: u32 = 3;
/// `upstreams[].health.mcp.path`.
pub const HEALTH_PATH: &str = "/mcp";
/// `upstreams[].eject.failures`.
pub const EJECT_FAILURES: u32 = 5;
/// `upstreams[].eject.for`.
pub const EJECT_PERIOD: Duration = Duration::from_secs(30);
/// `upstreams[].eject.at_most`, in per cent.
pub const EJECT_AT_MOST: u8 = 50;

/// `routes[].path`.
pub const PATH: &str = "/";
/// `routes[].body_limit`, in bytes.
pub const BODY_LIMIT: u64 = 4 << 20;
/// `routes[].keepalive`.
pub const KEEPALIVE: Duration = Duration::from_secs(15);

/// `routes[].auth[].basic.realm`, and of the other methods that name one.
pub const REALM: &str = "MCP";
/// `routes[].auth[].basic.failures`.
pub const AUTH_FAILURES: &str = "10/m burst 10";
/// `routes[].auth[].basic.cache`.
pub const AUTH_CACHE: Duration = Duration::from_secs(300);

/// `routes[].auth[].oauth.stream_grace`.
pub const STREAM_GRACE: Duration = Duration::from_secs(60);
/// `routes[].auth[].oauth.issuers[].leeway`.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// `routes[].auth[].oauth.issuers[].refresh`.
pub const REFRESH_KEYS: Duration = Duration::from_secs(600);
/// `routes[].auth[].oauth.issuers[].keep_keys`.
pub const KEEP_KEYS: Duration = Duration::from_secs(86_400);
/// `routes[].auth[].oauth.issuers[].introspection.cache`.
pub const INTROSPECTION_CACHE: Duration = Duration::from_secs(60);
/// `routes[].auth[].oauth.issuers[].introspection.negative_cache`.
pub const INTROSPECTION_NEGATIVE_CACHE: Duration = Duration::from_secs(10);
/// `routes[].auth[].oauth.issuers[].introspection.concurrency`.
pub const INTROSPECTION_CONCURRENCY: u64 = 16;
/// `routes[].auth[].oauth.issuers[].introspection.rate`.
pub const INTROSPECTION_RATE: &str = "100/s burst 200";
