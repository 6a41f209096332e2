//! What of a config is for the whole life of a process: in, its file, which may be broken by now, or its tree; out,
//! where the process is to be found, and sums of what it cannot change.

use std::path::{Path, PathBuf};

use super::load::default_state_dir;
use super::substitute::{Env, substitute};
use super::yaml;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::files;
use crate::base::kept::{Sum, fingerprint};

/// The state folder of the service that `systemd/mcp-edge.service` makes: whoever asks it by hand has another
/// environment than it has.
const OF_SERVICE: &str = "/var/lib/mcp-edge";

/// Where the edge of a file may be asked, whatever else is wrong with the file: in the state folder that it names,
/// else in the [`usual_state_dirs`].
///
/// # Errors
/// A sentence: the file cannot be read, or not so far.
pub fn state_dirs(path: &Path, env: Env<'_>) -> Result<Vec<PathBuf>, String> {
    let text = files::read_text_from_anywhere(path, yaml::MAX_TEXT)?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    let Some(mut node) = node(&text) else { return Ok(usual_state_dirs(base_dir, env)) };
    let mut cx = Cx::new(base_dir);
    substitute(&mut node, env, &mut cx);
    let named = cx.file(&node);
    let named = named.ok_or_else(|| format!("`{}`: `state_dir` cannot be read", path.display()));
    named.map(|folder| vec![folder])
}

/// Where an edge may be asked whose config names no state folder, in the order in which to try them: in that of an
/// edge with our own environment, in the service's, and beside the config.
pub fn usual_state_dirs(base_dir: &Path, env: Env<'_>) -> Vec<PathBuf> {
    let of = |env: Env<'_>| base_dir.join(default_state_dir(env));
    let (own, here) = (of(env), of(&|_| None));
    let mut all = vec![OF_SERVICE.into(), here];
    if !all.contains(&own) {
        all.insert(0, own);
    }
    all
}

/// A key that a reload cannot renew, and a sum of what a config says there.
pub type Fixed = (&'static str, Sum);

/// Top-level keys that a reload cannot renew.
const FIXED: &[&str] =
    &["state_dir", "threads", "admin", "access_log", "audit", "traces", "shutdown"];

/// Those keys, each with a sum of what a config says there.
pub(super) fn fixed(root: &Node) -> Vec<Fixed> {
    let NodeKind::Map(entries) = &root.kind else { return Vec::new() };
    let said = |key: &str| {
        let found = entries.iter().find(|(name, ..)| name == key);
        found.map(|(.., node)| fingerprint(node).into()).unwrap_or_default()
    };
    FIXED.iter().map(|key| (*key, said(key))).collect()
}

/// What stands behind `state_dir`; of a text that is no YAML, what is there of that line.
fn node(text: &str) -> Option<Node> {
    let root = yaml::parse(text).or_else(|broken| {
        let line = text.lines().find(|line| line.starts_with("state_dir:"));
        yaml::parse(line.unwrap_or_default()).map_err(|_| broken)
    });
    let NodeKind::Map(entries) = root.ok()?.kind else { return None };
    entries.into_iter().find(|(key, ..)| key == "state_dir").map(|(.., node)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_in_broken_files_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.yaml");
        let env = |name: &str| (name == "DIR").then(|| "/run/x".to_owned());
        for (text, found) in [
            ("state_dir: /var/lib/x\nroutes: []\n", "/var/lib/x"),
            ("routes: [\nstate_dir: /var/lib/x # here\nlisteners: }\n", "/var/lib/x"),
            ("state_dir: ${env:DIR}\nunknown: 1\n", "/run/x"),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(state_dirs(&file, &env), Ok(vec![found.into()]), "{text}");
        }
        std::fs::write(&file, "state_dir: near\n").unwrap();
        assert_eq!(state_dirs(&file, &env), Ok(vec![folder.path().join("near")]));
        assert!(state_dirs(&folder.path().join("none"), &env).is_err());
    }

    #[test]
    fn where_none_is_named_all_places_are_tried_that_an_edge_may_have() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.yaml");
        for (home, places) in [
            (None, &["/var/lib/mcp-edge"][..]),
            (Some("/root/x"), &["/root/x/mcp-edge", "/var/lib/mcp-edge"]),
            (Some("relative"), &["/var/lib/mcp-edge"]),
            (Some("/var/lib"), &["/var/lib/mcp-edge"]),
        ] {
            let env = |name: &str| home.filter(|_| name == "XDG_STATE_HOME").map(str::to_owned);
            let places = places.iter().copied().chain(["state"]);
            let places: Vec<PathBuf> = places.map(|place| folder.path().join(place)).collect();
            for text in ["routes: [\n", ""] {
                std::fs::write(&file, text).unwrap();
                assert_eq!(state_dirs(&file, &env).as_ref(), Ok(&places), "{home:?} {text}");
            }
        }
    }
}
