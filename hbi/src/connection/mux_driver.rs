//! The task of a mux connection: reads, lands what arrived, and writes what came together.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Sleep,
};
use tracing::Instrument;

use super::{
    handles::{self, Outgoing},
    mux::{MuxLink, Running, State, now, number},
    pace::Pace,
    refused,
};
use crate::{
    Error, Failure, Kind,
    endpoint::{
        Arrived, BoxFuture, CoNumber, Current, Landed, Landing, Link, Origin, Prepared,
        hosted_span, run_conversation,
    },
    value::{Handles, Packed},
    wire::mux::{Body, CoId, Event, Open, Output, Violation},
};

/// The smallest and the largest read buffer. Bulk keeps hold of the buffer it came in, so the next
/// is a new one: a larger one than this would be mapped by the system each time, page by page.
const READ_LEAST: usize = 1 << 10;
const READ_MOST: usize = 64 << 10;

/// Landing stops while this much of answers waits to be written; reading never does.
const BACKLOG: usize = 1 << 20;

/// Landings before other tasks of the runtime get their turn.
const LANDINGS_PER_TURN: usize = 4096;

/// Time that landings may take before other tasks get their turn.
const TIME_PER_TURN: Duration = Duration::from_millis(2);

/// Landings between looks at the clock.
const LANDINGS_PER_LOOK: usize = 16;

/// How long a connection is silent before it gives its buffers back.
const TIDY_AFTER: Duration = Duration::from_millis(200);

/// How long the peer may take to hang up after both said goodbye.
const LINGER: Duration = Duration::from_secs(1);

/// Drives one connection; the future of [`Driver::run`] is its task.
pub(crate) struct Driver<S> {
    link: Arc<MuxLink>,
    this: Arc<dyn Link>,
    stream: S,
    landing: Box<dyn Landing>,
    input: BytesMut,
    /// There is input that was read before the driver began.
    unread: bool,
    /// Since when the beginning of a frame waits for its rest, and since when the transport takes
    /// nothing of what is to be written.
    partial: Option<Instant>,
    blocked: Option<Instant>,
    /// The size of the next read buffer.
    appetite: usize,
    /// How fast the peer may open conversations, how many it has since that was looked at, and until
    /// when nothing is read since it opened more.
    pace: Option<Pace>,
    opened: u32,
    paused: Option<Instant>,
    output: Output,
    /// What one read brought; empty between reads.
    work: Vec<Work>,
    /// What arrived and did not land yet.
    waiting: VecDeque<Work>,
    /// Numbers of scripts that openings among it ask for.
    held: HashSet<u32>,
    answers: Answers,
    wakers: Vec<Waker>,
    /// Others had their turn to add to what is to be written.
    gathered: bool,
    written_all: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    tidy_at: Option<Instant>,
    hung_up: bool,
    linger_until: Option<Instant>,
    /// Why the peer ends the connection.
    peer_ends: Option<Failure>,
}

/// What the driver has to do for something that arrived.
enum Work {
    Land(Opened),
    Released(Arc<dyn crate::endpoint::Object>),
    Cancel(CoId, Box<Failure>),
}

/// An opening, with its arguments where they lie in the input or on their own.
struct Opened {
    id: CoId,
    script: Option<u32>,
    /// The script, where its number means another by now.
    prepared: Option<Arc<dyn Prepared>>,
    value: bool,
    last: bool,
    current: Current,
    arguments: Arguments,
    handles: Handles,
}

enum Arguments {
    Input(Range<usize>),
    Own(Bytes),
}

/// Answers of landings, until the state is locked the next time.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    list: Vec<Answer>,
}

enum Answer {
    Value(CoId, Range<usize>, Handles),
    End(CoId),
    Failed(CoId, Box<Failure>),
}

impl<S> std::fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({:?})", self.link)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// A driver of a connected stream.
    pub(crate) fn new(link: Arc<MuxLink>, stream: S, landing: Box<dyn Landing>) -> Self {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let timer_at = timer.deadline().into_std();
        Self {
            this: Arc::clone(&link) as Arc<dyn Link>,
            link,
            stream,
            landing,
            input: BytesMut::new(),
            unread: false,
            partial: None,
            blocked: None,
            appetite: READ_LEAST,
            pace: None,
            opened: 0,
            paused: None,
            output: Output::default(),
            work: Vec::new(),
            waiting: VecDeque::new(),
            held: HashSet::new(),
            answers: Answers::default(),
            wakers: Vec::new(),
            gathered: false,
            written_all: true,
            timer,
            timer_at,
            tidy_at: None,
            hung_up: false,
            linger_until: None,
            peer_ends: None,
        }
    }

    /// The same, where this much was read already.
    pub(crate) fn with_input(mut self, input: BytesMut) -> Self {
        self.unread = !input.is_empty();
        self.input = input;
        self
    }

    /// The same, for a peer that may open so many conversations in a second.
    pub(crate) fn with_pace(mut self, per_second: Option<u32>) -> Self {
        self.pace = per_second.map(Pace::new);
        self
    }

    /// Drives the connection to its end. Boxed, since a future keeps what it is made of beside what it
    /// works with: connections are many.
    pub(crate) async fn run(mut self: Box<Self>) {
        self.link.started();
        let reason = match poll_fn(|cx| self.poll(cx)).await {
            End::Goodbye => {
                self.link.lock().ended_well = true;
                cut("both sides said goodbye")
            }
            End::Failed(failure) => failure,
        };
        self.finish(reason);
    }

    /// Tells the peer why it is refused, and waits a moment for it to hang up: a transport that is
    /// closed with input unread may lose what was written last.
    pub(crate) async fn refuse(link: Arc<MuxLink>, mut stream: S, kind: Kind, reason: &str) {
        let mut bytes = Vec::new();
        {
            let mut state = link.lock();
            state.mux.write_close(kind, reason);
            let mut output = Output::default();
            state.mux.fill(&mut output);
            bytes.extend_from_slice(output.as_slice().unwrap_or_default());
            let mut wakers = Vec::new();
            state.close(Failure::new(kind, reason), &mut wakers);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
        let told = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            let mut unread = [0; 1024];
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        // whatever comes of it, the peer is refused
        let _ = tokio::time::timeout(LINGER, told).await;
    }

    /// Runs the application's hook, once both sides know each other: it starts before anything
    /// lands; once it waits the rest may start.
    fn connected(&mut self) {
        if let Some(mut hook) = self.landing.connected() {
            let mut cx = Context::from_waker(Waker::noop());
            if hook.as_mut().poll(&mut cx).is_pending() {
                // its task polls it again, with a waker
                tokio::spawn(hook);
            }
        }
    }

    fn finish(&mut self, reason: Failure) {
        let mut state = self.link.lock();
        state.close(reason.clone(), &mut self.wakers);
        let running = state.mux.take_dropped();
        let objects = state.objects.take_all();
        drop(state);
        running.into_iter().for_each(Running::cancel);
        drop(objects);
        self.waiting.clear();
        self.wake();
        self.landing.disconnected(&Error::from(reason));
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let now = now();
            match self.turn(cx, now) {
                Ok(Turn::Again) => continue,
                Ok(Turn::Gather) => {
                    // what callers add once they were woken goes out with what is there
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Turn::Idle) => {}
                Err(end) => return Poll::Ready(end),
            }
            let mut state = self.link.lock();
            if !self.written_all {
                // the transport wakes this task; until then nobody else has to
                return Poll::Pending;
            }
            if state.mux.has_output() {
                continue;
            }
            state.sleep(cx.waker());
            drop(state);
            if self.arm_tidy(now) {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Reads, lands, writes, and looks at the time, each once.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Turn, End> {
        let busy = self.poll_input(cx, now)? | self.land_waiting();
        self.wake();
        if self.poll_output(cx, busy, now)?.is_ready() {
            return Ok(Turn::Gather);
        }
        self.poll_timer(cx, now)?;
        self.poll_goodbye(cx, now)?;
        Ok(if busy { Turn::Again } else { Turn::Idle })
    }

    /// Reads once, and takes apart what came; `true` when something did.
    fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, End> {
        // the timer wakes this task when a pause is over
        self.paused = self.paused.filter(|until| *until > now);
        if self.hung_up || self.paused.is_some() {
            return Ok(false);
        }
        let spare = self.input.capacity() - self.input.len();
        if spare < READ_LEAST / 2 || spare < self.appetite / 4 {
            self.input.reserve(self.appetite);
        }
        let before = self.input.len();
        let room = self.input.capacity() - before;
        let read = if std::mem::take(&mut self.unread) {
            Poll::Ready(Ok(before))
        } else {
            read_some(&mut self.stream, &mut self.input, cx)
        };
        let n = match read {
            Poll::Pending => {
                self.appetite = (self.appetite / 2).max(READ_LEAST).max(self.input.len());
                return Ok(false);
            }
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) => return Err(self.lost(error)),
        };
        if n == 0 {
            self.hung_up = true;
            return Err(self.ended());
        }
        if n == room {
            self.appetite = (room * 2).clamp(READ_LEAST, READ_MOST);
        }
        let mut input = std::mem::take(&mut self.input).freeze();
        let mut at = 0;
        let taken = self.take_apart(&input, &mut at, now);
        let opened = std::mem::take(&mut self.opened);
        self.paused = match &mut self.pace {
            Some(pace) => pace.opened(opened, now),
            None => None,
        };
        input.advance(at);
        if at > 0 || input.is_empty() {
            self.partial = None;
        }
        if !input.is_empty() {
            self.partial.get_or_insert(now);
        }
        // usually nobody else holds a part of the buffer, and it is used again
        self.input = input
            .try_into_mut()
            .unwrap_or_else(|held| BytesMut::from(&held[..]));
        if let Err(violation) = taken {
            // what came before it is answered, then the peer is told why nothing more is
            self.link
                .lock()
                .mux
                .write_close(Kind::Protocol, &violation.0);
            self.write_now(cx);
            return Err(End::Failed(Failure::new(Kind::Protocol, violation.0)));
        }
        match self.peer_ends.take() {
            Some(failure) => Err(End::Failed(failure)),
            None => Ok(true),
        }
    }

    /// What it means that the peer closed its half.
    fn ended(&self) -> End {
        let state = self.link.lock();
        let (ours, theirs) = state.mux.goodbyes();
        if (ours || theirs) && state.mux.is_over() {
            return End::Goodbye;
        }
        End::Failed(if state.mux.peer_settings().is_none() {
            cut(
                "the peer closed the connection before it said anything: check host, port and scheme",
            )
        } else {
            cut("the peer closed the connection without a goodbye")
        })
    }

    /// What it means that the transport failed.
    fn lost(&self, error: io::Error) -> End {
        let state = self.link.lock();
        let (ours, theirs) = state.mux.goodbyes();
        if ours && theirs && state.mux.is_over() {
            return End::Goodbye;
        }
        if error.kind() == io::ErrorKind::PermissionDenied {
            return End::Failed(Failure::new(Kind::Refused, error.to_string()));
        }
        End::Failed(cut(&error.to_string()))
    }

    /// Turns input into work, and does it.
    fn take_apart(&mut self, input: &Bytes, at: &mut usize, now: Instant) -> Result<(), Violation> {
        let mut work = std::mem::take(&mut self.work);
        let link = Arc::clone(&self.link);
        let mut state = link.lock();
        // who is not let in is told so together with the preface
        let up = state.mux.peer_settings().is_some();
        let end = loop {
            match state.mux.receive(now, input, at) {
                Ok(None) => break Ok(()),
                Ok(Some(Event::Define {
                    number,
                    parameters,
                    source,
                })) => {
                    if self.landing.is_defined(number) {
                        // what came before means the old text
                        state.mux.take_wakers(&mut self.wakers);
                        drop(state);
                        self.land_before(number, &mut work, input);
                        state = link.lock();
                    }
                    self.landing.define(number, &parameters, source);
                }
                Ok(Some(Event::Ready)) => {
                    drop(state);
                    self.connected();
                    state = link.lock();
                }
                Ok(Some(Event::Close { kind, reason })) => {
                    self.peer_ends = Some(refused::told(kind, reason, up));
                }
                Ok(Some(event)) => match self.work(&mut state, event, input) {
                    Ok(Some(done)) => work.push(done),
                    Ok(None) => {}
                    Err(violation) => break Err(violation),
                },
                Err(violation) => break Err(violation),
            }
        };
        state.mux.take_wakers(&mut self.wakers);
        let lost = state.take_lost();
        drop(state);
        drop(lost);
        let held_back = !self.waiting.is_empty();
        let began = Instant::now();
        let mut landings = 0;
        let mut rest = work.drain(..);
        for item in rest.by_ref() {
            if held_back {
                self.hold(item, input);
                continue;
            }
            self.perform(item, input);
            landings += 1;
            if self.answers.bytes.len() > BACKLOG
                || landings % LANDINGS_PER_LOOK == 0 && began.elapsed() > TIME_PER_TURN
            {
                break;
            }
        }
        for item in rest {
            self.hold(item, input);
        }
        self.work = work;
        self.give_answers();
        end
    }

    /// Lands what waits, and `work`, before a script's text is replaced. What cannot land yet, since
    /// too much waits to be written, keeps the old text.
    fn land_before(&mut self, number: u32, work: &mut Vec<Work>, input: &Bytes) {
        for work in work.drain(..) {
            self.hold(work, input);
        }
        while self.land_waiting() {}
        if self.held.remove(&number) {
            for work in &mut self.waiting {
                if let Work::Land(opened) = work
                    && opened.script == Some(number)
                    && opened.prepared.is_none()
                {
                    opened.prepared = Some(self.landing.prepare(number));
                }
            }
        }
    }

    /// Keeps work until there is time and room for it.
    fn hold(&mut self, work: Work, input: &Bytes) {
        if let Work::Land(Opened {
            script: Some(number),
            ..
        }) = work
        {
            self.held.insert(number);
        }
        self.waiting.push_back(work.own(input));
    }

    /// What an event asks for.
    fn work(
        &mut self,
        state: &mut State,
        event: Event<'_>,
        input: &Bytes,
    ) -> Result<Option<Work>, Violation> {
        Ok(Some(match event {
            Event::Open(open) => {
                self.opened += 1;
                Work::Land(self.opened(state, open, input))
            }
            Event::Script(arrival) => {
                let prepared = self.landing.prepare(arrival.script);
                state.mux.push_script(arrival, prepared);
                return Ok(None);
            }
            Event::Cancelled(id) => {
                let text = "the caller dropped the call, or gave up";
                Work::Cancel(id, Box::new(Failure::new(Kind::Cancelled, text)))
            }
            Event::Released { object, count } => match state.objects.take_back(object, count) {
                Ok(Some(object)) => Work::Released(object),
                Ok(None) => return Ok(None),
                Err(()) => {
                    return Err(Violation(format!(
                        "object {object} released {count} times more than it was given out"
                    )));
                }
            },
            Event::Ready | Event::Goodbye | Event::Close { .. } | Event::Define { .. } => {
                return Ok(None);
            }
        }))
    }

    fn opened(&self, state: &State, open: Open<'_>, input: &Bytes) -> Opened {
        let arguments = match open.arguments {
            Body::Input(bytes) => {
                let from = bytes.as_ptr() as usize - input.as_ptr() as usize;
                Arguments::Input(from..from + bytes.len())
            }
            Body::Joined(bytes) => Arguments::Own(bytes),
        };
        let handles = match &open.handles[..] {
            [] => Handles::new(),
            wire => handles::arrived(&self.this, number(open.id), wire, &state.objects),
        };
        Opened {
            id: open.id,
            script: open.script,
            prepared: None,
            value: open.value,
            last: open.last,
            current: Current::arrived(open.deadline, open.depth, open.trace),
            arguments,
            handles,
        }
    }

    /// Lands what was held back, as much as may be now; `true` when something was done.
    fn land_waiting(&mut self) -> bool {
        if self.waiting.is_empty() {
            self.held.clear();
            return false;
        }
        if self.link.lock().mux.unwritten() > BACKLOG {
            return false;
        }
        let began = Instant::now();
        let input = Bytes::new();
        for landings in 1..=LANDINGS_PER_TURN {
            let Some(work) = self.waiting.pop_front() else {
                break;
            };
            self.perform(work, &input);
            if self.answers.bytes.len() > BACKLOG
                || landings % LANDINGS_PER_LOOK == 0 && began.elapsed() > TIME_PER_TURN
            {
                break;
            }
        }
        self.give_answers();
        true
    }

    fn perform(&mut self, work: Work, input: &[u8]) {
        match work {
            Work::Land(opened) => self.land(opened, input),
            Work::Released(object) => drop(object),
            Work::Cancel(id, failure) => self.cancel(id, failure),
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
            current,
            arguments,
            handles,
        } = opened;
        let co = number(id);
        let origin = Origin {
            link: &self.this,
            co,
            current,
        };
        let Some(script) = script else {
            let hosted = origin.hosted();
            return self.run_on(id, hosted, None, value, last, false);
        };
        let bytes = match &arguments {
            Arguments::Input(range) => &input[range.clone()],
            Arguments::Own(bytes) => &bytes[..],
        };
        if let Some(prepared) = prepared {
            let hosted = origin.hosted();
            let arguments = Packed::from_parts(Bytes::copy_from_slice(bytes), handles);
            let landing = prepared.land(arguments, Arc::clone(&hosted));
            return self.run_on(id, hosted, Some(landing), value, last, false);
        }
        let from = self.answers.bytes.len();
        let arrived = Arrived {
            script,
            value,
            arguments: bytes,
            handles,
            origin,
        };
        let landed = self.landing.land(arrived, &mut self.answers.bytes);
        let range = from..self.answers.bytes.len();
        let ready = match landed {
            Landed::Waiting {
                future,
                hosted,
                detached,
            } => {
                let hosted = hosted.unwrap_or_else(|| origin.hosted());
                return self.run_on(id, hosted, Some(future), value, last, detached);
            }
            Landed::Failed(failure) => {
                return self.answers.list.push(Answer::Failed(id, failure));
            }
            Landed::Done(handles) => Some((range, handles)),
            Landed::Effect => None,
        };
        if last {
            self.answers.list.push(match ready {
                Some((range, handles)) if value => Answer::Value(id, range, handles),
                None if value => {
                    let from = self.answers.bytes.len();
                    self.answers.bytes.extend_from_slice(Packed::nil().bytes());
                    Answer::Value(id, from..from + 1, Handles::new())
                }
                _ => Answer::End(id),
            });
            return;
        }
        // more comes in the conversation: it goes on in a task of its own
        let packed = match ready {
            Some((range, handles)) => {
                let bytes = Bytes::copy_from_slice(&self.answers.bytes[range]);
                Packed::from_parts(bytes, handles)
            }
            None => Packed::nil(),
        };
        let hosted = origin.hosted();
        self.run_on(
            id,
            hosted,
            Some(Box::pin(std::future::ready(Ok(packed)))),
            value,
            last,
            false,
        );
    }

    /// Lets a conversation go on in a task of its own.
    fn run_on(
        &mut self,
        id: CoId,
        hosted: Arc<crate::endpoint::Hosted>,
        opening: Option<BoxFuture<Result<Packed, Failure>>>,
        value: bool,
        last: bool,
        detached: bool,
    ) {
        let conversation = run_conversation(Arc::clone(&hosted), opening, value, last);
        let task = if self.link.info().trace {
            tokio::spawn(conversation.in_current_span())
        } else {
            tokio::spawn(conversation)
        };
        let running = Running {
            task: task.abort_handle(),
            hosted,
            detached,
        };
        let kept = self.link.lock().mux.keep(id, running);
        drop(kept);
    }

    fn cancel(&mut self, id: CoId, failure: Box<Failure>) {
        let running = self.link.lock().mux.unkeep(id);
        if let Some(running) = running {
            running.cancel();
        }
        self.answers.list.push(Answer::Failed(id, failure));
    }

    /// Hands the answers of landings to the wire, under one lock.
    fn give_answers(&mut self) {
        if self.answers.list.is_empty() {
            self.answers.bytes.clear();
            return;
        }
        let mut streams: Vec<(CoNumber, Outgoing, bool)> = Vec::new();
        let mut state = self.link.lock();
        for answer in self.answers.list.drain(..) {
            match answer {
                Answer::Value(id, range, mut handles) => {
                    let bytes = &self.answers.bytes[range];
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
        state.mux.take_wakers(&mut self.wakers);
        let dropped = state.mux.take_dropped();
        let lost = state.take_lost();
        drop(state);
        drop((dropped, lost));
        self.answers.bytes.clear();
        for (co, outgoing, sent) in streams {
            if sent {
                outgoing.start(&self.this, co);
            }
        }
    }

    /// Writes what there is. Ready when others shall have their turn to add to it first.
    fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
        busy: bool,
        now: Instant,
    ) -> Result<Poll<()>, End> {
        loop {
            // what the transport did not take yet, or holds still
            if !self.written_all && !self.write_some(cx, now)? {
                return Ok(Poll::Pending);
            }
            if self.output.is_empty() {
                let mut state = self.link.lock();
                if !state.mux.has_output() {
                    self.gathered = false;
                    return Ok(Poll::Pending);
                }
                if !self.gathered && !busy {
                    self.gathered = true;
                    return Ok(Poll::Ready(()));
                }
                state.mux.fill(&mut self.output);
                state.mux.take_wakers(&mut self.wakers);
                drop(state);
                self.wake();
                self.gathered = false;
            }
            if !self.write_some(cx, now)? {
                return Ok(Poll::Pending);
            }
        }
    }

    /// Hands the transport what it takes now; `true` when that is all there is.
    fn write_some(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, End> {
        let written = self.poll_write(cx);
        self.written_all = written.is_ready();
        match written {
            Poll::Ready(Ok(())) => {
                self.blocked = None;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(self.lost(error)),
            Poll::Pending => {
                self.blocked.get_or_insert(now);
                Ok(false)
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let n = match self.output.as_slice() {
                Some(bytes) => ready!(stream.poll_write(cx, bytes))?,
                None => {
                    let mut runs = [IoSlice::new(&[]); 32];
                    let count = self.output.slices(&mut runs);
                    ready!(stream.poll_write_vectored(cx, &runs[..count]))?
                }
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(n);
            self.blocked = None;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes what can be written without waiting, for a connection that ends.
    fn write_now(&mut self, cx: &mut Context<'_>) {
        loop {
            if self.output.is_empty() {
                let mut state = self.link.lock();
                if !state.mux.has_output() {
                    break;
                }
                state.mux.fill(&mut self.output);
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        // the connection is over whether this works or not
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        loop {
            let mut state = self.link.lock();
            let patience = state.mux.settings().idle_timeout;
            let stalled = self.partial.into_iter().chain(self.blocked).min();
            let give_up = stalled.and_then(|since| since.checked_add(patience));
            if give_up.is_some_and(|at| at <= now) {
                let text = match self.partial {
                    Some(since) if Some(since) == stalled => {
                        format!("the rest of a frame did not come within {patience:?}")
                    }
                    _ => format!("the peer took nothing of what was written within {patience:?}"),
                };
                state.mux.write_close(Kind::Disconnected, &text);
                drop(state);
                self.write_now(cx);
                return Err(End::Failed(cut(&text)));
            }
            let mut next = state.mux.timeout();
            for other in [
                self.tidy_at,
                state.leave_by,
                self.linger_until,
                give_up,
                self.paused,
            ] {
                next = match (next, other) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            let Some(next) = next else { return Ok(()) };
            if next > now {
                drop(state);
                // a later time is looked at when the earlier one has come
                if next < self.timer_at || self.timer_at <= now {
                    self.timer_at = next;
                    self.timer.as_mut().reset(next.into());
                }
                if self.timer.as_mut().poll(cx).is_pending() {
                    return Ok(());
                }
                self.timer_at = now;
                continue;
            }
            if self.linger_until.is_some_and(|at| at <= now) {
                self.hung_up = true;
                self.linger_until = None;
            }
            if state.leave_by.is_some_and(|at| at <= now) {
                state
                    .mux
                    .write_close(Kind::Disconnected, "the deadline of the goodbye passed");
                drop(state);
                self.write_now(cx);
                return Err(End::Failed(cut(
                    "this side said goodbye, and its deadline passed",
                )));
            }
            let expired = state.mux.handle_timeout(now).map_err(End::Failed)?;
            state.mux.take_wakers(&mut self.wakers);
            let lost = state.take_lost();
            drop(state);
            drop(lost);
            for id in expired {
                let text = "the deadline passed before the answer was there";
                self.cancel(id, Box::new(Failure::new(Kind::Timeout, text)));
            }
            self.give_answers();
            self.wake();
            if self.tidy_at.is_some_and(|at| at <= now) {
                self.tidy_at = None;
                self.tidy();
            }
        }
    }

    /// Sees to it that large buffers are given back after a while; `true` when that is new.
    fn arm_tidy(&mut self, now: Instant) -> bool {
        if self.tidy_at.is_some() || self.input.capacity() + self.output.capacity() <= READ_LEAST {
            return false;
        }
        self.tidy_at = now.checked_add(TIDY_AFTER);
        true
    }

    /// Gives buffers back that nothing is in.
    fn tidy(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.appetite = READ_LEAST;
        }
        self.output.shrink();
        self.work = Vec::new();
        self.answers = Answers::default();
        self.wakers = Vec::new();
        self.link.lock().mux.shrink();
    }

    /// Ends the connection once both sides have said goodbye and nothing is left to do.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        let mut state = self.link.lock();
        let (ours, theirs) = state.mux.goodbyes();
        // before the peer has said it too, what it posted meanwhile may still be on its way
        if !theirs || !state.mux.is_over() || !self.waiting.is_empty() {
            return Ok(());
        }
        if !ours {
            state.mux.goodbye();
        }
        if state.mux.has_output() || !self.output.is_empty() {
            return Ok(());
        }
        drop(state);
        if self.hung_up {
            return Err(End::Goodbye);
        }
        if self.linger_until.is_none() {
            // a failure shows where the peer's end is read
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
            self.linger_until = now.checked_add(LINGER);
            // the timer is to learn of it
            cx.waker().wake_by_ref();
        }
        Ok(())
    }
}

/// How a connection ended.
enum End {
    Goodbye,
    Failed(Failure),
}

/// What comes after a turn.
enum Turn {
    /// Another: there may be more.
    Again,
    /// Another, once other tasks had theirs.
    Gather,
    /// Nothing, until somebody wakes the driver.
    Idle,
}

impl Work {
    /// The same, with nothing left in the input.
    fn own(mut self, input: &Bytes) -> Self {
        if let Work::Land(opened) = &mut self
            && let Arguments::Input(range) = &opened.arguments
        {
            opened.arguments = Arguments::Own(Bytes::copy_from_slice(&input[range.clone()]));
        }
        self
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        // the runtime is shutting down, or the task was aborted: nobody may be left waiting
        let mut state = self.link.lock();
        let mut wakers = Vec::new();
        state.close(cut("the connection's task is gone"), &mut wakers);
        let running = state.mux.take_dropped();
        drop(state);
        running.into_iter().for_each(Running::cancel);
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn cut(reason: &str) -> Failure {
    Failure::new(Kind::Disconnected, format!("disconnected: {reason}"))
}

/// Reads once into the spare room of a buffer.
fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    use tokio::io::AsyncReadExt;
    let read = stream.read_buf(buffer);
    tokio::pin!(read);
    read.poll(cx)
}
