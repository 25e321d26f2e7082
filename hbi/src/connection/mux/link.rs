//! A mux connection as its endpoints see it: the state that they and the driver share.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::Span;

use super::scratch;
use crate::connection::{
    handles::{self, Outgoing},
    now,
    objects::Objects,
    refused::{self, error},
    running::Running,
};
use crate::{
    Error, Failure, Kind,
    endpoint::{
        CoNumber, Current, Link, LinkInfo, Message, Object, PlaceInLine, Posted, Prepared,
        Received, Request,
    },
    script::{Interned, Interner, SCRATCH, StubText, Text},
    value::{Handles, Packed, Short},
    wire::mux::{self, Arrival, CoId, OpenRefused, Opening, Payload, Reply, SendRefused, Settings},
};

/// The state machine with what this driver keeps in it.
pub(super) type Machine = mux::Connection<Arc<dyn Prepared>, Running>;

/// A mux connection.
pub(crate) struct MuxLink {
    info: LinkInfo,
    state: Mutex<State>,
    on_closed: Notify,
}

pub(super) struct State {
    pub(super) mux: Machine,
    pub(super) interner: Option<Interner>,
    pub(super) objects: Objects,
    /// Spans of conversations of this side, where they are traced.
    spans: HashMap<CoNumber, Span>,
    /// The driver's waker, while it sleeps.
    driver: Option<Waker>,
    /// The driver is awake, or was woken.
    pub(super) awake: bool,
    /// When this side wants to be gone, once it said goodbye.
    pub(super) leave_by: Option<Instant>,
    /// The driver runs.
    started: bool,
    /// The connection ended by a goodbye.
    pub(super) ended_well: bool,
}

impl fmt::Debug for MuxLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MuxLink({})", self.info.peer_address)
    }
}

#[inline]
pub(super) fn number(id: CoId) -> CoNumber {
    CoNumber(id.to_bits())
}

#[inline]
fn id(co: CoNumber) -> CoId {
    CoId::from_bits(co.0)
}

impl MuxLink {
    pub(crate) fn new(info: LinkInfo, settings: Settings, token: &[u8]) -> Self {
        let state = State {
            mux: Machine::with_token(settings, token, now()),
            interner: None,
            objects: Objects::default(),
            spans: HashMap::new(),
            driver: None,
            awake: true,
            leave_by: None,
            started: false,
            ended_well: false,
        };
        Self {
            info,
            state: Mutex::new(state),
            on_closed: Notify::new(),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // nothing that can panic runs under the lock but the state machine itself
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How many conversations are open, those of this side and those of the peer.
    pub(crate) fn conversations(&self) -> (usize, usize) {
        self.lock().mux.conversations()
    }

    /// Ready once both sides know each other.
    pub(crate) fn poll_ready(
        &self,
        this: &Arc<dyn Link>,
        place: &mut Option<PlaceInLine>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        if let Some(reason) = state.mux.closed() {
            return Poll::Ready(Err(reason.clone().into()));
        }
        if state.mux.peer_settings().is_some() {
            return Poll::Ready(Ok(()));
        }
        PlaceInLine::wait(place, this, None, |place| {
            state.mux.wait_for_room(place, None, cx)
        });
        Poll::Pending
    }

    /// Whether the connection ended by a goodbye.
    pub(crate) fn ended_well(&self) -> bool {
        self.lock().ended_well
    }

    /// The driver runs: conversations may begin.
    pub(super) fn started(&self) {
        self.lock().started = true;
    }

    /// How many objects of this side the peer holds.
    pub(crate) fn objects(&self) -> usize {
        self.lock().objects.len()
    }

    /// Lets go of the state; wakes the driver if there is something to write and it sleeps.
    #[inline]
    fn done(state: MutexGuard<'_, State>) {
        let mut state = state;
        let waker = state.wake_driver();
        Self::unlock(state, waker);
    }

    /// Lets go of the state, then wakes the driver.
    #[inline(always)]
    fn unlock(state: MutexGuard<'_, State>, driver: Option<Waker>) {
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// As [`Self::done`], where wakers of others may have come together.
    #[inline]
    fn done_waking(mut state: MutexGuard<'_, State>) {
        if !state.mux.has_leftovers() {
            return Self::done(state);
        }
        let mut wakers = Vec::new();
        state.mux.take_wakers(&mut wakers);
        let dropped = state.mux.take_dropped();
        let lost = state.take_lost();
        wakers.extend(state.wake_driver());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        drop((dropped, lost));
    }

    /// A conversation of this side has a span until its holder lets go of it.
    #[cold]
    fn traced(&self, posted: &Posted, text: Option<&Text<'_>>, co: CoNumber) {
        let call = match text {
            Some(Text::Stub(text)) => text.source().split('(').next(),
            _ => None,
        };
        // made and dropped without the lock: a subscriber may do anything
        let span = posted.span(&self.info.peer_address, call);
        let _old = self.lock().spans.insert(co, span);
    }

    /// Lets a request wait for a number to become free, or for the peer's preface, or for its deadline.
    fn wait_for_room<T>(
        mut state: MutexGuard<'_, State>,
        this: &Arc<dyn Link>,
        request: &mut Request<'_>,
        cx: &Context<'_>,
    ) -> Poll<T> {
        let deadline = request.deadline;
        PlaceInLine::wait(request.place, this, deadline, |place| {
            state.mux.wait_for_room(place, deadline, cx)
        });
        let driver = deadline.and_then(|_| state.nudge());
        Self::unlock(state, driver);
        Poll::Pending
    }

    /// Ends everything with a reason, and tells all that wait for something.
    pub(super) fn close(&self, reason: Failure) {
        let mut state = self.lock();
        state.mux.close(reason);
        let mut wakers = Vec::new();
        state.mux.take_wakers(&mut wakers);
        let (running, scripts) = state.mux.take_dropped();
        let objects = state.objects.take_all();
        drop(state);
        running.into_iter().for_each(Running::cancel);
        drop((scripts, objects));
        wakers.into_iter().for_each(Waker::wake);
        self.on_closed.notify_waiters();
    }

    /// The handles of a payload that arrived, made usable.
    pub(super) fn packed(&self, this: &Arc<dyn Link>, co: CoNumber, payload: Payload) -> Packed {
        if payload.handles.is_empty() {
            return Packed::from_parts(payload.bytes, Handles::new());
        }
        let mut state = self.lock();
        let handles = handles::arrived(this, co, &payload.handles, &state.objects);
        let bytes = payload.bytes.clone();
        drop(payload);
        let late = state.take_late();
        drop(state);
        drop(late);
        Packed::from_parts(bytes, handles)
    }
}

impl State {
    /// The span of a conversation that its holder lets go of, to be dropped without the lock.
    #[inline]
    fn take_span(&mut self, co: CoNumber) -> Option<Span> {
        // nothing is looked up where nothing is traced
        if self.spans.is_empty() {
            return None;
        }
        self.spans.remove(&co)
    }

    #[inline]
    pub(super) fn wake_driver(&mut self) -> Option<Waker> {
        if self.awake || !(self.mux.has_output() || self.mux.is_asking()) {
            return None;
        }
        self.awake = true;
        self.driver.take()
    }

    /// Sees to it that so many bytes find room in a buffer that was used before.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if self.mux.wants_buffer(bytes) {
            self.take_buffer();
        }
    }

    #[cold]
    fn take_buffer(&mut self) {
        self.mux.take_buffer(scratch::buffer());
    }

    /// The driver waits for the transport to take more; only who changes what it is to be woken for
    /// [nudges](Self::nudge) it.
    pub(super) fn wait_for_transport(&mut self, waker: &Waker) {
        self.know_driver(waker);
    }

    fn know_driver(&mut self, waker: &Waker) {
        match &self.driver {
            Some(driver) if driver.will_wake(waker) => {}
            _ => self.driver = Some(waker.clone()),
        }
    }

    /// Whom to wake so that the driver looks at the time again.
    fn nudge(&mut self) -> Option<Waker> {
        self.awake = true;
        self.driver.take()
    }

    /// The driver goes to sleep.
    pub(super) fn sleep(&mut self, waker: &Waker) {
        self.awake = false;
        self.mux.shrink();
        self.know_driver(waker);
    }

    /// How many scripts the peer keeps, if a text fits what it takes.
    fn takes_text(&self, text: &Text<'_>) -> Result<u32, Failure> {
        let Some(peer) = self.mux.peer_settings() else {
            return Err(Failure::new(
                Kind::Disconnected,
                "the peer has not answered yet",
            ));
        };
        let (frame, scripts) = (peer.frame as usize, peer.scripts);
        // number and count of parameters stand there, too
        let len = text.source().len() + text.parameters_len();
        if len + 8 > frame {
            return Err(Failure::limit(
                "source",
                format_args!("{len} bytes with its parameters' names where the peer takes {frame}"),
                "bind large values as parameters instead of writing them into the script, and many \
                 as a list",
            ));
        }
        Ok(scripts)
    }

    /// The number of a text, told to the peer first where it has to be.
    fn intern(&mut self, text: &Text<'_>) -> Result<u32, Failure> {
        let scripts = self.takes_text(text)?;
        let interner = self.interner.get_or_insert_with(|| Interner::new(scripts));
        let Interned { number, define } = interner.intern(text);
        if define {
            self.mux.define(number, &text.parameters(), text.source());
        }
        Ok(number)
    }

    /// What tells the peer a text under the number that such texts share, for a message that leaves later.
    fn definition(&self, text: &Text<'_>) -> Result<Vec<u8>, Failure> {
        self.takes_text(text)?;
        Ok(mux::definition(SCRATCH, &text.parameters(), text.source()))
    }
}

impl Link for MuxLink {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn call(&self, text: &StubText, arguments: &[u8], cx: &mut Context<'_>) -> Option<CoNumber> {
        if self.info.deadline.is_some() || self.info.trace || !Current::is_none() {
            return None;
        }
        let mut state = self.lock();
        if !state.started {
            return None;
        }
        let script = state.interner.as_ref()?.known(text)?;
        state.make_room(arguments.len());
        let id = state.mux.call(script, arguments, cx)?;
        // there is something to write now
        let driver = match state.awake {
            true => None,
            false => state.nudge(),
        };
        Self::unlock(state, driver);
        Some(number(id))
    }

    fn poll_open(
        &self,
        this: &Arc<dyn Link>,
        request: &mut Request<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CoNumber, Error>> {
        let Current { depth, trace, .. } = Current::get();
        let now = refused::check(depth, request.deadline)?;
        let mut outgoing = None;
        let mut state = self.lock();
        if let Some(reason) = state.mux.closed() {
            return Poll::Ready(Err(reason.clone().into()));
        }
        if !state.started {
            return Poll::Ready(Err(refused::too_early()));
        }
        if !state.mux.can_open() {
            if depth > 0 && state.mux.peer_settings().is_some() {
                return Poll::Ready(Err(refused::no_room()));
            }
            return Self::wait_for_room(state, this, request, cx);
        }
        // within a landing it would wait for itself; the landings are bounded already
        if depth == 0 && !state.mux.takes_opening(request.arguments.len()) {
            return Self::wait_for_room(state, this, request, cx);
        }
        let script = match &request.text {
            Some(text) => match state.intern(text) {
                Ok(number) => Some(number),
                Err(failure) => return Poll::Ready(Err(failure.into())),
            },
            None => None,
        };
        if !request.handles.is_empty() {
            let outgoing = outgoing.insert(Outgoing::default());
            let taken = state.outgoing(outgoing, this, None, request.handles);
            if let Err(failure) = taken {
                Self::done(state);
                return Poll::Ready(Err(failure.into()));
            }
        }
        let posted = self.info.trace.then(|| Posted::new(trace));
        let opening = Opening {
            script,
            value: request.value,
            call: request.call,
            last: request.last,
            deadline: request.deadline,
            depth,
            trace: posted.as_ref().map(Posted::context).or(trace.as_ref()),
            arguments: request.arguments,
            handles: outgoing.as_ref().map_or(&[], |outgoing| &outgoing.wire),
        };
        state.make_room(request.arguments.len());
        // without a deadline the time is not looked at
        let at = now.unwrap_or_else(|| state.mux.heard());
        let opened = state.mux.open(opening, at);
        let opened = match opened {
            Ok(id) => Ok(number(id)),
            Err(OpenRefused::Failed(failure)) => Err((*failure).into()),
            Err(OpenRefused::Full) => Err(Error::new(
                Kind::Limit,
                "the peer takes no more conversations",
            )),
        };
        if opened.is_err()
            && let Some(outgoing) = &mut outgoing
        {
            outgoing.give_back(&mut state.objects);
        }
        let driver = match request.deadline {
            Some(_) => state.nudge(),
            None => state.wake_driver(),
        };
        Self::unlock(state, driver);
        if let Ok(co) = &opened {
            if let Some(outgoing) = outgoing {
                outgoing.start(this, *co);
            }
            if let Some(posted) = posted {
                self.traced(&posted, request.text.as_ref(), *co);
            }
        }
        Poll::Ready(opened)
    }

    fn leave(&self, place: u64) {
        let left = self.lock().mux.leave(place);
        drop(left);
    }

    fn poll_reply(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        short: &mut Short,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Packed>, Error>> {
        let mut state = self.lock();
        if state.spans.is_empty() && state.mux.take_short(id(co), short) {
            return Poll::Ready(Ok(None));
        }
        let reply = match state.mux.poll_reply(id(co), cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(reply) => reply,
        };
        let _span = state.take_span(co);
        Self::done_waking(state);
        Poll::Ready(match reply {
            Reply::Short(value) => {
                *short = value;
                Ok(None)
            }
            Reply::Bytes(bytes) => Ok(Some(Packed::from_parts(bytes, Handles::new()))),
            Reply::Value(payload) => Ok(Some(self.packed(this, co, *payload))),
            Reply::Failed(failure) => Err(error(*failure)),
        })
    }

    fn poll_send(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        channel: u16,
        message: &mut Option<Message>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let id = id(co);
        let mut outgoing = Outgoing::default();
        let mut state = self.lock();
        if !state.mux.has_room(id, channel) {
            state.mux.wait_to_send(id, channel, cx);
            return Poll::Pending;
        }
        let sent = match message.take() {
            None => Ok(()),
            Some(Message::Data(bytes)) => state.mux.send_data(id, channel, bytes),
            Some(Message::Item(packed)) => {
                let (bytes, mut handles) = packed.into_parts();
                state
                    .outgoing(&mut outgoing, this, Some(id), &mut handles)
                    .map_err(|failure| SendRefused::Unfit(Box::new(failure)))
                    .and_then(|()| state.mux.send_item(id, channel, bytes, &outgoing.wire))
            }
            Some(Message::Script {
                source,
                parameters,
                value,
                arguments,
            }) => {
                let text = Text::Free {
                    source: &source,
                    parameters: &parameters,
                    again: false,
                };
                let (bytes, mut handles) = arguments.into_parts();
                let taken = state.outgoing(&mut outgoing, this, Some(id), &mut handles);
                let direct = state.mux.is_direct(id, bytes.len());
                taken
                    .and_then(|()| match direct {
                        true => Ok((state.intern(&text)?, Vec::new())),
                        false => Ok((SCRATCH, state.definition(&text)?)),
                    })
                    .map_err(|failure| SendRefused::Unfit(Box::new(failure)))
                    .and_then(|(script, definition)| {
                        state
                            .mux
                            .send_script(id, script, definition, value, bytes, &outgoing.wire)
                    })
            }
        };
        if sent.is_err() {
            outgoing.give_back(&mut state.objects);
        }
        Self::done_waking(state);
        if sent.is_ok() {
            outgoing.start(this, co);
        }
        Poll::Ready(match sent {
            Ok(()) => Ok(()),
            Err(SendRefused::Unfit(failure)) => Err((*failure).into()),
            Err(SendRefused::Failed(failure)) => Err(error(*failure)),
            Err(SendRefused::Full) => Err(Error::new(Kind::Limit, "the channel has no room")),
        })
    }

    fn answer(&self, this: &Arc<dyn Link>, co: CoNumber, answer: Packed) {
        let (bytes, mut handles) = answer.into_parts();
        let mut outgoing = Outgoing::default();
        let mut state = self.lock();
        let sent = state.answer(&mut outgoing, this, id(co), &bytes, &mut handles);
        Self::done_waking(state);
        if sent {
            outgoing.start(this, co);
        }
    }

    fn poll_receive(
        &self,
        this: &Arc<dyn Link>,
        co: CoNumber,
        channel: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, Error>> {
        let mut state = self.lock();
        let arrival = match state.mux.poll_receive(id(co), channel, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(arrival) => arrival,
        };
        Self::done_waking(state);
        Poll::Ready(match arrival {
            Ok(None) => Ok(None),
            Ok(Some(Arrival::Data(bytes))) => Ok(Some(Received::Data(bytes))),
            Ok(Some(Arrival::Item(payload))) => {
                Ok(Some(Received::Item(self.packed(this, co, payload))))
            }
            Ok(Some(Arrival::Script {
                prepared,
                value,
                arguments,
            })) => {
                let arguments = self.packed(this, co, arguments);
                Ok(Some(Received::Script {
                    prepared,
                    value,
                    arguments,
                }))
            }
            Err(failure) => Err(error(*failure)),
        })
    }

    fn poll_stopped(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        self.lock().mux.poll_stopped(id(co), channel, cx)
    }

    fn poll_sent(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        self.lock().mux.poll_sent(id(co), channel, cx)
    }

    fn end(&self, co: CoNumber, channel: u16) {
        let mut state = self.lock();
        state.mux.end(id(co), channel);
        Self::done_waking(state);
    }

    fn fail(&self, co: CoNumber, channel: u16, failure: Failure) {
        let mut state = self.lock();
        state.mux.fail(id(co), channel, &failure);
        Self::done_waking(state);
    }

    fn stop(&self, co: CoNumber, channel: u16) {
        let mut state = self.lock();
        state.mux.stop(id(co), channel);
        Self::done_waking(state);
    }

    fn release(&self, co: CoNumber) {
        let mut state = self.lock();
        state.mux.release(id(co));
        let _span = state.take_span(co);
        Self::done_waking(state);
    }

    fn detach(&self, co: CoNumber) {
        let mut state = self.lock();
        state.mux.detach(id(co));
        let _span = state.take_span(co);
        Self::done_waking(state);
    }

    fn release_object(&self, number: u32) {
        let mut state = self.lock();
        if state.mux.closed().is_none() {
            state.mux.write_release(number, 1);
        }
        Self::done(state);
    }

    fn goodbye(&self, deadline: Duration) {
        let mut state = self.lock();
        // with one who said nothing yet nothing can be under way
        let met = state.mux.peer_settings().is_some();
        let by = now().checked_add(if met { deadline } else { Duration::ZERO });
        state.leave_by = by.or(state.leave_by);
        state.mux.goodbye();
        let driver = state.nudge();
        Self::unlock(state, driver);
    }

    fn is_peer_leaving(&self) -> bool {
        self.lock().mux.goodbyes().1
    }

    fn closed(&self) -> Option<Error> {
        self.lock()
            .mux
            .closed()
            .map(|failure| failure.clone().into())
    }

    fn on_closed(&self) -> &Notify {
        &self.on_closed
    }
}

impl State {
    /// Takes the handles of a message in a conversation, or of the opening of a new one.
    pub(super) fn outgoing(
        &mut self,
        outgoing: &mut Outgoing,
        this: &Arc<dyn Link>,
        id: Option<CoId>,
        handles: &mut Handles,
    ) -> Result<(), Failure> {
        if handles.is_empty() {
            return Ok(());
        }
        let limit = self.mux.settings().objects;
        let channel = id.map_or(1, |id| self.mux.next_channel(id));
        outgoing.take(this, handles, &mut self.objects, limit, channel)
    }

    /// Answers a conversation, or ends it with the reason why it cannot be; whether it was answered.
    pub(super) fn answer(
        &mut self,
        outgoing: &mut Outgoing,
        this: &Arc<dyn Link>,
        id: CoId,
        bytes: &[u8],
        handles: &mut Handles,
    ) -> bool {
        let sent = match self.outgoing(outgoing, this, Some(id), handles) {
            Ok(()) => self.mux.answer(id, bytes, &outgoing.wire),
            Err(failure) => {
                self.mux.fail(id, 0, &failure);
                false
            }
        };
        if !sent {
            outgoing.give_back(&mut self.objects);
        }
        sent
    }

    /// Objects that were kept for messages that have been looked at; to be dropped without the lock.
    #[inline]
    pub(super) fn take_late(&mut self) -> Option<Vec<Arc<dyn Object>>> {
        let late = self.objects.has_late() && !self.mux.has_unread_objects();
        late.then(|| self.objects.take_late())
    }

    /// Objects in messages that never left, which the peer holds no more; to be dropped without the
    /// lock.
    #[inline]
    pub(super) fn take_lost(&mut self) -> Option<Vec<Arc<dyn Object>>> {
        self.mux.has_lost().then(|| {
            let lost = self.mux.take_lost().into_iter();
            lost.filter_map(|number| self.objects.take_back(number, 1).ok().flatten())
                .collect()
        })
    }
}
