//! The binary: in, arguments; out, an exit code (0 ok, 1 runtime failure, 2 config or usage
//! error, 3 imported or explained with refusals).

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mcp_edge::admin::health;
use mcp_edge::admin::{ask, explain, terminal};
use mcp_edge::auth::api_key::key;
use mcp_edge::base::compile::ConfigError;
use mcp_edge::cli::{
    CheckArgs, Cli, Command, ExplainArgs, HealthArgs, ImportArgs, ImportFrom, KeyArgs, KeyCommand,
    ReloadArgs, RunArgs, StatusArgs,
};
use mcp_edge::config::quick::{self, Flags};
use mcp_edge::config::writable::unwritable;
use mcp_edge::config::{self, Mode, report};
use mcp_edge::control::{self, client::Reloaded};
use mcp_edge::import;

/// -11 % instructions per request against glibc's, measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
        Command::Reload(args) => reload(&args),
        Command::Upgrade(args) => upgrade(&args),
        Command::Health(args) => health(&args),
        Command::Status(args) => status(&args),
        Command::Explain(args) => explain(&args),
        Command::Import(ImportFrom::Nginx(args)) => import(&args),
        Command::Key { command: KeyCommand::New(args) } => new_key(&args),
        #[cfg(feature = "demo")]
        Command::Demo => mcp_edge::app::demo(),
        #[cfg(feature = "demo")]
        Command::DemoServer { listen, name } => mcp_edge::app::demo_server(listen, &name),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let (source, loaded) = match &args.config {
        Some(path) => (path.display().to_string(), config::load(path, &env, Mode::Run)),
        None => ("mcp-edge run".to_owned(), quick::settings(&flags(args), &env)),
    };
    match loaded {
        Ok(settings) => mcp_edge::app::run(settings, args.config.clone(), args.upgrade),
        Err(errors) => {
            mcp_edge::app::upgrade::unable(&report::errors(&source, &errors));
            refuse(&source, &errors)
        }
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    let source = args.config.display().to_string();
    let loaded = config::load(&args.config, &env, Mode::Check);
    let text = match loaded {
        Ok(settings) => {
            let unwritable = unwritable(&settings);
            if !unwritable.errors.is_empty() {
                return refuse(&source, &unwritable.errors);
            }
            let warnings = report::warnings(&source, &settings);
            let notes = warnings.iter().chain(&unwritable.notes);
            notes.for_each(|note| eprintln!("warning: {note}"));
            let files = report::certificate_files(&settings);
            import::warnings(&files).iter().for_each(|warning| eprintln!("warning: {warning}"));
            report::effective(&settings)
        }
        Err(errors) => return refuse(&source, &errors),
    };
    match text {
        Ok(text) => print(&text),
        Err(_) => ExitCode::FAILURE,
    }
}

fn health(args: &HealthArgs) -> ExitCode {
    match health::ask(&args.url) {
        Ok(text) => print(&text),
        Err(problem) => {
            eprintln!("mcp-edge health: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn reload(args: &ReloadArgs) -> ExitCode {
    let config = args.config.as_deref();
    let answer = state_dirs(args).and_then(|folders| control::client::reload(&folders, config));
    match answer {
        Ok(Reloaded { generation, notes, errors }) if errors.is_empty() => {
            notes.iter().for_each(|note| eprintln!("warning: {note}"));
            print(&format!("generation {generation} of the config is at work\n"))
        }
        Ok(Reloaded { generation, errors, .. }) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            eprintln!("nothing was changed: generation {generation} of the config goes on");
            ExitCode::from(2)
        }
        Err(problem) => {
            eprintln!("mcp-edge reload: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Where a running edge may be found.
fn state_dirs(args: &ReloadArgs) -> Result<Vec<PathBuf>, String> {
    match (&args.state_dir, &args.config) {
        (Some(folder), _) => Ok(vec![folder.clone()]),
        (None, Some(config)) => config::state_dirs(config, &env),
        (None, None) => Err("which edge? Name its config or its state folder".to_owned()),
    }
}

fn upgrade(args: &ReloadArgs) -> ExitCode {
    let config = args.config.as_deref();
    match state_dirs(args).and_then(|folders| mcp_edge::app::upgrade::ask(&folders, config)) {
        Ok(pid) => print(&format!("process {pid} has taken over\n")),
        Err(problem) => {
            eprintln!("mcp-edge upgrade: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn status(args: &StatusArgs) -> ExitCode {
    let asked = places(args).and_then(ask::ask);
    match asked {
        Ok(status) if args.json => match serde_json::to_string_pretty(&status) {
            Ok(text) => print(&(text + "\n")),
            Err(_) => ExitCode::FAILURE,
        },
        Ok(status) => print(&terminal::text(&status)),
        Err(problems) => {
            problems.lines().for_each(|problem| eprintln!("mcp-edge status: {problem}"));
            ExitCode::FAILURE
        }
    }
}

/// Where the edge can be asked, also where its config is broken by now.
fn places(args: &StatusArgs) -> Result<ask::Places, String> {
    let fields = explain::fields(&args.headers)?;
    let mut places = match (&args.config, &args.url) {
        (_, Some(url)) => ask::Places::at(url.clone()),
        (None, None) => ask::Places::usual(&env),
        (Some(path), None) => {
            let settings = config::load(path, &env, Mode::Check).ok();
            ask::Places::of(path, config::state_dirs(path, &env)?, settings.as_ref())
        }
    };
    places.fields = fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    places.ca = args.ca.clone();
    Ok(places)
}

fn explain(args: &ExplainArgs) -> ExitCode {
    let settings = match config::load(&args.config, &env, Mode::Check) {
        Ok(settings) => settings,
        Err(errors) => return refuse(&args.config.display().to_string(), &errors),
    };
    let ExplainArgs { method, url, headers, from, listener, .. } = args;
    let (tool, from, listener) = (args.tool.as_deref(), *from, *listener);
    let asked = explain::Request { method, url, headers, from, tool, listener }.read();
    let explained = asked.and_then(|asked| explain::explain_here(&settings, &asked));
    match explained {
        Ok(explained) if explained.refused => {
            print(&explained.text());
            ExitCode::from(3)
        }
        Ok(explained) => print(&explained.text()),
        Err(problem) => {
            eprintln!("mcp-edge explain: {problem}");
            ExitCode::from(2)
        }
    }
}

fn new_key(args: &KeyArgs) -> ExitCode {
    match key::new(&args.prefix) {
        Ok(new) => print(&key::lines(&new, &args.name)),
        Err(problem) => {
            eprintln!("mcp-edge key new: {problem}");
            ExitCode::from(2)
        }
    }
}

/// A reader that went away is no reason to panic.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn import(args: &ImportArgs) -> ExitCode {
    let options =
        import::Options { letsencrypt: args.letsencrypt.clone(), webroot: args.webroot.clone() };
    // the config may stand elsewhere than nginx's file: its paths are whole
    let file = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    let imported = match import::import(&file, &options) {
        Ok(imported) => imported,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    eprint!("{}", imported.report());
    let written = match &args.output {
        None => io::stdout().write_all(imported.yaml.as_bytes()),
        // a config may hold credentials, and one that is there is never lost
        Some(path) => OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(path)
            .and_then(|mut file| file.write_all(imported.yaml.as_bytes())),
    };
    if let Err(e) = written {
        let name = args.output.as_ref().map_or("stdout".into(), |path| path.display().to_string());
        eprintln!("cannot write `{name}`: {e}");
        return ExitCode::FAILURE;
    }
    if imported.refuses() { ExitCode::from(import::REFUSED) } else { ExitCode::SUCCESS }
}

fn flags(args: &RunArgs) -> Flags {
    let (to, listen, admin) = (args.to.clone(), args.listen, args.admin);
    let RunArgs { tls_self_signed, anonymous, plaintext, .. } = *args;
    Flags { to, listen, tls_self_signed, anonymous, plaintext, admin }
}

fn refuse(source: &str, errors: &[ConfigError]) -> ExitCode {
    eprint!("{}", report::errors(source, errors));
    ExitCode::from(2) // clap's code for usage errors, too
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
