//! Who the caller is: in, what `auth` has found; out, the value that sessions are bound to and rules are asked about.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// A caller. Only `auth` makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Name of the method that admitted the caller, such as `anonymous` or `basic`.
    pub method: &'static str,
    /// Who vouches for the subject; empty where the method has no such thing.
    pub issuer: String,
    /// The caller's name at that issuer; empty for `anonymous`.
    pub subject: String,
    /// What people call the caller; often the subject.
    pub name: String,
    /// What else is known of the caller, by name.
    pub metadata: Vec<(String, String)>,
    /// The access token that was shown; absent where another method admitted the caller.
    pub token: Option<Arc<Token>>,
    /// What the caller was let in by, where that can be recognized without the caller: a sum of the line of a
    /// password file. It never leaves the process.
    pub proof: Option<u64>,
    /// When the credential is good no more by which the caller was let in, and streams end that it began. `None`:
    /// nobody has said; of a token, see [`Token::streams_until`].
    pub until: Option<SystemTime>,
}

/// What an access token says, once it was found good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// The protected resource that it was shown to, by its canonical URL (RFC 8707 §2).
    pub resource: String,
    /// What it allows (RFC 6749 §3.3).
    pub scopes: Vec<String>,
    /// All of its claims (RFC 7519 §4), or all of an introspection answer (RFC 7662 §2.2).
    pub claims: Map<String, Value>,
    /// When streams that were opened with it end; `None`: they may outlive it.
    pub streams_until: Option<SystemTime>,
}

impl Token {
    /// A claim by its own name, else by the path to it, such as `realm_access.roles`. A name on the path
    /// may have dots, too.
    pub fn claim(&self, path: &str) -> Option<&Value> {
        claim(&self.claims, path)
    }
}

fn claim<'v>(claims: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(at, _)| {
        let (name, rest) = path.split_at_checked(at)?;
        claim(claims.get(name)?.as_object()?, rest.strip_prefix('.')?)
    })
}

impl Principal {
    /// A caller of whom nothing else is known.
    pub fn new(
        method: &'static str,
        issuer: impl Into<String>,
        subject: impl Into<String>,
    ) -> Self {
        let subject = subject.into();
        let name = subject.clone();
        Self {
            method,
            issuer: issuer.into(),
            subject,
            name,
            metadata: Vec::new(),
            token: None,
            proof: None,
            until: None,
        }
    }

    /// The caller of a route that says `auth: [ anonymous ]`.
    pub fn anonymous() -> Self {
        Self::new("anonymous", "", "")
    }

    /// Whether nothing tells this caller from another.
    pub fn is_anonymous(&self) -> bool {
        self.method == "anonymous"
    }

    /// An unambiguous byte form (fields are length-prefixed), bound into session ids. Name,
    /// metadata, token, proof and end are not in it: a session outlives a change of these.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.issuer.len() + self.subject.len());
        for field in [self.method, &self.issuer, &self.subject] {
            out.extend_from_slice(&(field.len() as u64).to_be_bytes());
            out.extend_from_slice(field.as_bytes());
        }
        out
    }
}
