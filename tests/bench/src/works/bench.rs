//! How each work is measured.

use std::{
    ops::AddAssign,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{Load, Meter, Tally, Work};
use crate::{
    measure::Span,
    peers::{Client, Peer, hbi},
    process::{Server, Usage},
};

/// What `bulk_down`, `bulk_up` and `hol` move at a time.
const BULK: u64 = 1 << 30;
/// What they move at a time before it counts.
const BULK_WARM_UP: u64 = 64 << 20;
/// How often `hol` moves them alone and beside calls, at least.
const HOL_TURNS: usize = 3;
/// How often `chain` makes its calls, at least.
const CHAINS: usize = 5;
const ECHO: usize = 4096;
/// Half of it on the way there, half on the way back.
const ROUND_TRIP: Duration = Duration::from_millis(20);

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

/// Does a work of hbi so many times, in memory.
pub(crate) async fn repeat(work: Work, times: usize) -> Result<()> {
    let (in_flight, load) = match work {
        Work::Seq => (1, Load::Add),
        Work::Pipe(n) => (n, Load::Add),
        Work::Script(calls) => (64, Load::Script(calls)),
        Work::Loop(calls) => (64, Load::Loop(calls)),
        Work::Methods(n) => (64, Load::Methods(n)),
        Work::Interned(n) => (64, Load::Interned(n)),
        _ => bail!("{work} cannot be repeated"),
    };
    let (_server, client) = hbi::in_memory(work).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..in_flight {
        let (client, load) = (client.clone(), load.clone());
        tasks.spawn(async move {
            for which in (slot..times).step_by(in_flight) {
                client.call(&load, which).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// A server that is measured, and how.
pub(crate) struct Bench<'a> {
    server: Server,
    span: &'a Span,
}

impl Bench<'_> {
    /// Measures one work once.
    pub(crate) async fn run<P: Peer>(work: Work, span: &Span) -> Result<Vec<Sample>> {
        let bench = Bench {
            server: Server::start(P::NAME, work, span.pin)?,
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
            Work::InPlace(n) => bench.computing::<P>(n, false).await,
            Work::Parallel(n) => bench.computing::<P>(n, true).await,
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
            // what is many takes long to be warm
            while calls() < load.until_interned() + (connections * in_flight) as u64 {
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
        meters.iter().for_each(|meter| meter.stop());
        while let Some(ended) = floods.join_next().await {
            ended??;
        }
        Ok(samples)
    }

    async fn bulk<P: Peer>(&self, down: bool) -> Result<Vec<Sample>> {
        let client = self.connect::<P>().await?;
        warm_up(&client, down, self.span).await?;
        let before = self.usage()?;
        let mut moved = Moved::default();
        while moved.took < self.span.measured {
            moved += transfer(&client, down, BULK).await?;
        }
        let mut samples = vec![Sample::new("rate", moved.rate(), "MiB/s")];
        samples.extend(self.usage()?.since(&before).per(moved.mebibytes, "MiB"));
        Ok(samples)
    }

    async fn hol<P: Peer>(&self) -> Result<Vec<Sample>> {
        let client = self.connect::<P>().await?;
        warm_up(&client, true, self.span).await?;
        let (mut alone, mut beside) = (Moved::default(), Moved::default());
        let (mut times, mut usage) = (Vec::new(), BothUsage::default());
        // in turn, since what a transfer takes changes with time
        let mut turns = 0;
        while turns < HOL_TURNS || beside.took < self.span.measured {
            turns += 1;
            alone += transfer(&client, true, BULK).await?;
            let before = self.usage()?;
            let moving = client.clone();
            let moving = tokio::spawn(async move { transfer(&moving, true, BULK).await });
            // a task, as whoever calls in a program of many: tokio lets what `block_on` runs wait for
            // the turns of all tasks
            let calling = client.clone();
            let calling = tokio::spawn(async move {
                let mut times = Vec::new();
                while !moving.is_finished() {
                    times.push(timed_add(&calling, times.len() as i64).await?);
                }
                anyhow::Ok((times, moving.await??))
            });
            let (timed, moved) = calling.await??;
            times.extend(timed);
            beside += moved;
            usage += self.usage()?.since(&before);
        }
        let mut samples = percentiles(&mut times)?;
        samples.push(Sample::new("bulk rate", beside.rate(), "MiB/s"));
        let kept = 100.0 * beside.rate() / alone.rate();
        samples.push(Sample::new("bulk rate kept", kept, "%"));
        samples.extend(usage.per(beside.mebibytes, "MiB"));
        Ok(samples)
    }

    async fn computing<P: Peer>(&self, in_flight: usize, parallel: bool) -> Result<Vec<Sample>> {
        let client = self.connect::<P>().await?;
        let meter = Meter::new(in_flight);
        let mut computing = tokio::task::JoinSet::new();
        for slot in 0..in_flight {
            let (client, meter) = (client.clone(), meter.clone());
            computing.spawn(async move {
                while !meter.is_stopped() {
                    client.compute(parallel).await?;
                    meter.count(slot, 1);
                }
                anyhow::Ok(())
            });
        }
        add_for(&client, self.span.warm_up()).await?;
        let (start, before, computed) = (Instant::now(), self.usage()?, meter.calls());
        let mut times = add_for(&client, self.span.measured).await?;
        let (elapsed, computed) = (start.elapsed(), (meter.calls() - computed) as f64);
        let usage = self.usage()?.since(&before);
        meter.stop();
        while let Some(ended) = computing.join_next().await {
            ended??;
        }
        ensure!(
            computed > 0.0,
            "not one computing call ended in {elapsed:?}"
        );
        let rate = computed / elapsed.as_secs_f64();
        let mut samples = vec![Sample::new("rate", rate, "computing calls/s")];
        samples.extend(percentiles(&mut times)?);
        samples.extend(usage.per(computed, "computing call"));
        Ok(samples)
    }

    async fn chain<P: Peer>(&self, steps: u32) -> Result<Vec<Sample>> {
        let relay = Server::relay(self.server.address(), ROUND_TRIP / 2)?;
        let client = P::connect(relay.address()).await.context("connecting")?;
        let expected = i64::from(steps);
        let right = |sum| {
            ensure!(sum == expected, "the chain gave {sum}, not {expected}");
            Ok(())
        };
        // the first is the warm-up
        right(client.chain(steps).await?)?;
        let before = self.usage()?;
        let (started, mut times) = (Instant::now(), Vec::new());
        while times.len() < CHAINS || started.elapsed() < self.span.measured {
            let start = Instant::now();
            right(client.chain(steps).await?)?;
            times.push(start.elapsed());
        }
        let usage = self.usage()?.since(&before);
        let calls = times.len() as f64 * f64::from(steps);
        let mut times_as_objects = Vec::new();
        for _ in 0..CHAINS {
            let start = Instant::now();
            if let Some(sum) = client.chain_of_objects(steps).await? {
                right(sum)?;
                times_as_objects.push(start.elapsed());
            }
        }
        let mut samples = vec![Sample::new("time", milliseconds(median(&mut times)), "ms")];
        if !times_as_objects.is_empty() {
            let time = milliseconds(median(&mut times_as_objects));
            samples.push(Sample::new("time, if every value is an object", time, "ms"));
        }
        samples.extend(usage.per(calls, "call"));
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
                tally.complete().await;
                times.push(pushed.elapsed());
            }
            ensure!(!tally.is_wrong(), "a consumer received a wrong event");
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
#[derive(Default)]
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

impl AddAssign for BothUsage {
    fn add_assign(&mut self, more: Self) {
        self.client += more.client;
        self.server += more.server;
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

/// Bytes that were moved, in the time that it took.
#[derive(Default)]
struct Moved {
    mebibytes: f64,
    took: Duration,
}

impl Moved {
    /// In MiB/s.
    fn rate(&self) -> f64 {
        self.mebibytes / self.took.as_secs_f64()
    }
}

impl AddAssign for Moved {
    fn add_assign(&mut self, more: Self) {
        self.mebibytes += more.mebibytes;
        self.took += more.took;
    }
}

async fn transfer(client: &impl Client, down: bool, bytes: u64) -> Result<Moved> {
    let start = Instant::now();
    let moved = if down {
        client.download(bytes).await?
    } else {
        client.upload(bytes).await?
    };
    ensure!(moved == bytes, "{moved} of {bytes} bytes arrived");
    Ok(Moved {
        mebibytes: bytes as f64 / f64::from(1 << 20),
        took: start.elapsed(),
    })
}

/// Moves bytes that do not count.
async fn warm_up(client: &impl Client, down: bool, span: &Span) -> Result<()> {
    let start = Instant::now();
    loop {
        transfer(client, down, BULK_WARM_UP).await?;
        if start.elapsed() >= span.warm_up() {
            return Ok(());
        }
    }
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

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
