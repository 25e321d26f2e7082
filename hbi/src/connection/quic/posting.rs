//! What may be sent, and when: conversations that are opened, and messages in them.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;

use super::{
    receive::ReceiveState,
    send::{SendState, Sending},
    state::{Dropped, Key, State},
};
use crate::{
    Error, Failure, Kind,
    connection::{handles::Outgoing, refused},
    endpoint::{Link, PlaceInLine},
    script::Text,
    value::{Handles, Packed},
    wire::{
        mux::{HandleKind, Settings, WireHandle, stopped, too_large, too_many_streams},
        quic::write_script,
    },
};

/// Openings up to this size have a place in the order of landings; a larger one lands when it is there.
pub(super) const ORDERED: usize = 64 << 10;

/// Checks what a message holds against what the peer takes.
pub(super) fn check(
    peer: Option<&Settings>,
    len: usize,
    wire: &[WireHandle],
    before: usize,
) -> Result<usize, Failure> {
    let Some(peer) = peer else {
        return Err(Failure::new(
            Kind::Disconnected,
            "the peer has not answered yet",
        ));
    };
    if len > peer.message as usize {
        return Err(*too_large(len, peer.message));
    }
    let streams = wire.iter().filter(|h| h.kind == HandleKind::Stream).count();
    if streams > 0 && before + streams > peer.channels as usize || wire.len() > 1024 {
        return Err(*too_many_streams(peer.channels));
    }
    Ok(streams)
}

/// Whether a conversation may be opened.
pub(super) enum May {
    Open,
    /// Once there is room.
    Wait,
    Never(Error),
}

impl State {
    /// Whether a conversation may be opened now.
    pub(super) fn may_open(&self, depth: u8, len: usize, early: bool) -> May {
        let over = |kind, text| May::Never(Error::new(kind, text));
        if let Some(reason) = &self.closed {
            return May::Never((**reason).clone().into());
        }
        if !self.started {
            return May::Never(refused::too_early());
        }
        if depth == 0 && self.peer_leaving.is_some() {
            return over(Kind::NotLanded, "the peer said goodbye: nothing new lands");
        }
        if depth == 0 && self.leaving.is_some() {
            return over(Kind::Disconnected, "this side said goodbye");
        }
        // within a landing it would wait for itself; the landings are bounded already
        let waits = depth == 0
            && len > ORDERED
            && self.unsent > 0
            && self.unsent + len > self.own.connection_window as usize;
        if self.early.is_some() && !early {
            // even within a landing: what it waits for is not of this side's making
            return May::Wait;
        }
        match &self.peer {
            Some(peer) if self.posting < peer.conversations as usize && !waits => May::Open,
            Some(_) if depth > 0 => May::Never(refused::no_room()),
            _ => May::Wait,
        }
    }

    /// Whoever asks is woken when a conversation may be opened.
    pub(super) fn wait_for_room<T>(
        &mut self,
        place: &mut Option<PlaceInLine>,
        this: &Arc<dyn Link>,
        deadline: Option<Instant>,
        cx: &Context<'_>,
    ) -> Poll<T> {
        PlaceInLine::wait(place, this, deadline, |place| {
            self.line.wait(place, deadline, cx)
        });
        if let Some(at) = deadline {
            self.look_by(at);
        }
        Poll::Pending
    }

    /// Asks the next of those who wait for room, if nobody has taken it.
    pub(super) fn ask_on(&mut self) {
        let room = match &self.peer {
            Some(peer) => self.posting < peer.conversations as usize,
            None => false,
        };
        self.line.ask_on(room, &mut self.wakers);
    }

    /// Counts a large opening that waits to be sent.
    pub(super) fn count_unsent(&mut self, key: Key, len: usize) {
        if let Some(co) = self.conversations.get_mut(&key)
            && !co.sending[0].is_empty()
        {
            co.unsent = len;
            self.unsent += len;
        }
    }

    /// Remembers when a conversation's time is over.
    pub(super) fn deadline(&mut self, at: Instant, key: Key) {
        if self.deadlines.len() > 64 + 4 * self.conversations.len() {
            let live = &self.conversations;
            self.deadlines.retain(|entry| live.contains_key(&entry.0.1));
        }
        self.deadlines.push(std::cmp::Reverse((at, key)));
        self.look_by(at);
    }

    /// Sees to it that the driver looks at the time by then.
    fn look_by(&mut self, at: Instant) {
        self.stir |= self.timer_at.is_none_or(|timer| at < timer);
    }

    /// The holder lets go of a conversation.
    pub(super) fn release(&mut self, key: Key) {
        if let Some(co) = self.conversations.get_mut(&key) {
            co.released = true;
            let span = co.span.take();
            self.dropped.extend(span.map(Dropped::Span));
            self.settle(key);
        }
    }

    /// Why a channel takes nothing more.
    pub(super) fn poll_refused(
        &mut self,
        key: Key,
        channel: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Failure> {
        if self.closed.is_some() {
            return Poll::Ready(self.gone());
        }
        let stopped_here = self
            .sending(key, channel)
            .is_some_and(|sending| sending.state == SendState::Stopped);
        if channel == 0 && !key.is_hosted() {
            // of a deadline the reason is known, of a host that failed it comes
            let known = self
                .conversations
                .get(&key)
                .is_some_and(|co| matches!(co.receiving[0].state, ReceiveState::Failed(_)));
            if (known || stopped_here)
                && let Some(why) = ready!(self.poll_why(key, cx))
            {
                return Poll::Ready(*why);
            }
        }
        Poll::Ready(if stopped_here {
            *stopped()
        } else {
            self.gone()
        })
    }

    /// Queues a value on a channel.
    pub(super) fn send_item(
        &mut self,
        this: &Arc<dyn Link>,
        (key, channel): (Key, u16),
        packed: Packed,
        last: bool,
        outgoing: &mut Outgoing,
    ) -> Result<(), Failure> {
        let (bytes, mut handles) = packed.into_parts();
        self.add_handles(this, (key, channel), bytes.len(), &mut handles, outgoing)?;
        if let Some(sending) = self.sending(key, channel) {
            sending.item(bytes, last, &outgoing.wire);
        }
        Ok(())
    }

    /// Queues a script on the main sequence.
    pub(super) fn send_script(
        &mut self,
        this: &Arc<dyn Link>,
        key: Key,
        text: &Text<'_>,
        value: bool,
        arguments: Packed,
        outgoing: &mut Outgoing,
    ) -> Result<(), Failure> {
        let (bytes, mut handles) = arguments.into_parts();
        // its streams get channels only where it is sent
        let script = match self.script(text) {
            Ok(script) => script,
            Err(failure) => {
                outgoing.refuse(&mut handles);
                return Err(failure);
            }
        };
        self.add_handles(this, (key, 0), bytes.len(), &mut handles, outgoing)?;
        let mut frame = Vec::with_capacity(64 + bytes.len());
        write_script(&mut frame, &script, value, &bytes, &outgoing.wire);
        if let Some(sending) = self.sending(key, 0) {
            sending.push(frame, Bytes::new(), outgoing.wire.len());
        }
        Ok(())
    }

    /// Takes the handles of a message; its streams get channels.
    pub(super) fn add_handles(
        &mut self,
        this: &Arc<dyn Link>,
        (key, channel): (Key, u16),
        len: usize,
        handles: &mut Handles,
        outgoing: &mut Outgoing,
    ) -> Result<(), Failure> {
        let before = self
            .conversations
            .get(&key)
            .map_or(0, |co| co.sending.len() - 1);
        let given = self.given((key, channel));
        let taken = self.outgoing(outgoing, this, (key, channel), before as u32 + 1, handles);
        let streams =
            match taken.and_then(|()| check(self.peer.as_ref(), len, &outgoing.wire, before)) {
                Ok(streams) => streams,
                Err(failure) => {
                    self.revoke((key, channel), given);
                    return Err(failure);
                }
            };
        if let Some(co) = self.conversations.get_mut(&key) {
            co.sending.extend((0..streams).map(|_| Sending::new(None)));
        }
        Ok(())
    }
}
