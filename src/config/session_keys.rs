//! Keys that seal session ids: in, texts of the config or the state folder; out, `SessionKeys`.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KeysFrom, Mode};
use crate::balance::session::SessionKeys;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::keep;

/// Shorter texts can be guessed, in bytes.
const SHORTEST: usize = 32;
/// Bytes of randomness in a generated key.
const RANDOM: usize = 64;
/// The generated key's file in the state folder.
const FILE: &str = "session-key";

/// Reads `sessions.keys`. No message ever shows a key.
pub(super) fn texts(node: &Node, cx: &mut Cx) -> Option<Vec<String>> {
    let mut seen: Vec<String> = Vec::new();
    cx.filled_list(node, |node, cx| {
        let NodeKind::Scalar { text, .. } = &node.kind else {
            cx.error(node, "a session key is a text");
            return None;
        };
        if text.len() < SHORTEST {
            let has = text.len();
            cx.error(node, format!("a session key has at least {SHORTEST} bytes, this one {has}"));
        } else if seen.contains(text) {
            cx.error(node, "this session key stands already in the list");
        }
        seen.push(text.clone());
        Some(text.clone())
    })
}

/// The config's keys, else the kept one, else a new one, which `run` keeps and `check` does not.
///
/// # Errors
/// A sentence that says what is wrong, and no key.
pub(super) fn keys(
    texts: Option<Vec<String>>,
    state_dir: &Path,
    mode: Mode,
) -> Result<(SessionKeys, KeysFrom), String> {
    if let Some(texts) = texts {
        return Ok((SessionKeys::from_texts(&texts)?, KeysFrom::Config));
    }
    let path = state_dir.join(FILE);
    let mut kept = keep::read_private(&path)?;
    if kept.is_none() {
        let text = generate()?;
        if mode == Mode::Check {
            return Ok((SessionKeys::from_texts(&[text])?, KeysFrom::NotYet(path)));
        }
        keep::create_private(&path, &format!("{text}\n"))?;
        // read back: of two processes that start at once, both take the first one's key
        kept = keep::read_private(&path)?;
    }
    let text = kept.unwrap_or_default().trim_end().to_owned();
    if text.len() < SHORTEST {
        let shown = path.display();
        return Err(format!(
            "`{shown}` holds no key of at least {SHORTEST} bytes: remove the file"
        ));
    }
    Ok((SessionKeys::from_texts(&[text])?, KeysFrom::File(path)))
}

fn generate() -> Result<String, String> {
    let mut bytes = [0; RANDOM];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system has no randomness: {e}"))?;
    Ok(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_generated_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (_, from) = keys(None, dir.path(), Mode::Check).unwrap();
        assert_eq!((from, path.exists()), (KeysFrom::NotYet(path.clone()), false));
        let (first, from) = keys(None, dir.path(), Mode::Run).unwrap();
        assert_eq!((from, path.exists()), (KeysFrom::File(path.clone()), true));
        for mode in [Mode::Run, Mode::Check] {
            let (again, from) = keys(None, dir.path(), mode).unwrap();
            assert_eq!(again.fingerprints(), first.fingerprints());
            assert_eq!(from, KeysFrom::File(path.clone()));
        }
        std::fs::write(&path, "short\n").unwrap();
        assert!(keys(None, dir.path(), Mode::Run).unwrap_err().contains("remove the file"));
    }
}
