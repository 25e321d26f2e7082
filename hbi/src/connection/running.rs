//! Landings that go on beside the connection's task, and how they are cancelled.

use std::{future::Future, sync::Arc};

use tokio::task::AbortHandle;
use tracing::Instrument;

use crate::{Failure, endpoint::Hosted};

/// A landing that goes on in a task of its own.
#[derive(Debug)]
pub(super) struct Running {
    task: AbortHandle,
    hosted: Arc<Hosted>,
    /// It runs to its end, whatever its caller does.
    detached: bool,
}

impl Running {
    /// Lets a conversation go on in a task of its own; `counted` where it runs to its end whatever its
    /// caller does.
    pub(super) fn start(
        conversation: impl Future<Output = ()> + Send + 'static,
        hosted: Arc<Hosted>,
        counted: Option<Counted>,
        trace: bool,
    ) -> Self {
        fn spawn(task: impl Future<Output = ()> + Send + 'static, trace: bool) -> AbortHandle {
            match trace {
                true => tokio::spawn(task.in_current_span()).abort_handle(),
                false => tokio::spawn(task).abort_handle(),
            }
        }
        let detached = counted.is_some();
        let task = match counted {
            Some(counted) => {
                let counting = async move {
                    conversation.await;
                    drop(counted);
                };
                spawn(counting, trace)
            }
            // most are none, and tasks are many: no larger than it has to be
            None => spawn(conversation, trace),
        };
        Self {
            task,
            hosted,
            detached,
        }
    }

    /// The caller wants no answer any more.
    pub(super) fn cancel(self) {
        self.hosted.cancellation().cancel();
        if !self.detached {
            self.task.abort();
        }
    }
}

/// Landings of a connection that run to their end whatever their callers do. The numbers of those whose
/// callers gave up are the peer's to use again, so they are counted by themselves.
#[derive(Debug)]
pub(super) struct Detached {
    count: Arc<()>,
    most: usize,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(#[expect(dead_code, reason = "held to be counted")] Arc<()>);

impl Detached {
    /// Of a peer that may have so many conversations open there are twice as many at most: half of them
    /// with nobody who waits.
    pub(super) fn new(conversations: u32) -> Self {
        Self {
            count: Arc::new(()),
            most: 2 * conversations as usize,
        }
    }

    pub(super) fn count(&self) -> Counted {
        Counted(Arc::clone(&self.count))
    }

    /// Fails where no more may begin.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Failure> {
        let running = Arc::strong_count(&self.count) - 1;
        if running < self.most {
            return Ok(());
        }
        Err(Failure::limit(
            "no_cancel",
            format_args!(
                "{running} methods that are not cancelled run for this peer, at most {}",
                self.most
            ),
            "wait until some have ended, or raise `Settings::conversations` at the host",
        ))
    }
}
