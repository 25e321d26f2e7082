//! Methods that run to their end, whatever their callers do: each in a task of its own.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::oneshot;
use tracing::Instrument;

use super::environment::{ErrorHook, unheard};
use crate::{
    Failure, Kind,
    endpoint::{BoxFuture, Current},
    value::Packed,
};

/// Those of one connection. The conversations of callers that gave up are the peer's to use again, so
/// they are counted by themselves.
#[derive(Debug, Default, Clone)]
pub(super) struct Uncancelled(Arc<()>);

/// One of them, as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(#[expect(dead_code, reason = "held to be counted")] Arc<()>);

impl Uncancelled {
    /// One more. Of a peer that may have so many conversations open there are twice as many at most:
    /// half of them with nobody who waits.
    pub(super) fn begin(&self, conversations: u32) -> Result<Counted, Failure> {
        let most = 2 * conversations as usize;
        let counted = Counted(Arc::clone(&self.0));
        // itself is one more than those that run
        if Arc::strong_count(&self.0) - 1 <= most {
            return Ok(counted);
        }
        Err(Failure::limit(
            "no_cancel",
            format_args!("{most} methods that are not cancelled and run for this peer"),
            "wait until some have ended, or raise `Settings::conversations` at the host",
        ))
    }
}

/// Runs one in a task of its own, which goes on though what is returned is dropped.
pub(super) fn run(
    method: BoxFuture<Result<Packed, Failure>>,
    counted: Counted,
    current: Current,
    hook: Option<ErrorHook>,
) -> BoxFuture<Result<Packed, Failure>> {
    let (sender, answer) = oneshot::channel();
    let told = hook.clone();
    let task = async move {
        let answer = method.await;
        drop(counted);
        if let Err(Err(failure)) = sender.send(answer) {
            unheard(told.as_ref(), failure);
        }
    };
    tokio::spawn(current.carry(task).in_current_span());
    Box::pin(Awaited { answer, hook })
}

/// Waits for what a method answers. Dropped before, it does not keep to itself how the method failed.
struct Awaited {
    answer: oneshot::Receiver<Result<Packed, Failure>>,
    hook: Option<ErrorHook>,
}

impl Future for Awaited {
    type Output = Result<Packed, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let broken = |_| Failure::new(Kind::Panic, "the method's task ended without an answer");
        let answer = Pin::new(&mut self.answer).poll(cx);
        answer.map(|answer| answer.map_err(broken)?)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Err(failure)) = self.answer.try_recv() {
            unheard(self.hook.as_ref(), failure);
        }
    }
}
