//! What a driver works with while it is awake. Drivers of one thread are awake one after the other, so
//! they share it: a connection that has nothing to do keeps no buffers, and one that wakes finds them
//! warm, however many there are.

use std::{
    cell::Cell,
    collections::VecDeque,
    ops::{Deref, DerefMut},
    task::Waker,
};

use bytes::{Bytes, BytesMut};

use super::work::{Answers, Work};
use crate::wire::mux::Output;

/// What one read takes at most. Bulk keeps hold of the buffer it came in, so the next is a new one: a
/// larger one than this would be mapped by the system each time, page by page.
pub(super) const READ: usize = 64 << 10;

/// What is kept of each buffer between two drivers, in bytes or in entries.
const KEPT_BYTES: usize = 1 << 20;
const KEPT_ENTRIES: usize = 16 << 10;

/// How many buffers are kept in mind of which parts are held.
const HELD: usize = 16;

/// Buffers, all empty between drivers.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) input: BytesMut,
    /// Buffers of which parts are held, the oldest first: bulk that is on its way to the application.
    held: VecDeque<Bytes>,
    pub(super) output: Output,
    /// What one read brought; empty between reads.
    pub(super) work: Work,
    pub(super) answers: Answers,
    pub(super) wakers: Vec<Waker>,
}

thread_local! {
    static SHARED: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// An empty buffer of the thread's for a connection that has much to write; where there is none it is
/// a new one. A driver brings it back.
pub(super) fn buffer() -> Vec<u8> {
    // there is none either while the thread ends
    let shared = SHARED.try_with(Cell::take).ok().flatten();
    let Some(mut shared) = shared else {
        return Vec::new();
    };
    let buffer = shared.answers.take_buffer();
    SHARED.set(Some(shared));
    buffer
}

/// The buffers of a driver, which it has while it is awake. While it sleeps it keeps what is left to
/// read and to write: connections are many, and each may be made to wait.
#[derive(Default)]
pub(super) struct Lent(Option<Box<Scratch>>);

impl Lent {
    /// Takes the thread's buffers, and puts into them what this driver has left.
    pub(super) fn take(&mut self) {
        let shared = SHARED.take().unwrap_or_default();
        if let Some(mut own) = self.0.replace(shared) {
            self.take_rest(&mut own);
        }
    }

    /// Gives the buffers to the thread's next driver.
    pub(super) fn give(&mut self) {
        let Some(shared) = &mut self.0 else {
            return;
        };
        let rest = (!shared.output.is_empty() || !shared.input.is_empty()).then(|| {
            let mut own = Box::<Scratch>::default();
            own.take_rest(shared);
            own
        });
        shared.bound();
        // there is none there, or one that was made meanwhile and nobody needs
        SHARED.set(std::mem::replace(&mut self.0, rest));
    }
}

impl Deref for Lent {
    type Target = Scratch;

    #[inline]
    fn deref(&self) -> &Scratch {
        match &self.0 {
            Some(scratch) => scratch,
            None => unreachable!("a driver that is awake has taken its buffers"),
        }
    }
}

impl DerefMut for Lent {
    #[inline]
    fn deref_mut(&mut self) -> &mut Scratch {
        self.0.get_or_insert_default()
    }
}

impl Scratch {
    /// Another buffer for input, with the rest of one that is held in parts.
    pub(super) fn next_input(&mut self, held: Bytes) -> BytesMut {
        let oldest = self.held.pop_front().map(Bytes::try_into_mut);
        let mut next = match oldest {
            Some(Ok(mut free)) => {
                free.clear();
                free
            }
            Some(Err(oldest)) => {
                if self.held.len() < HELD {
                    self.held.push_front(oldest);
                }
                BytesMut::new()
            }
            None => BytesMut::new(),
        };
        next.reserve(READ.max(held.len()));
        next.extend_from_slice(&held);
        self.held.push_back(held);
        next
    }

    /// Takes what another has left to read and to write; little is copied, so that a large buffer is not
    /// kept for it.
    fn take_rest(&mut self, other: &mut Self) {
        if other.input.len() > READ / 4 {
            std::mem::swap(&mut self.input, &mut other.input);
        } else if !other.input.is_empty() {
            self.input.extend_from_slice(&other.input);
            other.input.clear();
        }
        if !other.output.is_empty() {
            std::mem::swap(&mut self.output, &mut other.output);
        }
    }

    /// Gives memory back that one connection needed, and the next will hardly. All is empty by now: what
    /// is left to read or to write its driver has taken along.
    fn bound(&mut self) {
        debug_assert!(
            self.output.is_empty() && self.input.is_empty() && self.answers.is_empty(),
            "something would be lost"
        );
        if self.output.capacity() > KEPT_BYTES {
            self.output = Output::default();
        }
        if self.answers.capacity() > KEPT_BYTES {
            self.answers = Answers::default();
        }
        if self.work.capacity() > KEPT_ENTRIES {
            self.work = Work::default();
        }
        if self.wakers.capacity() > KEPT_ENTRIES {
            self.wakers = Vec::new();
        }
    }
}
