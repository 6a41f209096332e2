//! In: parts of a config; out: the real binary running it, its ports, its log lines. Ends with the value.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::ClientConfig;
use serde_json::Value;

use super::backend::Backend;
use super::client::{Client, Response, get};
use super::wait::Watched;

/// The binary under test; `MCP_EDGE_BIN` names another build of it.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("MCP_EDGE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_mcp-edge").into(), Into::into)
}

/// A config under construction. Each part is the inside of a YAML flow mapping.
#[derive(Default)]
pub(crate) struct Builder {
    top: String,
    listeners: Vec<String>,
    upstreams: Vec<String>,
    routes: Vec<String>,
    state: Option<PathBuf>,
}

/// An edge on one plain loopback listener, unless listeners are added.
pub(crate) fn edge() -> Builder {
    Builder::default()
}

impl Builder {
    /// A line at the top level of the config.
    pub(crate) fn top(mut self, line: &str) -> Self {
        self.top += &format!("{line}\n");
        self
    }

    /// A listener on a port of its own, such as `header_timeout: 1s`; may be empty.
    pub(crate) fn listener(mut self, rest: &str) -> Self {
        self.listeners.push(format!("address: \"127.0.0.1:0\", {rest}"));
        self
    }

    /// A listener written in full.
    pub(crate) fn raw_listener(mut self, all: &str) -> Self {
        self.listeners.push(all.to_owned());
        self
    }

    /// An upstream of these servers; `rest` may be empty.
    pub(crate) fn upstream(mut self, name: &str, servers: &[String], rest: &str) -> Self {
        let servers: Vec<_> = servers.iter().map(|s| format!("\"{s}\"")).collect();
        self.upstreams.push(format!("name: {name}, servers: [ {} ], {rest}", servers.join(", ")));
        self
    }

    /// An upstream written in full.
    pub(crate) fn raw_upstream(mut self, all: &str) -> Self {
        self.upstreams.push(all.to_owned());
        self
    }

    /// A route, such as `path: /a, upstream: a`; anonymous.
    pub(crate) fn route(mut self, rest: &str) -> Self {
        self.routes.push(format!("auth: [ anonymous ], {rest}"));
        self
    }

    /// A route that says itself who may come in.
    pub(crate) fn raw_route(mut self, all: &str) -> Self {
        self.routes.push(all.to_owned());
        self
    }

    /// One route for everything to this backend.
    pub(crate) fn to(self, backend: &Backend) -> Self {
        let url = backend.url();
        self.upstream("one", &[url], "").route("upstream: one")
    }

    /// Shares generated keys with other edges.
    pub(crate) fn state(mut self, dir: &Path) -> Self {
        self.state = Some(dir.to_owned());
        self
    }

    /// The config's text.
    pub(crate) fn yaml(&self, default_state: &Path) -> String {
        let state = self.state.as_deref().unwrap_or(default_state);
        let mut out = format!("state_dir: \"{}\"\n{}", state.display(), self.top);
        if !self.top.contains("admin:") {
            out += "admin: off\n";
        }
        if !self.top.contains("threads:") {
            out += "threads: 2\n";
        }
        let plain = vec!["address: \"127.0.0.1:0\"".to_owned()];
        let listeners = if self.listeners.is_empty() { &plain } else { &self.listeners };
        for (key, items) in
            [("listeners", listeners), ("upstreams", &self.upstreams), ("routes", &self.routes)]
        {
            out += &format!("{key}:\n");
            for item in items {
                out += &format!("  - {{ {} }}\n", item.trim().trim_end_matches(','));
            }
        }
        out
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Edge {
        self.start_with(|_| {})
    }

    /// The same with something done to the command before.
    pub(crate) fn start_with(self, change: impl FnOnce(&mut Command)) -> Edge {
        let dir = tempfile::tempdir().unwrap();
        let yaml = self.yaml(&dir.path().join("state"));
        let file = dir.path().join("mcp-edge.yaml");
        fs::write(&file, &yaml).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg("--config").arg(&file);
        change(&mut command);
        let mut edge = Edge::spawn(command, Some(dir));
        edge.wait_ready(&yaml);
        edge
    }
}

/// A running edge.
pub(crate) struct Edge {
    child: Child,
    out: Arc<Watched<Lines>>,
    err: Arc<Watched<Lines>>,
    listeners: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    dir: Option<tempfile::TempDir>,
    /// The process that has taken over.
    successor: Option<u32>,
}

/// Lines of a pipe so far.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<String>,
    pub(crate) ended: bool,
}

impl Edge {
    /// Starts a command line without waiting for anything.
    pub(crate) fn spawn(mut command: Command, dir: Option<tempfile::TempDir>) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let out = collect(child.stdout.take().unwrap());
        let err = collect(child.stderr.take().unwrap());
        Self { child, out, err, listeners: Vec::new(), admin: None, dir, successor: None }
    }

    /// Waits for `ready` and learns the ports.
    pub(crate) fn wait_ready(&mut self, context: &str) {
        let ready = self.ready_or_exited();
        assert!(ready, "not ready: {}\n{context}", self.stderr().join("\n"));
    }

    /// Waits until it is ready (and learns the ports) or has given up; which of them.
    pub(crate) fn ready_or_exited(&mut self) -> bool {
        let is_ready = |l: &String| l == "mcp-edge: ready";
        self.err.wait("the edge is ready or has ended", |e| {
            (e.ended || e.lines.iter().any(is_ready)).then_some(())
        });
        let lines = self.stderr();
        if !lines.iter().any(is_ready) {
            return false;
        }
        let after = |line: &str, mark: &str| -> Option<SocketAddr> {
            let url = line.strip_prefix(mark)?;
            url.split_once("://")?.1.trim_end_matches('/').parse().ok()
        };
        self.listeners = lines.iter().filter_map(|l| after(l, "mcp-edge: listening on ")).collect();
        self.admin = lines.iter().find_map(|l| after(l, "mcp-edge: admin on "));
        assert!(!self.listeners.is_empty(), "no listener named in {lines:?}");
        true
    }

    /// The first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    pub(crate) fn listener(&self, n: usize) -> SocketAddr {
        self.listeners[n]
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.expect("an admin listener")
    }

    /// Waits until nobody is accepted any more: what says that it stops is said a moment before.
    pub(crate) fn wait_refusing(&self) {
        while std::net::TcpStream::connect(self.address()).is_ok() {
            std::thread::yield_now();
        }
    }

    /// A fresh plain connection to the first listener.
    pub(crate) fn client(&self) -> Client {
        Client::plain(self.address())
    }

    /// A fresh TLS connection to the first listener, as `localhost`.
    pub(crate) fn tls(&self, config: Arc<ClientConfig>) -> Client {
        Client::tls(self.address(), config, "localhost")
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        self.client().ask(request)
    }

    /// `GET path` for `localhost` on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.ask(get("localhost", path))
    }

    pub(crate) fn stderr(&self) -> Vec<String> {
        self.err.look(|e| e.lines.clone())
    }

    pub(crate) fn stdout(&self) -> Vec<String> {
        self.out.look(|e| e.lines.clone())
    }

    /// Waits for an access-log line.
    pub(crate) fn log(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.out.wait(what, |o| {
            let mut parsed = o.lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).ok());
            parsed.find(|v| wanted(v))
        })
    }

    /// The log line of the answer with this `x-request-id`.
    pub(crate) fn log_of(&self, response: &Response) -> Value {
        let id = response.header("x-request-id").expect("x-request-id on every answer").to_owned();
        self.log("the request is in the access log", move |v| {
            let begun = v["event"] == "request" || v["event"] == "stream_start";
            begun && v["request_id"] == id
        })
    }

    /// Its config's file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.as_ref().expect("it was started with a config").path().join("mcp-edge.yaml")
    }

    /// Has it take another config by `mcp-edge reload`; what that command did.
    pub(crate) fn reload(&self, config: &Builder) -> Output {
        self.reload_text(&config.yaml(&self.config().with_file_name("state")))
    }

    /// The same with a config's text.
    pub(crate) fn reload_text(&self, yaml: &str) -> Output {
        fs::write(self.config(), yaml).unwrap();
        let mut command = Command::new(binary());
        command.arg("reload").arg("--config").arg(self.config()).output().unwrap()
    }

    /// Reloads, which must succeed.
    pub(crate) fn take(&self, config: &Builder) {
        let done = self.reload(config);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{told}");
    }

    /// Where it has said that it listens, so far.
    pub(crate) fn listening(&self) -> Vec<SocketAddr> {
        let lines = self.stderr();
        let urls = lines.iter().filter_map(|l| l.strip_prefix("mcp-edge: listening on "));
        urls.filter_map(|url| url.split_once("://")?.1.parse().ok()).collect()
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> u32 {
        self.successor.unwrap_or(self.child.id())
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until it has said this on stderr.
    pub(crate) fn wait_line(&self, part: &str) {
        self.err.wait(part, |e| e.lines.iter().any(|l| l.contains(part)).then_some(()));
    }

    /// Waits until both pipes have ended, then for the exit status.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        self.err.wait("the edge ends", |e| e.ended.then_some(()));
        self.out.wait("the edge ends", |o| o.ended.then_some(()));
        self.child.wait().unwrap()
    }

    /// Asks it to put the binary in its own place: the exit code, and what was said.
    pub(crate) fn upgrade(&mut self) -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        let out = command.arg("upgrade").arg("--config").arg(self.config()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let pid = said.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
        self.successor = pid.map(|pid| pid.parse().unwrap()).or(self.successor);
        (out.status.code(), said + &String::from_utf8_lossy(&out.stderr))
    }

    /// Waits for the exit of the process that was started first, whoever took over from it.
    pub(crate) fn first_exit(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Ends it as an operator would, and waits.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.exit().code(), Some(0), "{:?}", self.stderr());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // its pipes are open as long as it lives
        if let (Some(pid), false) = (self.successor, self.err.look(|e| e.ended)) {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status());
        }
        let panics: Vec<_> = self.stderr().into_iter().filter(|l| l.contains("panicked")).collect();
        if !thread::panicking() {
            assert!(panics.is_empty(), "the edge panicked: {panics:?}");
        } else if !self.stderr().is_empty() {
            eprintln!("the edge said:\n{}", self.stderr().join("\n"));
        }
    }
}

fn collect(pipe: impl Read + Send + 'static) -> Arc<Watched<Lines>> {
    let lines = Arc::new(Watched::new(Lines::default()));
    thread::spawn({
        let lines = lines.clone();
        move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.update(|l| l.lines.push(line));
            }
            lines.update(|l| l.ended = true);
        }
    });
    lines
}
