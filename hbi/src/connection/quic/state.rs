//! What the endpoints and the driver of a QUIC connection share: conversations, texts, objects.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    task::Waker,
    time::Instant,
};

use quinn::{RecvStream, SendStream};
use tracing::Span;

use super::{
    early::Early,
    ledger::Given,
    receive::{Assembly, ReceiveState, Receiving},
    send::{SendState, Sending},
};
use crate::{
    Failure, Kind,
    connection::{objects::Objects, running::Running},
    endpoint::{CoNumber, Object},
    script::Interner,
    wire::{
        Line,
        mux::{Settings, Violation},
        quic::{Control, Reader, STOP_CANCELLED, STOP_DONE, ScriptText},
    },
};

/// A conversation: its number at the side that opened it, and whether that is the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn ours(number: u64) -> Self {
        Self(number << 1)
    }

    pub(super) fn hosted(number: u64) -> Self {
        Self(number << 1 | 1)
    }

    pub(super) fn is_hosted(self) -> bool {
        self.0 & 1 != 0
    }

    pub(super) fn number(self) -> u64 {
        self.0 >> 1
    }

    pub(super) fn co(self) -> CoNumber {
        CoNumber(self.0)
    }
}

impl From<CoNumber> for Key {
    fn from(co: CoNumber) -> Self {
        Key(co.0)
    }
}

pub(super) struct Conversation {
    /// By number; 0 is the main sequence.
    pub(super) sending: Vec<Sending>,
    pub(super) receiving: Vec<Receiving>,
    /// The application let go of it.
    pub(super) released: bool,
    pub(super) running: Option<Running>,
    pub(super) span: Option<Span>,
    /// Bytes of its large opening that wait to be sent.
    pub(super) unsent: usize,
    /// Bytes of its answer, until that has left.
    pub(super) answering: usize,
}

impl Conversation {
    pub(super) fn new(sending: Sending, receiving: Receiving) -> Self {
        Self {
            sending: vec![sending],
            receiving: vec![receiving],
            released: false,
            running: None,
            span: None,
            unsent: 0,
            answering: 0,
        }
    }

    /// Whether nothing of it is on its way any more, as far as this side can see.
    fn is_over(&self) -> bool {
        self.sending.iter().all(Sending::is_over) && self.receiving.iter().all(Receiving::is_over)
    }
}

/// A script in an open conversation, to be made ready by the driver.
pub(super) struct Prepare {
    pub(super) key: Key,
    pub(super) script: ScriptText<'static>,
    pub(super) value: bool,
    pub(super) arguments: crate::value::Packed,
}

/// What is to be dropped once the state is not locked.
#[expect(
    dead_code,
    reason = "held to be dropped: what stands behind it is the application's"
)]
pub(super) enum Dropped {
    Object(Arc<dyn Object>),
    Given(Vec<Given>),
    Conversation(Box<Conversation>),
    Span(Span),
    Received(VecDeque<crate::endpoint::Received>),
    Prepare(Prepare),
    /// A landing of a connection that is gone.
    Running(Running),
}

impl Dropped {
    /// Drops it.
    pub(super) fn finish(self) {
        if let Dropped::Running(running) = self {
            running.cancel();
        }
    }
}

pub(super) struct State {
    pub(super) own: Settings,
    /// What the peer takes, once it has told; before that by what it told last time, where `early` is.
    pub(super) peer: Option<Settings>,
    /// The first flight, until the peer has told what it takes.
    pub(super) early: Option<Box<Early>>,
    /// Streams that are open and not used yet.
    pub(super) late: Option<(SendStream, RecvStream)>,
    pub(super) conversations: HashMap<Key, Conversation>,
    pub(super) posting: usize,
    pub(super) hosting: usize,
    /// The driver takes no more conversations until one is over.
    pub(super) full: bool,
    /// Conversations opened here, and how many of them have a place in the order of landings.
    pub(super) opened: u64,
    pub(super) landing: u64,
    /// All conversations of the peer up to this number are known, and those beyond.
    pub(super) known_to: u64,
    pub(super) known: BTreeSet<u64>,
    /// Conversations of this side that wait for their streams, in order.
    pub(super) opening: VecDeque<Key>,
    /// Streams that came before the message that names them.
    pub(super) early_streams: BTreeMap<(Key, u16), (RecvStream, Reader)>,
    pub(super) interner: Option<Interner>,
    /// By number: the peer knows the text.
    pub(super) acknowledged: Vec<bool>,
    pub(super) objects: Objects,
    pub(super) ledger: HashMap<(Key, u16), Vec<Given>>,
    /// Handles that stand there.
    pub(super) unseen: usize,
    /// Control messages to be written.
    pub(super) control: Vec<u8>,
    pub(super) prepare: Vec<Prepare>,
    pub(super) deadlines: BinaryHeap<Reverse<(Instant, Key)>>,
    /// When the driver looks at the time next.
    pub(super) timer_at: Option<Instant>,
    /// This side said goodbye, and which conversation is the last to land.
    pub(super) leaving: Option<u64>,
    pub(super) peer_leaving: Option<u64>,
    /// The peer has nothing left to do, and opened this many conversations.
    pub(super) peer_done: Option<u64>,
    pub(super) leave_by: Option<Instant>,
    pub(super) violation: Option<Violation>,
    /// The driver's waker, and whether it has something to do.
    pub(super) driver: Option<Waker>,
    pub(super) stir: bool,
    pub(super) started: bool,
    pub(super) closed: Option<Box<Failure>>,
    pub(super) ended_well: bool,
    pub(super) line: Line,
    pub(super) assembly: Assembly,
    /// Bytes of large openings that wait to be sent.
    pub(super) unsent: usize,
    /// Bytes of answers that the peer has yet to take.
    pub(super) answering: usize,
    pub(super) wakers: Vec<Waker>,
    pub(super) dropped: Vec<Dropped>,
}

impl State {
    pub(super) fn new(own: Settings, token: &[u8]) -> Self {
        let mut control = Vec::new();
        let preface = Control::Preface {
            settings: Box::new(own.clone()),
            token: token.into(),
        };
        preface.write(&mut control);
        Self {
            assembly: Assembly::new(&own),
            own,
            peer: None,
            early: None,
            late: None,
            conversations: HashMap::new(),
            posting: 0,
            hosting: 0,
            full: false,
            opened: 0,
            landing: 0,
            known_to: 0,
            known: BTreeSet::new(),
            opening: VecDeque::new(),
            early_streams: BTreeMap::new(),
            interner: None,
            acknowledged: Vec::new(),
            objects: Objects::default(),
            ledger: HashMap::new(),
            unseen: 0,
            control,
            prepare: Vec::new(),
            deadlines: BinaryHeap::new(),
            timer_at: None,
            leaving: None,
            peer_leaving: None,
            peer_done: None,
            leave_by: None,
            violation: None,
            driver: None,
            stir: false,
            started: false,
            closed: None,
            ended_well: false,
            line: Line::default(),
            unsent: 0,
            answering: 0,
            wakers: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Has the driver write a message on the control stream.
    pub(super) fn tell(&mut self, message: &Control<'_>) {
        if self.closed.is_none() {
            message.write(&mut self.control);
            self.stir = true;
            if self.control.len() as u64 > self.own.held {
                let text = format!(
                    "{} bytes wait that nobody takes off the control stream, at most {} \
                     (`Settings::held`)",
                    self.control.len(),
                    self.own.held
                );
                self.violation.get_or_insert(Violation(text));
            }
        }
    }

    /// The failure of whatever touches a conversation that is over.
    pub(super) fn gone(&self) -> Failure {
        match &self.closed {
            Some(reason) => (**reason).clone(),
            None => Failure::new(Kind::Cancelled, "the conversation is over"),
        }
    }

    /// Stops receiving on a channel: what comes is dropped, its sender is told.
    pub(super) fn stop_receiving(&mut self, key: Key, channel: u16, cancelled: bool) {
        let Some(co) = self.conversations.get_mut(&key) else {
            return;
        };
        let Some(receiving) = co.receiving.get_mut(channel as usize) else {
            return;
        };
        self.assembly.leave((key, channel), receiving);
        let ready = std::mem::take(&mut receiving.ready);
        let was_open = matches!(receiving.state, ReceiveState::Open);
        receiving.state = ReceiveState::Dropped;
        receiving.cancelled |= was_open && cancelled;
        if let Some(mut stream) = receiving.stream.take()
            && was_open
        {
            let code = if cancelled { STOP_CANCELLED } else { STOP_DONE };
            // it ended before its end was seen: as good
            let _ = stream.stop(code.into());
        }
        let seen = receiving.seen;
        let waker = receiving.waker.take();
        self.wakers.extend(waker);
        self.dropped.push(Dropped::Received(ready));
        if was_open {
            self.tell_seen(key, channel, seen);
        }
    }

    /// Stops receiving on a channel; whoever reads it finds a failure.
    pub(super) fn fail_receiving(&mut self, key: Key, channel: u16, failure: &Failure) {
        let receiving = |state: &Self| -> Option<bool> {
            let co = state.conversations.get(&key)?;
            Some(co.receiving.get(channel as usize)?.is_over())
        };
        if receiving(self) != Some(false) {
            return;
        }
        self.stop_receiving(key, channel, true);
        if let Some(co) = self.conversations.get_mut(&key) {
            let failure = Box::new(failure.clone());
            co.receiving[channel as usize].state = ReceiveState::Failed(failure);
        }
    }

    /// Ends this side of a conversation with a failure.
    pub(super) fn fail(&mut self, link: &Arc<super::QuicLink>, key: Key, failure: &Failure) {
        let Some(co) = self.conversations.get_mut(&key) else {
            return;
        };
        if co.sending.iter().all(|s| s.state != SendState::Open) {
            return;
        }
        let mut open = Vec::new();
        for (channel, sending) in co.sending.iter_mut().enumerate() {
            if sending.state == SendState::Open {
                open.push(channel as u16);
            }
            self.wakers.extend(sending.waker.take());
        }
        let streams = 1..co.receiving.len() as u16;
        open.retain(|&channel| self.fail_sending(key, channel, failure));
        if key.is_hosted() {
            for channel in streams {
                self.fail_receiving(key, channel, failure);
            }
        }
        for channel in open {
            self.kick(link, key, channel);
        }
        self.settle(key);
    }

    /// Frees a conversation when nothing is left of it.
    pub(super) fn settle(&mut self, key: Key) {
        let backed_up = self.is_backed_up();
        let Some(co) = self.conversations.get_mut(&key) else {
            return;
        };
        if co.answering > 0 && co.sending[0].is_over() {
            self.answering -= std::mem::take(&mut co.answering);
            // the driver lands what waited for it
            self.stir |= backed_up;
        }
        let sent = co.unsent > 0 && co.sending[0].is_empty();
        if sent {
            self.unsent -= std::mem::take(&mut co.unsent);
        }
        let over = co.is_over() || self.closed.is_some();
        let stays = !co.released || !over;
        if sent {
            self.ask();
        }
        if stays {
            if !self.started_goodbye() {
                return;
            }
            // the driver looks whether all is over
            self.stir = true;
            return;
        }
        if let Some(mut co) = self.conversations.remove(&key) {
            for (channel, receiving) in co.receiving.iter_mut().enumerate() {
                self.assembly.leave((key, channel as u16), receiving);
            }
            self.dropped.push(Dropped::Conversation(Box::new(co)));
        }
        while let Some((&at, _)) = self.early_streams.range((key, 0)..=(key, u16::MAX)).next() {
            // its message was not looked at; it is stopped as it is dropped
            self.early_streams.remove(&at);
            self.tell_seen(key, at.1, 0);
        }
        if key.is_hosted() {
            self.hosting -= 1;
            // the driver takes the next
            self.stir |= self.full;
        } else {
            self.posting -= 1;
            self.ask();
        }
        self.stir |= self.started_goodbye();
    }

    /// Whether the answers that the peer has yet to take are more than this side holds for it.
    pub(super) fn is_backed_up(&self) -> bool {
        self.answering as u64 > self.own.held
    }

    /// There is room for one more conversation: who waits for it is asked.
    fn ask(&mut self) {
        self.line.ask(&mut self.wakers);
        // the driver asks on
        self.stir |= self.line.is_asking();
    }

    fn started_goodbye(&self) -> bool {
        self.leaving.is_some() || self.peer_leaving.is_some()
    }

    /// Whether all conversations have come to their ends, as far as this side can see.
    pub(super) fn is_over(&self) -> bool {
        self.hosting == 0 && self.conversations.values().all(Conversation::is_over)
    }

    /// Says goodbye: conversations that begin later do not land.
    pub(super) fn goodbye(&mut self) {
        if self.leaving.is_none() {
            let (_, last) = self.arrived();
            self.leaving = Some(last);
            self.tell(&Control::Goodbye(last));
        }
    }

    /// Ends everything with a reason.
    pub(super) fn close(&mut self, reason: Failure) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(Box::new(reason));
        self.control.clear();
        let prepare = std::mem::take(&mut self.prepare);
        self.dropped
            .extend(prepare.into_iter().map(Dropped::Prepare));
        self.early_streams.clear();
        let ledger = std::mem::take(&mut self.ledger);
        self.unseen = 0;
        self.dropped
            .extend(ledger.into_values().map(Dropped::Given));
        for co in self.conversations.values_mut() {
            for sending in &mut co.sending {
                sending.stop();
                self.wakers.extend(sending.waker.take());
            }
            for receiving in &mut co.receiving {
                self.wakers.extend(receiving.waker.take());
            }
        }
        let hosted: Vec<_> = self
            .conversations
            .keys()
            .copied()
            .filter(|key| key.is_hosted())
            .collect();
        for key in hosted {
            if let Some(mut co) = self.conversations.remove(&key) {
                let running = co.running.take();
                self.dropped.extend(running.map(Dropped::Running));
                self.dropped.push(Dropped::Conversation(Box::new(co)));
            }
        }
        self.hosting = 0;
        let released: Vec<_> = self
            .conversations
            .iter()
            .filter(|(_, co)| co.released)
            .map(|(key, _)| *key)
            .collect();
        for key in released {
            self.settle(key);
        }
        let objects = self.objects.take_all();
        self.dropped
            .extend(objects.into_iter().map(Dropped::Object));
        self.line.ask_all(&mut self.wakers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_not_take_off_the_control_stream_is_bounded() {
        let settings = Settings {
            held: 10_000,
            ..Settings::default()
        };
        let mut state = State::new(settings, &[]);
        let mut told = 0;
        while state.violation.is_none() {
            state.tell(&Control::Release {
                object: 1,
                count: 1,
            });
            told += 1;
            assert!(told < 10_000, "{} bytes wait", state.control.len());
        }
        let Some(Violation(text)) = &state.violation else {
            unreachable!("it was there");
        };
        assert!(text.contains("control stream"), "{text}");
    }
}
