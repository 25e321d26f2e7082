//! A service with a method of every shape, and the service its consumer hosts.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hbi::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    task::coop,
};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Where.
    pub room: String,
    /// The how many-th.
    pub n: u32,
}

/// A file as it is announced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
}

/// Why a division failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DivError {
    /// The divisor was 0.
    ByZero,
}

impl fmt::Display for DivError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("division by zero")
    }
}

/// Why a file was not given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FileError {
    /// There is none of that name.
    NotFound(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileError::NotFound(name) = self;
        write!(f, "no file {name}")
    }
}

/// A stream of streams.
pub type NestedItems = hbi::Items<hbi::Items<u32>>;

/// A method of every shape.
#[hbi::service]
pub trait Work {
    /// Adds.
    #[hbi(idempotent)]
    async fn add(&self, a: i64, b: i64) -> i64;
    /// Does so many operations that take of the budget of the runtime's task; how often it was polled.
    async fn spend(&self, operations: u32) -> u32;
    /// Divides.
    #[hbi(idempotent)]
    async fn div(&self, a: i64, b: i64) -> Result<i64, DivError>;
    /// Gives bytes back.
    #[hbi(idempotent)]
    async fn echo(&self, data: Vec<u8>) -> Vec<u8>;
    /// Keeps a line.
    #[hbi(notify)]
    async fn log(&self, line: String);
    /// The lines that were kept.
    async fn lines(&self) -> Vec<String>;
    /// Waits until the gate of this number is opened.
    async fn wait(&self, gate: u32) -> u32;
    /// Opens all gates.
    async fn open_gates(&self);
    /// Panics.
    async fn panic(&self) -> i64;
    /// Some events.
    async fn watch(&self, room: String, count: u32) -> hbi::Items<Event>;
    /// Events that fail after some.
    async fn watch_failing(&self, count: u32) -> hbi::Items<Event>;
    /// Events without end, counted where they are made.
    async fn endless(&self) -> hbi::Items<Event>;
    /// How many events `endless` made so far.
    async fn made(&self) -> u64;
    /// The sum of the items.
    async fn total(&self, items: hbi::Items<i64>) -> Result<i64, String>;
    /// Each item doubled, as they come.
    async fn doubled(&self, items: hbi::Items<i64>) -> hbi::Items<i64>;
    /// Two streams of so many streams, each of which gives its place twice.
    async fn nested(&self, count: u32) -> (NestedItems, NestedItems);
    /// The length and the sum of the bytes.
    async fn upload(&self, name: String, data: hbi::Data) -> Result<(u64, u64), String>;
    /// So many bytes.
    async fn download(&self, name: String, size: u64) -> Result<(FileMeta, hbi::Data), FileError>;
    /// A counter, by reference.
    async fn counter(&self, from: i64) -> hbi::Reactor<CounterStub>;
    /// The value of a counter that is given back.
    async fn value_of(&self, counter: hbi::Reactor<CounterStub>) -> i64;
    /// Calls back an object of the caller.
    async fn call_back(&self, to: hbi::Reactor<CounterStub>, times: u32) -> Result<i64, String>;
    /// Sends a file in a conversation.
    #[hbi(converse)]
    async fn send_file(&self, co: HoCo, name: String) -> hbi::Result<()>;
    /// Receives a file in a conversation; answers its length.
    #[hbi(converse)]
    async fn recv_file(&self, co: HoCo, name: String) -> hbi::Result<()>;
    /// Reads five bytes and seven in a conversation; answers them.
    #[hbi(converse)]
    async fn recv_runs(&self, co: HoCo) -> hbi::Result<()>;
    /// How deep the call is nested, and whether it has a deadline.
    async fn surroundings(&self, cx: &hbi::Caller) -> (u8, bool);
    /// Calls the caller's own `add` back.
    async fn add_there(&self, cx: &hbi::Caller, a: i64, b: i64) -> Result<i64, String>;
    /// Runs to its end whatever its caller does.
    #[hbi(no_cancel)]
    async fn stubborn(&self, gate: u32);
    /// Not async.
    fn now(&self) -> u64;
    /// Has a body of its own.
    async fn version(&self) -> u32 {
        7
    }
}

/// A counter, by reference.
#[hbi::service(flat)]
pub trait Counter {
    /// Adds to it; its value then.
    async fn bump(&self, by: i64) -> i64;
}

/// What a consumer hosts.
#[hbi::service]
pub trait Consumer {
    /// Something happened.
    #[hbi(notify)]
    async fn pushed(&self, event: Event);
    /// Adds.
    async fn add(&self, a: i64, b: i64) -> i64;
}

/// A counter.
#[derive(Debug)]
pub struct MyCounter {
    value: Mutex<i64>,
    dropped: Arc<AtomicUsize>,
}

impl MyCounter {
    /// A counter that counts its drop.
    pub fn new(from: i64, dropped: &Arc<AtomicUsize>) -> Self {
        Self {
            value: Mutex::new(from),
            dropped: Arc::clone(dropped),
        }
    }
}

impl Drop for MyCounter {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counter for MyCounter {
    async fn bump(&self, by: i64) -> i64 {
        let mut value = self
            .value
            .lock()
            .expect("no test panics with the lock held");
        *value += by;
        *value
    }
}

/// What the host of [`Work`] keeps, for tests to look at.
#[derive(Debug, Default)]
pub struct Seen {
    /// Lines that were logged.
    pub lines: Mutex<Vec<String>>,
    /// Guards of methods that were dropped before their end.
    pub cancelled: AtomicUsize,
    /// Methods that ran to their end behind a gate.
    pub finished: AtomicUsize,
    /// Methods that wait behind a gate.
    pub waiting: AtomicUsize,
    /// Told at each change of the above.
    pub changed: Notify,
    /// Counters that were dropped.
    pub counters_dropped: Arc<AtomicUsize>,
    gates: Notify,
    open: std::sync::atomic::AtomicBool,
    made: Arc<std::sync::atomic::AtomicU64>,
}

impl Seen {
    /// Waits until a condition holds.
    pub async fn until(&self, condition: impl Fn(&Seen) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    /// Opens all gates.
    pub fn open_gates(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.gates.notify_waiters();
    }

    async fn gate(&self) {
        loop {
            let opened = self.gates.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if self.open.load(Ordering::SeqCst) {
                return;
            }
            opened.await;
        }
    }
}

/// The host of [`Work`].
#[derive(Debug)]
pub struct MyWork {
    /// What tests look at.
    pub seen: Arc<Seen>,
    /// Where the consumer is called.
    pub po: PostingEnd,
}

/// Counts a method that was dropped before its end.
struct Guard<'a>(&'a Seen, bool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        let which = if self.1 {
            &self.0.finished
        } else {
            &self.0.cancelled
        };
        which.fetch_add(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl MyWork {
    async fn behind_gate(&self) {
        self.seen.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = Guard(&self.seen, false);
        self.seen.changed.notify_waiters();
        self.seen.gate().await;
        guard.1 = true;
    }
}

impl Work for MyWork {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a.wrapping_add(b)
    }

    async fn spend(&self, operations: u32) -> u32 {
        let mut spent = pin!(async {
            for _ in 0..operations {
                coop::consume_budget().await;
            }
        });
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            spent.as_mut().poll(cx)
        })
        .await;
        polls
    }

    async fn div(&self, a: i64, b: i64) -> Result<i64, DivError> {
        a.checked_div(b).ok_or(DivError::ByZero)
    }

    async fn echo(&self, data: Vec<u8>) -> Vec<u8> {
        data
    }

    async fn log(&self, line: String) {
        let event = Event {
            room: line.clone(),
            n: 0,
        };
        self.seen
            .lines
            .lock()
            .expect("no test panics with the lock held")
            .push(line);
        self.seen.changed.notify_waiters();
        // a consumer that is gone needs no event
        let _ = ConsumerStub::new(&self.po).pushed(event).await;
    }

    async fn lines(&self) -> Vec<String> {
        self.seen
            .lines
            .lock()
            .expect("no test panics with the lock held")
            .clone()
    }

    async fn wait(&self, gate: u32) -> u32 {
        self.behind_gate().await;
        gate
    }

    async fn open_gates(&self) {
        self.seen.open_gates();
    }

    async fn panic(&self) -> i64 {
        panic!("as it was told")
    }

    async fn watch(&self, room: String, count: u32) -> hbi::Items<Event> {
        hbi::Items::iter((0..count).map(move |n| Event {
            room: room.clone(),
            n,
        }))
    }

    async fn watch_failing(&self, count: u32) -> hbi::Items<Event> {
        let (sender, items) = hbi::Items::channel(1);
        tokio::spawn(async move {
            for n in 0..count {
                if sender
                    .send(Event {
                        room: String::new(),
                        n,
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            sender.fail("the source ran dry").await;
        });
        items
    }

    async fn endless(&self) -> hbi::Items<Event> {
        let made = Arc::clone(&self.seen.made);
        hbi::Items::iter((0..).map(move |n| {
            made.fetch_add(1, Ordering::SeqCst);
            Event {
                room: "x".repeat(1000),
                n,
            }
        }))
    }

    async fn made(&self) -> u64 {
        self.seen.made.load(Ordering::SeqCst)
    }

    async fn total(&self, mut items: hbi::Items<i64>) -> Result<i64, String> {
        let mut total = 0;
        while let Some(n) = items.try_next().await.map_err(|e| e.to_string())? {
            total += n;
        }
        Ok(total)
    }

    async fn doubled(&self, items: hbi::Items<i64>) -> hbi::Items<i64> {
        use futures_util::StreamExt;
        hbi::Items::try_stream(items.map(|n| n.map(|n| 2 * n)))
    }

    async fn nested(&self, count: u32) -> (NestedItems, NestedItems) {
        let streams =
            |from| hbi::Items::iter((from..from + count).map(|n| hbi::Items::iter([n; 2])));
        (streams(0), streams(count))
    }

    async fn upload(&self, _name: String, mut data: hbi::Data) -> Result<(u64, u64), String> {
        let (mut len, mut sum) = (0, 0);
        while let Some(piece) = data.try_next().await.map_err(|e| e.to_string())? {
            len += piece.len() as u64;
            sum += piece.iter().map(|&b| b as u64).sum::<u64>();
        }
        Ok((len, sum))
    }

    async fn download(&self, name: String, size: u64) -> Result<(FileMeta, hbi::Data), FileError> {
        if name == "none" {
            return Err(FileError::NotFound(name));
        }
        Ok((FileMeta { name, size }, bytes_of(size)))
    }

    async fn counter(&self, from: i64) -> hbi::Reactor<CounterStub> {
        hbi::Reactor::new(CounterHost::new(MyCounter::new(
            from,
            &self.seen.counters_dropped,
        )))
    }

    async fn value_of(&self, counter: hbi::Reactor<CounterStub>) -> i64 {
        match counter.local::<CounterHost<MyCounter>>() {
            Some(_) => 1,
            None => -1,
        }
    }

    async fn call_back(&self, to: hbi::Reactor<CounterStub>, times: u32) -> Result<i64, String> {
        let stub = to.stub().map_err(|e| e.to_string())?;
        let mut last = 0;
        for _ in 0..times {
            last = stub.bump(1).await.map_err(|e| e.to_string())?;
        }
        Ok(last)
    }

    async fn send_file(&self, co: HoCo, name: String) -> hbi::Result<()> {
        let mut co = co.start_send().await?;
        if name == "none" {
            return Err(hbi::Error::refusal("no such file"));
        }
        co.send_obj(&FileMeta {
            name,
            size: 100_000,
        })
        .await?;
        co.send_data(bytes_of(100_000)).await?;
        co.send_obj(&"done").await?;
        co.close().await
    }

    async fn recv_file(&self, mut co: HoCo, name: String) -> hbi::Result<()> {
        let announced: FileMeta = co.recv_obj().await?;
        let mut data = Vec::new();
        co.recv_data(&mut data).await?;
        let co = co.finish_recv().await?;
        let mut co = co.start_send().await?;
        co.send_obj(&(name == announced.name, data.len() as u64))
            .await?;
        co.close().await
    }

    async fn recv_runs(&self, mut co: HoCo) -> hbi::Result<()> {
        let (mut first, mut then) = ([0; 5], [0; 7]);
        co.recv_exact(&mut first).await?;
        co.recv_exact(&mut then).await?;
        let co = co.finish_recv().await?;
        let mut co = co.start_send().await?;
        co.send_obj(&(first, then)).await?;
        co.close().await
    }

    async fn surroundings(&self, cx: &hbi::Caller) -> (u8, bool) {
        (cx.depth(), cx.deadline().is_some())
    }

    async fn add_there(&self, cx: &hbi::Caller, a: i64, b: i64) -> Result<i64, String> {
        ConsumerStub::new(&cx.po())
            .add(a, b)
            .await
            .map_err(|e| e.to_string())
    }

    async fn stubborn(&self, _gate: u32) {
        self.behind_gate().await;
    }

    fn now(&self) -> u64 {
        42
    }
}

/// So many bytes, a pattern that shows where a piece is missing.
pub fn bytes_of(size: u64) -> hbi::Data {
    const PIECE: u64 = 50_000;
    let piece = move |i| {
        let len = PIECE.min(size - i * PIECE);
        let bytes: bytes::Bytes = (0..len).map(|n| (i * PIECE + n) as u8).collect();
        Ok::<_, hbi::Error>(bytes)
    };
    let pieces = (0..size.div_ceil(PIECE)).map(piece);
    hbi::Data::stream(futures_util::stream::iter(pieces))
}

/// The host of [`Consumer`].
#[derive(Debug)]
pub struct MyConsumer {
    events: mpsc::UnboundedSender<Event>,
}

impl MyConsumer {
    /// A consumer, and the events that are pushed to it.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, pushed) = mpsc::unbounded_channel();
        (Self { events }, pushed)
    }
}

impl Consumer for MyConsumer {
    async fn pushed(&self, event: Event) {
        // a test that does not look needs no event
        let _ = self.events.send(event);
    }

    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
}
