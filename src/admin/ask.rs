//! `mcp-edge status`: in, a config or a URL; out, how the edge that runs with it stands.
//!
//! The control socket is asked first: who may open it needs no password. Then the admin listener.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::Admin;
use super::status::Status;
use crate::base::fetch::{self, Fetch};
use crate::config::admin::AdminSettings;
use crate::config::{self, Env, Settings};
use crate::control::{Command, Reply, client};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers `{"do":"status"}` on the control socket.
pub struct Asked(pub Arc<Admin>);

impl Command for Asked {
    fn name(&self) -> &'static str {
        "status"
    }

    fn run<'a>(&'a self, _: &'a Value, _: &'a UnixStream) -> Reply<'a> {
        Box::pin(async { json!({ "ok": true, "status": self.0.status() }) })
    }
}

/// Where an edge can be asked.
#[derive(Debug, Default)]
pub struct Places {
    /// Where its control socket may be, in the order in which they are tried.
    pub state_dirs: Vec<PathBuf>,
    /// The config that it runs with.
    pub config: Option<PathBuf>,
    /// Its admin listener, such as `http://127.0.0.1:9900`.
    pub url: Option<String>,
    /// A CA for that listener, besides the system's.
    pub ca: Option<PathBuf>,
    /// What to show it.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

impl Places {
    /// An admin listener that is named.
    pub fn at(url: String) -> Self {
        Self { url: Some(url), ..Self::default() }
    }

    /// Those of an edge that is told nothing else.
    pub fn usual(env: Env<'_>) -> Self {
        let state_dirs = config::usual_state_dirs(Path::new(""), env);
        Self { state_dirs, ..Self::at(AdminSettings::usual().url()) }
    }

    /// Those of a config file; of one that is broken by now, the state folders alone.
    pub fn of(config: &Path, state_dirs: Vec<PathBuf>, settings: Option<&Settings>) -> Self {
        let admin = settings.and_then(|settings| settings.admin.as_ref());
        let url = admin.map(AdminSettings::url);
        let config = Some(config.to_owned());
        Self { state_dirs, config, url, ..Self::default() }
    }
}

/// Asks the first place that answers. Blocks its thread.
///
/// # Errors
/// A sentence for each place.
pub fn ask(places: Places) -> Result<Status, String> {
    let mut problems = Vec::new();
    if !places.state_dirs.is_empty() {
        let question = client::question("status", places.config.as_deref());
        match client::ask_first(&places.state_dirs, &question) {
            Ok(mut answer) => match answer.get_mut("status") {
                Some(status) => return read(status.take()),
                None => problems.push(refused(&answer)),
            },
            Err(problem) => problems.push(problem),
        }
    }
    match places.url.clone() {
        Some(url) => match by_http(&url, places) {
            Ok(answer) => return read(answer),
            Err(problem) => problems.push(problem),
        },
        None => problems.push("the config names no admin listener that could be asked".to_owned()),
    }
    Err(problems.join("\n"))
}

/// What an edge says that does not tell how it stands.
fn refused(answer: &Value) -> String {
    let said = answer.get("error").and_then(Value::as_str);
    format!("the edge does not say how it stands: {}", said.unwrap_or("no reason is given"))
}

fn read(answer: Value) -> Result<Status, String> {
    let other = |e| format!("the edge is of another version, and cannot be understood: {e}");
    serde_json::from_value(answer).map_err(other)
}

fn by_http(url: &str, places: Places) -> Result<Value, String> {
    let url = fetch::target(&format!("{}/status", url.trim_end_matches('/')), true)?;
    let (told, answer) = mpsc::channel();
    fetch::spawn(async move {
        drop(told.send(asked(&url, &places).await));
    })?;
    answer.recv().map_err(|_| "the answer was lost".to_owned())?
}

async fn asked(url: &Uri, places: &Places) -> Result<Value, String> {
    let fetch = Fetch::new(places.ca.as_deref(), PATIENCE)?;
    let answer = fetch.get_with(url, &places.fields).await?;
    serde_json::from_slice(&answer).map_err(|e| format!("{url} is no edge's: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Server, Whose};
    use tokio::sync::oneshot;

    #[test]
    fn what_the_edge_says_instead_is_told_and_the_next_place_asked() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let whose = Whose::new(None);
        let server = runtime.block_on(Server::open(folder.path().into(), Vec::new(), whose));
        let (_close, closing) = oneshot::channel();
        runtime.spawn(server.run(closing));
        let places = Places { state_dirs: vec![folder.path().into()], ..Places::default() };
        let told = ask(places).unwrap_err();
        assert!(told.contains("does not say how it stands: unknown `do`"), "{told}");
        assert!(told.contains("no admin listener"), "{told}");
    }
}
