//! One conversation of a text connection, of either side.

use std::{
    collections::VecDeque,
    task::{Context, Waker},
    time::Instant,
};

use bytes::Bytes;

use crate::{
    Failure,
    connection::running::Running,
    endpoint::{BoxFuture, Received},
    value::Packed,
    wire::text::Span,
};

/// Bytes that arrived and wait to be taken, before the reader stops for them.
const WAITING: usize = 256 << 10;

/// A conversation.
///
/// ```text
///  this side's:  Buffering ── end ──────────────► Over     one whole span
///                    └─ more than fits ─► Asked ─► Holding ─► Over
///                                           └─ given up ─► Withdrawn
///  the peer's:   the same, but nothing goes out before the peer's span has ended
/// ```
pub(super) struct Conversation {
    /// The peer opened it, by this number.
    pub(super) hosted: Option<String>,
    pub(super) role: Role,
    /// What was sent and is not on its way yet.
    pub(super) body: Vec<u8>,
    /// Raw data that was announced and has not been sent yet.
    pub(super) data_left: u64,
    /// Nothing more is sent.
    pub(super) ended: bool,
    pub(super) sender: Option<Waker>,
    pub(super) data_sender: Option<Waker>,

    /// One call: the first object is its answer.
    pub(super) call: bool,
    /// The call's answer ends in data.
    pub(super) data_answer: bool,
    /// The call has its answer; its data may be still to come.
    pub(super) answered: bool,
    /// Nobody takes what arrives.
    pub(super) discards: bool,
    arrived: VecDeque<(Received, usize)>,
    /// Data that stands behind a script.
    pub(super) data: VecDeque<Bytes>,
    /// Data that stands behind a script is wanted no more.
    pub(super) data_dropped: bool,
    waiting: usize,
    /// Raw data that is wanted, by channel, in the order it was asked for.
    pub(super) expected: VecDeque<(u16, u64)>,
    /// Raw data of the channel behind scripts that is still to come.
    pub(super) data_to_come: u64,
    /// Somebody waits for what comes next.
    pub(super) wants: bool,
    /// What the reader does not know to be a packet before somebody asks for it.
    pub(super) hold: Hold,
    /// The peer's span has ended.
    pub(super) over: bool,
    /// Back-scripts that have not landed to their end.
    pub(super) back: VecDeque<BoxFuture<Result<Packed, Failure>>>,
    /// One of them is landing.
    pub(super) back_running: bool,
    pub(super) receiver: Option<Waker>,
    pub(super) data_receiver: Option<Waker>,

    pub(super) failure: Option<Failure>,
    pub(super) deadline: Option<Instant>,
    pub(super) running: Option<Running>,
}

/// How far a conversation is with what it sends.
#[derive(Debug)]
pub(super) enum Role {
    Buffering,
    Asked,
    Holding(Span),
    Over,
    /// Nothing of it was sent, or will be.
    Withdrawn,
}

/// Why the reader may not go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    No,
    /// So many runs of raw data come first.
    Data(u32),
    /// As long as it lasts.
    Yes,
}

impl Conversation {
    pub(super) fn new(hosted: Option<String>) -> Self {
        Self {
            hosted,
            role: Role::Buffering,
            body: Vec::new(),
            data_left: 0,
            ended: false,
            sender: None,
            data_sender: None,
            call: false,
            data_answer: false,
            answered: false,
            discards: false,
            arrived: VecDeque::new(),
            data: VecDeque::new(),
            data_dropped: false,
            waiting: 0,
            expected: VecDeque::new(),
            data_to_come: 0,
            wants: false,
            hold: Hold::No,
            over: false,
            back: VecDeque::new(),
            back_running: false,
            receiver: None,
            data_receiver: None,
            failure: None,
            deadline: None,
            running: None,
        }
    }

    /// Whether nothing of one of this side was sent.
    pub(super) fn is_unsent(&self) -> bool {
        self.hosted.is_none()
            && matches!(self.role, Role::Buffering | Role::Asked | Role::Withdrawn)
    }

    /// Whether the reader may take the next packet off the wire.
    pub(super) fn admits(&self) -> bool {
        if self.discards || self.failure.is_some() || self.wants {
            return true;
        }
        if self.hosted.is_some() && self.ended || self.answered && self.data_to_come == 0 {
            return true;
        }
        self.hold == Hold::No && self.waiting < WAITING && self.arrived.len() < 1024
    }

    /// Whether the reader may take raw data.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < WAITING
    }

    /// Something arrived.
    pub(super) fn push(&mut self, received: Received, bytes: usize) -> Option<Waker> {
        self.wants = false;
        self.waiting += bytes;
        self.arrived.push_back((received, bytes));
        self.receiver.take()
    }

    /// Raw data arrived.
    pub(super) fn push_data(&mut self, channel: u16, bytes: Bytes) -> Option<Waker> {
        if channel == 0 {
            let n = bytes.len();
            return self.push(Received::Data(bytes), n);
        }
        self.data_to_come -= bytes.len() as u64;
        if self.data_to_come == 0
            && let Hold::Data(times) = self.hold
        {
            self.hold = match times {
                0 | 1 => Hold::No,
                more => Hold::Data(more - 1),
            };
        }
        if !self.data_dropped {
            self.waiting += bytes.len();
            self.data.push_back(bytes);
        }
        self.data_receiver.take()
    }

    /// Whether everything that arrived was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.arrived.is_empty()
    }

    /// What was taken makes room.
    pub(super) fn pop(&mut self) -> Option<Received> {
        let (received, bytes) = self.arrived.pop_front()?;
        self.waiting = self.waiting.saturating_sub(bytes);
        Some(received)
    }

    /// Data that stands behind a script, taken.
    pub(super) fn pop_data(&mut self) -> Option<Bytes> {
        let bytes = self.data.pop_front()?;
        self.waiting = self.waiting.saturating_sub(bytes.len());
        Some(bytes)
    }

    /// Nobody takes what arrives from now on; what is dropped is given back, to be dropped outside of
    /// any lock.
    pub(super) fn discard(&mut self) -> (VecDeque<(Received, usize)>, VecDeque<Bytes>) {
        self.discards = true;
        self.data_dropped = true;
        self.waiting = 0;
        (
            std::mem::take(&mut self.arrived),
            std::mem::take(&mut self.data),
        )
    }

    /// Wakes whoever waits for anything of it.
    pub(super) fn wake(&mut self, wakers: &mut Vec<Waker>) {
        for waker in [
            &mut self.sender,
            &mut self.data_sender,
            &mut self.receiver,
            &mut self.data_receiver,
        ] {
            wakers.extend(waker.take());
        }
    }
}

/// Keeps the waker of who polls.
pub(super) fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(kept) if kept.will_wake(cx.waker()) => {}
        kept => *kept = Some(cx.waker().clone()),
    }
}
