//! Messages on streams that are in pieces at the peer. It can make use of none of them, and holds them all:
//! together they are no more than its connection's window, so that it always has room to let one be
//! finished.

use super::CoId;

/// The messages of this side that were begun and wait for credit of their channels.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    begun: Vec<(CoId, u16, usize)>,
    /// Channels whose next message waits until others are finished.
    waiting: Vec<(CoId, u16)>,
}

impl Pieces {
    /// Whether a message of so many bytes can be begun on a channel; where not, the channel waits.
    pub(super) fn begin(&mut self, id: CoId, channel: u16, len: usize, most: usize) -> bool {
        let begun: usize = self.begun.iter().map(|(.., len)| len).sum();
        // one always can: a message may be larger than the window
        if begun > 0 && begun + len > most {
            self.waiting.push((id, channel));
            return false;
        }
        self.begun.push((id, channel, len));
        true
    }

    /// The message of a channel, or those of all of a conversation, are whole, or never will be; returns the
    /// channels that waited for that.
    pub(super) fn end(
        &mut self,
        id: CoId,
        channel: Option<u16>,
    ) -> impl Iterator<Item = (CoId, u16)> {
        let before = self.begun.len();
        self.begun
            .retain(|(of, on, _)| *of != id || channel.is_some_and(|channel| *on != channel));
        let ended = self.begun.len() < before;
        self.waiting
            .drain(..if ended { self.waiting.len() } else { 0 })
    }
}
