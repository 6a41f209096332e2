//! `basic`: in, a name and a password (RFC 7617), and an htpasswd file that is read again when it changes; out,
//! the caller of that name.
//!
//! The way of an attempt: how often its address has failed lately, before anything else; the user's
//! line in the file as it is now; the pair of line and password, if it was right a moment ago; and only
//! then the hash, on a thread of its own (`desk`). A name that is not in the file takes the same way
//! with another's line. A wrong password costs a hash of each kind in the file, whoever was named, so that
//! time does not tell who is in it; a right one costs its own.
//!
//! The limit on failures comes before the cache, too: else an address that is shut out could go on
//! guessing the passwords that are in it, at full speed. So one client that has a wrong password and
//! does not stop shuts out its neighbours behind the same address; `failures` says from when on. Where so
//! many addresses fail that further ones are counted together, passwords that are in the cache go on.

mod cache;
pub mod credentials;
mod desk;
pub mod file;
mod hash;
mod md5_crypt;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::AUTHORIZATION;

use super::{Method, authorization, quoted, realm};
use crate::base::caller::{Authenticate, Client, Later, Shape, Verdict};
use crate::base::cidr::subscriber;
use crate::base::compile::{Cx, Node};
use crate::base::defaults;
use crate::base::denial::{Denial, Reason};
use crate::base::head::Head;
use crate::base::principal::Principal;
use crate::base::rate::{Buckets, Rate, Wait};
use crate::base::watch::{Refresh, Watched};
use cache::Cache;
use credentials::Credentials;
use desk::{Desk, Outcome};
use file::{NAME, User, Users};
use hash::Hash;

/// The table line.
pub(super) const METHOD: Method = Method { name: NAME, compile };

/// Most addresses whose failures are counted apart.
const MAX_ADDRESSES: usize = 16_384;

#[derive(Debug)]
struct Basic {
    file: Arc<Watched<Users>>,
    challenge: HeaderValue,
    /// Shared with the work that is under way.
    memory: Arc<Memory>,
}

/// What methods with the same settings have in common.
#[derive(Debug)]
struct Common {
    file: Arc<Watched<Users>>,
    memory: Arc<Memory>,
}

/// What is remembered of attempts.
#[derive(Debug)]
struct Memory {
    right: Cache,
    /// By who asks, as [`subscriber`] tells.
    failures: Buckets<u128>,
}

fn compile(node: Option<&Node>, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    let mut fields = cx.map(node?)?;
    let realm = fields.or(cx, "realm", defaults::REALM.to_owned(), realm);
    let file = fields.required(cx, "file", |n, cx| Some((n, cx.file(n)?)));
    let failures = fields.optional(cx, "failures", rate);
    let failures = failures.or_else(|| Rate::parse(defaults::AUTH_FAILURES).ok())?;
    let keep = fields.or(cx, "cache", defaults::AUTH_CACHE, |n, cx| {
        if n.text() == Some("off") { Some(Duration::ZERO) } else { cx.period(n) }
    });
    fields.finish(cx);
    let (node, path) = file?;
    // routes that say the same count failures together: more of them are not more guesses
    let key = format!("basic {realm:?} {failures} {keep:?} {}", path.display());
    let issuer = realm.clone();
    let common = cx.in_key("file", |cx| {
        cx.shared(key, |cx| {
            let file = cx.watch_parts(node, vec![path], &realm, move |paths| {
                let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
                Users::read(path, &issuer)
            })?;
            let right = Cache::new(keep).map_err(|problem| cx.error_at(0, problem)).ok()?;
            let failures = Buckets::new(failures, MAX_ADDRESSES);
            Some(Common { file, memory: Arc::new(Memory { right, failures }) })
        })
    })?;
    // it may have been made by the generation before
    common.file.refresh();
    cx.look_after(common.file.clone());
    let challenge = format!("Basic realm={}, charset=\"UTF-8\"", quoted(&realm));
    let challenge = HeaderValue::try_from(challenge).ok()?;
    let Common { file, memory } = &*common;
    Some(Arc::new(Basic { file: file.clone(), challenge, memory: memory.clone() }))
}

fn rate(node: &Node, cx: &mut Cx) -> Option<Rate> {
    cx.parse(node, "a rate such as `10/m burst 10`", Rate::parse)
}

impl Authenticate for Basic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn shapes(&self) -> Vec<Shape> {
        let (header, prefix) = (AUTHORIZATION, String::new());
        vec![Shape { header, scheme: Some("basic"), prefix }]
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        vec![self.challenge.clone()]
    }

    fn again<'a>(
        &'a self,
        head: &'a Head,
        client: &'a Client,
        before: &'a Principal,
    ) -> Verdict<'a> {
        if before.proof.is_none() || authorization(head, "basic").is_none() {
            return self.authenticate(head, client);
        }
        self.line_stands(head, before).map_or_else(
            || Verdict::Refused(wrong().detail("the user's line is gone or another")),
            Verdict::Known,
        )
    }

    fn authenticate<'a>(&'a self, head: &'a Head, client: &'a Client) -> Verdict<'a> {
        let Some(encoded) = authorization(head, "basic") else { return Verdict::Absent };
        let Some(credentials) = Credentials::read(encoded) else {
            let malformed = "The credentials are malformed";
            let reason = Reason::Unauthenticated;
            return Verdict::Refused(Denial::new(reason, "auth.basic.malformed", malformed));
        };
        let address = subscriber(client.address);
        let shut_out = self.memory.failures.peek(&address).err();
        if let Some(wait) = shut_out.filter(|wait| !wait.shared) {
            return Verdict::Refused(limited(wait));
        }
        let users = self.file.fresh();
        let known = users.get(&credentials.user);
        // no name is a line, which has a colon
        let line = known.map_or(&credentials.user, |user| &user.line);
        let code = self.memory.right.code(line, &credentials.password);
        match known {
            Some(user) if self.memory.right.holds(&code, Instant::now()) => {
                Verdict::Known(user.principal.clone())
            }
            _ if let Some(wait) = shut_out => Verdict::Refused(limited(wait)),
            _ => Verdict::Later(self.verify(
                known.cloned(),
                users.besides(known),
                code,
                credentials,
                address,
            )),
        }
    }
}

impl Basic {
    /// Whether the line is there still that let a caller in: its password was verified then.
    fn line_stands(&self, head: &Head, before: &Principal) -> Option<Arc<Principal>> {
        let credentials = Credentials::read(authorization(head, "basic")?)?;
        let users = self.file.current();
        let user = users.get(&credentials.user)?;
        (user.principal.proof == before.proof).then(|| user.principal.clone())
    }

    /// Has the hash made; a wrong password is verified against `others`, too.
    fn verify(
        &self,
        known: Option<User>,
        others: Vec<Hash>,
        code: cache::Code,
        credentials: Credentials,
        address: u128,
    ) -> Later<'_> {
        let memory = self.memory.clone();
        let (is_known, password) = (known.is_some(), credentials.password);
        let own = known.as_ref().map(|user| user.hash.clone());
        let work = move || {
            // before the hash, so that no two threads can spend the last one; a right password gets it
            // back, and whoever comes from there meanwhile must find another
            let room = match memory.failures.take(&address) {
                Ok(room) => room,
                Err(wait) => return Outcome::Limited(wait),
            };
            if !is_right(own.as_ref(), &others, |hash| hash.fits(&password)) {
                return Outcome::Wrong;
            }
            memory.failures.give_back(&address, room);
            memory.right.keep(code, Instant::now());
            Outcome::Right
        };
        Box::pin(async move {
            let outcome = match Desk::shared() {
                Some(desk) => desk.ask((code, address, is_known), work).await,
                None => Outcome::Full,
            };
            verdict(outcome, known)
        })
    }
}

/// Whether the user's own hash fits. If not, the others are asked, too, for the time that it takes.
fn is_right(own: Option<&Hash>, others: &[Hash], mut fits: impl FnMut(&Hash) -> bool) -> bool {
    if own.is_some_and(&mut fits) {
        return true;
    }
    for hash in others {
        std::hint::black_box(fits(hash));
    }
    false
}

fn verdict(outcome: Outcome, known: Option<User>) -> Result<Arc<Principal>, Denial> {
    match (outcome, known) {
        (Outcome::Right, Some(user)) => Ok(user.principal),
        (Outcome::Right | Outcome::Wrong, known) => {
            // a name that is not in the file may be a password in the wrong place
            Err(wrong().detail(match known {
                Some(user) => format!("wrong password for `{}`", user.principal.subject),
                None => "no such user".to_owned(),
            }))
        }
        (Outcome::Limited(wait), _) => Err(limited(wait)),
        (Outcome::Full, _) => {
            let busy = "Too many passwords are being verified";
            Err(Denial::new(Reason::Busy, "auth.basic.busy", busy).retry_after(1))
        }
    }
}

fn wrong() -> Denial {
    let wrong = "The user name or the password is wrong";
    Denial::new(Reason::Unauthenticated, "auth.basic.wrong", wrong)
}

fn limited(wait: Wait) -> Denial {
    let failures = "There were too many failed attempts";
    Denial::new(Reason::Limited, "auth.basic.failures", failures).retry_after(wait.seconds())
}

#[cfg(test)]
mod tests;
