//! Certificates on disk: in, PEM files; out, a chain with its matching key, names and last day.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::settings::Certificate;
use crate::base::files::read;

/// Loads a chain and its key and checks that they belong together and are valid now.
///
/// # Errors
/// A sentence that names the file at fault.
pub fn load(cert: &Path, key: &Path) -> Result<Certificate, String> {
    let shown = cert.display();
    let chain = chain(cert)?;
    let leaf = chain.first().ok_or_else(|| format!("`{shown}` holds no certificate"))?;
    let (_, leaf) = X509Certificate::from_der(leaf)
        .map_err(|_| format!("the first certificate of `{shown}` is not good X.509"))?;
    let now = now();
    let (from, until) = (leaf.validity().not_before, leaf.validity().not_after);
    if until.timestamp() <= now {
        return Err(format!("the certificate `{shown}` expired on {until}"));
    }
    if from.timestamp() > now {
        return Err(format!("the certificate `{shown}` is not valid before {from}"));
    }
    let (names, addresses) = names(&leaf);
    let expires = until.timestamp();
    let private = private_key(key)?;
    let key = CertifiedKey::from_der(chain, private, &ring::default_provider())
        .map_err(|e| mismatch(cert, key, &e))?;
    let source = shown.to_string();
    Ok(Certificate { source, names, addresses, expires, key: Arc::new(key) })
}

/// All certificates of a PEM file; at least one.
///
/// # Errors
/// A sentence that names the file.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(format!("`{shown}` holds no certificate in PEM form")),
        Ok(chain) => Ok(chain),
        Err(e) => Err(format!("`{shown}` is not good PEM: {e}")),
    }
}

/// The first private key of a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = path.display();
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|e| match e {
        PemError::NoItemsFound => {
            format!("`{shown}` holds no private key in PEM form (encrypted keys are not read)")
        }
        e => format!("`{shown}` is not good PEM: {e}"),
    })
}

fn mismatch(cert: &Path, key: &Path, error: &rustls::Error) -> String {
    let (cert, key) = (cert.display(), key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("the key `{key}` does not belong to the certificate `{cert}`")
        }
        e => format!("the key `{key}` cannot be used: {e}"),
    }
}

/// DNS names in lower case, and addresses, of the subject alternative names (RFC 5280 §4.2.1.6).
fn names(leaf: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let Ok(Some(san)) = leaf.subject_alternative_name() else {
        return (names, addresses);
    };
    for name in &san.value.general_names {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                addresses.extend(v4.or(v6).ok());
            }
            _ => {}
        }
    }
    (names, addresses)
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
