//! What of a config is for the whole life of a process: in, its file, which may be broken by now, or its tree; out,
//! where the process is to be found, and sums of what it cannot change.

use std::path::{Path, PathBuf};

use super::load::default_state_dir;
use super::substitute::{Env, substitute};
use super::yaml;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::files;
use crate::base::kept::{Sum, fingerprint};

/// The state folder that a file names, whatever else is wrong with the file.
///
/// # Errors
/// A sentence: the file cannot be read, or not so far.
pub fn state_dir(path: &Path, env: Env<'_>) -> Result<PathBuf, String> {
    let text = files::read_text_from_anywhere(path)?;
    let base_dir = path.parent().unwrap_or(Path::new(""));
    let Some(mut node) = node(&text) else { return Ok(base_dir.join(default_state_dir(env))) };
    let mut cx = Cx::new(base_dir);
    substitute(&mut node, env, &mut cx);
    cx.file(&node).ok_or_else(|| format!("`{}`: `state_dir` cannot be read", path.display()))
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
            assert_eq!(state_dir(&file, &env), Ok(found.into()), "{text}");
        }
        for (text, found) in
            [("state_dir: near\n", "near"), ("routes: [\n", "state"), ("", "state")]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(
                state_dir(&file, &env),
                Ok(folder.path().join(found)),
                "wherever it is asked"
            );
        }
        let home = |name: &str| (name == "XDG_STATE_HOME").then(|| "/var/lib".to_owned());
        assert_eq!(state_dir(&file, &home), Ok("/var/lib/mcp-edge".into()));
        assert!(state_dir(&folder.path().join("none"), &env).is_err());
    }
}
