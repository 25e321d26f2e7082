//! A landing that goes on beside the connection's task, and how it is cancelled.

use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::endpoint::Hosted;

/// A landing that goes on in a task of its own.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) task: AbortHandle,
    pub(super) hosted: Arc<Hosted>,
    /// It runs to its end, whatever its caller does.
    pub(super) detached: bool,
}

impl Running {
    /// The caller wants no answer any more.
    pub(super) fn cancel(self) {
        self.hosted.cancellation().cancel();
        if !self.detached {
            self.task.abort();
        }
    }
}
