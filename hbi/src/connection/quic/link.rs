//! A QUIC connection as its endpoints see it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    early,
    posting::{May, ORDERED, check},
    receive::{Next, ReceiveState, Receiving, drain},
    send::{SendState, Sending},
    state::{Conversation, Dropped, Key, State},
};
use crate::{
    Error, Failure, Kind,
    connection::{
        handles::Outgoing,
        now,
        refused::{self, error},
    },
    endpoint::{
        CoNumber, Current, Link, LinkInfo, Message, PlaceInLine, Posted, Received, Request,
    },
    script::Text,
    value::{Packed, Short},
    wire::{
        mux::Settings,
        quic::{Control, Opening, Reader, write_opening},
    },
};

/// A QUIC connection.
pub(crate) struct QuicLink {
    me: Weak<QuicLink>,
    pub(super) info: LinkInfo,
    pub(super) conn: quinn::Connection,
    /// Where tasks run that write what streams do not take at once.
    pub(super) runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    on_closed: Notify,
}

impl fmt::Debug for QuicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuicLink({})", self.info.peer_address)
    }
}

impl QuicLink {
    /// A connection whose handshake is done, or which does not wait for it: then with what the peer took
    /// last time. To be called within a Tokio runtime.
    pub(crate) fn new(
        info: LinkInfo,
        conn: quinn::Connection,
        settings: Settings,
        token: &[u8],
        first: Option<Settings>,
    ) -> Arc<Self> {
        let mut state = State::new(settings.clamped(), token);
        if let Some(first) = first {
            state.begin_early(first);
        }
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            info,
            conn,
            runtime: tokio::runtime::Handle::current(),
            state: Mutex::new(state),
            on_closed: Notify::new(),
        })
    }

    fn arc(&self) -> Arc<Self> {
        self.me
            .upgrade()
            .expect("it is borrowed from the `Arc` it was made in")
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Does something with the state; then wakes and drops what came together, without the lock.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state);
        state.wake_assembly();
        let mut wakers = std::mem::take(&mut state.wakers);
        let dropped = std::mem::take(&mut state.dropped);
        if std::mem::take(&mut state.stir) {
            wakers.extend(state.driver.take());
        }
        drop(state);
        wakers.into_iter().for_each(|waker| waker.wake());
        dropped.into_iter().for_each(Dropped::finish);
        result
    }

    /// Ends everything with a reason, and tells all that wait for something.
    pub(super) fn close(&self, reason: Failure) {
        self.with(|state| state.close(reason));
        self.on_closed.notify_waiters();
    }

    /// How many conversations are open, those of this side and those of the peer.
    pub(crate) fn conversations(&self) -> (usize, usize) {
        let state = self.lock();
        (state.posting, state.hosting)
    }

    /// How many objects of this side the peer holds.
    pub(crate) fn objects(&self) -> usize {
        self.lock().objects.len()
    }

    /// Whether the connection ended by a goodbye.
    pub(crate) fn ended_well(&self) -> bool {
        self.lock().ended_well
    }

    /// Waits until the connection is gone, for one that has no driver yet.
    pub(crate) async fn gone(&self) {
        self.conn.closed().await;
    }

    /// Ready once both sides know each other.
    pub(crate) fn poll_ready(
        &self,
        this: &Arc<dyn Link>,
        place: &mut Option<PlaceInLine>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Poll::Ready(Err((**reason).clone().into()));
        }
        if state.peer.is_some() && state.started {
            return Poll::Ready(Ok(()));
        }
        state.wait_for_room(place, this, None, cx)
    }

    /// Ends a hosted conversation whose caller wants no answer, or whose time is over.
    pub(super) fn cancel(&self, key: Key, failure: &Failure) {
        let running = self.with(|state| state.conversations.get_mut(&key)?.running.take());
        if let Some(running) = running {
            running.cancel();
        }
        self.with(|state| state.fail(&self.arc(), key, failure));
        self.detach(key.co());
    }
}

impl QuicLink {
    /// Ends a conversation of this side with a failure of this side's making.
    pub(super) fn give_up(&self, key: Key, failure: &Failure) {
        self.with(|state| {
            let Some(co) = state.conversations.get(&key) else {
                return;
            };
            if co.released || co.receiving[0].is_over() {
                return;
            }
            let channels = co.receiving.len() as u16;
            state.fail(&self.arc(), key, failure);
            for channel in 0..channels {
                state.fail_receiving(key, channel, failure);
            }
            state.settle(key);
        });
    }
}

impl Link for QuicLink {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn poll_open(
        &self,
        this: &Arc<dyn Link>,
        request: &mut Request<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CoNumber, Error>> {
        let Current { depth, trace, .. } = Current::get();
        let now = refused::check(depth, request.deadline)?;
        let remaining = request.deadline.zip(now);
        let remaining = remaining.map(|(at, now)| at.saturating_duration_since(now));
        let posted = self.info.trace.then(|| Posted::new(trace));
        let mut outgoing = Outgoing::default();
        let opened = self.with(|state| {
            let early = early::may_go(request);
            match state.may_open(depth, request.arguments.len(), early) {
                May::Open => {}
                May::Wait => return state.wait_for_room(request.place, this, request.deadline, cx),
                May::Never(error) => return Poll::Ready(Err(error)),
            }
            let key = Key::ours(state.opened + 1);
            let taken = state.outgoing(&mut outgoing, this, (key, 0), 1, request.handles);
            let streams = taken.and_then(|()| {
                let len = request.arguments.len();
                check(state.peer.as_ref(), len, &outgoing.wire, 0)
            });
            let script = request.text.as_ref().map(|text| state.script(text));
            let (streams, script) = match (streams, script.transpose()) {
                (Ok(streams), Ok(script)) => (streams, script),
                (Err(failure), _) | (_, Err(failure)) => {
                    state.revoke((key, 0), 0);
                    return Poll::Ready(Err(failure.into()));
                }
            };
            // a stream is taken only by what goes: without an opening it would end the connection
            let mut first = None;
            if state.early.is_some() {
                first = state.open_early(&self.conn);
                if first.is_none() {
                    return state.wait_for_room(request.place, this, request.deadline, cx);
                }
            }
            state.opened += 1;
            let large = request.arguments.len() > ORDERED;
            let landing = if request.ordered && !large {
                state.landing += 1;
                state.landing
            } else {
                0
            };
            let opening = Opening {
                number: state.opened,
                landing,
                script,
                value: request.value,
                last: request.last,
                remaining,
                depth,
                trace: posted.as_ref().map(Posted::context).or(trace.as_ref()),
                arguments: request.arguments,
                handles: &outgoing.wire,
            };
            let mut frame = Vec::with_capacity(128 + request.arguments.len());
            write_opening(&mut frame, &opening);
            let mut co = Conversation::new(
                Sending::new(None),
                Receiving::new(None, Reader::new(&state.own)),
            );
            if let Some((send, recv)) = first {
                let source = request.text.as_ref().map_or(0, |text| text.source().len());
                state.sent_early(&opening, source, frame.clone());
                co.sending[0].open(send);
                co.receiving[0].open(recv);
            }
            co.sending[0].opening(frame, request.last);
            co.sending.extend((0..streams).map(|_| Sending::new(None)));
            state.conversations.insert(key, co);
            state.posting += 1;
            if let Some(at) = request.deadline {
                state.deadline(at, key);
            }
            state.kick(&self.arc(), key, 0);
            if large {
                state.count_unsent(key, request.arguments.len());
            }
            Poll::Ready(Ok(key.co()))
        });
        if let Poll::Ready(Ok(co)) = &opened {
            outgoing.start(this, *co);
            if let Some(posted) = posted {
                self.traced(&posted, request.text.as_ref(), *co);
            }
        }
        opened
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
        let key = Key::from(co);
        let reply = self.with(|state| {
            loop {
                return Poll::Ready(match ready!(state.poll_next(this, key, 0, cx)) {
                    Ok(Next::Item(payload)) => Ok(Some(state.packed(this, key, payload))),
                    Ok(Next::End) => Ok(None),
                    // nothing of the kind belongs to the answer of a call
                    Ok(Next::Data(_)) => continue,
                    Ok(Next::Ready(received)) => {
                        state.dropped.push(Dropped::Received([received].into()));
                        continue;
                    }
                    Err(failure) => Err(failure),
                });
            }
        });
        let reply = ready!(reply);
        self.with(|state| {
            state.stop_receiving(key, 0, false);
            state.release(key);
        });
        Poll::Ready(match reply {
            Ok(Some(packed)) => Ok(Some(packed)),
            Ok(None) => Err(error(Failure::new(
                Kind::Protocol,
                "the peer ended the call without an answer",
            ))),
            Err(failure) => Err(error(*failure)),
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
        let key = Key::from(co);
        let mut outgoing = Outgoing::default();
        let sent = self.with(|state| {
            let Some(sending) = state.sending(key, channel) else {
                return Poll::Ready(Err(error(state.gone())));
            };
            if sending.state != SendState::Open {
                let refused = state.poll_refused(key, channel, cx);
                return refused.map(|why| Err(error(why)));
            }
            if !sending.has_room() {
                sending.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let sent = match message.take() {
                None => Ok(()),
                Some(Message::Data(bytes)) => {
                    sending.data(bytes);
                    Ok(())
                }
                Some(Message::Item(packed)) => {
                    state.send_item(this, (key, channel), packed, false, &mut outgoing)
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
                    state.send_script(this, key, &text, value, arguments, &mut outgoing)
                }
            };
            state.kick(&self.arc(), key, channel);
            // what cannot be sent was refused on this side
            Poll::Ready(sent.map_err(Error::from))
        });
        if let Poll::Ready(Ok(())) = &sent {
            outgoing.start(this, co);
        }
        sent
    }

    fn answer(&self, this: &Arc<dyn Link>, co: CoNumber, answer: Packed) {
        let key = Key::from(co);
        let mut outgoing = Outgoing::default();
        // what is not sent is dropped without the lock
        let mut answer = Some(answer);
        let answered = self.with(|state| {
            let sending = state.sending(key, 0);
            if sending.is_none_or(|sending| sending.state != SendState::Open) {
                return false;
            }
            let answer = answer.take().unwrap_or_default();
            if let Some(co) = state.conversations.get_mut(&key) {
                co.answering = answer.bytes().len();
                state.answering += co.answering;
            }
            let sent = state.send_item(this, (key, 0), answer, true, &mut outgoing);
            let failed = sent.is_err();
            if let Err(failure) = sent {
                state.fail(&self.arc(), key, &failure);
            }
            state.kick(&self.arc(), key, 0);
            !failed
        });
        if answered {
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
        let key = Key::from(co);
        let next = self.with(|state| {
            state
                .poll_next(this, key, channel, cx)
                .map_ok(|next| match next {
                    Next::Item(payload) => Some(Received::Item(state.packed(this, key, payload))),
                    Next::Data(bytes) => Some(Received::Data(bytes)),
                    Next::Ready(received) => Some(received),
                    Next::End => None,
                })
        });
        next.map_err(|failure| error(*failure))
    }

    fn poll_stopped(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        let key = Key::from(co);
        self.with(|state| {
            let Some(sending) = state.sending(key, channel) else {
                return Poll::Ready(());
            };
            let stopped = sending.poll_stopped(cx);
            if stopped.is_ready() {
                state.settle(key);
            }
            stopped
        })
    }

    fn poll_sent(&self, co: CoNumber, channel: u16, cx: &mut Context<'_>) -> Poll<()> {
        match self.lock().sending(Key::from(co), channel) {
            Some(sending) if !sending.is_empty() => {
                sending.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn end(&self, co: CoNumber, channel: u16) {
        let key = Key::from(co);
        self.with(|state| {
            if let Some(sending) = state.sending(key, channel) {
                sending.end();
                state.kick(&self.arc(), key, channel);
            }
        });
    }

    fn fail(&self, co: CoNumber, channel: u16, failure: Failure) {
        let key = Key::from(co);
        self.with(|state| {
            if channel == 0 {
                return state.fail(&self.arc(), key, &failure);
            }
            if state.fail_sending(key, channel, &failure) {
                state.kick(&self.arc(), key, channel);
            }
        });
    }

    fn stop(&self, co: CoNumber, channel: u16) {
        let key = Key::from(co);
        self.with(|state| {
            state.stop_receiving(key, channel, true);
            state.settle(key);
        });
    }

    fn release(&self, co: CoNumber) {
        let key = Key::from(co);
        self.with(|state| {
            state.stop_receiving(key, 0, !key.is_hosted());
            state.release(key);
        });
    }

    fn detach(&self, co: CoNumber) {
        let key = Key::from(co);
        let reading = self.with(|state| {
            if key.is_hosted() {
                state.stop_receiving(key, 0, false);
            }
            state.release(key);
            let co = state.conversations.get(&key);
            co.is_some_and(|co| matches!(co.receiving[0].state, ReceiveState::Open))
        });
        if reading {
            // it is over only when the peer has ended it
            self.runtime.spawn(drain(self.arc(), key));
        }
    }

    fn release_object(&self, number: u32) {
        self.with(|state| {
            state.tell(&Control::Release {
                object: number,
                count: 1,
            });
        });
    }

    fn goodbye(&self, deadline: Duration) {
        let by = now().checked_add(deadline);
        self.with(|state| {
            state.leave_by = by.or(state.leave_by);
            state.goodbye();
            state.stir = true;
        });
    }

    fn is_peer_leaving(&self) -> bool {
        self.lock().peer_leaving.is_some()
    }

    fn closed(&self) -> Option<Error> {
        let state = self.lock();
        state.closed.as_deref().map(|reason| reason.clone().into())
    }

    fn on_closed(&self) -> &Notify {
        &self.on_closed
    }
}

impl QuicLink {
    /// A conversation of this side has a span until its holder lets go of it.
    #[cold]
    fn traced(&self, posted: &Posted, text: Option<&Text<'_>>, co: CoNumber) {
        let call = match text {
            Some(Text::Stub(text)) => text.source().split('(').next(),
            _ => None,
        };
        // made and dropped without the lock: a subscriber may do anything
        let mut span = Some(posted.span(&self.info.peer_address, call));
        self.with(|state| {
            if let Some(co) = state.conversations.get_mut(&co.into()) {
                co.span = span.take();
            }
        });
    }
}
