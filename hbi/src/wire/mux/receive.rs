//! Receiving: from bytes to frames, and from frames to events.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{
    ALLOWANCE, CoId, Connection, Input, Violation, WireId,
    channel::{Cost, Partial},
    connection::Patient,
    conversation::{Answer, Reply, bit},
    event::{Body, Call, Event, Open},
    frame::{self, ANSWER_HEAD, Fields, HEAD, MESSAGE_COST, flag, kind},
    preface,
};
use crate::{
    Kind,
    value::{LONGEST, Short},
};

/// What an OPEN frame says beside its arguments.
#[derive(Debug, Clone)]
pub(super) struct OpenFields {
    pub(super) deadline: Option<Instant>,
    pub(super) depth: u8,
    pub(super) trace: Option<[u8; 25]>,
}

/// A DATA frame of which a part is still to come.
#[derive(Debug)]
pub(super) struct DataLeft {
    id: CoId,
    channel: u16,
    left: usize,
    /// Nothing of it was passed on yet.
    fresh: bool,
    last: bool,
}

impl<P, U> Connection<P, U> {
    /// Reads calls that are nothing beside, the common case, from `input` at `at`, which moves on, up to
    /// where something else is next: [`Self::receive`] reads it.
    ///
    /// # Errors
    /// A violation of the protocol: nothing more can be read. `take` has had the calls before it.
    #[inline]
    pub fn take_calls<'b>(
        &mut self,
        input: Input<'b>,
        at: &mut usize,
        mut take: impl FnMut(Call<'b>),
    ) -> Result<(), Violation> {
        // after a goodbye they are refused
        if self.data_left.is_some() || self.peer.is_none() || self.leaving {
            return Ok(());
        }
        let (longest, scripts) = (self.own.frame as usize, self.own.scripts);
        loop {
            let rest = &input.bytes()[*at..];
            let Some((len, kind::OPEN, co)) = frame::read_head(rest) else {
                return Ok(());
            };
            let Some([frame::CALL, a, b, c, d, arguments @ ..]) = rest.get(HEAD..HEAD + len) else {
                return Ok(());
            };
            let (wire, script) = (WireId::arrived(co), u32::from_le_bytes([*a, *b, *c, *d]));
            if len > longest || script >= scripts || !wire.is_hosted() {
                return Ok(());
            }
            let id = self.theirs.open(wire, self.own.conversations, |co| {
                co.bits = bit::IN_STARTED | bit::IN_ENDED;
            })?;
            if arguments.len() > ALLOWANCE {
                self.charge_connection(id, arguments.len() as u32 + MESSAGE_COST)?;
            }
            self.seen += 1;
            *at += HEAD + len;
            take(Call {
                id,
                script,
                arguments,
            });
        }
    }

    /// Takes the short answer of a call that is over with it, the common case, which stands in
    /// `input` at `at`; returns how long its frame is. `None` where something else is next.
    #[inline]
    fn short_answer(&mut self, input: Input<'_>, at: usize) -> Option<usize> {
        const HEADED: usize = ANSWER_HEAD - HEAD;
        let rest = &input.bytes()[at..];
        let (len, co) = match frame::read_head(rest)? {
            (len, kind::ITEM, co) if len >= HEADED && rest.len() >= HEAD + len => (len, co),
            _ => return None,
        };
        let [flag::LAST, 0, 0, value @ ..] = &rest[HEAD..] else {
            return None;
        };
        let wire = WireId::arrived(co);
        if wire.is_hosted() || len > self.own.frame as usize {
            return None;
        }
        let (_, co) = self.ours.find(wire)?;
        const OPEN: u8 = bit::CALL | bit::OUT_ENDED;
        const PAST: u8 = bit::IN_STARTED | bit::IN_ENDED | bit::RELEASED;
        if co.bits & (OPEN | PAST) != OPEN || co.channels.is_some() {
            return None;
        }
        let short = len - HEADED;
        if short > LONGEST || !co.is_unanswered() {
            return None;
        }
        co.bits |= bit::IN_STARTED | bit::IN_ENDED;
        self.wakers.extend(co.answer.take_waker());
        match value.first_chunk() {
            // copied once, to where it stays, as there is nothing to be dropped: the copies of its parts
            // overlap, and who read what was just written would wait
            Some(value) => {
                let answer = Answer::There(Reply::Short(Short::none()));
                std::mem::forget(std::mem::replace(&mut co.answer, answer));
                if let Answer::There(Reply::Short(answer)) = &mut co.answer {
                    answer.set_front(value, short);
                }
            }
            None => co.answer = Answer::There(Reply::new(&value[..short], input)),
        }
        Some(HEAD + len)
    }

    /// Reads from `input` at `at`, which moves on; returns at the first thing the driver has to act
    /// upon, or `None` when more input is needed.
    ///
    /// # Errors
    /// A violation of the protocol: nothing more can be read.
    pub fn receive<'b>(
        &mut self,
        now: Instant,
        input: Input<'b>,
        at: &mut usize,
    ) -> Result<Option<Event<'b>>, Violation> {
        self.heard = now;
        self.pinged = false;
        if self.peer.is_none() {
            let Some(read) = preface::read_preface(&input.bytes()[*at..])? else {
                return Ok(None);
            };
            *at += read.length;
            let peer = read.settings;
            self.credit = peer.connection_window;
            self.peer = Some(peer);
            self.line.ask_all(&mut self.wakers);
            return Ok(Some(Event::Ready));
        }
        loop {
            if let Some(left) = self.data_left.take() {
                let n = left.left.min(input.bytes().len() - *at);
                // a frame without bytes is passed on, too: it ends a run of data
                if n > 0 || (left.fresh && left.left == 0) {
                    let data = input.part(&input.bytes()[*at..*at + n]);
                    *at += n;
                    let cost = n as u32 + if left.fresh { MESSAGE_COST } else { 0 };
                    self.data(left.id, left.channel, data, cost)?;
                }
                if n < left.left {
                    let fresh = left.fresh && n == 0;
                    self.data_left = Some(DataLeft {
                        left: left.left - n,
                        fresh,
                        ..left
                    });
                    return Ok(None);
                }
                if left.last {
                    self.channel_ended(left.id, left.channel)?;
                }
            }
            while let Some(len) = self.short_answer(input, *at) {
                *at += len;
            }
            let rest = &input.bytes()[*at..];
            let Some((len, kind, co)) = frame::read_head(rest) else {
                return Ok(None);
            };
            if len > self.own.frame as usize {
                return Err(Violation::new(format!(
                    "a frame of {len} bytes, at most {} are taken (`Settings::frame`)",
                    self.own.frame
                )));
            }
            if kind == kind::DATA {
                // bytes are passed on as they come, the frame need not be whole
                let Some(head) = rest.get(HEAD..HEAD + 3) else {
                    return Ok(None);
                };
                let mut fields = Fields { rest: head, kind };
                let flags = fields.flags(flag::LAST)?;
                let channel = fields.u16()?;
                let Some(left) = len.checked_sub(3) else {
                    return Err(Violation::new("a DATA frame without its channel"));
                };
                *at += HEAD + 3;
                let id = self.known(WireId::arrived(co))?;
                let last = flags & flag::LAST != 0;
                self.data_left = Some(DataLeft {
                    id,
                    channel,
                    left,
                    fresh: true,
                    last,
                });
                continue;
            }
            let Some(body) = rest.get(HEAD..HEAD + len) else {
                return Ok(None);
            };
            let from = *at + HEAD;
            *at = from + len;
            let fields = Fields { rest: body, kind };
            if let Some(event) = self.frame(now, kind, WireId::arrived(co), fields, input)? {
                return Ok(Some(event));
            }
        }
    }

    fn frame<'b>(
        &mut self,
        now: Instant,
        kind: u8,
        wire: WireId,
        mut fields: Fields<'b>,
        input: Input<'_>,
    ) -> Result<Option<Event<'b>>, Violation> {
        match kind {
            kind::ITEM => return self.item(wire, fields, input),
            kind::OPEN => return self.open_frame(now, wire, fields),
            kind::SCRIPT => return self.script_frame(wire, fields, input),
            kind::DEFINE => return self.define_frame(fields).map(Some),
            kind::END => {
                let channel = fields.u16()?;
                fields.end()?;
                let id = self.known(wire)?;
                self.channel_ended(id, channel)?;
            }
            kind::ERROR => {
                let channel = fields.u16()?;
                let id = self.known(wire)?;
                return self.error_frame(id, channel, fields.rest);
            }
            kind::CREDIT => {
                let (channel, amount) = (fields.u16()?, fields.u32()?);
                fields.end()?;
                let id = self.known(wire)?;
                self.credited(id, channel, amount)?;
            }
            kind::CONNECTION_CREDIT => {
                let amount = fields.u32()?;
                fields.end()?;
                self.credit = self
                    .credit
                    .checked_add(amount)
                    .ok_or_else(|| Violation::new("more connection credit than can be counted"))?;
            }
            kind::STOP => {
                let channel = fields.u16()?;
                fields.end()?;
                let id = self.known(wire)?;
                return Ok(self.stopped(id, channel));
            }
            kind::PING => {
                let token = fields.u64()?;
                fields.end()?;
                // one answer for all pings that came meanwhile, so that they cannot pile up
                self.pong = Some(token);
            }
            kind::PONG => {
                fields.u64()?;
                fields.end()?;
            }
            kind::GOODBYE => {
                let last = fields.u64()?;
                fields.end()?;
                self.peer_leaving = Some(last);
                // now somebody waits for all ends
                self.patient = Patient::default();
                self.line.ask_all(&mut self.wakers);
                return Ok(Some(Event::Goodbye));
            }
            kind::RELEASE => {
                let (object, count) = (fields.u32()?, fields.u32()?);
                fields.end()?;
                return Ok(Some(Event::Released { object, count }));
            }
            kind::CLOSE => {
                let kind = Kind::from(fields.u8()?);
                let reason = std::str::from_utf8(fields.rest)
                    .map_err(|_| Violation::new("a CLOSE whose reason is no UTF-8"))?;
                return Ok(Some(Event::Close { kind, reason }));
            }
            kind::OPTIONAL.. => {}
            _ => {
                return Err(Violation::new(format!(
                    "a frame of unknown kind {kind:#04x}"
                )));
            }
        }
        Ok(None)
    }

    /// The number of which this stands in a frame, if it is or was one of a conversation.
    pub(super) fn known(&self, wire: WireId) -> Result<CoId, Violation> {
        let known = if wire.is_hosted() {
            self.theirs.known(wire)
        } else {
            self.ours.known(wire)
        };
        known.ok_or_else(|| {
            Violation::new(format!(
                "a frame for conversation {} that was never opened",
                wire.index()
            ))
        })
    }

    fn define_frame<'b>(&mut self, mut fields: Fields<'b>) -> Result<Event<'b>, Violation> {
        let number = fields.u32()?;
        if number >= self.own.scripts {
            return Err(Violation::new(format!(
                "script number {number} defined where {} are kept (`Settings::scripts`)",
                self.own.scripts
            )));
        }
        let text = |bytes| {
            std::str::from_utf8(bytes).map_err(|_| Violation::new("a script that is no UTF-8"))
        };
        let count = fields.u16()?;
        // each is a byte at least
        let mut parameters = Vec::with_capacity(fields.rest.len().min(count as usize));
        for _ in 0..count {
            let len = fields.u8()?;
            parameters.push(text(fields.slice(len as usize)?)?);
        }
        Ok(Event::Define {
            number,
            parameters,
            source: text(fields.rest)?,
        })
    }

    fn script_number(&self, number: u32) -> Result<Option<u32>, Violation> {
        match number {
            u32::MAX => Ok(None),
            number if number < self.own.scripts => Ok(Some(number)),
            number => Err(Violation::new(format!(
                "script number {number} used where {} are kept (`Settings::scripts`)",
                self.own.scripts
            ))),
        }
    }

    fn open_frame<'b>(
        &mut self,
        now: Instant,
        wire: WireId,
        mut fields: Fields<'b>,
    ) -> Result<Option<Event<'b>>, Violation> {
        if !wire.is_hosted() {
            return Err(Violation::new("an opening under a number of this side"));
        }
        let flags = fields.flags(0x7f)?;
        let script = self.script_number(fields.u32()?)?;
        let deadline = match flags & flag::DEADLINE {
            0 => None,
            _ => now.checked_add(Duration::from_millis(fields.u32()? as u64)),
        };
        let depth = if flags & flag::NESTED != 0 {
            fields.u8()?
        } else {
            0
        };
        let trace = if flags & flag::TRACE != 0 {
            Some(fields.bytes()?)
        } else {
            None
        };
        let handles = if flags & flag::HANDLES != 0 {
            fields.handles()?
        } else {
            Vec::new()
        };
        let last = flags & flag::LAST != 0;
        let more = flags & flag::MORE != 0;
        if last && more {
            return Err(Violation::new(
                "an opening that is last and has more to come",
            ));
        }
        let mut bits = bit::IN_STARTED;
        if last {
            bits |= bit::IN_ENDED;
        }
        let id = self
            .theirs
            .open(wire, self.own.conversations, |co| co.bits = bits)?;
        if let Some(at) = deadline {
            self.set_deadline(id, at);
        }
        // a head alone costs nothing
        if fields.rest.len() > ALLOWANCE || (more && !fields.rest.is_empty()) {
            self.charge_connection(id, fields.rest.len() as u32 + MESSAGE_COST)?;
        }
        if more {
            self.ensure_channels(id);
        }
        self.add_received(id, &handles)?;
        let value = flags & flag::VALUE != 0;
        if more {
            let opening = Some(OpenFields {
                deadline,
                depth,
                trace,
            });
            let body = BytesMut::from(fields.rest);
            let partial = Partial {
                kind: kind::OPEN,
                script: script.unwrap_or(u32::MAX),
                flags,
                handles,
                body,
                cost: Cost::default(),
                first: true,
                opening,
            };
            if let Some(receiving) = self.receiving(id, 0) {
                receiving.partial = Some(Box::new(partial));
            }
            return Ok(script.map(|script| Event::Begun { id, script }));
        }
        self.seen += 1;
        Ok(Some(Event::Open(Open {
            id,
            script,
            value,
            last,
            deadline,
            depth,
            trace,
            arguments: Body::Input(fields.rest),
            handles,
            refused: self.refuses(depth),
        })))
    }

    fn script_frame<'b>(
        &mut self,
        wire: WireId,
        mut fields: Fields<'b>,
        input: Input<'_>,
    ) -> Result<Option<Event<'b>>, Violation> {
        let flags = fields.flags(flag::VALUE | flag::MORE | flag::HANDLES)?;
        let Some(script) = self.script_number(fields.u32()?)? else {
            return Err(Violation::new("a SCRIPT frame without a script"));
        };
        let id = self.known(wire)?;
        self.message(id, 0, kind::SCRIPT, script, flags, fields, input)
    }
}
