//! The demo: in, an address and a folder; out, two running MCP servers, and the config and words for an edge before them.
//!
//! [`plan`] starts the servers and describes the rest, [`serve`] is one such server by itself.
//! The edge is then started from [`Plan::config`] like from any config file.

mod certificate;
pub mod server;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// Where the edge of the demo listens unless told otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}"#;

/// What the edge of the demo runs on, and what a person is told about it.
#[derive(Debug)]
pub struct Plan {
    /// A complete config, YAML.
    pub config: String,
    /// The folder of the config: its relative paths start here.
    pub folder: PathBuf,
    /// What to print in a terminal.
    pub words: String,
}

/// Starts two MCP servers, makes a certificate, and plans an edge on `listen`, or on a free port when that is taken.
///
/// The servers live as long as the process.
///
/// # Errors
/// When the folder cannot be written or no socket can be had.
pub fn plan(listen: SocketAddr, folder: &Path) -> io::Result<Plan> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let certificate = certificate::in_folder(&folder)?;
    let script = folder.join("sticky.sh");
    fs::write(&script, include_str!("sticky.sh"))?;
    let listen_on = free(listen)?;
    let servers = [start("a")?, start("b")?];
    let config = config(listen_on, servers, &folder, &certificate);
    fs::write(folder.join("demo.yaml"), &config)?;

    let mut words = String::new();
    if listen.port() != 0 && listen_on.port() != listen.port() {
        words =
            format!("{listen} is taken: the demo uses port {} this time.\n\n", listen_on.port());
    }
    words += &explain(listen_on, servers, &folder, &certificate.cert, &script);
    Ok(Plan { config, folder, words })
}

/// Where the demo keeps its files: `mcp-edge/demo` below `$XDG_STATE_HOME`, else `./state/demo`.
pub fn default_folder() -> PathBuf {
    match std::env::var_os("XDG_STATE_HOME") {
        Some(home) if !home.is_empty() => PathBuf::from(home).join("mcp-edge/demo"),
        _ => PathBuf::from("state/demo"),
    }
}

/// Runs one demo server until the process ends; says on stderr where it listens.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(listen: SocketAddr, name: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    eprintln!("mcp-edge: demo server on http://{}{}", listener.local_addr()?, server::PATH);
    block_on(listener, name)
}

/// Starts a demo server in a thread of its own.
fn start(name: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name(format!("demo-{name}")).spawn(move || {
        if let Err(error) = block_on(listener, name) {
            eprintln!("mcp-edge: demo server {name}: {error}");
        }
    })?;
    Ok(address)
}

fn block_on(listener: TcpListener, name: &str) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(server::serve(listener, name))
}

/// `listen`, or the same address with a port that is free now. Who takes it in between makes the edge fail to
/// start, with an error that says so.
fn free(listen: SocketAddr) -> io::Result<SocketAddr> {
    match TcpListener::bind(listen) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind((listen.ip(), 0))?.local_addr()
        }
        bound => bound?.local_addr(),
    }
}

fn config(
    listen: SocketAddr,
    [a, b]: [SocketAddr; 2],
    folder: &Path,
    certificate: &certificate::Files,
) -> String {
    let (folder, cert, key) = (quoted(folder), quoted(&certificate.cert), quoted(&certificate.key));
    format!(
        "# Written by `mcp-edge demo`; its servers are gone when it stops.
state_dir: {folder}
admin: off
listeners:
  - address: {listen}
    tls: {{ certificates: [ {{ cert: {cert}, key: {key} }} ] }}
    health_path: /healthz
upstreams:
  - name: demo
    servers: [ \"http://{a}\", \"http://{b}\" ]
routes:
  - path: {path}
    upstream: demo
    auth: [ anonymous ]
",
        path = server::PATH,
    )
}

/// A path as a YAML scalar in single quotes.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

/// A path as one word of a shell.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn explain(
    listen: SocketAddr,
    [a, b]: [SocketAddr; 2],
    folder: &Path,
    cert: &Path,
    script: &Path,
) -> String {
    let url = format!("https://{listen}{}", server::PATH);
    let json_cert = serde_json::Value::from(cert.display().to_string());
    let (folder, cert, script) = (word(folder), word(cert), word(script));
    format!(
        "mcp-edge demo: two stateful MCP servers, one edge with TLS before both.

  URL          {url}
  certificate  {cert}   (made for this machine, signed by itself)
  config       {folder}/demo.yaml
  servers      a on http://{a}{path}, b on http://{b}{path}

Ask it something:

  curl --cacert {cert} {url} -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' -d '{INITIALIZE}'

See sessions stay on their replica (each session counts on its own):

  sh {script} {url} {cert}

Claude Code:

  claude mcp add --transport http mcp-edge-demo {url}
  NODE_EXTRA_CA_CERTS={cert} claude

VS Code, .vscode/mcp.json (start it with NODE_EXTRA_CA_CERTS={cert} code .):

  {{ \"servers\": {{ \"mcp-edge-demo\": {{ \"type\": \"http\", \"url\": \"{url}\" }} }} }}

Other clients:

  {{ \"mcpServers\": {{ \"mcp-edge-demo\": {{
      \"command\": \"npx\", \"args\": [\"-y\", \"mcp-remote\", \"{url}\"],
      \"env\": {{ \"NODE_EXTRA_CA_CERTS\": {json_cert} }} }} }} }}

Below: one access-log line per request, with the replica that served it. Ctrl-C stops.
",
        path = server::PATH,
    )
}

#[cfg(test)]
mod tests;
