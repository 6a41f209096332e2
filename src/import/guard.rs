//! Who may come in and how much they may do: in, the levels around a location; out, a route's `auth`,
//! `allow`, `deny` and `limits`, and what of it could not be carried.

use std::collections::HashMap;

use super::access::{self, Access, Rule};
use super::condition::{ApiKey, field_name};
use super::nginx::{At, Directive};
use super::note::Notes;
use super::scope::Scope;
use super::values::scalar;

/// All restrictions of a location. Two that are equal restrict the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Guard {
    /// Every one of them is needed; none means everybody.
    pub(super) methods: Vec<String>,
    pub(super) access: Access,
    pub(super) limits: Vec<String>,
    /// Where all of it comes from; for comments, and not compared.
    pub(super) from: From,
}

/// Places for comments: any two are equal.
#[derive(Debug, Clone, Default)]
pub(super) struct From {
    pub(super) methods: Vec<At>,
    pub(super) access: Option<At>,
    pub(super) limits: Vec<At>,
}

impl PartialEq for From {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for From {}

impl Guard {
    /// Restricts nothing.
    pub(super) fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is a user as nginx knows one: that of a password.
    pub(super) fn has_user(&self) -> bool {
        self.methods.iter().any(|method| method.starts_with("basic:"))
    }

    /// Whether a request that this guard lets through was let through by `other` as well.
    pub(super) fn is_as_strict_as(&self, other: &Self) -> bool {
        self == other || other.is_open() || self.access.is_nobody()
    }
}

/// The zones of `limit_req_zone` and `limit_conn_zone` by their names.
#[derive(Debug, Default)]
pub(super) struct Zones<'t> {
    rates: HashMap<String, &'t Directive>,
    connections: HashMap<String, &'t Directive>,
}

/// Collects the zones.
pub(super) fn zones<'t>(http: &'t [Directive]) -> Zones<'t> {
    let mut zones = Zones::default();
    for directive in http {
        let Some(zone) = directive.args.iter().find_map(|arg| arg.strip_prefix("zone=")) else {
            continue;
        };
        let name = zone.split(':').next().unwrap_or_default().to_owned();
        match directive.name.as_str() {
            "limit_req_zone" => zones.rates.insert(name, directive),
            "limit_conn_zone" => zones.connections.insert(name, directive),
            _ => None,
        };
    }
    zones
}

/// What a location demands. `Err` where something of it cannot be carried, which is noted: the route refuses.
pub(super) fn guard(
    scope: &Scope<'_>,
    zones: &Zones<'_>,
    keys: &[(ApiKey, &Directive)],
    notes: &mut Notes,
) -> Result<Guard, ()> {
    let mut guard = Guard::default();
    // whom the first names is the caller, and nginx's `$remote_user` is this one
    let mut good = basic(scope, &mut guard, notes);
    good &= client_certificate(scope, &mut guard, notes);
    for (key, directive) in keys {
        guard.methods.push(format!(
            "api_key: {{ header: {}, keys: [ {{ name: imported, sha256: {} }} ] }}",
            scalar(&key.header),
            scalar(&key.sha256)
        ));
        guard.from.methods.push(directive.at.clone());
    }
    good &= lists(scope, &mut guard, notes);
    good &= rates(scope, zones, &mut guard, notes);
    good &= connections(scope, zones, &mut guard, notes);
    if good { Ok(guard) } else { Err(()) }
}

fn client_certificate(scope: &Scope<'_>, guard: &mut Guard, notes: &mut Notes) -> bool {
    let Some(verify) = scope.last("ssl_verify_client") else { return true };
    match verify.arg(0) {
        "off" => true,
        // only conditions could look at the result, and those refuse by themselves
        "optional" => true,
        "on" => {
            guard.methods.push("client_certificate: { principal: subject }".to_owned());
            guard.from.methods.push(verify.at.clone());
            true
        }
        _ => {
            notes.refused(verify, "certificates are checked against a CA, or not asked for");
            false
        }
    }
}

fn basic(scope: &Scope<'_>, guard: &mut Guard, notes: &mut Notes) -> bool {
    let Some(basic) = scope.last("auth_basic").filter(|basic| basic.arg(0) != "off") else {
        return true;
    };
    let Some(file) = scope.last("auth_basic_user_file") else {
        notes.refused(basic, "there is no `auth_basic_user_file`");
        return false;
    };
    if basic.arg(0).contains('$') || file.arg(0).contains('$') || file.arg(0).is_empty() {
        notes.refused(basic, "realm and file must not hang on variables");
        return false;
    }
    let path = scope.path(file.arg(0));
    let realm = scalar(basic.arg(0));
    guard.methods.push(format!("basic: {{ file: {}, realm: {realm} }}", scalar(&path)));
    guard.from.methods.push(basic.at.clone());
    true
}

fn lists(scope: &Scope<'_>, guard: &mut Guard, notes: &mut Notes) -> bool {
    let directives = scope.any(&["allow", "deny"]);
    let mut rules = Vec::new();
    for directive in &directives {
        match access::nets(directive.arg(0)) {
            Ok(nets) => rules.push(Rule { allow: directive.name == "allow", nets }),
            Err(why) => {
                notes.refused(directive, why);
                return false;
            }
        }
    }
    let Some(first) = directives.first() else { return true };
    guard.from.access = Some(first.at.clone());
    match access::convert(&rules) {
        Ok(access) => {
            guard.access = access;
            true
        }
        Err(why) => {
            notes.refused(first, why);
            false
        }
    }
}

fn rates(scope: &Scope<'_>, zones: &Zones<'_>, guard: &mut Guard, notes: &mut Notes) -> bool {
    let dry = if scope.is_on("limit_req_dry_run") { ", dry_run: true" } else { "" };
    let mut good = true;
    for limit in scope.all("limit_req") {
        let value = |name: &str| limit.args.iter().find_map(|arg| arg.strip_prefix(name));
        let zone = value("zone=").and_then(|zone| zones.rates.get(zone));
        let rate = zone.and_then(|zone| zone.args.iter().find_map(|arg| arg.strip_prefix("rate=")));
        let rate = rate.and_then(per_time);
        let burst = value("burst=").map_or(Some(0), |burst| burst.parse::<u32>().ok());
        let (Some(zone), Some(rate), Some(burst)) = (zone, rate, burst) else {
            notes.refused(limit, "its zone, rate or burst cannot be read");
            good = false;
            continue;
        };
        let Some(key) = key(zone, notes) else {
            notes.refused(limit, "what it counts by has no counterpart");
            good = false;
            continue;
        };
        // nginx counts the request itself apart from its burst
        let burst = burst.saturating_add(1);
        guard.limits.push(format!("{{ key: {key}, rate: {rate} burst {burst}{dry} }}"));
        guard.from.limits.push(limit.at.clone());
        if !limit.args.iter().any(|arg| arg == "nodelay") && burst > 1 {
            notes.differs(
                limit,
                "nginx lets a burst wait; the edge lets it in at once and refuses what is above",
            );
        }
        notes.differs(limit, "each route counts by itself; refusals are 429");
    }
    good
}

fn connections(scope: &Scope<'_>, zones: &Zones<'_>, guard: &mut Guard, notes: &mut Notes) -> bool {
    let dry = if scope.is_on("limit_conn_dry_run") { ", dry_run: true" } else { "" };
    let mut good = true;
    for limit in scope.all("limit_conn") {
        let most = limit.arg(1).parse::<u32>().ok().filter(|most| *most > 0);
        let key = zones.connections.get(limit.arg(0)).and_then(|zone| key(zone, notes));
        let (Some(most), Some(key)) = (most, key) else {
            notes.refused(limit, "what it counts by has no counterpart");
            good = false;
            continue;
        };
        guard.limits.push(format!("{{ key: {key}, in_flight: {most}{dry} }}"));
        guard.from.limits.push(limit.at.clone());
        notes.differs(limit, "each route counts by itself; refusals are 429");
    }
    good
}

/// `10r/s` as `10/s`.
fn per_time(rate: &str) -> Option<String> {
    let (count, unit) = rate.split_once("r/")?;
    let count: u32 = count.parse().ok().filter(|count| *count > 0)?;
    matches!(unit, "s" | "m").then(|| format!("{count}/{unit}"))
}

/// What a zone counts by.
fn key(zone: &Directive, notes: &mut Notes) -> Option<String> {
    let key = zone.arg(0);
    match key {
        "$binary_remote_addr" | "$remote_addr" => return Some("address".to_owned()),
        "$server_name" | "$host" | "$http_host" | "$server_port" | "$uri" | "$request_uri" => {
            if key != "$server_name" {
                notes.differs(zone, "the edge counts all of a route together");
            }
            return Some("route".to_owned());
        }
        "$remote_user" => {
            notes.differs(zone, "nginx limits no request without a user; here they count together");
            return Some("principal".to_owned());
        }
        _ => {}
    }
    if let Some(name) = key.strip_prefix("$http_") {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || !name.bytes().all(word) {
            return None;
        }
        notes.differs(zone, "nginx limits no request without this field; here they count together");
        return Some(format!("{{ header: {} }}", scalar(&field_name(name))));
    }
    // of what makes an address into several keys, the address alone is the stricter
    if key.contains("$binary_remote_addr") || key.contains("$remote_addr") {
        notes.differs(zone, "the edge counts all requests of an address together");
        return Some("address".to_owned());
    }
    None
}
