//! Streams that the peer opened, until it is known what they are.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};

use super::receive::{Read, poll_frame};
use crate::wire::{
    mux::{Settings, Violation},
    quic::{ChannelHead, Frame, Open, Reader, StreamKind},
};

/// A stream that the peer opened.
pub(super) struct Arriving(Option<Parts>);

struct Parts {
    send: Option<SendStream>,
    recv: RecvStream,
    reader: Reader,
    /// What was read of a unidirectional stream's head.
    head: Vec<u8>,
}

/// What it is.
pub(super) enum Arrived {
    Conversation {
        send: SendStream,
        recv: RecvStream,
        reader: Reader,
        open: Box<Open>,
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
    pub(super) fn conversation(send: SendStream, recv: RecvStream, settings: &Settings) -> Self {
        Self::new(Some(send), recv, settings)
    }

    pub(super) fn unidirectional(recv: RecvStream, settings: &Settings) -> Self {
        Self::new(None, recv, settings)
    }

    fn new(send: Option<SendStream>, recv: RecvStream, settings: &Settings) -> Self {
        Self(Some(Parts {
            send,
            recv,
            reader: Reader::new(settings),
            head: Vec::new(),
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
            send, recv, reader, ..
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
    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found, Violation>> {
        Poll::Ready(
            match ready!(poll_frame(&mut self.recv, &mut self.reader, cx)) {
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
            },
        )
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
