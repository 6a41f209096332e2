//! Leaving nginx: in, an nginx.conf; out, a config of ours that says the same, and a list of what it does not.
//!
//! # How it decides
//!
//! Each directive is in one of three lists (`words`): those that are carried, those that are harmless to
//! leave out, and those that restrict and have no counterpart. The first two are closed. **A directive
//! in no list counts as a restriction**, because modules bring directives of their own, and nobody here can
//! know that `x_shield on;` guards nothing. What cannot be carried leaves a route that refuses
//! (`deny` for everybody), with the place it comes from behind it, and exit code [`REFUSED`]: whoever
//! wants to open such a route does it by hand, or takes the directive out and imports again.
//!
//! The same holds where nginx and the edge would read the same words in two ways:
//!
//! - nginx asks `allow` and `deny` in their order, ours are two sets of which deny wins: the sets are
//!   computed (`access`).
//! - nginx's servers, and their defaults, belong to sockets: routes name their `listeners` where they are not
//!   all. An address beside the wildcard of its port is no listener of its own here: both refuse (`sockets`).
//! - nginx's prefixes are letters (`/admin` guards `/administrator`): `starts_with`. Where no route can have a
//!   location's path, the route around it refuses (`route`).
//! - Regular expressions go before prefixes in nginx and do not exist here: what they guard makes the
//!   prefixes refuse, unless they spell plain paths (`place`).
//! - A request header that nginx wrote from a variable and that we do not write is taken out, so that no
//!   client can write it (`headers`).
//!
//! # What is different on purpose
//!
//! Names without a route are answered 421, paths that can be read in two ways 400, foreign `Origin`s 403, and
//! methods that MCP does not use 405. `X-Forwarded-For` is what the edge saw, never what a client said. Servers'
//! certificates are checked. Limits answer 429. Credentials of the edge stay at the edge.

mod access;
mod certbot;
mod condition;
mod convert;
mod entry;
mod guard;
mod headers;
mod listener;
pub mod nginx;
mod note;
mod place;
mod plan;
mod prefer;
mod route;
mod scope;
mod site;
mod sockets;
mod trust;
mod upstream;
mod values;
mod words;

use std::path::{Path, PathBuf};

pub use certbot::{Renewal, warnings};
pub use note::{Note, Weight};

/// The exit code of an import that wrote a config in which something refuses that nginx served.
pub const REFUSED: u8 = 3;
/// Where certbot's challenges are answered from, where neither nginx nor the command line says it.
pub const WEBROOT: &str = "/var/www/html";

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// certbot's folder; absent: beside the certificates.
    pub letsencrypt: Option<PathBuf>,
    /// Where certbot is to put the answers to challenges.
    pub webroot: Option<String>,
}

/// What an import gives.
#[derive(Debug)]
pub struct Imported {
    /// The config.
    pub yaml: String,
    /// What was not carried to the letter, in the order of the files.
    pub notes: Vec<Note>,
    /// What to do with certbot's renewals.
    pub renewals: Vec<String>,
}

impl Imported {
    /// Whether something refuses that nginx served.
    pub fn refuses(&self) -> bool {
        self.notes.iter().any(|note| note.weight == Weight::Refused)
    }

    /// What people have to read: a line per note, then certbot's part.
    pub fn report(&self) -> String {
        let notes = self.notes.iter().map(|note| format!("{note}\n"));
        let renewals = self.renewals.iter().map(|line| format!("{line}\n"));
        notes.chain(renewals).collect()
    }
}

/// Imports a file with all that it includes.
///
/// # Errors
/// A sentence, with file and line where there is one.
pub fn import(path: &Path, options: &Options) -> Result<Imported, String> {
    from_tree(&nginx::read(path)?, options)
}

/// Imports a tree.
///
/// # Errors
/// A sentence, where there is nothing to serve.
pub fn from_tree(tree: &nginx::Tree, options: &Options) -> Result<Imported, String> {
    let certificates = certificates(tree);
    let folders: Vec<PathBuf> = match &options.letsencrypt {
        Some(folder) => vec![folder.clone()],
        None => {
            let mut folders: Vec<PathBuf> =
                certificates.iter().filter_map(|path| certbot::folder_of(path)).collect();
            folders.sort();
            folders.dedup();
            folders
        }
    };
    let mut bound: Vec<Renewal> = Vec::new();
    for folder in folders {
        bound.extend(certbot::renewals(&folder)?.into_iter().filter(Renewal::is_bound));
    }
    let webroot = options.webroot.as_deref().unwrap_or(WEBROOT);
    let (plan, notes) = convert::convert(tree, &bound, webroot)?;
    let root = plan.webroot().unwrap_or_else(|| webroot.to_owned());
    let renewals = advice(&bound, &root);
    let yaml = plan.write(&notes, &renewals);
    Ok(Imported { yaml, notes, renewals })
}

/// Every certificate that the tree names.
fn certificates(tree: &nginx::Tree) -> Vec<PathBuf> {
    fn walk(directives: &[nginx::Directive], out: &mut Vec<PathBuf>) {
        for directive in directives {
            if directive.name == "ssl_certificate" {
                out.push(directive.arg(0).into());
            }
            walk(directive.inner(), out);
        }
    }
    let mut out = Vec::new();
    walk(&tree.directives, &mut out);
    out.iter().map(|path| tree.folder.join(path)).collect()
}

fn advice(bound: &[Renewal], webroot: &str) -> Vec<String> {
    let mut out = Vec::new();
    if bound.is_empty() {
        return out;
    }
    out.push(
        "certbot renews by nginx. When the edge runs in its place, move the renewals:".to_owned(),
    );
    out.push(format!("  mkdir -p {webroot}"));
    out.extend(bound.iter().map(|renewal| format!("  {}", renewal.command(webroot))));
    out.push(
        "Or let the edge renew by itself, and delete them there: tls: { acme: { domains: [ … ], email: … } }"
            .to_owned(),
    );
    out
}
