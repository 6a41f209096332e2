//! certbot's renewals: in, its folder; out, which of them still need nginx, and the commands that change it.
//!
//! certbot's nginx plugin answers challenges by rewriting nginx's files. Where nginx is gone, its
//! renewals fail, and nobody notices before the certificates expire.

use std::path::{Path, PathBuf};

use crate::base::files;

/// More renewals than this are not looked at.
const MOST: usize = 1000;

/// What `renewal/NAME.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// certbot's name of the certificate.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The version of certbot that wrote it, such as `2.1.0`.
    pub version: String,
    /// The chain that servers are given.
    pub fullchain: PathBuf,
    /// What answers challenges: `nginx`, `webroot`, `standalone` …
    pub authenticator: String,
    /// What puts new certificates into a server's config.
    pub installer: String,
    /// Whether a hook names nginx.
    pub hooks: bool,
}

impl Renewal {
    /// Whether it needs nginx.
    pub fn is_bound(&self) -> bool {
        self.authenticator == "nginx" || self.installer == "nginx" || self.hooks
    }

    /// The command that moves it to a folder from which the edge answers challenges.
    ///
    /// `reconfigure` came with certbot 2.3.0 and tries the new way before it keeps it; `null` is certbot's
    /// installer that installs nothing. Before, a renewal by force is what keeps new options. No hook is
    /// needed, because the edge looks at its certificates by itself; one that names nginx is replaced.
    pub fn command(&self, webroot: &str) -> String {
        let name = shell(&self.name);
        let webroot = shell(webroot);
        let hook = if self.hooks { " --deploy-hook true" } else { "" };
        if self.has_reconfigure() {
            return format!(
                "certbot reconfigure --cert-name {name} --webroot -w {webroot} --installer null{hook}"
            );
        }
        format!("certbot certonly --cert-name {name} --webroot -w {webroot} --force-renewal{hook}")
    }

    fn has_reconfigure(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (2, 3)
    }
}

/// certbot's folder for a certificate: `X` of `X/live/NAME/fullchain.pem`.
pub(super) fn folder_of(certificate: &Path) -> Option<PathBuf> {
    let live = certificate.parent()?.parent()?;
    (live.file_name()? == "live").then(|| live.parent().map(Path::to_owned))?
}

/// Reads every renewal in a folder of certbot. A folder without renewals is nothing unusual.
///
/// # Errors
/// A sentence that names what cannot be read.
pub(super) fn renewals(folder: &Path) -> Result<Vec<Renewal>, String> {
    let renewal = folder.join("renewal");
    let entries = match std::fs::read_dir(&renewal) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(files::failed(&renewal, &e)),
    };
    let mut paths = Vec::new();
    for entry in entries.take(MOST) {
        let path = entry.map_err(|e| files::failed(&renewal, &e))?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok(read(&files::read_text(path)?, path))).collect()
}

/// `key = value` lines; sections tell nothing that the keys do not.
fn read(text: &str, path: &Path) -> Renewal {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut renewal = Renewal { name, file: path.to_owned(), ..Renewal::default() };
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') && !line.starts_with("[renewalparams]") {
            break; // `[[webroot_map]]` has names of hosts as keys
        }
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']).to_owned();
        match key.trim() {
            "version" => renewal.version = value,
            "fullchain" => renewal.fullchain = value.into(),
            "authenticator" => renewal.authenticator = value,
            "installer" => renewal.installer = value,
            "pre_hook" | "post_hook" | "renew_hook" | "deploy_hook" => {
                renewal.hooks |= value.contains("nginx")
            }
            _ => {}
        }
    }
    renewal
}

/// A warning for each renewal of these certificates that needs nginx, and each that cannot be read.
pub fn warnings(certificates: &[PathBuf]) -> Vec<String> {
    let mut folders: Vec<PathBuf> =
        certificates.iter().filter_map(|path| folder_of(path)).collect();
    folders.sort();
    folders.dedup();
    let mut out = Vec::new();
    for folder in folders {
        match renewals(&folder) {
            Ok(all) => {
                let used = |renewal: &&Renewal| certificates.iter().any(|path| renewal.is_of(path));
                out.extend(all.iter().filter(|r| r.is_bound()).filter(used).map(Renewal::warning));
            }
            Err(problem) => out.push(problem),
        }
    }
    out
}

impl Renewal {
    /// Whether a certificate's file is this one's, by certbot's own rule for names.
    fn is_of(&self, certificate: &Path) -> bool {
        let folder = certificate.parent();
        self.fullchain == certificate
            || self.fullchain.parent() == folder
            || folder.and_then(Path::file_name).is_some_and(|name| name == self.name.as_str())
    }

    fn warning(&self) -> String {
        let (name, file) = (&self.name, self.file.display());
        format!(
            "`{file}`: the renewal of `{name}` needs nginx; move it: {}",
            self.command("WEBROOT")
        )
    }
}

/// A word for a shell.
fn shell(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "# renew_before_expiry = 30 days\nversion = 2.1.0\n\
        archive_dir = /etc/letsencrypt/archive/a.example\n\
        fullchain = /etc/letsencrypt/live/a.example/fullchain.pem\n\n\
        # Options used in the renewal process\n[renewalparams]\n\
        authenticator = nginx\ninstaller = nginx\n[[webroot_map]]\ninstaller = x\n";

    #[test]
    fn what_is_bound_to_nginx_is_moved_as_its_certbot_can() {
        let path = Path::new("/etc/letsencrypt/renewal/a.example.conf");
        let old = read(CONF, path);
        assert!(old.is_bound());
        assert_eq!(
            old.command("/var/www/html"),
            "certbot certonly --cert-name a.example --webroot -w /var/www/html --force-renewal"
        );
        let new = read(&CONF.replace("2.1.0", "2.11.1"), path);
        assert_eq!(
            new.command("/a b"),
            "certbot reconfigure --cert-name a.example --webroot -w '/a b' --installer null"
        );
        let webroot = CONF.replace("= nginx", "= webroot");
        assert!(!read(&webroot, path).is_bound());
        let hook = webroot
            .replace("[renewalparams]", "[renewalparams]\nrenew_hook = systemctl reload nginx");
        assert!(read(&hook, path).is_bound());
        assert!(read(&hook, path).command("/w").ends_with(" --deploy-hook true"));
    }

    #[test]
    fn renewals_are_found_beside_their_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let renewal = dir.path().join("renewal");
        std::fs::create_dir(&renewal).unwrap();
        let live = dir.path().join("live/a.example/fullchain.pem");
        assert_eq!(folder_of(&live).as_deref(), Some(dir.path()));
        assert_eq!(folder_of(Path::new("/etc/ssl/a.pem")), None);
        assert!(warnings(std::slice::from_ref(&live)).is_empty());
        std::fs::write(renewal.join("a.example.conf"), CONF).unwrap();
        std::fs::write(renewal.join("b.example.conf"), CONF).unwrap();
        std::fs::write(renewal.join("README"), "authenticator = nginx").unwrap();
        assert_eq!(renewals(dir.path()).unwrap().len(), 2);
        let found = warnings(&[live]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("the renewal of `a.example` needs nginx"), "{found:?}");
        std::fs::write(renewal.join("a.example.conf"), [0xff]).unwrap();
        let found = warnings(&[dir.path().join("live/a.example/fullchain.pem")]);
        assert!(found[0].contains("not UTF-8"), "{found:?}");
    }

    #[test]
    fn words_stay_words_in_a_shell() {
        assert_eq!(shell("a.example-0001"), "a.example-0001");
        assert_eq!(shell("a'; rm"), "'a'\\''; rm'");
        assert_eq!(shell(""), "''");
    }
}
