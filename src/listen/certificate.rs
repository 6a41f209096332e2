//! Certificates on disk: in, PEM files; out, a chain with its matching key, names and days.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::settings::Certificate;
use crate::base::files::read;
use crate::base::watch::Watched;

/// A file's value that is only good for some time.
pub(super) trait Dated {
    /// Why it is not good now, as far as days go.
    fn problem(&self) -> Option<String>;
}

/// A reader for watched files. What it reads first may be out of its days; later on it only takes
/// what is good now, so that a bad renewal does not replace a good one.
///
/// After a restart something expired is better than no listener: an expired certificate is told apart
/// by clients themselves, an expired list of revocations lets nobody in, and the renewal of either
/// may come through this very process.
pub(super) fn reader<T: Dated>(
    load: impl Fn(&[PathBuf]) -> Result<T, String> + Send + Sync + 'static,
) -> impl Fn(&[PathBuf]) -> Result<T, String> + Send + Sync + 'static {
    let first = AtomicBool::new(true);
    move |paths| {
        let value = load(paths)?;
        match value.problem() {
            Some(problem) if !first.load(Ordering::Relaxed) => return Err(problem),
            _ => first.store(false, Ordering::Relaxed),
        }
        Ok(value)
    }
}

/// A file with chain and key that is read again when it changes.
///
/// # Errors
/// As [`load`].
pub fn watch_file(path: PathBuf) -> Result<Arc<Watched<Certificate>>, String> {
    let read = reader(|paths: &[PathBuf]| match paths {
        [path] => load(path, path),
        _ => Err("a certificate is one file here".to_owned()),
    });
    Watched::load(vec![path], read)
}

/// Loads a pair of files, chain and key.
///
/// # Errors
/// As [`load`].
pub(super) fn load_pair(paths: &[PathBuf]) -> Result<Certificate, String> {
    let [cert, key] = paths else { return Err("a certificate is two files".to_owned()) };
    load(cert, key)
}

/// Loads a chain and its key and checks that they belong together. Whether it is valid now is asked
/// apart (`Dated::problem`).
///
/// # Errors
/// A sentence that names the file at fault.
pub fn load(cert: &Path, key: &Path) -> Result<Certificate, String> {
    let source = cert.display().to_string();
    let chain = chain(cert)?;
    let leaf = chain.first().ok_or_else(|| format!("`{source}` holds no certificate"))?;
    let (_, leaf) = X509Certificate::from_der(leaf)
        .map_err(|_| format!("the first certificate of `{source}` is not good X.509"))?;
    let (from, until) = (leaf.validity().not_before, leaf.validity().not_after);
    let (names, addresses) = names(&leaf);
    let private = private_key(key)?;
    let key = CertifiedKey::from_der(chain, private, &ring::default_provider())
        .map_err(|e| mismatch(cert, key, &e))?;
    let (starts, expires) = (from.timestamp(), until.timestamp());
    Ok(Certificate { source, names, addresses, starts, expires, key: Arc::new(key) })
}

impl Dated for Certificate {
    fn problem(&self) -> Option<String> {
        let (now, source) = (now(), &self.source);
        if self.expires <= now {
            let on = time_text(self.expires);
            return Some(format!("the certificate `{source}` expired on {on}"));
        }
        if self.starts > now {
            let from = time_text(self.starts);
            return Some(format!("the certificate `{source}` is not valid before {from}"));
        }
        None
    }
}

impl Certificate {
    /// When it expires, as RFC 3339 in UTC.
    pub fn expires_text(&self) -> String {
        time_text(self.expires)
    }

    /// DNS names and addresses in it.
    pub fn all_names(&self) -> Vec<String> {
        self.names.iter().cloned().chain(self.addresses.iter().map(ToString::to_string)).collect()
    }
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(super) fn time_text(seconds: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(seconds) else {
        return seconds.to_string();
    };
    let t = time.to_datetime();
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    let (hour, minute, second) = t.to_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
