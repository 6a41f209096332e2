//! `${env:NAME}` and `${file:PATH}`: in, a parsed tree; out, the same tree with the values in place.
//!
//! This happens after parsing and the values are never parsed again, so that no secret can change
//! the shape of the config. `$${` writes a literal `${`. Keys are left alone.

use std::path::Path;

use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::files::read_text;

/// Looks a variable of the environment up.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// All values of a config together, in bytes: a small file must not name a large one without end.
const MAX_TOTAL: usize = 16 << 20;

/// Substitutes in every scalar below `node`; what cannot be found is an error at its place.
pub(super) fn substitute(node: &mut Node, env: Env<'_>, cx: &mut Cx) {
    let mut budget = MAX_TOTAL;
    walk(node, env, &mut budget, cx);
}

fn walk(node: &mut Node, env: Env<'_>, budget: &mut usize, cx: &mut Cx) {
    let line = node.line;
    match &mut node.kind {
        NodeKind::Null | NodeKind::Broken => {}
        NodeKind::Seq(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                cx.in_item(i, |cx| walk(item, env, budget, cx));
            }
        }
        NodeKind::Map(entries) => {
            for (key, _, value) in entries {
                cx.in_key(key, |cx| walk(value, env, budget, cx));
            }
        }
        NodeKind::Scalar { text, written, .. } if text.contains("${") => {
            match expand(text, env, budget, &cx.base_dir) {
                Ok((expanded, replaced)) => {
                    let before = std::mem::replace(text, expanded);
                    if replaced {
                        cx.masks.value(text, &before);
                    }
                    *written = replaced.then_some(before);
                }
                Err(problem) => {
                    cx.error_at(line, problem);
                    node.kind = NodeKind::Broken;
                }
            }
        }
        NodeKind::Scalar { .. } => {}
    }
}

/// The text with its values, and whether there was any.
fn expand(
    text: &str,
    env: Env<'_>,
    budget: &mut usize,
    base: &Path,
) -> Result<(String, bool), String> {
    let mut out = String::new();
    let mut replaced = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return Err("`${` without its `}`; write `$${` for a literal `${`".to_owned());
        };
        let value = lookup(name, env, base)?;
        *budget = budget
            .checked_sub(value.len())
            .ok_or("all substituted values together have more than 16 MiB")?;
        out.push_str(&value);
        replaced = true;
        rest = after;
    }
    out.push_str(rest);
    Ok((out, replaced))
}

fn lookup(name: &str, env: Env<'_>, base: &Path) -> Result<String, String> {
    match name.split_once(':') {
        Some(("env", name)) if !name.is_empty() => {
            env(name).ok_or_else(|| format!("the environment has no variable `{name}`"))
        }
        Some(("file", path)) if !path.is_empty() => {
            let mut text = read_text(&base.join(path))?;
            // one newline at the end, as editors and `echo` write it, is not part of the value
            if text.ends_with('\n') {
                text.pop();
                if text.ends_with('\r') {
                    text.pop();
                }
            }
            Ok(text)
        }
        _ => Err(format!("`${{{name}}}` is unknown: write `${{env:NAME}}` or `${{file:PATH}}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let env = |name: &str| (name == "A").then(|| "${env:A}: [x]".to_owned());
        expand(text, &env, &mut 1000, Path::new("/nonexistent")).map(|(text, _)| text)
    }

    #[test]
    fn values_are_put_in_once() {
        assert_eq!(expanded("<${env:A}>").unwrap(), "<${env:A}: [x]>");
        assert_eq!(expanded("$${env:A} $5 $$").unwrap(), "${env:A} $5 $$");
        assert_eq!(expanded("a$${${env:A}").unwrap(), "a${${env:A}: [x]");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(expanded("${env:B}").unwrap_err().contains("`B`"));
        assert!(expanded("${file:gone}").unwrap_err().contains("/nonexistent/gone"));
        for bad in ["${A}", "${env:}", "${file:}", "${", "${env:A", "${vault:x}"] {
            assert!(expanded(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_lose_one_newline() {
        let dir = tempfile::tempdir().unwrap();
        let read = |content: &str| {
            std::fs::write(dir.path().join("f"), content).unwrap();
            lookup("file:f", &|_| None, dir.path())
        };
        assert_eq!(read("a\n\n").unwrap(), "a\n");
        assert_eq!(read("a").unwrap(), "a");
        assert_eq!(read("a\r\n").unwrap(), "a");
        assert!(read(&"x".repeat((1 << 20) + 1)).unwrap_err().contains("1 MiB"));
    }

    #[test]
    fn the_sum_is_bounded() {
        let env = |_: &str| Some("x".repeat(600));
        let mut budget = 1000;
        assert!(expand("${env:A}${env:A}", &env, &mut budget, Path::new(".")).is_err());
    }
}
