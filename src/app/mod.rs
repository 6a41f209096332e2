//! The composition root: in, `Settings`; out, a running process that stops when it is told to.

mod desk;
mod files;
mod first;
mod heir;
mod logs;
mod pages;
mod reload;
mod sockets;
mod stop;
pub mod upgrade;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use crate::admin::Admin;
use crate::admin::ask::Asked;
use crate::base::life::{Life, Phase};
use crate::base::notify;
use crate::config::admin::AdminSettings;
use crate::config::{Settings, report};
use crate::control::{Command, Whose};
use crate::listen::accept::Front;
use crate::listen::place::Post;
use crate::listen::service::{Fronts, Opening};
use crate::observe::Observer;
use crate::observe::metrics::Metrics;
use crate::proxy::Edge;
use crate::proxy::runtime::Runtime;
use desk::Desk;
use files::{Files, Look};
use reload::{Listening, Reload, Reloader, State, keep_certificates};
use sockets::{Socket, bind_all, name_ports};
use stop::{Ending, Stop};
use upgrade::{Held, Inherited, Invocation, admin_name};

/// How often unused backend connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Runs until a stop signal, or until another process takes over. `source` is the config's file, to be loaded again;
/// `takes_over`: from an edge that runs now. What keeps it from starting goes to stderr, a sentence a line.
pub fn run(settings: Settings, source: Option<PathBuf>, takes_over: bool) -> ExitCode {
    start_logging();
    raise_open_files();
    let named = source.as_ref().map(|path| path.display().to_string());
    let warnings = report::warnings(named.as_deref().unwrap_or("mcp-edge run"), &settings);
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    match serve(settings, source, takes_over) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems.lines() {
                eprintln!("mcp-edge: {problem}");
            }
            upgrade::unable(&problems);
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
            run(settings, None, false)
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

fn serve(settings: Settings, source: Option<PathBuf>, takes_over: bool) -> Result<(), String> {
    // what the first config says is gone when the second is at work
    let (server, watch, ending) = assembled(settings, source, takes_over)?;
    let observer = watch.work.observer.clone();
    server.run(RunArgs { shutdown_signal: Box::new(watch) });
    // what was left is cut; the thread that waits for its last words ends the process
    let why = ending.join();
    observer.flush();
    Err(format!("the process did not end as it should: {why}"))
}

fn assembled(
    mut settings: Settings,
    source: Option<PathBuf>,
    takes_over: bool,
) -> Result<(Server, Watch, Ending), String> {
    let own = Invocation::own().map_err(|e| format!("no name of the own binary: {e}"))?;
    let mut inherited = match takes_over {
        true => Inherited::take(&settings.state_dir)?,
        false => Inherited::default(),
    };
    let relieves = inherited.any;
    let held = Arc::new(Held::new());
    let sockets = bind_all(&settings, &mut inherited, &held)?;
    name_ports(&mut settings, &sockets.iter().map(|(_, bound)| *bound).collect::<Vec<_>>());
    let settings = &settings;
    let runtime = Arc::new(Runtime::new(settings).map_err(|all| all.join("\n"))?);
    let metrics = Arc::new(Metrics::new().map_err(|e| e.to_string())?);
    let observer = logs::observer(settings, &metrics)?;
    let life = Arc::new(Life::new());
    let edge = Arc::new(Edge::new(runtime, observer.clone(), life.clone()));
    let posts = posts(settings, &sockets, &edge)?;
    let admin = bound_admin(settings, &mut inherited, &held)?;
    // what the config has no more
    drop(inherited);

    let files = Arc::new(ArcSwap::from_pointee(Files::new(settings)));
    announce(settings, &sockets, admin.as_ref().map(|(admin, (_, bound))| (*admin, *bound)));
    let mut server = Server::new_with_opt_and_conf(None, conf(settings));
    let (close_fronts, closing_fronts) = watch::channel(false);
    let (fronts, opener) = Fronts::new(settings.threads, closing_fronts);
    server.add_service(fronts);
    let sources = pages::sources(&edge, &observer, &life, &files);
    let pages = Arc::new(Admin::new(sources, settings.admin.as_ref()));
    let (close, closing) = watch::channel(false);
    if let Some((admin, bound)) = admin {
        pages::serve(&mut server, admin, bound, &pages, closing)?;
    }
    let acme = (settings.acme.clone(), keep_certificates(settings, &observer)?);
    let open = open(settings, sockets, posts, &opener);
    let (kept, fixed) = (settings.kept.clone(), settings.fixed.clone());
    let state = Mutex::new(State { kept, open, fixed, acme });
    let (ender, ending) = Ending::new();
    let stop = Stop {
        edge: edge.clone(),
        observer: observer.clone(),
        life: life.clone(),
        times: settings.shutdown,
        held: held.clone(),
        fronts: close_fronts,
        pages: close,
        ender: Mutex::new(Some(ender)),
    };
    let (upgrades, retiring) = upgrade::commands(own, held.clone(), &settings.state_dir);
    let whose = Whose::new(source.as_deref());
    let work = Arc::new(Reloader { source, edge, observer, life, files, opener, held, state });
    let commands = commands(&work, &pages).into_iter().chain(upgrades).collect();
    let state_dir = settings.state_dir.clone();
    let desk = Desk { state_dir, commands, whose, relieves, retiring };
    Ok((server, Watch { work, desk: Mutex::new(Some(desk)), stop }, ending))
}

/// The admin listener with its socket, where there is one.
fn bound_admin<'s>(
    settings: &'s Settings,
    inherited: &mut Inherited,
    held: &Held,
) -> Result<Option<(&'s AdminSettings, Socket)>, String> {
    let Some(admin) = &settings.admin else { return Ok(None) };
    let name = admin_name(admin.listener.address);
    let bound = inherited.bind(&name, admin.listener.address, false).map_err(|e| e.to_string())?;
    held.keep(&name, &bound.0);
    Ok(Some((admin, bound)))
}

fn conf(settings: &Settings) -> ServerConf {
    ServerConf {
        threads: settings.threads,
        // one runtime for all threads: pooled backend connections are polled where they are used. A
        // single thread has nothing to steal from, and the simpler runtime wakes more cheaply.
        work_stealing: settings.threads > 1,
        ..ServerConf::default()
    }
}

/// Who receives at each listener.
fn posts(
    settings: &Settings,
    sockets: &[Socket],
    edge: &Arc<Edge>,
) -> Result<Vec<Arc<Post<Edge>>>, String> {
    let listeners = settings.listeners.iter().zip(sockets);
    let posts = listeners.map(|(listener, (_, bound))| {
        Front::new(*bound, Arc::new(listener.clone()), edge.clone()).map(Post::new)
    });
    posts.collect::<Result<_, _>>().map_err(|e| format!("TLS: {e}"))
}

/// Sends the sockets to the service that is to accept there.
fn open(
    settings: &Settings,
    sockets: Vec<Socket>,
    posts: Vec<Arc<Post<Edge>>>,
    opener: &UnboundedSender<Opening<Edge>>,
) -> Vec<Listening> {
    let all = settings.listeners.iter().zip(sockets).zip(posts);
    let open = all.map(|((listener, (socket, bound)), post)| {
        if opener.send((socket, post.clone())).is_err() {
            log::error!("{bound} is not listened at");
        }
        Listening { address: listener.address, bound, post }
    });
    open.collect()
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
    work: Arc<Reloader>,
    /// Taken when it begins to serve.
    desk: Mutex<Option<Desk>>,
    stop: Stop,
}

/// What the edge can be asked for by its control socket.
fn commands(work: &Arc<Reloader>, pages: &Arc<Admin>) -> Vec<Arc<dyn Command>> {
    vec![Arc::new(Reload(work.clone())), Arc::new(Asked(pages.clone()))]
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
        let work = &self.work;
        tokio::spawn(again(user, work.observer.clone()));
        tokio::spawn(anew(hangup, work.clone()));
        work.edge.runtime().start(&Handle::current());
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(desk) = desk else { return ShutdownSignal::FastShutdown };
        let mut desk = desk.open().await;
        // only now: a stop signal before this would have killed the process
        work.life.reach(Phase::Ready);
        eprintln!("mcp-edge: ready");
        notify::tell("READY=1");
        let mut look = Look::default();
        let mut sweep = tokio::time::interval(SWEEP);
        let relieved = loop {
            tokio::select! {
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                word = desk.relieved() => break Some(word),
                _ = sweep.tick() => {
                    work.edge.runtime().sweep();
                    let looks = work.clone();
                    look.aside(Instant::now(), &work.observer.metrics, move || looks.look());
                }
            }
        };
        let hurry = match relieved {
            None => self.stop.begin(terminate, interrupt).await,
            Some(word) => {
                desk.close(word).await;
                self.stop.retire(terminate, interrupt)
            }
        };
        self.stop.end(hurry).await;
        // its other ways wait for times of their own
        ShutdownSignal::FastShutdown
    }
}

/// Opens the log anew on SIGUSR1; also while the edge stops, which may take its time.
async fn again(mut user: Signal, observer: Observer) {
    while user.recv().await.is_some() {
        log::info!("SIGUSR1 was taken");
        observer.reopen();
    }
}

/// On SIGHUP the same, and the config is loaded anew; where there is no file of it, the files that it names.
/// Several that come meanwhile are one.
async fn anew(mut hangup: Signal, work: Arc<Reloader>) {
    let (mut wanted, mut running) = (false, None);
    loop {
        tokio::select! {
            heard = hangup.recv() => {
                if heard.is_none() {
                    return;
                }
                log::info!("SIGHUP was taken");
                // at once, also while a reload waits for a file system
                work.observer.reopen();
                wanted = true;
            }
            done = ended(&mut running) => {
                running = None;
                done.unwrap_or_else(|e| log::error!("the config was not reloaded: {e}"));
            }
        }
        if wanted && running.is_none() {
            wanted = false;
            let work = work.clone();
            running = Some(tokio::task::spawn_blocking(move || work.on_signal()));
        }
    }
}

/// Waits for the end of a task; for ever where there is none.
async fn ended(task: &mut Option<JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
