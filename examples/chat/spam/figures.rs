//! What the bots did so far, in figures.

use std::{
    future::IntoFuture,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How many failures are told in words.
const TOLD: usize = 5;

/// What the bots did so far.
#[derive(Debug)]
pub(crate) struct Figures {
    began: Instant,
    said: AtomicU64,
    heard: AtomicU64,
    missed: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    checked: AtomicU64,
    failures: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How long each call took, in microseconds.
    calls: Vec<u32>,
    told: Vec<String>,
    last: Last,
}

/// What was there at the last look.
#[derive(Debug, Default)]
struct Last {
    when: Duration,
    said: u64,
    bytes: u64,
    calls: usize,
}

impl Figures {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            said: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            inner: Mutex::default(),
        }
    }

    /// Awaits a call and counts how long it took.
    pub(super) async fn timed<C: IntoFuture>(&self, call: C) -> C::Output {
        let began = Instant::now();
        let answer = call.await;
        let took = began.elapsed().as_micros();
        self.lock()
            .calls
            .push(u32::try_from(took).unwrap_or(u32::MAX));
        answer
    }

    pub(super) fn said(&self) {
        self.said.fetch_add(1, Relaxed);
    }

    pub(super) fn heard(&self, lines: u64) {
        self.heard.fetch_add(lines, Relaxed);
    }

    pub(super) fn missed(&self) {
        self.missed.fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.up.fetch_add(bytes, Relaxed);
    }

    pub(super) fn got(&self, bytes: u64) {
        self.down.fetch_add(bytes, Relaxed);
    }

    pub(super) fn checked(&self) {
        self.checked.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self, why: String) {
        self.failures.fetch_add(1, Relaxed);
        let mut inner = self.lock();
        if inner.told.len() < TOLD {
            inner.told.push(why);
        }
    }

    /// How much failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// A line about what happened since the last one.
    pub(crate) fn now(&self) -> String {
        let when = self.began.elapsed();
        let said = self.said.load(Relaxed);
        let bytes = self.up.load(Relaxed) + self.down.load(Relaxed);
        let mut inner = self.lock();
        let last = std::mem::take(&mut inner.last);
        let seconds = (when - last.when).as_secs_f64().max(1e-3);
        let mut calls = inner.calls[last.calls..].to_vec();
        inner.last = Last {
            when,
            said,
            bytes,
            calls: inner.calls.len(),
        };
        drop(inner);
        calls.sort_unstable();
        format!(
            "{said} lines, {:.0}/s; {:.1} MiB, {:.1} MiB/s; calls p50 {}, p99 {}; {} failures",
            (said - last.said) as f64 / seconds,
            mib(bytes),
            mib(bytes - last.bytes) / seconds,
            share(&calls, 50),
            share(&calls, 99),
            self.failures(),
        )
    }

    /// What happened at all.
    pub(crate) fn summary(&self) -> String {
        let took = self.began.elapsed();
        let seconds = took.as_secs_f64();
        let inner = self.lock();
        let mut calls = inner.calls.clone();
        calls.sort_unstable();
        let said = self.said.load(Relaxed);
        let (up, down) = (self.up.load(Relaxed), self.down.load(Relaxed));
        let mut text = format!(
            "{took:.2?}\n\
             said    {said} lines, {:.0}/s; heard {}, told of missed ones {} times\n\
             files   {} up and back, every checksum verified\n\
             bytes   {:.1} MiB up, {:.1} MiB down, {:.1} MiB/s together\n\
             calls   {}, p50 {}, p99 {}, longest {}\n\
             failed  {}",
            said as f64 / seconds,
            self.heard.load(Relaxed),
            self.missed.load(Relaxed),
            self.checked.load(Relaxed),
            mib(up),
            mib(down),
            mib(up + down) / seconds,
            calls.len(),
            share(&calls, 50),
            share(&calls, 99),
            share(&calls, 100),
            self.failures(),
        );
        for why in &inner.told {
            text.push_str(&format!("\n        {why}"));
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|error| error.into_inner())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The time within which so many in a hundred calls were, of sorted ones.
fn share(calls: &[u32], percent: usize) -> String {
    let at = (calls.len() * percent).div_ceil(100).max(1) - 1;
    match calls.get(at) {
        Some(micros) => format!("{:.1?}", Duration::from_micros(u64::from(*micros))),
        None => "-".to_owned(),
    }
}
