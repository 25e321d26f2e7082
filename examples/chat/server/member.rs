//! A chatter as the server sees it: nick, room, and an outbox, so that no push ever waits.

use hbi::{Notify, Outbox, Policy, prelude::*};

use crate::protocol::{ChatterStub, Msg, MsgsInRoom};

/// How many pushes wait for a member that does not keep up, before the oldest are dropped. As what was
/// said goes in pieces of [`AT_ONCE`] and one line more at most, this is about 2.5 MB.
const WAITING: usize = 200;

/// About how many bytes of lines are pushed at once: what fits one frame is never overtaken.
const AT_ONCE: usize = 8 << 10;

/// A chatter.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) nick: String,
    /// The nick where none is chosen.
    pub(super) stranger: String,
    pub(super) room: String,
    chatter: ChatterStub,
    outbox: Outbox,
    /// How many dropped pushes it was told of.
    told: u64,
}

impl Member {
    pub(super) fn new(peer: &Peer, nick: String, room: String) -> Self {
        Self {
            stranger: nick.clone(),
            nick,
            room,
            chatter: ChatterStub::new(peer),
            outbox: Outbox::new(peer, WAITING, Policy::DropOldest),
            told: 0,
        }
    }

    /// Pushes, and never waits.
    pub(super) fn push(&mut self, make: impl FnOnce(&ChatterStub) -> Notify) {
        self.tell_missed();
        self.outbox.push(make(&self.chatter));
    }

    /// Tells how much was dropped, once there is room for it.
    pub(super) fn tell_missed(&mut self) {
        let missed = self.outbox.dropped() - self.told;
        if missed == 0 || self.outbox.len() > WAITING / 2 {
            return;
        }
        self.told += missed;
        let room = &self.room;
        let notice = format!(
            "\n@@ You were too slow: {missed} messages before this one did not reach you. Enter #{room} again to \
             read what was said.\n"
        );
        self.outbox.push(self.chatter.show_notice(notice));
    }

    /// Pushes what was said in its room, in pieces of a bounded size.
    pub(super) fn push_lines<'a>(&mut self, lines: impl Iterator<Item = &'a Msg>) {
        let mut piece = Vec::new();
        let mut bytes = 0;
        for line in lines {
            bytes += line.text.len() + line.from.len() + 64;
            piece.push(line.clone());
            if bytes > AT_ONCE {
                self.push_piece(std::mem::take(&mut piece));
                bytes = 0;
            }
        }
        self.push_piece(piece);
    }

    fn push_piece(&mut self, msgs: Vec<Msg>) {
        let room = self.room.clone();
        self.push(|chatter| chatter.room_msgs(MsgsInRoom { room, msgs }));
    }
}
