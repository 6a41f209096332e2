//! The folder of ACME: in, accounts, challenges, locks, and certificates with their keys; out, what was kept of
//! them, all for the owner's eyes only.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::due::Held;
use crate::base::keep;
use crate::base::text::hex;
use crate::listen::certificate;

/// Stands in the subject of certificates that are none.
const PLACEHOLDER: &str = "mcp-edge: no certificate obtained yet";
/// How long a placeholder lasts; it is made anew at each start.
const PLACEHOLDER_LIFE: Duration = Duration::from_secs(3650 * 86_400);

/// The folder `acme` of the state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store of a state folder; nothing is created yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("acme") }
    }

    /// The PEM file of a certificate: chain and key in one, so that they always match.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    /// The folder that plain listeners serve challenges from, as certbot lays one out.
    pub fn webroot(&self) -> PathBuf {
        self.folder.join("webroot")
    }

    /// The file of the account at a directory.
    pub(super) fn account(&self, directory: &str) -> PathBuf {
        let digest = Sha256::digest(directory.as_bytes());
        let (print, _) = digest.split_at(8);
        self.folder.join(format!("account-{}.json", hex(print)))
    }

    /// What is held for a name; `None` also where it cannot be read.
    pub(super) fn held(&self, name: &str) -> Option<Held> {
        held(&self.certificate(name)).ok()
    }

    /// Puts a self-signed certificate where none is held, so that the listener can start.
    ///
    /// # Errors
    /// A sentence that says what failed.
    pub fn reserve(&self, domains: &[String]) -> Result<PathBuf, String> {
        let path = self.certificate(domains.first().map_or("", String::as_str));
        if held(&path).is_err() {
            keep::replace_private(&path, &placeholder(domains)?)?;
        }
        Ok(path)
    }

    /// Puts a certificate in place once it is proven to be what was asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn put(&self, name: &str, pem: &str, domains: &[String]) -> Result<(), String> {
        let draft = self.folder.join(format!("{name}.pem.draft"));
        keep::replace_private(&draft, pem)?;
        let loaded = certificate::load(&draft, &draft);
        let checked = loaded.and_then(|loaded| {
            match domains.iter().find(|domain| !loaded.names.contains(domain)) {
                Some(missing) => Err(format!("the directory's certificate lacks {missing}")),
                None => Ok(()),
            }
        });
        if let Err(e) = fs::remove_file(&draft) {
            log::warn!("cannot remove `{}`: {e}", draft.display());
        }
        checked?;
        keep::replace_private(&self.certificate(name), pem)
    }

    /// Takes the lock of a certificate; `None` while another edge has it. It falls with the file, also
    /// when its process dies.
    pub(super) fn lock(&self, name: &str) -> Result<Option<File>, String> {
        let path = self.folder.join(format!("{name}.lock"));
        let failed = |e: &std::io::Error| format!("cannot lock `{}`: {e}", path.display());
        let folder = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        folder.map_err(|e| failed(&e))?;
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(false).mode(0o600);
        let file = open.open(&path).map_err(|e| failed(&e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(failed(&e)),
        }
    }

    /// Lays out the answer to a challenge, until the value is dropped.
    pub(super) fn challenge(&self, token: &str, answer: &str) -> Result<Challenge, String> {
        // RFC 8555 §8.3: the base64url alphabet
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if token.is_empty() || token.len() > 128 || !token.bytes().all(good) {
            return Err("the directory's token is not one".to_owned());
        }
        let path = self.webroot().join(".well-known/acme-challenge").join(token);
        keep::replace_private(&path, answer)?;
        Ok(Challenge(path))
    }
}

/// The file of a challenge.
#[derive(Debug)]
pub(super) struct Challenge(PathBuf);

impl Drop for Challenge {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            log::warn!("cannot remove `{}`: {e}", self.0.display());
        }
    }
}

fn held(path: &Path) -> Result<Held, String> {
    // as a listener reads it: what has expired or does not fit together is not held
    let loaded = certificate::load(path, path)?;
    let chain = certificate::chain(path)?;
    let wrong = || format!("`{}` is not good X.509", path.display());
    let leaf = chain.first().ok_or_else(wrong)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| wrong())?;
    let validity = leaf.validity();
    Ok(Held {
        names: loaded.names,
        from: validity.not_before.timestamp(),
        until: validity.not_after.timestamp(),
        placeholder: leaf.subject().to_string().contains(PLACEHOLDER),
    })
}

/// Certificate and key, in PEM.
fn placeholder(domains: &[String]) -> Result<String, String> {
    let failed = |e: rcgen::Error| format!("cannot make a certificate: {e}");
    let mut params = CertificateParams::new(domains).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, PLACEHOLDER);
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + PLACEHOLDER_LIFE).into();
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok(cert.pem() + &key.serialize_pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> Vec<String> {
        vec!["a.example".to_owned(), "b.example".to_owned()]
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        (folder, store)
    }

    #[test]
    fn a_placeholder_stands_where_nothing_is_held() {
        let (_folder, store) = store();
        let path = store.reserve(&domains()).unwrap();
        let held = store.held("a.example").unwrap();
        assert!(held.placeholder);
        assert_eq!(held.names, domains());
        let before = fs::read(&path).unwrap();
        store.reserve(&domains()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, "rubbish").unwrap();
        store.reserve(&domains()).unwrap();
        assert!(store.held("a.example").is_some());
    }

    #[test]
    fn what_lacks_a_name_or_a_key_is_not_put() {
        let (_folder, store) = store();
        store.reserve(&domains()).unwrap();
        let before = fs::read(store.certificate("a.example")).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let cert = cert.self_signed(&key).unwrap();
        let short = cert.pem() + &key.serialize_pem();
        assert!(store.put("a.example", &short, &domains()).unwrap_err().contains("b.example"));
        assert!(store.put("a.example", &cert.pem(), &domains()).is_err());
        assert_eq!(fs::read(store.certificate("a.example")).unwrap(), before);
        store.put("a.example", &short, &domains()[..1]).unwrap();
        assert!(!store.held("a.example").unwrap().placeholder);
    }

    #[test]
    fn one_edge_at_a_time() {
        let (_folder, store) = store();
        let lock = store.lock("a.example").unwrap();
        assert!(lock.is_some() && store.lock("a.example").unwrap().is_none());
        assert!(store.lock("b.example").unwrap().is_some());
        drop(lock);
        assert!(store.lock("a.example").unwrap().is_some());
    }

    #[test]
    fn challenges_are_files_while_they_last() {
        let (_folder, store) = store();
        for bad in ["", "../x", "a/b", "a.b", &"x".repeat(200)] {
            assert!(store.challenge(bad, "x").is_err(), "{bad}");
        }
        let challenge = store.challenge("tok-en_1", "answer").unwrap();
        let path = store.webroot().join(".well-known/acme-challenge/tok-en_1");
        assert_eq!(fs::read_to_string(&path).unwrap(), "answer");
        drop(challenge);
        assert!(!path.exists());
    }
}
