//! The receiving half of a channel: frames out of a QUIC stream, read when they are asked for.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use quinn::{ReadError, RecvStream};

use super::{
    link::QuicLink,
    state::{Key, Prepare, State},
};
use crate::{
    Failure, Kind,
    connection::handles,
    endpoint::{Link, Received},
    value::{Handles, Packed},
    wire::{
        mux::{Payload, Settings, Violation},
        quic::{Frame, RESET_CLOSING, Reader, STOP_CANCELLED, STOP_DONE},
    },
};

/// Frames that are looked through for the end of a conversation, and bytes of them.
const AHEAD: usize = 256;
const AHEAD_BYTES: usize = 1 << 20;

/// A message larger than this is put together only where there is room.
const LARGE: usize = 64 << 10;

/// Bytes taken from a stream at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) enum ReceiveState {
    Open,
    Ended,
    Failed(Box<Failure>),
    /// Nobody reads any more.
    Dropped,
    /// No message that was read names it.
    Unnamed,
}

/// The receiving half of a channel.
pub(super) struct Receiving {
    pub(super) state: ReceiveState,
    /// Missing while it is on its way.
    pub(super) stream: Option<RecvStream>,
    pub(super) reader: Reader,
    /// Frames that were read while somebody looked for the end; they come before what is in the
    /// stream.
    ahead: VecDeque<Frame>,
    ahead_bytes: usize,
    /// What the message that is being put together takes of what this side holds for the peer.
    assembling: Option<u64>,
    /// Scripts that the driver made ready.
    pub(super) ready: VecDeque<Received>,
    /// The driver has a script to make ready; what comes behind it waits.
    pub(super) preparing: bool,
    pub(super) waker: Option<Waker>,
    /// Handles in what was read.
    pub(super) seen: u32,
    /// Dropped because whoever waited gave up.
    pub(super) cancelled: bool,
}

impl Receiving {
    pub(super) fn new(stream: Option<RecvStream>, reader: Reader) -> Self {
        Self {
            state: ReceiveState::Open,
            stream,
            reader,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            assembling: None,
            ready: VecDeque::new(),
            preparing: false,
            waker: None,
            seen: 0,
            cancelled: false,
        }
    }

    /// The place of a stream that no message has named yet.
    pub(super) fn unnamed(reader: Reader) -> Self {
        Self {
            state: ReceiveState::Unnamed,
            ..Self::new(None, reader)
        }
    }

    pub(super) fn is_named(&self) -> bool {
        !matches!(self.state, ReceiveState::Unnamed)
    }

    /// Whether its end was seen, or nobody looks for it.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.state, ReceiveState::Open)
    }

    /// The stream is open.
    pub(super) fn open(&mut self, mut stream: RecvStream) {
        if matches!(self.state, ReceiveState::Open) {
            self.stream = Some(stream);
            return;
        }
        let code = if self.cancelled {
            STOP_CANCELLED
        } else {
            STOP_DONE
        };
        // it is new, nobody can have stopped it
        let _ = stream.stop(code.into());
    }

    /// The terminal was read: what is left is the end of the stream, which is usually there.
    pub(super) fn end(&mut self, state: ReceiveState) {
        self.state = state;
        if let Some(mut stream) = self.stream.take() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = pin!(stream.read_chunk(CHUNK, true)).poll(&mut cx);
        }
    }
}

/// What reading a channel comes to.
pub(super) enum Read {
    Frame(Frame),
    Failed(Box<Failure>),
    Violation(Violation),
    /// The connection is gone, the driver will say why.
    Lost,
}

/// Room for messages that are being put together, of all channels.
#[derive(Debug)]
pub(super) struct Assembly {
    /// Bytes that are left of it.
    left: u64,
    all: u64,
    /// There is more of it than before.
    freed: bool,
    /// Channels that wait for some. Each stands here until it has it: it was there before those that come.
    waiting: HashSet<(Key, u16)>,
    /// How many may wait: what stands in their streams counts against the connection's window, and those
    /// that are read need the rest of it.
    most: usize,
}

impl Assembly {
    pub(super) fn new(settings: &Settings) -> Self {
        let most = settings.held / 4 * 3 / u64::from(settings.window);
        Self {
            left: settings.held,
            all: settings.held,
            freed: false,
            waiting: HashSet::new(),
            most: most as usize,
        }
    }

    /// The next frame of a channel, whose stream is open. Where there is no room, the channel's waker is
    /// woken when there is; it fails where those that wait leave no more of the connection's window.
    fn poll_frame(
        &mut self,
        at: (Key, u16),
        receiving: &mut Receiving,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Read, Box<Failure>>> {
        let Receiving {
            stream: Some(stream),
            reader,
            assembling,
            ..
        } = receiving
        else {
            return Poll::Pending;
        };
        let mut refused = None;
        let read = poll_frame_where(stream, reader, cx, |reader, _| {
            let needs = reader.needs();
            if needs <= LARGE || assembling.is_some() {
                return Poll::Ready(());
            }
            let mut takes = (needs as u64).min(self.all);
            if takes > self.left {
                if self.waiting.len() < self.most || self.waiting.contains(&at) {
                    self.waiting.insert(at);
                    return Poll::Pending;
                }
                let is_answer = !at.0.is_hosted() && at.1 == 0;
                if !is_answer {
                    refused = Some(no_room(needs, self.most));
                    return Poll::Pending;
                }
                // this side asked for it, so it is not bounded
                takes = 0;
            }
            self.waiting.remove(&at);
            self.left -= takes;
            *assembling = Some(takes);
            Poll::Ready(())
        });
        if let Some(failure) = refused {
            return Poll::Ready(Err(failure));
        }
        if read.is_ready() {
            self.give_back(receiving);
        }
        read.map(Ok)
    }

    /// The message of a channel is whole, or will never be.
    fn give_back(&mut self, receiving: &mut Receiving) {
        let freed = receiving.assembling.take().unwrap_or_default();
        self.left += freed;
        self.freed |= freed > 0;
    }

    /// Nothing more of a channel is read: its room is given back, and what that was for is dropped.
    pub(super) fn leave(&mut self, at: (Key, u16), receiving: &mut Receiving) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&at);
        }
        if receiving.assembling.is_some() {
            receiving.reader.clear();
            self.give_back(receiving);
        }
    }
}

fn no_room(needs: usize, most: usize) -> Box<Failure> {
    Box::new(Failure::limit(
        "held",
        format_args!("{needs} bytes of a message beside {most} others that wait for room"),
        "send fewer large ones at once, or `Data`, or raise `Settings::held` where they are received",
    ))
}

/// The next frame of a stream; more of it is read only where `may_read` says so.
pub(super) fn poll_frame_where(
    stream: &mut RecvStream,
    reader: &mut Reader,
    cx: &mut Context<'_>,
    mut may_read: impl FnMut(&mut Reader, &mut Context<'_>) -> Poll<()>,
) -> Poll<Read> {
    loop {
        match reader.take_frame() {
            Ok(Some(frame)) => return Poll::Ready(Read::Frame(frame)),
            Ok(None) => {}
            Err(violation) => return Poll::Ready(Read::Violation(violation)),
        }
        ready!(may_read(reader, cx));
        let read = pin!(stream.read_chunk(CHUNK, true)).poll(cx);
        let abandoned = || {
            let text = "dropped by the peer before its end";
            Poll::Ready(Read::Failed(Box::new(Failure::new(Kind::Cancelled, text))))
        };
        match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(Some(chunk))) => reader.push(chunk.bytes),
            Poll::Ready(Err(ReadError::Reset(code))) if code == RESET_CLOSING.into() => {
                return Poll::Ready(Read::Lost);
            }
            Poll::Ready(Ok(None) | Err(ReadError::Reset(_))) => return abandoned(),
            Poll::Ready(Err(_)) => return Poll::Ready(Read::Lost),
        }
    }
}

/// What arrives on a channel, before its handles are made usable.
pub(super) enum Next {
    Item(Payload),
    Data(Bytes),
    Ready(Received),
    End,
}

impl State {
    /// The next thing on a channel.
    pub(super) fn poll_next(
        &mut self,
        this: &Arc<dyn Link>,
        key: Key,
        channel: u16,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Next, Box<Failure>>> {
        loop {
            let co = self.conversations.get_mut(&key);
            let Some(receiving) = co.and_then(|co| co.receiving.get_mut(channel as usize)) else {
                return Poll::Ready(Err(Box::new(self.gone())));
            };
            if let Some(ready) = receiving.ready.pop_front() {
                return Poll::Ready(Ok(Next::Ready(ready)));
            }
            match &receiving.state {
                ReceiveState::Open => {}
                ReceiveState::Dropped | ReceiveState::Unnamed => {
                    return Poll::Ready(Ok(Next::End));
                }
                ReceiveState::Ended | ReceiveState::Failed(_) => {
                    let seen = std::mem::replace(&mut receiving.state, ReceiveState::Dropped);
                    return Poll::Ready(match seen {
                        ReceiveState::Failed(failure) => Err(failure),
                        _ => Ok(Next::End),
                    });
                }
            }
            let read = match &mut receiving.stream {
                _ if receiving.preparing => Poll::Pending,
                _ if !receiving.ahead.is_empty() => match receiving.ahead.pop_front() {
                    Some(frame) => Poll::Ready(Read::Frame(frame)),
                    None => Poll::Pending,
                },
                Some(_) => match self.assembly.poll_frame((key, channel), receiving, cx) {
                    Poll::Ready(Ok(read)) => Poll::Ready(read),
                    Poll::Ready(Err(failure)) => {
                        self.stop_receiving(key, channel, false);
                        self.settle(key);
                        return Poll::Ready(Err(failure));
                    }
                    Poll::Pending => Poll::Pending,
                },
                None => Poll::Pending,
            };
            let read = match read {
                Poll::Ready(Read::Lost) | Poll::Pending => {
                    if read.is_ready() {
                        // nothing more comes of it
                        receiving.stream = None;
                    }
                    if let Some(reason) = &self.closed {
                        return Poll::Ready(Err(reason.clone()));
                    }
                    match &receiving.waker {
                        Some(waker) if waker.will_wake(cx.waker()) => {}
                        _ => receiving.waker = Some(cx.waker().clone()),
                    }
                    return Poll::Pending;
                }
                Poll::Ready(read) => read,
            };
            match read {
                Read::Frame(Frame::Item { payload, last }) => {
                    if let Err(violation) = self.received(key, channel, &payload, last) {
                        self.violated(violation);
                        continue;
                    }
                    return Poll::Ready(Ok(Next::Item(payload)));
                }
                Read::Frame(Frame::Data(bytes)) => return Poll::Ready(Ok(Next::Data(bytes))),
                Read::Frame(Frame::Script {
                    script,
                    value,
                    arguments,
                }) if channel == 0 => {
                    receiving.preparing = true;
                    if let Err(violation) = self.received(key, channel, &arguments, false) {
                        self.violated(violation);
                        continue;
                    }
                    let arguments = self.packed(this, key, arguments);
                    self.prepare.push(Prepare {
                        key,
                        script,
                        value,
                        arguments,
                    });
                    self.stir = true;
                }
                Read::Frame(Frame::End) => {
                    receiving.end(ReceiveState::Dropped);
                    self.ended(key, channel);
                    return Poll::Ready(Ok(Next::End));
                }
                Read::Frame(Frame::Failed(failure)) | Read::Failed(failure) => {
                    receiving.end(ReceiveState::Dropped);
                    self.ended(key, channel);
                    return Poll::Ready(Err(failure));
                }
                Read::Frame(Frame::Open(_) | Frame::Script { .. }) => {
                    let text = "an opening or a script where there can be none";
                    self.violated(Violation(text.to_owned()));
                }
                Read::Violation(violation) => self.violated(violation),
                Read::Lost => {}
            }
        }
    }

    /// Wakes those who wait to put a message together, where there is room again.
    pub(super) fn wake_assembly(&mut self) {
        if !std::mem::take(&mut self.assembly.freed) {
            return;
        }
        for (key, channel) in &self.assembly.waiting {
            let co = self.conversations.get_mut(key);
            let receiving = co.and_then(|co| co.receiving.get_mut(*channel as usize));
            self.wakers
                .extend(receiving.and_then(|receiving| receiving.waker.take()));
        }
    }

    /// Why the host of a conversation reads no more of it, `None` where it ended in good order. It ends
    /// its side before it stops to read, so its end is there or on its way.
    pub(super) fn poll_why(
        &mut self,
        key: Key,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Box<Failure>>> {
        let co = self.conversations.get_mut(&key);
        let Some(receiving) = co.and_then(|co| co.receiving.first_mut()) else {
            return Poll::Ready(None);
        };
        if let ReceiveState::Failed(why) = &receiving.state {
            return Poll::Ready(Some(why.clone()));
        }
        loop {
            match receiving.ahead.back() {
                Some(Frame::Failed(why)) => return Poll::Ready(Some(why.clone())),
                Some(Frame::End | Frame::Item { last: true, .. }) => return Poll::Ready(None),
                _ if receiving.ahead.len() >= AHEAD => return Poll::Ready(None),
                _ if receiving.ahead_bytes >= AHEAD_BYTES => return Poll::Ready(None),
                _ => {}
            }
            if receiving.stream.is_none() {
                return Poll::Ready(None);
            }
            receiving.waker = Some(cx.waker().clone());
            match ready!(self.assembly.poll_frame((key, 0), receiving, cx)) {
                Ok(Read::Frame(frame)) => {
                    receiving.ahead_bytes += frame.size();
                    receiving.ahead.push_back(frame);
                }
                Ok(Read::Failed(why)) | Err(why) => return Poll::Ready(Some(why)),
                Ok(Read::Violation(_) | Read::Lost) => return Poll::Ready(None),
            }
        }
    }

    /// The driver is to end the connection; nothing more is read on it.
    fn violated(&mut self, violation: Violation) {
        let failure = Failure::new(Kind::Protocol, violation.0.clone());
        self.violation.get_or_insert(violation);
        self.stir = true;
        for co in self.conversations.values_mut() {
            for receiving in &mut co.receiving {
                if matches!(receiving.state, ReceiveState::Open) {
                    receiving.state = ReceiveState::Failed(Box::new(failure.clone()));
                    self.wakers.extend(receiving.waker.take());
                }
            }
        }
    }

    /// A payload was read: its streams are opened, its handles counted.
    fn received(
        &mut self,
        key: Key,
        channel: u16,
        payload: &Payload,
        last: bool,
    ) -> Result<(), Violation> {
        self.add_received(key, &payload.handles)?;
        let Some(co) = self.conversations.get_mut(&key) else {
            return Ok(());
        };
        let receiving = &mut co.receiving[channel as usize];
        receiving.seen += payload.handles.len() as u32;
        if last {
            receiving.end(ReceiveState::Ended);
            self.ended(key, channel);
        }
        Ok(())
    }

    /// The end of a channel was seen.
    fn ended(&mut self, key: Key, channel: u16) {
        let Some(co) = self.conversations.get(&key) else {
            return;
        };
        let seen = co.receiving[channel as usize].seen;
        if seen > 0 {
            self.tell_seen(key, channel, seen);
        }
        self.settle(key);
    }

    /// The handles of a payload that arrived, made usable.
    pub(super) fn packed(&self, this: &Arc<dyn Link>, key: Key, payload: Payload) -> Packed {
        let handles = if payload.handles.is_empty() {
            Handles::new()
        } else {
            handles::arrived(this, key.co(), &payload.handles, &self.objects)
        };
        Packed::from_parts(payload.bytes, handles)
    }
}

/// Reads what comes in a conversation that nobody is interested in, to its end.
pub(super) async fn drain(link: Arc<QuicLink>, key: Key) {
    let this = Arc::clone(&link) as Arc<dyn Link>;
    while let Ok(Some(received)) =
        std::future::poll_fn(|cx| this.poll_receive(&this, key.co(), 0, cx)).await
    {
        drop(received);
    }
}
