//! Binary streams: `Data` in arguments, answers and anywhere in values.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{Carried, Message, Messages, carried::no_stream};
use crate::{
    Error, Kind, Result,
    value::{deserialize_handle, serialize_handle},
};

/// What is read from a source at once at most, and what there is room for at least.
const PIECE: usize = 64 << 10;
const LEAST: usize = 16 << 10;

/// A stream of bytes that travels: as an argument, an answer, or anywhere in a value.
///
/// It is made of bytes, of an [`AsyncRead`], or of a stream of [`Bytes`], and read as any of them;
/// it is never in memory as a whole. An end in good order is told apart from a failure, so that a
/// file cut short never looks complete. Dropping it tells the sender to stop.
///
/// In an enum marked `#[serde(untagged)]` a variant that is tried and does not fit takes the stream with it, so
/// give such an enum a tag.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let data = hbi::Data::from("hello".as_bytes().to_vec());
/// assert_eq!(data.to_bytes(1 << 20).await?, "hello");
/// # Ok::<(), hbi::Error>(()) }).unwrap();
/// ```
pub struct Data {
    inner: Mutex<Option<Messages>>,
    /// What of the last piece was not read yet.
    rest: Bytes,
    /// How many bytes come, where the sender said so.
    len: Option<u64>,
    /// What it ended with, other than in good order.
    failed: Option<Error>,
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}

impl Data {
    /// Data of a stream of bytes that may fail: the first error ends it, and arrives at the receiver.
    pub fn stream<E: Into<Error>>(
        bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Self {
        Self::new(Messages::local(
            bytes.map(|piece| piece.map(Message::Data).map_err(Into::into)),
        ))
    }

    /// Data that is read from a reader to its end.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        let begun = (Box::pin(reader), BytesMut::new());
        Self::stream(stream::try_unfold(
            begun,
            |(mut reader, mut room)| async move {
                let piece = read_piece(&mut reader, &mut room).await?;
                Ok::<_, Error>(piece.map(|piece| (piece, (reader, room))))
            },
        ))
    }

    /// The same data, known to be this long. The text wire can only send data of known length, and
    /// tells its receiver; the mux wire sends any, and does not tell.
    pub fn with_len(mut self, len: u64) -> Self {
        self.len = Some(len);
        self
    }

    /// How many bytes are left to be read, where that is known: data that arrived over the mux wire does
    /// not say, so send the length beside it where the receiver needs it.
    pub fn len_hint(&self) -> Option<u64> {
        self.len.map(|len| len + self.rest.len() as u64)
    }

    fn new(messages: Messages) -> Self {
        Self {
            inner: Mutex::new(Some(messages)),
            rest: Bytes::new(),
            len: None,
            failed: None,
        }
    }

    /// The next piece, or `None` at the end in good order.
    ///
    /// # Errors
    /// When the data ended otherwise: its source failed, its sender was dropped, or the connection
    /// is gone. What came before is then not the whole. After an error there is nothing more, and it
    /// is given again.
    pub async fn try_next(&mut self) -> Result<Option<Bytes>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        poll_fn(|cx| self.poll_piece(cx)).await.transpose()
    }

    /// Writes all of it to a writer, and flushes it; returns how many bytes there were.
    ///
    /// # Errors
    /// As [`Self::try_next`], or when the writer fails.
    pub async fn write_to(mut self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let mut total = 0;
        while let Some(piece) = self.try_next().await? {
            writer.write_all(&piece).await?;
            total += piece.len() as u64;
        }
        writer.flush().await?;
        Ok(total)
    }

    /// All of it in memory, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::try_next`], or when there is more than `limit`.
    pub async fn to_bytes(mut self, limit: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.try_next().await? {
            if piece.len() > limit - all.len() {
                return Err(crate::Failure::limit(
                    "to_bytes",
                    limit,
                    "read the data piece by piece, or pass a higher limit",
                )
                .into());
            }
            if all.is_empty() {
                // the usual case of one piece is not copied
                all = piece
                    .try_into_mut()
                    .unwrap_or_else(|piece| BytesMut::from(&piece[..]));
            } else {
                all.extend_from_slice(&piece);
            }
        }
        Ok(all.freeze())
    }

    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        let inner = self.inner.get_mut().unwrap_or_else(|e| e.into_inner());
        let Some(messages) = inner else {
            return Poll::Ready(None);
        };
        let next = ready!(messages.poll_next(cx)).map(|message| match message? {
            Message::Data(bytes) => Ok(bytes),
            _ => Err(Error::new(
                Kind::Value,
                "expected data, found a stream of items",
            )),
        });
        if let Some(Ok(piece)) = &next {
            self.len = self.len.map(|len| len.saturating_sub(piece.len() as u64));
        } else {
            *inner = None;
            self.failed = next.as_ref().and_then(|next| next.as_ref().err().cloned());
        }
        Poll::Ready(next)
    }
}

impl Stream for Data {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        self.poll_piece(cx)
    }
}

impl AsyncRead for Data {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            // data that was cut short never looks complete, however often it is read
            if let Some(error) = &self.failed {
                return Poll::Ready(Err(io::Error::other(error.clone())));
            }
            match ready!(self.poll_piece(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl From<Bytes> for Data {
    fn from(bytes: Bytes) -> Self {
        let len = bytes.len() as u64;
        Self::stream(stream::iter([Ok::<_, Error>(bytes)])).with_len(len)
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Data {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<&'static str> for Data {
    fn from(text: &'static str) -> Self {
        text.as_bytes().into()
    }
}

impl From<tokio::fs::File> for Data {
    /// The file from its position to its end.
    fn from(file: tokio::fs::File) -> Self {
        Self::reader(file)
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut inner = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        let Some(messages) = inner.take() else {
            return Err(ser::Error::custom(
                "this data was sent or read to its end before: a stream can be taken once",
            ));
        };
        let len = self.len_hint();
        let messages = if self.rest.is_empty() {
            messages
        } else {
            // begun to be read: the rest of the last piece goes first
            let first = stream::iter([Ok(Message::Data(self.rest.clone()))]);
            let mut messages = messages;
            Messages::local(first.chain(stream::poll_fn(move |cx| messages.poll_next(cx))))
        };
        serialize_handle(Box::new(Carried::Stream(messages, len)), serializer)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Carried::from_handle(deserialize_handle(deserializer)?) {
            Some(Carried::Stream(messages, len)) => Ok(Self {
                len,
                ..Self::new(messages)
            }),
            _ => Err(de::Error::custom(no_stream())),
        }
    }
}

/// Reads once. Small pieces share room: each keeps all of that from being used again.
async fn read_piece(
    reader: &mut (impl AsyncRead + Unpin),
    room: &mut BytesMut,
) -> Result<Option<Bytes>> {
    if room.capacity() < LEAST {
        room.reserve(PIECE);
    }
    let n = reader.read_buf(room).await?;
    Ok((n > 0).then(|| room.split().freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time.
    struct Slow;

    impl AsyncRead for Slow {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(&[7]);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_pieces_of_a_reader_share_room() {
        let mut data = Data::reader(Slow);
        let first = data.try_next().await.unwrap().unwrap();
        let mut pieces = vec![first];
        for n in 1..10_000 {
            let piece = data.try_next().await.unwrap().unwrap();
            assert_eq!(piece.as_ptr() as usize, pieces[0].as_ptr() as usize + n);
            pieces.push(piece);
        }
    }

    #[tokio::test]
    async fn data_that_was_cut_short_never_reads_as_whole() {
        let pieces = [Ok(Bytes::from_static(b"some")), Err(Error::refusal("cut"))];
        let mut data = Data::stream(stream::iter(pieces));
        let mut all = Vec::new();
        for _ in 0..2 {
            let error = data.read_to_end(&mut all).await.unwrap_err();
            assert!(error.to_string().contains("cut"), "{error}");
        }
        assert_eq!(all, b"some");
    }
}
