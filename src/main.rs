//! The binary: in, arguments; out, an exit code (0 ok, 1 runtime failure, 2 config or usage error).

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use mcp_edge::base::compile::ConfigError;
use mcp_edge::cli::{CheckArgs, Cli, Command, RunArgs};
use mcp_edge::config::{self, Mode, quick, report};

/// Clap uses the same for usage errors.
const CONFIG_ERROR: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
        #[cfg(feature = "demo")]
        Command::Demo => mcp_edge::app::demo(),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let (source, loaded) = match &args.config {
        Some(path) => (path.display().to_string(), config::load(path, &env, Mode::Run)),
        None => ("mcp-edge run".to_owned(), quick::settings(&args.flags(), &env)),
    };
    match loaded {
        Ok(settings) => mcp_edge::app::run(settings),
        Err(errors) => refuse(&source, &errors),
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    let source = args.config.display().to_string();
    let loaded = config::load(&args.config, &env, Mode::Check);
    let text = match loaded {
        Ok(settings) => report::effective(&settings),
        Err(errors) => return refuse(&source, &errors),
    };
    // a reader that went away is no reason to panic
    match text.and_then(|text| io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("mcp-edge: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(source: &str, errors: &[ConfigError]) -> ExitCode {
    eprint!("{}", report::errors(source, errors));
    ExitCode::from(CONFIG_ERROR)
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
