//! One issuer of a block: in, a token; out, whose it is, or what is wrong with it.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::cache::{Moment, Sum};
use super::claims::{Checks, Held};
use super::fault::Fault;
use super::introspection::{Introspection, Outcome};
use super::provider::{self, Down, Provider};
use super::token::Token;
use super::verify;

/// An issuer and what is asked of its tokens.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) checks: Checks,
    pub(super) proof: Proof,
    /// Algorithms that it may sign with; none where it is asked itself.
    pub(super) algorithms: Vec<Algorithm>,
    /// Types that its tokens may have; `None` stands for tokens without one.
    pub(super) types: Vec<Option<String>>,
}

/// What proves that a token is its own.
#[derive(Debug)]
pub(super) enum Proof {
    /// A signature by one of its keys.
    Keys(Arc<Provider>),
    /// A signature by a secret that is shared with it.
    Secret(Box<DecodingKey>),
    /// Its own word.
    Introspection(Arc<Introspection>),
}

/// Claims that are proven and hold.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) held: Held,
    pub(super) claims: Map<String, Value>,
    /// The generation of the keys that prove it.
    pub(super) generation: u64,
    /// When the issuer is to be asked again.
    pub(super) fresh: Option<std::time::Instant>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is bad.
    Bad(Fault),
    /// Nobody knows; a retry makes sense after so many seconds.
    Unknown(u32),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Bad(fault)
    }
}

impl From<Down> for Refusal {
    fn from(Down: Down) -> Self {
        Self::Unknown(provider::RETRY)
    }
}

impl Issuer {
    /// For `check`.
    pub(super) fn described(&self) -> String {
        let by = match &self.proof {
            Proof::Keys(_) => "published keys",
            Proof::Secret(_) => "a shared secret",
            Proof::Introspection(_) => "introspection",
        };
        format!("{} ({by})", self.checks.issuer)
    }

    /// Whether what was proven by keys of this generation still is.
    pub(super) fn holds(&self, generation: u64, now: Moment) -> bool {
        match &self.proof {
            Proof::Keys(provider) => provider.holds(generation, now.steady),
            // a secret is as old as the config; what an issuer has said ends by itself
            Proof::Secret(_) | Proof::Introspection(_) => true,
        }
    }

    /// Judges a signed token by what is known; `None` where the issuer has to be asked first. For a
    /// token that would be refused anyway nobody is asked.
    pub(super) fn judge(&self, token: &Token<'_>, now: Moment) -> Option<Result<Proven, Refusal>> {
        if let Err(fault) = self.check_head(token) {
            return Some(Err(fault.into()));
        }
        let signed = self.check_signature(token, now);
        let held = self.checks.check(&token.claims, now.wall);
        match (signed, held) {
            (Some(Err(fault)), _) | (Some(Ok(_)) | None, Err(fault)) => Some(Err(fault.into())),
            (Some(Ok(generation)), Ok(held)) => {
                Some(Ok(Proven { held, claims: token.claims.clone(), generation, fresh: None }))
            }
            (None, Ok(_)) => None,
        }
    }

    fn check_head(&self, token: &Token<'_>) -> Result<(), Fault> {
        if !self.algorithms.contains(&token.head.algorithm) {
            return Err(Fault::Algorithm);
        }
        if !self.types.contains(&token.head.kind) {
            return Err(Fault::Type);
        }
        Ok(())
    }

    fn check_signature(&self, token: &Token<'_>, now: Moment) -> Option<Result<u64, Fault>> {
        let (head, message, signature) = (&token.head, token.message, token.signature);
        match &self.proof {
            Proof::Keys(provider) => {
                let (published, generation) = provider.current(now.steady)?;
                let verdict = published.keys.verify(head, message, signature)?;
                Some(verdict.map(|()| generation))
            }
            Proof::Secret(key) => {
                let fits = verify::fits(message, signature, key, head.algorithm);
                Some(if fits { Ok(0) } else { Err(Fault::Signature) })
            }
            // a signed token of an issuer that is asked itself
            Proof::Introspection(_) => None,
        }
    }

    /// The same, once the issuer was asked for its keys.
    pub(super) async fn judge_again(
        &self,
        token: &Token<'_>,
        now: Moment,
    ) -> Result<Proven, Refusal> {
        if let Proof::Keys(provider) = &self.proof {
            provider.ask(now.steady).await?;
        }
        self.judge(token, now).unwrap_or(Err(Fault::Key.into()))
    }

    /// Asks the issuer of a token that only it can read.
    pub(super) async fn introspect(
        &self,
        token: &str,
        sum: Sum,
        now: Moment,
    ) -> Result<Proven, Refusal> {
        let Proof::Introspection(introspection) = &self.proof else {
            return Err(Fault::Format.into());
        };
        self.heard(introspection.ask(sum, token, now.steady).await, now)
    }

    /// What it said of a token a moment ago.
    pub(super) fn heard_before(&self, sum: &Sum, now: Moment) -> Option<Result<Proven, Refusal>> {
        let Proof::Introspection(introspection) = &self.proof else { return None };
        let outcome = introspection.known(sum, now.steady)?;
        Some(self.heard(outcome, now))
    }

    fn heard(&self, outcome: Outcome, now: Moment) -> Result<Proven, Refusal> {
        let (claims, fresh) = match outcome {
            Outcome::Active(claims, fresh) => (claims, fresh),
            Outcome::Inactive => return Err(Fault::Inactive.into()),
            Outcome::Unknown(seconds) => return Err(Refusal::Unknown(seconds)),
        };
        check_token_type(&claims)?;
        let held = self.checks.check(&claims, now.wall)?;
        Ok(Proven { held, claims: (*claims).clone(), generation: 0, fresh: Some(fresh) })
    }
}

/// RFC 7662 §2.2: a `DPoP` token, say, is not one to be shown as Bearer.
fn check_token_type(claims: &Map<String, Value>) -> Result<(), Fault> {
    match claims.get("token_type") {
        None => Ok(()),
        Some(Value::String(kind))
            if ["bearer", "access_token"].iter().any(|known| kind.eq_ignore_ascii_case(known)) =>
        {
            Ok(())
        }
        Some(_) => Err(Fault::Type),
    }
}
