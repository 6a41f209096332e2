//! In: another config, or other files, for an edge that runs; out: what goes on, what ends, and what is told.

mod answers;
mod kept;
mod places;
mod streams;
mod traffic;

use std::process::Output;

use crate::support::client::{Client, get};
use crate::support::edge::Edge;

const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";
/// `pass:wörd`, by `htpasswd -nbs`.
const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";

/// What a command wrote to stderr.
fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The value of a metric, by its name and labels.
fn metric(edge: &Edge, name: &str) -> Option<f64> {
    let page = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
