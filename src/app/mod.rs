//! The composition root: in, `Settings`; out, a running process that stops when it is told to.

mod pages;
mod stop;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::acme::{self, store::Store};
use crate::admin::Admin;
use crate::admin::ask::Asked;
use crate::base::life::{Life, Phase};
use crate::base::notify;
use crate::base::watch::Refresh;
use crate::config::admin::AdminSettings;
use crate::config::{AccessLog as LogTo, Settings};
use crate::control;
use crate::listen::accept::Front;
use crate::listen::service::{Fronts, Steady, bind};
use crate::listen::settings::ListenerSettings;
use crate::listen::tls::dates::Lists;
use crate::observe::Observer;
use crate::observe::log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::proxy::Edge;
use crate::proxy::runtime::Runtime;
use stop::Stop;

/// How often unused backend connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Runs until a stop signal. What keeps it from starting goes to stderr, a sentence a line.
pub fn run(settings: Settings) -> ExitCode {
    start_logging();
    raise_open_files();
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems.lines() {
                eprintln!("mcp-edge: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs two MCP servers and an edge with TLS in front of them.
#[cfg(feature = "demo")]
pub fn demo() -> ExitCode {
    let plan = match crate::demo::plan(crate::demo::LISTEN, &crate::demo::default_folder()) {
        Ok(plan) => plan,
        Err(e) => {
            eprintln!("mcp-edge: {e}");
            return ExitCode::FAILURE;
        }
    };
    let env = |name: &str| std::env::var(name).ok();
    match crate::config::load_text(&plan.config, &plan.folder, &env, crate::config::Mode::Run) {
        Ok(settings) => {
            println!("{}", plan.words);
            run(settings)
        }
        Err(errors) => {
            eprint!("{}", crate::config::report::errors("demo.yaml", &errors));
            ExitCode::from(2)
        }
    }
}

/// Runs one of the demo's servers by itself.
#[cfg(feature = "demo")]
pub fn demo_server(listen: SocketAddr, name: &str) -> ExitCode {
    match crate::demo::serve(listen, name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mcp-edge: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Each client takes a file descriptor, and a server's connection another. The soft limit is 1024 on most systems,
/// for the sake of programs that use `select`; the hard one is what the administrator means.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => log::info!("open files: {} at most", shown(limit.maximum)),
        Err(e) => log::warn!("open files stay at {} at most: {e}", shown(limit.current)),
    }
}

/// A limit; absent, there is none.
fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "any number".to_owned(), |limit| limit.to_string())
}

/// Warnings and worse go to stderr, and what the edge has done by itself; `RUST_LOG` asks for more. Pingora
/// tells of every start and stop at `info`, and rustls warns of what clients do before anybody knows them.
const LOGGED: &str = "warn,mcp_edge=info,rustls=error";

fn start_logging() {
    let filter = env_logger::Env::default().default_filter_or(LOGGED);
    if env_logger::Builder::from_env(filter).try_init().is_err() {
        log::debug!("logging was started before");
    }
}

fn serve(mut settings: Settings) -> Result<(), String> {
    let sockets = bind_all(&settings).map_err(|e| e.to_string())?;
    name_ports(&mut settings, &sockets);
    let settings = &settings;
    let runtime = Arc::new(Runtime::new(settings).map_err(|all| all.join("\n"))?);
    let metrics = Arc::new(Metrics::new().map_err(|e| e.to_string())?);
    let log = open_log(&settings.access_log, &metrics).map_err(|e| format!("access log: {e}"))?;
    let observer = Observer::new(metrics.clone(), log);
    let life = Arc::new(Life::new());
    let edge = Arc::new(Edge::new(runtime.clone(), observer.clone(), life.clone()));
    let fronts = fronts(settings, &sockets, &edge)?;
    let admin = settings.admin.as_ref();
    let bound = admin.map(|admin| bind(admin.listener.address, false));
    let bound = bound.transpose().map_err(|e| e.to_string())?;
    let admin = admin.zip(bound);

    let lists = Arc::new(Lists::new(pages::all_tls(settings)));

    announce(settings, &sockets, admin.as_ref().map(|(admin, (_, bound))| (*admin, *bound)));
    let mut server = Server::new_with_opt_and_conf(None, conf(settings));
    let sockets = sockets.into_iter().map(|(socket, _)| socket);
    server.add_service(Fronts::new(sockets.zip(fronts).collect(), settings.threads));
    let now = {
        let runtime = runtime.clone();
        move || runtime.clone()
    };
    let sources = pages::sources(now, settings, &observer, &life, &lists);
    let pages = Arc::new(Admin::new(sources, settings.admin.as_ref()));
    if let Some((admin, (socket, at))) = admin {
        let front = Front::new(at, Arc::new(admin.listener.clone()), pages.clone())
            .map_err(|e| format!("admin: TLS: {e}"))?;
        server.add_service(Steady::new(socket, front, pages.clone().watch()));
    }
    let noted = metrics.clone();
    let told = Box::new(move |name: &str, good: bool| noted.service.set_acme_failed(name, !good));
    acme::start(settings.acme.clone(), Store::new(&settings.state_dir), told)
        .map_err(|e| format!("ACME: {e}"))?;
    let files = Files { watched: settings.watched.clone(), lists, metrics };
    // what the edge can be asked for by its socket
    let commands: Vec<Arc<dyn control::Command>> = vec![Arc::new(Asked(pages))];
    let control = control::Server::bind(&settings.state_dir);
    let control = control.map_err(|e| log::warn!("no control socket: {e}")).ok();
    let control = Mutex::new(control.map(|server| (server, commands)));
    let times = settings.shutdown;
    let stop = Stop { edge, observer: observer.clone(), life: life.clone(), times };
    let watch = Watch { observer, runtime, files, life, control, stop };
    server.run(RunArgs { shutdown_signal: Box::new(watch) });
    Ok(())
}

fn conf(settings: &Settings) -> ServerConf {
    ServerConf {
        threads: settings.threads,
        // one runtime for all threads: pooled backend connections are polled where they are used. A
        // single thread has nothing to steal from, and the simpler runtime wakes more cheaply.
        work_stealing: settings.threads > 1,
        // ours ends first
        grace_period_seconds: Some(settings.shutdown.grace.as_secs() + 5),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn open_log(to: &LogTo, metrics: &Metrics) -> io::Result<Option<Arc<AccessLog>>> {
    let lost = metrics.service.log_lost.clone();
    Ok(match to {
        LogTo::Off => None,
        LogTo::Stdout => Some(Arc::new(AccessLog::stdout(lost)?)),
        LogTo::File(path) => Some(Arc::new(AccessLog::file(path, lost)?)),
    })
}

type Socket = (TcpListener, SocketAddr);

/// Port 0 became a real one: public URLs that were made from the route's first listener name it now.
fn name_ports(settings: &mut Settings, sockets: &[Socket]) {
    for route in &mut settings.routes {
        let mut both = settings.listeners.iter().zip(sockets);
        let serves = |l: &ListenerSettings| match l.redirect {
            None => route.is_served_at(l.address),
            Some(_) => route.names(l.address),
        };
        let Some((_, (_, bound))) = both.find(|(l, _)| serves(l)) else { continue };
        if let Some(host) = route.public_url.authority.strip_suffix(":0") {
            route.public_url.authority = format!("{host}:{}", bound.port());
        }
    }
}

/// Binds every listener; all that fail are named.
fn bind_all(settings: &Settings) -> io::Result<Vec<Socket>> {
    let (mut sockets, mut problems) = (Vec::new(), Vec::new());
    for listener in &settings.listeners {
        // `[::]` takes IPv4, too, unless another listener has that
        let address = listener.address;
        let has_v4 = |other: &ListenerSettings| {
            other.address.is_ipv4() && other.address.port() == address.port()
        };
        let v6_only =
            address.is_ipv6() && address.port() != 0 && settings.listeners.iter().any(has_v4);
        match bind(address, v6_only) {
            Ok(socket) => sockets.push(socket),
            Err(e) => problems.push(e.to_string()),
        }
    }
    if problems.is_empty() { Ok(sockets) } else { Err(io::Error::other(problems.join("\n"))) }
}

fn fronts(
    settings: &Settings,
    sockets: &[Socket],
    edge: &Arc<Edge>,
) -> Result<Vec<Front<Edge>>, String> {
    let listeners = settings.listeners.iter().zip(sockets);
    let fronts = listeners
        .map(|(listener, (_, bound))| Front::new(*bound, Arc::new(listener.clone()), edge.clone()));
    fronts.collect::<Result<_, _>>().map_err(|e| format!("TLS: {e}"))
}

/// Tells a person, or a test, where to go.
fn announce(settings: &Settings, sockets: &[Socket], admin: Option<(&AdminSettings, SocketAddr)>) {
    for (listener, (_, bound)) in settings.listeners.iter().zip(sockets) {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        eprintln!("mcp-edge: listening on {scheme}://{bound}");
    }
    if let Some((admin, bound)) = admin {
        let scheme = if admin.listener.tls.is_some() { "https" } else { "http" };
        eprintln!("mcp-edge: admin on {scheme}://{bound}");
    }
    // edges behind one balancer must agree on these
    eprintln!("mcp-edge: session keys {}", settings.session_keys.fingerprints().join(", "));
}

/// Waits for a stop signal, then sees to it that the process ends as soon as nothing is left.
struct Watch {
    observer: Observer,
    runtime: Arc<Runtime>,
    files: Files,
    life: Arc<Life>,
    /// Taken when it begins to serve.
    control: Mutex<Option<Control>>,
    stop: Stop,
}

/// The control socket, and what it can be asked for.
type Control = (control::Server, Vec<Arc<dyn control::Command>>);

/// The files that are read again when they change.
#[derive(Clone)]
struct Files {
    watched: Vec<Arc<dyn Refresh>>,
    lists: Arc<Lists>,
    metrics: Arc<Metrics>,
}

impl Files {
    /// Looks at all of them. Blocks its thread.
    fn refresh(&self) {
        for file in &self.watched {
            file.refresh();
            self.metrics.service.set_reload_failed(&file.name(), file.problem().is_some());
        }
        self.lists.look();
    }

    /// The same beside what the caller has to do: a file system that hangs must not hold up a stop.
    /// `last` is the look before, which may still be under way.
    fn refresh_aside(&self, last: &mut Option<JoinHandle<()>>) {
        if last.as_ref().is_none_or(JoinHandle::is_finished) {
            let files = self.clone();
            *last = Some(tokio::task::spawn_blocking(move || files.refresh()));
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt), Ok(hangup), Ok(user)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::hangup()),
            signal(SignalKind::user_defined1()),
        ) else {
            log::error!("cannot wait for signals");
            return ShutdownSignal::FastShutdown;
        };
        tokio::spawn(again(hangup, user, self.files.clone(), self.observer.clone()));
        self.runtime.start(&Handle::current());
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((server, commands)) = control {
            tokio::spawn(server.run(commands));
        }
        // only now: a stop signal before this would have killed the process
        self.life.reach(Phase::Ready);
        eprintln!("mcp-edge: ready");
        notify::tell("READY=1");
        let mut looking = None;
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = sweep.tick() => {
                    self.runtime.sweep();
                    self.files.refresh_aside(&mut looking);
                }
            }
        }
        self.stop.begin(terminate, interrupt).await;
        self.stop.end_when_idle();
        ShutdownSignal::GracefulTerminate
    }
}

/// Opens the log anew on SIGUSR1 and SIGHUP, and reads files again on SIGHUP; also while the edge stops,
/// which may take its time.
async fn again(mut hangup: Signal, mut user: Signal, files: Files, observer: Observer) {
    let mut looking = None;
    loop {
        let name = tokio::select! {
            _ = hangup.recv() => "SIGHUP",
            _ = user.recv() => "SIGUSR1",
        };
        log::info!("{name} was taken");
        observer.reopen();
        if name == "SIGHUP" {
            files.refresh_aside(&mut looking);
        }
    }
}
