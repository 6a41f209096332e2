//! In: credentials of every kind, right, wrong, doubled and missing; out: who comes in, and what the backend hears of it.

mod basic;
mod certificates;
mod chain;
mod flips;
mod keys;
mod outgoing;
mod sessions;

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use crate::support::backend::Backend;
use crate::support::client::Response;
use crate::support::edge::{Builder, Edge, edge};

/// The password of every user of `htpasswd`.
const WORD: &str = "pass:wörd";
/// `pass:wörd`, by `htpasswd -nbs`.
const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";

/// Files that configs name.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("htpasswd", include_str!("htpasswd"));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and gives its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The method `basic` with a file; `rest` begins with a comma or is empty.
    fn basic(&self, name: &str, rest: &str) -> String {
        format!("{{ basic: {{ file: \"{}\"{rest} }} }}", self.path(name).display())
    }
}

/// An edge with one route to this backend; `auth` is the inside of the list.
fn guarded(backend: &Backend, auth: &str, rest: &str) -> Builder {
    edge()
        .upstream("one", &[backend.url()], "")
        .raw_route(&format!("upstream: one, auth: [ {auth} ], {rest}"))
}

/// A header line with a name and a password.
fn basic(user: &str, password: &str) -> String {
    basic_raw(format!("{user}:{password}").as_bytes())
}

fn basic_raw(plain: &[u8]) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(plain))
}

/// A GET with these header lines.
fn with(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

/// What came of a request: `ok`, or the code of its refusal, which is one as the edge writes them.
fn outcome(edge: &Edge, lines: &str) -> String {
    verdict(edge, &edge.ask(with(lines)))
}

fn verdict(edge: &Edge, answer: &Response) -> String {
    if answer.status == 200 {
        return "ok".to_owned();
    }
    assert_eq!(answer.not_a_refusal(), None);
    let code = edge.log_of(answer)["code"].as_str().unwrap().to_owned();
    let challenged = answer.header("www-authenticate").is_some();
    assert_eq!(challenged, answer.status == 401, "{code}");
    code
}
