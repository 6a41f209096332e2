//! Whose edge is asked: in, the config that a question names; out, whether this one runs with it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The config file that the edge runs with, by its whole path; absent where there is none.
#[derive(Debug, Clone)]
pub struct Whose(Option<PathBuf>);

impl Whose {
    /// Of an edge that was started with this file.
    pub fn new(source: Option<&Path>) -> Self {
        Self(source.map(whole))
    }

    /// Whether a question is for this edge: who names no file means whoever answers. Blocks its thread.
    ///
    /// # Errors
    /// A sentence with both files.
    pub(super) fn check(&self, asked: &Value) -> Result<(), String> {
        let Some(wanted) = asked.get("config").and_then(Value::as_str) else { return Ok(()) };
        let pid = std::process::id();
        let Some(own) = &self.0 else {
            return Err(format!(
                "the edge that answers (process {pid}) runs without a config file, and not with `{wanted}`"
            ));
        };
        let real = |path: &Path| fs::canonicalize(path).ok();
        let same = own.to_string_lossy() == wanted
            || real(own).is_some_and(|own| real(Path::new(wanted)) == Some(own));
        if same {
            return Ok(());
        }
        let own = own.display();
        Err(format!(
            "the edge that answers (process {pid}) runs with `{own}`, and not with `{wanted}`: \
             each needs a `state_dir` of its own"
        ))
    }
}

/// A path from the root on; links in it stay.
pub(super) fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_known_by_its_path_or_by_what_that_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.yaml"), "").unwrap();
        fs::write(at("b.yaml"), "").unwrap();
        std::os::unix::fs::symlink(at("a.yaml"), at("link.yaml")).unwrap();
        let whose = Whose::new(Some(&at("a.yaml")));
        let ask = |name: &str| whose.check(&json!({ "config": at(name) }));
        assert_eq!((ask("a.yaml"), ask("link.yaml")), (Ok(()), Ok(())));
        assert_eq!(whose.check(&json!({})), Ok(()));
        for other in ["b.yaml", "gone.yaml"] {
            let problem = ask(other).unwrap_err();
            assert!(problem.contains("a.yaml") && problem.contains(other), "{problem}");
        }
        fs::remove_file(at("a.yaml")).unwrap();
        assert_eq!(ask("a.yaml"), Ok(()), "the same name");
        assert!(ask("link.yaml").is_err());
        assert!(Whose::new(None).check(&json!({ "config": "/x" })).is_err());
    }
}
