//! The task of a text connection.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    TextLink,
    conversation::{Conversation, Hold},
    state::{BACKLOG, State},
};
use crate::{
    Error, Failure, Kind,
    connection::{connected, now, running::Running},
    endpoint::{
        BoxFuture, CoNumber, Current, Holds, Hosted, Landing, Link, Origin, Prepared, Received,
        caught, run_conversation, unbudgeted,
    },
    value::Packed,
    wire::text::{Event, Receiver, Violation, one_line, write_error, write_object},
};

/// How long the peer may take to hang up, and landings to end once it has.
const LINGER: Duration = Duration::from_secs(1);

/// What is read ahead at most while a conversation holds the reader.
const AHEAD: usize = 64 << 10;

/// Answers that may wait for a peer that asks for more; twice what may wait between its spans.
const UNREAD: usize = 2 * BACKLOG;

/// Scripts of one answer that may wait for their turn to land.
const BACK_MOST: usize = 256;

/// Packets between chances for others to run.
const PACKETS_PER_TURN: u32 = 64;

/// Drives one text connection; the future of [`TextDriver::run`] is its task.
pub(crate) struct TextDriver<S> {
    link: Arc<TextLink>,
    reader: Reader<S>,
    writer: Writer<S>,
}

struct Writer<S> {
    stream: WriteHalf<S>,
    /// What was taken off the outbox and is not written yet.
    rest: Bytes,
    /// How long the peer may take nothing of it.
    patience: Duration,
}

struct Reader<S> {
    link: Arc<TextLink>,
    this: Arc<dyn Link>,
    landing: Box<dyn Landing>,
    stream: ReadHalf<S>,
    receiver: Receiver,
    input: BytesMut,
    ended: bool,
    /// How long the rest of what has begun may take.
    patience: Duration,
    /// When a packet began that is not whole yet.
    partial: Option<tokio::time::Instant>,
    /// The conversation whose span this is, and how its raw data is told apart.
    current: Option<u64>,
    channel: u16,
    hosted: Option<Arc<Hosted>>,
    /// The conversation goes on in a task of its own.
    spawned: bool,
}

/// How a connection ended.
enum End {
    /// With nothing lost.
    Well(&'static str),
    /// The peer sends no more, and not all was answered.
    Cut(Failure),
    /// This side tells the peer why.
    Failed(Failure),
    /// The peer said why, or the transport is gone.
    Gone(Failure),
}

impl<S> std::fmt::Debug for TextDriver<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextDriver({:?})", self.link)
    }
}

fn cut(reason: &str) -> Failure {
    Failure::new(Kind::Disconnected, format!("disconnected: {reason}"))
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        End::Failed(Failure::new(Kind::Protocol, violation.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TextDriver<S> {
    /// A driver of a connected stream, which takes packets up to so many bytes, and gives up on a peer
    /// that stops in the middle of one, or takes nothing, for longer than `patience`.
    pub(crate) fn new(
        link: Arc<TextLink>,
        stream: S,
        landing: Box<dyn Landing>,
        packet: usize,
        patience: Duration,
    ) -> Self {
        let this = Arc::clone(&link) as Arc<dyn Link>;
        let (stream, write_half) = tokio::io::split(stream);
        let writer = Writer {
            stream: write_half,
            rest: Bytes::new(),
            patience,
        };
        let reader = Reader {
            link: Arc::clone(&link),
            this,
            landing,
            stream,
            receiver: Receiver::new(packet),
            input: BytesMut::new(),
            ended: false,
            patience,
            partial: None,
            current: None,
            channel: 0,
            hosted: None,
            spawned: false,
        };
        Self {
            link,
            reader,
            writer,
        }
    }

    /// Drives the connection to its end.
    pub(crate) async fn run(mut self) {
        // whatever becomes of this task, a hook that panics included
        let closing = Closing(Arc::clone(&self.link));
        self.link.started();
        connected(&mut *self.reader.landing);
        let end = tokio::select! {
            biased;
            end = self.reader.read() => end,
            end = self.writer.write(&self.link) => end,
            end = watch_time(&self.link) => end,
        };
        let reason = self.finish(end).await;
        drop(closing);
        self.reader.landing.disconnected(&Error::from(reason));
    }

    /// Tells the peer why it is refused, and hangs up.
    pub(crate) async fn refuse(link: Arc<TextLink>, mut stream: S, kind: Kind, reason: &str) {
        let mut bytes = Vec::new();
        write_error(&mut bytes, reason);
        link.close(Failure::new(kind, reason));
        // whatever comes of it, the peer is refused
        let _ = tokio::time::timeout(LINGER, hang_up(&mut stream, &bytes)).await;
    }

    /// Ends the connection: the last bytes, the end of the stream, and everybody who waits.
    async fn finish(&mut self, end: End) -> Failure {
        let (reason, well) = match &end {
            End::Well(why) => (cut(why), true),
            End::Failed(failure) | End::Cut(failure) | End::Gone(failure) => {
                (failure.clone(), false)
            }
        };
        let mut last = self.link.lock().outbox.take();
        if let End::Failed(failure) = &end {
            write_error(&mut last, &failure.to_string());
        }
        self.link.lock().ended_well = well;
        self.link.close(reason.clone());
        if let End::Gone(_) = end {
            return reason;
        }
        let (link, writer) = (&self.link, &mut self.writer);
        let written = async {
            // the end of a packet comes before anything else
            writer.write_rest().await?;
            writer.rest = last.into();
            writer.write_rest().await
        };
        let written = match end {
            // a failure is told if that does not take long
            End::Failed(_) => matches!(tokio::time::timeout(LINGER, written).await, Ok(Ok(()))),
            // a peer that takes a little at a time is waited for as long as this side stays
            _ => tokio::select! {
                written = written => written.is_ok(),
                () = time_to_leave(link) => false,
            },
        };
        if written {
            let told = async {
                self.writer.stream.shutdown().await?;
                // a stream that is closed with input unread may lose what was written last
                let mut unread = [0; 1024];
                while !self.reader.ended && self.reader.stream.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            };
            // the connection is over whether this works or not
            let _ = tokio::time::timeout(LINGER, told).await;
        }
        reason
    }
}

/// Closes the link where the task is dropped.
struct Closing(Arc<TextLink>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(cut("the connection's task is gone"));
    }
}

async fn hang_up(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    last: &[u8],
) -> io::Result<()> {
    stream.write_all(last).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    /// Writes what goes out, until there is a reason to end.
    async fn write(&mut self, link: &TextLink) -> End {
        loop {
            self.rest = match next_output(link) {
                Ok(bytes) => bytes.into(),
                Err(end) => return end,
            };
            if self.rest.is_empty() {
                link.writing.notified().await;
                continue;
            }
            if let Err(failure) = self.write_rest().await {
                return End::Gone(failure);
            }
            let mut state = link.lock();
            state.written();
            link.done(state);
            // the reader may have stopped for the backlog
            link.reading.notify_one();
        }
    }

    /// Writes what is left. Where this is given up the rest stays.
    async fn write_rest(&mut self) -> Result<(), Failure> {
        let Self {
            stream,
            rest,
            patience,
        } = self;
        while !rest.is_empty() {
            let written = tokio::time::timeout(*patience, stream.write(rest)).await;
            match written {
                Ok(Ok(0)) => return Err(cut(&io::ErrorKind::WriteZero.to_string())),
                Ok(Ok(n)) => rest.advance(n),
                Ok(Err(error)) => return Err(cut(&error.to_string())),
                Err(_) => {
                    return Err(cut(&format!(
                        "the peer took nothing of what was written within {patience:?}"
                    )));
                }
            }
        }
        stream
            .flush()
            .await
            .map_err(|error| cut(&error.to_string()))
    }
}

/// What is to be written; nothing where that is all for now, an end where it is all for good.
fn next_output(link: &TextLink) -> Result<Vec<u8>, End> {
    let mut state = link.lock();
    let bytes = state.outbox.take();
    if bytes.is_empty() {
        if let Some(failure) = state.fatal.take() {
            return Err(End::Failed(failure));
        }
        if state.leave_by.is_some() && state.is_idle() {
            return Err(End::Well("this side said goodbye"));
        }
    }
    Ok(bytes)
}

/// Ends what has run out of time.
async fn watch_time(link: &TextLink) -> End {
    loop {
        let next = {
            let state = link.lock();
            let first = state.deadlines.first().map(|(at, _)| *at);
            let next = [first, state.line.deadline(), state.leave_by];
            next.into_iter().flatten().min()
        };
        match next {
            None => link.timing.notified().await,
            Some(at) => {
                tokio::select! {
                    () = link.timing.notified() => continue,
                    () = tokio::time::sleep_until(at.into()) => {}
                }
                let now = now();
                let mut state = link.lock();
                if state.leave_by.is_some_and(|by| by <= now) {
                    return End::Failed(cut("this side said goodbye, and its deadline passed"));
                }
                expire(&mut state, now);
                link.done(state);
                link.reading.notify_one();
            }
        }
    }
}

/// Ready once the deadline of this side's goodbye has passed.
async fn time_to_leave(link: &TextLink) {
    loop {
        let leave_by = link.lock().leave_by;
        match leave_by {
            None => link.timing.notified().await,
            Some(at) => tokio::select! {
                () = link.timing.notified() => {}
                () = tokio::time::sleep_until(at.into()) => return,
            },
        }
    }
}

fn expire(state: &mut State, now: Instant) {
    state.line.expire(now, &mut state.wakers);
    while let Some(&(at, id)) = state.deadlines.first() {
        if at > now {
            return;
        }
        state.deadlines.pop_first();
        if let Some(conversation) = state.conversations.get_mut(&id) {
            conversation.deadline = None;
            // one that nobody waits for goes on
            if conversation.over || conversation.discards {
                continue;
            }
            let text = "the deadline passed before the answer was there";
            let failure = Failure::new(Kind::Timeout, text);
            // of a call there is nothing more to be said
            if conversation.ended && conversation.is_unsent() {
                state.withdraw(id, failure);
            } else {
                conversation.failure = Some(failure);
                conversation.wake(&mut state.wakers);
            }
        }
    }
}

impl<S: AsyncRead> Reader<S> {
    /// Reads and lands until the stream or the connection ends.
    async fn read(&mut self) -> End {
        let mut packets = 0;
        loop {
            packets += 1;
            if packets % PACKETS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            if let Err(end) = self.permission().await {
                return end;
            }
            let event = match self.receiver.next(&mut self.input) {
                Ok(event) => event,
                Err(violation) => return violation.into(),
            };
            let taken = match event {
                Some(event) => {
                    self.partial = None;
                    self.take(event).await
                }
                None if self.ended => return self.end_of_stream().await,
                None => self.more().await,
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    /// Reads once.
    async fn more(&mut self) -> Result<(), End> {
        self.input.reserve(4096);
        let now = tokio::time::Instant::now();
        // raw data may be as long as it likes, as long as it comes
        let since = match self.receiver.raw_expected() > 0 {
            true => Some(now),
            false if self.input.is_empty() => None,
            false => Some(*self.partial.get_or_insert(now)),
        };
        let give_up = since.and_then(|since| since.checked_add(self.patience));
        let reading = self.stream.read_buf(&mut self.input);
        let read = match give_up {
            None => reading.await,
            Some(at) => match tokio::time::timeout_at(at, reading).await {
                Ok(read) => read,
                Err(_) => {
                    let text = format!(
                        "the rest of what had begun did not come within {:?} \
                         (`Settings::idle_timeout`)",
                        self.patience
                    );
                    return Err(End::Failed(cut(&text)));
                }
            },
        };
        match read {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error) => return Err(End::Gone(cut(&error.to_string()))),
        }
        Ok(())
    }

    /// Waits until what comes next may be taken.
    async fn permission(&mut self) -> Result<(), End> {
        loop {
            {
                let link = Arc::clone(&self.link);
                let mut state = link.lock();
                if self.may_go_on(&mut state) {
                    return Ok(());
                }
            }
            // an end is noticed while something holds the reader, too
            let ahead = !self.ended && self.input.len() < AHEAD;
            if ahead {
                self.input.reserve(4096);
            }
            tokio::select! {
                biased;
                () = self.link.reading.notified() => {}
                read = self.stream.read_buf(&mut self.input), if ahead => match read {
                    Ok(0) => self.ended = true,
                    Ok(_) => {}
                    Err(error) => return Err(End::Gone(cut(&error.to_string()))),
                }
            }
        }
    }

    fn may_go_on(&mut self, state: &mut State) -> bool {
        let Some(id) = self.current else {
            // an answer may be what this side waits for before it ends anything
            return state.takes_more() || !self.receiver.begins(&self.input);
        };
        let Some(conversation) = state.conversations.get_mut(&id) else {
            return true;
        };
        if self.receiver.raw_expected() > 0 {
            return conversation.has_room() || conversation.discards;
        }
        if let Some((channel, bytes)) = conversation.expected.pop_front() {
            self.channel = channel;
            self.receiver.expect_raw(bytes);
            return conversation.has_room() || conversation.discards;
        }
        conversation.admits()
    }

    /// Takes what arrived.
    async fn take(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Begin(seq) => self.begin(seq),
            Event::AckBegin(seq) => {
                let answered = self.link.lock().answered(&seq);
                self.current = Some(answered?);
            }
            Event::Code(source) => match self.hosted {
                Some(_) => self.land(&source)?,
                None => self.land_back(&source)?,
            },
            Event::Object(source) => self.object(&source).await?,
            Event::Ask(source) => self.ask(&source).await?,
            Event::End | Event::AckEnd => self.span_ended(),
            Event::Raw(bytes) => {
                if let Some(id) = self.current {
                    self.link.raw(id, self.channel, bytes);
                }
            }
            Event::Error(text) => {
                let line = one_line(&text);
                tracing::debug!(target: "hbi", error = %text, "the peer disconnects");
                let reason = format!("the peer ended the connection: {line}");
                return Err(End::Gone(cut(&reason)));
            }
        }
        Ok(())
    }

    fn begin(&mut self, seq: String) {
        let id = self.link.lock().add(Conversation::new(Some(seq)));
        let origin = Origin {
            link: &self.this,
            co: CoNumber(id),
            current: Current::arrived(None, 0, None),
        };
        self.hosted = Some(origin.hosted());
        self.current = Some(id);
        self.spawned = false;
    }

    /// Lands a script of the peer's conversation: here where it is ready at once, so that scripts
    /// begin in the order in which they arrived.
    fn land(&mut self, source: &str) -> Result<(), End> {
        let (Some(hosted), Some(id)) = (self.hosted.clone(), self.current) else {
            return Ok(());
        };
        if self.closed(id) {
            return Err(extra());
        }
        let written = self.landing.read(source).map_err(End::Failed)?;
        {
            let mut state = self.link.lock();
            if let Some(conversation) = state.conversations.get_mut(&id) {
                conversation.wants = false;
                conversation.hold = match written.holds {
                    Holds::Nothing => Hold::No,
                    Holds::Data(times) => Hold::Data(times),
                    Holds::Conversation => Hold::Yes,
                };
                if self.spawned {
                    // after those before it, in the conversation's own task
                    let received = Received::Script {
                        prepared: written.prepared,
                        value: true,
                        arguments: Packed::array([]),
                    };
                    let waker = conversation.push(received, source.len());
                    state.wakers.extend(waker);
                    self.link.done(state);
                    return Ok(());
                }
            }
        }
        let mut future = written
            .prepared
            .land(Packed::array([]), Arc::clone(&hosted));
        let future: BoxFuture<_> = match poll_first(&mut future, hosted.current()) {
            Poll::Pending => future,
            Poll::Ready(Ok(answer)) if !hosted.is_taken() => {
                let mut message = Some(crate::endpoint::Message::Item(answer));
                let mut cx = Context::from_waker(Waker::noop());
                let this = &self.this;
                match this.poll_send(this, hosted.number(), 0, &mut message, &mut cx) {
                    Poll::Ready(Ok(())) => return Ok(()),
                    Poll::Ready(Err(error)) => return Err(End::Failed(error.into())),
                    // much of it is buffered already
                    Poll::Pending => match message {
                        Some(crate::endpoint::Message::Item(answer)) => {
                            Box::pin(std::future::ready(Ok(answer)))
                        }
                        _ => return Ok(()),
                    },
                }
            }
            Poll::Ready(Err(failure)) => return Err(End::Failed(failure)),
            Poll::Ready(done) => Box::pin(std::future::ready(done)),
        };
        self.spawned = true;
        let conversation = run_conversation(Arc::clone(&hosted), Some(future), true, false);
        let running = Running::start(conversation, hosted, false);
        self.link.keep_running(id, running);
        Ok(())
    }

    /// Whether hosted code has closed the conversation, so that nothing but its end may follow.
    fn closed(&self, id: u64) -> bool {
        let state = self.link.lock();
        let conversation = state.conversations.get(&id);
        conversation.is_none_or(|conversation| conversation.ended)
    }

    /// Lands a script that stands in an answer.
    fn land_back(&mut self, source: &str) -> Result<(), End> {
        let Some(id) = self.current else {
            return Ok(());
        };
        let written = self.landing.read(source).map_err(End::Failed)?;
        let hosted = self.back(id);
        let current = hosted.current();
        let mut future = written.prepared.land(Packed::array([]), hosted);
        let busy = {
            let mut state = self.link.lock();
            let conversation = state.conversations.get_mut(&id);
            // who waits for an object still does
            conversation.is_some_and(|conversation| conversation.back_running)
        };
        if !busy && let Poll::Ready(landed) = poll_first(&mut future, current) {
            return landed.map(|_| ()).map_err(End::Failed);
        }
        // one after the other, in a task of their own: they may call the peer themselves
        let mut state = self.link.lock();
        if let Some(conversation) = state.conversations.get_mut(&id) {
            // they may wait for answers that stand behind these in the stream, so reading goes on
            if conversation.back.len() >= BACK_MOST {
                return Err(End::Failed(Failure::limit(
                    "back-scripts",
                    format_args!("{BACK_MOST} of one answer that wait for others to land"),
                    "send fewer in one answer",
                )));
            }
            conversation.back.push_back(Box::pin(current.carry(future)));
            if !std::mem::replace(&mut conversation.back_running, true) {
                tokio::spawn(run_back(Arc::clone(&self.link), id));
            }
        }
        Ok(())
    }

    /// An object: to who receives it.
    async fn object(&mut self, source: &str) -> Result<(), End> {
        let Some(id) = self.current else {
            return Ok(());
        };
        if self.hosted.is_some() {
            let taken = self.hosted.as_ref().is_some_and(|hosted| hosted.is_taken());
            if self.closed(id) {
                return Err(extra());
            }
            if !taken {
                return Err(End::Failed(Failure::new(
                    Kind::Protocol,
                    "an object that no hosted code receives",
                )));
            }
        }
        let prepared = self.landing.read_value(source).await.map_err(End::Failed)?;
        let packed = self.evaluate(id, prepared).await?;
        let mut state = self.link.lock();
        if let Some(conversation) = state.conversations.get_mut(&id) {
            if conversation.discards || conversation.failure.is_some() {
                conversation.wants = false;
            } else {
                // an answer that ends in data has no name: this is the method's own error
                conversation.data_answer &= !is_named(source);
                let bytes = packed.bytes().len();
                let waker = conversation.push(Received::Item(packed), bytes);
                state.wakers.extend(waker);
            }
        }
        self.link.done(state);
        Ok(())
    }

    /// A script whose value the peer wants at once, between the spans of this side.
    async fn ask(&mut self, source: &str) -> Result<(), End> {
        let Some(id) = self.current else {
            return Ok(());
        };
        // within its span a peer is read on, whatever it reads itself
        if self.link.lock().outbox.len() > UNREAD {
            return Err(End::Failed(Failure::limit(
                "unread",
                format_args!("{UNREAD} bytes that it asked for"),
                "read what is asked for while asking for more",
            )));
        }
        let prepared = self.landing.read_value(source).await.map_err(End::Failed)?;
        let packed = self.evaluate(id, prepared).await?;
        let dialect = match self.link.info().encoding {
            crate::endpoint::Encoding::Literal(dialect) => dialect,
            crate::endpoint::Encoding::Bound => Default::default(),
        };
        let text = packed
            .to_literal(dialect)
            .map_err(|error| End::Failed(error.into()))?;
        let mut whole = Vec::new();
        write_object(&mut whole, &text);
        let mut state = self.link.lock();
        state.outbox.push(whole);
        self.link.done(state);
        Ok(())
    }

    async fn evaluate(&mut self, id: u64, prepared: Arc<dyn Prepared>) -> Result<Packed, End> {
        let hosted = self.back(id);
        let current = hosted.current();
        let future = prepared.land(Packed::array([]), hosted);
        let landed = caught(current.carry(future)).await;
        landed.map_err(End::Failed)
    }

    /// The conversation as a back-script sees it.
    fn back(&self, id: u64) -> Arc<Hosted> {
        let (link, co) = (Arc::clone(&self.this), CoNumber(id));
        Arc::new(Hosted::back(link, co, Current::NONE, None))
    }

    /// The end of a span.
    fn span_ended(&mut self) {
        let Some(id) = self.current.take() else {
            return;
        };
        let hosted = self.hosted.take();
        let mut state = self.link.lock();
        if let Some(conversation) = state.conversations.get_mut(&id) {
            conversation.over = true;
            conversation.wants = false;
            let waker = conversation.receiver.take();
            // nobody else ends it
            if hosted.is_some_and(|hosted| !self.spawned && !hosted.is_taken()) {
                conversation.ended = true;
            }
            if conversation.hosted.is_none()
                && let Some(deadline) = conversation.deadline.take()
            {
                state.deadlines.remove(&(deadline, id));
            }
            state.wakers.extend(waker);
            state.flush(id);
            state.tidy(id);
        }
        self.link.done(state);
        self.link.writing.notify_one();
    }

    /// The peer sends no more: what arrived is answered, if that does not take long.
    async fn end_of_stream(&mut self) -> End {
        if let Err(violation) = self.receiver.finish(&self.input) {
            return violation.into();
        }
        let answered = async {
            loop {
                {
                    let state = self.link.lock();
                    if state.hosted == 0 && state.outbox.is_ready() {
                        return;
                    }
                }
                self.link.reading.notified().await;
            }
        };
        // the writer goes on meanwhile
        let _ = tokio::time::timeout(LINGER, answered).await;
        let state = self.link.lock();
        match state.is_idle() {
            true => End::Well("the peer closed the connection"),
            false => End::Cut(cut(
                "the peer closed the connection before all was answered",
            )),
        }
    }
}

/// Whether a value is written as the constructor of a type: `NoFile("tea")`.
fn is_named(source: &str) -> bool {
    let source = source.trim_start();
    let behind = source.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    behind.len() < source.len() && behind.starts_with('(')
}

fn extra() -> End {
    End::Failed(Failure::new(
        Kind::Protocol,
        "more in a conversation that hosted code has closed",
    ))
}

/// Lands the back-scripts of a conversation to their end.
async fn run_back(link: Arc<TextLink>, id: u64) {
    loop {
        let next = {
            let mut state = link.lock();
            let Some(conversation) = state.conversations.get_mut(&id) else {
                return;
            };
            let next = conversation.back.pop_front();
            if next.is_none() {
                conversation.back_running = false;
                let receiver = conversation.receiver.take();
                state.wakers.extend(receiver);
                state.tidy(id);
            }
            link.done(state);
            next
        };
        match next {
            Some(landing) => {
                if let Err(failure) = caught(landing).await {
                    link.fail_all(failure);
                }
            }
            None => return,
        }
    }
}

/// Polls a landing where it stands: most are ready at once.
fn poll_first(
    future: &mut BoxFuture<Result<Packed, Failure>>,
    current: Current,
) -> Poll<Result<Packed, Failure>> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = Context::from_waker(Waker::noop());
        current.scope(|| unbudgeted(|| future.as_mut().poll(&mut cx)))
    }));
    polled.unwrap_or_else(|_| {
        Poll::Ready(Err(Failure::new(
            Kind::Panic,
            "a script panicked while it landed",
        )))
    })
}
