//! A text connection as its endpoints see it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    conversation::{Conversation, Hold, Role, keep},
    state::{BACKLOG, BUFFERED, READY, State},
};
use crate::{
    Error, Failure, Kind,
    connection::{now, refused, running::Running},
    endpoint::{
        Carried, CoNumber, Current, DATA_BEHIND, Encoding, Inlet, Link, LinkInfo, Message,
        Messages, Outlet, PlaceInLine, Received, Request,
    },
    script::{Text, python::write_script},
    value::{Dialect, HANDLE_MARK, Handles, Packed, Short},
    wire::text::{write_code, write_object},
};

/// A text connection.
pub(crate) struct TextLink {
    info: LinkInfo,
    dialect: Dialect,
    state: Mutex<State>,
    /// The reader may go on.
    pub(super) reading: Notify,
    /// There is something to write, or an end to come to.
    pub(super) writing: Notify,
    /// The next deadline has changed.
    pub(super) timing: Notify,
    on_closed: Notify,
}

impl fmt::Debug for TextLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextLink({})", self.info.peer_address)
    }
}

impl TextLink {
    /// A connection with at most so many conversations of each side.
    pub(crate) fn new(mut info: LinkInfo, dialect: Dialect, limit: usize) -> Self {
        info.encoding = Encoding::Literal(dialect);
        Self {
            info,
            dialect,
            state: Mutex::new(State::new(limit)),
            reading: Notify::new(),
            writing: Notify::new(),
            timing: Notify::new(),
            on_closed: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // nothing that can panic runs under the lock
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets go of the state, then wakes and drops what came together.
    pub(super) fn done(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        let dropped = std::mem::take(&mut state.dropped);
        let write = state.outbox.ready() > 0 || state.fatal.is_some() || state.leave_by.is_some();
        drop(state);
        if write {
            self.writing.notify_one();
        }
        wakers.into_iter().for_each(Waker::wake);
        drop(dropped);
    }

    /// How many conversations are open: those of this side, those of the peer.
    pub(crate) fn conversations(&self) -> (usize, usize) {
        let state = self.lock();
        (state.posted, state.hosted)
    }

    /// Ready once conversations can begin: there is nothing to wait for but the driver.
    pub(crate) fn poll_ready(
        &self,
        this: &Arc<dyn Link>,
        place: &mut Option<PlaceInLine>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Poll::Ready(Err(reason.clone().into()));
        }
        if state.started {
            return Poll::Ready(Ok(()));
        }
        PlaceInLine::wait(place, this, None, |place| state.line.wait(place, None, cx));
        Poll::Pending
    }

    /// The driver runs: conversations may begin.
    pub(super) fn started(&self) {
        let mut state = self.lock();
        state.started = true;
        let State { line, wakers, .. } = &mut *state;
        line.ask_all(wakers);
        self.done(state);
    }

    /// Whether the connection ended with nothing lost.
    pub(crate) fn ended_well(&self) -> bool {
        self.lock().ended_well
    }

    /// Ends everything with a reason, and tells all that wait for something.
    pub(super) fn close(&self, reason: Failure) {
        let mut state = self.lock();
        let running = state.close(reason);
        self.done(state);
        running.into_iter().for_each(Running::cancel);
        self.on_closed.notify_waiters();
    }

    /// Ends the connection with a failure, which the peer is told.
    pub(super) fn fail_all(&self, failure: Failure) {
        let mut state = self.lock();
        state.fail(failure);
        self.done(state);
        self.reading.notify_one();
    }
}

/// The most elements of a tuple that is read.
const LONGEST_TUPLE: usize = 16;

/// Data that goes behind a script or an object.
struct Behind {
    messages: Messages,
    bytes: u64,
}

/// Puts the length of data in its place in a text.
fn behind(text: String, handles: &mut Handles) -> Result<(String, Option<Behind>), Failure> {
    if !text.contains(HANDLE_MARK) {
        return Ok((text, None));
    }
    let mut out = String::with_capacity(text.len());
    let mut data = None;
    for (place, part) in text.split(HANDLE_MARK).enumerate() {
        // texts and indices take turns
        if place % 2 == 0 {
            out.push_str(part);
            continue;
        }
        let handle = part.parse().ok().and_then(|index| handles.take(index));
        let carried = handle.and_then(Carried::from_handle);
        let Some(Carried::Stream(messages, Some(bytes))) = carried else {
            return Err(Failure::new(
                Kind::Misuse,
                "the text wire carries no `Items` and no objects; of data it needs the length \
                 (`Data::with_len`)",
            ));
        };
        out.push_str(&bytes.to_string());
        if data.replace(Behind { messages, bytes }).is_some() {
            return Err(Failure::new(
                Kind::Misuse,
                "the text wire carries one `Data` behind a script or an object",
            ));
        }
    }
    Ok((out, data))
}

fn over() -> Error {
    Error::new(Kind::Cancelled, "the conversation is over")
}

impl State {
    /// The conversation, or why it is there no more.
    fn conversation(&mut self, co: CoNumber) -> Result<&mut Conversation, Error> {
        let conversation = match (self.conversations.get_mut(&co.0), &self.closed) {
            (Some(conversation), _) => conversation,
            (None, Some(reason)) => return Err(Error::from(reason.clone()).sent()),
            (None, None) => return Err(over()),
        };
        match &conversation.failure {
            Some(failure) => {
                let error = Error::from(failure.clone());
                Err(match conversation.role {
                    Role::Withdrawn => error,
                    _ => error.sent(),
                })
            }
            None => Ok(conversation),
        }
    }

    /// As [`State::conversation`], to send in it: one that was answered can still be read once the
    /// connection is gone, and no more; and data that was announced goes on, whoever awaits the answer.
    fn sending(&mut self, co: CoNumber, channel: u16) -> Result<&mut Conversation, Error> {
        if let Some(reason) = &self.closed {
            return Err(Error::from(reason.clone()).sent());
        }
        let role = self.conversations.get(&co.0).map(|it| &it.role);
        if channel == DATA_BEHIND && matches!(role, Some(Role::Holding(_))) {
            return self.conversations.get_mut(&co.0).ok_or_else(over);
        }
        self.conversation(co)
    }
}

/// Where the waker of who sends in a channel is kept.
fn sender(conversation: &mut Conversation, channel: u16) -> &mut Option<Waker> {
    match channel {
        DATA_BEHIND => &mut conversation.data_sender,
        _ => &mut conversation.sender,
    }
}

impl TextLink {
    fn open(
        &self,
        this: &Arc<dyn Link>,
        request: &mut Request<'_>,
        cx: &mut Context<'_>,
        depth: u8,
    ) -> Poll<Result<(u64, Option<Behind>), Error>> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Poll::Ready(Err(reason.clone().into()));
        }
        if !state.started {
            return Poll::Ready(Err(refused::too_early()));
        }
        if state.leave_by.is_some() {
            let text = "this side said goodbye";
            return Poll::Ready(Err(Error::new(Kind::Disconnected, text)));
        }
        let full = state.outbox.len() > BACKLOG;
        if full || state.posted >= state.limit {
            if depth > 0 && !full {
                return Poll::Ready(Err(Failure::limit(
                    "conversations",
                    "all that this side has at once are open",
                    "waiting for one within a landing could wait for itself; raise \
                     `Settings::conversations`",
                )
                .into()));
            }
            let deadline = request.deadline;
            PlaceInLine::wait(request.place, this, deadline, |place| {
                state.line.wait(place, deadline, cx)
            });
            if deadline.is_some() {
                self.timing.notify_one();
            }
            return Poll::Pending;
        }
        drop(state);
        let (mut body, mut data) = (Vec::new(), None);
        if let Some(text) = &request.text {
            let source = write_script(text, request.arguments, self.dialect)?;
            let (source, behind) = behind(source, request.handles)?;
            data = behind;
            match request.value && !request.call {
                true => write_object(&mut body, &source),
                false => write_code(&mut body, &source),
            }
        }
        let mut conversation = Conversation::new(None);
        conversation.body = body;
        conversation.data_left = data.as_ref().map_or(0, |data| data.bytes);
        conversation.ended = request.last;
        conversation.call = request.call;
        conversation.deadline = request.deadline;
        // of a conversation only its holder knows whether raw data comes
        conversation.data_answer = request.data;
        conversation.hold = match request.last && !request.data {
            true => Hold::No,
            false => Hold::Yes,
        };
        conversation.wants = request.data;
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Poll::Ready(Err(reason.clone().into()));
        }
        let id = state.add(conversation);
        state.flush(id);
        self.done(state);
        if request.deadline.is_some() {
            self.timing.notify_one();
        }
        Poll::Ready(Ok((id, data)))
    }

    /// Waits until there is room for something in an open conversation.
    fn poll_room(
        &self,
        co: CoNumber,
        channel: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        let ready = state.outbox.ready();
        let conversation = match state.sending(co, channel) {
            Ok(conversation) => conversation,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let full = match conversation.role {
            Role::Over | Role::Withdrawn => return Poll::Ready(Err(over())),
            Role::Holding(_) => ready > READY,
            Role::Buffering | Role::Asked => conversation.body.len() > BUFFERED,
        };
        // whoever answers wants the peer's side to come to its end
        let wakes_reader = conversation.hosted.is_some() && !conversation.wants;
        conversation.wants |= wakes_reader;
        // what comes behind announced data waits for its end
        let waits = full || channel != DATA_BEHIND && conversation.data_left > 0;
        if waits {
            keep(sender(conversation, channel), cx);
        }
        drop(state);
        if wakes_reader {
            self.reading.notify_one();
        }
        match waits {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }

    /// A message as it stands on the wire, and the data behind it. Runs code of the application where
    /// it lets go of what it does not send.
    fn bytes(&self, message: Message) -> Result<(Vec<u8>, Option<Behind>), Failure> {
        let mut bytes = Vec::new();
        match message {
            Message::Data(data) => Ok((data.into(), None)),
            Message::Item(packed) => {
                let text = packed.to_literal(self.dialect)?;
                let (_, mut handles) = packed.into_parts();
                let (text, data) = behind(text, &mut handles)?;
                // an empty literal is no answer
                if !text.is_empty() {
                    write_object(&mut bytes, &text);
                }
                Ok((bytes, data))
            }
            Message::Script {
                source,
                parameters,
                value,
                arguments,
            } => {
                let text = Text::Free {
                    source: &source,
                    parameters: &parameters,
                    again: false,
                };
                let source = write_script(&text, arguments.bytes(), self.dialect)?;
                let (_, mut handles) = arguments.into_parts();
                let (source, data) = behind(source, &mut handles)?;
                match value {
                    true => write_object(&mut bytes, &source),
                    false => write_code(&mut bytes, &source),
                }
                Ok((bytes, data))
            }
        }
    }

    /// An answer that ends in data, which stands behind it: in its place is its length.
    fn with_data(&self, this: &Arc<dyn Link>, co: CoNumber, answer: Packed) -> Packed {
        let arrived = |length: &Packed| {
            let length = Packed::from_parts(Bytes::copy_from_slice(length.bytes()), Handles::new());
            let bytes: u64 = length.unpack().ok()?;
            self.expect_data(co, DATA_BEHIND, bytes);
            let inlet = Inlet::new(Arc::clone(this), co, DATA_BEHIND);
            let stream = Carried::Stream(Messages::Arrived(inlet), Some(bytes));
            Some(Packed::of_handle(Box::new(stream)))
        };
        let with_data = match arrived(&answer) {
            Some(data) => Some(data),
            // taken apart each byte of a long list would take forty
            None if answer.count().is_none_or(|count| count > LONGEST_TUPLE) => None,
            None => {
                let copy =
                    Packed::from_parts(Bytes::copy_from_slice(answer.bytes()), Handles::new());
                copy.elements().ok().and_then(|mut elements| {
                    let data = arrived(elements.last()?)?;
                    elements.pop();
                    elements.push(data);
                    Some(Packed::array(elements))
                })
            }
        };
        match with_data {
            Some(with_data) => with_data,
            None => {
                // an answer of another kind, such as the method's own error
                self.stop(co, DATA_BEHIND);
                answer
            }
        }
    }

    /// Sends something there is room for.
    fn send(&self, co: CoNumber, channel: u16, message: Message) -> Result<Option<Behind>, Error> {
        if channel == DATA_BEHIND && !matches!(message, Message::Data(_)) {
            let text = "expected data, found a stream of items";
            return Err(Error::new(Kind::Value, text));
        }
        let (mut bytes, data) = self.bytes(message)?;
        let mut state = self.lock();
        let conversation = state.sending(co, channel)?;
        if channel == DATA_BEHIND {
            let Some(left) = conversation.data_left.checked_sub(bytes.len() as u64) else {
                let failure = Failure::new(Kind::Value, "more data than its announced length");
                state.fail_data(co.0, failure.clone());
                self.done(state);
                return Err(failure.into());
            };
            conversation.data_left = left;
            if left == 0 {
                let sender = conversation.sender.take();
                conversation.body.append(&mut bytes);
                state.wakers.extend(sender);
                state.flush(co.0);
                self.done(state);
                return Ok(None);
            }
        }
        conversation.body.append(&mut bytes);
        if let Some(data) = &data {
            conversation.data_left = data.bytes;
        }
        state.flush(co.0);
        self.done(state);
        Ok(data)
    }
}

/// Sends data behind what announced it.
fn pump(this: &Arc<dyn Link>, id: u64, data: Option<Behind>) {
    if let Some(Behind { messages, .. }) = data {
        let outlet = Outlet::new(Arc::clone(this), CoNumber(id), DATA_BEHIND);
        tokio::spawn(messages.send_to(outlet));
    }
}

impl Link for TextLink {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn poll_open(
        &self,
        this: &Arc<dyn Link>,
        request: &mut Request<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CoNumber, Error>> {
        let Current { depth, .. } = Current::get();
        refused::check(depth, request.deadline)?;
        let (id, data) = ready!(self.open(this, request, cx, depth))?;
        pump(this, id, data);
        Poll::Ready(Ok(CoNumber(id)))
    }

    fn leave(&self, place: u64) {
        let left = self.lock().line.leave(place);
        drop(left);
    }

    fn poll_reply(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        _short: &mut Short,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Packed>, Error>> {
        let mut state = self.lock();
        let conversation = match state.conversation(co) {
            Ok(conversation) => conversation,
            Err(error) => {
                self.done(state);
                self.release(co);
                return Poll::Ready(Err(error));
            }
        };
        let answer = match conversation.pop() {
            Some(Received::Item(packed)) => packed,
            Some(_) | None if conversation.over && !conversation.back_running => Packed::nil(),
            _ => {
                keep(&mut conversation.receiver, cx);
                return Poll::Pending;
            }
        };
        if conversation.data_answer {
            conversation.answered = true;
            drop(state);
            // where nobody takes the data it is let go of
            return Poll::Ready(Ok(Some(self.with_data(this, co, answer))));
        }
        let dropped = conversation.discard();
        state.dropped.push(Box::new(dropped));
        state.tidy(co.0);
        self.done(state);
        self.reading.notify_one();
        Poll::Ready(Ok(Some(answer)))
    }

    fn poll_send(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        channel: u16,
        message: &mut Option<Message>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        ready!(self.poll_room(co, channel, cx))?;
        let Some(message) = message.take() else {
            return Poll::Ready(Ok(()));
        };
        let data = self.send(co, channel, message)?;
        pump(this, co.0, data);
        Poll::Ready(Ok(()))
    }

    fn answer(&self, this: &Arc<dyn Link>, co: CoNumber, answer: Packed) {
        let mut message = Some(Message::Item(answer));
        let mut cx = Context::from_waker(Waker::noop());
        match self.poll_send(this, co, 0, &mut message, &mut cx) {
            Poll::Ready(Ok(())) => self.end(co, 0),
            Poll::Ready(Err(error)) => self.fail(co, 0, error.into()),
            Poll::Pending => self.fail(
                co,
                0,
                Failure::new(Kind::Limit, "an answer behind too much else"),
            ),
        }
    }

    fn poll_receive(
        &self,
        _this: &Arc<dyn Link>,
        co: CoNumber,
        channel: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, Error>> {
        let mut state = self.lock();
        let conversation = match state.conversation(co) {
            Ok(conversation) => conversation,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let received = if channel == DATA_BEHIND {
            match conversation.pop_data() {
                Some(bytes) => Some(Received::Data(bytes)),
                None if conversation.data_to_come == 0 => None,
                None => {
                    keep(&mut conversation.data_receiver, cx);
                    return Poll::Pending;
                }
            }
        } else if conversation.back_running {
            // scripts that stand before it land first
            keep(&mut conversation.receiver, cx);
            return Poll::Pending;
        } else {
            match conversation.pop() {
                Some(received) => Some(received),
                None if conversation.over => None,
                None => {
                    keep(&mut conversation.receiver, cx);
                    conversation.wants = true;
                    drop(state);
                    self.reading.notify_one();
                    return Poll::Pending;
                }
            }
        };
        drop(state);
        self.reading.notify_one();
        Poll::Ready(Ok(received))
    }

    fn expect_data(&self, co: CoNumber, channel: u16, bytes: u64) {
        let mut state = self.lock();
        if let Some(conversation) = state.conversations.get_mut(&co.0) {
            if channel == DATA_BEHIND {
                conversation.data_to_come = conversation.data_to_come.saturating_add(bytes);
                conversation.data_dropped = false;
                if bytes == 0
                    && let Hold::Data(times) = conversation.hold
                {
                    // none comes
                    conversation.hold = match times {
                        0 | 1 => Hold::No,
                        more => Hold::Data(more - 1),
                    };
                }
            }
            if bytes > 0 {
                conversation.expected.push_back((channel, bytes));
            }
        }
        drop(state);
        self.reading.notify_one();
    }

    fn poll_stopped(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        // the peer does not tell: what is on its way has to come to its end
        match self.lock().sending(co, channel) {
            Ok(conversation) => {
                keep(sender(conversation, channel), cx);
                Poll::Pending
            }
            Err(_) => Poll::Ready(()),
        }
    }

    fn poll_sent(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let ready = state.outbox.ready();
        match state.sending(co, channel) {
            // what is buffered leaves with the end
            Ok(conversation) if matches!(conversation.role, Role::Holding(_)) && ready > READY => {
                keep(sender(conversation, channel), cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn end(&self, co: CoNumber, channel: u16) {
        let mut state = self.lock();
        if let Some(conversation) = state.conversations.get_mut(&co.0) {
            if channel == DATA_BEHIND {
                let missing = conversation.data_left;
                if missing > 0 {
                    let text = format!("data ended {missing} bytes before its announced length");
                    state.fail_data(co.0, Failure::new(Kind::Value, text));
                }
            } else {
                conversation.ended = true;
                state.flush(co.0);
            }
        }
        self.done(state);
        self.reading.notify_one();
    }

    fn fail(&self, co: CoNumber, channel: u16, failure: Failure) {
        let mut state = self.lock();
        if let Some(conversation) = state.conversations.get_mut(&co.0) {
            if channel == DATA_BEHIND {
                // what was announced does not come
                if conversation.data_left > 0 {
                    state.fail_data(co.0, failure);
                }
            } else if !conversation.ended {
                if conversation.is_unsent() {
                    state.outbox.withdraw(co.0);
                    state.remove(co.0);
                } else {
                    // there are no failures of single conversations on this wire
                    state.fail(failure);
                }
            }
        }
        self.done(state);
        self.reading.notify_one();
    }

    fn stop(&self, co: CoNumber, channel: u16) {
        let mut state = self.lock();
        if let Some(conversation) = state.conversations.get_mut(&co.0)
            && channel == DATA_BEHIND
        {
            conversation.data_dropped = true;
            let dropped = std::mem::take(&mut conversation.data);
            state.dropped.push(Box::new(dropped));
            let conversation = state.conversations.get_mut(&co.0);
            if let Some(conversation) = conversation.filter(|it| it.answered) {
                let dropped = conversation.discard();
                state.dropped.push(Box::new(dropped));
                state.tidy(co.0);
            }
        }
        self.done(state);
        self.reading.notify_one();
    }

    fn release(&self, co: CoNumber) {
        let mut state = self.lock();
        if let Some(conversation) = state.conversations.get_mut(&co.0) {
            let dropped = conversation.discard();
            state.dropped.push(Box::new(dropped));
            state.tidy(co.0);
        }
        self.done(state);
        self.reading.notify_one();
    }

    fn detach(&self, co: CoNumber) {
        let mut state = self.lock();
        if let Some(conversation) = state.conversations.get_mut(&co.0) {
            conversation.running = None;
        }
        drop(state);
        self.release(co);
    }

    fn release_object(&self, _number: u32) {}

    fn goodbye(&self, deadline: Duration) {
        let mut state = self.lock();
        let by = now().checked_add(deadline);
        state.leave_by = by.or(state.leave_by);
        self.done(state);
        self.timing.notify_one();
    }

    fn closed(&self) -> Option<Error> {
        self.lock().closed.clone().map(Error::from)
    }

    fn on_closed(&self) -> &Notify {
        &self.on_closed
    }
}

/// What a landing leaves behind in its conversation.
impl TextLink {
    /// Keeps a landing that goes on in a task of its own.
    pub(super) fn keep_running(&self, id: u64, running: Running) {
        let mut state = self.lock();
        let gone = match state.conversations.get_mut(&id) {
            Some(conversation) => conversation.running.replace(running),
            None => Some(running),
        };
        drop(state);
        drop(gone);
    }

    /// Raw data for the conversation that the reader is in.
    pub(super) fn raw(&self, id: u64, channel: u16, bytes: Bytes) {
        let mut state = self.lock();
        if let Some(conversation) = state.conversations.get_mut(&id)
            && !(conversation.discards && channel == 0)
        {
            let waker = conversation.push_data(channel, bytes);
            state.wakers.extend(waker);
        }
        self.done(state);
    }
}
