//! The last refusal of each kind: in, records of refused requests; out, one example for each code.
//!
//! A count says how often; an example says whom to ask, without a search through the log. Codes are a closed
//! set, so that this is bounded, whatever clients send.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::record::{Record, bounded};

/// An example stands this long before the next of its kind takes its place: a flood costs a look each.
const STANDS: Duration = Duration::from_millis(100);

/// One refused request.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why.
    pub code: &'static str,
    /// When it came in.
    pub at: SystemTime,
    /// The answer's status.
    pub status: u16,
    /// Where it came from.
    pub client: IpAddr,
    /// HTTP method and path, bounded.
    pub request: String,
    /// The route's label; absent where there was none.
    pub route: Option<String>,
    /// The JSON-RPC method, bounded.
    pub rpc_method: Option<String>,
    /// The tool, prompt or resource, bounded.
    pub tool: Option<String>,
    /// What the client was not told, bounded; may be empty.
    pub detail: String,
}

/// The last refusal by code.
#[derive(Debug, Default)]
pub struct Recent(Mutex<HashMap<&'static str, Refusal>>);

impl Recent {
    /// Notes a refusal. Who finds another one at it goes on: that one is as good an example.
    pub(super) fn note(&self, code: &'static str, record: &Record) {
        let Ok(mut last) = self.0.try_lock() else { return };
        let stands = |old: &Refusal| record.at.duration_since(old.at).is_ok_and(|age| age < STANDS);
        if !last.get(code).is_some_and(stands) {
            last.insert(code, Refusal::of(code, record));
        }
    }

    /// All of them, the newest first.
    pub fn all(&self) -> Vec<Refusal> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Refusal> = last.values().cloned().collect();
        all.sort_by_key(|refusal| std::cmp::Reverse(refusal.at));
        all
    }
}

impl Refusal {
    fn of(code: &'static str, record: &Record) -> Self {
        let path = bounded(&record.path);
        let rpc_method = record.rpc_method.as_ref().map(Cow::as_ref);
        Self {
            code,
            at: record.at,
            status: record.status,
            client: record.client,
            request: format!("{} {path}", bounded(record.method.as_str())),
            route: record.route.as_ref().map(|route| route.label.clone()),
            rpc_method: rpc_method.map(|method| bounded(method).to_owned()),
            tool: record.tool.as_ref().map(|tool: &Arc<str>| bounded(tool).to_owned()),
            detail: bounded(&record.detail).to_owned(),
        }
    }
}
