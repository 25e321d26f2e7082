//! Deadlines of conversations, the earliest first: one timer serves them all.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use super::CoId;

/// The deadlines of a connection's conversations. One that ended before its deadline is passed over
/// when its time comes: numbers of conversations are used again, those of deadlines tell which is meant.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BinaryHeap<Reverse<(Instant, u32, CoId)>>,
    last: u32,
}

impl Deadlines {
    /// Adds one; returns its number, which is not 0 and is to be kept with the conversation.
    pub(super) fn push(&mut self, at: Instant, id: CoId) -> u32 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.queue.push(Reverse((at, self.last, id)));
        self.last
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes one whose time has come: whose it is, and its number.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(CoId, u32)> {
        let Reverse((at, number, id)) = *self.queue.peek()?;
        if at > now {
            return None;
        }
        self.queue.pop();
        Some((id, number))
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Drops those that `live` says have ended.
    pub(super) fn retain(&mut self, mut live: impl FnMut(CoId, u32) -> bool) {
        self.queue
            .retain(|Reverse((_, number, id))| live(*id, *number));
    }
}
