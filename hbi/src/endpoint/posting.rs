//! The posting endpoint and its conversations: where the application starts to talk.

use std::{
    fmt,
    future::poll_fn,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::Stream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::AsyncWrite;

use super::{
    Augmented, CoNumber, Current, Data, Encoding, Link, LinkInfo, Message, Receiving, Request,
    Script, Sending, conversation::Main,
};
use crate::{
    Error, Kind, Result,
    script::Text,
    value::{Dialect, Packed},
};

/// The posting endpoint of a connection: where conversations with the peer begin.
///
/// A cheap handle. It does not keep the connection alive: once that is gone, everything here fails
/// with the reason.
#[derive(Clone)]
pub struct PostingEnd {
    link: Arc<dyn Link>,
    ordered: bool,
    /// Known without the link being asked, for each value of a call.
    literal: Option<Dialect>,
}

impl fmt::Debug for PostingEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostingEnd({})", self.info().peer_address)
    }
}

impl AsRef<PostingEnd> for PostingEnd {
    fn as_ref(&self) -> &PostingEnd {
        self
    }
}

impl PostingEnd {
    pub(crate) fn new(link: Arc<dyn Link>) -> Self {
        let literal = match link.info().encoding {
            Encoding::Literal(dialect) => Some(dialect),
            Encoding::Bound => None,
        };
        Self {
            link,
            ordered: true,
            literal,
        }
    }

    /// How values are written, where the connection takes literals: on a text wire.
    #[inline]
    pub(crate) fn literal(&self) -> Option<Dialect> {
        self.literal
    }

    #[inline]
    pub(crate) fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }

    /// The same posting endpoint, whose conversations have no place in the order of landings: each
    /// lands when it is there, before or after any other, and none waits for it.
    ///
    /// Over QUIC, where a lost packet could hold up the openings behind it, calls that depend on no
    /// other are then held up by their own packets only. Other wires carry openings one after the
    /// other anyway, and there it changes nothing. It holds for what is posted through what this
    /// returns (stubs made of it, its scripts and conversations); objects that a peer answers are
    /// called in order.
    ///
    /// ```
    /// # #[hbi::service]
    /// # trait Calc { async fn add(&self, a: i64, b: i64) -> i64; }
    /// # fn f(peer: hbi::Peer) {
    /// let calc = CalcStub::new(&peer.unordered());
    /// # }
    /// ```
    #[must_use = "this changes nothing of the posting endpoint that it is made of"]
    pub fn unordered(&self) -> Self {
        Self {
            ordered: false,
            ..self.clone()
        }
    }

    /// Whether its conversations have a place in the order of landings.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Whether both belong to one connection.
    pub(crate) fn is_of(&self, other: &PostingEnd) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    /// Facts about the connection: the peer's address, its identity.
    pub fn info(&self) -> &LinkInfo {
        self.link.info()
    }

    /// Whether the peer said goodbye: nothing lands there any more.
    #[cfg(feature = "balance")]
    pub(crate) fn is_peer_leaving(&self) -> bool {
        self.link.is_peer_leaving()
    }

    /// Why the connection is gone, once it is.
    pub fn closed(&self) -> Option<Error> {
        self.link.closed()
    }

    /// Waits until the connection is gone; returns why.
    pub async fn wait_closed(&self) -> Error {
        // who is there from here on is told
        let closed = self.link.on_closed().notified();
        if let Some(reason) = self.link.closed() {
            return reason;
        }
        closed.await;
        self.link
            .closed()
            .unwrap_or_else(|| Error::disconnected("the connection is gone"))
    }

    /// Begins a conversation, in its sending stage. The peer hears of it with what is sent first.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn co(&self) -> Result<PoCo<Sending>> {
        if let Some(error) = self.closed() {
            return Err(error);
        }
        Ok(PoCo {
            link: Arc::clone(&self.link),
            main: None,
            ordered: self.ordered,
            deadline: None,
            augmented: None,
            stage: PhantomData,
        })
    }

    /// Sends a script for its effect, and forgets it.
    ///
    /// # Errors
    /// When it could not be handed to the wire. What it does at the peer is not told.
    pub async fn notif(&self, code: impl Into<Script>) -> Result<()> {
        let mut co = self.co().await?;
        co.send_code(code).await?;
        co.close().await
    }

    /// Sends a script for its effect and raw data behind it, and forgets them.
    ///
    /// # Errors
    /// When they could not be handed to the wire, or the data's source failed.
    pub async fn notif_data(&self, code: impl Into<Script>, data: impl Into<Data>) -> Result<()> {
        let mut co = self.co().await?;
        co.send_code(code).await?;
        co.send_data(data).await?;
        co.close().await
    }
}

/// A posting conversation. `S` is its stage: [`Sending`], then [`Receiving`].
///
/// What is sent and received in it goes one after the other, beside all other conversations of the
/// connection. Dropping it before [`PoCo::close`] tells the peer that it was abandoned.
///
/// A stage's methods exist in that stage only:
///
/// ```compile_fail,E0599
/// # async fn f(co: hbi::PoCo<hbi::Sending>) -> hbi::Result<()> {
/// let mut co = co;
/// let n: i64 = co.recv_obj().await?; // not before `start_recv`
/// # Ok(()) }
/// ```
///
/// ```compile_fail,E0382
/// # async fn f(mut co: hbi::PoCo<hbi::Sending>) -> hbi::Result<()> {
/// let receiving = co.start_recv().await?;
/// co.send_code("late()").await?; // it has moved on to its next stage
/// # Ok(()) }
/// ```
pub struct PoCo<S> {
    link: Arc<dyn Link>,
    main: Option<Main>,
    ordered: bool,
    deadline: Option<Instant>,
    augmented: Option<Augmented>,
    stage: PhantomData<fn() -> S>,
}

impl<S> fmt::Debug for PoCo<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = std::any::type_name::<S>()
            .rsplit("::")
            .next()
            .unwrap_or_default();
        write!(
            f,
            "PoCo<{stage}>({:?})",
            self.main.as_ref().map(|main| main.co)
        )
    }
}

impl<S> PoCo<S> {
    /// A conversation that was opened already.
    pub(crate) fn opened(link: Arc<dyn Link>, co: CoNumber) -> Self {
        let main = Main::new(Arc::clone(&link), co);
        Self {
            link,
            main: Some(main),
            ordered: true,
            deadline: None,
            augmented: None,
            stage: PhantomData,
        }
    }

    /// The conversation's number on its connection, once something was sent, for logs.
    pub fn co_seq(&self) -> Option<u64> {
        self.main.as_ref().map(|main| main.co.0)
    }

    /// Scripts that land in this conversation find this, too.
    pub(crate) fn with_augmented(mut self, augmented: Augmented) -> Result<Self> {
        if let Encoding::Literal(_) = self.link.info().encoding {
            // what an answer is made of there lands before anybody asks for it
            let text = "over the text wire back-scripts find the connection's environment only: expose \
                        there what they call";
            return Err(Error::new(Kind::Misuse, text));
        }
        if let Some(main) = &mut self.main {
            main.augmented = Some(Arc::clone(&augmented));
        }
        self.augmented = Some(augmented);
        Ok(self)
    }

    fn into_stage<T>(mut self) -> PoCo<T> {
        PoCo {
            link: Arc::clone(&self.link),
            // without it the old stage has nothing to abandon
            main: self.main.take(),
            ordered: self.ordered,
            deadline: self.deadline,
            augmented: self.augmented.take(),
            stage: PhantomData,
        }
    }
}

impl PoCo<Sending> {
    /// Gives the conversation this long; what its landings at the peer call inherits what is left.
    /// To be said before anything is sent.
    pub fn within(mut self, time: Duration) -> Self {
        self.deadline = now().checked_add(time);
        self
    }

    /// Sends a script, which lands for its effect: a text, or a [`Script`] with values bound to it.
    ///
    /// # Errors
    /// When the connection is gone, or the peer has ended the conversation: then why.
    pub async fn send_code(&mut self, code: impl Into<Script>) -> Result<()> {
        self.script(code.into(), false).await
    }

    /// Sends a script, whose value arrives where the hosted code receives its next object.
    ///
    /// # Errors
    /// As [`Self::send_code`].
    pub async fn send_obj_of(&mut self, code: impl Into<Script>) -> Result<()> {
        self.script(code.into(), true).await
    }

    async fn script(&mut self, script: Script, value: bool) -> Result<()> {
        if let Some(main) = &mut self.main {
            return main.send(Message::script(script, value)?).await;
        }
        let (source, parameters, arguments, error) = script.into_parts();
        if let Some(error) = error {
            return Err(error);
        }
        let text = Text::Free {
            source: &source,
            parameters: &parameters,
            again: false,
        };
        self.open(Some(text), value, arguments).await.map(|_| ())
    }

    async fn open(
        &mut self,
        text: Option<Text<'_>>,
        value: bool,
        arguments: Packed,
    ) -> Result<&mut Main> {
        let (arguments, mut handles) = arguments.into_parts();
        let (link, mut place) = (&self.link, None);
        let mut request = Request {
            text,
            value,
            call: false,
            last: false,
            data: false,
            arguments: &arguments,
            handles: &mut handles,
            ordered: self.ordered,
            deadline: deadline(&**link, self.deadline),
            idempotent: false,
            place: &mut place,
        };
        let co = poll_fn(|cx| link.poll_open(link, &mut request, cx)).await?;
        let mut main = Main::new(Arc::clone(link), co);
        main.augmented = self.augmented.clone();
        Ok(self.main.insert(main))
    }

    async fn main(&mut self) -> Result<&mut Main> {
        if self.main.is_none() {
            self.open(None, false, Packed::array([])).await?;
        }
        self.main
            .as_mut()
            .ok_or_else(|| Error::new(Kind::Cancelled, "the conversation is over"))
    }

    /// Sends a value, which hosted code takes with `recv_obj`.
    ///
    /// # Errors
    /// As [`Self::send_code`], or when the value cannot be packed.
    pub async fn send_obj<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.main().await?.send_obj(value).await
    }

    /// Sends raw data, which hosted code takes with `recv_data`: bytes, a reader ([`Data::reader`])
    /// or a stream ([`Data::stream`]).
    ///
    /// # Errors
    /// As [`Self::send_code`], or when the source fails; the conversation is to be dropped then.
    pub async fn send_data(&mut self, data: impl Into<Data>) -> Result<()> {
        self.main().await?.send_data(data).await
    }

    /// Ends the sending stage: from here on the peer's answer is received.
    ///
    /// # Errors
    /// When nothing was sent in it and it cannot be opened. That the connection is gone is told where
    /// something is received.
    pub async fn start_recv(mut self) -> Result<PoCo<Receiving>> {
        let main = self.main().await?;
        main.link.end(main.co, 0);
        Ok(self.into_stage())
    }

    /// Ends the conversation without waiting for anything: what was sent lands, and is answered by
    /// nothing.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn close(mut self) -> Result<()> {
        if let Some(main) = &mut self.main {
            // dropped while it waits here, the conversation is abandoned
            main.flush().await;
        }
        if let Some(main) = self.main.take() {
            main.link.end(main.co, 0);
            main.link.detach(main.co);
            if let Some(error) = main.link.closed() {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl PoCo<Receiving> {
    fn main(&mut self) -> Result<&mut Main> {
        self.main
            .as_mut()
            .ok_or_else(|| Error::new(Kind::Cancelled, "the conversation is over"))
    }

    /// The next object. Back-scripts that stand before it land here, in this side's environment.
    ///
    /// # Errors
    /// The failure with which the peer ended the conversation; or when something else comes than a
    /// `T`.
    pub async fn recv_obj<T: DeserializeOwned + 'static>(&mut self) -> Result<T> {
        self.main()?.recv_obj().await
    }

    /// Takes the raw data that comes next, to its end, into a writer; returns how many bytes.
    ///
    /// # Errors
    /// As [`Self::recv_obj`], or when the writer fails.
    pub async fn recv_data(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Result<u64> {
        self.main()?.recv_data(writer).await
    }

    /// Takes exactly so many bytes of raw data into a writer. On the text wire, where raw data has no
    /// end of its own, this is how it is taken.
    ///
    /// # Errors
    /// As [`Self::recv_obj`], when the writer fails, or when the data ends earlier.
    pub async fn recv_data_exact(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin + ?Sized),
        bytes: u64,
    ) -> Result<()> {
        self.main()?.recv_data_exact(writer, bytes).await
    }

    /// Fills a buffer with raw data, exactly.
    ///
    /// # Errors
    /// As [`Self::recv_obj`], or when the data ends before the buffer is full.
    pub async fn recv_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.main()?.recv_exact(buffer).await
    }

    /// The raw data that comes next as a stream, to its end.
    ///
    /// # Errors
    /// When the conversation is over, or on the text wire, where raw data has no end of its own.
    pub fn recv_stream(&mut self) -> Result<impl Stream<Item = Result<Bytes>> + Send + Unpin + '_> {
        self.main()?.recv_stream()
    }

    /// Waits until the peer has ended its side; what still comes before is dropped.
    ///
    /// # Errors
    /// The failure with which the peer ended the conversation.
    pub async fn wait_completed(mut self) -> Result<()> {
        self.main()?.completed().await
    }

    /// Ends the conversation; what the peer still sends is dropped.
    ///
    /// # Errors
    /// None at present.
    pub async fn close(self) -> Result<()> {
        drop(self);
        Ok(())
    }
}

impl<S> Drop for PoCo<S> {
    fn drop(&mut self) {
        if let Some(main) = self.main.take() {
            // does nothing where this side has ended in good order
            main.link.fail(main.co, 0, super::carried::abandoned());
            main.link.release(main.co);
        }
    }
}

/// When a request gives up: at its own time, or the connection's default where it sets none, and no later
/// than the landing that it is made for.
pub(crate) fn deadline(link: &dyn Link, own: Option<Instant>) -> Option<Instant> {
    let default = || now().checked_add(link.info().deadline?);
    let inherited = Current::get().deadline;
    [own.or_else(default), inherited]
        .into_iter()
        .flatten()
        .min()
}

/// The time as deadlines are made of it: under a paused clock, that clock's.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
