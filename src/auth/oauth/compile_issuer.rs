//! One of the `issuers` of a block: in, its node; out, an issuer, and its metadata where they are served.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use sha2::{Digest, Sha256};

use super::claims::{Checks, Waive, without_slash};
use super::compile::word;
use super::discovery::{self, Source};
use super::introspection::{self, Introspection};
use super::issuer::{Issuer, Proof};
use super::provider::{Provider, Times, What};
use super::token;
use crate::base::caller::ServerMetadata;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::defaults;
use crate::base::fetch::{self, Fetch};
use crate::base::fields::Fields;
use crate::base::kept::content;
use crate::base::rate::{Buckets, Rate};

/// Clocks that differ by more are wrong.
const MAX_LEEWAY: Duration = Duration::from_secs(300);
/// Most questions at once.
const MAX_CONCURRENCY: u64 = 1024;

/// What an issuer takes from its block.
pub(super) struct Around<'a> {
    /// The default audience.
    pub(super) resource: Option<&'a str>,
    /// The claims that name callers.
    pub(super) principal: &'a [String],
}

/// What proves the tokens of an issuer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keys,
    Secret,
    Introspection,
}

/// Keys that say something to issuers of some kinds only.
const PLACES: &[(&str, &[Kind])] = &[
    ("algorithms", &[Kind::Keys, Kind::Secret]),
    ("token_types", &[Kind::Keys, Kind::Secret]),
    ("waive", &[Kind::Secret, Kind::Introspection]),
    ("jwks", &[Kind::Keys]),
    ("keep_keys", &[Kind::Keys]),
    ("refresh", &[Kind::Keys]),
    ("metadata", &[Kind::Keys, Kind::Introspection]),
    ("ca", &[Kind::Keys, Kind::Introspection]),
    ("allow_http", &[Kind::Keys, Kind::Introspection]),
    ("serve_metadata", &[Kind::Keys, Kind::Introspection]),
];

pub(super) fn issuer(
    node: &Node,
    around: &Around<'_>,
    cx: &mut Cx,
) -> Option<(Issuer, Option<Arc<dyn ServerMetadata>>)> {
    let mut fields = cx.map(node)?;
    let kind = kind(node, cx);
    let name = fields.required(cx, "issuer", |n, cx| cx.parse(n, "the name of an issuer", word));
    let algorithms = fields.or(cx, "algorithms", default_algorithms(kind), |n, cx| {
        cx.filled_list(n, |n, cx| cx.parse(n, "an algorithm", |text| algorithm(text, kind)))
    });
    let types = fields.or(cx, "token_types", default_types(), |n, cx| {
        cx.filled_list(n, |n, cx| cx.parse(n, "a type such as `at+jwt`", token_type))
    });
    let checks = checks(&mut fields, node, name.clone(), kind, around, cx);
    let (key, asked) = (fields.take("secret"), fields.take("introspection"));
    let place = Place::take(&mut fields, node, name.as_deref(), kind, cx);
    fields.finish(cx);
    let (proof, algorithms) = match (kind, key, asked) {
        (Kind::Secret, Some(n), _) => {
            let key = cx.in_key("secret", |cx| secret(n, &algorithms, cx))?;
            (Proof::Secret(Box::new(key)), algorithms)
        }
        (Kind::Introspection, _, Some(n)) => {
            let asked = cx.in_key("introspection", |cx| introspection(n, place.as_ref(), cx))?;
            (Proof::Introspection(asked), Vec::new())
        }
        _ => (Proof::Keys(place.as_ref()?.provider(node, What::Keys, cx)?), algorithms),
    };
    let server = match (&proof, place.filter(|place| place.serve_metadata)) {
        (_, None) => None,
        (Proof::Keys(provider), _) => Some(provider.clone() as Arc<dyn ServerMetadata>),
        (_, Some(place)) => {
            Some(place.provider(node, What::Metadata, cx)? as Arc<dyn ServerMetadata>)
        }
    };
    Some((Issuer { checks: checks?, proof, algorithms, types }, server))
}

/// What kind of issuer it is; notes what cannot be said of that kind.
fn kind(node: &Node, cx: &mut Cx) -> Kind {
    let (kind, by) = match (line_of(node, "secret"), line_of(node, "introspection")) {
        (Some(_), Some(line)) => {
            cx.error_at(line, "`secret` and `introspection` exclude each other");
            (Kind::Secret, "a `secret`")
        }
        (Some(_), None) => (Kind::Secret, "a `secret`"),
        (None, Some(_)) => (Kind::Introspection, "`introspection`"),
        (None, None) => (Kind::Keys, "published keys"),
    };
    for (key, kinds) in PLACES {
        if let Some(line) = line_of(node, key).filter(|_| !kinds.contains(&kind)) {
            cx.error_at(line, format!("`{key}` says nothing of an issuer with {by}"));
        }
    }
    kind
}

fn line_of(node: &Node, key: &str) -> Option<usize> {
    let NodeKind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(name, ..)| name == key).map(|(_, line, _)| *line)
}

fn checks(
    fields: &mut Fields<'_>,
    node: &Node,
    name: Option<String>,
    kind: Kind,
    around: &Around<'_>,
    cx: &mut Cx,
) -> Option<Checks> {
    let audiences = fields.optional(cx, "audiences", |n, cx| {
        cx.filled_list(n, |n, cx| cx.parse(n, "an audience", word))
    });
    let claim = fields.or(cx, "audience_claim", "aud".to_owned(), |n, cx| {
        cx.parse(n, "the name of a claim", word)
    });
    if claim != "aud" && line_of(node, "audiences").is_none() {
        cx.error(node, format!("`audience_claim: {claim}` needs `audiences`: what it must be"));
    }
    let leeway = fields.or(cx, "leeway", defaults::LEEWAY, |n, cx| {
        let leeway = cx.period_or_none(n)?;
        if leeway > MAX_LEEWAY {
            cx.error(n, "clocks may differ by 5m at most");
        }
        Some(leeway)
    });
    // who is asked itself need not say its name or when to ask again (RFC 7662 §2.2)
    let asked = kind == Kind::Introspection;
    let mut waived = Waive { issuer: asked, audience: false, expiry: asked };
    fields.optional(cx, "waive", |n, cx| {
        cx.filled_list(n, |n, cx| {
            cx.parse(n, "`iss`, `aud` or `exp`", |text| waive(text, kind, &mut waived))
        })
    });
    let audiences = audiences.or_else(|| around.resource.map(|url| vec![url.to_owned()]));
    let audiences = audiences.unwrap_or_default();
    Some(Checks {
        issuer: name?,
        audiences: audiences.iter().map(|text| without_slash(text).to_owned()).collect(),
        audience_claim: claim,
        waive: waived,
        leeway,
        principal: around.principal.to_vec(),
    })
}

fn waive(text: &str, kind: Kind, waived: &mut Waive) -> Result<(), String> {
    match text {
        "aud" => waived.audience = true,
        "iss" if kind == Kind::Secret => waived.issuer = true,
        "exp" if kind == Kind::Secret => waived.expiry = true,
        "iss" | "exp" => {
            return Err(format!("`{text}` can be waived for an issuer with a `secret` alone"));
        }
        _ => return Err(format!("`{text}` cannot be waived: `iss`, `aud` and `exp` can")),
    }
    Ok(())
}

/// Where an issuer publishes what it has to say.
struct Place {
    issuer: String,
    metadata: Vec<Uri>,
    jwks: Option<Uri>,
    ca: Option<PathBuf>,
    allow_http: bool,
    times: Times,
    serve_metadata: bool,
}

impl Place {
    fn take(
        fields: &mut Fields<'_>,
        node: &Node,
        name: Option<&str>,
        kind: Kind,
        cx: &mut Cx,
    ) -> Option<Self> {
        let allow_http = fields.or(cx, "allow_http", false, |n, cx| cx.boolean(n));
        let url = |n: &Node, cx: &mut Cx| cx.parse(n, "a URL", |t| fetch::target(t, allow_http));
        let metadata = fields.optional(cx, "metadata", url);
        let jwks = fields.optional(cx, "jwks", url);
        let ca = fields.optional(cx, "ca", |n, cx| cx.file(n));
        let refresh = fields.or(cx, "refresh", defaults::REFRESH_KEYS, |n, cx| cx.period(n));
        let keep = fields.or(cx, "keep_keys", defaults::KEEP_KEYS, |n, cx| {
            let keep = cx.period(n)?;
            if keep < refresh {
                cx.error(n, "keys cannot be kept for less than `refresh` (default 10m)");
            }
            Some(keep)
        });
        let serve_metadata = fields.or(cx, "serve_metadata", false, |n, cx| cx.boolean(n));
        if kind == Kind::Secret {
            return None;
        }
        let derived = match discovery::urls(name?, allow_http) {
            Ok(urls) => urls,
            Err(problem) => {
                cx.error(node, problem);
                return None;
            }
        };
        let metadata = metadata.map_or(derived, |url| vec![url]);
        let times = Times { refresh, keep };
        let issuer = name?.to_owned();
        Some(Self { issuer, metadata, jwks, ca, allow_http, times, serve_metadata })
    }

    /// What asks it; places that say the same have one in common.
    fn provider(&self, node: &Node, what: What, cx: &mut Cx) -> Option<Arc<Provider>> {
        let Self { issuer, metadata, jwks, ca, allow_http, times, serve_metadata } = self;
        let key = format!(
            "oauth keys {issuer:?} {metadata:?} {jwks:?} {ca:?} {allow_http} {times:?} \
             {serve_metadata} {what:?} {:?}",
            ca.as_deref().map(content)
        );
        let provider = cx.shared(key, |cx| {
            let source = Arc::new(Source {
                issuer: issuer.clone(),
                metadata: metadata.clone(),
                keys: jwks.clone(),
                needs_keys: what == What::Keys,
                needs_metadata: *serve_metadata,
                allow_http: *allow_http,
                fetch: asking(node, ca.as_ref(), fetch::TIME, cx)?,
            });
            let ask = Box::new(move || {
                let source = source.clone();
                Box::pin(async move { source.ask().await }) as _
            });
            Some(Provider::new(issuer, what, *times, ask))
        })?;
        // asked once a second, like files that may have changed
        cx.look_after(provider.clone());
        Some(provider)
    }
}

fn asking(node: &Node, ca: Option<&PathBuf>, time: Duration, cx: &mut Cx) -> Option<Fetch> {
    match Fetch::new(ca.map(PathBuf::as_path), time) {
        Ok(fetch) => Some(fetch),
        Err(problem) => {
            cx.error(node, problem);
            None
        }
    }
}

fn introspection(node: &Node, place: Option<&Place>, cx: &mut Cx) -> Option<Arc<Introspection>> {
    let allow_http = place.is_some_and(|place| place.allow_http);
    let mut fields = cx.map(node)?;
    let url = fields
        .required(cx, "url", |n, cx| cx.parse(n, "a URL", |text| fetch::target(text, allow_http)));
    let client = fields.required(cx, "client_id", |n, cx| cx.parse(n, "a client's name", word));
    let secret = fields.required(cx, "client_secret", |n, cx| hidden(n, 1, cx));
    let cache = fields.or(cx, "cache", defaults::INTROSPECTION_CACHE, period_or_off);
    let negative_cache =
        fields.or(cx, "negative_cache", defaults::INTROSPECTION_NEGATIVE_CACHE, period_or_off);
    let concurrency = fields.or(cx, "concurrency", defaults::INTROSPECTION_CONCURRENCY, |n, cx| {
        cx.integer(n, 1..=MAX_CONCURRENCY)
    });
    let rate = fields
        .optional(cx, "rate", |n, cx| cx.parse(n, "a rate such as `100/s burst 200`", Rate::parse));
    let rate = rate.or_else(|| Rate::parse(defaults::INTROSPECTION_RATE).ok())?;
    let time = fields.or(cx, "timeout", fetch::TIME, |n, cx| cx.period(n));
    fields.finish(cx);
    let (url, client, secret, place) = (url?, client?, secret?, place?);
    // the secret itself is part of what is the same, but its sum does as well
    let key = format!(
        "oauth introspection {:?} {url} {client:?} {:?} {:?} {cache:?} {negative_cache:?} {concurrency} \
         {rate} {time:?} {:?}",
        place.issuer,
        Sha256::digest(&secret),
        place.ca,
        place.ca.as_deref().map(content)
    );
    cx.shared(key, |cx| {
        let settings = introspection::Settings {
            url,
            authorization: introspection::basic(&client, &secret)?,
            cache,
            negative_cache,
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
            rate: Buckets::new(rate, 1),
            fetch: asking(node, place.ca.as_ref(), time, cx)?,
        };
        Some(Introspection::new(&place.issuer, settings))
    })
}

fn period_or_off(node: &Node, cx: &mut Cx) -> Option<Duration> {
    if node.text() == Some("off") { Some(Duration::ZERO) } else { cx.period(node) }
}

/// A secret that must not stand in the config as it is. It is never shown.
fn hidden(node: &Node, least: usize, cx: &mut Cx) -> Option<String> {
    let NodeKind::Scalar { text, written, .. } = &node.kind else {
        cx.expected(node, "`${file:PATH}` or `${env:NAME}`");
        return None;
    };
    if written.is_none() {
        cx.error(
            node,
            "a secret does not belong into the config: write `${file:PATH}` or `${env:NAME}`",
        );
        return None;
    }
    if text.len() < least {
        cx.error(node, format!("the secret has less than {least} bytes"));
        return None;
    }
    Some(text.clone())
}

/// A secret for HMAC, at least as long as the sums that it makes (RFC 7518 §3.2).
fn secret(node: &Node, algorithms: &[Algorithm], cx: &mut Cx) -> Option<DecodingKey> {
    let length = |algorithm: &Algorithm| match algorithm {
        Algorithm::HS512 => 64,
        Algorithm::HS384 => 48,
        _ => 32,
    };
    let least = algorithms.iter().map(length).max().unwrap_or(32);
    Some(DecodingKey::from_secret(hidden(node, least, cx)?.as_bytes()))
}

fn default_algorithms(kind: Kind) -> Vec<Algorithm> {
    if kind == Kind::Secret {
        return vec![Algorithm::HS256];
    }
    [AlgorithmFamily::Rsa, AlgorithmFamily::Ec, AlgorithmFamily::Ed]
        .iter()
        .flat_map(|family| family.algorithms().to_vec())
        .collect()
}

fn algorithm(text: &str, kind: Kind) -> Result<Algorithm, String> {
    let known = token::algorithm(text).ok_or_else(|| {
        format!("`{text}` is not an algorithm that is verified here: RS256, PS256, ES256, EdDSA and their kin are")
    })?;
    match (known.family() == AlgorithmFamily::Hmac, kind == Kind::Secret) {
        (true, false) => Err(format!("`{text}` needs a `secret`")),
        (false, true) => Err(format!("`{text}` is not for a `secret`: HS256, HS384 and HS512 are")),
        _ => Ok(known),
    }
}

/// RFC 9068 §2.1, and what most providers write.
fn default_types() -> Vec<Option<String>> {
    vec![Some("at+jwt".to_owned()), Some("jwt".to_owned()), None]
}

fn token_type(text: &str) -> Result<Option<String>, String> {
    match text {
        "none" => Ok(None),
        text => word(text).map(|text| Some(token::media_type(&text))),
    }
}
