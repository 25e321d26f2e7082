//! What posting and hosting conversations have in common: sending and receiving on the main
//! sequence.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Augmented, CoNumber, Current, Data, Encoding, Hosted, Link, Message, Received};
use crate::{Error, Kind, Result, value::Packed};

/// The stage of a conversation in which it sends.
#[derive(Debug)]
pub enum Sending {}

/// The stage of a conversation in which it receives.
#[derive(Debug)]
pub enum Receiving {}

/// The stage of a hosting conversation between receiving and sending.
#[derive(Debug)]
pub enum Working {}

/// The main sequence of an open conversation.
#[derive(Debug)]
pub(super) struct Main {
    pub(super) link: Arc<dyn Link>,
    pub(super) co: CoNumber,
    /// What of a piece of raw data was not taken yet.
    rest: Bytes,
    /// Raw data was begun to be taken, its end was not seen yet.
    in_data: bool,
    /// What scripts that land here find beside the connection's environment.
    pub(super) augmented: Option<Augmented>,
    /// Something that was received and belongs to what is asked for next.
    ahead: Option<Received>,
}

impl Main {
    pub(super) fn new(link: Arc<dyn Link>, co: CoNumber) -> Self {
        Self {
            link,
            co,
            rest: Bytes::new(),
            in_data: false,
            augmented: None,
            ahead: None,
        }
    }

    pub(super) async fn send(&mut self, message: Message) -> Result<()> {
        let mut message = Some(message);
        poll_fn(|cx| {
            self.link
                .poll_send(&self.link, self.co, 0, &mut message, cx)
        })
        .await
    }

    pub(super) async fn send_obj<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let packed = match self.link.info().encoding {
            Encoding::Bound => Packed::pack(value)?,
            Encoding::Literal(dialect) => Packed::pack_literal(value, dialect)?,
        };
        self.send(Message::Item(packed)).await
    }

    pub(super) async fn send_data(&mut self, data: impl Into<Data>) -> Result<()> {
        let mut data = data.into();
        let (link, co) = (Arc::clone(&self.link), self.co);
        // a source that stands still does not keep us from learning that nobody wants its data: the
        // end is refused then
        let next = |data: &mut Data, cx: &mut Context<'_>| match data.poll_piece(cx) {
            Poll::Pending => link.poll_stopped(co, 0, cx).map(|()| None),
            ready => ready,
        };
        while let Some(piece) = poll_fn(|cx| next(&mut data, cx)).await.transpose()? {
            if !piece.is_empty() {
                self.send(Message::Data(piece)).await?;
            }
        }
        // the end of this run of data
        self.send(Message::Data(Bytes::new())).await
    }

    /// Waits until all that was sent has left for the transport.
    pub(super) async fn flush(&mut self) {
        poll_fn(|cx| self.link.poll_sent(self.co, 0, cx)).await;
    }

    async fn next(&mut self) -> Result<Option<Received>> {
        match self.ahead.take() {
            Some(received) => Ok(Some(received)),
            None => poll_fn(|cx| self.link.poll_receive(&self.link, self.co, 0, cx)).await,
        }
    }

    /// The next value; scripts that stand before it land here.
    pub(super) async fn recv_obj<T: DeserializeOwned + 'static>(&mut self) -> Result<T> {
        loop {
            match self.next().await? {
                Some(Received::Item(packed)) => return Ok(packed.unpack()?),
                Some(Received::Script {
                    prepared,
                    value,
                    arguments,
                }) => {
                    let (link, augmented) = (Arc::clone(&self.link), self.augmented.clone());
                    let hosted = Hosted::back(link, self.co, Current::get(), augmented);
                    let answer = prepared.land(arguments, Arc::new(hosted)).await;
                    let answer = answer.map_err(Error::from)?;
                    if value {
                        return Ok(answer.unpack()?);
                    }
                }
                Some(Received::Data(bytes)) if bytes.is_empty() && self.rest.is_empty() => {
                    self.in_data = false;
                }
                Some(Received::Data(bytes)) => {
                    let n = bytes.len() + self.rest.len();
                    self.ahead = Some(Received::Data(bytes));
                    return Err(Error::new(
                        Kind::Value,
                        format!(
                            "expected an object, found raw data ({n} bytes or more): take it first"
                        ),
                    ));
                }
                None => {
                    return Err(Error::new(
                        Kind::Value,
                        "expected an object, but the peer has ended the conversation",
                    ));
                }
            }
        }
    }

    /// A run that was read to its last byte is over: what is read by its length goes on with the next, as
    /// it does over a wire without marks.
    async fn skip_end(&mut self) -> Result<()> {
        if self.in_data && self.rest.is_empty() {
            match self.next().await? {
                Some(Received::Data(bytes)) if bytes.is_empty() => self.in_data = false,
                other => self.ahead = other,
            }
        }
        Ok(())
    }

    /// The next piece of the current run of raw data; `None` at its end.
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        match self.next().await? {
            Some(Received::Data(bytes)) if bytes.is_empty() => {
                self.in_data = false;
                Ok(None)
            }
            Some(Received::Data(bytes)) => {
                self.in_data = true;
                Ok(Some(bytes))
            }
            Some(other) => {
                self.ahead = Some(other);
                Err(Error::new(
                    Kind::Value,
                    "expected raw data, found an object or a script",
                ))
            }
            None => Err(Error::new(
                Kind::Value,
                "expected raw data, but the peer has ended the conversation",
            )),
        }
    }

    pub(super) async fn recv_data(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Result<u64> {
        self.needs_framing()?;
        let mut total = 0;
        while let Some(piece) = self.piece().await? {
            writer.write_all(&piece).await?;
            total += piece.len() as u64;
        }
        writer.flush().await?;
        Ok(total)
    }

    /// Raw data shows its end only where the wire has framing for it.
    fn needs_framing(&self) -> Result<()> {
        match self.link.info().encoding {
            Encoding::Bound => Ok(()),
            Encoding::Literal(_) => Err(Error::new(
                Kind::Misuse,
                "on the text wire raw data has no end of its own: take as much as is known to come, \
                 with `recv_data_exact` or `recv_exact`",
            )),
        }
    }

    /// Takes exactly so many bytes of raw data into a writer.
    pub(super) async fn recv_data_exact(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin + ?Sized),
        mut bytes: u64,
    ) -> Result<()> {
        self.expect(bytes);
        if bytes > 0 {
            self.skip_end().await?;
        }
        while bytes > 0 {
            let Some(mut piece) = self.piece().await? else {
                return Err(short(bytes));
            };
            let n = usize::try_from(bytes).map_or(piece.len(), |most| most.min(piece.len()));
            let now = piece.split_to(n);
            // what is behind stays, though the writer fails
            self.rest = piece;
            writer.write_all(&now).await?;
            bytes -= n as u64;
        }
        writer.flush().await?;
        Ok(())
    }

    /// Tells the wire what comes, where it has no framing for it.
    fn expect(&self, bytes: u64) {
        let known = self.rest.len() as u64;
        if bytes > known {
            self.link.expect_data(self.co, 0, bytes - known);
        }
    }

    pub(super) async fn recv_exact(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        self.expect(buffer.len() as u64);
        if !buffer.is_empty() {
            self.skip_end().await?;
        }
        while !buffer.is_empty() {
            let Some(mut piece) = self.piece().await? else {
                return Err(short(buffer.len() as u64));
            };
            let n = piece.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(n);
            now.copy_from_slice(&piece.split_to(n));
            buffer = later;
            self.rest = piece;
        }
        Ok(())
    }

    pub(super) fn recv_stream(
        &mut self,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + Unpin + '_> {
        self.needs_framing()?;
        Ok(Box::pin(stream::try_unfold(self, |main| async move {
            Ok(main.piece().await?.map(|piece| (piece, main)))
        })))
    }

    /// Waits for the end of the peer's main sequence; what still comes before it is dropped.
    pub(super) async fn completed(&mut self) -> Result<()> {
        self.rest.clear();
        while self.next().await?.is_some() {}
        Ok(())
    }
}

/// The error of raw data that ended too early.
fn short(missing: u64) -> Error {
    Error::new(
        Kind::Value,
        format!("the raw data ended {missing} bytes before all that was asked for"),
    )
}
