//! A deadline that moves often and is rarely reached: in, when it is; out, that it has come.
//!
//! Setting it is a store. The timer behind it is made when something first waits, and moved only when
//! it fires too early or would fire too late: most waits are over long before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One deadline at a time.
#[derive(Debug)]
pub struct Alarm {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Without a timer. It is to be [set](Alarm::set) before it is polled.
    pub fn new() -> Self {
        Self { at: Instant::now(), timer: None }
    }

    /// Moves the deadline.
    pub fn set(&mut self, at: Instant) {
        self.at = at;
    }

    /// Lets go of the timer until the next poll.
    pub fn rest(&mut self) {
        self.timer = None;
    }

    /// Ready once the deadline has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[test]
    fn the_deadline_that_was_set_last_counts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            let mut alarm = Alarm::new();
            alarm.set(start + Duration::from_millis(20));
            let waits = poll_fn(|cx| Poll::Ready(alarm.poll(cx).is_pending()));
            assert!(waits.await);
            alarm.set(start + Duration::from_millis(60));
            poll_fn(|cx| alarm.poll(cx)).await;
            assert!(start.elapsed() >= Duration::from_millis(60));
            // earlier than the timer that is left
            alarm.set(Instant::now() + Duration::from_secs(60));
            assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx).is_pending())).await);
            alarm.set(Instant::now() + Duration::from_millis(10));
            poll_fn(|cx| alarm.poll(cx)).await;
            assert!(start.elapsed() < Duration::from_secs(30));
        });
    }
}
