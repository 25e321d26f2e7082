//! `rawmux`: the floor under a library. It adds to `raw` what none can do without: a future per call,
//! a table of the calls that wait, one task that reads and finds each answer's call, and writes all
//! that is pending at once, small frames before bulk. It can be used from several threads, has no
//! serialiser, no flow control, no limits, no deadlines.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    io::{self, IoSlice},
    marker::PhantomData,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use slab::Slab;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
};

use super::{
    Client, NO_COMPUTING, NO_SCRIPTS, Peer,
    floor::{
        Frame, HEADER, Inbox, Transport, WRITTEN, ZEROS, header, kind, number, put_frame,
        two_numbers,
    },
};
use crate::{
    process::Announce,
    works::{Tally, Work},
};

/// How often the connection's task reads and writes before others have their turn.
const TURNS: usize = 64;

/// Pieces of bulk before others have their turn: what is written in one turn is in the way of all that
/// comes meanwhile.
const PIECES: usize = 4;

/// The realistic floor.
#[derive(Debug)]
pub(crate) struct RawMux<T>(PhantomData<T>);

impl<T: Transport> Peer for RawMux<T> {
    const NAME: &'static str = T::MUX_NAME;
    const ABOUT: &'static str = T::MUX_ABOUT;
    type Client = MuxClient;

    fn supports(work: Work) -> Result<(), &'static str> {
        match work {
            Work::Script(_) | Work::Loop(_) | Work::Interned(_) => Err(NO_SCRIPTS),
            Work::InPlace(_) | Work::Parallel(_) => Err(NO_COMPUTING),
            Work::Methods(_) => Err("it has no methods to choose from"),
            _ => Ok(()),
        }
    }

    async fn serve(announce: Announce) -> Result<()> {
        let (listener, address) = T::listen().await?;
        announce.at(address)?;
        let subscribers = Subscribers::default();
        loop {
            let stream = T::accept(&listener).await?;
            let link = Arc::new(Link::default());
            let server = Serving {
                link: link.clone(),
                subscribers: subscribers.clone(),
                uploads: HashMap::new(),
            };
            tokio::spawn(drive(stream, link, server));
        }
    }

    async fn connect(address: &str) -> Result<MuxClient> {
        let link = Arc::new(Link::default());
        let calling = Calling {
            link: link.clone(),
            woken: Vec::new(),
        };
        tokio::spawn(drive(T::connect(address).await?, link.clone(), calling));
        Ok(MuxClient { link })
    }
}

type Subscribers = Arc<Mutex<Vec<Arc<Link>>>>;

/// What the users of a connection share with its task.
#[derive(Debug, Default)]
struct Link(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Small frames that wait to be written.
    out: Vec<u8>,
    /// Bulk that waits to be written: the call, and the bytes left.
    bulk: VecDeque<(u32, u64)>,
    calls: Slab<Slot>,
    tally: Option<Arc<Tally>>,
    /// The connection's task, where it sleeps.
    sleeping: Option<Waker>,
    ended: bool,
}

impl Link {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("no holder of the lock panics")
    }

    /// Changes what is to be written, and sees to it that the connection's task notices.
    fn post<R>(&self, change: impl FnOnce(&mut Shared) -> R) -> R {
        let mut shared = self.shared();
        let result = change(&mut shared);
        let sleeping = shared.sleeping.take();
        drop(shared);
        if let Some(sleeping) = sleeping {
            sleeping.wake();
        }
        result
    }
}

/// A call that waits, or its answer.
#[derive(Debug)]
enum Slot {
    Waiting(Waker),
    /// Waits for so many bytes, of which some have come.
    Receiving(Waker, u64, u64),
    Number(i64),
    Bytes(Bytes),
    Failed,
}

/// One end of a connection: what it does with the frames that come.
trait End: Send + 'static {
    /// Handles a frame; answers go to `out`.
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> io::Result<()>;

    /// All frames of a read were handled.
    fn handled(&mut self);
}

struct Serving {
    link: Arc<Link>,
    subscribers: Subscribers,
    /// Of each upload, the bytes that are to come and those that have.
    uploads: HashMap<u32, (u64, u64)>,
}

impl End for Serving {
    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let Frame { kind, call, body } = frame;
        match kind {
            kind::ADD => {
                let sum = number(body, 0)?.wrapping_add(number(body, 1)?);
                put_frame(out, kind::ANSWER, call, &sum.to_le_bytes());
            }
            kind::ECHO => put_frame(out, kind::ANSWER, call, body),
            kind::DOWNLOAD => self
                .link
                .shared()
                .bulk
                .push_back((call, number(body, 0)? as u64)),
            kind::UPLOAD => {
                self.uploads.insert(call, (number(body, 0)? as u64, 0));
            }
            kind::BULK => {
                let (total, received) = self
                    .uploads
                    .get_mut(&call)
                    .ok_or_else(|| io::Error::other("bulk that nobody announced"))?;
                *received += body.len() as u64;
                if received == total {
                    let received = *received;
                    self.uploads.remove(&call);
                    put_frame(out, kind::ANSWER, call, &received.to_le_bytes());
                }
            }
            kind::SUBSCRIBE => {
                self.subscribers
                    .lock()
                    .expect("no holder panics")
                    .push(self.link.clone());
                put_frame(out, kind::ANSWER, call, &0_i64.to_le_bytes());
            }
            kind::PUBLISH => {
                for subscriber in &*self.subscribers.lock().expect("no holder panics") {
                    subscriber.post(|shared| put_frame(&mut shared.out, kind::EVENT, 0, body));
                }
                put_frame(out, kind::ANSWER, call, &0_i64.to_le_bytes());
            }
            other => return Err(io::Error::other(format!("a frame of kind {other}"))),
        }
        Ok(())
    }

    fn handled(&mut self) {}
}

struct Calling {
    link: Arc<Link>,
    /// Whom to wake once the lock is given back.
    woken: Vec<Waker>,
}

impl End for Calling {
    fn frame(&mut self, frame: Frame<'_>, _: &mut Vec<u8>) -> io::Result<()> {
        let mut shared = self.link.shared();
        if frame.kind == kind::EVENT {
            if let Some(tally) = &shared.tally {
                tally.received(number(frame.body, 0)?);
            }
            return Ok(());
        }
        let slot = shared.calls.get_mut(frame.call as usize);
        let slot = slot.ok_or_else(|| io::Error::other("an answer to no call"))?;
        if let (kind::BULK, Slot::Receiving(_, total, received)) = (frame.kind, &mut *slot) {
            *received += frame.body.len() as u64;
            if received < total {
                return Ok(());
            }
        }
        let answer = match slot {
            Slot::Receiving(_, _, received) => Slot::Number(*received as i64),
            _ if frame.body.len() == 8 => Slot::Number(number(frame.body, 0)?),
            _ => Slot::Bytes(Bytes::copy_from_slice(frame.body)),
        };
        if let Slot::Waiting(waker) | Slot::Receiving(waker, ..) = mem::replace(slot, answer) {
            self.woken.push(waker);
        }
        Ok(())
    }

    fn handled(&mut self) {
        self.woken.drain(..).for_each(Waker::wake);
    }
}

/// The task of a connection.
async fn drive<S, E>(stream: S, link: Arc<Link>, end: E)
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: End,
{
    let mut driver = Driver {
        stream,
        link,
        end,
        inbox: Inbox::new(),
        out: Vec::new(),
        at: 0,
        piece: None,
        pieces: 0,
    };
    while poll_fn(|cx| driver.poll_turn(cx)).await.is_ok() {
        yield_now().await;
    }
    // whether it broke or was closed: whoever still waits learns that it is over
    let mut shared = driver.link.shared();
    shared.ended = true;
    let failed = shared
        .calls
        .iter_mut()
        .map(|(_, slot)| mem::replace(slot, Slot::Failed));
    let wakers: Vec<_> = failed
        .filter_map(|slot| match slot {
            Slot::Waiting(waker) | Slot::Receiving(waker, ..) => Some(waker),
            _ => None,
        })
        .collect();
    drop(shared);
    wakers.into_iter().for_each(Waker::wake);
}

struct Driver<S, E> {
    stream: S,
    link: Arc<Link>,
    end: E,
    inbox: Inbox,
    /// What is being written, up to `at`.
    out: Vec<u8>,
    at: usize,
    piece: Option<Piece>,
    /// Pieces that were begun in this turn.
    pieces: usize,
}

/// A piece of bulk that is being written.
struct Piece {
    header: [u8; HEADER],
    body: usize,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: End> Driver<S, E> {
    /// Ready when others are to have their turn; fails when the connection is over.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pieces = 0;
        for _ in 0..TURNS {
            let read = self.poll_read(cx)?.is_ready();
            let blocked = self.poll_write(cx)?.is_pending();
            if self.pieces == PIECES {
                break;
            }
            if read {
                continue;
            }
            let mut shared = self.link.shared();
            if blocked || (shared.out.is_empty() && shared.bulk.is_empty()) {
                shared.sleeping = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and handles what came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(self.inbox.space());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.inbox.came(read);
        while let Some(frame) = self.inbox.next() {
            self.end.frame(frame, &mut self.out)?;
        }
        self.end.handled();
        Poll::Ready(Ok(()))
    }

    /// Writes all that is pending, of bulk as much as a turn has; pending itself when the socket takes no
    /// more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(piece) = &mut self.piece {
                let body = &ZEROS[..piece.body];
                let written = if piece.written < HEADER {
                    let slices = [
                        IoSlice::new(&piece.header[piece.written..]),
                        IoSlice::new(body),
                    ];
                    ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?
                } else {
                    ready!(
                        Pin::new(&mut self.stream).poll_write(cx, &body[piece.written - HEADER..])
                    )?
                };
                piece.written += written;
                if piece.written == HEADER + piece.body {
                    self.piece = None;
                }
                continue;
            }
            if self.at < self.out.len() {
                self.at += ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.at..]))?;
                continue;
            }
            self.out.clear();
            self.at = 0;
            let mut shared = self.link.shared();
            if !shared.out.is_empty() {
                mem::swap(&mut shared.out, &mut self.out);
            } else if self.pieces == PIECES {
                return Poll::Ready(Ok(()));
            } else if let Some((call, left)) = shared.bulk.front_mut() {
                self.pieces += 1;
                let body = (*left).min(WRITTEN as u64) as usize;
                self.piece = Some(Piece {
                    header: header(kind::BULK, *call, body),
                    body,
                    written: 0,
                });
                *left -= body as u64;
                if *left == 0 {
                    shared.bulk.pop_front();
                }
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct MuxClient {
    link: Arc<Link>,
}

impl MuxClient {
    fn call<'a>(&'a self, kind: u8, body: &'a [u8]) -> Call<'a> {
        Call {
            link: &self.link,
            kind,
            body,
            number: None,
        }
    }

    async fn number(&self, kind: u8, body: &[u8]) -> Result<i64> {
        match self.call(kind, body).await {
            Slot::Number(number) => Ok(number),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(answer: &Slot) -> anyhow::Error {
    match answer {
        Slot::Failed => anyhow!("the connection has ended"),
        _ => anyhow!("an answer of another kind: {answer:?}"),
    }
}

/// A call, sent when it is first polled.
struct Call<'a> {
    link: &'a Link,
    kind: u8,
    body: &'a [u8],
    number: Option<usize>,
}

impl Future for Call<'_> {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        let Some(number) = self.number else {
            let (kind, body) = (self.kind, self.body);
            let number = self.link.post(|shared| {
                if shared.ended {
                    return None;
                }
                let waker = cx.waker().clone();
                let slot = match (kind, number(body, 0)) {
                    (kind::DOWNLOAD, Ok(bytes)) => Slot::Receiving(waker, bytes as u64, 0),
                    _ => Slot::Waiting(waker),
                };
                let number = shared.calls.insert(slot);
                put_frame(&mut shared.out, kind, number as u32, body);
                if let (kind::UPLOAD, Ok(bytes)) = (kind, self::number(body, 0)) {
                    shared.bulk.push_back((number as u32, bytes as u64));
                }
                Some(number)
            });
            self.number = number;
            return if number.is_some() {
                Poll::Pending
            } else {
                Poll::Ready(Slot::Failed)
            };
        };
        let mut shared = self.link.shared();
        if let Slot::Waiting(waker) | Slot::Receiving(waker, ..) = &mut shared.calls[number] {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(shared.calls.remove(number))
    }
}

impl Client for MuxClient {
    async fn add(&self, a: i64, b: i64) -> Result<i64> {
        self.number(kind::ADD, &two_numbers(a, b)).await
    }

    async fn echo(&self, payload: Bytes) -> Result<Bytes> {
        match self.call(kind::ECHO, &payload).await {
            Slot::Bytes(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    async fn download(&self, bytes: u64) -> Result<u64> {
        Ok(self.number(kind::DOWNLOAD, &bytes.to_le_bytes()).await? as u64)
    }

    async fn upload(&self, bytes: u64) -> Result<u64> {
        Ok(self.number(kind::UPLOAD, &bytes.to_le_bytes()).await? as u64)
    }

    async fn subscribe(&self, tally: Arc<Tally>) -> Result<()> {
        self.link.shared().tally = Some(tally);
        self.number(kind::SUBSCRIBE, &[]).await?;
        Ok(())
    }

    async fn publish(&self, event: i64) -> Result<()> {
        self.number(kind::PUBLISH, &event.to_le_bytes()).await?;
        Ok(())
    }
}
