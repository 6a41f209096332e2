//! A binary that takes the place of another while both run: in, what the control socket is asked; out, the same
//! listening sockets in a new process, and an old one that ends.
//!
//! The running edge starts the new binary as itself was started, with `--upgrade`. The new one takes the
//! listening sockets over the control socket, binds what it has beyond them, begins to accept, and only then
//! tells the old one to retire. A listening socket is one queue however many processes hold it: no connection is
//! refused in between. Whatever goes wrong before leaves the old one at work.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::first::may_be_replaced;
use super::heir::{self, Heir};
use crate::base::notify;
use crate::control::pass::{self, Named};
use crate::control::{self, Command, Reply, client, failed};
use crate::listen::service::bind;

/// The argument that makes a new process take over.
pub const FLAG: &str = "--upgrade";
/// For a new process to be at work; it reads its config, files and providers' keys.
const PATIENCE: Duration = Duration::from_secs(55);
/// How often it is looked at whether a new process still lives.
const LOOK: Duration = Duration::from_millis(50);
/// In the environment of a new process: the control socket of who has started it.
const STARTED_BY: &str = "MCP_EDGE_STARTED_BY";
/// Most of what a new process says of its failure, in bytes: it has to fit in a question.
const MAX_PROBLEM: usize = 3 * 1024;

/// The admin listener's name among the sockets; others' are their addresses as the config has them.
pub(super) fn admin_name(address: SocketAddr) -> String {
    format!("admin {address}")
}

/// How the process was started.
#[derive(Debug)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
}

impl Invocation {
    /// Of this process; asked early, because the file may be replaced later.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn own() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let called = PathBuf::from(arguments.next().unwrap_or_default());
        // By the name that it was called by: that may be a link which points to another version later. One
        // without a folder was found in PATH.
        let program = match called.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => std::path::absolute(called)?,
            _ => std::env::current_exe()?,
        };
        let arguments = arguments.filter(|argument| argument != FLAG).collect();
        Ok(Self { program, arguments, folder: std::env::current_dir()? })
    }

    fn again(&self, asked_at: &Path) -> io::Result<Child> {
        Process::new(&self.program)
            .args(&self.arguments)
            .arg(FLAG)
            .env(STARTED_BY, asked_at)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .spawn()
    }
}

/// Listening sockets of the process before, each until it is asked for.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sockets: VecDeque<Named>,
    /// Whether there is a process before.
    pub(super) any: bool,
}

impl Inherited {
    /// Asks the edge that runs with this state folder for its sockets; nothing where none runs.
    ///
    /// # Errors
    /// A sentence: it answers, but does not give them.
    pub(super) fn take(state_dir: &Path) -> Result<Self, String> {
        let Ok(mut peer) = net::UnixStream::connect(control::path(state_dir)) else {
            log::warn!("no edge is running to take over from");
            return Ok(Self::default());
        };
        peer.set_read_timeout(Some(PATIENCE))
            .and_then(|()| peer.write_all(b"{\"do\":\"sockets\"}\n"))
            .map_err(|e| format!("the running edge cannot be asked for its sockets: {e}"))?;
        Ok(Self { sockets: pass::take(&peer)?, any: true })
    }

    /// The socket of this name; a new one where there is none.
    ///
    /// # Errors
    /// The system's, with the address in front.
    pub(super) fn bind(
        &mut self,
        name: &str,
        address: SocketAddr,
        v6_only: bool,
    ) -> io::Result<(TcpListener, SocketAddr)> {
        let place = self.sockets.iter().position(|(named, _)| named == name);
        match place.and_then(|place| self.sockets.remove(place)) {
            Some((_, socket)) => socket.local_addr().map(|bound| (socket, bound)),
            None => bind(address, v6_only),
        }
    }
}

/// Listening sockets as they can be passed on.
#[derive(Debug)]
pub(super) struct Held(Mutex<Option<Vec<Named>>>);

impl Held {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Keeps one more.
    pub(super) fn keep(&self, name: &str, socket: &TcpListener) {
        match socket.try_clone() {
            Ok(copy) => self.all(|all| {
                if let Some(all) = all {
                    all.push((name.to_owned(), copy));
                }
            }),
            Err(e) => log::error!("{name} cannot be passed on in an upgrade: {e}"),
        }
    }

    /// Closes one that is no longer listened on.
    pub(super) fn forget(&self, bound: SocketAddr) {
        let other = |(_, socket): &Named| socket.local_addr().is_ok_and(|own| own != bound);
        self.all(|all| all.iter_mut().for_each(|all| all.retain(other)));
    }

    /// Closes them: a socket that anybody holds goes on taking connections.
    pub(super) fn close(&self) {
        self.all(|all| *all = None);
    }

    fn copies(&self) -> io::Result<Vec<Named>> {
        self.all(|all| {
            let all = all.as_ref().ok_or_else(|| io::Error::other("it is stopping"))?;
            all.iter().map(|(name, socket)| Ok((name.clone(), socket.try_clone()?))).collect()
        })
    }

    fn all<R>(&self, f: impl FnOnce(&mut Option<Vec<Named>>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Word that the process is to retire: fired once its control socket is closed.
pub(super) type Retiring = oneshot::Sender<()>;

/// What the control socket is asked in an upgrade, and where word comes from that this process is to retire.
pub(super) fn commands(
    own: Invocation,
    held: Arc<Held>,
    state_dir: &Path,
) -> (Vec<Arc<dyn Command>>, mpsc::Receiver<Retiring>) {
    let (retire, retiring) = mpsc::channel(1);
    let heir = watch::Sender::new(Heir::Nobody);
    let (asked_at, unable) = (control::path(state_dir), Arc::<Unable>::default());
    let asked_at = std::path::absolute(&asked_at).unwrap_or(asked_at);
    let busy = tokio::sync::Mutex::new(());
    let upgrade = Upgrade { own, asked_at, heir: heir.clone(), unable: unable.clone(), busy };
    let all: Vec<Arc<dyn Command>> =
        vec![Arc::new(upgrade), Arc::new(Sockets(held)), Arc::new(Retire { retire, heir }), unable];
    (all, retiring)
}

/// `{"do":"upgrade"}`: asked by a person. Starts the new process, and tells how it went.
struct Upgrade {
    own: Invocation,
    /// Where the new process finds this one.
    asked_at: PathBuf,
    heir: watch::Sender<Heir>,
    unable: Arc<Unable>,
    busy: tokio::sync::Mutex<()>,
}

impl Command for Upgrade {
    fn name(&self) -> &'static str {
        "upgrade"
    }

    fn run<'a>(&'a self, _: &'a Value, _: &'a UnixStream) -> Reply<'a> {
        Box::pin(async {
            let Ok(_one) = self.busy.try_lock() else { return failed("one is under way already") };
            match self.attempt().await {
                Ok(pid) => json!({ "ok": true, "pid": pid }),
                Err(problem) => {
                    log::error!("no upgrade, this process goes on: {problem}");
                    failed(&format!("the old process goes on: {problem}"))
                }
            }
        })
    }
}

impl Upgrade {
    async fn attempt(&self) -> Result<u32, String> {
        may_be_replaced(std::process::id())?;
        // its number may be another's by now
        heir::forget(&self.heir);
        let program = self.own.program.display();
        let child = self.own.again(&self.asked_at);
        let child = child.map_err(|e| format!("`{program}` cannot be started: {e}"))?;
        log::info!("`{program}` was started as process {}, to take over", child.id());
        self.outcome(child).await
    }

    /// What becomes of a new process.
    async fn outcome(&self, mut child: Child) -> Result<u32, String> {
        let pid = child.id();
        let mut heir = self.heir.subscribe();
        let mut alone = pin!(heir.wait_for(|heir| *heir == Heir::Alone(pid)));
        let ended = tokio::select! {
            Ok(_) = &mut alone => return Ok(pid),
            ended = end_of(&mut child) => ended,
            () = sleep(PATIENCE) => Err(io::ErrorKind::TimedOut.into()),
        };
        if ended.is_err() && !heir::give_up(&self.heir, pid) {
            // it has taken over, and this process retires: with both gone nobody would serve
            return alone.await.map(|_| pid).map_err(|e| e.to_string());
        }
        if let Ok(status) = ended {
            let why = match self.unable.take(pid) {
                Some(problem) => format!(":\n{problem}"),
                // it did not come so far, or the system or a panic has ended it
                None => ", and its last words are in the log".to_owned(),
            };
            return Err(format!("the new process has ended ({status}){why}"));
        }
        let killed = child.kill().and_then(|()| child.wait());
        killed.map_err(|e| format!("the new process {pid} cannot be ended: {e}"))?;
        Err(format!("the new process was not ready within {} s", PATIENCE.as_secs()))
    }
}

async fn end_of(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        sleep(LOOK).await;
    }
}

/// `{"do":"sockets"}`: asked by a new process.
struct Sockets(Arc<Held>);

impl Command for Sockets {
    fn name(&self) -> &'static str {
        "sockets"
    }

    fn run<'a>(&'a self, _: &'a Value, peer: &'a UnixStream) -> Reply<'a> {
        Box::pin(async {
            if let Err(problem) = may_be_replaced(std::process::id()) {
                return failed(&problem);
            }
            let given = match self.0.copies() {
                Ok(copies) => pass::give(peer, &copies).await,
                Err(e) => Err(e),
            };
            given.map_or_else(|e| failed(&e.to_string()), |()| json!({ "ok": true }))
        })
    }
}

/// `{"do":"retire","pid":1}`: told by a new process that is at work.
struct Retire {
    retire: mpsc::Sender<Retiring>,
    heir: watch::Sender<Heir>,
}

impl Command for Retire {
    fn name(&self) -> &'static str {
        "retire"
    }

    fn run<'a>(&'a self, asked: &'a Value, _: &'a UnixStream) -> Reply<'a> {
        Box::pin(async {
            let pid = asked.get("pid").and_then(Value::as_u64).and_then(|pid| pid.try_into().ok());
            let Some(pid) = pid else { return failed("which process takes over?") };
            // before the word goes to whoever retires
            if !heir::promise(&self.heir, pid) {
                return failed("it comes too late: the process is being ended");
            }
            let (closed, told) = oneshot::channel();
            if self.retire.send(closed).await.is_err() || told.await.is_err() {
                return failed("the process is stopping already");
            }
            // only its main process may tell a service manager which one that is from now on
            notify::tell(&format!("MAINPID={pid}"));
            log::info!("process {pid} has taken over");
            self.heir.send_replace(Heir::Alone(pid));
            json!({ "ok": true })
        })
    }
}

/// `{"do":"unable","pid":1,"problem":"…"}`: told by a new process that cannot start.
#[derive(Default)]
struct Unable(Mutex<Option<(u32, String)>>);

impl Unable {
    fn take(&self, pid: u32) -> Option<String> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        told.filter(|(other, _)| *other == pid).map(|(_, problem)| problem)
    }
}

impl Command for Unable {
    fn name(&self) -> &'static str {
        "unable"
    }

    fn run<'a>(&'a self, asked: &'a Value, _: &'a UnixStream) -> Reply<'a> {
        let pid = asked.get("pid").and_then(Value::as_u64).and_then(|pid| pid.try_into().ok());
        let problem = asked.get("problem").and_then(Value::as_str).map(str::to_owned);
        let told = pid.zip(problem);
        let known = told.is_some();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = told;
        Box::pin(async move { json!({ "ok": known }) })
    }
}

/// Tells who has started this process for an upgrade, if anybody has, why it cannot start. Blocks its thread.
pub fn unable(problem: &str) {
    let Some(asked_at) = std::env::var_os(STARTED_BY) else { return };
    let mut told =
        problem.get(..problem.floor_char_boundary(MAX_PROBLEM)).unwrap_or_default().to_owned();
    if told.len() < problem.len() {
        told.push('…');
    }
    let pid = std::process::id();
    let question = json!({ "do": "unable", "pid": pid, "problem": told.trim_end() });
    if let Err(e) = client::ask_at(Path::new(&asked_at), &question) {
        log::error!("who has started this process does not hear why it ends: {e}");
    }
}

/// Tells the process before this one that it may go. Blocks its thread.
pub(super) fn relieve(state_dir: &Path) {
    let told = client::ask(state_dir, &json!({ "do": "retire", "pid": std::process::id() }));
    let problem = match told {
        Ok(answer) => answer.get("error").and_then(Value::as_str).map(str::to_owned),
        Err(problem) => Some(problem),
    };
    if let Some(problem) = problem {
        log::error!("the process before this one may go on beside it: {problem}");
    }
}

/// Asks the running edge for an upgrade: `mcp-edge upgrade`. The new process's number. Blocks its thread.
///
/// # Errors
/// A sentence: no edge runs there, or why the old one goes on.
pub fn ask(state_dirs: &[PathBuf], config: Option<&Path>) -> Result<u64, String> {
    let answer = client::ask_first(state_dirs, &client::question("upgrade", config))?;
    let pid = answer.get("pid").and_then(Value::as_u64);
    match (pid, client::error(&answer)) {
        (Some(pid), _) => Ok(pid),
        (None, Some(problem)) => Err(problem.to_owned()),
        (None, None) => Err("the edge answers what nobody understands".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    struct Stage {
        upgrade: Upgrade,
        retire: Retire,
        retiring: mpsc::Receiver<Retiring>,
        peer: UnixStream,
    }

    impl Stage {
        fn new() -> Self {
            let own =
                Invocation { program: "none".into(), arguments: Vec::new(), folder: "/".into() };
            let (heir, (retire, retiring)) = (watch::Sender::new(Heir::Nobody), mpsc::channel(1));
            let (unable, busy) = (Arc::default(), tokio::sync::Mutex::new(()));
            let upgrade =
                Upgrade { own, asked_at: "none".into(), heir: heir.clone(), unable, busy };
            let (peer, _) = UnixStream::pair().unwrap();
            Self { upgrade, retire: Retire { retire, heir }, retiring, peer }
        }

        /// What is said to a process of this number that says that it is at work.
        async fn told(&self, pid: u32) -> Value {
            self.retire.run(&json!({ "do": "retire", "pid": pid }), &self.peer).await
        }
    }

    /// A new process that does nothing for longer than anybody waits.
    fn slow() -> Child {
        Process::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap()
    }

    fn lives(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }

    fn end(pid: u32) {
        let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_taken_over_is_not_killed_however_long_the_old_one_takes_to_go() {
        let mut stage = Stage::new();
        let child = slow();
        let pid = child.id();
        let mut retiring = std::mem::replace(&mut stage.retiring, mpsc::channel(1).1);
        let old = async {
            let word = retiring.recv().await.unwrap();
            sleep(PATIENCE * 2).await;
            assert!(lives(pid), "the word was taken");
            word.send(()).unwrap();
        };
        let (outcome, told, ()) = tokio::join!(stage.upgrade.outcome(child), stage.told(pid), old);
        assert_eq!((outcome, told["ok"].as_bool()), (Ok(pid), Some(true)));
        assert!(lives(pid));
        end(pid);
    }

    #[tokio::test(start_paused = true)]
    async fn the_word_of_who_was_given_up_is_not_taken() {
        let mut stage = Stage::new();
        let child = slow();
        let pid = child.id();
        let problem = stage.upgrade.outcome(child).await.unwrap_err();
        assert!(problem.contains("not ready within 55 s"), "{problem}");
        assert!(!lives(pid));
        // sent before it was killed, and read behind that
        let told = timeout(PATIENCE, stage.told(pid)).await.expect("nobody is waited for");
        assert!(told["error"].as_str().unwrap().contains("too late"), "{told}");
        assert!(stage.retiring.try_recv().is_err(), "the old one goes on");
        heir::forget(&stage.upgrade.heir);
        assert!(heir::promise(&stage.upgrade.heir, pid), "a later one may have its number");
    }
}
