//! The control socket: in, a line of JSON from whoever may open a file of the owner's; out, a line of JSON.
//!
//! It is `control.sock` in the state folder, of mode 0600: who may connect is the file system's business. A
//! line is `{"do":"reload"}`; what is known is in the table that the composition root gives to
//! [`Server::run`]. Lines are bounded in size, and so is the time that they take to come.

pub mod client;
pub mod pass;

use std::fs::{self, Permissions};
use std::future::pending;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

/// Its name in the state folder.
const FILE: &str = "control.sock";
/// Longest question, in bytes.
const MAX_QUESTION: usize = 4 * 1024;
/// For a question to come, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what was asked for to be done: as long as [`client`] waits.
const LONGEST: Duration = Duration::from_secs(60);
/// Questions at once.
const MOST: usize = 8;
/// Until a connection is accepted again after that has failed.
const PAUSE: Duration = Duration::from_secs(1);

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

/// A socket that nobody has asked yet.
#[derive(Debug)]
pub struct Server {
    socket: net::UnixListener,
}

impl Server {
    /// Binds the socket of a state folder. One that nobody answers on is replaced.
    ///
    /// # Errors
    /// A sentence: there is no such folder, it cannot be written, or another edge answers there.
    pub fn bind(state_dir: &Path) -> Result<Self, String> {
        let path = path(state_dir);
        if net::UnixStream::connect(&path).is_ok() {
            return Err(format!("another edge answers on `{}`", path.display()));
        }
        let named = |e: io::Error| format!("`{}` cannot be made: {e}", path.display());
        let socket = placed(&path).map_err(named)?;
        socket.set_nonblocking(true).map_err(named)?;
        Ok(Self { socket })
    }

    /// Answers whoever asks, until `close` brings a sender: the socket is closed then, the sender is fired, and
    /// what was asked before is answered.
    pub async fn run(
        self,
        commands: Vec<Arc<dyn Command>>,
        close: oneshot::Receiver<oneshot::Sender<()>>,
    ) {
        let mut close = pin!(async {
            match close.await {
                Ok(closed) => closed,
                Err(_) => pending().await,
            }
        });
        let socket = match UnixListener::from_std(self.socket) {
            Ok(socket) => socket,
            Err(e) => return log::error!("the control socket cannot be polled: {e}"),
        };
        let (commands, places) = (Arc::new(commands), Arc::new(Semaphore::new(MOST)));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                closed = &mut close => {
                    drop((socket, place));
                    if closed.send(()).is_err() {
                        log::debug!("nobody waits for the end of the control socket");
                    }
                    break;
                }
            };
            match accepted {
                Ok((peer, _)) => {
                    let commands = commands.clone();
                    tokio::spawn(async move {
                        converse(peer, &commands).await;
                        drop(place);
                    });
                }
                Err(e) => {
                    log::error!("the control socket cannot accept: {e}");
                    sleep(PAUSE).await;
                }
            }
        }
        let all = u32::try_from(MOST).unwrap_or(u32::MAX);
        if timeout(PATIENCE, places.acquire_many(all)).await.is_err() {
            log::debug!("who asked on the control socket takes no answer");
        }
    }
}

/// Binds beside the path and moves it there: nobody finds it before its mode is right.
fn placed(path: &Path) -> io::Result<net::UnixListener> {
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = net::UnixListener::bind(&draft)?;
    let moved = fs::set_permissions(&draft, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&draft, path));
    if moved.is_err() {
        drop(fs::remove_file(&draft));
    }
    moved.map(|()| socket)
}

async fn converse(mut peer: UnixStream, commands: &[Arc<dyn Command>]) {
    let answer = match timeout(PATIENCE, question(&mut peer)).await {
        Ok(Ok(asked)) => match timeout(LONGEST, answer(&asked, &peer, commands)).await {
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

async fn answer(asked: &Value, peer: &UnixStream, commands: &[Arc<dyn Command>]) -> Value {
    let wanted = asked.get("do").and_then(Value::as_str).unwrap_or_default();
    match commands.iter().find(|command| command.name() == wanted) {
        Some(command) => command.run(asked, peer).await,
        None => {
            let known: Vec<&str> = commands.iter().map(|command| command.name()).collect();
            failed(&format!("unknown `do`; known are: {}", known.join(", ")))
        }
    }
}

/// The answer to what could not be done: `{"ok":false,"error":…}`.
pub fn failed(problem: &str) -> Value {
    json!({ "ok": false, "error": problem })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

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

    fn serving(folder: &Path) -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = Server::bind(folder).unwrap();
        let (close, closing) = oneshot::channel();
        runtime.spawn(async move {
            server.run(vec![Arc::new(Echo)], closing).await;
            drop(close);
        });
        runtime
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
        for bad in [&b"{\"do\":\"else\"}\n"[..], b"nonsense\n", b"{}\n", b"[]\n", &[b' '; 8192]] {
            assert_eq!(ask(folder.path(), bad)["ok"], false);
        }
    }

    #[test]
    fn a_socket_that_nobody_answers_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(Server::bind(folder.path()).unwrap());
        assert!(path(folder.path()).exists(), "it is stale");
        let first = Server::bind(folder.path()).unwrap();
        let second = Server::bind(folder.path()).unwrap_err();
        assert!(second.contains("another edge answers"), "{second}");
        drop(first);
        let missing = Server::bind(&folder.path().join("none")).unwrap_err();
        assert!(missing.contains("cannot be made"), "{missing}");
        let nobody = client::ask(&folder.path().join("none"), &json!({})).unwrap_err();
        assert!(nobody.contains("no edge"), "{nobody}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no drafts are left");
    }
}
