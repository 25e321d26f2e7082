//! Opening conversations, and answering them: the first message of a side, most of which are the only
//! one.

use std::{
    collections::VecDeque,
    ops::Range,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    ALLOWANCE, CoId, Connection, HandleKind, WireHandle, WireId,
    channel::{Chunk, Sending},
    conversation::{Answer, Conversation, bit},
    frame::{self, HEAD, MESSAGE_COST, flag, kind},
    output::FEW,
    send::{SMALL, SendRefused, too_large, too_many_streams},
};
use crate::{Failure, Kind};

/// Bytes of openings that wait for the connection's credit before more openings have to wait
/// themselves; one is always taken.
const UNSENT: usize = 8 << 20;

/// What a conversation is opened with.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The script's number, or `None` for a conversation that begins without one.
    pub script: Option<u32>,
    /// Whether the script's value is asked for.
    pub value: bool,
    /// Whether the conversation is this one call: its first value is its answer.
    pub call: bool,
    /// Whether nothing follows on the main sequence.
    pub last: bool,
    /// When the poster gives up.
    pub deadline: Option<Instant>,
    /// How many hosted conversations this one is nested in.
    pub depth: u8,
    /// A W3C trace context.
    pub trace: Option<&'a [u8; 25]>,
    /// Arguments, a MessagePack array.
    pub arguments: &'a [u8],
    /// The handles in them. Streams have the numbers 1, 2, ... in order.
    pub handles: &'a [WireHandle],
}

/// Why a conversation was not opened.
#[derive(Debug)]
pub enum OpenRefused {
    /// All numbers are in use: wait, or fail.
    Full,
    /// It cannot be opened at all.
    Failed(Box<Failure>),
}

impl<P, U> Connection<P, U> {
    /// Opens a conversation that is one call and nothing beside, the common case, and wakes this task
    /// when it is answered. `None` where something is in the way, which [`Self::open`] tells.
    #[inline(always)]
    pub fn call(&mut self, script: u32, arguments: &[u8], cx: &mut Context<'_>) -> Option<CoId> {
        let room = self.peer.as_ref()?.conversations as usize;
        let begins = self.closed.is_none() && !self.leaving && self.peer_leaving.is_none();
        if !begins || self.ours.len() >= room {
            return None;
        }
        if arguments.len() > ALLOWANCE {
            // small ones fit a frame
            let cost = first_cost(arguments.len());
            let fits = arguments.len() <= SMALL - frame::MAX_OPENING && cost <= self.credit;
            if !fits || !self.takes_opening(arguments.len()) {
                return None;
            }
            self.credit -= cost;
        }
        self.opened += 1;
        const BITS: u8 = bit::OUT_STARTED | bit::OUT_ENDED | bit::OUT_DONE | bit::CALL;
        let (opened, waker) = (self.opened, cx.waker().clone());
        let id = self.ours.insert(|co| {
            co.bits = BITS;
            co.ordinal = opened;
            // by default there is nothing to be dropped
            std::mem::forget(std::mem::replace(&mut co.answer, Answer::Watched(waker)));
        });
        let mut head = [0; HEAD + 5];
        let len = arguments.len() + 5;
        head[..HEAD].copy_from_slice(&frame::head(len, kind::OPEN, id.to_wire()));
        head[HEAD] = frame::CALL;
        head[HEAD + 1..].copy_from_slice(&script.to_le_bytes());
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(arguments);
        Some(id)
    }

    /// Opens a conversation.
    pub fn open(&mut self, opening: Opening<'_>, now: Instant) -> Result<CoId, OpenRefused> {
        if let Some(closed) = &self.closed {
            return Err(OpenRefused::Failed(closed.clone()));
        }
        let refused = |kind, text: String| OpenRefused::Failed(Box::new(Failure::new(kind, text)));
        if opening.depth == 0 {
            if self.peer_leaving.is_some() {
                return Err(refused(
                    Kind::NotLanded,
                    "the peer said goodbye: nothing new lands".into(),
                ));
            }
            if self.leaving {
                return Err(refused(Kind::Disconnected, "this side said goodbye".into()));
            }
        }
        // until the peer's preface is here its limits are not known
        let Some(peer) = &self.peer else {
            return Err(OpenRefused::Full);
        };
        if self.ours.len() >= peer.conversations as usize {
            return Err(OpenRefused::Full);
        }
        if opening.arguments.len() > peer.message as usize {
            return Err(OpenRefused::Failed(too_large(
                opening.arguments.len(),
                peer.message,
            )));
        }
        let streams = opening
            .handles
            .iter()
            .filter(|h| h.kind == HandleKind::Stream)
            .count();
        if streams > peer.channels as usize || frame::too_many_handles(opening.handles.len()) {
            return Err(OpenRefused::Failed(too_many_streams(peer.channels)));
        }

        let remaining = opening.deadline.map(|at| at.saturating_duration_since(now));
        let mut bits = bit::OUT_STARTED;
        let cost = first_cost(opening.arguments.len());
        // one that fits a frame is never cut, so that no later one overtakes it
        let head = frame::MAX_OPENING + 5 * opening.handles.len();
        let frame = (peer.frame as usize).saturating_sub(head);
        let whole = opening.arguments.len() <= frame && cost <= self.credit;
        let last = opening.last && streams == 0 && whole;
        for (fact, bit) in [
            (last, bit::OUT_ENDED),
            (opening.last, bit::OUT_DONE),
            (opening.call, bit::CALL),
            (opening.depth > 0, bit::NESTED),
        ] {
            if fact {
                bits |= bit;
            }
        }
        if whole {
            self.opened += 1;
        }
        let ordinal = if whole { self.opened } else { u64::MAX };
        let id = self.ours.insert(|co| {
            co.bits = bits;
            co.ordinal = ordinal;
        });
        if let Some(at) = opening.deadline {
            self.set_deadline(id, at);
        }
        let mut flags = if opening.value { flag::VALUE } else { 0 };
        for (fact, flag) in [
            (last, flag::LAST),
            (remaining.is_some(), flag::DEADLINE),
            (opening.depth > 0, flag::NESTED),
            (opening.trace.is_some(), flag::TRACE),
            (!opening.handles.is_empty(), flag::HANDLES),
        ] {
            if fact {
                flags |= flag;
            }
        }
        let fields = |out: &mut Vec<u8>| {
            out.extend_from_slice(&opening.script.unwrap_or(u32::MAX).to_le_bytes());
            if let Some(remaining) = remaining {
                out.extend_from_slice(&millis(remaining).to_le_bytes());
            }
            if opening.depth > 0 {
                out.push(opening.depth);
            }
            if let Some(trace) = opening.trace {
                out.extend_from_slice(trace);
            }
            frame::write_handles(out, opening.handles);
        };
        if whole {
            self.credit -= cost;
            frame::write(&mut self.out, kind::OPEN, id.to_wire(), |out| {
                out.push(flags);
                fields(out);
                out.extend_from_slice(opening.arguments);
            });
            if streams > 0 {
                self.add_streams(id, streams);
            }
        } else {
            // the head goes at once and costs nothing: what follows in the conversation, a stream's
            // items or its end, needs it to be open
            frame::write(&mut self.out, kind::OPEN, id.to_wire(), |out| {
                out.push(flags | flag::MORE);
                fields(out);
            });
            self.add_streams(id, streams);
            let message = Chunk::Message {
                kind: kind::OPEN,
                flags,
                definition: Vec::new(),
                fields: Vec::new(),
                body: Bytes::copy_from_slice(opening.arguments),
                begun: true,
                objects: Vec::new(),
                first: true,
            };
            self.queue(id, 0, message);
        }
        Ok(id)
    }

    fn add_streams(&mut self, id: CoId, streams: usize) {
        let (peer, own) = (self.peer_window(), self.own.window);
        if let Some(co) = self.get_mut(id) {
            let channels = co.channels(peer, own);
            channels
                .sending
                .extend((0..streams).map(|_| Sending::new(peer)));
        }
    }

    /// Waits for a number to become free, or for the peer's preface: in a place of the line, which is
    /// returned.
    pub fn wait_for_room(
        &mut self,
        place: Option<u64>,
        deadline: Option<Instant>,
        cx: &Context<'_>,
    ) -> u64 {
        self.line.wait(place, deadline, cx)
    }

    /// Waits no more; what is returned is to be dropped without the lock.
    pub fn leave(&mut self, place: u64) -> Option<Waker> {
        self.line.leave(place)
    }

    /// Whether more of those who wait for room are to be asked, once those who were have had their turn.
    pub fn is_asking(&self) -> bool {
        self.line.is_asking()
    }

    /// Asks the next of those who wait for room, if nobody has taken it.
    pub fn ask_on(&mut self) {
        let room = self.can_open();
        self.line.ask_on(room, &mut self.wakers);
    }

    /// Whether a conversation can be opened now; where not, wait for room.
    pub fn can_open(&self) -> bool {
        match &self.peer {
            _ if self.closed.is_some() => true,
            Some(peer) => self.ours.len() < peer.conversations as usize,
            None => false,
        }
    }

    /// Whether an opening with so many bytes of arguments can be taken now: a peer that reads slowly
    /// or never is not to fill this side's memory. Where not, wait for room.
    pub fn takes_opening(&mut self, len: usize) -> bool {
        if len <= ALLOWANCE || self.closed.is_some() {
            return true;
        }
        let lists = self.ready.iter().chain(&self.bulk);
        let mut unsent = 0;
        for &(id, _) in lists.filter(|(id, channel)| *channel == 0 && !id.is_hosted()) {
            let channels = self.ours.get_mut(id).and_then(|co| co.channels.as_ref());
            if let Some(channels) = channels
                && is_first(&channels.sending[0].queue)
            {
                unsent += channels.sending[0].queued;
            }
        }
        unsent == 0 || unsent + len <= UNSENT
    }

    /// One large opening less waits to be sent: somebody's next has room.
    pub(super) fn opening_sent(&mut self) {
        self.line.ask(&mut self.wakers);
    }

    /// Answers a hosted conversation with its value; nothing follows on the main sequence. `false`
    /// where nobody gets it: the caller gave up, or it cannot be sent.
    #[must_use = "what is not sent holds no objects at the peer"]
    pub fn answer(&mut self, id: CoId, body: &[u8], handles: &[WireHandle]) -> bool {
        // another conversation may have its number in frames by now
        if self.theirs.get_mut(id).is_none() {
            return false;
        }
        if handles.is_empty() && self.takes_answer(id.wire(), body.len()) {
            frame::write(&mut self.out, kind::ITEM, id.to_wire(), |out| {
                out.extend_from_slice(&[flag::LAST, 0, 0]);
                out.extend_from_slice(body);
            });
            return true;
        }
        let Some(co) = self.theirs.get_mut(id) else {
            return false;
        };
        // it is below 4 GiB, as a message is
        co.answering = body.len() as u32;
        self.answering += u64::from(co.answering);
        let sent = self.send_item(id, 0, Bytes::copy_from_slice(body), handles);
        if let Err(SendRefused::Failed(failure) | SendRefused::Unfit(failure)) = &sent {
            self.fail(id, 0, failure);
        }
        self.end(id, 0);
        sent.is_ok()
    }

    /// Whether the hosted conversation of which this stands in frames takes its answer, a value of so many
    /// bytes without handles, as one frame now. Where it does the conversation is over, and the caller
    /// owes that frame ([`begin_answer`]) to [`Self::write_answers`]; where not, [`Self::answer`] does
    /// what there is to do.
    ///
    /// [`begin_answer`]: super::begin_answer
    #[inline]
    #[must_use = "where it is taken, its frame is to be written"]
    pub fn takes_answer(&mut self, wire: WireId, len: usize) -> bool {
        let Some((id, co)) = self.theirs.find(wire) else {
            return false;
        };
        let cost = first_cost(len);
        if co.is(bit::OUT_STARTED | bit::OUT_DONE)
            || len > SMALL
            || cost > self.credit
            || co.channels.is_some()
        {
            return false;
        }
        self.credit -= cost;
        co.bits |= bit::OUT_STARTED | bit::OUT_DONE | bit::OUT_ENDED;
        if co.is_done() {
            self.theirs.free(id, Conversation::clear);
        } else if co.ended_without_channels() {
            self.remove(id);
        } else {
            self.settle(id);
        }
        true
    }

    /// The hosted conversation of which this stands in frames, while it is open.
    pub fn hosted(&mut self, wire: WireId) -> Option<CoId> {
        self.theirs.find(wire).map(|(id, _)| id)
    }

    /// Writes a part of the frames of answers. All of many are not copied: the buffers change places.
    pub fn write_answers(&mut self, frames: &mut Vec<u8>, part: Range<usize>) {
        if self.out.is_empty() && part.len() == frames.len() && part.len() > FEW {
            std::mem::swap(&mut self.out, frames);
        } else {
            self.out.extend_from_slice(&frames[part]);
        }
    }
}

/// What the first message of a side costs of the connection's credit: short ones always pass.
pub(super) fn first_cost(len: usize) -> u32 {
    if len <= ALLOWANCE {
        0
    } else {
        len as u32 + MESSAGE_COST
    }
}

/// Whether the next to be sent is the first message of its side.
pub(super) fn is_first(queue: &VecDeque<Chunk>) -> bool {
    matches!(queue.front(), Some(Chunk::Message { first: true, .. }))
}

/// Whole milliseconds, rounded up, so that a short deadline is not none at all.
fn millis(remaining: Duration) -> u32 {
    remaining
        .as_nanos()
        .div_ceil(1_000_000)
        .min(u32::MAX as u128) as u32
}
