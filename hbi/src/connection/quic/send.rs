//! The sending half of a channel: frames on their way into a QUIC stream.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn::SendStream;
use tokio::task::AbortHandle;

use super::{
    link::QuicLink,
    state::{Key, State},
};
use crate::{
    Failure,
    wire::quic::{
        ChannelHead, RESET_CLOSING, StreamKind, write_data, write_end, write_error, write_item,
    },
};

/// Bytes one channel takes over from its sender beyond what the transport takes.
const SEND_BUFFER: usize = 128 << 10;

/// The largest piece of raw data in one frame: a failure waits for no more than this.
const DATA_FRAME: usize = 64 << 10;

/// A stream with larger messages, or with raw data, lets others go first.
const BULK: usize = 16 << 10;

/// How far bulk goes behind everything else.
const BULK_PRIORITY: i32 = -1;

/// Bodies up to this size are copied behind their frames' heads.
const SMALL: usize = 1 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    /// Its end is queued.
    Ending,
    Closed,
    /// The peer wants no more.
    Stopped,
}

/// A frame on its way.
#[derive(Debug)]
struct Queued {
    pieces: [Bytes; 2],
    begun: bool,
    /// Handles in it.
    handles: usize,
}

/// The sending half of a channel.
pub(super) struct Sending {
    pub(super) state: SendState,
    pub(super) stream: Option<SendStream>,
    queue: VecDeque<Queued>,
    queued: usize,
    /// Who waits for room, for all to have left, or for the peer to want no more.
    pub(super) waker: Option<Waker>,
    /// Ready once the peer wants no more.
    stopped: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// What it sends lets others go first.
    bulk: bool,
    /// It stands in the queue of those that wait for their streams.
    waits: bool,
    /// The task that opens the stream, or waits for it to take more.
    pub(super) pump: Option<AbortHandle>,
}

impl Sending {
    pub(super) fn new(stream: Option<SendStream>) -> Self {
        Self {
            state: SendState::Open,
            stream,
            queue: VecDeque::new(),
            queued: 0,
            waker: None,
            stopped: None,
            bulk: false,
            waits: false,
            pump: None,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.queued < SEND_BUFFER
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, SendState::Closed | SendState::Stopped)
    }

    /// Queues a frame with so many handles: its head, and its body where that stands apart.
    pub(super) fn push(&mut self, mut head: Vec<u8>, body: Bytes, handles: usize) {
        self.queued += head.len() + body.len();
        if head.len() + body.len() > BULK {
            self.yield_to_others();
        }
        let body = if body.len() <= SMALL {
            head.extend_from_slice(&body);
            Bytes::new()
        } else {
            body
        };
        self.queue.push_back(Queued {
            pieces: [head.into(), body],
            begun: false,
            handles,
        });
    }

    /// Queues the opening of a conversation, which goes out whatever becomes of it: the order of
    /// landings would wait for it.
    pub(super) fn opening(&mut self, frame: Vec<u8>, last: bool) {
        self.push(frame, Bytes::new(), 0);
        if let Some(frame) = self.queue.back_mut() {
            frame.begun = true;
        }
        if last {
            self.state = SendState::Ending;
        }
    }

    /// Queues a value.
    pub(super) fn item(
        &mut self,
        body: Bytes,
        last: bool,
        handles: &[crate::wire::mux::WireHandle],
    ) {
        let mut head = Vec::with_capacity(16 + body.len().min(SMALL));
        write_item(&mut head, body.len(), last, handles);
        self.push(head, body, handles.len());
        if last {
            self.state = SendState::Ending;
        }
    }

    /// Queues raw data. No bytes at all end a run of it.
    pub(super) fn data(&mut self, mut bytes: Bytes) {
        if !bytes.is_empty() {
            self.yield_to_others();
        }
        loop {
            let piece = bytes.split_to(bytes.len().min(DATA_FRAME));
            let mut head = Vec::with_capacity(8);
            write_data(&mut head, piece.len());
            self.push(head, piece, 0);
            if bytes.is_empty() {
                return;
            }
        }
    }

    /// Its stream is gone, with all that was written there. It gets another one, which begins anew.
    pub(super) fn lost(&mut self) {
        self.stop();
        self.state = SendState::Ending;
    }

    fn yield_to_others(&mut self) {
        if !std::mem::replace(&mut self.bulk, true) {
            self.prioritise();
        }
    }

    /// The stream's place among others, once it is open.
    fn prioritise(&self) {
        if let (true, Some(stream)) = (self.bulk, &self.stream) {
            // one that has ended needs none
            let _ = stream.set_priority(BULK_PRIORITY);
        }
    }

    /// The stream is open.
    pub(super) fn open(&mut self, stream: SendStream) {
        self.stream = Some(stream);
        self.prioritise();
    }

    /// Queues the end in good order.
    pub(super) fn end(&mut self) {
        if self.state == SendState::Open {
            let mut head = Vec::new();
            write_end(&mut head);
            self.push(head, Bytes::new(), 0);
            self.state = SendState::Ending;
        }
    }

    /// Queues the end with a failure; what did not begin to leave is dropped. Returns how many handles
    /// were in that, `None` where the channel is over.
    fn fail(&mut self, failure: &Failure) -> Option<usize> {
        if self.is_over() {
            return None;
        }
        // what has left in part has to be complete
        let (begun, dropped): (VecDeque<_>, VecDeque<_>) =
            self.queue.drain(..).partition(|frame| frame.begun);
        self.queue = begun;
        self.queued = self
            .queue
            .iter()
            .map(|frame| frame.pieces[0].len() + frame.pieces[1].len())
            .sum();
        let mut head = Vec::new();
        write_error(&mut head, failure);
        self.push(head, Bytes::new(), 0);
        self.state = SendState::Ending;
        Some(dropped.iter().map(|frame| frame.handles).sum())
    }

    /// The peer wants no more, or the connection is gone.
    pub(super) fn stop(&mut self) {
        self.state = SendState::Stopped;
        self.queue.clear();
        self.queued = 0;
        if let Some(mut stream) = self.stream.take() {
            // dropped, it would still send what it holds; one that was stopped is over, too
            let _ = stream.reset(RESET_CLOSING.into());
        }
        self.stopped = None;
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
    }

    /// Writes what can be written; ready once nothing is left. Returns whom to wake beside.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, woken: &mut Vec<Waker>) -> Poll<()> {
        let written = self.write(cx);
        if self.state != SendState::Open || self.has_room() && written.is_ready() {
            woken.extend(self.waker.take());
        }
        written
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Pending;
        };
        while let Some(frame) = self.queue.front_mut() {
            let written = pin!(stream.write_chunks(&mut frame.pieces)).poll(cx);
            match written {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(written)) => {
                    self.queued -= written.bytes;
                    frame.begun = true;
                    if frame.pieces.iter().all(Bytes::is_empty) {
                        self.queue.pop_front();
                    }
                }
                Poll::Ready(Err(_)) => {
                    self.stop();
                    return Poll::Ready(());
                }
            }
        }
        if self.state == SendState::Ending {
            // it cannot have been finished before; if it was stopped it is over as well
            let _ = stream.finish();
            let _ = stream.finish();
            self.state = SendState::Closed;
            self.stream = None;
            self.stopped = None;
        }
        Poll::Ready(())
    }

    /// Ready once the peer wants no more, or nothing more can be sent.
    pub(super) fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state != SendState::Open {
            return Poll::Ready(());
        }
        self.waker = Some(cx.waker().clone());
        let Some(stream) = &self.stream else {
            return Poll::Pending;
        };
        let stopped = self.stopped.get_or_insert_with(|| {
            let stopped = stream.stopped();
            // all that was sent is there: no stop
            Box::pin(async move { !matches!(stopped.await, Ok(None)) })
        });
        match stopped.as_mut().poll(cx) {
            Poll::Ready(true) => {
                self.stop();
                Poll::Ready(())
            }
            Poll::Ready(false) | Poll::Pending => Poll::Pending,
        }
    }
}

impl State {
    /// Writes what a channel has; what its stream does not take now is left to a task.
    pub(super) fn kick(&mut self, link: &Arc<QuicLink>, key: Key, channel: u16) {
        let mut woken = Vec::new();
        let Some(co) = self.conversations.get_mut(&key) else {
            return;
        };
        let Some(sending) = co.sending.get_mut(channel as usize) else {
            return;
        };
        if sending.pump.is_some() {
            return;
        }
        if sending.stream.is_none() && !sending.is_over() {
            let mut cx = Context::from_waker(Waker::noop());
            let conn = &link.conn;
            if channel == 0 {
                let open = match (self.opening.is_empty(), self.late.take()) {
                    (_, Some(streams)) => Poll::Ready(Ok(streams)),
                    (true, None) => pin!(conn.open_bi()).poll(&mut cx),
                    (false, None) => Poll::Pending,
                };
                match open {
                    Poll::Ready(Ok((send, recv))) => {
                        sending.open(send);
                        co.receiving[0].open(recv);
                    }
                    // one that failed is seen there
                    _ => return self.wait_for_stream(link, key),
                }
            } else if let Poll::Ready(Ok(stream)) = pin!(conn.open_uni()).poll(&mut cx) {
                sending.begin(stream, key, channel);
            }
        }
        let mut cx = Context::from_waker(Waker::noop());
        if sending.poll_write(&mut cx, &mut woken).is_pending() {
            let pump = link.runtime.spawn(pump(Arc::clone(link), key, channel));
            sending.pump = Some(pump.abort_handle());
        }
        self.wakers.append(&mut woken);
        self.settle(key);
    }
}

impl Sending {
    /// The stream is open: its head goes first.
    fn begin(&mut self, stream: SendStream, key: Key, channel: u16) {
        let head = ChannelHead {
            receivers: key.is_hosted(),
            number: key.number(),
            channel,
        };
        let mut bytes = vec![StreamKind::Channel.to_byte()];
        bytes.extend_from_slice(&head.to_bytes());
        self.queued += bytes.len();
        self.queue.push_front(Queued {
            pieces: [bytes.into(), Bytes::new()],
            begun: true,
            handles: 0,
        });
        self.open(stream);
    }
}

impl State {
    /// Queues a conversation that cannot have its stream yet.
    fn wait_for_stream(&mut self, link: &Arc<QuicLink>, key: Key) {
        let Some(sending) = self.sending(key, 0) else {
            return;
        };
        if !std::mem::replace(&mut sending.waits, true) {
            self.opening.push_back(key);
            if self.opening.len() == 1 {
                link.runtime.spawn(open_waiting(Arc::clone(link)));
            }
        }
    }
}

/// Opens the streams of conversations that wait for them, in their order: their landings wait for each
/// other, so none may take a stream before one that was begun earlier.
async fn open_waiting(link: Arc<QuicLink>) {
    loop {
        let Ok((send, recv)) = link.conn.open_bi().await else {
            // the connection is gone, and with it who waited
            return;
        };
        let more = link.with(|state| {
            while let Some(key) = state.opening.pop_front() {
                if let Some(co) = state.conversations.get_mut(&key)
                    && !co.sending[0].is_over()
                {
                    co.sending[0].open(send);
                    co.receiving[0].open(recv);
                    let waker = co.receiving[0].waker.take();
                    state.wakers.extend(waker);
                    state.kick(&link, key, 0);
                    break;
                }
            }
            !state.opening.is_empty()
        });
        if !more {
            return;
        }
    }
}

/// Opens a stream within a conversation where that had to wait, and writes until nothing is left.
async fn pump(link: Arc<QuicLink>, key: Key, channel: u16) {
    let missing = link.with(|state| {
        let sending = state.sending(key, channel);
        sending.is_some_and(|sending| sending.stream.is_none() && !sending.is_over())
    });
    if missing {
        let Ok(stream) = link.conn.open_uni().await else {
            return link.with(|state| state.lost_stream(key, channel));
        };
        link.with(|state| {
            if let Some(sending) = state.sending(key, channel) {
                sending.begin(stream, key, channel);
                let waker = sending.waker.take();
                state.wakers.extend(waker);
            }
        });
    }
    poll_fn(|cx| {
        link.with(|state| {
            let mut woken = Vec::new();
            let Some(sending) = state.sending(key, channel) else {
                return Poll::Ready(());
            };
            let written = sending.poll_write(cx, &mut woken);
            if written.is_ready() {
                sending.pump = None;
            }
            state.wakers.append(&mut woken);
            if written.is_ready() {
                state.settle(key);
            }
            written
        })
    })
    .await;
}

impl State {
    pub(super) fn sending(&mut self, key: Key, channel: u16) -> Option<&mut Sending> {
        let co = self.conversations.get_mut(&key)?;
        co.sending.get_mut(channel as usize)
    }

    /// Ends one direction of a conversation with a failure. The peer will not see what was dropped of
    /// it, so its handles are taken back. Returns whether there is something to be written.
    pub(super) fn fail_sending(&mut self, key: Key, channel: u16, failure: &Failure) -> bool {
        let Some(sending) = self.sending(key, channel) else {
            return false;
        };
        let dropped = sending.fail(failure);
        if let Some(handles @ 1..) = dropped {
            let left = self.given((key, channel)).saturating_sub(handles);
            self.revoke((key, channel), left);
        }
        dropped.is_some()
    }

    /// A stream cannot be opened: the connection is gone.
    fn lost_stream(&mut self, key: Key, channel: u16) {
        if let Some(sending) = self.sending(key, channel) {
            sending.stop();
            sending.pump = None;
            let waker = sending.waker.take();
            self.wakers.extend(waker);
        }
    }
}
