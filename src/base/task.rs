//! Work in the background: in, a future; out, what ends it when it is dropped.

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Ends its work when it is dropped: nothing goes on for a config that is no more.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Task {
    /// Begins.
    pub fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(runtime.spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_with_its_owner() {
        let (held, mut gone) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        let task = Task::spawn(&Handle::current(), work);
        tokio::task::yield_now().await;
        assert!(
            gone.try_recv().is_err_and(|e| e == tokio::sync::oneshot::error::TryRecvError::Empty)
        );
        drop(task);
        assert!(gone.await.is_err());
    }
}
