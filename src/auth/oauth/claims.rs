//! What a token claims (RFC 7519 §4.1, RFC 9068 §2.2, RFC 7662 §2.2): in, claims that are proven to be
//! the issuer's; out, how long they hold and for whom, or what is wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::fault::Fault;

/// Longest name of a caller, in bytes.
const MAX_SUBJECT: usize = 1024;
/// The end of the year 9999: later times are milliseconds, or other mistakes.
const LAST: f64 = 253_402_300_799.0;
/// Claims that ID tokens and logout tokens have (OpenID Connect Core §3.1.3.6, Back-Channel Logout
/// §2.4), and access tokens have not.
const FOREIGN: &[&str] = &["at_hash", "c_hash", "s_hash", "events"];
/// Keycloak's own marks in the payload.
const FOREIGN_TYPES: &[&str] = &["id", "refresh", "offline", "logout", "serialized-id"];

/// What is asked of the claims of one issuer's tokens.
#[derive(Debug, Clone)]
pub(super) struct Checks {
    /// What `iss` must be, to the letter.
    pub(super) issuer: String,
    /// One of these must be in the audience; none ends with a slash.
    pub(super) audiences: Vec<String>,
    /// The claim that names the audience.
    pub(super) audience_claim: String,
    /// What may be absent.
    pub(super) waive: Waive,
    /// How far clocks may differ.
    pub(super) leeway: Duration,
    /// The claims that name the caller.
    pub(super) principal: Vec<String>,
}

/// Claims that may be absent. What is there is checked all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waive {
    pub(super) issuer: bool,
    pub(super) audience: bool,
    pub(super) expiry: bool,
}

/// What claims say that hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Who the caller is.
    pub(super) subject: String,
    /// `exp`.
    pub(super) expires: Option<SystemTime>,
    /// Until when the token is taken: `exp` and the leeway.
    pub(super) until: Option<SystemTime>,
}

impl Checks {
    /// Checks claims.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn check(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Held, Fault> {
        self.check_issuer(claims)?;
        check_purpose(claims)?;
        let expires = time(claims, "exp")?;
        let early = time(claims, "nbf")?;
        time(claims, "iat")?;
        if expires.is_none() && !self.waive.expiry {
            return Err(Fault::NoExpiry);
        }
        let until = expires.map(|expires| expires + self.leeway);
        if until.is_some_and(|until| now >= until) {
            return Err(Fault::Expired);
        }
        if early.is_some_and(|early| now + self.leeway < early) {
            return Err(Fault::Early);
        }
        self.check_audience(claims)?;
        Ok(Held { subject: self.subject(claims)?, expires, until })
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Fault> {
        match claims.get("iss") {
            None if self.waive.issuer => Ok(()),
            Some(Value::String(issuer)) if *issuer == self.issuer => Ok(()),
            _ => Err(Fault::Issuer),
        }
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Fault> {
        let found = texts(claims.get(&self.audience_claim)).map_err(|()| Fault::Claims)?;
        let Some(found) = found else {
            return if self.waive.audience { Ok(()) } else { Err(Fault::Audience) };
        };
        let wanted = |audience: &&str| {
            let audience = without_slash(audience);
            self.audiences.iter().any(|wanted| wanted == audience)
        };
        if found.iter().any(wanted) { Ok(()) } else { Err(Fault::Audience) }
    }

    /// One claim as it is; of several no two lists give the same text.
    fn subject(&self, claims: &Map<String, Value>) -> Result<String, Fault> {
        let text = |name: &String| match claims.get(name) {
            Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_SUBJECT => {
                Ok(text.as_str())
            }
            _ => Err(Fault::Subject),
        };
        if let [only] = self.principal.as_slice() {
            return text(only).map(str::to_owned);
        }
        let parts: Result<Vec<String>, Fault> =
            self.principal.iter().map(|name| text(name).map(escaped)).collect();
        Ok(parts?.join("/"))
    }
}

/// Refuses what an issuer signs for other purposes.
fn check_purpose(claims: &Map<String, Value>) -> Result<(), Fault> {
    if claims.contains_key("cnf") {
        return Err(Fault::Bound);
    }
    if FOREIGN.iter().any(|name| claims.contains_key(*name)) {
        return Err(Fault::Purpose);
    }
    let one_of = |name: &str, words: &[&str]| match claims.get(name) {
        Some(Value::String(text)) => words.iter().any(|word| text.eq_ignore_ascii_case(word)),
        _ => false,
    };
    // Cognito and others say what a token is for; whatever is not access is not for us
    if claims.contains_key("token_use") && !one_of("token_use", &["access", "access_token"]) {
        return Err(Fault::Purpose);
    }
    if one_of("typ", FOREIGN_TYPES) {
        return Err(Fault::Purpose);
    }
    Ok(())
}

/// The scopes of a token (RFC 9068 §2.2.3; `scp` is what Entra ID and Okta call them).
///
/// # Errors
/// They are neither a text nor a list of texts.
pub(super) fn scopes(claims: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    let found = claims.get("scope").or_else(|| claims.get("scp"));
    let found = texts(found).map_err(|()| Fault::Claims)?.unwrap_or_default();
    Ok(found
        .iter()
        .flat_map(|text| text.split(' '))
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect())
}

/// A text, or a list of texts (RFC 7519 §4.1.3).
fn texts(value: Option<&Value>) -> Result<Option<Vec<&str>>, ()> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(vec![text])),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().ok_or(())).collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(()),
    }
}

/// A NumericDate (RFC 7519 §2), which may have a fraction.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|s| s.is_finite() && *s <= LAST).ok_or(Fault::Claims)?;
    // before 1970 is long ago, however long
    let since = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|_| Fault::Claims)?;
    Ok(Some(UNIX_EPOCH + since))
}

/// One slash at the end does not make another resource.
pub(super) fn without_slash(text: &str) -> &str {
    text.strip_suffix('/').unwrap_or(text)
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn checks() -> Checks {
        Checks {
            issuer: "https://a".into(),
            audiences: vec!["https://r/x".into(), "other".into()],
            audience_claim: "aud".into(),
            waive: Waive::default(),
            leeway: Duration::from_secs(30),
            principal: vec!["sub".into()],
        }
    }

    fn good() -> Value {
        json!({ "iss": "https://a", "aud": "https://r/x", "sub": "ann", "exp": NOW + 60 })
    }

    fn ask(checks: &Checks, claims: &Value) -> Result<Held, Fault> {
        checks.check(claims.as_object().unwrap(), UNIX_EPOCH + Duration::from_secs(NOW))
    }

    /// The good claims with another one.
    fn with(name: &str, value: Value) -> Result<Held, Fault> {
        let mut claims = good();
        claims[name] = value;
        ask(&checks(), &claims)
    }

    fn without(name: &str) -> Value {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    #[test]
    fn good_claims_hold() {
        let at = |s| Some(UNIX_EPOCH + Duration::from_secs(s));
        let held = Held { subject: "ann".into(), expires: at(NOW + 60), until: at(NOW + 90) };
        assert_eq!(ask(&checks(), &good()), Ok(held));
        for (name, value) in [
            ("aud", json!(["x", "https://r/x/"])),
            ("aud", json!("https://r/x/")),
            ("aud", json!("other/")),
            ("exp", json!(NOW as f64 - 29.5)),
            ("exp", json!(253_402_300_799u64)),
            ("nbf", json!(NOW + 30)),
            ("nbf", json!(-5)),
            ("iat", json!(1.5)),
            ("typ", json!("Bearer")),
            ("typ", json!(7)),
            ("token_use", json!("access")),
            ("nonce", json!("n")),
        ] {
            assert!(with(name, value.clone()).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn other_claims_do_not() {
        for (name, value, fault) in [
            ("iss", json!("https://a/"), Fault::Issuer),
            ("iss", json!("https://A"), Fault::Issuer),
            ("iss", json!("https://a "), Fault::Issuer),
            ("iss", json!(["https://a"]), Fault::Issuer),
            ("iss", json!(null), Fault::Issuer),
            ("aud", json!("https://r"), Fault::Audience),
            ("aud", json!("https://r/x//"), Fault::Audience),
            ("aud", json!("https://r/xy"), Fault::Audience),
            ("aud", json!("https://r/x/y"), Fault::Audience),
            ("aud", json!("https://R/x"), Fault::Audience),
            ("aud", json!("http://r/x"), Fault::Audience),
            ("aud", json!("https://r/x?"), Fault::Audience),
            ("aud", json!("https://r/x other"), Fault::Audience),
            ("aud", json!(""), Fault::Audience),
            ("aud", json!([]), Fault::Audience),
            ("aud", json!(["https://r/x", 7]), Fault::Claims),
            ("aud", json!({ "https://r/x": 1 }), Fault::Claims),
            ("aud", json!(null), Fault::Claims),
            ("aud", json!([["https://r/x"]]), Fault::Claims),
            ("exp", json!(NOW - 30), Fault::Expired),
            ("exp", json!(0), Fault::Expired),
            ("exp", json!(-1), Fault::Expired),
            ("exp", json!(NOW as f64 - 30.5), Fault::Expired),
            ("exp", json!((NOW + 60).to_string()), Fault::Claims),
            ("exp", json!(null), Fault::Claims),
            ("exp", json!(true), Fault::Claims),
            ("exp", json!([NOW + 60]), Fault::Claims),
            ("exp", json!(1e300), Fault::Claims),
            ("exp", json!((NOW + 60) * 1000), Fault::Claims),
            ("nbf", json!(NOW + 31), Fault::Early),
            ("nbf", json!("0"), Fault::Claims),
            ("nbf", json!(null), Fault::Claims),
            ("iat", json!("now"), Fault::Claims),
            ("sub", json!(""), Fault::Subject),
            ("sub", json!(7), Fault::Subject),
            ("sub", json!(null), Fault::Subject),
            ("sub", json!(["ann"]), Fault::Subject),
            ("sub", json!("x".repeat(1025)), Fault::Subject),
            ("cnf", json!({ "jkt": "x" }), Fault::Bound),
            ("cnf", json!(null), Fault::Bound),
            ("at_hash", json!("x"), Fault::Purpose),
            ("c_hash", json!(null), Fault::Purpose),
            ("events", json!({}), Fault::Purpose),
            ("token_use", json!("id"), Fault::Purpose),
            ("token_use", json!(["access"]), Fault::Purpose),
            ("typ", json!("ID"), Fault::Purpose),
            ("typ", json!("Refresh"), Fault::Purpose),
        ] {
            assert_eq!(with(name, value.clone()), Err(fault), "{name} {value}");
        }
    }

    #[test]
    fn what_is_absent_is_refused_unless_it_is_waived() {
        let all = Waive { issuer: true, audience: true, expiry: true };
        for (name, fault) in
            [("iss", Fault::Issuer), ("aud", Fault::Audience), ("exp", Fault::NoExpiry)]
        {
            let claims = without(name);
            assert_eq!(ask(&checks(), &claims), Err(fault), "{name}");
            assert!(ask(&Checks { waive: all, ..checks() }, &claims).is_ok(), "{name}");
        }
        assert_eq!(ask(&checks(), &without("sub")), Err(Fault::Subject));
        for (name, value) in
            [("iss", json!("b")), ("iss", json!(null)), ("aud", json!([])), ("aud", json!("z"))]
        {
            let mut claims = good();
            claims[name] = value;
            assert!(ask(&Checks { waive: all, ..checks() }, &claims).is_err(), "{name}");
        }
        let mut claims = without("exp");
        claims["nbf"] = json!(NOW + 100);
        assert_eq!(ask(&Checks { waive: all, ..checks() }, &claims), Err(Fault::Early));
    }

    #[test]
    fn the_audience_may_stand_elsewhere() {
        let checks = Checks { audience_claim: "client_id".into(), ..checks() };
        let mut claims = good();
        assert_eq!(ask(&checks, &claims), Err(Fault::Audience));
        claims["client_id"] = json!("other");
        claims["aud"] = json!("whatever");
        assert!(ask(&checks, &claims).is_ok());
    }

    #[test]
    fn several_claims_name_one_caller() {
        let checks = Checks { principal: vec!["tid".into(), "sub".into()], ..checks() };
        let subject = |tid: &str, sub: &str| {
            let mut claims = good();
            claims["tid"] = json!(tid);
            claims["sub"] = json!(sub);
            ask(&checks, &claims).unwrap().subject
        };
        assert_eq!(subject("a", "b"), "a/b");
        assert_ne!(subject("a/b", "c"), subject("a", "b/c"));
        assert_ne!(subject("a%2Fb", "c"), subject("a/b", "c"));
        assert_eq!(ask(&checks, &good()), Err(Fault::Subject));
    }

    #[test]
    fn scopes_are_words_or_lists() {
        let found = |claims: Value| scopes(claims.as_object().unwrap());
        let both = Ok(vec!["a".to_owned(), "b:c".to_owned()]);
        assert_eq!(found(json!({ "scope": "a  b:c " })), both);
        assert_eq!(found(json!({ "scp": ["a", "b:c"] })), both);
        assert_eq!(found(json!({ "scope": ["a b:c"] })), both);
        assert_eq!(found(json!({ "scope": "", "scp": "a" })), Ok(vec![]));
        assert_eq!(found(json!({})), Ok(vec![]));
        for bad in [json!({ "scope": 7 }), json!({ "scope": null }), json!({ "scp": [1] })] {
            assert_eq!(found(bad), Err(Fault::Claims));
        }
    }
}
