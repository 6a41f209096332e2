//! Certificates that the edge obtains by itself: in, listeners; out, the same with the files that those
//! certificates are kept in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Mode;
use crate::acme::store::Store;
use crate::base::compile::Cx;
use crate::base::watch::Watched;
use crate::listen::acme::AcmeSettings;
use crate::listen::certificate;
use crate::listen::settings::{Certificate, ListenerSettings};

/// Gives each listener the file of its certificate, with a placeholder in it where there is none yet,
/// and plain listeners the folder of challenges. `check` changes nothing and takes what is there.
///
/// # Errors
/// A sentence that says what is missing or failed.
pub(super) fn attach(
    listeners: &mut [ListenerSettings],
    state_dir: &Path,
    mode: Mode,
    cx: &mut Cx,
) -> Result<(), String> {
    let store = Store::new(state_dir);
    let wanted = wanted(listeners)?;
    for listener in listeners.iter_mut() {
        let Some(tls) = &mut listener.tls else {
            if !wanted.is_empty() {
                listener.acme_webroots.push(store.webroot());
            }
            continue;
        };
        let Some(acme) = &tls.acme else { continue };
        let path = match mode {
            Mode::Run => store.reserve(&acme.domains)?,
            Mode::Check => store.certificate(acme.name()),
        };
        if mode == Mode::Run || path.exists() {
            let file = watched(path, cx)?;
            cx.look_after(file.clone());
            tls.certificates.push(file);
        }
    }
    Ok(())
}

/// The file as it is; the one that the generation of the config before has, where it has it.
fn watched(path: PathBuf, cx: &mut Cx) -> Result<Arc<Watched<Certificate>>, String> {
    let mut failed = None;
    let key = format!("acme certificate {}", path.display());
    let kept = cx.shared(key, |_| match certificate::watch_file(path) {
        Ok(file) => Some(file),
        Err(problem) => {
            failed = Some(problem);
            None
        }
    });
    match kept {
        Some(file) => Ok(Arc::clone(&*file)),
        None => Err(failed.unwrap_or_default()),
    }
}

/// What listeners ask for, each certificate once.
///
/// # Errors
/// Two that are kept in the same file and differ; or no listener that could answer a challenge.
pub(super) fn wanted(listeners: &[ListenerSettings]) -> Result<Vec<AcmeSettings>, String> {
    let mut wanted: Vec<AcmeSettings> = Vec::new();
    for acme in listeners.iter().filter_map(|l| l.tls.as_ref()?.acme.as_ref()) {
        match wanted.iter().find(|other| other.name() == acme.name()) {
            None => wanted.push(acme.clone()),
            Some(other) if other == acme => {}
            Some(_) => {
                let name = acme.name();
                return Err(format!("two `acme` begin with `{name}` and differ in the rest"));
            }
        }
    }
    if !wanted.is_empty() && listeners.iter().all(|l| l.tls.is_some()) {
        let problem = "`acme` proves domains over plain HTTP: add a listener without `tls` that \
            port 80 leads to, such as `{ address: 0.0.0.0:80, redirect: https }`";
        return Err(problem.to_owned());
    }
    Ok(wanted)
}
