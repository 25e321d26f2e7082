//! Landings that go on beside the connection's task, and how they are cancelled.

use std::{future::Future, sync::Arc};

use tokio::task::AbortHandle;
use tracing::Instrument;

use crate::endpoint::Hosted;

/// A landing that goes on in a task of its own.
#[derive(Debug)]
pub(super) struct Running {
    task: AbortHandle,
    hosted: Arc<Hosted>,
}

impl Running {
    /// Lets a conversation go on in a task of its own.
    pub(super) fn start(
        conversation: impl Future<Output = ()> + Send + 'static,
        hosted: Arc<Hosted>,
        trace: bool,
    ) -> Self {
        let task = match trace {
            true => tokio::spawn(conversation.in_current_span()).abort_handle(),
            false => tokio::spawn(conversation).abort_handle(),
        };
        Self { task, hosted }
    }

    /// The caller wants no answer any more.
    pub(super) fn cancel(self) {
        self.hosted.cancellation().cancel();
        self.task.abort();
    }
}
