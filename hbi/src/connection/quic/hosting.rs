//! Landing what the peer opened, in the order in which it was opened.

use std::{cmp::Reverse, sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    driver::QuicDriver,
    posting::ORDERED,
    receive::{ReceiveState, Receiving},
    send::{SendState, Sending},
    state::{Conversation, Dropped, Key, Prepare},
};
use crate::{
    Failure, Kind,
    connection::{handles, now, running::Running},
    endpoint::{
        Arrived, BoxFuture, Current, Hosted, Landed, Origin, Received, hosted_span,
        run_conversation, unbudgeted,
    },
    value::{Handles, Packed},
    wire::{
        mux::Violation,
        quic::{Open, STOP_CANCELLED, ScriptText},
    },
};

/// The number under which a text lands that was given none.
const SCRATCH: u32 = 0;

/// An opening that is to land.
pub(super) struct Opened {
    key: Key,
    script: Option<ScriptText<'static>>,
    value: bool,
    last: bool,
    current: Current,
    arguments: Bytes,
    handles: Handles,
    /// Held until it lands: of large ones no more come meanwhile than there is room for.
    room: Option<OwnedSemaphorePermit>,
}

impl Opened {
    /// Bytes that it keeps.
    fn size(&self) -> usize {
        let text = match &self.script {
            Some(ScriptText::Inline { parameters, source }) => {
                source.len() + parameters.iter().map(|name| name.len()).sum::<usize>()
            }
            _ => 0,
        };
        self.arguments.len() + text
    }
}

/// Ready with `true` once the peer wants no answer any more.
type Stopped = BoxFuture<bool>;

impl QuicDriver {
    /// A conversation arrived: it lands when all that were opened before it have.
    pub(super) fn opened(
        &mut self,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        reader: crate::wire::quic::Reader,
        open: Open,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Violation> {
        let key = Key::hosted(open.number);
        let deadline = open
            .remaining
            .and_then(|remaining| now().checked_add(remaining));
        let link = Arc::clone(&self.link);
        let (refused, handles) = link.with(|state| {
            state.learn(open.number)?;
            let refused = state.leaving.is_some_and(|last| open.number > last) && open.depth == 0;
            let mut receiving = Receiving::new(Some(recv), reader);
            if open.last {
                receiving.end(ReceiveState::Dropped);
            }
            receiving.seen = open.handles.len() as u32;
            state.hosting += 1;
            self.allowed.conversation(state.hosting, &link.conn);
            let co = Conversation::new(Sending::new(Some(send)), receiving);
            let old = state.conversations.insert(key, co);
            let old = old.map(|old| Dropped::Conversation(Box::new(old)));
            state.dropped.extend(old);
            state.add_received(key, &open.handles)?;
            if open.last && !open.handles.is_empty() {
                state.tell_seen(key, 0, open.handles.len() as u32);
            }
            if let Some(at) = deadline {
                state.deadline(at, key);
            }
            let handles = match &open.handles[..] {
                [] => Handles::new(),
                wire => handles::arrived(&self.this, key.co(), wire, &state.objects),
            };
            Ok((refused, handles))
        })?;
        if refused {
            let text = "the peer said goodbye before this could land; it was not acted upon";
            self.link.cancel(key, &Failure::new(Kind::NotLanded, text));
        }
        let opened = Opened {
            key,
            script: open.script,
            value: open.value,
            last: open.last,
            current: Current::arrived(deadline, open.depth, open.trace),
            arguments: open.arguments,
            handles,
            room,
        };
        match open.landing {
            0 => self.land_in_turn(opened),
            n if n == self.next_landing => {
                self.next_landing += 1;
                self.land_in_turn(opened);
            }
            n => self.hold(n, opened)?,
        }
        while let Some(opened) = self.held.remove(&self.next_landing) {
            self.next_landing += 1;
            self.held_bytes -= opened.size();
            self.land_in_turn(opened);
        }
        Ok(())
    }

    /// Lands an opening, or keeps it until the peer takes its answers.
    fn land_in_turn(&mut self, opened: Opened) {
        if self.waiting.is_empty() && !self.link.lock().is_backed_up() {
            self.land(opened);
        } else {
            self.waiting.push_back(opened);
        }
    }

    /// Lands what was kept, as much as may be now.
    pub(super) fn land_waiting(&mut self) {
        while !self.waiting.is_empty() && !self.link.lock().is_backed_up() {
            if let Some(opened) = self.waiting.pop_front() {
                self.land(opened);
            }
        }
    }

    /// Keeps an opening until those before it have come. Of a peer that leaves one out for ever this is
    /// all there will be, so there is an end to it.
    fn hold(&mut self, place: u64, mut opened: Opened) -> Result<(), Violation> {
        if place < self.next_landing {
            let text = format!("place {place} in the order was used before");
            return Err(Violation(text));
        }
        if opened.arguments.len() > ORDERED {
            return Err(Violation(format!(
                "an opening of {} bytes has a place in the order, which those up to {ORDERED} have",
                opened.arguments.len()
            )));
        }
        // those before it may need the room, and what is kept here is bounded by itself
        opened.room = None;
        self.held_bytes += opened.size();
        if self.held.insert(place, opened).is_some() {
            let text = format!("place {place} in the order was used twice");
            return Err(Violation(text));
        }
        let most = 4 * self.settings.conversations as usize;
        if self.held.len() > most || self.held_bytes as u64 > self.settings.held {
            return Err(Violation(format!(
                "{} openings of {} bytes wait for the one at place {}, at most {most} of {} bytes \
                 (`Settings::conversations`, `held`)",
                self.held.len(),
                self.held_bytes,
                self.next_landing,
                self.settings.held
            )));
        }
        Ok(())
    }

    fn land(&mut self, mut opened: Opened) {
        // cancelled, refused, or out of time while it waited
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let cancelled = self.link.with(|state| match state.sending(opened.key, 0) {
            Some(sending) => sending.poll_stopped(&mut cx).is_ready(),
            None => true,
        });
        if cancelled {
            let failure = Failure::new(Kind::Cancelled, CANCELLED);
            return self.link.cancel(opened.key, &failure);
        }
        if self.link.info.trace {
            let span = hosted_span(&mut opened.current, &self.link.info.peer_address);
            span.in_scope(|| self.land_opened(opened));
        } else {
            self.land_opened(opened);
        }
    }

    /// The number of a script, which is known from here on.
    fn define(&mut self, script: ScriptText<'_>) -> u32 {
        match script {
            ScriptText::Number(number) => number,
            ScriptText::Inline { parameters, source } => {
                let parameters: Vec<&str> = parameters.iter().map(|name| &**name).collect();
                self.landing.define(SCRATCH, &parameters, &source);
                SCRATCH
            }
        }
    }

    fn land_opened(&mut self, opened: Opened) {
        let Opened {
            key,
            script,
            value,
            last,
            current,
            arguments,
            handles,
            room,
        } = opened;
        drop(room);
        let this = Arc::clone(&self.this);
        let co = key.co();
        let origin = Origin {
            link: &this,
            co,
            current,
        };
        let Some(script) = script else {
            return self.run_on(key, origin.hosted(), None, value, last);
        };
        let arrived = Arrived {
            script: self.define(script),
            value,
            arguments: &arguments,
            handles,
            origin: &origin,
        };
        self.output.clear();
        let landed = unbudgeted(|| self.landing.land(arrived, &mut self.output));
        let packed = match landed {
            Landed::Waiting { future, hosted } => {
                let hosted = hosted.unwrap_or_else(|| origin.hosted());
                return self.run_on(key, hosted, Some(future), value, last);
            }
            Landed::Failed(failure) => {
                this.fail(co, 0, *failure);
                return this.detach(co);
            }
            Landed::Done(handles) => {
                Packed::from_parts(Bytes::copy_from_slice(&self.output), handles)
            }
        };
        if !last {
            // more comes in the conversation: it goes on in a task of its own
            let ready = Box::pin(std::future::ready(Ok(packed)));
            return self.run_on(key, origin.hosted(), Some(ready), value, last);
        }
        if value {
            this.answer(&this, co, packed);
        } else {
            this.end(co, 0);
        }
        this.detach(co);
    }

    /// Lets a conversation go on in a task of its own.
    fn run_on(
        &mut self,
        key: Key,
        hosted: Arc<Hosted>,
        opening: Option<BoxFuture<Result<Packed, Failure>>>,
        value: bool,
        last: bool,
    ) {
        let conversation = run_conversation(Arc::clone(&hosted), opening, value, last);
        let stopped = self.link.with(|state| -> Option<Stopped> {
            let stream = state.sending(key, 0)?.stream.as_ref()?;
            let stopped = stream.stopped();
            Some(Box::pin(async move {
                matches!(stopped.await, Ok(Some(code)) if code == STOP_CANCELLED.into())
            }))
        });
        let (link, watching) = (Arc::clone(&self.link), Arc::clone(&hosted));
        let watched = async move {
            tokio::pin!(conversation);
            let Some(stopped) = stopped else {
                return conversation.await;
            };
            tokio::select! {
                biased;
                () = &mut conversation => return,
                cancelled = stopped => if !cancelled { return conversation.await },
            }
            // it may not be kept yet, by which others would tell it
            watching.cancellation().cancel();
            link.cancel(key, &Failure::new(Kind::Cancelled, CANCELLED));
        };
        // without the lock: a runtime that shuts down drops it here, and with it what locks by itself
        let running = Running::start(watched, hosted, self.link.info.trace);
        let ended = self
            .link
            .with(|state| match state.conversations.get_mut(&key) {
                Some(co) if !co.released => co.running.replace(running),
                // it has ended meanwhile
                _ => Some(running),
            });
        drop(ended);
    }

    /// The peer is done with the main sequence of a conversation: before its end, the caller gave up. That
    /// it stops the stream says so as well, but is not repeated once this side has reset it.
    pub(super) fn given_up(&self, key: Key) {
        let open = self.link.with(|state| {
            let sending = state.sending(key, 0);
            sending.is_some_and(|sending| sending.state == SendState::Open)
        });
        if open {
            let failure = Failure::new(Kind::Cancelled, CANCELLED);
            self.link.cancel(key, &failure);
        }
    }

    /// Makes ready the scripts that came in open conversations.
    pub(super) fn prepare(&mut self) {
        let prepare = self.link.with(|state| std::mem::take(&mut state.prepare));
        for Prepare {
            key,
            script,
            value,
            arguments,
        } in prepare
        {
            let number = self.define(script);
            let prepared = self.landing.prepare(number);
            let received = Received::Script {
                prepared,
                value,
                arguments,
            };
            let left = self.link.with(|state| {
                let receiving = match state.conversations.get_mut(&key) {
                    Some(co) if !co.receiving[0].is_over() => &mut co.receiving[0],
                    _ => return Some(received),
                };
                receiving.preparing = false;
                receiving.ready.push_back(received);
                let waker = receiving.waker.take();
                state.wakers.extend(waker);
                None
            });
            drop(left);
        }
    }

    /// Ends what ran out of time.
    pub(super) fn expire(&mut self, now: Instant) {
        self.link
            .with(|state| state.line.expire(now, &mut state.wakers));
        loop {
            let link = &self.link;
            let expired = link.with(|state| {
                let Reverse((at, key)) = *state.deadlines.peek()?;
                if at > now {
                    return None;
                }
                state.deadlines.pop();
                Some(key)
            });
            let Some(key) = expired else { return };
            if key.is_hosted() {
                let text = "the deadline passed before the answer was there";
                link.cancel(key, &Failure::new(Kind::Timeout, text));
            } else {
                let text = "the deadline passed before the answer came";
                link.give_up(key, &Failure::new(Kind::Timeout, text));
            }
        }
    }
}

const CANCELLED: &str = "the caller dropped the call, or gave up";
