//! Streams that the peer opened, until it is known what they are.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::receive::{Read, poll_frame_where};
use crate::wire::{
    mux::{Settings, Violation},
    quic::{ChannelHead, Frame, Open, Reader, StreamKind},
};

/// An opening larger than this waits for room before more of it is read.
const LARGE: usize = 64 << 10;

/// How many messages of the largest size may be put together at once.
const AT_ONCE: usize = 4;

/// Bytes of room that are counted together.
const UNIT: usize = 1 << 10;

/// Room for large openings, of which a connection puts together so many at once.
pub(super) fn room(settings: &Settings) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE * largest(settings).div_ceil(UNIT)))
}

/// The largest opening.
fn largest(settings: &Settings) -> usize {
    settings.message as usize + settings.frame as usize
}

/// A stream that the peer opened.
pub(super) struct Arriving(Option<Parts>);

struct Parts {
    send: Option<SendStream>,
    recv: RecvStream,
    reader: Reader,
    /// What was read of a unidirectional stream's head.
    head: Vec<u8>,
    room: Room,
}

/// Room for the opening, where it needs some.
enum Room {
    None,
    Of(Arc<Semaphore>),
    Waiting(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>),
    /// There is room as long as this lives.
    There(Option<OwnedSemaphorePermit>),
}

impl Room {
    /// Ready once so much of a frame may be read.
    fn poll(&mut self, needs: usize, cx: &mut Context<'_>) -> Poll<()> {
        if let Room::Of(room) = self {
            if needs <= LARGE {
                return Poll::Ready(());
            }
            let units = needs.div_ceil(UNIT) as u32;
            let waiting = Arc::clone(room).acquire_many_owned(units);
            // it is never closed
            *self = Room::Waiting(Box::pin(async move { waiting.await.ok() }));
        }
        if let Room::Waiting(waiting) = self {
            *self = Room::There(ready!(waiting.as_mut().poll(cx)));
        }
        Poll::Ready(())
    }
}

/// What it is.
pub(super) enum Arrived {
    Conversation {
        send: SendStream,
        recv: RecvStream,
        reader: Reader,
        open: Box<Open>,
        /// Its room, where it needed some, which is taken until it lands.
        room: Option<OwnedSemaphorePermit>,
    },
    Channel {
        head: ChannelHead,
        recv: RecvStream,
        reader: Reader,
    },
    Control {
        recv: RecvStream,
        /// What was read behind its first byte.
        rest: Bytes,
    },
    /// It ended before it said what it is.
    Nothing,
    Violation(Violation),
}

impl Arriving {
    pub(super) fn conversation(
        send: SendStream,
        recv: RecvStream,
        settings: &Settings,
        room: &Arc<Semaphore>,
    ) -> Self {
        Self::new(Some(send), recv, settings, Room::Of(Arc::clone(room)))
    }

    pub(super) fn unidirectional(recv: RecvStream, settings: &Settings) -> Self {
        Self::new(None, recv, settings, Room::None)
    }

    fn new(send: Option<SendStream>, recv: RecvStream, settings: &Settings, room: Room) -> Self {
        Self(Some(Parts {
            send,
            recv,
            reader: Reader::new(settings),
            head: Vec::new(),
            room,
        }))
    }
}

impl Future for Arriving {
    type Output = Arrived;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arrived> {
        let Some(parts) = &mut self.0 else {
            return Poll::Ready(Arrived::Nothing);
        };
        let found = if parts.send.is_some() {
            ready!(parts.poll_opening(cx))
        } else {
            ready!(parts.poll_head(cx))
        };
        let Some(Parts {
            send,
            recv,
            reader,
            room,
            ..
        }) = self.0.take()
        else {
            return Poll::Ready(Arrived::Nothing);
        };
        Poll::Ready(match (found, send) {
            (Ok(Found::Open(open)), Some(send)) => Arrived::Conversation {
                send,
                recv,
                reader,
                open,
                room: match room {
                    Room::There(permit) => permit,
                    _ => None,
                },
            },
            (Ok(Found::Channel(head)), _) => Arrived::Channel { head, recv, reader },
            (Ok(Found::Control(rest)), _) => Arrived::Control { recv, rest },
            (Ok(Found::Nothing | Found::Open(_)), _) => Arrived::Nothing,
            (Err(violation), _) => Arrived::Violation(violation),
        })
    }
}

enum Found {
    Open(Box<Open>),
    Channel(ChannelHead),
    Control(Bytes),
    Nothing,
}

impl Parts {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        let room = &mut self.room;
        // one that is too large is refused when it is looked at next
        let may_read = |reader: &mut Reader, cx: &mut Context<'_>| room.poll(reader.needs(), cx);
        poll_frame_where(&mut self.recv, &mut self.reader, cx, may_read)
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found, Violation>> {
        Poll::Ready(match ready!(self.poll_frame(cx)) {
            Read::Frame(Frame::Open(open)) => Ok(Found::Open(open)),
            Read::Frame(_) => Err(Violation(
                "a conversation that does not begin with an opening".into(),
            )),
            Read::Failed(_) => Err(Violation(
                "a conversation that ended before its opening: the order of landings would \
                     wait for it"
                    .into(),
            )),
            Read::Lost => Ok(Found::Nothing),
            Read::Violation(violation) => Err(violation),
        })
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found, Violation>> {
        loop {
            if let Some((&kind, rest)) = self.head.split_first() {
                match StreamKind::from_byte(kind) {
                    Ok(StreamKind::Control) => {
                        return Poll::Ready(Ok(Found::Control(Bytes::copy_from_slice(rest))));
                    }
                    Ok(StreamKind::Channel) => {
                        if let Some(head) = rest.first_chunk() {
                            return Poll::Ready(ChannelHead::from_bytes(*head).map(Found::Channel));
                        }
                    }
                    Err(violation) => return Poll::Ready(Err(violation)),
                }
            }
            // no byte beyond the head is taken from the stream, but for the control stream's
            let left = (1 + ChannelHead::LEN).saturating_sub(self.head.len());
            match ready!(pin!(self.recv.read_chunk(left, true)).poll(cx)) {
                Ok(Some(chunk)) => self.head.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(_) => return Poll::Ready(Ok(Found::Nothing)),
            }
        }
    }
}
