//! Hosting conversations: what the peer opened, as hosted code sees it.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use bytes::Bytes;
use futures_util::Stream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::AsyncWrite, sync::Notify};

use super::{
    CoNumber, Current, Data, Link, Message, PostingEnd, Receiving, Script, Sending, Working,
    carried::abandoned, conversation::Main,
};
use crate::{Error, Failure, Kind, Result};

/// A conversation that the peer opened, shared by its landing and the code it runs.
pub struct Hosted {
    link: Arc<dyn Link>,
    co: CoNumber,
    current: Current,
    cancellation: Cancellation,
    facts: AtomicU8,
    augmented: Option<Augmented>,
}

/// An environment of one conversation; what it is is the environment's business.
pub type Augmented = Arc<dyn Any + Send + Sync>;

/// The conversation was taken by hosted code, which ends it itself.
const TAKEN: u8 = 1;
/// Hosted code let go of the conversation without ending it.
const ABANDONED: u8 = 2;
/// The landing is over: nobody but the conversation's holder can end it.
const LANDED: u8 = 4;
/// It is a back-script's, whose conversation belongs to its poster.
const BACK: u8 = 8;

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hosted({:?})", self.co)
    }
}

impl Hosted {
    pub(super) fn new(link: Arc<dyn Link>, co: CoNumber, current: Current) -> Self {
        Self::with(link, co, current, 0)
    }

    /// A back-script's.
    pub(crate) fn back(
        link: Arc<dyn Link>,
        co: CoNumber,
        current: Current,
        augmented: Option<Augmented>,
    ) -> Self {
        let current = Current {
            depth: current.depth.saturating_add(1),
            ..current
        };
        let mut hosted = Self::with(link, co, current, BACK);
        hosted.augmented = augmented;
        hosted
    }

    fn with(link: Arc<dyn Link>, co: CoNumber, current: Current, facts: u8) -> Self {
        let (cancellation, facts) = (Cancellation::default(), AtomicU8::new(facts));
        Self {
            link,
            co,
            current,
            cancellation,
            facts,
            augmented: None,
        }
    }

    /// The connection.
    pub fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }

    /// Its number.
    pub fn number(&self) -> CoNumber {
        self.co
    }

    /// What calls made while it lands inherit.
    pub fn current(&self) -> Current {
        self.current
    }

    /// What the conversation's own environment adds to that of the connection.
    pub fn augmented(&self) -> Option<&Augmented> {
        self.augmented.as_ref()
    }

    /// Tells hosted code that the caller wants no answer any more.
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Takes the conversation, at most once.
    ///
    /// # Errors
    /// When it was taken before, or belongs to a back-script.
    pub fn take(self: &Arc<Self>) -> Result<HoCo<Receiving>, Failure> {
        let before = self.facts.fetch_or(TAKEN, Ordering::AcqRel);
        if before & BACK != 0 {
            return Err(Failure::new(
                Kind::Misuse,
                "a back-script cannot call a method that takes the conversation: it belongs to \
                 the one who receives its answer",
            ));
        }
        if before & (TAKEN | LANDED) != 0 {
            return Err(Failure::new(
                Kind::Misuse,
                "the conversation was taken before: a script can call one method that takes it, once",
            ));
        }
        let main = Main::new(Arc::clone(&self.link), self.co);
        Ok(HoCo {
            hosted: Some((Arc::clone(self), main)),
            stage: PhantomData,
        })
    }

    /// Whether hosted code took the conversation.
    pub fn is_taken(&self) -> bool {
        self.facts.load(Ordering::Acquire) & TAKEN != 0
    }

    /// The landing is over; ends the conversation where hosted code took it and failed, or let go of
    /// it too early.
    pub(super) fn landed(&self, failure: Option<Failure>) {
        let before = self.facts.fetch_or(LANDED, Ordering::AcqRel);
        if before & ABANDONED != 0 {
            self.link
                .fail(self.co, 0, failure.unwrap_or_else(abandoned));
            self.link.release(self.co);
        } else if let Some(failure) = failure {
            // does nothing where the conversation has ended
            self.link.fail(self.co, 0, failure);
        }
    }

    fn abandon(&self) {
        if self.facts.fetch_or(ABANDONED, Ordering::AcqRel) & LANDED != 0 {
            self.link.fail(self.co, 0, abandoned());
            self.link.release(self.co);
        }
    }
}

/// Whether the caller of a landing wants no answer any more.
#[derive(Debug, Default)]
pub struct Cancellation {
    cancelled: AtomicBool,
    notify: Notify,
}

impl Cancellation {
    /// It is so from now on.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Whether it is so.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until it is so.
    pub async fn cancelled(&self) {
        loop {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }
}

/// A hosting conversation, taken by a method marked `#[hbi(converse)]`. `S` is its stage:
/// [`Receiving`], then [`Working`] where that helps, then [`Sending`].
///
/// Dropping it before [`HoCo::close`] tells the peer that it was abandoned, unless the method
/// returns an error, which is told instead.
///
/// ```compile_fail,E0599
/// # async fn f(mut co: hbi::HoCo<hbi::Receiving>) -> hbi::Result<()> {
/// co.send_obj(&1).await?; // not before `start_send`
/// # Ok(()) }
/// ```
pub struct HoCo<S = Receiving> {
    hosted: Option<(Arc<Hosted>, Main)>,
    stage: PhantomData<fn() -> S>,
}

impl<S> fmt::Debug for HoCo<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = std::any::type_name::<S>()
            .rsplit("::")
            .next()
            .unwrap_or_default();
        write!(
            f,
            "HoCo<{stage}>({:?})",
            self.hosted.as_ref().map(|(hosted, _)| hosted.co)
        )
    }
}

impl<S> HoCo<S> {
    /// The conversation's number on its connection, for logs.
    pub fn co_seq(&self) -> u64 {
        self.hosted.as_ref().map_or(0, |(hosted, _)| hosted.co.0)
    }

    /// Where to start conversations with the peer.
    ///
    /// # Panics
    /// Never: a conversation that can be seen has its connection.
    pub fn po(&self) -> PostingEnd {
        let (hosted, _) = self
            .hosted
            .as_ref()
            .expect("only stage changes and ends empty it");
        PostingEnd::new(Arc::clone(&hosted.link))
    }

    fn main(&mut self) -> Result<&mut Main> {
        match &mut self.hosted {
            Some((_, main)) => Ok(main),
            None => Err(Error::new(Kind::Cancelled, "the conversation is over")),
        }
    }

    fn into_stage<T>(mut self) -> HoCo<T> {
        HoCo {
            hosted: self.hosted.take(),
            stage: PhantomData,
        }
    }
}

impl HoCo<Receiving> {
    /// The next object that the peer sends. Scripts that stand before it land here.
    ///
    /// # Errors
    /// When the peer failed, ended its side, or sends something else than a `T`.
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

    /// Waits for the end of what the peer sends, for work that shall begin once all is there. What
    /// still comes is dropped.
    ///
    /// # Errors
    /// The failure with which the peer ended its side.
    pub async fn finish_recv(mut self) -> Result<HoCo<Working>> {
        self.main()?.completed().await?;
        Ok(self.into_stage())
    }

    /// Ends the receiving stage: from here on the answer is sent.
    ///
    /// # Errors
    /// None: that the connection is gone is told where something is sent.
    pub async fn start_send(self) -> Result<HoCo<Sending>> {
        Ok(self.into_stage())
    }
}

impl HoCo<Working> {
    /// Ends the work: from here on the answer is sent.
    ///
    /// # Errors
    /// None: that the connection is gone is told where something is sent.
    pub async fn start_send(self) -> Result<HoCo<Sending>> {
        Ok(self.into_stage())
    }
}

impl HoCo<Sending> {
    /// Sends a value, which the poster takes with `recv_obj`.
    ///
    /// # Errors
    /// When the poster wants no more, the connection is gone, or the value cannot be packed.
    pub async fn send_obj<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.main()?.send_obj(value).await
    }

    /// Sends raw data, which the poster takes with `recv_data`: bytes, a reader
    /// ([`Data::reader`]) or a stream ([`Data::stream`]).
    ///
    /// # Errors
    /// As [`Self::send_obj`], or when the source fails.
    pub async fn send_data(&mut self, data: impl Into<Data>) -> Result<()> {
        self.main()?.send_data(data).await
    }

    /// Sends a back-script, which lands for its effect where the poster receives: a text, or a
    /// [`Script`] with values bound to it.
    ///
    /// # Errors
    /// As [`Self::send_obj`].
    pub async fn send_code(&mut self, code: impl Into<Script>) -> Result<()> {
        self.script(code.into(), false).await
    }

    /// Sends a back-script, whose value is the poster's next object.
    ///
    /// # Errors
    /// As [`Self::send_obj`].
    pub async fn send_obj_of(&mut self, code: impl Into<Script>) -> Result<()> {
        self.script(code.into(), true).await
    }

    async fn script(&mut self, script: Script, value: bool) -> Result<()> {
        let script = Message::script(script, value)?;
        self.main()?.send(script).await
    }
}

impl<S> HoCo<S> {
    /// Ends the conversation in good order, once what was sent has left.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn close(mut self) -> Result<()> {
        // dropped while it waits here, the conversation is abandoned
        self.main()?.flush().await;
        if let Some((hosted, _)) = self.hosted.take() {
            hosted.link.end(hosted.co, 0);
            hosted.link.detach(hosted.co);
            if let Some(error) = hosted.link.closed() {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl<S> Drop for HoCo<S> {
    fn drop(&mut self) {
        if let Some((hosted, _)) = self.hosted.take() {
            hosted.abandon();
        }
    }
}
