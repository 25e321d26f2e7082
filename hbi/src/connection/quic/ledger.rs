//! What is given to the peer by reference, until it is known what of it the peer has seen: messages may
//! be stopped before they are read, and releases may overtake them.

use std::sync::Arc;

use super::state::{Dropped, Key, State};
use crate::{
    Failure,
    connection::handles::Outgoing,
    endpoint::{Carried, Link},
    value::Handles,
    wire::{
        mux::{HandleKind, Violation},
        quic::Control,
    },
};

/// Handles that may be on their way to the peer in messages that it has not confirmed.
const LEDGER: usize = 64 << 10;

/// What was given to the peer in one direction of a conversation, until the peer is done with it: what
/// it did not see is taken back, and what it gets back it can still find.
pub(super) enum Given {
    Object(u32),
    /// Holds on to an object of the peer's: its release must not overtake it.
    Returned {
        _held: Carried,
    },
    /// On a channel of its own.
    Stream(u16),
}

impl State {
    /// Takes the handles of a message that goes out on a channel. Streams get channels of their own.
    pub(super) fn outgoing(
        &mut self,
        outgoing: &mut Outgoing,
        this: &Arc<dyn Link>,
        (key, channel): (Key, u16),
        next: u32,
        handles: &mut Handles,
    ) -> Result<(), Failure> {
        if handles.is_empty() {
            return Ok(());
        }
        let limit = self.own.objects;
        if self.unseen + handles.len() > LEDGER {
            outgoing.refuse(handles);
            return Err(Failure::limit(
                "handles",
                format_args!("{LEDGER} that the peer has not seen yet"),
                "let it take what was sent",
            ));
        }
        outgoing.take(this, handles, &mut self.objects, limit, next)?;
        self.unseen += outgoing.wire.len();
        // streams stand there, too: the peer counts them among what it saw
        let rest = outgoing.take_rest();
        let given = outgoing.wire.iter().zip(rest).map(|pair| match pair {
            (wire, Some(_)) if wire.kind == HandleKind::Object => Given::Object(wire.number),
            (_, Some(held)) => Given::Returned { _held: held },
            (wire, None) => Given::Stream(wire.number as u16),
        });
        self.ledger.entry((key, channel)).or_default().extend(given);
        Ok(())
    }

    /// How many handles were given on a channel.
    pub(super) fn given(&self, channel: (Key, u16)) -> usize {
        self.ledger.get(&channel).map_or(0, Vec::len)
    }

    /// Takes back what was given on a channel beyond the first so many: its message is not sent.
    pub(super) fn revoke(&mut self, channel: (Key, u16), from: usize) {
        let Some(given) = self.ledger.get_mut(&channel) else {
            return;
        };
        let revoked = given.split_off(from.min(given.len()));
        self.unseen -= revoked.len();
        if given.is_empty() {
            self.ledger.remove(&channel);
        }
        // it was given just now
        let _ = self.take_back_unseen(channel.0, &revoked);
        self.dropped.push(Dropped::Given(revoked));
    }

    /// Takes back what the peer will never see.
    fn take_back_unseen(&mut self, key: Key, unseen: &[Given]) -> Result<(), Violation> {
        for given in unseen {
            match given {
                Given::Object(number) => self.take_back(*number, 1)?,
                // nor what was given on its channel, where nobody would ever read
                Given::Stream(channel) => self.seen(key, *channel, 0)?,
                Given::Returned { .. } => {}
            }
        }
        Ok(())
    }

    /// The peer is done with what came to it in one direction of a conversation.
    pub(super) fn seen(&mut self, key: Key, channel: u16, handles: u32) -> Result<(), Violation> {
        if let Some(sending) = self.sending(key, channel)
            && !sending.is_over()
        {
            // it would not see what is still to come, and who waits for the connection's window to write
            // may not be told that the stream was stopped
            sending.stop();
            let waker = sending.waker.take();
            self.wakers.extend(waker);
            self.settle(key);
        }
        let Some(given) = self.ledger.remove(&(key, channel)) else {
            return Ok(());
        };
        self.unseen -= given.len();
        let seen = given.len().min(handles as usize);
        let taken_back = self.take_back_unseen(key, &given[seen..]);
        self.dropped.push(Dropped::Given(given));
        taken_back
    }

    /// The peer holds an object of this side that many times less.
    pub(super) fn take_back(&mut self, object: u32, count: u32) -> Result<(), Violation> {
        match self.objects.take_back(object, count) {
            Ok(dropped) => {
                self.dropped.extend(dropped.map(Dropped::Object));
                Ok(())
            }
            Err(()) => Err(Violation(format!(
                "object {object} released {count} times more than it was given out"
            ))),
        }
    }

    /// Tells the peer how much of one direction this side has seen.
    pub(super) fn tell_seen(&mut self, key: Key, channel: u16, handles: u32) {
        self.tell(&Control::Seen {
            receivers: key.is_hosted(),
            number: key.number(),
            channel,
            handles,
        });
    }
}
