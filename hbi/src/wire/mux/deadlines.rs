//! Deadlines of conversations, the earliest first: one timer serves them all.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use super::CoId;

/// The deadlines of a connection's conversations. One that ended before its deadline is passed over
/// when its time comes: no other has its number.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(Instant, CoId)>>);

impl Deadlines {
    /// Adds one.
    pub(super) fn push(&mut self, at: Instant, id: CoId) {
        self.0.push(Reverse((at, id)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one whose time has come: whose it is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<CoId> {
        let Reverse((at, id)) = *self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop();
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops those of conversations that `live` says have ended.
    pub(super) fn retain(&mut self, mut live: impl FnMut(CoId) -> bool) {
        self.0.retain(|Reverse((_, id))| live(*id));
    }
}
