//! What one read brought, until it is done, and what came of it, until it is handed to the wire. Calls and
//! the values that answer them are kept apart from all else: they are many, and small.

use std::{collections::VecDeque, sync::Arc};

use super::landing::Opened;
use crate::{
    Failure,
    endpoint::Object,
    value::Handles,
    wire::mux::{self, CoId},
};

/// Frames of values up to this many bytes are told apart by their heads.
const LARGEST: usize = 16 << 10;

/// What the driver has to do for what arrived, in its order.
#[derive(Default)]
pub(super) struct Work {
    calls: Vec<Called>,
    /// How many of the calls are done.
    done: usize,
    /// What is to be done beside, and how many calls come before.
    others: VecDeque<(usize, Other)>,
}

/// A call and nothing beside, its arguments where they lie in the input.
#[derive(Clone, Copy)]
pub(super) struct Called {
    pub(super) id: CoId,
    pub(super) script: u32,
    pub(super) arguments: Place,
}

/// Where a part of the input lies in it; a read is far below 4 GiB.
#[derive(Clone, Copy)]
pub(super) struct Place {
    from: u32,
    to: u32,
}

/// What is to be done for something that is no mere call.
pub(super) enum Other {
    Land(Box<Opened>),
    Released(Arc<dyn Object>),
    Cancel(CoId),
}

impl Place {
    #[inline]
    pub(super) fn of(part: &[u8], input: &[u8]) -> Self {
        let from = part.as_ptr() as usize - input.as_ptr() as usize;
        Self {
            from: from as u32,
            to: (from + part.len()) as u32,
        }
    }

    #[inline]
    pub(super) fn within(self, input: &[u8]) -> &[u8] {
        &input[self.from as usize..self.to as usize]
    }
}

impl Work {
    #[inline]
    pub(super) fn push_call(&mut self, called: Called) {
        self.calls.push(called);
    }

    pub(super) fn push(&mut self, other: Other) {
        self.others.push_back((self.calls.len(), other));
    }

    /// Whether nothing came.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.others.is_empty()
    }

    /// How many calls came, and how much else.
    pub(super) fn len(&self) -> usize {
        self.calls.len() + self.others.len()
    }

    /// The next, if it is a call.
    #[inline]
    pub(super) fn next_call(&mut self) -> Option<Called> {
        let before = match self.others.front() {
            Some((before, _)) => *before,
            None => self.calls.len(),
        };
        let called = self.calls[..before].get(self.done)?;
        self.done += 1;
        Some(*called)
    }

    /// The next, if it is no call.
    pub(super) fn next_other(&mut self) -> Option<Other> {
        match self.others.front()?.0 == self.done {
            true => self.others.pop_front().map(|(_, other)| other),
            false => None,
        }
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_done(&self) -> bool {
        self.done == self.calls.len() && self.others.is_empty()
    }

    /// Makes room for what comes next, once [all is done](Self::is_done).
    pub(super) fn clear(&mut self) {
        debug_assert!(self.is_done(), "what is not done would be lost");
        self.calls.clear();
        self.done = 0;
    }

    /// Entries of memory that it takes.
    pub(super) fn capacity(&self) -> usize {
        self.calls.capacity() + self.others.capacity()
    }
}

/// Answers of landings, until the state is locked the next time.
#[derive(Default)]
pub(super) struct Answers {
    /// Frames of values, one behind the other.
    pub(super) bytes: Vec<u8>,
    /// Whatever else answers, and how many bytes of frames stood before it.
    pub(super) others: VecDeque<(usize, Answer)>,
}

pub(super) enum Answer {
    /// A value with handles, or a large one: what is next, up to `end`.
    Apart {
        id: CoId,
        end: usize,
        handles: Handles,
    },
    End(CoId),
    Failed(CoId, Box<Failure>),
}

impl Answers {
    /// Begins a frame, to whose end a value will be packed; returns where.
    #[inline]
    pub(super) fn begin(&mut self, id: CoId) -> usize {
        let from = self.bytes.len();
        mux::begin_answer(&mut self.bytes, id);
        from
    }

    /// Ends a frame, whose value has been packed.
    #[inline(always)]
    pub(super) fn end(&mut self, id: CoId, from: usize, handles: Handles) {
        if handles.is_empty() && self.bytes.len() - from <= LARGEST {
            return mux::end_answer(&mut self.bytes[from..]);
        }
        self.apart(id, from, handles);
    }

    /// The same for a value with handles, or one whose length its head may have no room for.
    #[cold]
    fn apart(&mut self, id: CoId, from: usize, handles: Handles) {
        let end = self.bytes.len();
        let apart = Answer::Apart { id, end, handles };
        self.others.push_back((from, apart));
    }

    /// What answers with no value of its own.
    pub(super) fn push(&mut self, answer: Answer) {
        self.others.push_back((self.bytes.len(), answer));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.others.is_empty()
    }

    /// Takes the buffer that values are packed into, which is empty between reads.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Takes over a buffer, if it is larger than the one that is there.
    pub(super) fn keep_buffer(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > self.bytes.capacity() && self.bytes.is_empty() {
            self.bytes = buffer;
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.others.capacity() * size_of::<(usize, Answer)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_done_in_its_order() {
        let call = |id| Called {
            id: CoId::from_bits(id),
            script: 0,
            arguments: Place::of(&[], &[]),
        };
        let cancel = |id| Other::Cancel(CoId::from_bits(id));
        // negative numbers are no calls
        for came in [
            &[][..],
            &[1, 2, 3],
            &[-1, -2],
            &[-1, 2, 3, -4, -5, 6],
            &[1, -2, 3],
        ] {
            let mut work = Work::default();
            // what was done before leaves nothing behind
            for _ in 0..2 {
                for &id in came {
                    match id {
                        0.. => work.push_call(call(id as u64)),
                        _ => work.push(cancel(-id as u64)),
                    }
                }
                assert_eq!((work.len(), work.is_empty()), (came.len(), came.is_empty()));
                let mut done = Vec::new();
                while !work.is_done() {
                    if let Some(called) = work.next_call() {
                        done.push(called.id.to_bits() as i64);
                    } else if let Some(Other::Cancel(id)) = work.next_other() {
                        done.push(-(id.to_bits() as i64));
                    }
                }
                assert_eq!(done, came);
                work.clear();
            }
        }
    }
}
