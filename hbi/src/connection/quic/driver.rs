//! The task of a QUIC connection: takes the streams that the peer opens, lands what stands in them,
//! and speaks on the control streams.

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use quinn::{ConnectionError, RecvStream, SendStream, StoppedError, VarInt, ZeroRttAccepted};
use tokio::{sync::Semaphore, time::Sleep};

use super::{
    arriving::{self, Arrived, Arriving},
    hosting::Opened,
    link::QuicLink,
    state::Key,
    streams::Allowed,
};
use crate::{
    Error, Failure, Kind,
    connection::{connected, now, pace::Pace, refused},
    endpoint::{Landing, Link},
    transport::{Quic, Remembered, explained, is_handshake, known},
    wire::{
        mux::{Settings, Violation},
        quic::{CLOSE_GOODBYE, CLOSE_KIND, Control, ControlReader},
    },
};

/// Streams taken before other tasks of the runtime get their turn.
const STREAMS_PER_TURN: usize = 256;

/// How far the control stream goes before everything else.
const CONTROL_PRIORITY: i32 = 1;

/// How long the peer may take to hear why the connection ends.
const LINGER: Duration = Duration::from_secs(3);

type Streams<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// Drives one connection; the future of [`QuicDriver::run`] is its task.
pub(crate) struct QuicDriver {
    pub(super) link: Arc<QuicLink>,
    pub(super) this: Arc<dyn Link>,
    pub(super) landing: Box<dyn Landing>,
    /// The endpoint, where the connection has one of its own: it lives until the peer knows the end.
    endpoint: Option<quinn::Endpoint>,
    /// The server at the other end, where it is to be remembered.
    remembered: Option<Arc<Remembered>>,
    /// Whether the server takes the first flight, until that is known.
    accepted: Option<ZeroRttAccepted>,
    /// Until when the server has to answer, and how long that is, where it was not waited for.
    answers_by: Option<(Instant, Duration)>,
    pub(super) settings: Settings,
    conversations: Streams<(SendStream, RecvStream)>,
    unidirectional: Streams<RecvStream>,
    arriving: FuturesUnordered<Arriving>,
    /// Conversations whose openings are on their way.
    opening: FuturesUnordered<Arriving>,
    /// How many streams the peer may open.
    pub(super) allowed: Allowed,
    /// How many streams the peer may open in a second, and until when no more are taken.
    pace: Option<Pace>,
    paused: Option<Instant>,
    /// Room for large openings.
    room: Arc<Semaphore>,
    control_out: ControlOut,
    control_in: Option<(RecvStream, ControlReader)>,
    /// The peer has introduced itself. Nothing lands before.
    up: bool,
    closed: Pin<Box<dyn Future<Output = ConnectionError> + Send>>,
    timer: Pin<Box<Sleep>>,
    /// Openings whose turn has not come, by their place in the order of landings.
    pub(super) held: BTreeMap<u64, Opened>,
    /// Bytes in them.
    pub(super) held_bytes: usize,
    /// What may land once the peer takes its answers.
    pub(super) waiting: VecDeque<Opened>,
    /// Those who wait for room have been asked, one after the other.
    asked: bool,
    pub(super) next_landing: u64,
    /// The value of the landing that is under way.
    pub(super) output: Vec<u8>,
    /// How many conversations this side said it had opened, when it had nothing left to do.
    done: Option<u64>,
}

/// The control stream of this side.
enum ControlOut {
    Opening(Pin<Box<dyn Future<Output = Result<SendStream, ConnectionError>> + Send>>),
    Open(SendStream, Bytes),
}

impl ControlOut {
    fn opening(conn: &quinn::Connection) -> Self {
        let conn = conn.clone();
        ControlOut::Opening(Box::pin(async move { conn.open_uni().await }))
    }
}

/// How a connection ended.
enum End {
    Goodbye,
    /// This side ends it, and tells the peer why.
    Told(Box<Farewell>),
    /// It is gone.
    Failed(Failure),
}

/// Why this side ends a connection.
struct Farewell {
    /// As this side's own calls learn it.
    reason: Failure,
    /// As the peer is told.
    kind: Kind,
    text: String,
}

impl std::fmt::Debug for QuicDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuicDriver({:?})", self.link)
    }
}

impl QuicDriver {
    /// A driver of a connection; a server that was not waited for has to answer within `handshake`.
    pub(crate) fn new(
        link: Arc<QuicLink>,
        mut quic: Quic,
        landing: Box<dyn Landing>,
        handshake: Duration,
    ) -> Self {
        let remembered = quic.remembered.take();
        let accepted = quic.first.take().map(|first| first.accepted);
        let answers_by = accepted.as_ref().and_then(|_| {
            let at = now().checked_add(handshake)?;
            Some((at, handshake))
        });
        let (conn, endpoint, control) = quic.into_control();
        let conversations = futures_util::stream::unfold(conn.clone(), |conn| async move {
            let streams = conn.accept_bi().await.ok()?;
            Some((streams, conn))
        });
        let unidirectional = futures_util::stream::unfold(conn.clone(), |conn| async move {
            let stream = conn.accept_uni().await.ok()?;
            Some((stream, conn))
        });
        let settings = link.lock().own.clone();
        Self {
            control_out: ControlOut::opening(&link.conn),
            this: Arc::clone(&link) as Arc<dyn Link>,
            link,
            landing,
            endpoint,
            remembered,
            accepted,
            answers_by,
            conversations: Box::pin(conversations.fuse()),
            unidirectional: Box::pin(unidirectional.fuse()),
            arriving: FuturesUnordered::new(),
            opening: FuturesUnordered::new(),
            allowed: Allowed::new(&settings),
            pace: None,
            paused: None,
            room: arriving::room(&settings),
            control_in: control.map(|stream| (stream, ControlReader::new(&settings))),
            settings,
            up: false,
            closed: Box::pin(async move { conn.closed().await }),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            held: BTreeMap::new(),
            held_bytes: 0,
            waiting: VecDeque::new(),
            asked: false,
            next_landing: 1,
            output: Vec::new(),
            done: None,
        }
    }

    /// What was read of the peer's control stream already.
    pub(crate) fn with_input(mut self, input: BytesMut) -> Self {
        if let Some((_, reader)) = &mut self.control_in {
            reader.push(input.freeze());
        }
        self
    }

    /// Streams of a peer that opens more in a second are taken more slowly.
    pub(crate) fn with_pace(mut self, per_second: Option<u32>) -> Self {
        self.pace = per_second.map(Pace::new);
        self
    }

    /// Drives the connection to its end.
    pub(crate) async fn run(mut self) {
        if self.accepted.is_none() {
            known(&self.link.conn, &self.settings);
        }
        self.link.with(|state| {
            state.started = true;
            state.line.ask_all(&mut state.wakers);
        });
        let end = poll_fn(|cx| self.poll(cx)).await;
        let farewell = std::mem::take(&mut self.link.lock().control);
        let reason = match end {
            End::Goodbye => {
                self.tell_last(farewell).await;
                self.link.conn.close(CLOSE_GOODBYE.into(), b"goodbye");
                self.link.lock().ended_well = true;
                let reason = cut("both sides said goodbye");
                self.link.close(reason.clone());
                reason
            }
            End::Told(told) => {
                let Farewell { reason, kind, text } = *told;
                self.link.close(reason.clone());
                let mut farewell = farewell;
                let last = Control::Close {
                    kind,
                    reason: (&*text).into(),
                };
                last.write(&mut farewell);
                self.tell_last(farewell).await;
                close(&self.link.conn, kind, &text);
                reason
            }
            End::Failed(reason) => {
                close(&self.link.conn, Kind::Disconnected, "the peer ended it");
                self.link.close(reason.clone());
                reason
            }
        };
        if let Some(server) = &self.remembered
            && self.link.lock().early.is_some()
        {
            // the next connection waits for it
            server.forget();
        }
        self.held.clear();
        self.landing.disconnected(&Error::from(reason));
        if let Some(endpoint) = self.endpoint.take() {
            // whatever comes of it, the connection is over
            let _ = tokio::time::timeout(LINGER, endpoint.wait_idle()).await;
        }
    }

    /// Sends the last of the control stream, and waits until the peer has it: closing a connection
    /// drops what is on its way, and that it is closed may not be told itself while much is.
    async fn tell_last(&mut self, last: Vec<u8>) {
        let ControlOut::Open(stream, rest) = &mut self.control_out else {
            return;
        };
        let told = async {
            stream.write_all(rest).await?;
            stream.write_all(&last).await?;
            // it was not finished before
            let _ = stream.finish();
            // ends when all is acknowledged, or the connection is gone
            let _ = stream.stopped().await;
            Ok::<_, quinn::WriteError>(())
        };
        // whatever comes of it, the connection is over
        let _ = tokio::time::timeout(LINGER, told).await;
    }

    /// Tells the peer why it is refused; before its handshake is over it could not be told.
    pub(crate) async fn refuse(
        link: &QuicLink,
        shaken: Option<ZeroRttAccepted>,
        kind: Kind,
        reason: &str,
    ) {
        if let Some(shaken) = shaken {
            // whatever comes of it, the connection is over
            let _ = tokio::time::timeout(LINGER, shaken).await;
        }
        close(&link.conn, kind, reason);
        link.close(Failure::new(kind, reason));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // whoever has something for the driver from here on wakes it
        self.link.lock().driver = Some(cx.waker().clone());
        self.poll_accepted(cx);
        let turn = self
            .poll_control(cx)
            .and_then(|()| {
                self.land_waiting();
                self.poll_streams(cx)
            })
            .and_then(|()| {
                self.prepare();
                self.poll_timer(cx)
            })
            .and_then(|()| self.poll_goodbye());
        let violated = self.link.lock().violation.take();
        let turn = match violated {
            Some(violation) => Err(self.violated(&violation)),
            None => turn,
        };
        if let Err(end) = turn {
            return Poll::Ready(end);
        }
        self.poll_write(cx);
        if let Poll::Ready(error) = self.closed.as_mut().poll(cx) {
            return Poll::Ready(self.lost(&error));
        }
        self.ask_on(cx);
        let state = self.link.lock();
        if state.stir || !state.prepare.is_empty() || state.violation.is_some() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Asks on among those who wait for room, one a turn.
    fn ask_on(&mut self, cx: &mut Context<'_>) {
        let asked = self.asked;
        self.asked = self.link.with(|state| {
            if state.line.is_asking() && asked {
                state.ask_on();
            }
            state.line.is_asking()
        });
        if self.asked {
            cx.waker().wake_by_ref();
        }
    }

    /// Looks whether the server takes what went in the first flight.
    fn poll_accepted(&mut self, cx: &mut Context<'_>) {
        let Some(accepted) = &mut self.accepted else {
            return;
        };
        let Poll::Ready(accepted) = Pin::new(accepted).poll(cx) else {
            return;
        };
        self.accepted = None;
        // told in a first flight that is not taken, it would not be told again
        known(&self.link.conn, &self.settings);
        if accepted {
            return;
        }
        // one that was opened after the first flight is not lost with it
        let lost = match &self.control_out {
            ControlOut::Open(stream, _) => {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                let stopped = pin!(stream.stopped()).poll(&mut cx);
                matches!(stopped, Poll::Ready(Err(StoppedError::ZeroRttRejected)))
            }
            ControlOut::Opening(_) => false,
        };
        self.link.with(|state| state.reject_early(lost));
        if lost {
            // the old one is dropped before the new one is opened, which has its number
            self.control_out = ControlOut::opening(&self.link.conn);
        }
    }

    fn violated(&self, violation: &Violation) -> End {
        let reason = Failure::new(Kind::Protocol, violation.0.clone());
        End::Told(Box::new(Farewell {
            reason,
            kind: Kind::Protocol,
            text: violation.0.clone(),
        }))
    }

    /// What it means that the connection is gone.
    fn lost(&self, error: &ConnectionError) -> End {
        let (said, over, up) = self.link.with(|state| {
            let said = state.leaving.is_some() || state.peer_leaving.is_some();
            let up = state.peer.is_some() && state.early.is_none();
            (said, state.is_over(), up)
        });
        End::Failed(match error {
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason);
                let code = close.error_code.into_inner();
                let kind = code.checked_sub(CLOSE_KIND as u64);
                match kind
                    .and_then(|kind| u8::try_from(kind).ok())
                    .map(Kind::from)
                {
                    Some(kind) => refused::told(kind, &reason, up),
                    None if code == CLOSE_GOODBYE as u64 && said && over => return End::Goodbye,
                    None => cut("the peer closed the connection without a goodbye"),
                }
            }
            ConnectionError::TimedOut => cut(&format!(
                "nothing came from the peer for {:?} (`Settings::idle_timeout`)",
                self.settings.idle_timeout
            )),
            other if is_handshake(other) => {
                let noted = self.remembered.as_ref().and_then(|server| server.noted());
                let text = noted.unwrap_or_else(|| explained(other.clone()).to_string());
                Failure::new(Kind::Refused, text)
            }
            other => cut(&other.to_string()),
        })
    }

    /// Takes what the peer opened.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let now = now();
        self.paused = self.paused.filter(|until| *until > now);
        // how many conversations may be taken before it is looked again
        let mut room = 0;
        for _ in 0..STREAMS_PER_TURN {
            // those that are not taken count against how many the peer may have open
            if self.paused.is_some() {
                return self.poll_arriving(cx);
            }
            if room == 0 {
                room = self.room_to_host();
            }
            // nor are conversations before the peer has introduced itself, while some wait to land, which
            // may run out of time there, or while as many are open as may be: one may go on when its
            // stream has ended
            let conversation = if self.up && self.waiting.is_empty() && room > 0 {
                self.conversations.as_mut().poll_next(cx)
            } else {
                Poll::Pending
            };
            let opens = matches!(conversation, Poll::Ready(Some(_)));
            let mut arriving = if let Poll::Ready(Some((send, recv))) = conversation {
                room -= 1;
                Arriving::conversation(send, recv, &self.settings, &self.room)
            } else if let Poll::Ready(Some(recv)) = self.unidirectional.as_mut().poll_next(cx) {
                Arriving::unidirectional(recv, &self.settings)
            } else {
                return self.poll_arriving(cx);
            };
            self.paused = self.pace.as_mut().and_then(|pace| pace.opened(1, now));
            // usually all that is needed is there
            match Pin::new(&mut arriving).poll(cx) {
                Poll::Ready(arrived) => self.arrived(arrived)?,
                Poll::Pending if opens => self.opening.push(arriving),
                Poll::Pending => self.arriving.push(arriving),
            }
        }
        cx.waker().wake_by_ref();
        self.poll_arriving(cx)
    }

    /// How many conversations more the peer may have open.
    fn room_to_host(&self) -> usize {
        let mut state = self.link.lock();
        let open = state.hosting + self.opening.len();
        let room = (self.settings.conversations as usize).saturating_sub(open);
        state.full = room == 0;
        room
    }

    fn poll_arriving(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while let Poll::Ready(Some(arrived)) = self.opening.poll_next_unpin(cx) {
            if let Arrived::Nothing = arrived {
                // another may be taken in its place
                cx.waker().wake_by_ref();
            }
            self.arrived(arrived)?;
        }
        while let Poll::Ready(Some(arrived)) = self.arriving.poll_next_unpin(cx) {
            self.arrived(arrived)?;
        }
        Ok(())
    }

    fn arrived(&mut self, arrived: Arrived) -> Result<(), End> {
        let done = match arrived {
            Arrived::Conversation {
                send,
                recv,
                reader,
                open,
                room,
            } => self.opened(send, recv, reader, *open, room),
            Arrived::Channel { head, recv, reader } => {
                let key = match head.receivers {
                    true => Key::ours(head.number),
                    false => Key::hosted(head.number),
                };
                self.link.with(|state| {
                    let arrived = state.channel_arrived(key, head.channel, recv, reader);
                    self.allowed.stream(state, &self.link.conn);
                    arrived
                })
            }
            Arrived::Control { recv, rest } => {
                if self.control_in.is_some() {
                    Err(Violation("a second control stream".into()))
                } else {
                    let mut reader = ControlReader::new(&self.settings);
                    reader.push(rest);
                    self.control_in = Some((recv, reader));
                    // it is read in the next turn
                    self.link.lock().stir = true;
                    Ok(())
                }
            }
            Arrived::Nothing => Ok(()),
            Arrived::Violation(violation) => Err(violation),
        };
        done.map_err(|violation| self.violated(&violation))
    }

    /// Reads the peer's control stream.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.accepted.is_some() {
            // what is to be done about the first flight comes before the peer's answer
            return Ok(());
        }
        loop {
            let Some((stream, reader)) = &mut self.control_in else {
                return Ok(());
            };
            match reader.take_message() {
                Ok(Some(Control::Close { kind, reason })) => {
                    return Err(End::Failed(refused::told(kind, &reason, true)));
                }
                Ok(Some(message)) => {
                    if let Err(violation) = self.told(message) {
                        return Err(self.violated(&violation));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(violation) => return Err(self.violated(&violation)),
            }
            let read = pin!(stream.read_chunk(64 << 10, true)).poll(cx);
            match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(chunk))) => reader.push(chunk.bytes),
                // the peer has said its last: the connection ends soon
                Poll::Ready(Ok(None) | Err(quinn::ReadError::Reset(_))) => return Ok(()),
                // that the connection is gone is seen elsewhere
                Poll::Ready(Err(_)) => return Ok(()),
            }
        }
    }

    fn told(&mut self, message: Control<'_>) -> Result<(), Violation> {
        if let Control::Define {
            number,
            parameters,
            source,
        } = &message
        {
            if self.landing.is_defined(*number) {
                return Err(Violation(format!("script {number} was defined twice")));
            }
            let parameters: Vec<&str> = parameters.iter().map(|name| &**name).collect();
            self.landing.define(*number, &parameters, source);
        }
        if let Control::Seen {
            receivers: false,
            number,
            channel: 0,
            ..
        } = message
        {
            self.given_up(Key::hosted(number));
        }
        let introduced = matches!(message, Control::Preface { .. });
        self.link.with(|state| {
            match message {
                Control::Preface { settings, .. } => {
                    if let Some(server) = &self.remembered {
                        let at = self.link.conn.remote_address();
                        server.remember(at, (*settings).clone());
                    }
                    self.answers_by = None;
                    state.peer = Some(*settings);
                    state.end_early(&self.link);
                    state.line.ask_all(&mut state.wakers);
                }
                Control::Define { number, .. } => state.tell(&Control::Defined(number)),
                Control::Defined(number) => state.acknowledged(number)?,
                Control::Release { object, count } => state.take_back(object, count)?,
                Control::Seen {
                    receivers,
                    number,
                    channel,
                    handles,
                } => {
                    let key = match receivers {
                        true => Key::ours(number),
                        false => Key::hosted(number),
                    };
                    state.seen(key, channel, handles)?;
                }
                Control::Goodbye(last) => {
                    state.peer_leaving = Some(last);
                    state.line.ask_all(&mut state.wakers);
                }
                Control::Done(opened) => state.peer_done = Some(opened),
                Control::Close { .. } => {}
            }
            Ok(())
        })?;
        if introduced {
            self.up = true;
            connected(&mut *self.landing);
        }
        Ok(())
    }

    /// Writes on the control stream what came together.
    fn poll_write(&mut self, cx: &mut Context<'_>) {
        loop {
            match &mut self.control_out {
                ControlOut::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => {
                        // a stream that was not closed has a priority
                        let _ = stream.set_priority(CONTROL_PRIORITY);
                        self.control_out = ControlOut::Open(stream, Bytes::new());
                    }
                    _ => return,
                },
                ControlOut::Open(stream, bytes) => {
                    if bytes.is_empty() {
                        let mut state = self.link.lock();
                        state.stir = false;
                        *bytes = std::mem::take(&mut state.control).into();
                        if bytes.is_empty() {
                            return;
                        }
                    }
                    match stream_write(stream, bytes, cx) {
                        Poll::Ready(Ok(n)) => bytes.advance(n),
                        _ => return,
                    }
                }
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let now = now();
            self.expire(now);
            let (leave_by, next) = self.link.with(|state| {
                let deadline = state.deadlines.peek().map(|entry| entry.0.0);
                let answers_by = self.answers_by.map(|(at, _)| at);
                let waiting = state.line.deadline();
                let next = [deadline, waiting, state.leave_by, self.paused, answers_by];
                let next: Option<Instant> = next.into_iter().flatten().min();
                state.timer_at = next;
                (state.leave_by, next)
            });
            if leave_by.is_some_and(|at| at <= now) {
                let text = "the deadline of the goodbye passed";
                return Err(End::Told(Box::new(Farewell {
                    reason: cut("this side said goodbye, and its deadline passed"),
                    kind: Kind::Disconnected,
                    text: text.to_owned(),
                })));
            }
            if let Some((at, within)) = self.answers_by
                && at <= now
            {
                let text = format!("the server did not answer within {within:?}");
                return Err(End::Told(Box::new(Farewell {
                    reason: cut(&text),
                    kind: Kind::Disconnected,
                    text,
                })));
            }
            if self.paused.is_some_and(|until| until <= now) {
                // what the peer opens is taken again in the next turn
                self.paused = None;
                cx.waker().wake_by_ref();
                continue;
            }
            let Some(next) = next else { return Ok(()) };
            if self.timer.deadline().into_std() != next {
                self.timer.as_mut().reset(next.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    /// Ends the connection once both sides have said goodbye and nothing is left to do.
    fn poll_goodbye(&mut self) -> Result<(), End> {
        let held = !self.held.is_empty() || !self.waiting.is_empty();
        let over = self.link.with(|state| {
            let said = state.leaving.is_some() || state.peer_leaving.is_some();
            if !said
                || held
                || state.early.is_some()
                || !state.is_over()
                || state.violation.is_some()
            {
                return false;
            }
            state.goodbye();
            if self.done != Some(state.opened) {
                self.done = Some(state.opened);
                state.tell(&Control::Done(state.opened));
            }
            let (arrived, _) = state.arrived();
            state.peer_done.is_some_and(|opened| arrived >= opened)
        });
        if over {
            // the peer read all that there was, or it would have something left to do
            return Err(End::Goodbye);
        }
        Ok(())
    }
}

impl Drop for QuicDriver {
    fn drop(&mut self) {
        // the runtime is shutting down, or the task was aborted: nobody may be left waiting
        let text = "the connection's task is gone";
        close(&self.link.conn, Kind::Disconnected, text);
        self.link.close(cut(text));
    }
}

fn stream_write(
    stream: &mut SendStream,
    bytes: &[u8],
    cx: &mut Context<'_>,
) -> Poll<Result<usize, quinn::WriteError>> {
    Pin::new(stream).poll_write(cx, bytes)
}

/// Closes a connection for a reason.
fn close(conn: &quinn::Connection, kind: Kind, reason: &str) {
    let code = VarInt::from_u32(CLOSE_KIND + u8::from(kind) as u32);
    // it has to fit one packet
    let end = (0..=reason.len().min(900))
        .rev()
        .find(|&n| reason.is_char_boundary(n));
    conn.close(code, &reason.as_bytes()[..end.unwrap_or(0)]);
}

fn cut(reason: &str) -> Failure {
    Failure::new(Kind::Disconnected, format!("disconnected: {reason}"))
}
