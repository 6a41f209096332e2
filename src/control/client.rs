//! The other end of the control socket: in, a question for a running edge; out, its answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// Longest answer, in bytes: the state of many upstreams.
const MAX_ANSWER: u64 = 16 << 20;
/// For an answer: names may have to be looked up on the way.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The generation of the config that is at work now.
    pub generation: u64,
    /// What did not take effect, or is not as it should be.
    pub notes: Vec<String>,
    /// Why nothing was changed; empty where the config is at work.
    pub errors: Vec<String>,
}

/// A question for the edge that runs with a config; for whichever answers where none is named.
pub fn question(what: &str, config: Option<&Path>) -> Value {
    let config = config.map(|path| super::whose::whole(path).to_string_lossy().into_owned());
    match config {
        Some(config) => json!({ "do": what, "config": config }),
        None => json!({ "do": what }),
    }
}

/// Has the edge that runs with one of these state folders, and with this config where one is named, load it anew.
///
/// # Errors
/// As [`ask_first`].
pub fn reload(state_dirs: &[PathBuf], config: Option<&Path>) -> Result<Reloaded, String> {
    let answer = ask_first(state_dirs, &question("reload", config))?;
    if let (Some(problem), None) = (error(&answer), answer.get("generation")) {
        // it was not taken for a reload at all
        return Err(problem.to_owned());
    }
    let texts = |key: &str| {
        let all = answer.get(key).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let (notes, mut errors) = (texts("notes"), texts("errors"));
    if answer.get("ok") != Some(&Value::Bool(true)) && errors.is_empty() {
        let error = answer.get("error").and_then(Value::as_str);
        errors.push(error.unwrap_or("the edge's answer cannot be understood").to_owned());
    }
    let generation = answer.get("generation").and_then(Value::as_u64).unwrap_or_default();
    Ok(Reloaded { generation, notes, errors })
}

/// What an answer says against its question.
pub fn error(answer: &Value) -> Option<&str> {
    answer.get("error").and_then(Value::as_str)
}

/// Asks the first edge that runs with one of these state folders, and is the one that is meant. Blocks its thread.
///
/// # Errors
/// Each place that was tried, with a sentence; or that the edge was reached, and does not answer.
pub fn ask_first(state_dirs: &[PathBuf], question: &Value) -> Result<Value, String> {
    let mut problems = Vec::new();
    for folder in state_dirs {
        match connect(&super::path(folder)) {
            Ok(socket) => {
                let answer = converse(socket, question)?;
                match error(&answer).filter(|_| answer.get(super::ANOTHER).is_some()) {
                    Some(problem) => problems.push(problem.to_owned()),
                    None => return Ok(answer),
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    Err(problems.join("; "))
}

/// Asks the edge that runs with this state folder. Blocks its thread.
///
/// # Errors
/// A sentence: nobody answers there, or not in time.
pub fn ask(state_dir: &Path, question: &Value) -> Result<Value, String> {
    ask_at(&super::path(state_dir), question)
}

/// The same at a socket.
///
/// # Errors
/// As [`ask`].
pub fn ask_at(path: &Path, question: &Value) -> Result<Value, String> {
    converse(connect(path)?, question)
}

fn connect(path: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(path)
        .map_err(|e| format!("no edge can be reached by `{}`: {e}", path.display()))
}

fn converse(mut socket: UnixStream, question: &Value) -> Result<Value, String> {
    let mut answer = String::new();
    let line = format!("{question}\n");
    let asked = socket
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| socket.write_all(line.as_bytes()))
        .and_then(|()| BufReader::new(socket.take(MAX_ANSWER)).read_line(&mut answer));
    asked.map_err(|e| format!("the edge does not answer: {e}"))?;
    serde_json::from_str(&answer).map_err(|_| "the edge went away without an answer".to_owned())
}
