//! The demo's certificate: in, a folder; out, a certificate and key in it, made when they are not there yet.
//!
//! They are kept, so that a client that was told once to trust the certificate goes on working.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

/// Where the certificate and its key are, PEM both.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// The certificate for localhost, 127.0.0.1 and ::1 in `folder`; the key is readable by its owner only.
pub(super) fn in_folder(folder: &Path) -> io::Result<Files> {
    let files = Files { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    if !(files.cert.is_file() && files.key.is_file()) {
        let (cert, key) = generate().map_err(io::Error::other)?;
        write_secret(&files.key, &key)?;
        fs::write(&files.cert, cert)?;
    }
    Ok(files)
}

fn generate() -> Result<(String, String), rcgen::Error> {
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "mcp-edge demo");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// A new file, so that the mode holds also where an older, more open one stood.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let files = in_folder(folder.path()).unwrap();
        let cert = fs::read_to_string(&files.cert).unwrap();
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        in_folder(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(&files.cert).unwrap(), cert);
        fs::remove_file(&files.key).unwrap();
        in_folder(folder.path()).unwrap();
        assert_ne!(fs::read_to_string(&files.cert).unwrap(), cert, "a lost key makes a new pair");
    }
}
