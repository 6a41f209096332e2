//! `oauth`, by which a route is a protected resource as MCP's authorization wants it: in, an access token of an
//! identity provider (RFC 6750, RFC 8725, RFC 9068); out, the caller whom it names.
//!
//! The way of a token: whether it is of a shape that is taken here; the cache of tokens that were good
//! a moment ago; its issuer by an exact `iss`, which only chooses; head, signature and claims by what
//! that issuer's block says. Nobody is asked on the way, unless keys are missing or only the issuer can
//! read the token. What cannot be known is a 503, so that no client throws a good token away.

pub mod challenge;
mod cache;
mod claims;
mod compile;
mod compile_issuer;
mod discovery;
mod fault;
pub mod introspection;
mod issuer;
pub mod jwks;
mod outage;
mod provider;
mod scopes;
mod strict;
#[cfg(test)]
#[path = "../../../tests/e2e/support/signer.rs"]
mod signer;
pub mod token;
mod verify;
mod weight;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::Value;

use super::{Method, authorization};
use crate::base::caller::{Authenticate, Chain, Client, Resource, Shape, Verdict};
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::principal::{Principal, Token as Shown};
use crate::base::rules::Rule;
use cache::{Cache, Entry, Moment, Sum};
use challenge::{Challenge, Error};
pub(super) use fault::EXPIRED;
use fault::Fault;
use issuer::{Issuer, Proof, Proven, Refusal};
use scopes::Scopes;
use token::Token;

/// Its name in configs.
pub(super) const NAME: &str = "oauth";
/// The table line.
pub(super) const METHOD: Method = Method { name: NAME, compile: compile::compile };

/// Claims that people call the caller by, the nicest first.
const NAMES: &[&str] = &["preferred_username", "name", "email"];
/// Claims that are worth naming everywhere.
const METADATA: &[&str] = &["client_id", "azp", "email", "tid", "tenant", "org_id"];

/// The tokens of one protected resource.
#[derive(Debug)]
struct OAuth {
    resource: Arc<Resource>,
    issuers: Vec<Issuer>,
    scopes: Arc<Scopes>,
    /// How long streams outlive their token; `None`: for ever.
    stream_grace: Option<Duration>,
    /// Outlives reloads that change nothing of the block.
    cache: Arc<Cache>,
}

impl Authenticate for OAuth {
    fn name(&self) -> &'static str {
        NAME
    }

    fn described(&self) -> String {
        let issuers: Vec<String> = self.issuers.iter().map(Issuer::described).collect();
        format!("{NAME} for {}, by {}", self.resource.url, issuers.join(", "))
    }

    /// Every Bearer token where one issuer reads its tokens itself, else what begins as JWTs do.
    fn shapes(&self) -> Vec<Shape> {
        let prefix = if self.reader().is_some() { "" } else { "eyJ" };
        vec![Shape { header: AUTHORIZATION, scheme: Some("bearer"), prefix: prefix.to_owned() }]
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        vec![self.challenge().plain()]
    }

    fn rule(&self) -> Option<Arc<dyn Rule>> {
        Some(self.scopes.clone())
    }

    fn protects(&self) -> Option<Arc<Resource>> {
        Some(self.resource.clone())
    }

    fn authenticate<'a>(&'a self, head: &'a Head, _: &'a Client) -> Verdict<'a> {
        let Some(sent) = authorization(head, "bearer") else { return Verdict::Absent };
        if self.reader().is_none() && !sent.starts_with(b"eyJ") {
            return Verdict::Absent;
        }
        if is_doubled(head) {
            return Verdict::Refused(malformed(self.challenge()));
        }
        if sent.len() > token::MAX_TOKEN {
            return Verdict::Refused(self.refused(Fault::Format.into()));
        }
        self.look(sent, Moment::now())
    }
}

impl OAuth {
    fn challenge(&self) -> &Challenge {
        &self.scopes.challenge
    }

    fn look<'a>(&'a self, sent: &'a [u8], now: Moment) -> Verdict<'a> {
        let sum = cache::sum(sent);
        let holds = |(issuer, generation): (usize, u64)| {
            self.issuers.get(issuer).is_some_and(|issuer| issuer.holds(generation, now))
        };
        if let Some(principal) = self.cache.get(&sum, now, holds) {
            return Verdict::Known(principal);
        }
        // only now: what is in the cache is well-formed, and to look at every byte takes as long as the sum
        let token = match std::str::from_utf8(sent) {
            Ok(token) if token::is_well_formed(sent) => token,
            _ => return Verdict::Refused(malformed(self.challenge())),
        };
        match self.judge(token, sum, now) {
            Ok(Judged::Good(principal)) => Verdict::Known(principal),
            Ok(Judged::Keys(at, parts)) => Verdict::Later(Box::pin(async move {
                let issuer = self.issuer(at).map_err(|refusal| self.refused(refusal))?;
                let proven = issuer.judge_again(&parts, now).await;
                self.settle(at, token, sum, proven).map_err(|refusal| self.refused(refusal))
            })),
            Ok(Judged::Opaque(at)) => Verdict::Later(Box::pin(async move {
                let issuer = self.issuer(at).map_err(|refusal| self.refused(refusal))?;
                let proven = issuer.introspect(token, sum, now).await;
                self.settle(at, token, sum, proven).map_err(|refusal| self.refused(refusal))
            })),
            Err(refusal) => Verdict::Refused(self.refused(refusal)),
        }
    }

    /// What can be said at once.
    fn judge<'t>(&self, token: &'t str, sum: Sum, now: Moment) -> Result<Judged<'t>, Refusal> {
        if !token::is_jwt_shaped(token.as_bytes()) {
            let at = self.reader().ok_or(Fault::Format)?;
            return self.judge_opaque(at, token, sum, now);
        }
        let alone = self.reader().filter(|_| self.issuers.len() == 1);
        let parts = match (token::read(token), alone) {
            (Ok(parts), Some(at)) if !parts.claims.contains_key("iss") => {
                return self.judge_opaque(at, token, sum, now);
            }
            (Ok(parts), _) => parts,
            // its issuer may read it all the same; nobody else is shown it
            (Err(Fault::Encrypted | Fault::Algorithm | Fault::Critical), Some(at))
                if token::may_be_of(token, &self.issuer(at)?.checks.issuer) =>
            {
                return self.judge_opaque(at, token, sum, now);
            }
            (Err(fault), _) => return Err(fault.into()),
        };
        let at = self.choose(&parts).ok_or(Fault::Issuer)?;
        let issuer = self.issuer(at)?;
        if matches!(issuer.proof, Proof::Introspection(_)) {
            return self.judge_opaque(at, token, sum, now);
        }
        match issuer.judge(&parts, now) {
            None => Ok(Judged::Keys(at, parts)),
            Some(proven) => self.settle(at, token, sum, proven).map(Judged::Good),
        }
    }

    /// A token that only its issuer can read, which may have done so a moment ago.
    fn judge_opaque<'t>(
        &self,
        at: usize,
        token: &'t str,
        sum: Sum,
        now: Moment,
    ) -> Result<Judged<'t>, Refusal> {
        match self.issuer(at)?.heard_before(&sum, now) {
            None => Ok(Judged::Opaque(at)),
            Some(proven) => self.settle(at, token, sum, proven).map(Judged::Good),
        }
    }

    /// The issuer whose name a token has. This only chooses what the token is held against.
    fn choose(&self, token: &Token<'_>) -> Option<usize> {
        let named = match token.claims.get("iss") {
            Some(Value::String(name)) => Some(name),
            None => None,
            Some(_) => return None,
        };
        let reads = |issuer: &Issuer| matches!(issuer.proof, Proof::Introspection(_));
        let fits = |issuer: &Issuer| match named {
            Some(name) => issuer.checks.issuer == *name,
            None => issuer.checks.waive.issuer && !reads(issuer),
        };
        // who can be read without a question goes first
        let by_itself = self.issuers.iter().position(|issuer| fits(issuer) && !reads(issuer));
        by_itself.or_else(|| self.issuers.iter().position(fits))
    }

    fn issuer(&self, at: usize) -> Result<&Issuer, Refusal> {
        self.issuers.get(at).ok_or(Refusal::Bad(Fault::Issuer))
    }

    /// The one issuer that reads its tokens itself.
    fn reader(&self) -> Option<usize> {
        self.issuers.iter().position(|issuer| matches!(issuer.proof, Proof::Introspection(_)))
    }

    /// Makes a principal of what was proven, and remembers it.
    fn settle(
        &self,
        at: usize,
        token: &str,
        sum: Sum,
        proven: Result<Proven, Refusal>,
    ) -> Result<Arc<Principal>, Refusal> {
        let Proven { held, claims, generation, fresh } = proven?;
        let text = |name: &&str| match claims.get(*name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let name = NAMES.iter().find_map(text).unwrap_or_else(|| held.subject.clone());
        let named = |name: &&str| Some(((*name).to_owned(), text(name)?));
        let metadata = METADATA.iter().filter_map(named).collect();
        let scopes = claims::scopes(&claims)?;
        let weight = token.len() + weight::of(&claims);
        let end = |expires| self.stream_grace.map(|grace| expires + grace);
        let shown = Shown {
            resource: self.resource.url.clone(),
            scopes,
            streams_until: held.expires.and_then(end),
            claims,
        };
        let principal = Arc::new(Principal {
            method: NAME,
            issuer: self.issuer(at)?.checks.issuer.clone(),
            subject: held.subject,
            name,
            metadata,
            token: Some(Arc::new(shown)),
            proof: None,
            until: None,
        });
        let entry = Entry {
            principal: principal.clone(),
            until: held.until,
            fresh,
            proof: (at, generation),
        };
        self.cache.keep(sum, weight, entry);
        Ok(principal)
    }

    fn refused(&self, refusal: Refusal) -> Denial {
        match refusal {
            Refusal::Bad(fault) => invalid(self.challenge(), fault.code(), fault.says()),
            Refusal::Unknown(seconds) => unavailable(seconds),
        }
    }
}

/// The refusal of a Bearer token that has the shape of no method, where tokens are taken at all.
pub(super) fn nobodys(chain: &Chain, head: &Head) -> Option<Denial> {
    chain.resource.as_ref()?;
    let token = authorization(head, "bearer")?;
    let plain = chain.challenges.first()?;
    let (reason, error, fault) = if token::is_well_formed(token) {
        (Reason::Unauthenticated, Error::InvalidToken, (Fault::Format.code(), Fault::Format.says()))
    } else {
        (Reason::Malformed, Error::InvalidRequest, MALFORMED)
    };
    let (code, says) = fault;
    let denial = Denial::new(reason, code, says);
    Some(denial.field(WWW_AUTHENTICATE, challenge::with_error(plain, error, says)))
}

/// What can be said of a token at once.
enum Judged<'t> {
    Good(Arc<Principal>),
    /// Its issuer has to be asked for its keys.
    Keys(usize, Token<'t>),
    /// Its issuer has to be asked what it is.
    Opaque(usize),
}

/// Whether a token stands in the query, too (RFC 6750 §2: clients must use one method). That one is
/// never looked at; that it is there is enough.
fn is_doubled(head: &Head) -> bool {
    let is_token = |pair: &str| pair == "access_token" || pair.starts_with("access_token=");
    head.query.as_ref().is_some_and(|query| query.split('&').any(is_token))
}

fn invalid(challenge: &Challenge, code: &'static str, says: &'static str) -> Denial {
    Denial::new(Reason::Unauthenticated, code, says)
        .field(WWW_AUTHENTICATE, challenge.error(Error::InvalidToken, says))
}

/// Code and words for a request that is not one by RFC 6750 §2.
const MALFORMED: (&str, &str) =
    ("auth.oauth.malformed", "The request must carry one well-formed token, in its header");

fn malformed(challenge: &Challenge) -> Denial {
    let (code, says) = MALFORMED;
    Denial::new(Reason::Malformed, code, says)
        .field(WWW_AUTHENTICATE, challenge.error(Error::InvalidRequest, says))
}

/// Nobody knows whether the token is good.
fn unavailable(seconds: u32) -> Denial {
    let says = "The identity provider cannot be asked at present";
    Denial::new(Reason::Busy, "auth.oauth.provider", says).retry_after(seconds)
}
