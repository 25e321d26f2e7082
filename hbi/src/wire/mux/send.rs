//! Sending: messages on the channels of conversations, and filling the output.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    ALLOWANCE, CoId, Connection, HandleKind, Output, WireHandle,
    channel::{CHUNK, Chunk, ReceiveState, SendState, Sending},
    connection::{Patient, over},
    conversation::bit,
    frame::{self, HEAD, MESSAGE_COST, flag, kind},
    open::first_cost,
    pieces::Begins,
};
use crate::{Failure, Kind};

/// Bytes of bulk that go out at once before small messages get their turn again; the frame that
/// exceeds them is the last.
const BULK_TURN: usize = 128 << 10;

/// The largest piece of bulk in one frame: an answer waits for no more than this.
const BULK_FRAME: usize = 64 << 10;

/// Messages up to this size go out before bulk, and are copied beside the frames' heads.
pub(super) const SMALL: usize = 16 << 10;

/// The largest buffer that a connection with nothing to do keeps for itself. Connections are many.
const OWN_BUFFER: usize = 4 << 10;

/// Why a message was not taken.
#[derive(Debug)]
pub enum SendRefused {
    /// The channel has no room now.
    Full,
    /// It cannot be sent to this peer at all.
    Unfit(Box<Failure>),
    /// The peer wants no more, or the conversation is over.
    Failed(Box<Failure>),
}

impl<P, U> Connection<P, U> {
    /// The channel that the next stream of this side in the conversation gets.
    pub fn next_channel(&mut self, id: CoId) -> u32 {
        self.get_mut(id)
            .and_then(|co| co.channels.as_ref())
            .map_or(1, |channels| channels.sending.len() as u32)
    }

    /// Whether so many bytes more would need a larger buffer than a connection keeps for itself.
    #[inline]
    pub fn wants_buffer(&self, more: usize) -> bool {
        let len = self.out.len() + more + frame::MAX_OPENING;
        len > self.out.capacity() && len > OWN_BUFFER
    }

    /// Takes over an empty buffer, if it is larger than its own.
    pub fn take_buffer(&mut self, mut buffer: Vec<u8>) {
        debug_assert!(buffer.is_empty(), "its bytes would be taken for frames");
        if buffer.capacity() > self.out.capacity() {
            buffer.append(&mut self.out);
            self.out = buffer;
        }
    }

    /// Gives up a buffer that is larger than a connection keeps for itself, if nothing is to be written
    /// from it: the few ends in it that nobody waits for stay here.
    pub fn give_buffer(&mut self) -> Option<Vec<u8>> {
        if self.out.len() > self.patient.bytes || self.out.capacity() <= OWN_BUFFER {
            return None;
        }
        let ends = self.out.as_slice().into();
        let mut buffer = std::mem::replace(&mut self.out, ends);
        buffer.clear();
        Some(buffer)
    }

    /// Sends a value on a channel, also where that [has no room](Self::has_room).
    pub fn send_item(
        &mut self,
        id: CoId,
        channel: u16,
        body: Bytes,
        handles: &[WireHandle],
    ) -> Result<(), SendRefused> {
        let flags = if handles.is_empty() { 0 } else { flag::HANDLES };
        let fields = channel.to_le_bytes();
        self.send_message(
            id,
            channel,
            kind::ITEM,
            flags,
            Vec::new(),
            &fields,
            body,
            handles,
        )
    }

    /// Whether a message of so many bytes on the main sequence leaves at once, behind what was written.
    pub fn is_direct(&mut self, id: CoId, len: usize) -> bool {
        let (peer, own, credit) = (self.peer_window(), self.own.window, self.credit);
        self.get_mut(id).is_some_and(|co| {
            let first = !co.is(bit::OUT_STARTED);
            let sending = &co.channels(peer, own).sending[0];
            direct_cost(sending, len, first, credit).is_some()
        })
    }

    /// Sends a script on the main sequence, also where that has no room. What [`definition`] made is written
    /// right before it: where it [does not leave at once](Self::is_direct) its number may mean another text
    /// by then.
    pub fn send_script(
        &mut self,
        id: CoId,
        script: u32,
        definition: Vec<u8>,
        value: bool,
        arguments: Bytes,
        handles: &[WireHandle],
    ) -> Result<(), SendRefused> {
        let mut flags = if handles.is_empty() { 0 } else { flag::HANDLES };
        if value {
            flags |= flag::VALUE;
        }
        self.send_message(
            id,
            0,
            kind::SCRIPT,
            flags,
            definition,
            &script.to_le_bytes(),
            arguments,
            handles,
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of a message, private"
    )]
    fn send_message(
        &mut self,
        id: CoId,
        channel: u16,
        kind: u8,
        flags: u8,
        definition: Vec<u8>,
        fields: &[u8],
        body: Bytes,
        handles: &[WireHandle],
    ) -> Result<(), SendRefused> {
        self.not_closed()?;
        let peer = self
            .peer
            .as_ref()
            .map(|peer| (peer.message, peer.channels, peer.window));
        let Some((message, streams, window)) = peer else {
            return Err(SendRefused::Full);
        };
        if body.len() > message as usize {
            return Err(SendRefused::Unfit(too_large(body.len(), message)));
        }
        let new = handles
            .iter()
            .filter(|h| h.kind == HandleKind::Stream)
            .count();
        let own = self.own.window;
        let credit = self.credit;
        let co = if id.is_hosted() {
            self.theirs.get_mut(id)
        } else {
            self.ours.get_mut(id)
        };
        let Some(co) = co else {
            return Err(SendRefused::Failed(over()));
        };
        let first = channel == 0 && !co.is(bit::OUT_STARTED);
        let channels = co.channels(window, own);
        let count = channels.sending.len() - 1 + new;
        let Some(sending) = channels.sending.get_mut(channel as usize) else {
            return Err(SendRefused::Failed(over()));
        };
        // the reason is known, of a host that failed and reads no more, or of a deadline
        if let ReceiveState::Failed(why) = &channels.receiving[0].state
            && channel == 0
            && !id.is_hosted()
        {
            return Err(SendRefused::Failed(why.clone()));
        }
        match sending.state {
            SendState::Open => {}
            SendState::Stopped => return Err(SendRefused::Failed(stopped())),
            SendState::Ending | SendState::Closed => return Err(SendRefused::Failed(over())),
        }
        if new > 0 && count > streams as usize || frame::too_many_handles(handles.len()) {
            return Err(SendRefused::Unfit(too_many_streams(streams)));
        }
        let direct = direct_cost(sending, body.len(), first, credit);
        if let Some(cost) = direct
            && !first
        {
            sending.credit -= cost;
        }
        channels
            .sending
            .extend((0..new).map(|_| Sending::new(window)));
        let write_fields = |out: &mut Vec<u8>| {
            out.extend_from_slice(fields);
            frame::write_handles(out, handles);
        };
        if channel == 0 {
            co.bits |= bit::OUT_STARTED;
        }
        if let Some(cost) = direct {
            self.credit -= cost;
            self.out.extend_from_slice(&definition);
            frame::write(&mut self.out, kind, id.to_wire(), |out| {
                out.push(flags);
                write_fields(out);
                out.extend_from_slice(&body);
            });
        } else {
            let mut fields = Vec::new();
            write_fields(&mut fields);
            self.queue(
                id,
                channel,
                Chunk::Message {
                    kind,
                    flags,
                    definition,
                    fields,
                    body,
                    begun: false,
                    objects: objects(handles),
                    first,
                },
            );
        }
        Ok(())
    }

    /// Sends raw bytes on a channel. No bytes at all end a run of them.
    pub fn send_data(&mut self, id: CoId, channel: u16, bytes: Bytes) -> Result<(), SendRefused> {
        self.not_closed()?;
        let (peer, own) = (self.peer_window(), self.own.window);
        let Some(co) = self.get_mut(id) else {
            return Err(SendRefused::Failed(over()));
        };
        let channels = co.channels(peer, own);
        let Some(sending) = channels.sending.get_mut(channel as usize) else {
            return Err(SendRefused::Failed(over()));
        };
        // the reason is known, of a host that failed and reads no more, or of a deadline
        if let ReceiveState::Failed(why) = &channels.receiving[0].state
            && channel == 0
            && !id.is_hosted()
        {
            return Err(SendRefused::Failed(why.clone()));
        }
        match sending.state {
            SendState::Open => {}
            SendState::Stopped => return Err(SendRefused::Failed(stopped())),
            SendState::Ending | SendState::Closed => return Err(SendRefused::Failed(over())),
        }
        if !sending.has_room() {
            return Err(SendRefused::Full);
        }
        if channel == 0 {
            co.bits |= bit::OUT_STARTED;
        }
        self.queue(id, channel, Chunk::Data(bytes));
        Ok(())
    }

    fn not_closed(&self) -> Result<(), SendRefused> {
        match &self.closed {
            Some(reason) => Err(SendRefused::Failed(reason.clone())),
            None => Ok(()),
        }
    }

    /// Whether a channel takes a message now.
    pub fn has_room(&mut self, id: CoId, channel: u16) -> bool {
        self.sending(id, channel)
            .is_none_or(|sending| sending.has_room())
    }

    /// Remembers who waits for room on a channel.
    pub fn wait_to_send(&mut self, id: CoId, channel: u16, cx: &mut Context<'_>) {
        if let Some(sending) = self.sending(id, channel) {
            sending.waker = Some(cx.waker().clone());
        }
    }

    /// Ready once the peer wants no more of a channel, or its conversation is over.
    pub fn poll_stopped(&mut self, id: CoId, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        let (peer, own) = (self.peer_window(), self.own.window);
        let Some(co) = self.get_mut(id) else {
            return Poll::Ready(());
        };
        // the main sequence is there before anything was sent on it
        match co.channels(peer, own).sending.get_mut(channel as usize) {
            Some(sending) if sending.state == SendState::Open => {
                sending.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Ready once all that was sent on a channel has left for the transport.
    pub fn poll_sent(&mut self, id: CoId, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        match self.sending(id, channel) {
            Some(sending) if !sending.queue.is_empty() => {
                sending.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn sending(&mut self, id: CoId, channel: u16) -> Option<&mut Sending> {
        let channels = self.get_mut(id)?.channels.as_mut()?;
        channels.sending.get_mut(channel as usize)
    }

    /// Ends a channel in good order; on channel 0 the main sequence, and with it this side of the
    /// conversation once its streams have ended.
    pub fn end(&mut self, id: CoId, channel: u16) {
        let Some(co) = self.get_mut(id) else { return };
        if channel == 0 {
            co.bits |= bit::OUT_DONE;
            return self.settle(id);
        }
        if let Some(sending) = self.sending(id, channel)
            && sending.state == SendState::Open
        {
            sending.state = SendState::Ending;
            if sending.queue.is_empty() {
                self.write_end(id, channel);
            }
        }
    }

    fn write_end(&mut self, id: CoId, channel: u16) {
        if let Some(sending) = self.sending(id, channel) {
            sending.state = SendState::Closed;
            frame::text_frame(&mut self.out, kind::END, id, channel, &[]);
            self.settle(id);
        }
    }

    /// Ends a channel with a failure; on channel 0 this side of the conversation.
    pub fn fail(&mut self, id: CoId, channel: u16, failure: &Failure) {
        let Some(co) = self.get_mut(id) else { return };
        if co.is(bit::OUT_ENDED) {
            return;
        }
        if channel > 0 {
            let Some(sending) = self.sending(id, channel) else {
                return;
            };
            if matches!(sending.state, SendState::Open | SendState::Ending) {
                sending.state = SendState::Closed;
                let lost = sending.clear();
                self.lost.extend(lost);
                self.pieces_end(id, Some(channel));
                self.write_error(id, channel, failure);
                self.settle(id);
            }
            return;
        }
        co.bits |= bit::OUT_DONE | bit::OUT_ENDED;
        let (mut wakers, mut lost) = (Vec::new(), Vec::new());
        let (mut stopped, mut unread) = (Vec::new(), Vec::new());
        if let Some(channels) = &mut co.channels {
            for sending in &mut channels.sending {
                sending.state = SendState::Stopped;
                lost.extend(sending.clear());
                wakers.extend(sending.waker.take());
            }
            if id.is_hosted() {
                // the number is the peer's again as soon as both sides have ended
                for (channel, receiving) in channels.receiving.iter_mut().enumerate().skip(1) {
                    if matches!(receiving.state, ReceiveState::Dropped) {
                        continue;
                    }
                    if matches!(receiving.state, ReceiveState::Open) {
                        stopped.push(channel as u16);
                    }
                    receiving.state = ReceiveState::Failed(Box::new(failure.clone()));
                    unread.push((channel as u16, std::mem::take(&mut receiving.queue)));
                    wakers.extend(receiving.waker.take());
                }
            }
        }
        for waker in wakers {
            self.wake(Some(waker));
        }
        self.lost.extend(lost);
        self.pieces_end(id, None);
        for channel in stopped {
            frame::text_frame(&mut self.out, kind::STOP, id, channel, &[]);
        }
        self.write_error(id, 0, failure);
        for (channel, arrivals) in unread {
            self.drop_arrivals(id, channel, arrivals);
        }
        self.settle(id);
    }

    /// Tells the peer the text of a script's number. At most 65,535 parameters, of at most 255 bytes
    /// each.
    pub fn define(&mut self, number: u32, parameters: &[impl AsRef<str>], source: &str) {
        define(&mut self.out, number, parameters, source);
    }

    pub(super) fn queue(&mut self, id: CoId, channel: u16, chunk: Chunk) {
        let Some(sending) = self.sending(id, channel) else {
            return;
        };
        let bulk = match &chunk {
            Chunk::Message {
                definition,
                body,
                begun,
                ..
            } => {
                let head = if *begun { 0 } else { MESSAGE_COST as usize };
                sending.queued += definition.len() + body.len() + head;
                body.len() > SMALL
            }
            Chunk::Data(bytes) => {
                sending.queued += bytes.len() + CHUNK;
                true
            }
        };
        sending.queue.push_back(chunk);
        if !sending.listed {
            sending.listed = true;
            if bulk {
                &mut self.bulk
            } else {
                &mut self.ready
            }
            .push_back((id, channel));
        }
    }

    /// Fills an empty output with what is to be written next: small messages first, then a turn of
    /// bulk.
    pub fn fill(&mut self, output: &mut Output) {
        if let Some(token) = self.pong.take() {
            frame::write(&mut self.out, kind::PONG, 0, |out| {
                out.extend_from_slice(&token.to_le_bytes());
            });
        }
        while let Some((id, channel)) = self.ready.pop_front() {
            self.write_queued(id, channel, usize::MAX, None);
        }
        self.patient = Patient::default();
        output.take(&mut self.out);
        let mut turn = BULK_TURN;
        let mut tries = self.bulk.len();
        while turn > 0 && tries > 0 && self.credit > 0 {
            let Some((id, channel)) = self.bulk.pop_front() else {
                break;
            };
            // a channel without credit waits for its CREDIT, one that the connection's credit
            // stopped stays in the list
            let written = self.write_queued(id, channel, BULK_FRAME, Some(output));
            turn = turn.saturating_sub(written);
            tries = if written > 0 {
                self.bulk.len()
            } else {
                tries - 1
            };
        }
        // ends and errors written while the queues ran empty
        if !self.out.is_empty() {
            output.buffer().append(&mut self.out);
        }
    }

    /// Writes from one channel's queue; returns the bytes taken from it. Lists it again if more can
    /// be written.
    fn write_queued(
        &mut self,
        id: CoId,
        channel: u16,
        limit: usize,
        output: Option<&mut Output>,
    ) -> usize {
        let (largest, window, most) = self.peer.as_ref().map_or((0, 0, 0), |peer| {
            (
                peer.frame as usize,
                peer.window,
                peer.connection_window as usize,
            )
        });
        let Some(co) = (if id.is_hosted() {
            self.theirs.get_mut(id)
        } else {
            self.ours.get_mut(id)
        }) else {
            return 0;
        };
        let ends = channel == 0
            && co.bits & (bit::OUT_DONE | bit::OUT_ENDED) == bit::OUT_DONE
            && co.has_no_streams_open();
        let Some(sending) = co
            .channels
            .as_mut()
            .and_then(|channels| channels.sending.get_mut(channel as usize))
        else {
            return 0;
        };
        let mut pieces = None;
        let out = match output {
            Some(output) => {
                pieces = Some(output);
                None
            }
            None => Some(&mut self.out),
        };
        let small = pieces.is_none();
        let mut sink = Sink { out, pieces };
        let mut written = 0;
        let (mut starved, mut last, mut opened) = (false, false, false);
        let (mut begins, mut whole) = (Begins::Now, false);
        while written < limit {
            let only = sending.queue.len() == 1;
            let Some(chunk) = sending.queue.front_mut() else {
                break;
            };
            let credit = sending.credit.min(self.credit);
            match chunk {
                Chunk::Data(bytes) => {
                    let room = (credit as usize).saturating_sub(MESSAGE_COST as usize);
                    let most = room.min(largest - 3).min(limit - written);
                    if (most == 0 && !bytes.is_empty()) || credit < MESSAGE_COST {
                        starved = true;
                        break;
                    }
                    let n = run(&sending.queue, most);
                    let cost = n as u32 + MESSAGE_COST;
                    sending.credit -= cost;
                    self.credit -= cost;
                    sending.queued -= n;
                    written += cost as usize;
                    let mut head = [0; HEAD + 3];
                    head[..HEAD].copy_from_slice(&frame::head(n + 3, kind::DATA, id.to_wire()));
                    head[HEAD + 1..].copy_from_slice(&channel.to_le_bytes());
                    sink.write(&head);
                    let mut left = n;
                    while let Some(Chunk::Data(bytes)) = sending.queue.front_mut() {
                        let piece = bytes.split_to(bytes.len().min(left));
                        left -= piece.len();
                        if bytes.is_empty() {
                            sending.queue.pop_front();
                            sending.queued -= CHUNK;
                        }
                        sink.piece(piece);
                        if left == 0 {
                            break;
                        }
                    }
                }
                Chunk::Message {
                    kind,
                    flags,
                    definition,
                    fields,
                    body,
                    begun,
                    first,
                    ..
                } => {
                    // the first message of a side needs the connection's credit only
                    let credit = if *first { self.credit } else { credit };
                    // the first frame carries the fields and costs MESSAGE_COST
                    let fixed = if *begun { 0 } else { MESSAGE_COST };
                    let head = if *begun { 2 } else { fields.len() } + 1;
                    let n = body
                        .len()
                        .min((credit as usize).saturating_sub(fixed as usize))
                        .min(largest.saturating_sub(head));
                    if (n == 0 && !body.is_empty()) || credit < fixed {
                        starved = true;
                        break;
                    }
                    let more = n < body.len();
                    if more && small {
                        // it is not small, or has to wait: it has its turn among bulk
                        starved = true;
                        break;
                    }
                    if more && !*first && !*begun {
                        let large = (id, channel, body.len());
                        let credit = (sending.credit, window);
                        begins = self.pieces.begin(large, credit, most);
                        if begins != Begins::Now {
                            break;
                        }
                    }
                    whole |= !more && (*begun || self.pieces.has(id, channel));
                    let plain = *first && !*begun && !more && n <= ALLOWANCE;
                    if *first && !more && *kind == kind::OPEN {
                        self.opened += 1;
                        co.ordinal = self.opened;
                    }
                    let (kind, mut flags) = match (*begun, more) {
                        (false, false) => (*kind, *flags),
                        (false, true) => (*kind, *flags | flag::MORE),
                        (true, false) => (kind::ITEM, 0),
                        (true, true) => (kind::ITEM, flag::MORE),
                    };
                    if ends && only && !more && kind != kind::SCRIPT {
                        flags |= flag::LAST;
                        last = true;
                    }
                    let piece = body.split_to(n);
                    let cost = n as u32 + fixed;
                    if !*first {
                        sending.credit -= cost;
                    }
                    if !plain {
                        self.credit -= cost;
                    }
                    sending.queued -= cost as usize + definition.len();
                    written += cost as usize + definition.len();
                    sink.write(&std::mem::take(definition));
                    sink.write(&frame::head(head + n, kind, id.to_wire()));
                    sink.write(&[flags]);
                    if *begun {
                        sink.write(&channel.to_le_bytes())
                    } else {
                        sink.write(fields)
                    }
                    *begun = true;
                    if !more {
                        opened |= *first;
                        sending.queue.pop_front();
                    }
                    sink.piece(piece);
                    if whole {
                        // others that wait have their turn before the next of this channel
                        break;
                    }
                }
            }
        }
        let mut ended = false;
        if sending.queue.is_empty() {
            sending.listed = false;
            ended = sending.state == SendState::Ending;
        } else if begins == Begins::InTurn {
            // back in a list once others are whole
        } else if begins == Begins::Credited || starved && lacks_credit(sending) {
            // back in a list when CREDIT comes
            sending.listed = false;
        } else if written > 0 && is_cut(&sending.queue) {
            // a message that was begun is finished first, whatever it waits for: the peer holds those
            // that are in pieces, and gives no more credit once they are many
            self.bulk.push_front((id, channel));
        } else {
            self.bulk.push_back((id, channel));
        }
        if last {
            co.bits |= bit::OUT_ENDED;
        }
        let waker = if sending.has_room() {
            sending.waker.take()
        } else {
            None
        };
        self.wake(waker);
        if whole {
            self.pieces_end(id, Some(channel));
        }
        if opened {
            self.opening_sent();
        }
        if ended {
            self.write_end(id, channel);
        } else if channel == 0 {
            self.settle(id);
        }
        written
    }

    /// What came in pieces on a channel, or on all of a conversation, is whole or dropped: others have
    /// their turn.
    pub(super) fn pieces_end(&mut self, id: CoId, channel: Option<u16>) {
        self.pieces.end(id, channel);
        let peer = self.peer.as_ref();
        let most = peer.map_or(0, |peer| peer.connection_window as usize);
        while let Some(next) = self.pieces.next(most) {
            self.bulk.push_back(next);
        }
    }

    /// Lists a channel that got credit, if it has something to send.
    pub(super) fn relist(&mut self, id: CoId, channel: u16) {
        if let Some(sending) = self.sending(id, channel)
            && !sending.listed
            && !sending.queue.is_empty()
        {
            sending.listed = true;
            self.bulk.push_back((id, channel));
        }
    }
}

/// What a message of so many bytes takes of the credit if it leaves at once: it is small, nothing is
/// before it, and there is credit for it, the connection's with it.
fn direct_cost(sending: &Sending, len: usize, first: bool, credit: u32) -> Option<u32> {
    let cost = match first {
        true => first_cost(len),
        false => len as u32 + MESSAGE_COST,
    };
    let direct = sending.queue.is_empty()
        && len <= SMALL
        && (first || cost <= sending.credit)
        && cost <= credit;
    direct.then_some(cost)
}

/// The frame that tells the peer the text of a script's number, as [`Connection::define`] writes it.
pub fn definition(number: u32, parameters: &[impl AsRef<str>], source: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    define(&mut frame, number, parameters, source);
    frame
}

fn define(out: &mut Vec<u8>, number: u32, parameters: &[impl AsRef<str>], source: &str) {
    frame::write(out, kind::DEFINE, 0, |out| {
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&(parameters.len() as u16).to_le_bytes());
        for name in parameters {
            let name = name.as_ref();
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(source.as_bytes());
    });
}

/// The objects of this side among handles.
fn objects(handles: &[WireHandle]) -> Vec<u32> {
    let objects = handles.iter().filter(|h| h.kind == HandleKind::Object);
    objects.map(|h| h.number).collect()
}

/// How many bytes of data at the front go into one frame that takes so many: pieces side by side do,
/// but for one without bytes, which says that a run of them ends.
fn run(queue: &VecDeque<Chunk>, most: usize) -> usize {
    let pieces = queue.iter().map_while(|chunk| match chunk {
        Chunk::Data(bytes) if !bytes.is_empty() => Some(bytes.len()),
        _ => None,
    });
    let mut n = 0;
    for piece in pieces {
        n += piece;
        if n >= most {
            return most;
        }
    }
    n
}

/// Whether it is credit of the channel that what is at the front waits for.
fn lacks_credit(sending: &Sending) -> bool {
    match sending.queue.front() {
        Some(Chunk::Message { first: true, .. }) => false,
        Some(Chunk::Message { begun: true, .. }) => sending.credit == 0,
        _ => sending.credit <= MESSAGE_COST,
    }
}

/// Whether a message at the front was written in part.
fn is_cut(queue: &VecDeque<Chunk>) -> bool {
    matches!(queue.front(), Some(Chunk::Message { begun: true, .. }))
}

/// Where queued frames are written: beside the other frames, or with pieces that are not copied.
struct Sink<'a> {
    out: Option<&'a mut Vec<u8>>,
    pieces: Option<&'a mut Output>,
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) {
        match (&mut self.out, &mut self.pieces) {
            (Some(out), _) => out.extend_from_slice(bytes),
            (None, Some(output)) => output.buffer().extend_from_slice(bytes),
            (None, None) => {}
        }
    }

    fn piece(&mut self, piece: Bytes) {
        match (&mut self.out, &mut self.pieces) {
            (None, Some(output)) if piece.len() > SMALL => output.piece(piece),
            _ => self.write(&piece),
        }
    }
}

pub(crate) fn too_large(len: usize, limit: u32) -> Box<Failure> {
    Box::new(Failure::limit(
        "message",
        format_args!("{len} bytes where the peer takes {limit}"),
        "send it as `Data` or `Items`, or raise `Settings::message` at the peer",
    ))
}

pub(crate) fn too_many_streams(limit: u32) -> Box<Failure> {
    Box::new(Failure::limit(
        "channels",
        format_args!("the peer takes {limit} streams in one conversation"),
        "spread them over several calls, or raise `Settings::channels` at the peer",
    ))
}

pub(crate) fn stopped() -> Box<Failure> {
    Box::new(Failure::new(
        Kind::Cancelled,
        "the peer wants no more of this",
    ))
}
