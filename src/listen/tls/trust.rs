//! Whose clients are believed: in, files of CAs and of revocations; out, what checks a certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use super::peer;
use crate::base::files::read_up_to;
use crate::listen::certificate::{Dated, chain, now, time_text};

/// Largest file of revocations, in bytes: some 400,000 entries.
const MAX_CRL: u64 = 16 << 20;

/// CAs and revocations, as the files said at one time.
#[derive(Debug)]
pub struct Trust {
    /// Checks certificates by them.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// The days of the file of revocations.
    pub(super) revocations: Option<Days>,
}

/// The days of a file of revocations, by the list that is too old first; in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Days {
    pub(super) file: PathBuf,
    /// When it was made.
    pub(super) from: i64,
    /// When the next one is due.
    pub(super) due: i64,
}

impl Trust {
    /// Loads a file of CAs and, where there is a second path, one of revocations. Then there must be
    /// a list of each CA in a client's chain that is not too old (as with nginx), or nobody comes in.
    ///
    /// # Errors
    /// A sentence that names the file at fault.
    pub(super) fn load(paths: &[PathBuf], required: bool) -> Result<Self, String> {
        let (ca, crl) = match paths {
            [ca] => (ca, None),
            [ca, crl] => (ca, Some(crl)),
            _ => return Err("expected a file of CAs, and one of revocations".to_owned()),
        };
        let (roots, subjects) = roots(ca)?;
        let provider = Arc::new(ring::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .enforce_revocation_expiration();
        let mut days = None;
        if let Some(path) = crl {
            let lists = revocations(path)?;
            if let Some((_, name)) = subjects.iter().find(|(raw, _)| !lists.issuers.contains(raw)) {
                return Err(format!("`{}` holds no list of the CA `{name}`", path.display()));
            }
            builder = builder.with_crls(lists.all);
            days = Some(Days { file: path.clone(), from: lists.from, due: lists.due });
        }
        if !required {
            builder = builder.allow_unauthenticated();
        }
        let shown = crl.unwrap_or(ca).display();
        let verifier = builder.build().map_err(|e| format!("`{shown}` cannot be used: {e}"))?;
        Ok(Self { verifier, revocations: days })
    }
}

impl Trust {
    /// Whether a client that has shown these, its own first, is believed at this moment.
    pub fn believes(&self, shown: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, between)) = shown.split_first() else { return false };
        self.verifier.verify_client_cert(leaf, between, UnixTime::now()).is_ok()
    }

    /// The next time, in seconds since 1970 and later than `after`, at which a client that has shown these may be
    /// believed no more though nothing has changed: a certificate has expired, or the revocations are too old.
    pub fn next_end(&self, shown: &[CertificateDer<'_>], after: i64) -> Option<i64> {
        let due = self.revocations.as_ref().map(|days| days.due);
        let last = shown.iter().filter_map(last_second).chain(due);
        // what is dated is good for all of its last second (RFC 5280 §4.1.2.5)
        let ends = last.filter(|last| *last < i64::MAX).map(|last| last.saturating_add(1));
        ends.filter(|end| *end > after).min()
    }
}

impl Dated for Trust {
    fn problem(&self) -> Option<String> {
        let days = self.revocations.as_ref()?;
        (days.due <= now()).then(|| days.too_old())
    }
}

impl Days {
    pub(super) fn too_old(&self) -> String {
        let (file, on) = (self.file.display(), time_text(self.due));
        format!("the revocation list `{file}` is too old since {on}")
    }
}

fn last_second(der: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Names of CAs, as they stand in certificates and as people read them.
type Subjects = Vec<(Vec<u8>, String)>;

/// The CAs of a file that have not expired (the TLS library does not ask).
fn roots(path: &Path) -> Result<(RootCertStore, Subjects), String> {
    let shown = path.display();
    let (mut roots, mut subjects) = (RootCertStore::empty(), Vec::new());
    for (n, der) in chain(path)?.into_iter().enumerate() {
        let bad = |what: &str| format!("certificate {} of `{shown}` {what}", n + 1);
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| bad("is not good X.509"))?;
        if parsed.version() == X509Version::V3 && !parsed.is_ca() {
            return Err(bad("is not a CA's"));
        }
        if parsed.validity().not_after.timestamp() > now() {
            subjects.push((parsed.subject().as_raw().to_owned(), peer::name(parsed.subject())));
            roots.add(der.clone()).map_err(|e| bad(&format!("cannot be used: {e}")))?;
        }
    }
    if roots.is_empty() {
        return Err(format!("all CAs of `{shown}` have expired"));
    }
    Ok((roots, subjects))
}

/// The lists of a file.
struct Lists {
    all: Vec<CertificateRevocationListDer<'static>>,
    /// The names of those who issued them, as they stand there.
    issuers: Vec<Vec<u8>>,
    /// When the one was made that is too old first, and when it is.
    from: i64,
    due: i64,
}

fn revocations(path: &Path) -> Result<Lists, String> {
    let shown = path.display();
    let pem = read_up_to(path, MAX_CRL)?;
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|e| format!("`{shown}` is not good PEM: {e}"))?;
    if all.is_empty() {
        return Err(format!("`{shown}` holds no revocation list in PEM form"));
    }
    let (mut issuers, mut from, mut due) = (Vec::new(), 0, i64::MAX);
    for list in &all {
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|_| format!("`{shown}` holds a revocation list that is not good X.509"))?;
        issuers.push(parsed.issuer().as_raw().to_owned());
        let next = parsed.next_update().map_or(i64::MAX, |next| next.timestamp());
        if next < due {
            (from, due) = (parsed.last_update().timestamp(), next);
        }
    }
    Ok(Lists { all, issuers, from, due })
}
