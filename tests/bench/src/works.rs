//! The works: what is measured, written once for all peers.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::sleep};

use crate::{
    measure::Span,
    peers::{Client, Peer},
    process::{Server, Usage},
};

/// What `bulk_down`, `bulk_up` and `hol` move.
const BULK: u64 = 1 << 30;
/// What they move before it counts.
const BULK_WARM_UP: u64 = 64 << 20;
const ECHO: usize = 4096;
/// Half of it on the way there, half on the way back.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// One work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// One call at a time.
    Seq,
    /// So many calls in flight.
    Pipe(usize),
    /// 4 KiB there and back, 64 in flight.
    Echo,
    /// 1 GiB from server to client.
    BulkDown,
    /// 1 GiB from client to server.
    BulkUp,
    /// A small call at a time beside 1 GiB from server to client, on the same connection.
    Hol,
    /// So many calls of which each needs the result of the one before, far away.
    Chain(u32),
    /// An event pushed to so many consumers.
    Push(usize),
    /// A raw peer-script of so many calls, 64 in flight.
    Script(u32),
    /// A raw peer-script that makes so many calls in a loop, 64 in flight.
    Loop(u32),
    /// So many connections that do nothing.
    Idle(usize),
    /// 64 calls in flight, spread over so many connections.
    Connections(usize),
    /// 64 calls in flight, of as many different methods as are exposed.
    Methods(usize),
    /// 64 calls in flight, of as many different interned scripts.
    Interned(usize),
}

type Numbered = (&'static str, fn(usize) -> Work);

/// The works that take a number, by the part of their name before it.
const NUMBERED: [Numbered; 9] = [
    ("pipe", Work::Pipe),
    ("chain", |n| Work::Chain(n as u32)),
    ("push", Work::Push),
    ("script", |n| Work::Script(n as u32)),
    ("loop", |n| Work::Loop(n as u32)),
    ("idle", Work::Idle),
    ("connections", Work::Connections),
    ("methods", Work::Methods),
    ("interned", Work::Interned),
];

impl Work {
    /// What `all` measures.
    pub(crate) const ALL: [Work; 14] = [
        Work::Seq,
        Work::Pipe(1),
        Work::Pipe(64),
        Work::Pipe(1024),
        Work::Echo,
        Work::BulkDown,
        Work::BulkUp,
        Work::Hol,
        Work::Chain(8),
        Work::Push(1000),
        Work::Script(1),
        Work::Script(3),
        Work::Loop(3),
        Work::Idle(2000),
    ];

    /// What `scale` measures, each kind in ascending order.
    pub(crate) fn scale() -> Vec<Work> {
        let tens = |up_to: u32| (0..=up_to).map(|power| 10_usize.pow(power));
        let mut works: Vec<Work> = tens(5).map(Work::Pipe).collect();
        works.extend(tens(4).map(Work::Connections));
        works.extend(tens(4).map(Work::Methods));
        works.extend(tens(5).map(Work::Interned));
        works
    }

    pub(crate) fn about(self) -> String {
        match self {
            Work::Seq => "one call at a time".into(),
            Work::Pipe(n) => format!("{n} call(s) in flight on one connection"),
            Work::Echo => "4 KiB there and back, 64 in flight".into(),
            Work::BulkDown => "1 GiB from server to client".into(),
            Work::BulkUp => "1 GiB from client to server".into(),
            Work::Hol => {
                "one small call at a time beside 1 GiB from server to client, same connection"
                    .into()
            }
            Work::Chain(n) => format!("{n} dependent calls over a round trip of 20 ms"),
            Work::Push(n) => format!("an event pushed to {n} consumers, each on its connection"),
            Work::Script(n) => format!("a raw peer-script of {n} call(s), 64 in flight"),
            Work::Loop(n) => {
                format!("a raw peer-script that makes {n} call(s) in a loop, 64 in flight")
            }
            Work::Idle(n) => format!("memory of {n} idle connections, each after one call"),
            Work::Connections(n) => format!("at least 64 calls in flight over {n} connections"),
            Work::Methods(n) => format!("64 calls in flight, of {n} exposed methods in turn"),
            Work::Interned(n) => format!("64 calls in flight, of {n} interned scripts in turn"),
        }
    }

    /// The metric that the spread, the ratio and the charts are of.
    pub(crate) fn metric(self) -> &'static str {
        match self {
            Work::Seq => "p50",
            Work::Hol => "p99",
            Work::Chain(_) => "time",
            Work::Idle(_) => "server memory",
            _ => "rate",
        }
    }

    /// How many connections it has open.
    pub(crate) fn connections(self) -> usize {
        match self {
            Work::Push(n) | Work::Idle(n) => n + 1,
            Work::Connections(n) => n,
            _ => 1,
        }
    }

    /// The number in its name, and the kind of work it belongs to.
    pub(crate) fn number(self) -> Option<(&'static str, usize)> {
        let name = self.to_string();
        let (_, number) = name.rsplit_once('_')?;
        let number = number.parse().ok()?;
        let (kind, _) = NUMBERED.iter().find(|(_, make)| make(number) == self)?;
        Some((kind, number))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Seq => f.write_str("seq"),
            Work::Pipe(n) => write!(f, "pipe_{n}"),
            Work::Echo => f.write_str("echo_4k"),
            Work::BulkDown => f.write_str("bulk_down"),
            Work::BulkUp => f.write_str("bulk_up"),
            Work::Hol => f.write_str("hol"),
            Work::Chain(n) => write!(f, "chain_{n}"),
            Work::Push(n) => write!(f, "push_{n}"),
            Work::Script(n) => write!(f, "script_{n}"),
            Work::Loop(n) => write!(f, "loop_{n}"),
            Work::Idle(n) => write!(f, "idle_{n}"),
            Work::Connections(n) => write!(f, "connections_{n}"),
            Work::Methods(n) => write!(f, "methods_{n}"),
            Work::Interned(n) => write!(f, "interned_{n}"),
        }
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(work) = Work::ALL.into_iter().find(|work| work.to_string() == name) {
            return Ok(work);
        }
        let numbered = name.rsplit_once('_').and_then(|(kind, number)| {
            let number = number
                .parse()
                .ok()
                .filter(|number| (1..=1_000_000).contains(number))?;
            let (_, make) = NUMBERED.iter().find(|(known, _)| *known == kind)?;
            Some(make(number))
        });
        numbered.ok_or_else(|| {
            let known = Work::ALL.map(|work| work.to_string()).join(", ");
            let kinds = NUMBERED.map(|(kind, _)| format!("{kind}_N")).join(", ");
            format!("the works are {known}; with another number {kinds}")
        })
    }
}

/// One figure of one measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) metric: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
}

impl Sample {
    fn new(metric: &str, value: f64, unit: &str) -> Self {
        Self {
            metric: metric.into(),
            value,
            unit: unit.into(),
        }
    }
}

/// What calls are made by [`Client::flood`].
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

/// Counts what [`Client::flood`] does, and tells it when to stop.
#[derive(Debug)]
pub(crate) struct Meter {
    stopped: AtomicBool,
    /// One for each call in flight, so that counting costs no locked instruction.
    counts: Vec<AtomicU64>,
}

impl Meter {
    fn new(in_flight: usize) -> Arc<Self> {
        let counts = (0..in_flight).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            stopped: AtomicBool::new(false),
            counts,
        })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Counts calls that ended; `slot` has a single counter.
    pub(crate) fn count(&self, slot: usize, calls: u64) {
        let count = &self.counts[slot];
        count.store(count.load(Ordering::Relaxed) + calls, Ordering::Relaxed);
    }

    fn calls(&self) -> u64 {
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

    fn expect(&self, event: i64, consumers: usize) {
        self.event.store(event, Ordering::Relaxed);
        self.missing.store(consumers as u64, Ordering::Relaxed);
    }
}

/// Measures one work once.
pub(crate) async fn run<P: Peer>(work: Work, span: &Span) -> Result<Vec<Sample>> {
    let bench = Bench {
        server: Server::start(P::NAME, work)?,
        span,
    };
    match work {
        Work::Seq => bench.seq::<P>().await,
        Work::Pipe(n) => bench.flood::<P>(1, n, Load::Add, "calls/s").await,
        Work::Echo => {
            let payload = Bytes::from(vec![b'x'; ECHO]);
            bench
                .flood::<P>(1, 64, Load::Echo(payload), "calls/s")
                .await
        }
        Work::BulkDown => bench.bulk::<P>(true).await,
        Work::BulkUp => bench.bulk::<P>(false).await,
        Work::Hol => bench.hol::<P>().await,
        Work::Chain(steps) => bench.chain::<P>(steps).await,
        Work::Push(consumers) => bench.push::<P>(consumers).await,
        Work::Script(calls) => {
            bench
                .flood::<P>(1, 64, Load::Script(calls), "scripts/s")
                .await
        }
        Work::Loop(calls) => {
            bench
                .flood::<P>(1, 64, Load::Loop(calls), "scripts/s")
                .await
        }
        Work::Idle(connections) => bench.idle::<P>(connections).await,
        Work::Connections(n) => {
            bench
                .flood::<P>(n, 64_usize.div_ceil(n), Load::Add, "calls/s")
                .await
        }
        Work::Methods(n) => bench.flood::<P>(1, 64, Load::Methods(n), "calls/s").await,
        Work::Interned(n) => bench.flood::<P>(1, 64, Load::Interned(n), "calls/s").await,
    }
}

struct Bench<'a> {
    server: Server,
    span: &'a Span,
}

impl Bench<'_> {
    async fn connect<P: Peer>(&self) -> Result<P::Client> {
        P::connect(self.server.address())
            .await
            .context("connecting")
    }

    async fn seq<P: Peer>(&self) -> Result<Vec<Sample>> {
        let client = self.connect::<P>().await?;
        add_for(&client, self.span.warm_up()).await?;
        let before = self.usage()?;
        let mut times = add_for(&client, self.span.measured).await?;
        let mut samples = percentiles(&mut times)?;
        samples.extend(self.usage()?.since(&before).per(times.len() as f64, "call"));
        Ok(samples)
    }

    async fn flood<P: Peer>(
        &self,
        connections: usize,
        in_flight: usize,
        load: Load,
        unit: &str,
    ) -> Result<Vec<Sample>> {
        // all before the first call: connecting would wait for its turn behind the calls
        let mut clients = Vec::with_capacity(connections);
        for _ in 0..connections {
            clients.push(self.connect::<P>().await?);
        }
        let mut floods = tokio::task::JoinSet::new();
        let mut meters = Vec::with_capacity(connections);
        for client in clients {
            let (load, meter) = (load.clone(), Meter::new(in_flight));
            meters.push(meter.clone());
            floods.spawn(async move { client.flood(in_flight, load, meter).await });
        }
        let calls = || meters.iter().map(|meter| meter.calls()).sum::<u64>();
        let measured = async {
            sleep(self.span.warm_up()).await;
            // what is many takes long to be warm: every one has been called once
            while calls() < load.distinct() + (connections * in_flight) as u64 {
                sleep(Duration::from_millis(20)).await;
            }
            let (start, calls_before, usage_before) = (Instant::now(), calls(), self.usage()?);
            sleep(self.span.measured).await;
            let (elapsed, calls) = (start.elapsed(), calls() - calls_before);
            let usage = self.usage()?.since(&usage_before);
            ensure!(calls > 0, "not one call ended in {elapsed:?}");
            let mut samples = vec![Sample::new(
                "rate",
                calls as f64 / elapsed.as_secs_f64(),
                unit,
            )];
            samples.extend(usage.per(calls as f64, "call"));
            Ok(samples)
        };
        let samples = tokio::select! {
            samples = measured => samples?,
            Some(ended) = floods.join_next() => {
                ended??;
                bail!("the calls ended before the time was over");
            }
        };
        meters
            .iter()
            .for_each(|meter| meter.stopped.store(true, Ordering::Relaxed));
        while let Some(ended) = floods.join_next().await {
            ended??;
        }
        Ok(samples)
    }

    async fn bulk<P: Peer>(&self, down: bool) -> Result<Vec<Sample>> {
        let client = self.connect::<P>().await?;
        transfer(&client, down, BULK_WARM_UP).await?;
        let before = self.usage()?;
        let rate = transfer(&client, down, BULK).await?;
        let mut samples = vec![Sample::new("rate", rate, "MiB/s")];
        samples.extend(self.usage()?.since(&before).per(mebibytes(BULK), "MiB"));
        Ok(samples)
    }

    async fn hol<P: Peer>(&self) -> Result<Vec<Sample>> {
        let client = self.connect::<P>().await?;
        transfer(&client, true, BULK_WARM_UP).await?;
        let alone = transfer(&client, true, BULK).await?;
        let before = self.usage()?;
        let beside = client.clone();
        let transfer = tokio::spawn(async move { transfer(&beside, true, BULK).await });
        let mut times = Vec::new();
        while !transfer.is_finished() {
            times.push(timed_add(&client, times.len() as i64).await?);
        }
        let rate = transfer.await??;
        let usage = self.usage()?.since(&before);
        let mut samples = percentiles(&mut times)?;
        samples.push(Sample::new("bulk rate", rate, "MiB/s"));
        samples.push(Sample::new("bulk rate kept", 100.0 * rate / alone, "%"));
        samples.extend(usage.per(mebibytes(BULK), "MiB"));
        Ok(samples)
    }

    async fn chain<P: Peer>(&self, steps: u32) -> Result<Vec<Sample>> {
        let relay = Server::relay(self.server.address(), ROUND_TRIP / 2)?;
        let client = P::connect(relay.address()).await.context("connecting")?;
        let expected = i64::from(steps);
        let mut times = Vec::new();
        let mut times_as_objects = Vec::new();
        let mut usage = None;
        for round in 0..6 {
            let before = self.usage()?;
            let start = Instant::now();
            let sum = client.chain(steps).await?;
            ensure!(sum == expected, "the chain gave {sum}, not {expected}");
            // the first is the warm-up
            if round > 0 {
                times.push(start.elapsed());
                usage = Some(self.usage()?.since(&before));
            }
            let start = Instant::now();
            if let Some(sum) = client.chain_of_objects(steps).await? {
                ensure!(
                    sum == expected,
                    "the chain of objects gave {sum}, not {expected}"
                );
                times_as_objects.push(start.elapsed());
            }
        }
        let mut samples = vec![Sample::new("time", milliseconds(median(&mut times)), "ms")];
        if !times_as_objects.is_empty() {
            let time = milliseconds(median(&mut times_as_objects));
            samples.push(Sample::new("time, if every value is an object", time, "ms"));
        }
        samples.extend(
            usage
                .iter()
                .flat_map(|usage| usage.per(f64::from(steps), "call")),
        );
        Ok(samples)
    }

    async fn push<P: Peer>(&self, consumers: usize) -> Result<Vec<Sample>> {
        let tally = Arc::new(Tally::default());
        let mut subscribed = Vec::with_capacity(consumers);
        for _ in 0..consumers {
            let client = self.connect::<P>().await?;
            client.subscribe(tally.clone()).await?;
            subscribed.push(client);
        }
        let publisher = self.connect::<P>().await?;
        let mut event = 0;
        let push_for = async |event: &mut i64, span: Duration| {
            let (start, mut times) = (Instant::now(), Vec::new());
            while start.elapsed() < span {
                *event += 1;
                tally.expect(*event, consumers);
                let pushed = Instant::now();
                publisher.publish(*event).await?;
                tally.complete.notified().await;
                times.push(pushed.elapsed());
            }
            ensure!(
                !tally.wrong.load(Ordering::Relaxed),
                "a consumer received a wrong event"
            );
            anyhow::Ok((start.elapsed(), times))
        };
        push_for(&mut event, self.span.warm_up()).await?;
        let before = self.usage()?;
        let (elapsed, mut times) = push_for(&mut event, self.span.measured).await?;
        let deliveries = (times.len() * consumers) as f64;
        let mut samples = vec![Sample::new(
            "rate",
            deliveries / elapsed.as_secs_f64(),
            "deliveries/s",
        )];
        samples.push(Sample::new(
            "until all have it, p50",
            milliseconds(median(&mut times)),
            "ms",
        ));
        samples.extend(self.usage()?.since(&before).per(deliveries, "delivery"));
        Ok(samples)
    }

    async fn idle<P: Peer>(&self, connections: usize) -> Result<Vec<Sample>> {
        // what is set up once is not any connection's
        let first = self.connect::<P>().await?;
        add_for(&first, self.span.warm_up()).await?;
        let before = self.usage()?;
        let mut clients = Vec::with_capacity(connections);
        for a in 0..connections {
            let client = self.connect::<P>().await?;
            timed_add(&client, a as i64).await?;
            clients.push(client);
        }
        // a library may let go of something once a connection is idle
        sleep(Duration::from_millis(500)).await;
        let usage = self.usage()?;
        let memory = |now: &Usage, before: &Usage| {
            now.resident.saturating_sub(before.resident) as f64 / 1024.0 / connections as f64
        };
        let mut samples = vec![Sample::new(
            "server memory",
            memory(&usage.server, &before.server),
            "KiB/connection",
        )];
        samples.push(Sample::new(
            "client memory",
            memory(&usage.client, &before.client),
            "KiB/connection",
        ));
        samples.extend(usage.since(&before).per(connections as f64, "connection"));
        Ok(samples)
    }

    fn usage(&self) -> Result<BothUsage> {
        Ok(BothUsage {
            server: self.server.usage()?,
            client: Usage::of_this_process()?,
        })
    }
}

/// What both sides used up.
struct BothUsage {
    client: Usage,
    server: Usage,
}

impl BothUsage {
    fn since(&self, before: &Self) -> Self {
        Self {
            client: self.client.since(&before.client),
            server: self.server.since(&before.server),
        }
    }

    fn per(&self, count: f64, what: &str) -> Vec<Sample> {
        let per = |value: f64| value / count;
        let micros = |usage: &Usage| per(usage.cpu.as_secs_f64() * 1e6);
        let (client, server) = (micros(&self.client), micros(&self.server));
        let unit = format!("µs/{what}");
        let mut samples = vec![
            Sample::new("CPU, both", client + server, &unit),
            Sample::new("CPU, client", client, &unit),
            Sample::new("CPU, server", server, &unit),
        ];
        if let (Some(client), Some(server)) = (self.client.allocations, self.server.allocations) {
            let unit = format!("per {what}");
            samples.push(Sample::new(
                "allocations, client",
                per(client as f64),
                &unit,
            ));
            samples.push(Sample::new(
                "allocations, server",
                per(server as f64),
                &unit,
            ));
        }
        samples
    }
}

impl Load {
    /// How many calls it takes until each that is different was made once.
    fn distinct(&self) -> u64 {
        match self {
            Load::Methods(n) | Load::Interned(n) => *n as u64,
            _ => 0,
        }
    }
}

async fn add_for(client: &impl Client, span: Duration) -> Result<Vec<Duration>> {
    let (start, mut times) = (Instant::now(), Vec::with_capacity(1 << 16));
    while start.elapsed() < span {
        times.push(timed_add(client, times.len() as i64).await?);
    }
    Ok(times)
}

async fn timed_add(client: &impl Client, a: i64) -> Result<Duration> {
    let start = Instant::now();
    let sum = client.add(a, 1).await?;
    ensure!(sum == a + 1, "the peer says that {a} + 1 is {sum}");
    Ok(start.elapsed())
}

/// Moves bytes, in MiB/s.
async fn transfer(client: &impl Client, down: bool, bytes: u64) -> Result<f64> {
    let start = Instant::now();
    let moved = if down {
        client.download(bytes).await?
    } else {
        client.upload(bytes).await?
    };
    ensure!(moved == bytes, "{moved} of {bytes} bytes arrived");
    Ok(mebibytes(bytes) / start.elapsed().as_secs_f64())
}

fn percentiles(times: &mut [Duration]) -> Result<Vec<Sample>> {
    ensure!(!times.is_empty(), "not one call ended in time");
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    Ok(vec![
        Sample::new("p50", at(50), "µs"),
        Sample::new("p99", at(99), "µs"),
    ])
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
