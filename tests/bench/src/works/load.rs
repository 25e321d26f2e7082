//! What is called, and what counts it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// What calls are made by `Client::flood`.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// `add`.
    Add,
    /// `echo` of these bytes.
    Echo(Bytes),
    /// `script` of so many calls.
    Script(u32),
    /// `loop_script` of so many calls.
    Loop(u32),
    /// `method` of each of so many in turn.
    Methods(usize),
    /// `interned` of each of so many in turn.
    Interned(usize),
}

impl Load {
    /// How many calls it takes until each text that is different was sent twice, and so is interned.
    pub(super) fn until_interned(&self) -> u64 {
        match self {
            Load::Methods(n) | Load::Interned(n) => 2 * *n as u64,
            _ => 0,
        }
    }
}
/// Counts what `Client::flood` does, and tells it when to stop.
#[derive(Debug)]
pub(crate) struct Meter {
    stopped: AtomicBool,
    /// One for each call in flight, so that counting costs no locked instruction.
    counts: Vec<AtomicU64>,
}

impl Meter {
    pub(super) fn new(in_flight: usize) -> Arc<Self> {
        let counts = (0..in_flight).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            stopped: AtomicBool::new(false),
            counts,
        })
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Counts calls that ended; `slot` has a single counter.
    pub(crate) fn count(&self, slot: usize, calls: u64) {
        let count = &self.counts[slot];
        count.store(count.load(Ordering::Relaxed) + calls, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> u64 {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

/// Counts the events that consumers received.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    event: AtomicI64,
    missing: AtomicU64,
    complete: Notify,
    wrong: AtomicBool,
}

impl Tally {
    /// A consumer received this event.
    pub(crate) fn received(&self, event: i64) {
        if event != self.event.load(Ordering::Relaxed) {
            self.wrong.store(true, Ordering::Relaxed);
        }
        if self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.complete.notify_one();
        }
    }

    /// All who were to receive the event have.
    pub(super) async fn complete(&self) {
        self.complete.notified().await;
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed)
    }

    pub(super) fn expect(&self, event: i64, consumers: usize) {
        self.event.store(event, Ordering::Relaxed);
        self.missing.store(consumers as u64, Ordering::Relaxed);
    }
}
