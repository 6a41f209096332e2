//! Where an issuer's keys are (RFC 8414 §3, OpenID Connect Discovery §4): in, its name; out, the URLs at
//! which it may describe itself, and what such a description says.

use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use serde_json::Value;

use super::jwks::KeySet;
use super::provider::Published;
use super::strict;
use crate::base::fetch::{self, Fetch};
use crate::base::url;

/// For metadata and keys together: callers may be waiting.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where what an issuer publishes is asked for.
#[derive(Debug)]
pub(super) struct Source {
    /// The issuer's name.
    pub(super) issuer: String,
    /// Where its metadata may be; the first that fit count.
    pub(super) metadata: Vec<Uri>,
    /// Where its keys are, where the metadata are not to be asked.
    pub(super) keys: Option<Uri>,
    /// Whether keys are needed at all.
    pub(super) needs_keys: bool,
    /// Whether the metadata are needed for themselves.
    pub(super) needs_metadata: bool,
    /// Whether metadata may send us to plain http.
    pub(super) allow_http: bool,
    /// What asks.
    pub(super) fetch: Fetch,
}

impl Source {
    /// Asks for all of it. To be awaited on the thread of [`fetch::spawn`].
    pub(super) async fn ask(&self) -> Result<Published, String> {
        let late = |_| format!("no whole answer within {} s", PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, self.ask_all()).await.map_err(late)?
    }

    async fn ask_all(&self) -> Result<Published, String> {
        let mut published = Published::default();
        let mut keys = self.keys.clone();
        if self.needs_metadata || keys.is_none() {
            let (metadata, found) = self.describe().await?;
            published.metadata = Some(metadata);
            keys = keys.or(found);
        }
        if self.needs_keys {
            let url = keys.ok_or("the metadata have no `jwks_uri`")?;
            let document = self.fetch.get(&url).await?;
            published.keys = KeySet::parse(&document).map_err(|why| format!("{url}: {why}"))?;
            published.keys_document = document;
        }
        Ok(published)
    }

    /// The metadata, and where they say that the keys are.
    async fn describe(&self) -> Result<(Bytes, Option<Uri>), String> {
        let mut problems = Vec::new();
        for url in &self.metadata {
            let found = match self.fetch.get(url).await {
                Ok(bytes) => read(&bytes, &self.issuer, self.allow_http)
                    .map(|keys| (bytes, keys))
                    .map_err(|why| format!("{url}: {why}")),
                Err(why) => Err(why),
            };
            match found {
                // one of the two documents of a provider may lack what the other has
                Ok((_, None)) if self.needs_keys && self.keys.is_none() => {
                    problems.push(format!("{url}: no `jwks_uri`"));
                }
                Ok(found) => return Ok(found),
                Err(why) => problems.push(why),
            }
        }
        Err(problems.join("; "))
    }
}

/// The URLs of an issuer's metadata, the likeliest first.
///
/// # Errors
/// The issuer is no URL that may be asked.
pub(super) fn urls(issuer: &str, allow_http: bool) -> Result<Vec<Uri>, String> {
    let target = fetch::target(issuer, allow_http)?;
    if target.query().is_some() {
        return Err(format!("`{issuer}` has a query: an issuer has none (RFC 8414 §2)"));
    }
    let (_, path) = url::split(issuer)?;
    let origin = issuer.strip_suffix(path).unwrap_or(issuer);
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut texts = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}{path}/.well-known/openid-configuration"),
    ];
    if !path.is_empty() {
        texts.push(format!("{origin}/.well-known/openid-configuration{path}"));
    }
    texts.iter().map(|text| fetch::target(text, allow_http)).collect()
}

/// Reads a description: the URL of the keys, where it names one.
///
/// # Errors
/// It is not that of this issuer, or it sends us to a place that we do not go to.
pub(super) fn read(bytes: &[u8], issuer: &str, allow_http: bool) -> Result<Option<Uri>, String> {
    let document = strict::object(bytes).ok_or("the metadata are not a JSON object")?;
    match document.get("issuer") {
        // RFC 8414 §3.3: to the letter, or anybody could speak for anybody
        Some(Value::String(found)) if found == issuer => {}
        Some(Value::String(found)) => {
            let found: String = found.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(format!("the metadata are those of `{found}`"));
        }
        _ => return Err("the metadata have no `issuer`".to_owned()),
    }
    match document.get("jwks_uri") {
        None => Ok(None),
        Some(Value::String(text)) => fetch::target(text, allow_http).map(Some),
        Some(_) => Err("`jwks_uri` is not a text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_looked_for_where_providers_put_them() {
        let urls = |issuer| -> Vec<String> {
            self::urls(issuer, false).unwrap().iter().map(ToString::to_string).collect()
        };
        let plain = [
            "https://a.example/.well-known/oauth-authorization-server",
            "https://a.example/.well-known/openid-configuration",
        ];
        assert_eq!(urls("https://a.example"), plain);
        assert_eq!(urls("https://a.example/"), plain);
        let deep = [
            "https://a.example/.well-known/oauth-authorization-server/realms/x",
            "https://a.example/realms/x/.well-known/openid-configuration",
            "https://a.example/.well-known/openid-configuration/realms/x",
        ];
        assert_eq!(urls("https://a.example/realms/x"), deep);
        assert_eq!(urls("https://a.example/realms/x/"), deep);
        for bad in ["a", "http://a", "https://a?x", "https://a/#x", "https://u@a"] {
            assert!(self::urls(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_description_is_that_of_its_issuer() {
        let read = |text: &str| read(text.as_bytes(), "https://a", false);
        let keys = read(r#"{"issuer":"https://a","jwks_uri":"https://keys.a/k"}"#).unwrap();
        assert_eq!(keys.unwrap(), "https://keys.a/k");
        assert_eq!(read(r#"{"issuer":"https://a"}"#), Ok(None));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"issuer":"https://a/","jwks_uri":"https://a/k"}"#,
            r#"{"issuer":"https://b","issuer":"https://a"}"#,
            r#"{"issuer":["https://a"]}"#,
            r#"{"issuer":"https://a","jwks_uri":"http://a/k"}"#,
            r#"{"issuer":"https://a","jwks_uri":"file:///etc/passwd"}"#,
            r#"{"issuer":"https://a","jwks_uri":7}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
