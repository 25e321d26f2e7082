//! Calls of methods that take the conversation.

use std::{
    fmt,
    future::{Future, IntoFuture, poll_fn},
    pin::Pin,
    time::Duration,
};

use super::{Call, post::Manner};
use crate::{PoCo, Receiving, Result, Sending};

/// A call of a method that takes the conversation (`#[hbi(converse)]`).
///
/// Awaiting it gives the conversation where the peer's answer is received; [`Exchange::open`] gives
/// it where more can be sent first. Its arguments may be pending calls, itself it is no argument.
#[must_use = "an exchange does nothing until it is awaited or opened"]
pub struct Exchange {
    call: Call<()>,
    within: Option<Duration>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exchange").field(&self.call).finish()
    }
}

impl Exchange {
    pub(super) fn new(call: Call<()>) -> Self {
        Self { call, within: None }
    }

    /// Gives the conversation this long, from when it is to be opened.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(self.within.map_or(time, |other| other.min(time)));
        self
    }

    /// Opens the conversation, to send more in it.
    ///
    /// # Errors
    /// When it cannot be opened. What the method ends with comes where its answer is received.
    pub async fn open(self) -> Result<PoCo<Sending>> {
        let po = self.call.po().clone();
        let mut unsent = self.call.into_unsent()?;
        const EXCHANGE: Manner = Manner {
            data: false,
            value: false,
            call: false,
            last: false,
        };
        let co = poll_fn(|cx| {
            let post = unsent.post();
            post.poll_open(&po, EXCHANGE, self.within, cx)
        })
        .await?;
        Ok(PoCo::opened(po.link().clone(), co))
    }
}

impl IntoFuture for Exchange {
    type Output = Result<PoCo<Receiving>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.open().await?.start_recv().await })
    }
}
