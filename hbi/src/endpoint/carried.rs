//! What stands behind the handles of a value: streams and objects, on their way out or arrived.

use std::{
    any::Any,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;

use super::{CoNumber, Link, Message, Object, Received, RemoteObject};
use crate::{Error, Failure, Kind, Result, value::Handle};

/// What a handle in a value stands for.
#[derive(Debug)]
pub enum Carried {
    /// A stream, and how many bytes come where it is data whose length is known.
    Stream(Messages, Option<u64>),
    /// An object of this side.
    Object(Arc<dyn Object>),
    /// An object of a peer.
    Remote(RemoteObject),
    /// An object the peer named that it does not hold: never given out, or released.
    Missing(u32),
}

impl Handle for Carried {
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }

    fn share(&self) -> Option<Box<dyn Handle>> {
        Some(Box::new(match self {
            Carried::Object(object) => Carried::Object(Arc::clone(object)),
            Carried::Remote(object) => Carried::Remote(object.clone()),
            Carried::Missing(number) => Carried::Missing(*number),
            Carried::Stream(..) => return None,
        }))
    }
}

impl Carried {
    /// What a handle stands for; `None` for a handle that is not of this library's making.
    pub fn from_handle(handle: Box<dyn Handle>) -> Option<Carried> {
        handle
            .into_any()
            .downcast::<Carried>()
            .ok()
            .map(|carried| *carried)
    }
}

/// The stream behind a handle: its messages, still packed.
pub enum Messages {
    /// Made on this side.
    Local(Pin<Box<dyn Stream<Item = Result<Message>> + Send>>),
    /// Arrived from the peer.
    Arrived(Inlet),
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Messages::Local(_) => f.write_str("Local"),
            Messages::Arrived(inlet) => inlet.fmt(f),
        }
    }
}

impl Messages {
    /// A stream made on this side.
    pub fn local(messages: impl Stream<Item = Result<Message>> + Send + 'static) -> Self {
        Self::Local(Box::pin(messages))
    }

    /// The next message, the stream's error, or `None` at its end in good order.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        match self {
            Messages::Local(messages) => messages.as_mut().poll_next(cx),
            Messages::Arrived(inlet) => inlet.poll_next(cx).map(|next| match next {
                Ok(Some(Received::Item(item))) => Some(Ok(Message::Item(item))),
                Ok(Some(Received::Data(bytes))) => Some(Ok(Message::Data(bytes))),
                Ok(Some(Received::Script { .. })) => {
                    Some(Err(Error::new(Kind::Protocol, "a script within a stream")))
                }
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            }),
        }
    }

    /// Sends the whole stream into a channel. What ends the stream ends the channel.
    pub async fn send_to(mut self, mut outlet: Outlet) {
        loop {
            let next = tokio::select! {
                next = poll_fn(|cx| self.poll_next(cx)) => next,
                () = outlet.stopped() => return,
            };
            match next {
                Some(Ok(message)) => {
                    // told to the receiver, if that still listens
                    if let Err(error) = outlet.send(message).await {
                        return outlet.fail(error.into());
                    }
                }
                Some(Err(error)) => return outlet.fail(error.into()),
                None => return outlet.end(),
            }
        }
    }
}

/// The channel of the raw data that stands behind a script of the text wire.
pub(crate) const DATA_BEHIND: u16 = 1;

/// The receiving half of a stream. Dropping it tells the sender to stop.
pub struct Inlet {
    link: Arc<dyn Link>,
    co: CoNumber,
    channel: u16,
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inlet({:?}, channel {})", self.co, self.channel)
    }
}

impl Inlet {
    /// The receiving half of a channel of a conversation.
    pub fn new(link: Arc<dyn Link>, co: CoNumber, channel: u16) -> Self {
        Self { link, co, channel }
    }

    /// What comes next; `None` at the stream's end in good order.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received>>> {
        self.link
            .poll_receive(&self.link, self.co, self.channel, cx)
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.link.stop(self.co, self.channel);
    }
}

/// The sending half of a stream. Dropping it before [`Outlet::end`] tells the receiver that the
/// stream was abandoned.
pub struct Outlet {
    link: Arc<dyn Link>,
    co: CoNumber,
    channel: u16,
    over: bool,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outlet({:?}, channel {})", self.co, self.channel)
    }
}

impl Outlet {
    /// The sending half of a channel of a conversation.
    pub fn new(link: Arc<dyn Link>, co: CoNumber, channel: u16) -> Self {
        Self {
            link,
            co,
            channel,
            over: false,
        }
    }

    /// Sends a message once there is room.
    ///
    /// # Errors
    /// When the receiver wants no more, or the conversation is over.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        let mut message = Some(message);
        poll_fn(|cx| {
            self.link
                .poll_send(&self.link, self.co, self.channel, &mut message, cx)
        })
        .await
    }

    /// Waits until the receiver wants no more.
    pub async fn stopped(&self) {
        poll_fn(|cx| self.link.poll_stopped(self.co, self.channel, cx)).await
    }

    /// Ends the stream in good order.
    pub fn end(mut self) {
        self.over = true;
        self.link.end(self.co, self.channel);
    }

    /// Ends the stream with a failure.
    pub fn fail(mut self, failure: Failure) {
        self.over = true;
        self.link.fail(self.co, self.channel, failure);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if !self.over {
            self.link.fail(self.co, self.channel, abandoned());
        }
    }
}

/// The failure of what was dropped before its end.
pub(super) fn abandoned() -> Failure {
    Failure::new(Kind::Cancelled, "dropped by the peer before its end")
}

/// The error of a value that is no stream, where one was expected.
pub(super) fn no_stream() -> Error {
    Error::new(
        Kind::Value,
        "expected a stream, found an object by reference",
    )
}
