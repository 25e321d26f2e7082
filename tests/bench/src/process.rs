//! Processes: the program starts itself again as a server, as a relay and for each measurement, and
//! asks its servers what they have used up.

use std::{
    cell::RefCell,
    fmt,
    fs::Permissions,
    future::Future,
    io::{BufRead, BufReader, Read, Write as _, stdin, stdout},
    ops::AddAssign,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
        signal::{SigSet, Signal},
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::runtime::Builder;

use crate::{
    measure::{Cores, Span},
    peers, relay,
    works::{self, Work},
};

/// Counts the allocations of this process, which costs time: only where it is asked for.
#[cfg(feature = "allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// What a process has used up so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.cpu += more.cpu;
        self.resident += more.resident;
        self.allocations = match (self.allocations, more.allocations) {
            (Some(some), Some(more)) => Some(some + more),
            (some, more) => some.or(more),
        };
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
    /// Ask, and be answered; closed at the end.
    control: RefCell<Option<(ChildStdin, BufReader<ChildStdout>)>>,
}

impl Server {
    /// A server on its core, or on both where its methods compute, as the process that starts it then
    /// goes to its own.
    pub(crate) fn start(peer: &str, work: Work, pin: Option<Cores>) -> Result<Self> {
        // counted before this process has but one
        let threads = work.server_threads(cores());
        match pin {
            Some(Cores { server, client }) if work.computes() => run_on(&[server, client])?,
            Some(cores) => run_on(&[cores.server])?,
            None => {}
        }
        let server = Self::spawn(&["serve", peer, &work.to_string(), &threads.to_string()])
            .with_context(|| format!("starting a server of {peer}"))?;
        if let Some(cores) = pin {
            run_on(&[cores.client])?;
        }
        Ok(server)
    }

    /// Something that passes bytes on to and from `address`, each `delay` late.
    pub(crate) fn relay(address: &str, delay: Duration) -> Result<Self> {
        Self::spawn(&["relay", address, &delay.as_millis().to_string()])
            .with_context(|| format!("starting a relay to {address}"))
    }

    fn spawn(args: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            // the end of its input ends it, not the terminal: it has files to remove
            .process_group(0)
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
            control: RefCell::new(Some(control)),
        };
        ensure!(!server.address.is_empty(), "it ended before it listened");
        Ok(server)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut control = self.control.borrow_mut();
        let (stdin, stdout) = control.as_mut().context("the server was ended")?;
        stdin.write_all(b"usage\n")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context("the server has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control.take();
        // it may have ended by itself, which is what is wanted
        let _ = self.child.wait();
    }
}

/// A directory of this process's own, for sockets and keys; made at its first use, and removed by
/// [`tidy`].
pub(crate) fn private_dir() -> Result<PathBuf> {
    let mut dir = PRIVATE.lock().expect("no holder panics");
    let dir = match &mut *dir {
        Some(dir) => dir,
        none => none.insert(
            tempfile::Builder::new()
                .prefix("hbi-bench-")
                .permissions(Permissions::from_mode(0o700))
                .tempdir()
                .context("making a directory for what only this process may read")?,
        ),
    };
    Ok(dir.path().into())
}

static PRIVATE: Mutex<Option<TempDir>> = Mutex::new(None);

/// Removes what this process leaves in the file system.
fn tidy() {
    PRIVATE.lock().expect("no holder panics").take();
}

/// A server's work, and how it tells where it listens.
#[derive(Debug)]
pub(crate) struct Announce(Work);

impl Announce {
    /// What the server is started for.
    pub(crate) fn work(&self) -> Work {
        self.0
    }

    pub(crate) fn at(self, address: impl fmt::Display) -> Result<()> {
        announce(address)
    }
}

/// Tells the process that started this one where this one listens, and from then on what it has used up,
/// as often as it is asked.
pub(crate) fn announce(address: impl fmt::Display) -> Result<()> {
    println!("{address}");
    stdout().flush()?;
    thread::spawn(|| {
        for line in stdin().lock().lines() {
            let usage = Usage::of_this_process().map(|usage| serde_json::to_string(&usage));
            if let (Ok(_), Ok(Ok(usage))) = (line, usage) {
                println!("{usage}");
            }
        }
        // whoever started this process is done with it, or gone
        tidy();
        std::process::exit(0);
    });
    Ok(())
}

pub(crate) fn serve(peer: &str, work: Work, threads: usize) -> Result<()> {
    let served = (peers::named(peer)?.serve)(Announce(work));
    let ended = match threads {
        1 => block_on(served),
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()?
            .block_on(served),
    };
    tidy();
    ended
}

pub(crate) fn relay(address: &str, delay: Duration) -> Result<()> {
    let ended = block_on(relay::serve(address, delay));
    tidy();
    ended
}

/// Measures one work once and prints its samples.
pub(crate) fn measure(peer: &str, work: Work, span: &Span) -> Result<()> {
    // nobody waits for the samples once whoever started this is gone
    thread::spawn(|| {
        let _ended = std::io::copy(&mut stdin(), &mut std::io::sink());
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

/// How often it is looked whether a measurement shall go on.
const LOOK: Duration = Duration::from_millis(50);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends what is being measured, and not this process, which has figures to show; a
/// second one ends it.
pub(crate) fn catch_interrupts() -> Result<()> {
    let mut interrupts = SigSet::empty();
    interrupts.add(Signal::SIGINT);
    // threads that are started later wait for no signal either, but for the one below
    interrupts.thread_block()?;
    thread::spawn(move || {
        let _ = interrupts.wait();
        INTERRUPTED.store(true, Ordering::Relaxed);
        let _ = interrupts.wait();
        std::process::exit(130);
    });
    Ok(())
}

pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
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
    if let Some(cores) = span.pin {
        command.args(["--pin", &cores.to_string()]);
    }
    let mut child = command
        // a note is a line
        .env("RUST_BACKTRACE", "0")
        // it ends when this does, and not by the terminal
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = stdout.zip(stderr).context("the process has no pipes")?;
    let (said, ended) = mpsc::channel();
    thread::spawn(move || said.send(read_all(stdout)));
    let errors = thread::spawn(|| read_all(stderr));
    let started = Instant::now();
    let output = loop {
        // it closes its output at its end
        match ended.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) if started.elapsed() < at_most && !is_interrupted() => {}
            output => break output,
        }
    };
    if output.is_err() {
        // its server sees the end of its standard input, and ends too
        child.kill()?;
    }
    let status = child.wait()?;
    let errors = errors.join().unwrap_or_default();
    let errors: Vec<_> = errors
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let errors = errors.join("; ");
    let errors = errors.trim_start_matches("error: ");
    match output {
        Err(_) => bail!("it took longer than {} s; {errors}", at_most.as_secs()),
        Ok(_) if !status.success() => bail!("{errors}"),
        Ok(output) => Ok(serde_json::from_str(&output)?),
    }
}

/// All that comes out of a pipe; what breaks it ends it.
fn read_all(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Keeps this thread busy for so much of the processor's time: what others take of it does not count.
pub(crate) fn compute(span: Duration) {
    let busy = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    // a system without the clock computes nothing, which the figures would show
    if let Ok(start) = busy() {
        while busy().is_ok_and(|now| now.saturating_sub(start) < span) {}
    }
}

/// How many cores this process may run on.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(0, usize::from)
}

/// Whether this process is allowed on a core.
pub(crate) fn may_run_on(core: usize) -> Result<bool> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok(core < CpuSet::count() && allowed.is_set(core)?)
}

/// Lets this thread, and the processes it starts, run on these cores only.
fn run_on(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("running on no cores but {cores:?}"))
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
