//! What the endpoints of a text connection and its driver share.

use std::{
    any::Any,
    collections::{BTreeSet, HashMap},
    task::Waker,
    time::Instant,
};

use super::conversation::{Conversation, Role};
use crate::{
    Failure,
    connection::running::Running,
    wire::{
        Line,
        text::{Numbers, Outbox, Span, Violation},
    },
};

/// What a conversation buffers before it asks for the sender's role.
pub(super) const BUFFERED: usize = 64 << 10;

/// What may wait for the transport before senders wait.
pub(super) const READY: usize = 256 << 10;

/// Conversations of the peer wait while this much waits to be written; of what this side posts no more
/// waits, so that of twice as much the half are answers.
pub(super) const BACKLOG: usize = 4 << 20;

/// The state of a text connection.
pub(super) struct State {
    pub(super) conversations: HashMap<u64, Conversation>,
    next: u64,
    /// How many there are of this side, and of the peer.
    pub(super) posted: usize,
    pub(super) hosted: usize,
    /// How many of each there may be.
    pub(super) limit: usize,
    pub(super) numbers: Numbers<u64>,
    pub(super) outbox: Outbox<u64>,
    pub(super) deadlines: BTreeSet<(Instant, u64)>,
    /// Who waits to open a conversation.
    pub(super) line: Line,
    /// The driver runs.
    pub(super) started: bool,
    /// This side wants to be gone, at this time whatever is under way.
    pub(super) leave_by: Option<Instant>,
    /// What ends the connection at once.
    pub(super) fatal: Option<Failure>,
    pub(super) closed: Option<Failure>,
    pub(super) ended_well: bool,
    /// To be woken, and to be dropped, outside of the lock.
    pub(super) wakers: Vec<Waker>,
    pub(super) dropped: Vec<Box<dyn Any + Send>>,
}

impl State {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            conversations: HashMap::new(),
            next: 0,
            posted: 0,
            hosted: 0,
            limit,
            numbers: Numbers::default(),
            outbox: Outbox::default(),
            deadlines: BTreeSet::new(),
            line: Line::default(),
            started: false,
            leave_by: None,
            fatal: None,
            closed: None,
            ended_well: false,
            wakers: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Adds a conversation.
    pub(super) fn add(&mut self, conversation: Conversation) -> u64 {
        let id = self.next;
        self.next += 1;
        match conversation.hosted {
            Some(_) => self.hosted += 1,
            None => self.posted += 1,
        }
        if let Some(deadline) = conversation.deadline {
            self.deadlines.insert((deadline, id));
        }
        self.conversations.insert(id, conversation);
        id
    }

    /// Forgets a conversation.
    pub(super) fn remove(&mut self, id: u64) {
        let Some(mut gone) = self.conversations.remove(&id) else {
            return;
        };
        match gone.hosted {
            Some(_) => self.hosted -= 1,
            None => self.posted -= 1,
        }
        if let Some(deadline) = gone.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        gone.wake(&mut self.wakers);
        self.line.ask_all(&mut self.wakers);
        // its back-scripts may hold calls, which let go of their own conversations
        self.dropped.push(Box::new(gone));
    }

    /// Whether nothing is left to do: all answers are there and taken, all that goes out is ready for
    /// the transport.
    pub(super) fn is_idle(&self) -> bool {
        let mut posted = self.conversations.values();
        self.hosted == 0
            && self.numbers.is_empty()
            && self.outbox.is_ready()
            && posted.all(|conversation| conversation.over && conversation.is_taken())
    }

    /// Whether the peer may begin one more conversation.
    pub(super) fn takes_more(&self) -> bool {
        // an answer that this side waits for may stand behind it
        let times = if self.numbers.is_empty() { 1 } else { 2 };
        self.outbox.len() < times * BACKLOG && self.hosted < times * self.limit
    }

    /// The answer to a conversation of this side begins; returns which.
    pub(super) fn answered(&mut self, number: &str) -> Result<u64, Violation> {
        let id = self.numbers.answered(number)?;
        match self.conversations.get(&id).map(|it| &it.role) {
            // whoever sends it would not learn that nobody reads on
            Some(Role::Holding(_)) => Err(Violation(format!(
                "an answer to conversation {number} before its end"
            ))),
            _ => Ok(id),
        }
    }

    /// Ends the connection with a failure, which the peer is told.
    pub(super) fn fail(&mut self, failure: Failure) {
        if self.fatal.is_none() && self.closed.is_none() {
            self.fatal = Some(failure);
        }
    }

    /// Gives up a conversation of this side of which nothing was sent. Who waits for its answer still
    /// learns why.
    pub(super) fn withdraw(&mut self, id: u64, failure: Failure) {
        self.outbox.withdraw(id);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.role = Role::Withdrawn;
            conversation.body = Vec::new();
            conversation.data_left = 0;
            conversation.ended = true;
            conversation.over = true;
            conversation.failure.get_or_insert(failure);
            conversation.wake(&mut self.wakers);
        }
        self.tidy(id);
    }

    /// Data does not come as it was announced, which cannot be taken back once it was sent.
    pub(super) fn fail_data(&mut self, id: u64, failure: Failure) {
        match self
            .conversations
            .get(&id)
            .is_some_and(Conversation::is_unsent)
        {
            true => self.withdraw(id, failure),
            false => self.fail(failure),
        }
    }

    /// Sends on what a conversation has buffered, as far as it may.
    pub(super) fn flush(&mut self, id: u64) {
        let mut next = self.flush_one(id);
        while let Some(id) = next {
            next = self.grant(id);
        }
    }

    /// As [`State::flush`]; returns who has the sender's role then, where that is somebody else.
    fn flush_one(&mut self, id: u64) -> Option<u64> {
        let conversation = self.conversations.get_mut(&id)?;
        let complete = conversation.ended && conversation.data_left == 0;
        // an answer waits for the end of what it answers
        let may = conversation.hosted.is_none() || conversation.over;
        match &conversation.role {
            Role::Over | Role::Withdrawn | Role::Asked => None,
            Role::Buffering if !may => None,
            Role::Buffering if complete => {
                let mut whole = Vec::with_capacity(conversation.body.len() + 48);
                let span = begin(conversation, &mut self.numbers, id, &mut whole);
                whole.append(&mut conversation.body);
                span.finish(&mut whole);
                conversation.role = Role::Over;
                self.outbox.push(whole);
                self.sent(id);
                None
            }
            Role::Buffering if conversation.body.len() > BUFFERED || conversation.data_left > 0 => {
                conversation.role = Role::Asked;
                self.outbox.ask(id).then_some(id)
            }
            Role::Buffering => None,
            Role::Holding(_) => {
                self.outbox.out().append(&mut conversation.body);
                if !complete {
                    return None;
                }
                let role = std::mem::replace(&mut conversation.role, Role::Over);
                if let Role::Holding(span) = role {
                    span.finish(self.outbox.out());
                }
                let next = self.outbox.release();
                self.sent(id);
                next
            }
        }
    }

    /// A conversation has the sender's role; returns who has it then, where that is somebody else.
    fn grant(&mut self, id: u64) -> Option<u64> {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            // it was given up
            return self.outbox.release();
        };
        let span = begin(conversation, &mut self.numbers, id, self.outbox.out());
        conversation.role = Role::Holding(span);
        self.wakers.extend(conversation.sender.take());
        self.wakers.extend(conversation.data_sender.take());
        self.flush_one(id)
    }

    /// What was ready has gone to the transport: the holder of the sender's role may go on.
    pub(super) fn written(&mut self) {
        if let Some(holder) = self.outbox.holder()
            && let Some(conversation) = self.conversations.get_mut(&holder)
        {
            self.wakers.extend(conversation.sender.take());
            self.wakers.extend(conversation.data_sender.take());
        }
        self.line.ask_all(&mut self.wakers);
    }

    /// All of this side of a conversation is on its way.
    fn sent(&mut self, id: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        if conversation.hosted.is_some() {
            self.remove(id);
        }
    }

    /// Removes a conversation of this side that nobody holds and that is answered.
    pub(super) fn tidy(&mut self, id: u64) {
        if let Some(conversation) = self.conversations.get(&id)
            && conversation.hosted.is_none()
            && conversation.discards
            && conversation.over
            && !conversation.back_running
        {
            self.remove(id);
        }
    }

    /// Ends everything; returns the landings that are still running.
    pub(super) fn close(&mut self, reason: Failure) -> Vec<Running> {
        let mut running = Vec::new();
        if self.closed.is_none() {
            self.closed = Some(reason);
        }
        let ids: Vec<_> = self.conversations.keys().copied().collect();
        for id in ids {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            conversation.wake(&mut self.wakers);
            running.extend(conversation.running.take());
            if conversation.hosted.is_some() || conversation.discards {
                self.remove(id);
            } else if !conversation.over {
                // one that is answered can still be read
                conversation.failure = self.closed.clone();
            }
        }
        self.deadlines.clear();
        self.line.ask_all(&mut self.wakers);
        running
    }
}

/// Begins a conversation's span.
fn begin(
    conversation: &Conversation,
    numbers: &mut Numbers<u64>,
    id: u64,
    out: &mut Vec<u8>,
) -> Span {
    match &conversation.hosted {
        Some(seq) => Span::ack(out, seq),
        None => Span::posting(out, numbers.begin(id)),
    }
}
