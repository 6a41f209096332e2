//! The command line: in, arguments; out, what they say. Nothing is done here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Edge proxy for unmodified MCP servers.
#[derive(Debug, Parser)]
#[command(name = "mcp-edge", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the edge, with a config file or with `--to` alone.
    Run(RunArgs),
    /// Put the binary that is now in its place in the place of a running one: connections are accepted all the time.
    Upgrade(ReloadArgs),
    /// Check a config file and print what would run; all mistakes at once, exit code 2.
    Check(CheckArgs),
    /// Have the running edge load its config anew. Exit codes: 0 it is at work; 2 it is wrong, and nothing was
    /// changed; 1 no edge could be asked.
    Reload(ReloadArgs),
    /// Ask a running edge whether it is well: exit code 0 if it is, 1 if not. For health checks of containers.
    Health(HealthArgs),
    /// Print how the edge that runs stands: what its status page shows.
    Status(StatusArgs),
    /// Say what a request would meet, stage by stage, and why. Nothing is sent; exit code 3: it would be refused.
    Explain(ExplainArgs),
    /// Write a config that says the same as another proxy's.
    #[command(subcommand)]
    Import(ImportFrom),
    /// Make API keys.
    Key {
        /// What to do.
        #[command(subcommand)]
        command: KeyCommand,
    },
    #[cfg(feature = "demo")]
    /// Run two stateful MCP servers and the edge with TLS in front of them.
    Demo,
    #[cfg(feature = "demo")]
    /// One of the demo's servers by itself, for tests.
    #[command(hide = true)]
    DemoServer {
        /// Where to listen.
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// What it calls itself.
        #[arg(long, default_value = "a")]
        name: String,
    },
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Print a new key, its SHA-256 sum and the lines for the config; nothing is kept.
    New(KeyArgs),
}

/// Arguments of `key new`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Whose key it is.
    #[arg(long, value_name = "NAME", default_value = "new")]
    pub name: String,
    /// What it begins with.
    #[arg(long, value_name = "TEXT", default_value = "mcpk_")]
    pub prefix: String,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The config file.
    #[arg(long, value_name = "FILE", conflicts_with = "to", required_unless_present = "to")]
    pub config: Option<PathBuf>,
    /// A server, as http://host:port; again for each replica.
    #[arg(long, value_name = "URL")]
    pub to: Vec<String>,
    /// Where to listen [default: 127.0.0.1:8080].
    #[arg(long, value_name = "IP:PORT", conflicts_with = "config")]
    pub listen: Option<SocketAddr>,
    /// Take the listeners over from the edge that runs with the same state folder, which then ends.
    #[arg(long)]
    pub upgrade: bool,
    /// Speak TLS with a certificate of our own, kept in the state folder.
    #[arg(long, conflicts_with = "config")]
    pub tls_self_signed: bool,
    /// Let everybody in, also from other machines.
    #[arg(long, conflicts_with = "config")]
    pub anonymous: bool,
    /// Speak plain HTTP, also with other machines.
    #[arg(long, conflicts_with = "config")]
    pub plaintext: bool,
    /// Serve metrics here; a loopback address.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "config")]
    pub admin: Option<SocketAddr>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// A page of the admin listener, or a listener's `health_path`.
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9900/healthz")]
    pub url: String,
}

/// Arguments of `reload` and `upgrade`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// The config file that the edge runs with: its `state_dir` is where the edge is found.
    #[arg(long, value_name = "FILE", required_unless_present = "state_dir")]
    pub config: Option<PathBuf>,
    /// The state folder, where it cannot be read from the file.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The config that the edge runs with.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its admin listener [default: the config's, or http://127.0.0.1:9900].
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub url: Option<String>,
    /// CAs for that listener, besides the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What to show it, such as `X-API-Key: …`; again for each.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Print JSON, as the listener's /status.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The HTTP method.
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// What the client types.
    #[arg(value_name = "URL")]
    pub url: String,
    /// A field of the request; again for each.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The client's address.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub from: IpAddr,
    /// The tool that is called.
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// The listener that it comes in on, as the config has it [default: the first that fits the URL].
    #[arg(long, value_name = "IP:PORT")]
    pub listener: Option<SocketAddr>,
}

/// Whose config is imported.
#[derive(Debug, Subcommand)]
pub enum ImportFrom {
    /// Import an nginx.conf and all that it includes.
    ///
    /// What is not carried to the letter is listed on stderr and at the end of the config. Exit codes:
    /// 0 carried; 3 written, but something that restricts could not be carried, and what it stood over
    /// refuses; 2 the file cannot be read, nothing is written; 1 the config cannot be written.
    Nginx(ImportArgs),
}

/// Arguments of `import nginx`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file, such as /etc/nginx/nginx.conf.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the config is written, over nothing that is there; absent: stdout.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// certbot's folder [default: the one that the certificates are in].
    #[arg(long, value_name = "DIR")]
    pub letsencrypt: Option<PathBuf>,
    /// Where certbot is to put answers to challenges, where nginx does not say it [default: /var/www/html].
    #[arg(long, value_name = "DIR")]
    pub webroot: Option<String>,
}
