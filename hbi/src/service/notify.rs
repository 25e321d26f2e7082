//! Notifications: sent and forgotten, or confirmed.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use super::{
    Call,
    post::{Manner, Unsent},
};
use crate::{Error, Kind, PostingEnd, Result};

/// A call of a method that answers nothing. Awaiting it hands it to the wire.
#[must_use = "a notification does nothing until it is awaited"]
pub struct Notify(Call<()>);

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notify").field(&self.0).finish()
    }
}

impl Notify {
    pub(super) fn new(call: Call<()>) -> Self {
        Self(call)
    }

    /// As a call: its answer says that the method has run.
    pub fn confirmed(self) -> Call<()> {
        self.0
    }

    /// Hands it to the wire if that can be done now, and never waits.
    ///
    /// # Errors
    /// When it would have to wait ([`Error::is_limit`]): the peer takes no more conversations now, or has
    /// not answered yet, or too much is still to be written. Or it cannot be sent at all.
    pub fn try_send(self) -> Result<()> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.into_future().poll_sent(&mut cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Err(Error::new(
                Kind::Limit,
                "the notification would have to wait, for the peer to take more (its limit \
                 `conversations`) or for what is still to be written: try again later, or await it",
            )),
        }
    }
}

impl IntoFuture for Notify {
    type Output = Result<()>;
    type IntoFuture = Sending;

    fn into_future(self) -> Sending {
        let po = self.0.po().clone();
        Sending(po, Some(self.0.into_unsent()))
    }
}

/// The future of a [`Notify`].
#[derive(Debug)]
pub struct Sending(PostingEnd, Option<Result<Box<Unsent>>>);

impl Sending {
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        const NOTIFY: Manner = Manner {
            data: false,
            value: false,
            call: false,
            last: true,
        };
        let Self(po, unsent) = self;
        let sent = match unsent {
            Some(Ok(unsent)) => ready!(unsent.post().poll_open(po, NOTIFY, None, cx)),
            Some(Err(error)) => return Poll::Ready(Err(error.clone())),
            None => {
                let text = "this notification was awaited to its end before";
                return Poll::Ready(Err(Error::new(Kind::Misuse, text)));
            }
        };
        if let Some(Ok(unsent)) = unsent.take() {
            unsent.done();
        }
        po.link().detach(sent?);
        Poll::Ready(Ok(()))
    }
}

impl Future for Sending {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_sent(cx)
    }
}
