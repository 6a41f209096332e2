//! The certificate of `--tls-self-signed`: in, the state folder and a host; out, a PEM file with chain and key.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

use crate::base::keep;
use crate::listen::certificate;

/// The file in the state folder; certificate and key in one, so that they always match.
const FILE: &str = "self-signed.pem";
/// The certificate alone, for clients that should trust it.
const PUBLIC: &str = "self-signed-cert.pem";
/// How long a new one is good for, in days; Apple's clients take no more than 825.
const DAYS: u64 = 365;
/// One that expires sooner is replaced, in seconds.
const MARGIN: i64 = 86_400;

/// The kept certificate while it is good for this host, else a new one.
///
/// # Errors
/// A sentence that says what failed.
pub(super) fn certificate(state_dir: &Path, host: IpAddr) -> Result<PathBuf, String> {
    let path = state_dir.join(FILE);
    if keep::read_private(&path)?.is_none() || !is_good(&path, host) {
        let (cert, key) = generate(host)?;
        keep::replace_private(&state_dir.join(PUBLIC), &cert)?;
        keep::replace_private(&path, &(cert + &key))?;
    }
    Ok(path)
}

fn is_good(path: &Path, host: IpAddr) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let soon = i64::try_from(now).unwrap_or(i64::MAX).saturating_add(MARGIN);
    certificate::load(path, path).is_ok_and(|kept| {
        kept.expires > soon && (host.is_unspecified() || kept.addresses.contains(&host))
    })
}

/// Certificate and key, in PEM.
fn generate(host: IpAddr) -> Result<(String, String), String> {
    let failed = |e: rcgen::Error| format!("cannot make a certificate: {e}");
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host_name = host.to_string();
    if !host.is_unspecified() && !names.contains(&host_name) {
        names.push(host_name);
    }
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "mcp-edge self-signed");
    let now = SystemTime::now();
    // an hour back, for clients whose clock is slow
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(DAYS * 86_400)).into();
    // Apple's clients ask for it
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok((cert.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_while_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        let made = |host: &str| {
            let path = certificate(dir.path(), host.parse().unwrap()).unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        let first = made("127.0.0.1");
        assert_eq!(made("127.0.0.1"), first);
        assert_eq!(made("0.0.0.0"), first);
        let second = made("192.0.2.7");
        assert_ne!(second, first);
        assert_eq!(made("127.0.0.1"), second);
        let path = dir.path().join(FILE);
        let public = std::fs::read_to_string(dir.path().join(PUBLIC)).unwrap();
        assert!(second.starts_with(&public) && !public.contains("PRIVATE"));
        let loaded = crate::listen::certificate::load(&path, &path).unwrap();
        assert_eq!(loaded.names, ["localhost"]);
        assert_eq!(loaded.addresses.len(), 3);
    }
}
