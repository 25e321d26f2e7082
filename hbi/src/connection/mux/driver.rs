//! The task of a mux connection: reads, lands what arrived, and writes what came together.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Handle, RuntimeFlavor},
    task::yield_now,
};

use super::{
    alarm::Alarm,
    landing::Opened,
    link::{MuxLink, State},
    scratch::{Lent, READ},
    spin::Spin,
};
use crate::{
    Error, Failure, Kind,
    connection::{now, pace::Pace},
    endpoint::{Landing, Link},
    wire::mux::{self, Output, sooner},
};

/// How long the peer may take to hang up after both said goodbye.
const LINGER: Duration = Duration::from_secs(1);

/// Drives one connection to its end: its task.
pub(crate) struct Driver<S> {
    pub(super) link: Arc<MuxLink>,
    pub(super) this: Arc<dyn Link>,
    stream: S,
    pub(super) landing: Box<dyn Landing>,
    pub(super) scratch: Lent,
    /// There is input that was read before the driver began.
    unread: bool,
    /// Since when the beginning of a frame waits for its rest, and since when the transport takes
    /// nothing of what is to be written.
    partial: Option<Instant>,
    blocked: Option<Instant>,
    /// How fast the peer may open conversations, how many it has since that was looked at, and until
    /// when nothing is read since it opened more.
    pace: Option<Pace>,
    pub(super) opened: u32,
    pub(super) paused: Option<Instant>,
    /// Openings that arrived and did not land yet.
    pub(super) waiting: VecDeque<Opened>,
    /// Numbers of scripts that openings among it ask for.
    pub(super) held: HashSet<u32>,
    /// A woken task runs before others that are ready already: they get a turn to add to what is to be
    /// written.
    gathers: bool,
    /// They had it.
    gathered: bool,
    /// Those who wait for room have been asked, one after the other.
    asked: bool,
    written_all: bool,
    /// Something was to be written since the driver had nothing to do.
    wrote: bool,
    /// The transport took more, having taken nothing before.
    unblocked: bool,
    spin: Spin,
    alarm: Alarm,
    hung_up: bool,
    linger_until: Option<Instant>,
    /// Why the peer ends the connection.
    pub(super) peer_ends: Option<Failure>,
}

impl<S> std::fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({:?})", self.link)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// A driver of a connected stream; from now on conversations may begin.
    pub(crate) fn new(link: Arc<MuxLink>, stream: S, landing: Box<dyn Landing>) -> Self {
        link.started();
        Self {
            this: Arc::clone(&link) as Arc<dyn Link>,
            link,
            stream,
            landing,
            scratch: Lent::default(),
            unread: false,
            partial: None,
            blocked: None,
            pace: None,
            opened: 0,
            paused: None,
            waiting: VecDeque::new(),
            held: HashSet::new(),
            gathers: Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread,
            gathered: false,
            asked: false,
            written_all: true,
            wrote: false,
            unblocked: false,
            spin: Spin::new(),
            alarm: Alarm::default(),
            hung_up: false,
            linger_until: None,
            peer_ends: None,
        }
    }

    /// The same, where this much was read already.
    pub(crate) fn with_input(mut self, input: BytesMut) -> Self {
        self.unread = !input.is_empty();
        self.scratch.input = input;
        self
    }

    /// The same, for a peer that may open so many conversations in a second.
    pub(crate) fn with_pace(mut self, per_second: Option<u32>) -> Self {
        self.pace = per_second.map(Pace::new);
        self
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
        }
        link.close(Failure::new(kind, reason));
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

    fn finish(&mut self, reason: Failure) {
        self.link.close(reason.clone());
        self.waiting.clear();
        self.wake();
        self.landing.disconnected(&Error::from(reason));
    }

    #[inline]
    fn wake(&mut self) {
        if !self.scratch.wakers.is_empty() {
            self.scratch.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Reads, lands and writes until nothing more arrives, or others are to have their turn, then looks at
    /// the time.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // methods of the driver want it whole while the state is locked
        let link = Arc::clone(&self.link);
        loop {
            let next = match self.turn(&link, cx, &mut Clock::default()) {
                Ok(next) => next,
                Err(end) => return Poll::Ready(end),
            };
            match next {
                Turn::Again => {}
                Turn::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Turn::Pause => {
                    // pending when it is polled first, which is all that is wanted of it
                    let _ = pin!(yield_now()).poll(cx);
                    return Poll::Pending;
                }
                Turn::Idle => return Poll::Pending,
            }
        }
    }

    fn turn(
        &mut self,
        link: &MuxLink,
        cx: &mut Context<'_>,
        clock: &mut Clock,
    ) -> Result<Turn, End> {
        let input = self.poll_input(link, cx, clock)?;
        let landed = !self.waiting.is_empty() && self.land_waiting();
        let busy = landed || input != Came::Nothing;
        self.wake();
        let mut bulk = false;
        let mut state = loop {
            // what the transport did not take yet, or holds still
            if !self.written_all {
                self.write_some(cx, clock)?;
            }
            let mut state = link.lock();
            if bulk || !self.written_all || !state.mux.has_output() {
                break state;
            }
            let gathers = match busy {
                true => self.spin.joins(),
                false => self.gathers,
            };
            if gathers && !std::mem::replace(&mut self.gathered, true) {
                // what callers add once they were woken goes out with what is there
                return Ok(Turn::Yield);
            }
            state.mux.fill(&mut self.scratch.output);
            bulk = self.spin.is_apart() && self.scratch.output.as_slice().is_none();
            state.mux.take_wakers(&mut self.scratch.wakers);
            drop(state);
            self.wake();
            (self.written_all, self.wrote) = (false, true);
        };
        self.gathered = false;
        // the rest is for the next turn, which comes when others had theirs; that the transport took what
        // held landings back is known only now
        let rest = input == Came::Part || (!self.waiting.is_empty() && (busy || state.may_land()));
        if (landed || input == Came::Some) && self.waiting.is_empty() {
            return Ok(Turn::Again);
        }
        let next = self.next_time(&state);
        if !self.alarm.is_set(next, cx) || state.mux.goodbyes().1 {
            let now = clock.now();
            if next.is_some_and(|at| at <= now) || state.mux.goodbyes().1 {
                drop(state);
                self.poll_timer(cx, now)?;
                self.poll_goodbye(cx, now)?;
                state = link.lock();
                // the state was free meanwhile, and a goodbye may have begun
                let next = self.next_time(&state);
                if next.is_some() && !self.alarm.is_set(next, cx) {
                    return Ok(Turn::Again);
                }
            } else if !self.alarm.set(next, now, cx) {
                return Ok(Turn::Again);
            }
        }
        if rest {
            // it is no sleep, but counts as one that is over: there may be no other for long
            if input == Came::Part {
                drop(state);
                self.looks_again(busy, clock);
            }
            return Ok(Turn::Yield);
        }
        if !self.written_all {
            // the transport wakes this task; until then nobody has to who only adds to the output
            state.wait_for_transport(cx.waker());
            return Ok(match self.looks_again(busy, clock) {
                true => Turn::Yield,
                false => Turn::Idle,
            });
        }
        if state.mux.has_output() {
            return Ok(if bulk { Turn::Pause } else { Turn::Again });
        }
        if state.mux.is_asking() {
            // who was asked first has a turn to take the room
            if std::mem::replace(&mut self.asked, true) {
                state.mux.ask_on();
                state.mux.take_wakers(&mut self.scratch.wakers);
            }
            drop(state);
            self.wake();
            return Ok(Turn::Yield);
        }
        self.asked = false;
        if self.looks_again(busy, clock) {
            return Ok(Turn::Yield);
        }
        let late = state.take_late();
        if let Some(buffer) = state.mux.give_buffer() {
            self.scratch.answers.keep_buffer(buffer);
        }
        state.sleep(cx.waker());
        drop(state);
        drop(late);
        Ok(Turn::Idle)
    }

    /// Whether to have another turn in place of sleep. What is waited for is input, or room for output.
    fn looks_again(&mut self, busy: bool, clock: &mut Clock) -> bool {
        let came = busy || std::mem::take(&mut self.unblocked);
        let left = std::mem::take(&mut self.wrote);
        self.spin.again(came.then(|| clock.now()), left)
    }

    /// Reads, and takes apart what came.
    fn poll_input(
        &mut self,
        link: &MuxLink,
        cx: &mut Context<'_>,
        clock: &mut Clock,
    ) -> Result<Came, End> {
        let first = self.read(link, cx, clock)?;
        if first != Came::All {
            return Ok(first);
        }
        // there will hardly be more, but only who was told so is woken when there is
        match self.read(link, cx, clock) {
            Ok(Came::Nothing) => Ok(Came::All),
            Ok(Came::Part) => Ok(Came::Part),
            Ok(Came::All | Came::Some) => Ok(Came::Some),
            Err(end) => {
                // what came before is answered, if the peer still listens
                self.write_now(cx);
                Err(end)
            }
        }
    }

    /// Reads once, and takes apart what came.
    fn read(
        &mut self,
        link: &MuxLink,
        cx: &mut Context<'_>,
        clock: &mut Clock,
    ) -> Result<Came, End> {
        // the alarm wakes this task when a pause is over
        self.paused = self.paused.filter(|until| *until > clock.now());
        if self.hung_up || self.paused.is_some() {
            return Ok(Came::Nothing);
        }
        let before = self.scratch.input.len();
        if self.scratch.input.capacity() - before < READ / 4 {
            self.scratch.input.reserve(READ - before.min(READ / 2));
        }
        let read = if std::mem::take(&mut self.unread) {
            Poll::Ready(Ok(before))
        } else {
            let most = self.spin.most();
            read_some(&mut self.stream, &mut self.scratch.input, most, cx)
        };
        let n = match read {
            Poll::Pending => return Ok(Came::Nothing),
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) => return Err(self.lost(error)),
        };
        self.spin.moved(n);
        if n == 0 {
            self.hung_up = true;
            return Err(self.ended());
        }
        let now = clock.now();
        let woken = self.scratch.wakers.len();
        let mut input = std::mem::take(&mut self.scratch.input);
        let came = if self.spin.is_cut(n) {
            Came::Part
        } else if input.len() < input.capacity() {
            Came::All
        } else {
            Came::Some
        };
        let mut at = 0;
        let taken;
        if input.len() < mux::Input::SHARED {
            taken = self.take_apart(link, mux::Input::copied(&input), &mut at, now);
            if at == input.len() {
                input.clear();
            } else {
                input.advance(at);
            }
            self.scratch.input = input;
        } else {
            let mut input = input.freeze();
            taken = self.take_apart(link, mux::Input::shared(&input), &mut at, now);
            input.advance(at);
            // usually nobody else holds a part of the buffer, and it is used again
            self.scratch.input = match input.try_into_mut() {
                Ok(input) => input,
                Err(held) => self.scratch.next_input(held),
            };
        }
        let opened = std::mem::take(&mut self.opened);
        let woken = self.scratch.wakers.len().saturating_sub(woken);
        self.spin.brought(n, woken, opened as usize);
        self.paused = match &mut self.pace {
            Some(pace) => pace.opened(opened, now),
            None => None,
        };
        let rest = !self.scratch.input.is_empty();
        if at > 0 || !rest {
            self.partial = None;
        }
        if rest {
            self.partial.get_or_insert(now);
        }
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
            None => Ok(came),
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

    /// Hands the transport what it takes now of what is to be written.
    fn write_some(&mut self, cx: &mut Context<'_>, clock: &mut Clock) -> Result<(), End> {
        let written = self.poll_write(cx);
        self.written_all = written.is_ready();
        match written {
            Poll::Ready(Ok(())) => {
                self.blocked = None;
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(self.lost(error)),
            Poll::Pending => {
                self.blocked.get_or_insert_with(|| clock.now());
                Ok(())
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.scratch.output.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let n = match self.scratch.output.as_slice() {
                Some(bytes) => ready!(stream.poll_write(cx, bytes))?,
                None => {
                    let mut runs = [IoSlice::new(&[]); 32];
                    let count = self.scratch.output.slices(&mut runs);
                    ready!(stream.poll_write_vectored(cx, &runs[..count]))?
                }
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.scratch.output.advance(n);
            self.spin.moved(n);
            self.unblocked |= self.blocked.take().is_some();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes what can be written without waiting, for a connection that ends.
    fn write_now(&mut self, cx: &mut Context<'_>) {
        loop {
            if self.scratch.output.is_empty() {
                let mut state = self.link.lock();
                if !state.mux.has_output() {
                    break;
                }
                state.mux.fill(&mut self.scratch.output);
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        // the connection is over whether this works or not
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
    }

    /// Since when something that was begun stands still.
    #[inline]
    fn stalled(&self) -> Option<Instant> {
        sooner(self.partial, self.blocked)
    }

    /// When there is something to do for the time alone.
    #[inline]
    fn next_time(&self, state: &State) -> Option<Instant> {
        let next = sooner(state.mux.timeout(), state.leave_by);
        let stalled = self.stalled();
        if let (None, None, None) = (stalled, self.linger_until, self.paused) {
            return next;
        }
        let patience = state.mux.settings().idle_timeout;
        let give_up = stalled.and_then(|at| at.checked_add(patience));
        sooner(
            next,
            sooner(sooner(self.linger_until, self.paused), give_up),
        )
    }

    /// Does what it is time for.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>, mut now: Instant) -> Result<(), End> {
        loop {
            // the next turn reads on, and has the alarm set again
            if self.paused.is_some_and(|until| until <= now) {
                return Ok(());
            }
            let mut state = self.link.lock();
            let next = self.next_time(&state);
            if next.is_none_or(|at| at > now) {
                drop(state);
                if self.alarm.set(next, now, cx) {
                    return Ok(());
                }
                now = self::now();
                continue;
            }
            let patience = state.mux.settings().idle_timeout;
            let stalled = self.stalled();
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
            state.mux.take_wakers(&mut self.scratch.wakers);
            let lost = state.take_lost();
            drop(state);
            drop(lost);
            self.forget_waiting(&expired);
            for id in expired {
                let text = "the deadline passed before the answer was there";
                self.cancel(id, Box::new(Failure::new(Kind::Timeout, text)));
            }
            self.give_answers();
            self.wake();
        }
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
        if state.mux.has_output() || !self.scratch.output.is_empty() {
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
        }
        Ok(())
    }
}

// by hand: an `async fn` would keep the driver twice, and connections are many
impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.scratch.take();
        let polled = this.poll_turns(cx).map(|end| {
            let reason = match end {
                End::Goodbye => {
                    this.link.lock().ended_well = true;
                    cut("both sides said goodbye")
                }
                End::Failed(failure) => failure,
            };
            this.finish(reason);
        });
        this.scratch.give();
        polled
    }
}

/// The time of a turn, looked at when it is asked for first.
#[derive(Default)]
struct Clock(Option<Instant>);

impl Clock {
    #[inline]
    fn now(&mut self) -> Instant {
        *self.0.get_or_insert_with(now)
    }
}

/// How a connection ended.
pub(super) enum End {
    Goodbye,
    Failed(Failure),
}

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Nothing: the transport wakes the driver when there is something, or the alarm where it pauses.
    Nothing,
    /// All that there was.
    All,
    /// Something, behind which there may be more.
    Some,
    /// Part of what there is: others get a turn with it before the rest is read.
    Part,
}

/// What comes after a turn.
enum Turn {
    /// Another: there may be more.
    Again,
    /// Another, once other tasks had theirs.
    Yield,
    /// Another, once others had theirs and the runtime looked at its sockets: what comes beside bulk does
    /// not wait until the transport takes no more of that.
    Pause,
    /// Nothing, until somebody wakes the driver.
    Idle,
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        // the runtime is shutting down, or the task was aborted: nobody may be left waiting
        self.link.close(cut("the connection's task is gone"));
    }
}

fn cut(reason: &str) -> Failure {
    Failure::new(Kind::Disconnected, format!("disconnected: {reason}"))
}

/// Reads once into the spare room of a buffer, at most so much.
fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    use tokio::io::AsyncReadExt;
    let mut buffer = buffer.limit(most);
    let read = stream.read_buf(&mut buffer);
    tokio::pin!(read);
    read.poll(cx)
}
