//! What arrived on a mux connection, and how it lands: openings become landings in their order, and
//! their answers are handed to the wire together.

use std::{
    collections::HashSet,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    driver::Driver,
    link::{MuxLink, State, number},
    work::{Answer, Called, Other, Place},
};
use crate::{
    Failure, Kind,
    connection::{
        connected,
        handles::{self, Outgoing},
        refused,
        running::Running,
    },
    endpoint::{
        Arrived, BoxFuture, CoNumber, Current, Landed, Link, Origin, Prepared, hosted_span,
        run_conversation, unbudgeted,
    },
    value::{Handles, Packed},
    wire::mux::{self, ANSWER_HEAD, Body, CoId, Event, Input, Open, Violation},
};

/// Landing stops while this much waits to be written; reading never does.
const BACKLOG: usize = 1 << 20;

/// Landings before other tasks of the runtime get their turn.
const LANDINGS_PER_TURN: usize = 4096;

/// Time that landings may take before other tasks get their turn.
const TIME_PER_TURN: Duration = Duration::from_millis(2);

/// Landings between looks at the clock.
const LANDINGS_PER_LOOK: usize = 16;

/// The same at most, while all before took less than an eighth of the time of a turn. So many may go on
/// after that time, if they take long behind such as did not.
const MOST_PER_LOOK: usize = 64;

/// An opening, with its arguments where they lie in the input or on their own.
pub(super) struct Opened {
    id: CoId,
    script: Option<u32>,
    /// The script, where its number means another by now.
    prepared: Option<Arc<dyn Prepared>>,
    value: bool,
    last: bool,
    /// It came after this side's goodbye.
    refused: bool,
    current: Current,
    arguments: Arguments,
    handles: Handles,
}

pub(super) enum Arguments {
    Input(Place),
    Own(Box<Bytes>),
}

impl From<Called> for Opened {
    fn from(called: Called) -> Self {
        Self {
            id: called.id,
            script: Some(called.script),
            prepared: None,
            value: true,
            last: true,
            refused: false,
            current: Called::CURRENT,
            arguments: Arguments::Input(called.arguments),
            handles: Handles::new(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Turns input into work, and does it.
    pub(super) fn take_apart(
        &mut self,
        link: &MuxLink,
        input: Input<'_>,
        at: &mut usize,
        now: Instant,
    ) -> Result<(), Violation> {
        let mut state = link.lock();
        // who is not let in is told so together with the preface
        let up = state.mux.peer_settings().is_some();
        let mut ready = false;
        let end = loop {
            let work = &mut self.scratch.work;
            let calls = state.mux.take_calls(input, at, |call| {
                self.opened += 1;
                work.push_call(Called {
                    id: call.id,
                    script: call.script,
                    arguments: Place::of(call.arguments, input.bytes()),
                });
            });
            if let Err(violation) = calls {
                break Err(violation);
            }
            match state.mux.receive(now, input, at) {
                Ok(None) => break Ok(()),
                Ok(Some(Event::Define {
                    number,
                    parameters,
                    source,
                })) => {
                    if self.landing.is_defined(number) {
                        // what came before means the old text
                        state.mux.take_wakers(&mut self.scratch.wakers);
                        drop(state);
                        if std::mem::take(&mut ready) {
                            connected(&mut *self.landing);
                        }
                        self.land_before(number, input.bytes());
                        state = link.lock();
                    }
                    self.landing.define(number, &parameters, source);
                }
                Ok(Some(Event::Ready)) => ready = true,
                Ok(Some(Event::Close { kind, reason })) => {
                    self.peer_ends(&mut state, kind, reason, up);
                }
                Ok(Some(event)) => match self.work(&mut state, event, input.bytes()) {
                    Ok(Some(other)) => self.scratch.work.push(other),
                    Ok(None) => {}
                    Err(violation) => break Err(violation),
                },
                Err(violation) => break Err(violation),
            }
        };
        state.mux.take_wakers(&mut self.scratch.wakers);
        let lost = state.take_lost();
        let may_land = state.may_land();
        let end = match may_land {
            true => end,
            false => end.and_then(|()| state.mux.check_unwritten()),
        };
        // nothing lands of a peer that turns this side away
        let refused = ready && self.peer_ends.is_some();
        let held_back = !may_land || !self.waiting.is_empty() || refused;
        drop(state);
        drop(lost);
        if ready && !refused {
            connected(&mut *self.landing);
        }
        if !self.scratch.work.is_empty() {
            if !held_back {
                unbudgeted(|| self.perform(input.bytes()));
            }
            if self.scratch.work.is_done() {
                self.scratch.work.clear();
            } else {
                self.hold(input.bytes());
            }
        }
        self.give_answers();
        end
    }

    /// The peer ends the connection, which was up before or not.
    #[cold]
    fn peer_ends(&mut self, state: &mut State, kind: Kind, reason: &str, up: bool) {
        let reason = refused::told(kind, reason, up);
        if !up {
            // nobody is to find that it is
            state.mux.close(reason.clone());
        }
        self.peer_ends = Some(reason);
    }

    /// Does what there is to do, as much as may be now.
    fn perform(&mut self, input: &[u8]) {
        // a few are over before there is a reason to look at the clock
        let mut watch = Watch::of(self.scratch.work.len());
        loop {
            if let Some(called) = self.scratch.work.next_call() {
                self.land_call(called, input);
            } else if let Some(other) = self.scratch.work.next_other() {
                match other {
                    Other::Land(opened) => self.land(*opened, input),
                    Other::Released(object) => drop(object),
                    Other::Cancel(id) => self.cancel(id, given_up()),
                }
            } else {
                return;
            }
            if self.scratch.answers.bytes.len() > BACKLOG || watch.ends_turn() {
                return;
            }
        }
    }

    /// Lands all that came before a script's text is replaced. What cannot land yet, since
    /// too much waits to be written, keeps the old text.
    fn land_before(&mut self, number: u32, input: &[u8]) {
        self.hold(input);
        while self.land_waiting() {}
        if self.held.remove(&number) {
            for opened in &mut self.waiting {
                if opened.script == Some(number) && opened.prepared.is_none() {
                    opened.prepared = Some(self.landing.prepare(number));
                }
            }
        }
    }

    /// Keeps openings until there is time and room for them. What the peer gives up is not kept: it may
    /// be what makes room.
    fn hold(&mut self, input: &[u8]) {
        let mut cancelled = Vec::new();
        loop {
            if let Some(called) = self.scratch.work.next_call() {
                self.wait(called.into(), input);
            } else if let Some(other) = self.scratch.work.next_other() {
                match other {
                    Other::Land(opened) => self.wait(*opened, input),
                    Other::Released(object) => drop(object),
                    Other::Cancel(id) => cancelled.push(id),
                }
            } else {
                break;
            }
        }
        self.scratch.work.clear();
        self.forget_waiting(&cancelled);
        for id in cancelled {
            self.cancel(id, given_up());
        }
    }

    fn wait(&mut self, opened: Opened, input: &[u8]) {
        self.held.extend(opened.script);
        self.waiting.push_back(opened.own(input));
    }

    /// What an event asks for.
    fn work(
        &mut self,
        state: &mut State,
        event: Event<'_>,
        input: &[u8],
    ) -> Result<Option<Other>, Violation> {
        Ok(Some(match event {
            Event::Open(open) => {
                self.opened += 1;
                Other::Land(Box::new(self.opened(state, open, input)))
            }
            Event::Script(arrival) => {
                let begun = state.mux.take_begun(arrival.id);
                let prepared = begun.unwrap_or_else(|| self.landing.prepare(arrival.script));
                state.mux.push_script(arrival, prepared);
                return Ok(None);
            }
            Event::Begun { id, script } => {
                state.mux.keep_begun(id, self.landing.prepare(script));
                return Ok(None);
            }
            Event::Cancelled(id) => Other::Cancel(id),
            Event::Released { object, count } if state.mux.has_unread_objects() => {
                let released = state.objects.take_back_late(object, count);
                return released
                    .map(|()| None)
                    .map_err(|()| over_released(object, count));
            }
            Event::Released { object, count } => match state.objects.take_back(object, count) {
                Ok(Some(object)) => Other::Released(object),
                Ok(None) => return Ok(None),
                Err(()) => return Err(over_released(object, count)),
            },
            Event::Ready | Event::Goodbye | Event::Close { .. } | Event::Define { .. } => {
                return Ok(None);
            }
        }))
    }

    fn opened(&self, state: &mut State, open: Open<'_>, input: &[u8]) -> Opened {
        let mut prepared = None;
        let arguments = match open.arguments {
            Body::Input(bytes) => Arguments::Input(Place::of(bytes, input)),
            Body::Joined(bytes) => {
                // the number means what it did when the opening began
                let begun = state.mux.take_begun(open.id).zip(open.script);
                let old = begun.filter(|(begun, script)| !self.landing.means(*script, begun));
                prepared = old.map(|(begun, _)| begun);
                Arguments::Own(bytes)
            }
        };
        let handles = match &open.handles[..] {
            [] => Handles::new(),
            wire => handles::arrived(&self.this, number(open.id), wire, &state.objects),
        };
        Opened {
            id: open.id,
            script: open.script,
            prepared,
            value: open.value,
            last: open.last,
            refused: open.refused,
            current: Current::arrived(open.deadline, open.depth, open.trace),
            arguments,
            handles,
        }
    }

    /// Drops openings that were over before they landed.
    pub(super) fn forget_waiting(&mut self, over: &[CoId]) {
        if self.waiting.is_empty() || over.is_empty() {
            return;
        }
        let over: HashSet<&CoId> = over.iter().collect();
        self.waiting.retain(|opened| !over.contains(&opened.id));
        if self.waiting.is_empty() {
            self.held.clear();
        }
    }

    /// Lands what was held back, as much as may be now; `true` when something was done.
    pub(super) fn land_waiting(&mut self) -> bool {
        if self.waiting.is_empty() || !self.link.lock().may_land() {
            return false;
        }
        let mut watch = Watch::of(self.waiting.len());
        unbudgeted(|| {
            for _ in 0..LANDINGS_PER_TURN {
                let Some(opened) = self.waiting.pop_front() else {
                    break;
                };
                self.land(opened, &[]);
                if self.scratch.answers.bytes.len() > BACKLOG || watch.ends_turn() {
                    break;
                }
            }
        });
        self.give_answers();
        if self.waiting.is_empty() {
            self.held.clear();
        }
        true
    }

    /// Lands a call; whatever is not as usual is for [`Self::land`].
    fn land_call(&mut self, called: Called, input: &[u8]) {
        if self.link.info().trace {
            return self.land(called.into(), input);
        }
        let Called {
            id,
            script,
            arguments,
        } = called;
        let origin = origin(&self.this, id, &Called::CURRENT);
        let arrived = Arrived {
            script,
            value: true,
            arguments: arguments.within(input),
            handles: Handles::new(),
            origin: &origin,
        };
        let answers = &mut self.scratch.answers;
        let from = answers.begin(id);
        match self.landing.land(arrived, &mut answers.bytes) {
            Landed::Done(handles) => answers.end(id, from, handles),
            landed => self.landed(id, landed, from, &Called::CURRENT, true, true),
        }
    }

    fn land(&mut self, mut opened: Opened, input: &[u8]) {
        if self.link.info().trace {
            let peer = &self.link.info().peer_address;
            let span = hosted_span(&mut opened.current, peer);
            span.in_scope(|| self.land_opened(opened, input));
        } else {
            self.land_opened(opened, input);
        }
    }

    fn land_opened(&mut self, opened: Opened, input: &[u8]) {
        let Opened {
            id,
            script,
            prepared,
            value,
            last,
            refused,
            current,
            arguments,
            handles,
        } = opened;
        if refused {
            let failure = Answer::Failed(id, mux::not_landed());
            return self.scratch.answers.push(failure);
        }
        let origin = origin(&self.this, id, &current);
        let Some(script) = script else {
            let hosted = origin.hosted();
            return self.run_on(id, hosted, None, value, last);
        };
        let bytes = match &arguments {
            Arguments::Input(place) => place.within(input),
            Arguments::Own(bytes) => &bytes[..],
        };
        if let Some(prepared) = prepared {
            let hosted = origin.hosted();
            let arguments = Packed::from_parts(Bytes::copy_from_slice(bytes), handles);
            let mut landing = prepared.land(arguments, Arc::clone(&hosted));
            if !value {
                landing = self.landing.unheard(landing);
            }
            return self.run_on(id, hosted, Some(landing), value, last);
        }
        let from = self.scratch.answers.begin(id);
        let arrived = Arrived {
            script,
            value,
            arguments: bytes,
            handles,
            origin: &origin,
        };
        let landed = self.landing.land(arrived, &mut self.scratch.answers.bytes);
        self.landed(id, landed, from, &current, value, last);
    }

    /// Sees to what came of a landing; its value, if there is one, stands at the end of the answers.
    fn landed(
        &mut self,
        id: CoId,
        landed: Landed,
        from: usize,
        current: &Current,
        value: bool,
        last: bool,
    ) {
        let handles = match landed {
            Landed::Waiting { future, hosted } => {
                self.scratch.answers.bytes.truncate(from);
                let hosted = hosted.unwrap_or_else(|| origin(&self.this, id, current).hosted());
                return self.run_on(id, hosted, Some(future), value, last);
            }
            Landed::Failed(failure) => {
                self.scratch.answers.bytes.truncate(from);
                return self.scratch.answers.push(Answer::Failed(id, failure));
            }
            Landed::Done(handles) => handles,
        };
        let answers = &mut self.scratch.answers;
        if last && value {
            return answers.end(id, from, handles);
        }
        if last {
            answers.bytes.truncate(from);
            return answers.push(Answer::End(id));
        }
        let bytes = Bytes::copy_from_slice(&answers.bytes[from + ANSWER_HEAD..]);
        let packed = Packed::from_parts(bytes, handles);
        answers.bytes.truncate(from);
        // more comes in the conversation: it goes on in a task of its own
        let hosted = origin(&self.this, id, current).hosted();
        let landing = Box::pin(std::future::ready(Ok(packed)));
        self.run_on(id, hosted, Some(landing), value, last);
    }

    /// Lets a conversation go on in a task of its own.
    fn run_on(
        &mut self,
        id: CoId,
        hosted: Arc<crate::endpoint::Hosted>,
        opening: Option<BoxFuture<Result<Packed, Failure>>>,
        value: bool,
        last: bool,
    ) {
        let conversation = run_conversation(Arc::clone(&hosted), opening, value, last);
        let running = Running::start(conversation, hosted, self.link.info().trace);
        let kept = self.link.lock().mux.keep(id, running);
        drop(kept);
    }

    pub(super) fn cancel(&mut self, id: CoId, failure: Box<Failure>) {
        let running = self.link.lock().mux.unkeep(id);
        if let Some(running) = running {
            running.cancel();
        }
        self.scratch.answers.push(Answer::Failed(id, failure));
    }

    /// Hands the answers of landings to the wire, under one lock.
    #[inline]
    pub(super) fn give_answers(&mut self) {
        if self.scratch.answers.is_empty() {
            return;
        }
        let mut streams: Vec<(CoNumber, Outgoing, bool)> = Vec::new();
        let mut state = self.link.lock();
        let answers = &mut self.scratch.answers;
        let (mut at, end) = (0, answers.bytes.len());
        while let Some((before, answer)) = answers.others.pop_front() {
            write_values(&mut state, &mut answers.bytes, at..before);
            at = before;
            match answer {
                Answer::Apart {
                    id,
                    end,
                    mut handles,
                } => {
                    let bytes = &answers.bytes[at + ANSWER_HEAD..end];
                    at = end;
                    if handles.is_empty() {
                        let _ = state.mux.answer(id, bytes, &[]);
                        continue;
                    }
                    let mut outgoing = Outgoing::default();
                    let sent = state.answer(&mut outgoing, &self.this, id, bytes, &mut handles);
                    streams.push((number(id), outgoing, sent));
                }
                Answer::End(id) => state.mux.end_unwatched(id),
                Answer::Failed(id, failure) => state.mux.fail(id, 0, &failure),
            }
        }
        write_values(&mut state, &mut answers.bytes, at..end);
        state.mux.take_wakers(&mut self.scratch.wakers);
        let dropped = state.mux.take_dropped();
        let lost = state.take_lost();
        drop(state);
        drop((dropped, lost));
        self.scratch.answers.bytes.clear();
        for (co, outgoing, sent) in streams {
            if sent {
                outgoing.start(&self.this, co);
            }
        }
    }
}

impl State {
    /// Whether the peer takes its answers.
    #[inline]
    pub(super) fn may_land(&self) -> bool {
        self.mux.unwritten() <= BACKLOG && !self.mux.is_backed_up()
    }
}

/// Sees to it that landings take no longer than a turn may.
struct Watch {
    /// Where there are enough of them to look at the time.
    began: Option<Instant>,
    landings: usize,
    next_look: usize,
}

impl Watch {
    /// For so many landings.
    fn of(landings: usize) -> Self {
        Self {
            began: (landings >= LANDINGS_PER_LOOK).then(Instant::now),
            landings: 0,
            next_look: LANDINGS_PER_LOOK,
        }
    }

    /// Counts a landing; whether it is the last of this turn.
    #[inline]
    fn ends_turn(&mut self) -> bool {
        self.landings += 1;
        self.landings == self.next_look
            && self.began.is_some_and(|began| self.took(began.elapsed()))
    }

    /// So long it took until now; whether that is too long.
    fn took(&mut self, time: Duration) -> bool {
        self.next_look += match time < TIME_PER_TURN / 8 {
            true => self.landings.min(MOST_PER_LOOK),
            false => LANDINGS_PER_LOOK,
        };
        time > TIME_PER_TURN
    }
}

/// Answers with the values whose frames stand in a part of `bytes`: those that can leave as they are
/// together.
#[inline]
fn write_values(state: &mut State, bytes: &mut Vec<u8>, part: Range<usize>) {
    if part.is_empty() {
        return;
    }
    let mut run = part.start..part.start;
    while run.end < part.end {
        let (wire, len) = mux::answer_at(&bytes[run.end..]);
        if state.mux.takes_answer(wire, len - ANSWER_HEAD) {
            run.end += len;
            continue;
        }
        let next = run.end + len;
        state.mux.write_answers(bytes, run.clone());
        if let Some(id) = state.mux.hosted(wire) {
            let value = &bytes[run.end + ANSWER_HEAD..next];
            let _ = state.mux.answer(id, value, &[]);
        }
        run = next..next;
    }
    state.mux.write_answers(bytes, run);
}

impl Called {
    /// What calls made while it lands inherit.
    const CURRENT: Current = Current {
        depth: 1,
        ..Current::NONE
    };
}

fn origin<'a>(link: &'a Arc<dyn Link>, id: CoId, current: &Current) -> Origin<'a> {
    Origin {
        link,
        co: number(id),
        current: *current,
    }
}

fn over_released(object: u32, count: u32) -> Violation {
    Violation(format!(
        "object {object} released {count} times more than it was given out"
    ))
}

#[cold]
fn given_up() -> Box<Failure> {
    let text = "the caller dropped the call, or gave up";
    Box::new(Failure::new(Kind::Cancelled, text))
}

impl Opened {
    /// The same, with nothing left in the input.
    fn own(mut self, input: &[u8]) -> Self {
        if let Arguments::Input(place) = &self.arguments {
            let own = Bytes::copy_from_slice(place.within(input));
            self.arguments = Arguments::Own(Box::new(own));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many landings that take so long each the clock is looked at, until the turn ends.
    fn looks(most: usize, each: impl Fn(usize) -> Duration) -> Vec<usize> {
        let mut watch = Watch::of(most);
        let (mut looks, mut time) = (Vec::new(), Duration::ZERO);
        for landing in 1..=most {
            time += each(landing);
            watch.landings = landing;
            if landing == watch.next_look {
                looks.push(landing);
                if watch.took(time) {
                    break;
                }
            }
        }
        looks
    }

    #[test]
    fn the_clock_is_looked_at_as_often_as_landings_take_time() {
        let (short, long) = (Duration::from_nanos(200), Duration::from_millis(1));
        assert_eq!(looks(300, |_| short), [16, 32, 64, 128, 192, 256]);
        assert_eq!(looks(300, |_| long), [16]);
        assert_eq!(
            looks(300, |_| Duration::from_micros(30)),
            [16, 32, 48, 64, 80]
        );
        // what takes long behind what does not is found out at the next look
        let mixed = |landing| if landing > 150 { long } else { short };
        assert_eq!(looks(300, mixed), [16, 32, 64, 128, 192]);
        // a few are over before there is a reason to look
        assert!(Watch::of(15).began.is_none() && Watch::of(16).began.is_some());
    }
}
