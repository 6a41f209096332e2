//! Frames on their way to a connection: in, who has one to send; out, its turn.
//!
//! The `h2` crate keeps room for as many waiting frames as there ever were on a connection, 312 bytes for each. When
//! a hundred streams begin together, that would be 80 KiB for as long as they are silent.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::io::step_aside;

/// Frames that wait before further streams step aside.
const MOST: usize = 24;
/// How often a stream steps aside at most: while a client takes nothing, frames wait all the same.
const TURNS: usize = 16;

/// Frames that streams have left to their connection since it last sent.
#[derive(Debug, Default)]
pub(super) struct Queue(AtomicUsize);

impl Queue {
    /// The connection has sent what it could.
    pub(super) fn was_sent(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Lets the connection send what waits, if that is much, and counts one more.
    pub(super) async fn place(&self) {
        let mut turns = 0;
        while self.0.load(Ordering::Relaxed) >= MOST && turns < TURNS {
            turns += 1;
            step_aside().await;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_full_queue_is_waited_for_but_not_for_ever() {
        let queue = Queue::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..MOST {
            assert_eq!(Box::pin(queue.place()).as_mut().poll(&mut cx), Poll::Ready(()));
        }
        let mut late = Box::pin(queue.place());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        queue.was_sent();
        assert!(late.as_mut().poll(&mut cx).is_ready());
        for _ in 1..MOST {
            assert!(Box::pin(queue.place()).as_mut().poll(&mut cx).is_ready());
        }
        let mut stuck = Box::pin(queue.place());
        let waits = (0..=TURNS).take_while(|_| stuck.as_mut().poll(&mut cx).is_pending()).count();
        assert_eq!(waits, TURNS);
    }
}
