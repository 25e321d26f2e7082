//! A channel: one direction of the main sequence or of a stream, its queue and its credit.
//!
//! ```text
//!  sending:    Open --end--> Ending --all written--> Closed
//!               |  \--fail--> (error written) ------> Closed
//!               \--peer's STOP---------------------> Stopped
//!  receiving:  Open --LAST/END--> Ended     --ERROR--> Failed     --reader gone--> Dropped
//! ```

use std::{collections::VecDeque, sync::Arc, task::Waker};

use bytes::{Bytes, BytesMut};

use super::WireHandle;
use crate::Failure;

/// MessagePack and the handles in it, as they arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// MessagePack.
    pub bytes: Bytes,
    /// Handles in the order of their indices.
    pub handles: Vec<WireHandle>,
    /// Held while objects are given back in it that nobody has looked up yet.
    pub(in crate::wire) unread: Option<Arc<()>>,
}

/// What arrives on a channel.
#[derive(Debug)]
pub enum Arrival<P> {
    /// A value.
    Item(Payload),
    /// Raw bytes.
    Data(Bytes),
    /// A script to land; `P` is what the environment made of its number.
    Script {
        /// The prepared script.
        prepared: P,
        /// Whether its value is asked for.
        value: bool,
        /// Its arguments, a MessagePack array.
        arguments: Payload,
    },
}

/// Something queued to be sent.
#[derive(Debug)]
pub(super) enum Chunk {
    /// A message: the kind of frame it begins with, its fields, its body.
    Message {
        kind: u8,
        flags: u8,
        /// The frame that gives its script's number a text, right before it: until it is written the
        /// number may have got another.
        definition: Vec<u8>,
        fields: Vec<u8>,
        body: Bytes,
        begun: bool,
        /// Objects given out in it.
        objects: Vec<u32>,
        /// The first of its side's main sequence, which needs no credit of its channel.
        first: bool,
    },
    Data(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    Ending,
    Closed,
    /// The peer wants no more.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) state: SendState,
    pub(super) credit: u32,
    pub(super) queue: VecDeque<Chunk>,
    pub(super) queued: usize,
    /// Stands in the list of channels that have something to send.
    pub(super) listed: bool,
    pub(super) waker: Option<Waker>,
}

/// Bytes one channel takes over from its sender beyond what the peer's credit lets out: enough to
/// fill the next frames.
const SEND_BUFFER: usize = 128 << 10;

/// What a piece of data takes beside its bytes: many small ones are not to pile up.
pub(super) const CHUNK: usize = size_of::<Chunk>();

impl Sending {
    pub(super) fn new(window: u32) -> Self {
        Self {
            state: SendState::Open,
            credit: window,
            queue: VecDeque::new(),
            queued: 0,
            listed: false,
            waker: None,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        // one that is over takes it, and says so
        self.queued < SEND_BUFFER || self.is_over()
    }

    /// Drops what waits; returns the objects in it that the peer never hears of.
    pub(super) fn clear(&mut self) -> Vec<u32> {
        self.queued = 0;
        let mut lost = Vec::new();
        for chunk in self.queue.drain(..) {
            // of a message that was begun the peer has the handles, and releases them itself
            if let Chunk::Message {
                objects,
                begun: false,
                ..
            } = chunk
            {
                lost.extend(objects);
            }
        }
        lost
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, SendState::Closed | SendState::Stopped)
    }
}

#[derive(Debug)]
pub(super) enum ReceiveState {
    Open,
    Ended,
    Failed(Box<Failure>),
    /// Nobody reads any more: what comes is dropped.
    Dropped,
}

#[derive(Debug)]
pub(super) struct Receiving<P> {
    pub(super) state: ReceiveState,
    /// What the peer may still send.
    window: u32,
    /// What the application took and the peer was not told yet.
    owed: u32,
    /// What arrived, and what each takes.
    pub(super) queue: VecDeque<(Arrival<P>, Cost)>,
    pub(super) waker: Option<Waker>,
    /// A message of several frames, as far as it is there.
    pub(super) partial: Option<Box<Partial>>,
    /// What its script's number meant when it began.
    pub(super) begun: Option<P>,
}

/// What something that arrived takes until the application has it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Of its channel's window: nothing for the first message of a side, at most a third of the window for a
    /// message of several frames.
    pub(super) window: u32,
    /// Of what this side holds for the peer: all its bytes.
    pub(super) held: u32,
}

/// A message of several frames.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) kind: u8,
    pub(super) script: u32,
    pub(super) flags: u8,
    pub(super) handles: Vec<WireHandle>,
    pub(super) body: BytesMut,
    /// What it holds of its channel's window, and all that it takes.
    pub(super) cost: Cost,
    /// The first of its side's main sequence, which holds nothing of it.
    pub(super) first: bool,
    pub(super) opening: Option<super::receive::OpenFields>,
}

/// The part of the window that is taken before it is given back: what is kept below that keeps the
/// sender from as much, so a finer part lets a narrower window carry the same bulk.
const CREDIT_PART: u32 = 12;

impl<P> Receiving<P> {
    pub(super) fn new(window: u32) -> Self {
        Self {
            state: ReceiveState::Open,
            window,
            owed: 0,
            queue: VecDeque::new(),
            waker: None,
            partial: None,
            begun: None,
        }
    }

    /// Counts what arrived against the window; `false` when the peer had no credit for it.
    pub(super) fn charge(&mut self, cost: u32) -> bool {
        match self.window.checked_sub(cost) {
            Some(left) => {
                self.window = left;
                true
            }
            None => false,
        }
    }

    /// Counts what the application took; returns the credit to give back once enough came together.
    pub(super) fn credit(&mut self, cost: u32, window: u32) -> Option<u32> {
        self.owed += cost;
        // where nobody reads any more the sender carries on to its end
        let goes_on = matches!(self.state, ReceiveState::Open | ReceiveState::Dropped);
        if self.owed < window / CREDIT_PART || !goes_on {
            return None;
        }
        self.window += self.owed;
        Some(std::mem::take(&mut self.owed))
    }

    pub(super) fn take(&mut self, window: u32) -> Option<(Arrival<P>, u32, Option<u32>)> {
        let (arrival, cost) = self.queue.pop_front()?;
        let credit = self.credit(cost.window, window);
        Some((arrival, cost.held, credit))
    }
}

/// The channels of a conversation that is more than one call and its answer.
#[derive(Debug)]
pub(super) struct Channels<P> {
    /// By number; 0 is the main sequence.
    pub(super) sending: Vec<Sending>,
    pub(super) receiving: Vec<Receiving<P>>,
}

impl<P> Channels<P> {
    pub(super) fn new(send_window: u32, receive_window: u32) -> Self {
        Self {
            sending: vec![Sending::new(send_window)],
            receiving: vec![Receiving::new(receive_window)],
        }
    }
}
