//! The control socket: in, a line of JSON from whoever may open a file of the owner's; out, a line of JSON.
//!
//! It is `control.sock` in the state folder, of mode 0600: who may connect is the file system's business. A
//! line is `{"do":"reload","config":"/etc/mcp-edge.yaml"}`; what is known is in the table that the composition root
//! gives to [`Server`], and where a config is named, only the edge that runs with it answers. Lines are bounded in
//! size, and so is the time that they take to come.

pub mod client;
pub mod pass;
mod place;
mod whose;

use std::future::pending;
use std::io;
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use place::Place;
pub use whose::Whose;

/// Its name in the state folder.
const FILE: &str = "control.sock";
/// In the answer of an edge that is not the one that was meant.
const ANOTHER: &str = "another";
/// Longest question, in bytes.
const MAX_QUESTION: usize = 8 * 1024;
/// For a question to come, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what was asked for to be done: as long as [`client`] waits.
const LONGEST: Duration = Duration::from_secs(60);
/// Questions at once.
const MOST: usize = 8;
/// Until a connection is accepted again after that has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked at whether the place is still ours, or has become free.
const LOOK: Duration = Duration::from_secs(5);

/// Where the control socket of a state folder is.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Something that can be asked for: a line in the table.
pub trait Command: Send + Sync {
    /// What stands behind `do`.
    fn name(&self) -> &'static str;

    /// Does it. `asked` is the whole question; `peer` is who asks, for what does not fit in a line.
    fn run<'a>(&'a self, asked: &'a Value, peer: &'a UnixStream) -> Reply<'a>;
}

/// An answer that is still to come.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Value> + Send + 'a>>;

/// Answers at the socket of a state folder.
pub struct Server {
    state_dir: PathBuf,
    shared: Arc<Shared>,
    /// The socket; or why there is none.
    bound: Result<Bound, String>,
}

/// A socket, and where it is.
type Bound = (net::UnixListener, Place);

struct Shared {
    commands: Vec<Arc<dyn Command>>,
    whose: Whose,
    /// For questions at once.
    places: Arc<Semaphore>,
}

/// Word that the socket is to be closed, with who waits for that.
pub type Close = oneshot::Receiver<oneshot::Sender<()>>;

/// Why a socket is not answered on any longer.
enum Ended {
    /// Somebody else has its place.
    Lost,
    /// It was closed, and this one waits for that.
    Closed(oneshot::Sender<()>),
}

impl Server {
    /// Binds the socket of a state folder. One that nobody answers on is replaced. Where that fails, it is tried
    /// again for as long as [`Server::run`] runs: another edge may have it, and go.
    pub async fn open(state_dir: PathBuf, commands: Vec<Arc<dyn Command>>, whose: Whose) -> Self {
        let bound = Place::take(path(&state_dir)).await;
        if let Err(problem) = &bound {
            log::warn!("no control socket: {problem}; it is tried again");
        }
        let places = Arc::new(Semaphore::new(MOST));
        Self { state_dir, shared: Arc::new(Shared { commands, whose, places }), bound }
    }

    /// Answers whoever asks, until `close` brings a sender: the socket is closed then, the sender is fired, and
    /// what was asked before is answered.
    pub async fn run(self, close: Close) {
        let Self { state_dir, shared, mut bound } = self;
        let mut close = pin!(async {
            match close.await {
                Ok(closed) => closed,
                // nobody is there who could say it
                Err(_) => pending().await,
            }
        });
        let closed = loop {
            bound = match bound {
                Ok(bound) => match shared.serve(bound, close.as_mut()).await {
                    Ended::Closed(closed) => break closed,
                    Ended::Lost => {
                        log::warn!("the control socket has gone from its place; it is made again");
                        Place::take(path(&state_dir)).await
                    }
                },
                Err(before) => {
                    tokio::select! {
                        closed = &mut close => break closed,
                        () = sleep(LOOK) => {}
                    }
                    let again = Place::take(path(&state_dir)).await;
                    match &again {
                        Ok(_) => log::info!("the control socket is open now"),
                        Err(problem) if *problem != before => {
                            log::warn!("no control socket: {problem}; it is tried again");
                        }
                        Err(_) => {}
                    }
                    again
                }
            };
        };
        if closed.send(()).is_err() {
            log::debug!("nobody waits for the end of the control socket");
        }
        let all = u32::try_from(MOST).unwrap_or(u32::MAX);
        if timeout(PATIENCE, shared.places.acquire_many(all)).await.is_err() {
            log::debug!("who asked on the control socket takes no answer");
        }
    }
}

impl Shared {
    async fn serve(
        self: &Arc<Self>,
        (socket, place): Bound,
        mut close: Pin<&mut (impl Future<Output = oneshot::Sender<()>> + Send)>,
    ) -> Ended {
        let socket = match UnixListener::from_std(socket) {
            Ok(socket) => socket,
            Err(e) => {
                log::error!("the control socket cannot be polled: {e}");
                return Ended::Closed(close.await);
            }
        };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // nothing is waited for but in here: a close waits for nobody
        loop {
            tokio::select! {
                ended = self.next(&socket) => {
                    if let Err(e) = ended {
                        log::error!("the control socket cannot accept: {e}");
                        tokio::select! {
                            () = sleep(PAUSE) => {}
                            closed = &mut close => return Ended::Closed(closed),
                        }
                    }
                }
                closed = &mut close => return Ended::Closed(closed),
                _ = look.tick() => {
                    let place = place.clone();
                    let ours = tokio::task::spawn_blocking(move || place.is_ours());
                    tokio::select! {
                        ours = ours => if matches!(ours, Ok(false)) { return Ended::Lost },
                        closed = &mut close => return Ended::Closed(closed),
                    }
                }
            }
        }
    }

    /// Accepts who comes next, once there is a place for another question. Nobody is lost where it is dropped.
    async fn next(self: &Arc<Self>, socket: &UnixListener) -> io::Result<()> {
        let place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (peer, _) = socket.accept().await?;
        let shared = self.clone();
        tokio::spawn(async move {
            shared.converse(peer).await;
            drop(place);
        });
        Ok(())
    }

    async fn converse(&self, mut peer: UnixStream) {
        let answer = match timeout(PATIENCE, question(&mut peer)).await {
            Ok(Ok(asked)) => match timeout(LONGEST, self.answer(&asked, &peer)).await {
                Ok(answer) => answer,
                // what waits on a file system may do so for ever, and would hold its place among the questions
                Err(_) => failed("not done within 60 s; it may still be done"),
            },
            Ok(Err(problem)) => failed(&problem),
            Err(_) => failed("no whole line came in time"),
        };
        let line = format!("{answer}\n");
        match timeout(PATIENCE, peer.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => log::debug!("who asked on the control socket has gone: {e}"),
            Err(_) => log::debug!("who asked on the control socket does not read"),
        }
    }

    async fn answer(&self, asked: &Value, peer: &UnixStream) -> Value {
        let (whose, named) = (self.whose.clone(), asked.clone());
        match tokio::task::spawn_blocking(move || whose.check(&named)).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => return json!({ "ok": false, "error": problem, ANOTHER: true }),
            Err(e) => return failed(&e.to_string()),
        }
        let wanted = asked.get("do").and_then(Value::as_str).unwrap_or_default();
        match self.commands.iter().find(|command| command.name() == wanted) {
            Some(command) => command.run(asked, peer).await,
            None => {
                let known: Vec<&str> = self.commands.iter().map(|c| c.name()).collect();
                failed(&format!("unknown `do`; known are: {}", known.join(", ")))
            }
        }
    }
}

async fn question(peer: &mut UnixStream) -> Result<Value, String> {
    let mut line = Vec::new();
    loop {
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return serde_json::from_slice(&line).map_err(|e| format!("not a line of JSON: {e}"));
        }
        if line.len() >= MAX_QUESTION {
            return Err(format!("a line has at most {MAX_QUESTION} bytes"));
        }
        match peer.read_buf(&mut line).await {
            Ok(0) => return Err("the line has no end".to_owned()),
            Ok(_) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
}

/// The answer to what could not be done: `{"ok":false,"error":…}`.
pub fn failed(problem: &str) -> Value {
    json!({ "ok": false, "error": problem })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    struct Echo;

    impl Command for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }

        fn run<'a>(&'a self, asked: &'a Value, _: &'a UnixStream) -> Reply<'a> {
            Box::pin(async { json!({ "ok": true, "asked": asked["what"] }) })
        }
    }

    /// Never ends; says that it was begun.
    struct Hang(mpsc::UnboundedSender<()>);

    impl Command for Hang {
        fn name(&self) -> &'static str {
            "hang"
        }

        fn run<'a>(&'a self, _: &'a Value, _: &'a UnixStream) -> Reply<'a> {
            self.0.send(()).unwrap();
            Box::pin(pending())
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    }

    async fn open(folder: &Path) -> Server {
        let whose = Whose::new(Some(Path::new("/a/file.yaml")));
        Server::open(folder.to_owned(), vec![Arc::new(Echo)], whose).await
    }

    fn serving(folder: &Path) -> (tokio::runtime::Runtime, oneshot::Sender<oneshot::Sender<()>>) {
        let runtime = runtime();
        let server = runtime.block_on(open(folder));
        let (close, closing) = oneshot::channel();
        runtime.spawn(server.run(closing));
        (runtime, close)
    }

    fn ask(folder: &Path, line: &[u8]) -> Value {
        let mut socket = net::UnixStream::connect(path(folder)).unwrap();
        // a server that does not want to read all of it may have closed
        drop(socket.write_all(line));
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    #[test]
    fn a_line_is_answered_by_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let _runtime = serving(folder.path());
        let mode = fs::metadata(path(folder.path())).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let good = ask(folder.path(), b"{\"do\":\"echo\",\"what\":7}\n");
        assert_eq!(good, json!({ "ok": true, "asked": 7 }));
        let from_client = client::ask(folder.path(), &json!({ "do": "echo", "what": "x" }));
        assert_eq!(from_client.unwrap()["asked"], "x");
        let own = json!({ "do": "echo", "what": "x", "config": "/a/file.yaml" });
        assert_eq!(client::ask(folder.path(), &own).unwrap()["asked"], "x");
        let other = json!({ "do": "echo", "config": "/another/file.yaml" });
        let refused = client::ask(folder.path(), &other).unwrap();
        let problem = refused["error"].as_str().unwrap();
        assert!(problem.contains("/a/file.yaml") && problem.contains("/another/file.yaml"));
        // who is asked by one place and is another is not the end of it; who answers, is
        let empty = folder.path().join("none");
        let (here, there) = ([empty.clone(), folder.path().into()], [folder.path().into(), empty]);
        assert_eq!(client::ask_first(&here, &own).unwrap()["asked"], "x");
        let unknown = json!({ "do": "else" });
        assert_eq!(client::ask_first(&there, &unknown).unwrap()["ok"], false);
        for places in [here, there] {
            let told = client::ask_first(&places, &other).unwrap_err();
            assert!(told.contains("runs with") && told.contains("none/control.sock"), "{told}");
        }
        for bad in [&b"{\"do\":\"else\"}\n"[..], b"nonsense\n", b"{}\n", b"[]\n", &[b' '; 8192]] {
            assert_eq!(ask(folder.path(), bad)["ok"], false);
        }
    }

    #[test]
    fn a_socket_that_nobody_answers_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime();
        let bind = |folder: &Path| runtime.block_on(open(folder)).bound;
        drop(bind(folder.path()).unwrap());
        assert!(path(folder.path()).exists(), "it is stale");
        let first = bind(folder.path()).unwrap();
        let second = bind(folder.path()).unwrap_err();
        let owner = format!("another edge (process {}) answers", std::process::id());
        assert!(second.contains(&owner), "{second}");
        drop(first);
        let nobody = client::ask(&folder.path().join("none"), &json!({})).unwrap_err();
        assert!(nobody.contains("no edge"), "{nobody}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no drafts are left");
        fs::write(folder.path().join("file"), "").unwrap();
        let missing = bind(&folder.path().join("file/none")).unwrap_err();
        assert!(missing.contains("cannot be "), "{missing}");
        let made = bind(&folder.path().join("none/below")).unwrap();
        let mode = |name| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!([mode("none") & 0o777, mode("none/below") & 0o777], [0o700; 2]);
        drop(made);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_done_gives_its_place_back_after_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, _begins) = mpsc::unbounded_channel();
        let commands: Vec<Arc<dyn Command>> = vec![Arc::new(Hang(begun)), Arc::new(Echo)];
        let server = Server::open(folder.path().to_owned(), commands, Whose::new(None)).await;
        let (_close, closing) = oneshot::channel();
        let running = tokio::spawn(server.run(closing));
        let ask = async |line: &str| {
            let before = Instant::now();
            let mut socket = UnixStream::connect(path(folder.path())).await.unwrap();
            socket.write_all(line.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            (serde_json::from_str::<Value>(&answer).unwrap(), before.elapsed())
        };
        // as many as there may be at once, and one that has to wait for them
        let hang = || ask("{\"do\":\"hang\"}\n");
        let all =
            tokio::join!(hang(), hang(), hang(), hang(), hang(), hang(), hang(), hang(), async {
                sleep(LONGEST / 2).await;
                ask("{\"do\":\"echo\",\"what\":7}\n").await
            });
        let (hung, (echoed, waited)) = (all.7, all.8);
        let problem = hung.0["error"].as_str().unwrap();
        assert!(problem.contains("not done within 60 s"), "{problem}");
        assert!(hung.1 >= LONGEST && hung.1 < LONGEST * 2, "{:?}", hung.1);
        assert_eq!(echoed, json!({ "ok": true, "asked": 7 }));
        assert!(waited >= LONGEST / 4 && waited < LONGEST, "{waited:?}");
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn questions_that_take_long_do_not_hold_up_its_close() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, mut begins) = mpsc::unbounded_channel();
        let whose = Whose::new(Some(Path::new("/a/file.yaml")));
        let commands: Vec<Arc<dyn Command>> = vec![Arc::new(Hang(begun))];
        let server = Server::open(folder.path().to_owned(), commands, whose).await;
        let shared = server.shared.clone();
        let (close, closing) = oneshot::channel();
        let running = tokio::spawn(server.run(closing));
        let mut peers = Vec::new();
        for _ in 0..MOST {
            let mut peer = UnixStream::connect(path(folder.path())).await.unwrap();
            peer.write_all(b"{\"do\":\"hang\"}\n").await.unwrap();
            begins.recv().await.unwrap();
            peers.push(peer);
        }
        assert_eq!(shared.places.available_permits(), 0, "nobody else is answered");
        let before = Instant::now();
        let (closed, told) = oneshot::channel();
        close.send(closed).unwrap();
        told.await.unwrap();
        assert!(before.elapsed() < PATIENCE, "{:?}", before.elapsed());
        // who has asked is waited for, and not for ever
        running.await.unwrap();
        assert!((PATIENCE..LONGEST).contains(&before.elapsed()), "{:?}", before.elapsed());
        assert!(UnixStream::connect(path(folder.path())).await.is_err(), "it is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_becomes_free_is_taken_and_one_that_is_lost_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let here = || fs::symlink_metadata(path(folder.path())).ok().map(|meta| meta.ino());
        let first = open(folder.path()).await;
        let second = open(folder.path()).await;
        assert!(first.bound.is_ok() && second.bound.is_err());
        let old = here();
        let (close, closing) = oneshot::channel();
        let running = tokio::spawn(second.run(closing));
        sleep(LOOK * 3).await;
        assert_eq!(here(), old, "it is taken from nobody");
        drop(first);
        let ours = loop {
            sleep(LOOK).await;
            if here() != old {
                break here();
            }
        };
        fs::remove_file(path(folder.path())).unwrap();
        while here().is_none() {
            sleep(LOOK).await;
        }
        assert!(ours.is_some());
        // somebody else has put another one there, and goes
        fs::remove_file(path(folder.path())).unwrap();
        let other = net::UnixListener::bind(path(folder.path())).unwrap();
        let theirs = here();
        sleep(LOOK * 3).await;
        assert_eq!(here(), theirs, "it is taken from nobody");
        drop(other);
        let mut looks = 0;
        while here() == theirs && looks < 5 {
            looks += 1;
            sleep(LOOK).await;
        }
        assert!(here().is_some() && here() != theirs);
        let (closed, told) = oneshot::channel();
        close.send(closed).unwrap();
        told.await.unwrap();
        running.await.unwrap();
    }
}
