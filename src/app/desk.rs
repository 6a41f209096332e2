//! The control socket in the life of a process: in, what can be asked there; out, answers, and word that another
//! process has taken over.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::upgrade::{Retiring, relieve};
use crate::control::{Command, Server, Whose};

/// A control socket that is still to be opened.
pub(super) struct Desk {
    pub(super) state_dir: PathBuf,
    pub(super) commands: Vec<Arc<dyn Command>>,
    pub(super) whose: Whose,
    /// Whether a process before this one holds the socket, and is to go.
    pub(super) relieves: bool,
    pub(super) retiring: mpsc::Receiver<Retiring>,
}

/// One that is open, or will be as soon as it can.
pub(super) struct Open {
    task: JoinHandle<()>,
    close: oneshot::Sender<Retiring>,
    retiring: mpsc::Receiver<Retiring>,
}

impl Desk {
    /// Sends the process before this one home, and opens the socket in its place.
    pub(super) async fn open(self) -> Open {
        let Self { state_dir, commands, whose, relieves, retiring } = self;
        if relieves {
            let folder = state_dir.clone();
            let told = tokio::task::spawn_blocking(move || relieve(&folder)).await;
            told.unwrap_or_else(|e| log::error!("the process before this one was not told: {e}"));
        }
        let (close, closing) = oneshot::channel();
        let server = Server::open(state_dir, commands, whose).await;
        Open { task: tokio::spawn(server.run(closing)), close, retiring }
    }
}

impl Open {
    /// Waits for another process that takes over.
    pub(super) async fn relieved(&mut self) -> Retiring {
        match self.retiring.recv().await {
            Some(word) => word,
            None => pending().await,
        }
    }

    /// Makes room for the other's socket; back when everybody has the answer to what was asked before.
    pub(super) async fn close(self, word: Retiring) {
        if self.close.send(word).is_err() || self.task.await.is_err() {
            log::error!("the control socket was not closed as it should");
        }
    }
}
