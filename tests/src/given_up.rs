//! A task that begins to wait and gives up, which is to be remembered nowhere.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Wake, Waker},
};

/// The task; all that remembers it holds its waker.
#[derive(Debug, Default)]
pub struct GivenUp(Arc<Task>);

#[derive(Debug, Default)]
struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

impl GivenUp {
    /// Polls what cannot be ready once, and drops it.
    pub fn waits(&self, future: impl Future) {
        let waker = Waker::from(Arc::clone(&self.0));
        let polled = pin!(future).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "there was nothing to wait for");
    }

    /// In how many places it is still to be woken.
    pub fn kept(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}
