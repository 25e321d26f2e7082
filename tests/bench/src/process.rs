//! Processes: the program starts itself again as a server, as a relay and for each measurement, and
//! asks its servers what they have used up.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    io::{BufRead, BufReader, Write as _, stdin, stdout},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

use crate::{
    measure::Span,
    peers, relay,
    works::{self, Work},
};

/// Counts the allocations of this process, which costs time: only where it is asked for.
#[cfg(feature = "allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// What a process has used up so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Memory in use, in bytes; 0 where the system does not tell.
    pub(crate) resident: u64,
    pub(crate) allocations: Option<u64>,
}

impl Usage {
    pub(crate) fn of_this_process() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let (user, system) = (usage.user_time(), usage.system_time());
        let micros = |time: nix::sys::time::TimeVal| {
            time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64
        };
        Ok(Self {
            cpu: Duration::from_micros(micros(user) + micros(system)),
            resident: resident(),
            allocations: allocations(),
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            resident: self.resident.saturating_sub(before.resident),
            allocations: self
                .allocations
                .zip(before.allocations)
                .map(|(now, before)| now - before),
        }
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    let kibibytes = line.trim().trim_end_matches("kB").trim().parse::<u64>();
    kibibytes.unwrap_or_default() * 1024
}

fn allocations() -> Option<u64> {
    #[cfg(feature = "allocations")]
    {
        let stats = ALLOCATOR.stats();
        Some((stats.allocations + stats.reallocations) as u64)
    }
    #[cfg(not(feature = "allocations"))]
    None
}

/// A server, or a relay, in a process of its own; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: String,
    /// Ask, and be answered.
    control: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Server {
    pub(crate) fn start(peer: &str, work: Work) -> Result<Self> {
        Self::spawn(&["serve", peer, &work.to_string()])
            .with_context(|| format!("starting a server of {peer}"))
    }

    /// Something that passes bytes on to and from `address`, each `delay` late.
    pub(crate) fn relay(address: &str, delay: Duration) -> Result<Self> {
        Self::spawn(&["relay", address, &delay.as_millis().to_string()])
            .with_context(|| format!("starting a relay to {address}"))
    }

    fn spawn(args: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = stdin.zip(stdout).context("the process has no pipes")?;
        let mut control = (stdin, BufReader::new(stdout));
        let mut address = String::new();
        control.1.read_line(&mut address)?;
        let server = Self {
            child,
            address: address.trim().into(),
            control: RefCell::new(control),
        };
        ensure!(!server.address.is_empty(), "it ended before it listened");
        Ok(server)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let (stdin, stdout) = &mut *self.control.borrow_mut();
        stdin.write_all(b"usage\n")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context("the server has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself, which is what is wanted
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(path) = socket(&self.address) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The path of a Unix socket, where that is what an address says.
pub(crate) fn socket(address: &str) -> Option<&Path> {
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    path.is_absolute().then_some(path)
}

/// Tells the process that started this one where the server listens.
#[derive(Debug)]
pub(crate) struct Announce(Option<Work>);

impl Announce {
    /// What the server is started for.
    pub(crate) fn work(&self) -> Option<Work> {
        self.0
    }

    pub(crate) fn at(self, address: impl fmt::Display) -> Result<()> {
        println!("{address}");
        stdout().flush()?;
        std::thread::spawn(|| {
            for line in stdin().lock().lines() {
                let usage = Usage::of_this_process().map(|usage| serde_json::to_string(&usage));
                if let (Ok(_), Ok(Ok(usage))) = (line, usage) {
                    println!("{usage}");
                }
            }
            // whoever started this process is gone
            std::process::exit(0);
        });
        Ok(())
    }
}

pub(crate) fn serve(peer: &str, work: Work) -> Result<()> {
    let served = (peers::named(peer)?.serve)(Announce(Some(work)));
    match work.server_threads() {
        1 => block_on(served),
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()?
            .block_on(served),
    }
}

pub(crate) fn relay(address: &str, delay: Duration) -> Result<()> {
    block_on(relay::serve(address, delay, Announce(None)))
}

/// Measures one work once and prints its samples.
pub(crate) fn measure(peer: &str, work: Work, span: &Span) -> Result<()> {
    if let Some(core) = span.pin {
        pin(core)?;
    }
    // nobody waits for the samples once whoever started this is gone
    std::thread::spawn(|| {
        let _ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let samples = block_on((peers::named(peer)?.measure)(work, *span))?;
    println!("{}", serde_json::to_string(&samples)?);
    Ok(())
}

/// Does a work of hbi so many times in this process.
pub(crate) fn repeat(work: Work, times: usize) -> Result<()> {
    block_on(works::repeat(work, times))
}

/// Runs one measurement in a process of its own, which prints what `T` is read from.
pub(crate) fn run_measurement<T: for<'a> Deserialize<'a>>(
    peer: &str,
    work: Work,
    span: &Span,
    at_most: Duration,
) -> Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["measure", peer, &work.to_string()]);
    command.args(["--seconds", &span.measured.as_secs_f64().to_string()]);
    if let Some(core) = span.pin {
        command.args(["--pin", &core.to_string()]);
    }
    let mut child = command
        // a note is a line
        .env("RUST_BACKTRACE", "0")
        // it ends when this does
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let started = std::time::Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > at_most {
            // its server sees the end of its standard input, and ends too
            child.kill()?;
            child.wait()?;
            bail!("it took longer than {} s", at_most.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let text: Vec<_> = errors
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        bail!("{}", text.join("; "));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Keeps this thread busy for so much of the processor's time: what others take of it does not count.
pub(crate) fn compute(span: Duration) {
    let busy = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    // a system without the clock computes nothing, which the figures would show
    if let Ok(start) = busy() {
        while busy().is_ok_and(|now| now.saturating_sub(start) < span) {}
    }
}

/// Whether this process is allowed on a core.
pub(crate) fn may_run_on(core: usize) -> Result<bool> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok(core < CpuSet::count() && allowed.is_set(core)?)
}

/// Lets this process, and those it starts, run on one core only.
fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)
        .with_context(|| format!("running on core {core} only"))
}

/// Allows as many open files as the system lets: a connection is one.
pub(crate) fn raise_open_files() -> Result<()> {
    let most = open_files()?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}

/// How many files a process may have open.
pub(crate) fn open_files() -> Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
