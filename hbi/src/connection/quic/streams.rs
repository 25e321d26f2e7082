//! How many streams the peer may have open: more as it uses them, up to the limits of this side.

use super::state::State;
use crate::{transport::FIRST_STREAMS, wire::mux::Settings};

/// Streams within conversations that the peer may have open at once, in all conversations together.
const MOST: u32 = 4096;

/// How much more is allowed at a time.
const MORE: u32 = 4;

/// What the peer is allowed now.
#[derive(Debug)]
pub(super) struct Allowed {
    conversations: u32,
    most_conversations: u32,
    /// Conversations that arrived since more were allowed.
    opened: u32,
    streams: u32,
    most_streams: u32,
    /// Streams that arrived since they were counted last.
    arrived: u32,
}

impl Allowed {
    pub(super) fn new(settings: &Settings) -> Self {
        let all = settings.conversations.saturating_mul(settings.channels);
        Self {
            conversations: settings.conversations.min(FIRST_STREAMS),
            most_conversations: settings.conversations,
            opened: 0,
            streams: FIRST_STREAMS,
            // beside them there is the control stream
            most_streams: all.clamp(settings.channels, MOST.max(settings.channels)) + 1,
            arrived: 0,
        }
    }

    /// A conversation arrived, and so many are open.
    pub(super) fn conversation(&mut self, open: usize, conn: &quinn::Connection) {
        // one that is answered at once counts until the peer acknowledges the answer, so who opens
        // many may stand still though few are open
        self.opened = self.opened.saturating_add(1);
        let busy = match self.opened / 4 >= self.conversations {
            true => self.conversations as usize,
            false => open,
        };
        if let Some(more) = raise(self.conversations, self.most_conversations, busy) {
            self.opened = 0;
            self.conversations = more;
            conn.set_max_concurrent_bi_streams(more.into());
        }
    }

    /// A stream within a conversation arrived.
    pub(super) fn stream(&mut self, state: &State, conn: &quinn::Connection) {
        self.arrived += 1;
        if self.streams >= self.most_streams || self.arrived * 8 < self.streams {
            return;
        }
        self.arrived = 0;
        if let Some(more) = raise(self.streams, self.most_streams, state.open_streams()) {
            self.streams = more;
            conn.set_max_concurrent_uni_streams(more.into());
        }
    }
}

/// What is allowed from now on, where half of what is allowed is in use.
fn raise(now: u32, most: u32, open: usize) -> Option<u32> {
    (now < most && open as u64 * 2 >= now as u64).then(|| now.saturating_mul(MORE).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_allowed_before_all_is_used() {
        assert_eq!(raise(64, 4096, 31), None);
        assert_eq!(raise(64, 4096, 32), Some(256));
        assert_eq!(raise(2048, 4096, 1024), Some(4096));
        assert_eq!(raise(4096, 4096, 4096), None);
        assert_eq!(raise(4, 4, 4), None);
    }
}
