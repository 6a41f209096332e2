//! One order at an ACME directory (RFC 8555 §7.4): in, names; out, chain and key in PEM.

use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Error,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};

use super::store::{Challenge, Store};
use crate::base::text::one_line;
use crate::base::{files, keep};
use crate::listen::acme::AcmeSettings;

/// How a directory is asked whether it is ready.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).timeout(Duration::from_secs(120));

/// Obtains a certificate for all domains.
///
/// # Errors
/// A sentence that says what the directory did not like, or what failed on the way.
pub(super) async fn obtain(settings: &AcmeSettings, store: &Store) -> Result<String, String> {
    let names: Vec<Identifier> = settings.domains.iter().cloned().map(Identifier::Dns).collect();
    let new = NewOrder::new(&names);
    let mut order = match account(settings, store).await?.new_order(&new).await {
        Err(Error::Api(problem)) if is_forgotten(&problem) => {
            log::warn!("ACME: {} does not know our account: another is made", settings.directory);
            create_account(settings, store).await?.new_order(&new).await
        }
        order => order,
    }
    .map_err(said)?;
    // the answers lie there until the order is through
    let challenges = answer_challenges(&mut order, store).await?;
    let status = order.poll_ready(&POLLING).await.map_err(said);
    drop(challenges);
    match status {
        Ok(OrderStatus::Ready) => {}
        Ok(status) => return Err(reasons(&mut order, &format!("the order is {status:?}")).await),
        Err(problem) => return Err(reasons(&mut order, &problem).await),
    }
    let key = order.finalize().await.map_err(said)?;
    let chain = order.poll_certificate(&POLLING).await.map_err(said)?;
    Ok(chain + &key)
}

/// The account that is kept for this directory, or a new one.
async fn account(settings: &AcmeSettings, store: &Store) -> Result<Account, String> {
    let path = store.account(&settings.directory);
    let Some(kept) = keep::read_private(&path)? else {
        return create_account(settings, store).await;
    };
    let kept: AccountCredentials = serde_json::from_str(&kept)
        .map_err(|_| format!("`{}` is damaged: remove it", path.display()))?;
    builder(settings)?.from_credentials(kept).await.map_err(said)
}

fn builder(settings: &AcmeSettings) -> Result<AccountBuilder, String> {
    match &settings.ca {
        Some(ca) => {
            // the library opens it by itself, and would wait for a pipe
            files::read(ca)?;
            Account::builder_with_root(ca).map_err(said)
        }
        None => Account::builder().map_err(said),
    }
}

/// A new account, kept in the place of any other.
async fn create_account(settings: &AcmeSettings, store: &Store) -> Result<Account, String> {
    let contact = settings.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let created = builder(settings)?.create(&new, settings.directory.clone(), None).await;
    let (account, credentials) = created.map_err(said)?;
    let text = serde_json::to_string(&credentials).map_err(|e| e.to_string())?;
    keep::replace_private(&store.account(&settings.directory), &text)?;
    Ok(account)
}

/// RFC 8555 §6.7: private directories lose their accounts when they are set up anew.
fn is_forgotten(problem: &Problem) -> bool {
    problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

/// Lays out an answer for each name that is not proven yet, and tells the directory to look.
async fn answer_challenges(order: &mut Order, store: &Store) -> Result<Vec<Challenge>, String> {
    let mut laid_out = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(said)?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(format!("an authorization is {status:?}")),
        }
        let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) else {
            return Err("the directory does not offer HTTP-01".to_owned());
        };
        let answer = challenge.key_authorization();
        laid_out.push(store.challenge(&challenge.token, answer.as_str())?);
        challenge.set_ready().await.map_err(said)?;
    }
    Ok(laid_out)
}

/// Why the directory did not find what it looked for: only the challenges tell.
async fn reasons(order: &mut Order, otherwise: &str) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let errors = authorization.challenges.iter().filter_map(|c| c.error.as_ref());
        reasons.extend(errors.map(|problem| bounded(&problem.to_string())));
    }
    if reasons.is_empty() { otherwise.to_owned() } else { reasons.join("; ") }
}

fn said(error: Error) -> String {
    bounded(&chain(&error))
}

/// An error with all its causes: the outer ones often say no more than that there are inner ones.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        // some repeat their cause
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}

/// A directory's words go into a log.
fn bounded(text: &str) -> String {
    one_line(text).chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, Option<Box<Outer>>);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|inner| inner as _)
        }
    }

    #[test]
    fn causes_are_told_each_once() {
        let refused = Outer("connection refused", None);
        let tcp = Outer("tcp: connection refused", Some(Box::new(refused)));
        let client = Outer("client error (Connect)", Some(Box::new(tcp)));
        assert_eq!(chain(&client), "client error (Connect): tcp: connection refused");
    }
}
