//! Typed streams: `Items` in arguments, answers and anywhere in values.

use std::{
    fmt,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned, ser};
use tokio::sync::mpsc;

use super::{Carried, Message, Messages, carried::no_stream};
use crate::{
    Error, Failure, Kind, Result,
    value::{Packed, deserialize_handle, serialize_handle},
};

/// A stream of items that travels: as an argument, an answer, or anywhere in a value.
///
/// The receiver's pace is the sender's: items wait at the sender once the channel's window is full.
/// The end in good order is told apart from a failure: [`Items::try_next`] gives `Ok(None)` only for
/// the former. Dropping it tells the sender to stop. In an untagged enum it is as [`Data`](crate::Data) is.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut items = hbi::Items::iter([1, 2, 3]);
/// let mut sum = 0;
/// while let Some(n) = items.try_next().await? {
///     sum += n;
/// }
/// assert_eq!(sum, 6);
/// # Ok::<(), hbi::Error>(()) }).unwrap();
/// ```
pub struct Items<T>(Mutex<Inner<T>>);

enum Inner<T> {
    Typed(Pin<Box<dyn Stream<Item = Result<T>> + Send>>),
    Packed(Messages),
    Failed(Error),
    Taken,
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Items<T> {
    /// Items of an iterator.
    pub fn iter(items: impl IntoIterator<Item = T, IntoIter: Send + 'static>) -> Self {
        Self::stream(stream::iter(items))
    }

    /// Items of a stream.
    pub fn stream(items: impl Stream<Item = T> + Send + 'static) -> Self {
        Self::try_stream(items.map(Ok))
    }

    /// Items of a stream that may fail: the first error ends it, and arrives at the receiver.
    pub fn try_stream(items: impl Stream<Item = Result<T>> + Send + 'static) -> Self {
        Self(Mutex::new(Inner::Typed(Box::pin(items))))
    }

    /// A sender, and the items it sends. `room` items wait between the two.
    ///
    /// Dropping the sender before [`ItemsSender::finish`] makes the stream end with an error.
    ///
    /// # Panics
    /// When `room` is 0.
    pub fn channel(room: usize) -> (ItemsSender<T>, Self) {
        let (sender, mut receiver) = mpsc::channel(room);
        let items = stream::poll_fn(move |cx| receiver.poll_recv(cx))
            .chain(stream::once(async { Sent::Abandoned }))
            .scan(false, |over, sent| {
                let item = match sent {
                    _ if *over => None,
                    Sent::Item(item) => Some(Ok(item)),
                    Sent::Finished => None,
                    Sent::Failed(failure) => Some(Err(failure.into())),
                    Sent::Abandoned => Some(Err(super::carried::abandoned().into())),
                };
                *over = !matches!(item, Some(Ok(_)));
                std::future::ready(item)
            });
        (ItemsSender(sender), Self::try_stream(items))
    }
}

enum Sent<T> {
    Item(T),
    Finished,
    Failed(Failure),
    Abandoned,
}

/// Sends the items of [`Items::channel`].
pub struct ItemsSender<T>(mpsc::Sender<Sent<T>>);

impl<T> fmt::Debug for ItemsSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemsSender").finish_non_exhaustive()
    }
}

impl<T> ItemsSender<T> {
    /// Sends an item once there is room.
    ///
    /// # Errors
    /// When the receiver wants no more.
    pub async fn send(&self, item: T) -> Result<()> {
        self.0.send(Sent::Item(item)).await.map_err(|_| unwanted())
    }

    /// Sends an item if there is room now; gives it back where there is none.
    ///
    /// # Errors
    /// The item itself: there is no room, or the receiver wants no more ([`Self::is_unwanted`]).
    pub fn try_send(&self, item: T) -> Result<(), T> {
        self.0
            .try_send(Sent::Item(item))
            .map_err(|e| match e.into_inner() {
                Sent::Item(item) => item,
                _ => unreachable!("what comes back is what was sent"),
            })
    }

    /// Whether the receiver wants no more.
    pub fn is_unwanted(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the receiver wants no more.
    pub async fn unwanted(&self) {
        self.0.closed().await;
    }

    /// Ends the stream in good order.
    pub async fn finish(self) {
        // a receiver that is gone needs no end
        let _ = self.0.send(Sent::Finished).await;
    }

    /// Ends the stream with an error that arrives at the receiver.
    pub async fn fail(self, message: impl Into<String>) {
        let _ = self
            .0
            .send(Sent::Failed(Failure::new(Kind::Cancelled, message)))
            .await;
    }
}

fn unwanted() -> Error {
    Error::new(Kind::Cancelled, "the receiver of the stream wants no more")
}

impl<T: DeserializeOwned + 'static> Items<T> {
    /// The next item, or `None` at the end in good order.
    ///
    /// # Errors
    /// When the stream ended otherwise: its sender failed, was dropped, or the connection is gone.
    /// After an error there is nothing more, and it is given again.
    pub async fn try_next(&mut self) -> Result<Option<T>> {
        if let Inner::Failed(error) = self.0.get_mut().unwrap_or_else(|e| e.into_inner()) {
            return Err(error.clone());
        }
        self.next().await.transpose()
    }

    /// The next item, the stream's error once, or `None` when nothing more comes.
    pub async fn next(&mut self) -> Option<Result<T>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// All items.
    ///
    /// # Errors
    /// As [`Self::try_next`].
    pub async fn collect(mut self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(item) = self.try_next().await? {
            all.push(item);
        }
        Ok(all)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let inner = self.0.get_mut().unwrap_or_else(|e| e.into_inner());
        let next = match inner {
            Inner::Typed(items) => ready!(items.as_mut().poll_next(cx)),
            Inner::Failed(_) | Inner::Taken => None,
            Inner::Packed(messages) => {
                ready!(messages.poll_next(cx)).map(|message| match message? {
                    Message::Item(packed) => packed.unpack().map_err(Error::from),
                    _ => Err(Error::new(Kind::Value, "expected items, found raw data")),
                })
            }
        };
        match &next {
            Some(Ok(_)) => {}
            Some(Err(error)) => *inner = Inner::Failed(error.clone()),
            None if matches!(inner, Inner::Failed(_)) => {}
            None => *inner = Inner::Taken,
        }
        Poll::Ready(next)
    }
}

impl<T: DeserializeOwned + 'static> Stream for Items<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        self.poll(cx)
    }
}

impl<T> Unpin for Items<T> {}

impl<T: Serialize + Send + 'static> Serialize for Items<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut inner = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let messages = match std::mem::replace(&mut *inner, Inner::Taken) {
            Inner::Packed(messages) => messages,
            Inner::Typed(items) => {
                Messages::local(items.map(|item| Ok(Message::Item(Packed::pack(&item?)?))))
            }
            Inner::Failed(_) | Inner::Taken => {
                return Err(ser::Error::custom(
                    "these items were sent or read to their end before: a stream can be taken once",
                ));
            }
        };
        serialize_handle(Box::new(Carried::Stream(messages, None)), serializer)
    }
}

impl<'de, T> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Carried::from_handle(deserialize_handle(deserializer)?) {
            Some(Carried::Stream(messages, _)) => Ok(Self(Mutex::new(Inner::Packed(messages)))),
            _ => Err(de::Error::custom(no_stream())),
        }
    }
}

impl<T: Send + 'static> From<Vec<T>> for Items<T> {
    fn from(items: Vec<T>) -> Self {
        Self::iter(items)
    }
}
