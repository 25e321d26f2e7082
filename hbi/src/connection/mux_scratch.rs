//! What a driver works with while it is awake. Drivers of one thread are awake one after the other, so
//! they share it: a connection that has nothing to do keeps no buffers, and one that wakes finds them
//! warm, however many there are.

use std::{cell::Cell, task::Waker};

use bytes::BytesMut;

use super::mux_landing::{Answers, Work};
use crate::wire::mux::Output;

/// What one read takes at most. Bulk keeps hold of the buffer it came in, so the next is a new one: a
/// larger one than this would be mapped by the system each time, page by page.
pub(super) const READ: usize = 64 << 10;

/// What is kept of each buffer between two drivers, in bytes or in entries.
const KEPT_BYTES: usize = 1 << 20;
const KEPT_ENTRIES: usize = 16 << 10;

/// Buffers, all empty between drivers.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) input: BytesMut,
    pub(super) output: Output,
    /// What one read brought; empty between reads.
    pub(super) work: Vec<Work>,
    pub(super) answers: Answers,
    pub(super) wakers: Vec<Waker>,
}

thread_local! {
    static SHARED: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// Takes the thread's buffers, and puts into them what this driver has left to read and to write.
    pub(super) fn take(&mut self) {
        let Some(mut shared) = SHARED.take() else {
            return;
        };
        std::mem::swap(&mut *shared, self);
        // what stands in `shared` now is this driver's own: mostly nothing
        if shared.input.len() > READ / 4 {
            self.input = std::mem::take(&mut shared.input);
        } else if !shared.input.is_empty() {
            self.input.extend_from_slice(&shared.input);
            shared.input = BytesMut::new();
        }
        if !shared.output.is_empty() {
            self.output = std::mem::take(&mut shared.output);
        }
        SHARED.set(Some(shared));
    }

    /// Gives the buffers to the thread's next driver, and keeps what is left to read and to write.
    pub(super) fn give(&mut self) {
        let mut shared = SHARED.take().unwrap_or_default();
        std::mem::swap(&mut *shared, self);
        if shared.input.len() > READ / 4 {
            self.input = std::mem::take(&mut shared.input);
        } else if !shared.input.is_empty() {
            self.input = BytesMut::from(&shared.input[..]);
            shared.input.clear();
        }
        if !shared.output.is_empty() {
            self.output = std::mem::take(&mut shared.output);
        }
        shared.bound();
        SHARED.set(Some(shared));
    }

    /// Gives memory back that one connection needed, and the next will hardly.
    fn bound(&mut self) {
        if self.output.capacity() > KEPT_BYTES {
            self.output = Output::default();
        }
        if self.answers.capacity() > KEPT_BYTES {
            self.answers = Answers::default();
        }
        if self.work.capacity() > KEPT_ENTRIES {
            self.work = Vec::new();
        }
        if self.wakers.capacity() > KEPT_ENTRIES {
            self.wakers = Vec::new();
        }
    }
}
