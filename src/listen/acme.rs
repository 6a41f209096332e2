//! Certificates that the edge obtains by itself: in, `tls.acme` of a listener; out, what to ask for, and where.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::compile::{Cx, Node};
use crate::base::url;

/// What to ask an ACME directory for (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// DNS names, lower case; the first one names the certificate's file. At least one.
    pub domains: Vec<String>,
    /// Where the directory may write to.
    pub email: Option<String>,
    /// URL of the directory; https.
    pub directory: String,
    /// A PEM file with the CA of the directory's own certificate; absent: the system's CAs.
    pub ca: Option<PathBuf>,
    /// Wait after the first failure; doubles up to [`LONGEST_WAIT`]. Default 1 min.
    pub retry: Duration,
}

impl AcmeSettings {
    /// The first domain: the certificate's name in files, logs and metrics.
    pub fn name(&self) -> &str {
        self.domains.first().map_or("", String::as_str)
    }
}

/// Longest wait between tries. Let's Encrypt takes five failures an hour for a name.
pub const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);
const RETRY: Duration = Duration::from_secs(60);
/// Let's Encrypt's own bound for one certificate.
const MOST_DOMAINS: usize = 100;
const LETSENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Compiles `acme: { domains, email, directory, ca, retry }`; what is wrong is noted in `cx`.
pub fn acme(node: &Node, cx: &mut Cx) -> Option<AcmeSettings> {
    let mut fields = cx.map(node)?;
    let domains = fields.required(cx, "domains", domains);
    let email = fields.optional(cx, "email", |n, cx| cx.parse(n, "a mail address", email));
    let directory =
        fields.required(cx, "directory", |n, cx| cx.parse(n, "the URL of a directory", directory));
    let ca = fields.optional(cx, "ca", |n, cx| {
        let path = cx.file(n)?;
        match super::certificate::chain(&path) {
            Ok(_) => Some(path),
            Err(problem) => {
                cx.error(n, problem);
                None
            }
        }
    });
    let retry = fields.or(cx, "retry", RETRY, |n, cx| cx.period(n));
    fields.finish(cx);
    Some(AcmeSettings { domains: domains?, email, directory: directory?, ca, retry })
}

fn domains(node: &Node, cx: &mut Cx) -> Option<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    let domains = cx.filled_list(node, |n, cx| {
        let domain = cx.parse(n, "a domain", domain)?;
        if seen.contains(&domain) {
            cx.error(n, format!("`{domain}` stands twice"));
        }
        seen.push(domain.clone());
        Some(domain)
    })?;
    if domains.len() > MOST_DOMAINS {
        cx.error(node, format!("one certificate has at most {MOST_DOMAINS} names"));
    }
    Some(domains)
}

/// HTTP-01 (RFC 8555 §8.3) proves single names; a name of a file must not lead elsewhere either.
fn domain(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        return Err(format!("`{text}`: wildcards cannot be had over HTTP; name each domain"));
    }
    let bad = || format!("`{text}` is not a domain such as `mcp.example.com`");
    let host = url::host(text).map_err(|_| bad())?;
    let is_name = host.parse::<std::net::IpAddr>().is_err()
        && host.len() <= 253
        && host.split('.').all(is_label);
    if is_name { Ok(host) } else { Err(bad()) }
}

fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn email(text: &str) -> Result<String, String> {
    let good =
        text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
            && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a mail address")) }
}

fn directory(text: &str) -> Result<String, String> {
    match text {
        "letsencrypt" => return Ok(LETSENCRYPT.to_owned()),
        "letsencrypt_staging" => return Ok(STAGING.to_owned()),
        _ => {}
    }
    let what = "`letsencrypt`, `letsencrypt_staging` or an https URL";
    let (origin, _) = url::split(text).map_err(|_| format!("`{text}`: write {what}"))?;
    if origin.scheme() != "https" {
        return Err(format!("`{text}`: an ACME directory is asked over https (RFC 8555 §6.1)"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_single_dns_names() {
        assert_eq!(domain("Mcp.Example.com").unwrap(), "mcp.example.com");
        for bad in
            ["*.example.com", "192.0.2.1", "::1", "a_b.example", "", "../x", "-a.example", "a..b"]
        {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn directories_are_asked_over_https() {
        assert_eq!(directory("letsencrypt").unwrap(), LETSENCRYPT);
        assert!(directory("https://127.0.0.1:14000/dir").is_ok());
        assert!(directory("http://127.0.0.1:14000/dir").is_err());
        assert!(directory("lets-encrypt").is_err());
    }
}
