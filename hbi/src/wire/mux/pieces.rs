//! Messages that are larger than their channel's credit, and so come in pieces as that is given back. The
//! peer can make use of none before it is whole, and holds them all: together they are bounded.

use std::collections::VecDeque;

use super::{CoId, frame::MESSAGE_COST};

/// A message that is larger than the credit of its channel: where, and how large.
type Large = (CoId, u16, usize);

/// The large messages that were begun, and those that wait until others are whole, the first before all
/// behind it.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    begun: Vec<Large>,
    waiting: VecDeque<Large>,
}

/// What a message's channel says to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    Now,
    /// Once the channel has more credit.
    Credited,
    /// Once others are whole: then its channel is listed.
    InTurn,
}

impl Pieces {
    /// Whether a message of so many bytes can be begun, where its channel has so much credit of a window,
    /// and large ones may be `most` bytes together.
    #[inline]
    pub(super) fn begin(
        &mut self,
        (id, channel, len): Large,
        (credit, window): (u32, u32),
        most: usize,
    ) -> Begins {
        if len + MESSAGE_COST as usize <= credit as usize {
            return Begins::Now;
        }
        // with so much it becomes whole whether anybody reads the channel or not, as its receiver keeps a
        // third of the window for it at most, and a twelfth before it gives credit: one that is begun keeps
        // no other from its turn for long
        if credit < window / 12 * 7 {
            return Begins::Credited;
        }
        let large = (id, channel, len);
        if self.has(id, channel) {
            return Begins::Now;
        }
        if self.waiting.is_empty() && self.has_room(len, most) {
            self.begun.push(large);
            return Begins::Now;
        }
        self.waiting.push_back(large);
        Begins::InTurn
    }

    /// One always can be begun: a message may be larger than all.
    fn has_room(&self, len: usize, most: usize) -> bool {
        let cost = |len: usize| len + MESSAGE_COST as usize;
        let begun: usize = self.begun.iter().map(|(.., len)| cost(*len)).sum();
        begun == 0 || begun + cost(len) <= most
    }

    /// Whether the next message of a channel has its place.
    #[inline]
    pub(super) fn has(&self, id: CoId, channel: u16) -> bool {
        let mut begun = self.begun.iter();
        begun.any(|(of, on, _)| (*of, *on) == (id, channel))
    }

    /// The message of a channel, or those of all channels of a conversation, are whole, or never will be.
    pub(super) fn end(&mut self, id: CoId, channel: Option<u16>) {
        if self.begun.is_empty() && self.waiting.is_empty() {
            return;
        }
        let others =
            |large: &Large| large.0 != id || channel.is_some_and(|channel| channel != large.1);
        self.begun.retain(others);
        self.waiting.retain(others);
    }

    /// The channel whose turn has come: it has its place.
    pub(super) fn next(&mut self, most: usize) -> Option<(CoId, u16)> {
        let (id, channel, len) = *self.waiting.front()?;
        if !self.has_room(len, most) {
            return None;
        }
        self.begun.extend(self.waiting.pop_front());
        Some((id, channel))
    }
}
