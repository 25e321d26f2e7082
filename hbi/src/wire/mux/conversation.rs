//! One conversation of a connection: what is known of it, and the answer it waits for.

use std::task::Waker;

use bytes::Bytes;

use super::{
    Payload,
    channel::{Channels, ReceiveState, Receiving, Sending},
};
use crate::{Failure, value::Short};

/// The answer of a call.
#[derive(Debug, Default)]
pub(super) enum Answer {
    /// Not there yet, and nobody waits for it.
    #[default]
    Unwatched,
    /// Not there yet; who waits for it.
    Watched(Waker),
    /// There.
    There(Reply),
    /// Given to the caller.
    Taken,
}

impl Answer {
    /// Who waits for it, who does so no more.
    #[inline]
    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        match std::mem::take(self) {
            Answer::Watched(waker) => Some(waker),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// What a call is answered with.
#[derive(Debug)]
pub enum Reply {
    /// A short value without handles.
    Short(Short),
    /// A value without handles: MessagePack.
    Bytes(Bytes),
    /// A value with handles.
    Value(Box<Payload>),
    /// The peer's failure, or why there is no answer.
    Failed(Box<Failure>),
}

/// Facts about a conversation, as bits.
pub(super) mod bit {
    /// This side's main sequence has begun.
    pub(in super::super) const OUT_STARTED: u8 = 0x01;
    /// This side's terminal has been written.
    pub(in super::super) const OUT_ENDED: u8 = 0x02;
    /// The peer's terminal has arrived.
    pub(in super::super) const IN_ENDED: u8 = 0x04;
    /// The peer's main sequence has begun.
    pub(in super::super) const IN_STARTED: u8 = 0x08;
    /// The application let go of it.
    pub(in super::super) const RELEASED: u8 = 0x10;
    /// The application will send nothing more on the main sequence.
    pub(in super::super) const OUT_DONE: u8 = 0x20;
    /// One call: the first value that arrives is its answer.
    pub(in super::super) const CALL: u8 = 0x40;
    /// Opened from within a hosted conversation.
    pub(in super::super) const NESTED: u8 = 0x80;
}

pub(super) struct Conversation<P, U> {
    pub(super) bits: u8,
    pub(super) answer: Answer,
    /// Of this side's openings: the how many-th.
    pub(super) ordinal: u64,
    /// Its share of what this side holds.
    pub(super) held: u32,
    /// Bytes of its answer, where that did not leave at once.
    pub(super) answering: u32,
    pub(super) channels: Option<Box<Channels<P>>>,
    /// Few have it.
    pub(super) user: Option<Box<U>>,
}

impl<P, U> Default for Conversation<P, U> {
    fn default() -> Self {
        Self {
            bits: 0,
            answer: Answer::Unwatched,
            ordinal: 0,
            held: 0,
            answering: 0,
            channels: None,
            user: None,
        }
    }
}

impl<P, U> Conversation<P, U> {
    /// Makes one that [is bare](Self::is_bare) or [is done](Self::is_done) a new one: neither has
    /// anything to be dropped, which is not looked at again.
    #[inline]
    pub(super) fn clear(&mut self) {
        debug_assert!(self.is_bare() || self.is_done(), "something would be lost");
        self.bits = 0;
        std::mem::forget(std::mem::take(&mut self.answer));
        self.ordinal = 0;
        self.held = 0;
    }

    #[inline]
    pub(super) fn is(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    #[inline]
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.answer, Answer::Watched(_) | Answer::Unwatched)
    }

    /// Answers it, unless it is answered; returns who waits for that.
    #[inline]
    pub(super) fn answered(&mut self, reply: Reply) -> Option<Waker> {
        if !self.is_unanswered() {
            return None;
        }
        match std::mem::replace(&mut self.answer, Answer::There(reply)) {
            Answer::Watched(waker) => Some(waker),
            _ => None,
        }
    }

    /// The channels, made when they are first needed.
    pub(super) fn channels(&mut self, peer: u32, own: u32) -> &mut Channels<P> {
        self.channels
            .get_or_insert_with(|| Box::new(Channels::new(peer, own)))
    }

    /// Bytes of its answer, once that has left: they are counted no more.
    #[inline]
    pub(super) fn take_answered(&mut self) -> u32 {
        if self.answering == 0 {
            return 0;
        }
        let channels = self.channels.as_ref();
        match channels.is_none_or(|channels| channels.sending[0].queue.is_empty()) {
            true => std::mem::take(&mut self.answering),
            false => 0,
        }
    }

    /// Whether nothing is kept with it but what it holds.
    #[inline]
    pub(super) fn is_bare(&self) -> bool {
        self.answering == 0
            && self.channels.is_none()
            && self.user.is_none()
            && matches!(self.answer, Answer::Taken | Answer::Unwatched)
    }

    /// Whether it was one message each way, and both have come: the usual end of a call.
    #[inline]
    pub(super) fn ended_without_channels(&self) -> bool {
        const OVER: u8 = bit::OUT_ENDED | bit::IN_ENDED;
        self.bits & OVER == OVER && self.channels.is_none()
    }

    /// The same, where nothing is kept with it but a short answer at most.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        let kept = self.held | self.answering;
        self.ended_without_channels()
            && self.user.is_none()
            && kept == 0
            && matches!(
                self.answer,
                Answer::Unwatched | Answer::There(Reply::Short(_))
            )
    }

    /// Whether the application is done with it but for what `bits` says.
    pub(super) fn has_no_streams_open(&self) -> bool {
        self.channels.as_ref().is_none_or(|channels| {
            channels.sending.iter().skip(1).all(Sending::is_over)
                && channels.receiving.iter().skip(1).all(is_read)
        })
    }
}

/// Whether its reader has seen its end, or is gone.
fn is_read<P>(receiving: &Receiving<P>) -> bool {
    matches!(receiving.state, ReceiveState::Dropped)
}
