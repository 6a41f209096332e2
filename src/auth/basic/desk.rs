//! Where slow hashing is done: in, work; out, its outcome. Threads of its own, so that no request and
//! no stream waits for it; few of them, and at low priority, so that they leave the processor to those;
//! and a short queue, since a client that has waited for long has gone.
//!
//! Who asks for what is already under way gets the same outcome: thirty-two connections that open
//! with one password cost one hash.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::cache::Code;
use crate::base::rate::Wait;

/// Work that may wait for each thread.
const QUEUE_PER_THREAD: usize = 32;
/// How much the threads step back behind those that carry requests; 19 would be the most.
const NICE: i32 = 10;

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The password fits.
    Right,
    /// It does not, or there is no such user.
    Wrong,
    /// Its address has failed too often to be heard.
    Limited(Wait),
    /// There is too much to do already.
    Full,
}

/// What makes two attempts the same: a line of the file with a password, who asks, and whether the
/// line is that of the user who was named.
pub(super) type Id = (Code, u128, bool);

/// The threads and their queue.
pub(super) struct Desk {
    queue: SyncSender<Job>,
    waiting: Arc<Waiting>,
}

struct Job {
    id: Id,
    work: Work,
}

type Work = Box<dyn FnOnce() -> Outcome + Send>;
type Waiting = Mutex<HashMap<Id, Vec<oneshot::Sender<Outcome>>>>;

impl Desk {
    /// The one of this process, started when it is first needed: half of the cores, since the limit
    /// is on the processor, whatever the number of routes.
    pub(super) fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Desk>> = LazyLock::new(|| {
            let threads = thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2));
            let started = Desk::start(threads, threads * QUEUE_PER_THREAD);
            started.inspect_err(|e| log::error!("cannot start a thread for passwords: {e}")).ok()
        });
        SHARED.as_ref()
    }

    fn start(threads: usize, queue: usize) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(queue);
        let (jobs, waiting) = (Arc::new(Mutex::new(jobs)), Arc::new(Waiting::default()));
        for _ in 0..threads {
            let (jobs, waiting) = (jobs.clone(), waiting.clone());
            thread::Builder::new()
                .name("passwords".into())
                .spawn(move || serve(&jobs, &waiting))?;
        }
        Ok(Self { queue, waiting })
    }

    /// Waits for an attempt; `work` is done only if the same is not under way.
    pub(super) async fn ask(
        &self,
        id: Id,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        self.enter(id, sender, Box::new(work));
        // whoever drops the sender has failed
        outcome.await.unwrap_or(Outcome::Full)
    }

    fn enter(&self, id: Id, sender: oneshot::Sender<Outcome>, work: Work) {
        let mut waiting = lock(&self.waiting);
        if let Some(others) = waiting.get_mut(&id) {
            others.push(sender);
            return;
        }
        if self.queue.try_send(Job { id, work }).is_ok() {
            waiting.insert(id, vec![sender]);
        } else {
            tell(sender, Outcome::Full);
        }
    }
}

fn serve(jobs: &Mutex<Receiver<Job>>, waiting: &Waiting) {
    if let Err(e) = rustix::process::nice(NICE) {
        log::warn!("threads for passwords keep their priority: {e}");
    }
    loop {
        let Ok(Job { id, work }) = lock(jobs).recv() else { return };
        if !is_wanted(&id, waiting) {
            continue;
        }
        // a panic must cost one attempt, not the thread
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Outcome::Wrong);
        let waited = lock(waiting).remove(&id).unwrap_or_default();
        for sender in waited {
            tell(sender, outcome);
        }
    }
}

/// Whether anybody still waits for it; if not, it is forgotten.
fn is_wanted(id: &Id, waiting: &Waiting) -> bool {
    let mut waiting = lock(waiting);
    let wanted = waiting.get(id).is_some_and(|all| all.iter().any(|sender| !sender.is_closed()));
    if !wanted {
        waiting.remove(id);
    }
    wanted
}

/// Whoever has left in the meantime is not missed.
fn tell(sender: oneshot::Sender<Outcome>, outcome: Outcome) {
    if sender.send(outcome).is_err() {
        log::debug!("nobody waits for a password any more");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const HERE: u128 = 1;

    fn asked(
        desk: &Desk,
        id: u8,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> oneshot::Receiver<Outcome> {
        let (sender, outcome) = oneshot::channel();
        desk.enter(([id; 16], HERE, true), sender, Box::new(work));
        outcome
    }

    /// Keeps the one thread of a desk busy until a word is sent.
    fn busy(desk: &Desk) -> (oneshot::Receiver<Outcome>, Sender<()>) {
        let ((begun, begins), (gate, open)) = (channel(), channel::<()>());
        let first = asked(desk, 1, move || {
            begun.send(()).unwrap();
            open.recv().unwrap();
            Outcome::Right
        });
        begins.recv().unwrap();
        (first, gate)
    }

    #[test]
    fn the_queue_is_bounded_and_what_is_the_same_is_done_once() {
        let desk = Desk::start(1, 1).unwrap();
        let (first, gate) = busy(&desk);
        let same = asked(&desk, 1, || panic!("the same is under way"));
        let next = asked(&desk, 2, || Outcome::Wrong);
        let same_as_next = asked(&desk, 2, || panic!("the same waits already"));
        let too_many = asked(&desk, 3, || panic!("there is no room"));
        assert_eq!(too_many.blocking_recv(), Ok(Outcome::Full));
        gate.send(()).unwrap();
        assert_eq!(first.blocking_recv(), Ok(Outcome::Right));
        assert_eq!(same.blocking_recv(), Ok(Outcome::Right));
        assert_eq!(next.blocking_recv(), Ok(Outcome::Wrong));
        assert_eq!(same_as_next.blocking_recv(), Ok(Outcome::Wrong));
        let again = asked(&desk, 1, || Outcome::Wrong);
        assert_eq!(again.blocking_recv(), Ok(Outcome::Wrong), "an outcome is not kept");
    }

    #[test]
    fn nothing_is_done_for_who_has_left() {
        let desk = Desk::start(1, 2).unwrap();
        let (first, gate) = busy(&desk);
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        drop(asked(&desk, 2, move || {
            count.fetch_add(1, Ordering::SeqCst);
            Outcome::Right
        }));
        let last = asked(&desk, 3, || Outcome::Right);
        gate.send(()).unwrap();
        assert_eq!(first.blocking_recv(), Ok(Outcome::Right));
        assert_eq!(last.blocking_recv(), Ok(Outcome::Right));
        assert_eq!(done.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_panic_is_a_wrong_password_and_no_more() {
        let desk = Desk::start(1, 1).unwrap();
        assert_eq!(asked(&desk, 1, || panic!("on purpose")).blocking_recv(), Ok(Outcome::Wrong));
        assert_eq!(asked(&desk, 1, || Outcome::Right).blocking_recv(), Ok(Outcome::Right));
    }
}
