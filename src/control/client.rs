//! The other end of the control socket: in, a question for a running edge; out, its answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Longest answer, in bytes: the state of many upstreams.
const MAX_ANSWER: u64 = 16 << 20;
/// For an answer: names may have to be looked up on the way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the edge that runs with this state folder. Blocks its thread.
///
/// # Errors
/// A sentence: nobody answers there, or not in time.
pub fn ask(state_dir: &Path, question: &Value) -> Result<Value, String> {
    let path = super::path(state_dir);
    let mut socket = UnixStream::connect(&path)
        .map_err(|e| format!("no edge can be reached by `{}`: {e}", path.display()))?;
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
