//! The state of one connection: its conversations, their answers and ends.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    Arrival, CoId, Settings, Violation,
    channel::{Cost, Partial, ReceiveState, SendState},
    conversation::{Answer, Conversation, Reply, bit},
    deadlines::Deadlines,
    frame::{self, kind},
    numbers::Numbers,
    open::is_first,
    pieces::Pieces,
    preface,
    receive::DataLeft,
    send::SMALL,
};
use crate::{Failure, Kind, value::Short, wire::Line};

/// Ends at the front of the output that nobody waits for: they go out with whatever is written next,
/// or when there are many, or when it is time. A notification is answered by nothing else, and a
/// write costs more than all the rest of it.
#[derive(Debug, Default)]
pub(super) struct Patient {
    pub(super) bytes: usize,
    count: u32,
    /// When the first of them has waited long enough.
    until: Option<Instant>,
}

/// How many ends wait at most, and how long.
const PATIENT_ENDS: u32 = 16;
const PATIENCE: Duration = Duration::from_millis(500);

/// So many wakers are copied, or kept room for while nothing happens; more are not.
const FEW_WAKERS: usize = 64;

/// The mux wire's state machine for one connection.
///
/// `P` is what the environment makes of a script's number, `U` what the driver keeps with a hosted
/// conversation (how to cancel it). Time is an argument. Wakers of the application's futures are
/// collected ([`Self::take_wakers`]) and woken by the driver once it has let go of the state.
pub struct Connection<P, U> {
    pub(super) own: Settings,
    pub(super) peer: Option<Settings>,
    pub(super) ours: Numbers<Conversation<P, U>>,
    pub(super) theirs: Numbers<Conversation<P, U>>,
    /// Frames to be written, in order.
    pub(super) out: Vec<u8>,
    pub(super) patient: Patient,
    /// Channels with small messages to send, then those with bulk.
    pub(super) ready: VecDeque<(CoId, u16)>,
    pub(super) bulk: VecDeque<(CoId, u16)>,
    pub(super) pieces: Pieces,
    /// Connection credit: what this side may send; what the peer may send; what it was not told yet.
    pub(super) credit: u32,
    pub(super) window: u32,
    pub(super) owed: u32,
    /// Bytes of the peer's that this side holds: what waits in channels, and openings not over yet.
    pub(super) held: u64,
    /// Bytes of answers that the peer has yet to take.
    pub(super) answering: u64,
    /// The answer to the peer's last ping.
    pub(super) pong: Option<u64>,
    pub(super) data_left: Option<DataLeft>,
    pub(super) deadlines: Deadlines,
    pub(super) opened: u64,
    pub(super) seen: u64,
    pub(super) leaving: bool,
    pub(super) peer_leaving: Option<u64>,
    pub(super) heard: Instant,
    pub(super) pinged: bool,
    pub(super) closed: Option<Box<Failure>>,
    pub(super) line: Line,
    pub(super) wakers: Vec<Waker>,
    /// Users' values of ended conversations, and scripts that nobody will land: to be dropped outside of
    /// the lock, as what stands behind them is the application's.
    pub(super) dropped: Vec<U>,
    pub(super) unlanded: Vec<P>,
    /// Objects in messages that were dropped before they left.
    pub(super) lost: Vec<u32>,
    /// Held by each payload that gives objects back and was not looked at yet.
    pub(super) unread: Arc<()>,
}

impl<P, U> fmt::Debug for Connection<P, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("posting", &self.ours.len())
            .field("hosting", &self.theirs.len())
            .field("unwritten", &self.out.len())
            .finish_non_exhaustive()
    }
}

impl<P, U> Connection<P, U> {
    /// A connection that begins; its preface is the first of its output.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self::with_token(settings, &[], now)
    }

    /// The same, with what this side wants to be known by.
    pub fn with_token(settings: Settings, token: &[u8], now: Instant) -> Self {
        let own = settings.clamped();
        let mut out = Vec::new();
        preface::write(&mut out, &own, token);
        Self {
            window: own.connection_window,
            own,
            peer: None,
            ours: Numbers::new(),
            theirs: Numbers::new(),
            out,
            patient: Patient::default(),
            ready: VecDeque::new(),
            bulk: VecDeque::new(),
            pieces: Pieces::default(),
            credit: 0,
            owed: 0,
            held: 0,
            answering: 0,
            pong: None,
            data_left: None,
            deadlines: Deadlines::default(),
            opened: 0,
            seen: 0,
            leaving: false,
            peer_leaving: None,
            heard: now,
            pinged: false,
            closed: None,
            line: Line::default(),
            wakers: Vec::new(),
            dropped: Vec::new(),
            unlanded: Vec::new(),
            lost: Vec::new(),
            unread: Arc::new(()),
        }
    }

    /// What the peer told of itself, once its preface is here.
    pub fn peer_settings(&self) -> Option<&Settings> {
        self.peer.as_ref()
    }

    /// This side's settings.
    pub fn settings(&self) -> &Settings {
        &self.own
    }

    /// Conversations open: those that this side opened, those of the peer.
    pub fn conversations(&self) -> (usize, usize) {
        (self.ours.len(), self.theirs.len())
    }

    /// Whether the answers that the peer has yet to take are more than this side holds for it.
    #[inline]
    pub fn is_backed_up(&self) -> bool {
        self.answering > self.own.held
    }

    /// Bytes of frames that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.out.len()
    }

    /// Fails where the peer asks and asks, and takes nothing. Nothing lands then, but errors of what it
    /// gives up, credit and releases are written all the same: as much may wait as this side holds for a
    /// peer, and beside it what the conversations that may be open leave there.
    ///
    /// # Errors
    /// A violation, when more waits to be written.
    #[cold]
    pub fn check_unwritten(&self) -> Result<(), Violation> {
        let open = u64::from(self.own.conversations) + self.ours.len() as u64;
        let most = self.own.held.saturating_add(open * SMALL as u64);
        if self.out.len() as u64 <= most {
            return Ok(());
        }
        Err(Violation::new(format!(
            "{} bytes wait that the peer does not take, at most {most} (`Settings::held`)",
            self.out.len()
        )))
    }

    /// When the peer was last heard.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether there is something to write.
    #[inline]
    pub fn has_output(&self) -> bool {
        self.out.len() > self.patient.bytes
            || self.pong.is_some()
            || !self.ready.is_empty()
            || (!self.bulk.is_empty() && self.credit > frame::MESSAGE_COST)
    }

    /// Takes the wakers of those whose wait is over. Many are not copied: the lists change places.
    #[inline]
    pub fn take_wakers(&mut self, into: &mut Vec<Waker>) {
        if self.wakers.len() > FEW_WAKERS && into.is_empty() {
            std::mem::swap(into, &mut self.wakers);
        } else if !self.wakers.is_empty() {
            into.append(&mut self.wakers);
        }
    }

    /// Takes what belonged to conversations that ended: users' values, and scripts that did not land.
    #[inline]
    pub fn take_dropped(&mut self) -> (Vec<U>, Vec<P>) {
        let (dropped, unlanded) = (&mut self.dropped, &mut self.unlanded);
        (std::mem::take(dropped), std::mem::take(unlanded))
    }

    /// Whether there are objects in messages that were dropped before they left.
    #[inline]
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Takes the objects in messages that were dropped before they left, one by one.
    #[inline]
    pub fn take_lost(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.lost)
    }

    /// Why the connection is over, once it is.
    pub fn closed(&self) -> Option<&Failure> {
        self.closed.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: CoId) -> Option<&mut Conversation<P, U>> {
        if id.is_hosted() {
            self.theirs.get_mut(id)
        } else {
            self.ours.get_mut(id)
        }
    }

    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            self.wakers.push(waker);
        }
    }

    /// Keeps the driver's data with a hosted conversation; gives it back when that has ended.
    pub fn keep(&mut self, id: CoId, user: U) -> Result<(), U> {
        match self.get_mut(id) {
            Some(co) if !co.is(bit::OUT_ENDED | bit::RELEASED) => {
                co.user = Some(Box::new(user));
                Ok(())
            }
            _ => Err(user),
        }
    }

    /// Takes the driver's data from a conversation.
    pub fn unkeep(&mut self, id: CoId) -> Option<U> {
        self.get_mut(id)?.user.take().map(|user| *user)
    }

    /// Whether there is something to be woken or dropped outside of the lock.
    pub fn has_leftovers(&self) -> bool {
        !self.wakers.is_empty()
            || !self.dropped.is_empty()
            || !self.unlanded.is_empty()
            || !self.lost.is_empty()
    }

    /// Copies the short answer of a call that is over with it and leaves nothing to be done, the common
    /// case; the call is over then. `false` where something is in the way, or it is not there:
    /// [`Self::poll_reply`] tells.
    #[inline]
    pub fn take_short(&mut self, id: CoId, into: &mut Short) -> bool {
        let Some(co) = self.ours.get_mut(id) else {
            return false;
        };
        match &co.answer {
            Answer::There(Reply::Short(short)) if co.is_done() && self.line.is_empty() => {
                *into = *short;
            }
            _ => return false,
        }
        self.ours.free(id, Conversation::clear);
        true
    }

    /// The answer of a call, once it is there; the call is over then.
    pub fn poll_reply(&mut self, id: CoId, cx: &mut Context<'_>) -> Poll<Reply> {
        let Some(co) = self.ours.get_mut(id) else {
            return Poll::Ready(Reply::Failed(self.gone()));
        };
        let reply = match std::mem::replace(&mut co.answer, Answer::Taken) {
            Answer::There(reply) => reply,
            Answer::Watched(waker) if waker.will_wake(cx.waker()) => {
                co.answer = Answer::Watched(waker);
                return Poll::Pending;
            }
            Answer::Unwatched | Answer::Watched(_) => {
                co.answer = Answer::Watched(cx.waker().clone());
                return Poll::Pending;
            }
            Answer::Taken => {
                let failure =
                    Failure::new(Kind::Misuse, "the answer of this call was taken before");
                return Poll::Ready(Reply::Failed(Box::new(failure)));
            }
        };
        co.bits |= bit::RELEASED;
        if co.ended_without_channels() {
            self.remove(id);
        } else {
            self.settle(id);
        }
        Poll::Ready(reply)
    }

    /// What arrives next on a channel; `None` at its end.
    pub fn poll_receive(
        &mut self,
        id: CoId,
        channel: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Arrival<P>>, Box<Failure>>> {
        let (peer, window) = (self.peer_window(), self.own.window);
        let co = if id.is_hosted() {
            self.theirs.get_mut(id)
        } else {
            self.ours.get_mut(id)
        };
        let Some(co) = co else {
            return Poll::Ready(Err(gone(&self.closed)));
        };
        let in_ended = co.is(bit::IN_ENDED);
        let channels = co.channels(peer, window);
        let Some(receiving) = channels.receiving.get_mut(channel as usize) else {
            return Poll::Ready(Err(gone(&self.closed)));
        };
        if let Some((arrival, cost, credit)) = receiving.take(window) {
            if let Some(amount) = credit {
                self.write_credit(id, channel, amount);
            }
            self.let_go(id, cost);
            self.settle(id);
            return Poll::Ready(Ok(Some(arrival)));
        }
        match &receiving.state {
            ReceiveState::Open if channel == 0 && in_ended => Poll::Ready(Ok(None)),
            ReceiveState::Open => {
                match &receiving.waker {
                    Some(waker) if waker.will_wake(cx.waker()) => {}
                    _ => receiving.waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            ReceiveState::Dropped => Poll::Ready(Ok(None)),
            ReceiveState::Ended | ReceiveState::Failed(_) => {
                let seen = std::mem::replace(&mut receiving.state, ReceiveState::Dropped);
                self.settle(id);
                Poll::Ready(match seen {
                    ReceiveState::Failed(failure) => Err(failure),
                    _ => Ok(None),
                })
            }
        }
    }

    /// Lets go of a stream that arrived: what comes of it is dropped, and its sender is told.
    pub fn stop(&mut self, id: CoId, channel: u16) {
        let Some(co) = self.get_mut(id) else { return };
        let in_ended = co.is(bit::IN_ENDED);
        let Some(channels) = &mut co.channels else {
            return;
        };
        let Some(receiving) = channels.receiving.get_mut(channel as usize) else {
            return;
        };
        let was_open = matches!(receiving.state, ReceiveState::Open);
        receiving.state = ReceiveState::Dropped;
        // of what was begun the rest may be under way: it is taken for that, not for another message
        let dropped = receiving.partial.as_mut().map(|partial| {
            partial.body = BytesMut::new();
            let cost = std::mem::take(&mut partial.cost);
            (std::mem::take(&mut partial.handles), cost)
        });
        let rest = std::mem::take(&mut receiving.queue);
        if was_open && !in_ended {
            frame::text_frame(&mut self.out, kind::STOP, id, channel, &[]);
        }
        if let Some((handles, cost)) = dropped {
            self.give_back(id, channel, cost);
            self.drop_late(id, &handles);
        }
        self.drop_arrivals(id, channel, rest);
        self.settle(id);
    }

    /// Lets go of a conversation: what the peer still sends in it is dropped, and it is told to stop.
    pub fn release(&mut self, id: CoId) {
        let Some(co) = self.get_mut(id) else { return };
        if co.is(bit::RELEASED) {
            return;
        }
        co.bits |= bit::RELEASED;
        let answer = std::mem::replace(&mut co.answer, Answer::Taken);
        let in_ended = co.is(bit::IN_ENDED);
        let opening = co.channels.as_ref().map(|co| &co.sending[0].queue);
        let unsent = !id.is_hosted() && opening.is_some_and(is_first);
        let rest = co.channels.as_mut().map(|channels| {
            channels.receiving[0].state = ReceiveState::Dropped;
            std::mem::take(&mut channels.receiving[0].queue)
        });
        if !in_ended && !unsent {
            frame::text_frame(&mut self.out, kind::STOP, id, 0, &[]);
        }
        if let Answer::There(Reply::Value(payload)) = answer {
            self.drop_late(id, &payload.handles);
        }
        if let Some(rest) = rest {
            self.drop_arrivals(id, 0, rest);
        }
        if unsent {
            // the rest of its opening is of no use to anybody
            let text = "the caller dropped the call before all of it was sent";
            return self.fail(id, 0, &Failure::new(Kind::Cancelled, text));
        }
        self.settle(id);
    }

    /// Lets go of a conversation without disturbing it: the peer carries on to its end.
    pub fn detach(&mut self, id: CoId) {
        let Some(co) = self.get_mut(id) else { return };
        co.bits |= bit::RELEASED;
        let rest = co.channels.as_mut().map(|channels| {
            channels.receiving[0].state = ReceiveState::Dropped;
            std::mem::take(&mut channels.receiving[0].queue)
        });
        if let Some(rest) = rest {
            self.drop_arrivals(id, 0, rest);
        }
        self.settle(id);
    }

    pub(super) fn drop_arrivals(
        &mut self,
        id: CoId,
        channel: u16,
        arrivals: VecDeque<(Arrival<P>, Cost)>,
    ) {
        for (arrival, cost) in arrivals {
            self.give_back(id, channel, cost);
            self.drop_arrival(id, arrival);
        }
    }

    /// Gives up what arrived and nobody will see.
    pub(super) fn drop_arrival(&mut self, id: CoId, arrival: Arrival<P>) {
        match arrival {
            Arrival::Item(payload) => self.drop_late(id, &payload.handles),
            Arrival::Script {
                prepared,
                arguments,
                ..
            } => {
                self.unlanded.push(prepared);
                self.drop_late(id, &arguments.handles);
            }
            Arrival::Data(_) => {}
        }
    }

    /// Gives up a message whose rest does not come, or is of no use.
    pub(super) fn drop_partial(&mut self, id: CoId, partial: Option<Box<Partial>>) {
        let Some(partial) = partial else { return };
        self.let_go(id, partial.cost.held);
        self.drop_late(id, &partial.handles);
    }

    /// Tells the owner of objects that this side holds them no more.
    pub fn write_release(&mut self, object: u32, count: u32) {
        frame::write(&mut self.out, kind::RELEASE, 0, |out| {
            out.extend_from_slice(&object.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        });
    }

    pub(super) fn write_credit(&mut self, id: CoId, channel: u16, amount: u32) {
        frame::text_frame(
            &mut self.out,
            kind::CREDIT,
            id,
            channel,
            &amount.to_le_bytes(),
        );
    }

    /// Ends what can be ended of a conversation, and frees its number when nothing is left.
    #[inline]
    pub(super) fn settle(&mut self, id: CoId) {
        let Some(co) = self.get_mut(id) else { return };
        const OVER: u8 = bit::OUT_ENDED | bit::IN_ENDED;
        let mut bits = co.bits;
        if bits & bit::OUT_DONE == 0 && bits & OVER != OVER {
            return;
        }
        let quiet = co.has_no_streams_open();
        let answered = co.take_answered();
        if bits & (bit::OUT_ENDED | bit::OUT_DONE) == bit::OUT_DONE
            && quiet
            && co
                .channels
                .as_ref()
                .is_none_or(|c| c.sending[0].queue.is_empty())
        {
            bits |= bit::OUT_ENDED;
            co.bits = bits;
            frame::text_frame(&mut self.out, kind::END, id, 0, &[]);
        }
        self.answering -= u64::from(answered);
        if bits & OVER != OVER || !(quiet || id.is_hosted()) {
            return;
        }
        // a hosted index is the peer's to use again, whatever the application still holds or, where the
        // method failed, reads: by its number it finds nothing any more
        if bits & bit::RELEASED != 0 || id.is_hosted() {
            self.remove(id);
        }
    }

    /// Frees the number of a conversation with which nobody has anything to do any more.
    #[inline]
    pub(super) fn remove(&mut self, id: CoId) {
        let numbers = if id.is_hosted() {
            &mut self.theirs
        } else {
            &mut self.ours
        };
        match numbers.get_mut(id) {
            Some(co) if co.is_bare() => {
                let held = co.held;
                numbers.free(id, Conversation::clear);
                if held > 0 {
                    self.held -= u64::from(held);
                    self.return_credit();
                }
                if !id.is_hosted() {
                    self.line.ask(&mut self.wakers);
                }
            }
            Some(_) => self.remove_whole(id),
            None => {}
        }
    }

    /// As [`Self::remove`], of one with which something is left to do.
    fn remove_whole(&mut self, id: CoId) {
        let co = if id.is_hosted() {
            self.theirs.remove(id)
        } else {
            self.ours.remove(id)
        };
        let Some(co) = co else { return };
        self.answering -= u64::from(co.answering);
        if co.held > 0 {
            self.held -= u64::from(co.held);
            self.return_credit();
        }
        if let Some(user) = co.user {
            self.dropped.push(*user);
        }
        if let Answer::Watched(waker) = co.answer {
            self.wakers.push(waker);
        }
        if let Some(channels) = co.channels {
            for receiving in channels.receiving {
                self.wakers.extend(receiving.waker);
                // what nobody read: streams in it are not left to anybody, objects go back
                self.drop_partial(id, receiving.partial);
                self.drop_arrivals(id, 0, receiving.queue);
                self.unlanded.extend(receiving.begun);
            }
            self.wakers
                .extend(channels.sending.into_iter().filter_map(|s| s.waker));
        }
        if !id.is_hosted() {
            // one number became free, so one of those who wait can have it
            self.line.ask(&mut self.wakers);
        }
    }

    /// Counts bytes that arrived for a conversation against the connection's window, and as held.
    pub(super) fn charge_connection(&mut self, id: CoId, cost: u32) -> Result<(), Violation> {
        let Some(left) = self.window.checked_sub(cost) else {
            return Err(Violation::new(format!(
                "more than the connection's window of {} bytes was sent",
                self.own.connection_window
            )));
        };
        self.window = left;
        self.owed += cost;
        if let Some(co) = self.get_mut(id) {
            // what one conversation holds is below 4 GiB: its channels' windows bound it
            co.held = co.held.saturating_add(cost);
            self.held += u64::from(cost);
        }
        self.return_credit();
        Ok(())
    }

    /// Counts bytes as held no more: the application has them, or nobody wants them.
    pub(super) fn let_go(&mut self, id: CoId, cost: u32) {
        if let Some(co) = self.get_mut(id) {
            let cost = cost.min(co.held);
            co.held -= cost;
            self.held -= u64::from(cost);
            self.return_credit();
        }
    }

    /// Gives the connection's credit back as soon as bytes have reached their channel; once too much
    /// is held, only as the application takes it. What may be there in pieces is never too much: only
    /// more credit makes it whole.
    fn return_credit(&mut self) {
        let message = u64::from(self.own.message) + u64::from(frame::MESSAGE_COST);
        let pieces = message.max(self.own.connection_window.into()) + message;
        let most = self.own.held.max(pieces);
        if self.owed >= self.own.connection_window / 4 && self.held <= most {
            let amount = std::mem::take(&mut self.owed);
            self.window += amount;
            frame::write(&mut self.out, kind::CONNECTION_CREDIT, 0, |out| {
                out.extend_from_slice(&amount.to_le_bytes());
            });
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[inline]
    pub fn timeout(&self) -> Option<Instant> {
        let wait = if self.pinged {
            self.own.idle_timeout
        } else {
            self.own.keep_alive
        };
        let silence = self.heard.checked_add(wait);
        let deadline = sooner(self.deadlines.next(), self.line.deadline());
        sooner(silence, sooner(deadline, self.patient.until))
    }

    /// Ends a hosted conversation whose poster waits for nothing.
    pub fn end_unwatched(&mut self, id: CoId) {
        let before = self.out.len();
        self.end(id, 0);
        let few = PATIENT_ENDS.min(self.own.conversations / 8);
        let leaving = self.leaving || self.peer_leaving.is_some();
        if before == self.patient.bytes && self.patient.count < few && !leaving {
            self.patient.bytes = self.out.len();
            self.patient.count += 1;
            let until = self.patient.until;
            self.patient.until = until.or(self.heard.checked_add(PATIENCE));
        }
    }

    /// Does what is due: pings a silent peer, finds it dead, ends what ran out of time. Hosted
    /// conversations that ran out of time are returned: the driver ends them.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<Vec<CoId>, Failure> {
        let silent = now.saturating_duration_since(self.heard);
        if silent >= self.own.idle_timeout {
            return Err(Failure::new(
                Kind::Disconnected,
                format!(
                    "nothing came from the peer for {:?} (`Settings::idle_timeout`), not even an \
                     answer to a ping",
                    self.own.idle_timeout
                ),
            ));
        }
        if silent >= self.own.keep_alive && !self.pinged {
            self.pinged = true;
            // a stranger is given the time without being asked
            if self.peer.is_some() {
                frame::write(&mut self.out, kind::PING, 0, |out| {
                    out.extend_from_slice(&[0; 8])
                });
            }
        }
        if self.patient.until.is_some_and(|until| until <= now) {
            self.patient = Patient::default();
        }
        self.line.expire(now, &mut self.wakers);
        let mut hosted = Vec::new();
        while let Some(id) = self.deadlines.pop(now) {
            let Some(co) = self.get_mut(id) else {
                continue;
            };
            if id.is_hosted() {
                if !co.is(bit::OUT_ENDED) {
                    hosted.push(id);
                }
                continue;
            }
            let timeout = || {
                Box::new(Failure::new(
                    Kind::Timeout,
                    "the deadline passed before the answer was there",
                ))
            };
            self.give_up(id, timeout);
        }
        Ok(hosted)
    }

    /// Ends a conversation of this side with a failure of this side's making.
    pub(super) fn give_up(&mut self, id: CoId, failure: impl Fn() -> Box<Failure>) {
        let Some(co) = self.ours.get_mut(id) else {
            return;
        };
        if co.is(bit::RELEASED | bit::IN_ENDED) {
            return;
        }
        let (out_ended, call) = (co.is(bit::OUT_ENDED), co.is(bit::CALL));
        let mut woken = Vec::new();
        if call {
            woken.extend(co.answered(Reply::Failed(failure())));
        }
        if let Some(channels) = &mut co.channels {
            for receiving in &mut channels.receiving {
                if matches!(receiving.state, ReceiveState::Open) {
                    receiving.state = ReceiveState::Failed(failure());
                    woken.extend(receiving.waker.take());
                }
            }
            for sending in &mut channels.sending {
                sending.state = SendState::Stopped;
                self.lost.extend(sending.clear());
                woken.extend(sending.waker.take());
            }
        }
        co.bits |= bit::OUT_ENDED | bit::OUT_DONE;
        self.pieces_end(id, None);
        if !out_ended {
            self.write_error(id, 0, &failure());
        }
        frame::text_frame(&mut self.out, kind::STOP, id, 0, &[]);
        self.wakers.append(&mut woken);
        self.settle(id);
    }

    /// Whether an opening that is so deep and became complete now came too late to land.
    pub(super) fn refuses(&self, depth: u8) -> bool {
        self.leaving && depth == 0
    }

    pub(super) fn write_error(&mut self, id: CoId, channel: u16, failure: &Failure) {
        let bytes = pack_failure(failure);
        frame::text_frame(&mut self.out, kind::ERROR, id, channel, &bytes);
    }

    /// Says goodbye: openings from now on are refused, but for those nested in running ones.
    pub fn goodbye(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            let seen = self.seen;
            frame::write(&mut self.out, kind::GOODBYE, 0, |out| {
                out.extend_from_slice(&seen.to_le_bytes());
            });
        }
    }

    /// Whether this side said goodbye, and whether the peer did.
    pub fn goodbyes(&self) -> (bool, bool) {
        (self.leaving, self.peer_leaving.is_some())
    }

    /// Whether all conversations have come to their ends on both sides, though an application may
    /// still have something to read.
    pub fn is_over(&self) -> bool {
        const OVER: u8 = bit::OUT_ENDED | bit::IN_ENDED;
        self.theirs.len() == 0 && self.ours.iter().all(|co| co.bits & OVER == OVER)
    }

    /// Tells the peer why the connection ends.
    pub fn write_close(&mut self, kind: Kind, reason: &str) {
        // where it refuses, it is read together with the preface
        let end = (0..=reason.len().min(900))
            .rev()
            .find(|&n| reason.is_char_boundary(n));
        let reason = &reason[..end.unwrap_or(0)];
        frame::write(&mut self.out, kind::CLOSE, 0, |out| {
            out.push(kind.into());
            out.extend_from_slice(reason.as_bytes());
        });
    }

    /// Frees what many wakers took.
    pub fn shrink(&mut self) {
        if self.wakers.is_empty() && self.wakers.capacity() > FEW_WAKERS {
            self.wakers = Vec::new();
        }
    }

    /// Ends everything: what waits gets the reason, users' values are left to be dropped.
    pub fn close(&mut self, reason: Failure) {
        if self.closed.is_some() {
            return;
        }
        let last = self.peer_leaving;
        self.closed = Some(Box::new(reason));
        let (peer, own) = (self.peer_window(), self.own.window);
        for co in self.ours.iter_mut() {
            let failure = match last {
                // those that are nested land after a goodbye, too
                Some(last) if co.ordinal > last && !co.is(bit::NESTED) => not_landed(),
                _ => self.closed.clone().unwrap_or_else(not_landed),
            };
            // what waits only later has to learn of it as well
            co.channels(peer, own);
            end_conversation(co, failure, &mut self.wakers);
        }
        for co in self.theirs.iter_mut() {
            let failure = self.closed.clone().unwrap_or_else(not_landed);
            end_conversation(co, failure, &mut self.wakers);
        }
        let hosted = self.theirs.drain();
        self.dropped
            .extend(hosted.filter_map(|co| co.user).map(|user| *user));
        self.ready.clear();
        self.bulk.clear();
        self.pieces = Pieces::default();
        self.line.ask_all(&mut self.wakers);
    }

    /// The failure of whatever touches a conversation that is over.
    pub(super) fn gone(&self) -> Box<Failure> {
        gone(&self.closed)
    }

    /// Gives a conversation that was just opened its deadline.
    pub(super) fn set_deadline(&mut self, id: CoId, at: Instant) {
        self.deadlines.push(at, id);
        // those of conversations that ended long before them are dropped once they are the most
        if self.deadlines.len() > 64 + 4 * (self.ours.len() + self.theirs.len()) {
            let (ours, theirs) = (&mut self.ours, &mut self.theirs);
            self.deadlines.retain(|id| {
                let co = if id.is_hosted() {
                    theirs.get_mut(id)
                } else {
                    ours.get_mut(id)
                };
                co.is_some()
            });
        }
    }

    /// The window of a channel towards the peer.
    pub(super) fn peer_window(&self) -> u32 {
        self.peer.as_ref().map_or(0, |peer| peer.window)
    }
}

fn end_conversation<P, U>(
    co: &mut Conversation<P, U>,
    failure: Box<Failure>,
    wakers: &mut Vec<Waker>,
) {
    if let Some(channels) = &mut co.channels {
        for receiving in &mut channels.receiving {
            wakers.extend(receiving.waker.take());
            if matches!(receiving.state, ReceiveState::Open) {
                receiving.state = ReceiveState::Failed(failure.clone());
            }
        }
        for sending in &mut channels.sending {
            wakers.extend(sending.waker.take());
            sending.state = SendState::Stopped;
            // with the connection all objects are let go
            drop(sending.clear());
        }
    }
    wakers.extend(co.answered(Reply::Failed(failure)));
    co.bits |= bit::IN_ENDED | bit::OUT_ENDED | bit::OUT_DONE;
}

/// The sooner of two times, of which either may be none.
#[inline]
pub(crate) fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}

fn gone(closed: &Option<Box<Failure>>) -> Box<Failure> {
    closed.clone().unwrap_or_else(over)
}

pub(super) fn over() -> Box<Failure> {
    Box::new(Failure::new(Kind::Cancelled, "the conversation is over"))
}

/// The failure of what came after a goodbye.
pub(crate) fn not_landed() -> Box<Failure> {
    Box::new(Failure::new(
        Kind::NotLanded,
        "the peer said goodbye before this could land; it was not acted upon",
    ))
}

/// A failure's MessagePack. One that fits no frame loses its payload and the end of its message.
pub(in crate::wire) fn pack_failure(failure: &Failure) -> Bytes {
    const ROOM: usize = 12 << 10;
    match crate::value::Packed::pack(failure) {
        Ok(packed) if packed.bytes().len() <= ROOM => packed.into_parts().0,
        _ => {
            let mut short = Failure::new(failure.kind, "");
            short.message = failure.message.chars().take(1024).collect();
            short
                .message
                .push_str(" [the error was too large to travel whole]");
            short.origin = failure.origin.chars().take(256).collect();
            crate::value::Packed::pack(&short)
                .unwrap_or_default()
                .into_parts()
                .0
        }
    }
}

/// The failure in an ERROR frame. This connection stands, so what the failure says of one that is gone is
/// of another: a method passed on what it met behind it, which is an error of its own to its caller.
pub(in crate::wire) fn unpack_failure(packed: crate::value::Packed) -> Result<Failure, Violation> {
    let unpacked = packed.unpack();
    let mut failure: Failure = unpacked
        .map_err(|e| Violation::new(format!("an ERROR frame that holds no failure: {e}")))?;
    // what did not land has no name of where it failed
    let behind = failure.kind == Kind::NotLanded && !failure.origin.is_empty();
    if behind || failure.kind == Kind::Disconnected {
        failure.kind = Kind::App;
    }
    Ok(failure)
}
