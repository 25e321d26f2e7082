//! What frames bring into conversations: messages put together of their parts, bytes, credit and ends, each
//! to its channel, or to the call that waits for it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    ALLOWANCE, Arrival, CoId, Connection, HandleKind, Input, Payload, Violation, WireHandle,
    WireId,
    channel::{Cost, Partial, ReceiveState, Receiving, SendState},
    connection::unpack_failure,
    conversation::{Reply, bit},
    event::{Body, Event, Open, ScriptArrival},
    frame::{Fields, MESSAGE_COST, flag, kind},
};
use crate::{Failure, Kind, value::Short};

impl<P, U> Connection<P, U> {
    /// What a payload holds whose handles are these.
    fn unread(&self, handles: &[WireHandle]) -> Option<Arc<()>> {
        let returned = |handle: &WireHandle| handle.kind == HandleKind::Returned;
        handles
            .iter()
            .any(returned)
            .then(|| Arc::clone(&self.unread))
    }

    /// Whether objects are given back in payloads that nobody has looked at yet: the peer may have
    /// released them right behind.
    pub fn has_unread_objects(&self) -> bool {
        Arc::strong_count(&self.unread) > 1
    }

    pub(super) fn item<'b>(
        &mut self,
        wire: WireId,
        mut fields: Fields<'b>,
        input: Input<'_>,
    ) -> Result<Option<Event<'b>>, Violation> {
        let flags = fields.flags(flag::LAST | flag::MORE | flag::HANDLES)?;
        let channel = fields.u16()?;
        // the common case: the answer of a call, whole
        if channel == 0
            && flags == flag::LAST
            && !wire.is_hosted()
            && let Some((id, co)) = self.ours.find(wire)
        {
            const PLAIN: u8 = bit::IN_ENDED | bit::IN_STARTED | bit::RELEASED;
            if co.bits & (PLAIN | bit::CALL) == bit::CALL && co.channels.is_none() {
                co.bits |= bit::IN_STARTED | bit::IN_ENDED;
                // its number is free once the caller has the answer
                let over = co.ended_without_channels();
                let waker = co.answered(Reply::new(fields.rest, input));
                self.wake(waker);
                if !over {
                    self.settle(id);
                }
                if fields.rest.len() > ALLOWANCE {
                    self.charge_connection(id, fields.rest.len() as u32 + MESSAGE_COST)?;
                }
                return Ok(None);
            }
        }
        let id = self.known(wire)?;
        self.message(id, channel, kind::ITEM, 0, flags, fields, input)
    }

    /// A message, or a part of one, on a channel.
    #[expect(clippy::too_many_arguments, reason = "the fields of a frame, private")]
    pub(super) fn message<'b>(
        &mut self,
        id: CoId,
        channel: u16,
        kind: u8,
        script: u32,
        flags: u8,
        mut fields: Fields<'b>,
        input: Input<'_>,
    ) -> Result<Option<Event<'b>>, Violation> {
        let handles = if flags & flag::HANDLES != 0 {
            fields.handles()?
        } else {
            Vec::new()
        };
        let (last, more) = (flags & flag::LAST != 0, flags & flag::MORE != 0);
        if last && more {
            return Err(Violation::new(
                "a message that is last and has more to come",
            ));
        }
        let (own_message, third) = (self.own.message as usize, self.own.window / 3);
        let Some(co) = self.get_mut(id) else {
            // late: the conversation is over, only the connection's credit is to be kept
            self.charge_connection(id, fields.rest.len() as u32 + MESSAGE_COST)?;
            self.drop_late(id, &handles);
            return Ok(None);
        };
        if co.is(bit::IN_ENDED) {
            return Err(Violation::new(
                "a message after the end of its side of the conversation",
            ));
        }
        let started = channel != 0 || co.is(bit::IN_STARTED);
        if channel == 0 {
            co.bits |= bit::IN_STARTED;
        }
        let assembling = co
            .channels
            .as_mut()
            .and_then(|channels| channels.receiving.get_mut(channel as usize))
            .and_then(|receiving| receiving.partial.take());
        let first = assembling
            .as_ref()
            .map_or(!started, |partial| partial.first);
        let len = fields.rest.len() as u32;
        let cost = match &assembling {
            Some(_) => len,
            None if first && !more && len as usize <= ALLOWANCE => 0,
            None => len + MESSAGE_COST,
        };
        if first {
            self.charge_connection(id, cost)?;
            self.ensure_channels(id);
        } else {
            self.charge(id, channel, cost)?;
        }
        let cost = Cost {
            window: if first { 0 } else { cost },
            held: cost,
        };
        self.add_received(id, &handles)?;
        let Some(receiving) = self.receiving(id, channel) else {
            return Err(Violation::new(format!(
                "a message on channel {channel} that was not opened"
            )));
        };
        if assembling.is_some() || more {
            let mut partial = match assembling {
                Some(partial) if kind != kind::ITEM || !handles.is_empty() => {
                    return Err(Violation::new(format!(
                        "a message within another of kind {:#04x} that is not complete",
                        partial.kind
                    )));
                }
                Some(partial) => partial,
                None => Box::new(Partial {
                    kind,
                    script,
                    flags,
                    handles,
                    body: BytesMut::new(),
                    cost: Cost::default(),
                    first,
                    opening: None,
                }),
            };
            if channel > 0 && matches!(receiving.state, ReceiveState::Dropped) {
                // what is under way still counts as parts of one message
                let handles = std::mem::take(&mut partial.handles);
                if more {
                    receiving.partial = Some(partial);
                }
                self.give_back(id, channel, cost);
                self.drop_late(id, &handles);
                if last {
                    self.channel_ended(id, channel)?;
                }
                return Ok(None);
            }
            partial.body.extend_from_slice(fields.rest);
            if partial.body.len() > own_message {
                return Err(Violation::new(format!(
                    "a message of more than {own_message} bytes (`Settings::message`)"
                )));
            }
            // the message may be larger than the window: what it holds of the window is at most a third
            partial.cost.held += cost.held;
            partial.cost.window += cost.window;
            let over = partial.cost.window.saturating_sub(third);
            partial.cost.window -= over;
            if more {
                let begins = kind == kind::SCRIPT;
                receiving.partial = Some(partial);
                self.uncharge(id, channel, over);
                return Ok(begins.then_some(Event::Begun { id, script }));
            }
            self.uncharge(id, channel, over);
            return self.joined(id, channel, *partial, last);
        }
        let payload = Payload {
            bytes: input.part(fields.rest),
            unread: self.unread(&handles),
            handles,
        };
        let event = self.arrived(id, channel, (kind, script, flags), payload, cost);
        if last {
            self.channel_ended(id, channel)?;
        }
        Ok(event)
    }

    /// A message of several frames is whole.
    fn joined<'b>(
        &mut self,
        id: CoId,
        channel: u16,
        partial: Partial,
        last: bool,
    ) -> Result<Option<Event<'b>>, Violation> {
        let body = partial.body.freeze();
        if let Some(opening) = partial.opening {
            // it leaves for its landing at once
            self.uncharge(id, 0, partial.cost.window);
            self.seen += 1;
            const GIVEN_UP: u8 = bit::RELEASED | bit::OUT_ENDED;
            let given_up = self.get_mut(id).is_none_or(|co| co.is(GIVEN_UP));
            if given_up {
                // it is over: nothing of it lands, and what follows in it is dropped
                self.let_go(id, partial.cost.held);
                self.drop_late(id, &partial.handles);
                self.detach(id);
            }
            if last {
                self.channel_ended(id, 0)?;
            }
            if given_up {
                return Ok(None);
            }
            return Ok(Some(Event::Open(Open {
                id,
                script: (partial.script != u32::MAX).then_some(partial.script),
                value: partial.flags & flag::VALUE != 0,
                last,
                deadline: opening.deadline,
                depth: opening.depth,
                trace: opening.trace,
                arguments: Body::Joined(Box::new(body)),
                handles: partial.handles,
                refused: self.refuses(opening.depth),
            })));
        }
        let payload = Payload {
            bytes: body,
            unread: self.unread(&partial.handles),
            handles: partial.handles,
        };
        let head = (partial.kind, partial.script, partial.flags);
        let event = self.arrived(id, channel, head, payload, partial.cost);
        if last {
            self.channel_ended(id, channel)?;
        }
        Ok(event)
    }

    fn arrived<'b>(
        &mut self,
        id: CoId,
        channel: u16,
        (kind, script, flags): (u8, u32, u8),
        payload: Payload,
        cost: Cost,
    ) -> Option<Event<'b>> {
        let co = self.get_mut(id)?;
        if channel == 0 && co.is(bit::RELEASED) {
            self.give_back(id, channel, cost);
            self.drop_late(id, &payload.handles);
            return None;
        }
        if kind == kind::SCRIPT {
            let value = flags & flag::VALUE != 0;
            let arrival = ScriptArrival {
                id,
                script,
                value,
                arguments: payload,
                cost,
            };
            return Some(Event::Script(arrival));
        }
        if channel == 0 && co.is(bit::CALL) {
            self.uncharge(id, channel, cost.window);
            let co = self.get_mut(id)?;
            let reply = match payload.handles.is_empty() {
                true => Reply::Bytes(payload.bytes),
                false => Reply::Value(Box::new(payload)),
            };
            let waker = co.answered(reply);
            self.wake(waker);
            return None;
        }
        self.push(id, channel, Arrival::Item(payload), cost);
        None
    }

    /// Keeps what a script's number means until the rest of its message is there.
    pub fn keep_begun(&mut self, id: CoId, prepared: P) {
        if let Some(receiving) = self.receiving(id, 0) {
            receiving.begun = Some(prepared);
        }
    }

    /// What was kept for the message that is whole now, if it came in several frames.
    pub fn take_begun(&mut self, id: CoId) -> Option<P> {
        self.receiving(id, 0)?.begun.take()
    }

    /// Queues a script that came in an open conversation, as its conversation's next arrival.
    pub fn push_script(&mut self, arrival: ScriptArrival, prepared: P) {
        let ScriptArrival {
            id,
            value,
            arguments,
            cost,
            ..
        } = arrival;
        self.push(
            id,
            0,
            Arrival::Script {
                prepared,
                value,
                arguments,
            },
            cost,
        );
    }

    fn push(&mut self, id: CoId, channel: u16, arrival: Arrival<P>, cost: Cost) {
        let Some(receiving) = self.receiving(id, channel) else {
            return;
        };
        if matches!(receiving.state, ReceiveState::Dropped) {
            // nobody reads it: its room is free again
            self.give_back(id, channel, cost);
            self.drop_arrival(id, arrival);
            return;
        }
        receiving.queue.push_back((arrival, cost));
        let waker = receiving.waker.take();
        self.wake(waker);
    }

    pub(super) fn data(
        &mut self,
        id: CoId,
        channel: u16,
        data: Bytes,
        cost: u32,
    ) -> Result<(), Violation> {
        if self.get_mut(id).is_none() {
            return self.charge_connection(id, cost);
        }
        self.charge(id, channel, cost)?;
        let cost = Cost {
            window: cost,
            held: cost,
        };
        let Some(co) = self.get_mut(id) else {
            return Ok(());
        };
        if co.is(bit::IN_ENDED) {
            return Err(Violation::new(
                "data after the end of its side of the conversation",
            ));
        }
        if channel == 0 {
            co.bits |= bit::IN_STARTED;
        }
        let Some(receiving) = self.receiving(id, channel) else {
            return Err(Violation::new(format!(
                "data on channel {channel} that was not opened"
            )));
        };
        if matches!(receiving.state, ReceiveState::Dropped) {
            self.give_back(id, channel, cost);
            return Ok(());
        }
        receiving.queue.push_back((Arrival::Data(data), cost));
        let waker = receiving.waker.take();
        self.wake(waker);
        Ok(())
    }

    pub(super) fn ensure_channels(&mut self, id: CoId) {
        let (peer, own) = (self.peer_window(), self.own.window);
        if let Some(co) = self.get_mut(id) {
            let released = co.is(bit::RELEASED);
            let channels = co.channels(peer, own);
            if released {
                channels.receiving[0].state = ReceiveState::Dropped;
            }
        }
    }

    pub(super) fn receiving(&mut self, id: CoId, channel: u16) -> Option<&mut Receiving<P>> {
        let channels = self.get_mut(id)?.channels.as_mut()?;
        channels.receiving.get_mut(channel as usize)
    }

    /// Counts what arrived against the channel's and the connection's windows.
    fn charge(&mut self, id: CoId, channel: u16, cost: u32) -> Result<(), Violation> {
        self.charge_connection(id, cost)?;
        self.ensure_channels(id);
        let window = self.own.window;
        match self.receiving(id, channel) {
            Some(receiving) => {
                if !receiving.charge(cost) {
                    return Err(Violation::new(format!(
                        "more than the window of {window} bytes was sent on channel {channel}"
                    )));
                }
                Ok(())
            }
            None => Err(Violation::new(format!("channel {channel} was not opened"))),
        }
    }

    /// What nobody takes makes room.
    pub(super) fn give_back(&mut self, id: CoId, channel: u16, cost: Cost) {
        self.uncharge(id, channel, cost.window);
        self.let_go(id, cost.held);
    }

    fn uncharge(&mut self, id: CoId, channel: u16, cost: u32) {
        let window = self.own.window;
        if let Some(receiving) = self.receiving(id, channel)
            && let Some(amount) = receiving.credit(cost, window)
        {
            self.write_credit(id, channel, amount);
        }
    }

    /// Opens the channels of the streams in a payload.
    pub(super) fn add_received(
        &mut self,
        id: CoId,
        handles: &[WireHandle],
    ) -> Result<(), Violation> {
        let (window, limit) = (self.own.window, self.own.channels);
        for handle in handles {
            if handle.kind != HandleKind::Stream {
                continue;
            }
            self.ensure_channels(id);
            let Some(channels) = self.get_mut(id).and_then(|co| co.channels.as_mut()) else {
                continue;
            };
            if handle.number as usize != channels.receiving.len() || handle.number > limit {
                return Err(Violation::new(format!(
                    "stream {} opened where {} is the next and {limit} the last",
                    handle.number,
                    channels.receiving.len()
                )));
            }
            channels.receiving.push(Receiving::new(window));
        }
        Ok(())
    }

    /// Gives up the handles of a payload that nobody will see.
    pub(super) fn drop_late(&mut self, id: CoId, handles: &[WireHandle]) {
        for handle in handles {
            match handle.kind {
                HandleKind::Stream => self.stop(id, handle.number as u16),
                HandleKind::Object => self.write_release(handle.number, 1),
                HandleKind::Returned => {}
            }
        }
    }

    /// The peer ended a channel in good order.
    pub(super) fn channel_ended(&mut self, id: CoId, channel: u16) -> Result<(), Violation> {
        let Some(co) = self.get_mut(id) else {
            return Ok(());
        };
        if co.is(bit::IN_ENDED) {
            return Err(Violation::new(
                "an end after the end of its side of the conversation",
            ));
        }
        if channel > 0 {
            let Some(receiving) = self.receiving(id, channel) else {
                return Err(Violation::new(format!(
                    "the end of channel {channel}, not opened"
                )));
            };
            let dropped = matches!(receiving.state, ReceiveState::Dropped);
            if receiving.partial.is_some() && !dropped {
                return Err(Violation::new("the end of a channel within a message"));
            }
            if matches!(receiving.state, ReceiveState::Open) {
                receiving.state = ReceiveState::Ended;
            }
            let waker = receiving.waker.take();
            self.wake(waker);
            self.settle(id);
            return Ok(());
        }
        self.side_ended(id, None);
        Ok(())
    }

    /// The peer's side of a conversation ended, in good order or with a failure.
    fn side_ended(&mut self, id: CoId, failure: Option<Box<Failure>>) {
        let Some(co) = self.get_mut(id) else { return };
        co.bits |= bit::IN_ENDED;
        let (mut woken, mut partials) = (Vec::new(), Vec::new());
        if co.is(bit::CALL) && co.is_unanswered() {
            let failure = failure.clone().unwrap_or_else(|| {
                Box::new(Failure::new(
                    Kind::Protocol,
                    "the peer ended the call without an answer",
                ))
            });
            woken.extend(co.answered(Reply::Failed(failure)));
        }
        if let Some(channels) = &mut co.channels {
            for (channel, receiving) in channels.receiving.iter_mut().enumerate() {
                woken.extend(receiving.waker.take());
                partials.push(receiving.partial.take());
                if !matches!(receiving.state, ReceiveState::Open) {
                    continue;
                }
                receiving.state = match &failure {
                    Some(failure) => ReceiveState::Failed(failure.clone()),
                    None if channel == 0 => ReceiveState::Ended,
                    None => ReceiveState::Failed(Box::new(Failure::new(
                        Kind::Cancelled,
                        "the conversation ended before this stream of it",
                    ))),
                };
            }
        } else if let Some(failure) = failure {
            // whoever receives later sees it, too
            if !co.is(bit::CALL) {
                let (peer, own) = (self.peer_window(), self.own.window);
                if let Some(co) = self.get_mut(id) {
                    co.channels(peer, own).receiving[0].state = ReceiveState::Failed(failure);
                }
            }
        }
        for waker in woken {
            self.wake(Some(waker));
        }
        for partial in partials {
            self.drop_partial(id, partial);
        }
        self.settle(id);
    }

    pub(super) fn error_frame<'b>(
        &mut self,
        id: CoId,
        channel: u16,
        bytes: &[u8],
    ) -> Result<Option<Event<'b>>, Violation> {
        let packed =
            crate::value::Packed::from_parts(Bytes::copy_from_slice(bytes), Default::default());
        let failure = Box::new(unpack_failure(packed)?);
        let Some(co) = self.get_mut(id) else {
            return Ok(None);
        };
        if co.is(bit::IN_ENDED) {
            return Err(Violation::new(
                "an error after the end of its side of the conversation",
            ));
        }
        if channel == 0 {
            self.side_ended(id, Some(failure));
            // an opener that gave up wants no answer
            return Ok(id.is_hosted().then_some(Event::Cancelled(id)));
        }
        let Some(receiving) = self.receiving(id, channel) else {
            return Err(Violation::new(format!(
                "an error on channel {channel}, not opened"
            )));
        };
        let partial = receiving.partial.take();
        if matches!(receiving.state, ReceiveState::Open) {
            receiving.state = ReceiveState::Failed(failure);
        }
        let waker = receiving.waker.take();
        self.drop_partial(id, partial);
        self.wake(waker);
        self.settle(id);
        Ok(None)
    }

    pub(super) fn credited(
        &mut self,
        id: CoId,
        channel: u16,
        amount: u32,
    ) -> Result<(), Violation> {
        let Some(co) = self.get_mut(id) else {
            return Ok(());
        };
        let Some(sending) = co
            .channels
            .as_mut()
            .and_then(|c| c.sending.get_mut(channel as usize))
        else {
            return Ok(());
        };
        sending.credit = sending
            .credit
            .checked_add(amount)
            .ok_or_else(|| Violation::new("more channel credit than can be counted"))?;
        self.relist(id, channel);
        Ok(())
    }

    pub(super) fn stopped<'b>(&mut self, id: CoId, channel: u16) -> Option<Event<'b>> {
        let co = self.get_mut(id)?;
        if channel == 0 && id.is_hosted() {
            let channels = co.channels.as_ref();
            let partial = channels.and_then(|channels| channels.receiving[0].partial.as_ref());
            if partial.is_some_and(|partial| partial.opening.is_some()) {
                // what was begun of it may become whole before the driver has ended it
                co.bits |= bit::RELEASED;
            }
            return (!co.is(bit::OUT_ENDED)).then_some(Event::Cancelled(id));
        }
        let mut waker = None;
        let mut lost = Vec::new();
        if let Some(sending) = co
            .channels
            .as_mut()
            .and_then(|c| c.sending.get_mut(channel as usize))
        {
            if !sending.is_over() {
                sending.state = SendState::Stopped;
                lost = sending.clear();
            }
            waker = sending.waker.take();
        }
        self.pieces_end(id, Some(channel));
        self.lost.extend(lost);
        self.wake(waker);
        self.settle(id);
        None
    }
}

impl Reply {
    #[inline]
    pub(super) fn new(body: &[u8], input: Input<'_>) -> Self {
        match Short::new(body) {
            Some(short) => Reply::Short(short),
            None => Reply::Bytes(input.answer(body)),
        }
    }
}
